"""Fixtures that several verbs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.support import small_segmenter
from wetread.models.bundle import save_reader


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, on a shelf."""
    made = small_segmenter(("lungs", "heart"))
    folder = tmp_path_factory.mktemp("shelf") / "organs"
    save_reader(folder, made.card, made.networks)
    return folder
