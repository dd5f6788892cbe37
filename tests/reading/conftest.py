"""Fixtures of the reading tests: one small reader, loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reading.support import shared_bundle

if TYPE_CHECKING:
    from wetread.models.predict import Reader


@pytest.fixture(scope="session")
def reader_folder() -> Path:
    return shared_bundle()


@pytest.fixture(scope="session")
def reader(reader_folder: Path) -> Reader:
    from wetread.models.bundle import load_reader

    return load_reader(reader_folder)
