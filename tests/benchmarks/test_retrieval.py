"""The retrieval benchmark on eight films of known angles: the right figures with the right bars."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import retrieval
from tests.models.support import small_reader
from tests.retrieval.support import manifest_of
from wetread.models.bundle import save_reader


def test_every_figure_has_its_protocol_and_bars_are_of_trained_readers(tmp_path: Path) -> None:
    made = small_reader("cnn", 32)
    save_reader(tmp_path / "small", made.card, made.networks)
    manifest = manifest_of(tmp_path / "films", split=["train"] * 3 + ["test"] + ["train"] * 3 + ["test"])
    for bars in (True, False):
        figures = retrieval.measure(str(tmp_path / "small"), manifest, None, bars=bars)
        by_name = {figure.what: figure for figure in figures}
        assert [figure.bar for figure in figures if figure.bar] == ([">= 0.95", ">= 0.94"] if bars else [])
        assert "2 official test images of 2 patients against 6 training images" in by_name["small: mAP@5"].protocol
        assert by_name["small: recall@5, by chance"].value == pytest.approx(5 / 6, abs=0.05)
        assert by_name["small: nearest is of the same patient, if allowed"].n == 6


def test_published_figures_are_marked_as_such() -> None:
    assert all("quoted, not measured here" in figure.protocol for figure in retrieval.published())
