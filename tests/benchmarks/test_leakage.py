"""The benchmark of leakage plants what it says and counts recall and precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.leakage import KINDS, cut, cut_all_round, figures_of, measure
from wetread.datasets.manifest import load_manifest
from wetread.datasets.phantom_dataset import DatasetPlan, make_dataset


def test_what_is_cut_has_the_size_that_is_named() -> None:
    film = Image.fromarray(np.zeros((200, 100), np.uint8))
    assert cut(film, np.random.default_rng(0)).size == (95, 190)
    assert cut_all_round(film, np.random.default_rng(0)).size == (90, 180)


def test_recall_and_precision_on_paper() -> None:
    planted = {frozenset((2 * i, 2 * i + 1)): "exact" if i < 4 else "mirrored" for i in range(8)}
    found = {*list(planted)[:6], frozenset((0, 9))}
    figures = {figure.what: figure for figure in figures_of(found, planted, 16, (1.0, 2.0))}
    assert (figures["recall of copies: exact"].value, figures["recall of copies: exact"].met) == (1.0, "yes")
    assert (figures["recall of copies: mirrored"].value, figures["recall of copies: mirrored"].met) == (0.5, "no")
    assert figures["precision of pairs found"].value == pytest.approx(6 / 7)


def test_copies_of_phantoms_are_found(tmp_path: Path) -> None:
    """Recall alone: phantoms of different patients resemble each other as films of real ones do not."""
    make_dataset(tmp_path / "set", DatasetPlan(n=60, size_px=128, masks=False, format="png", fractions={}))
    figures = measure(load_manifest(tmp_path / "set"), 2, 6, seed=0)
    recall = [figure.value for figure in figures if figure.what.startswith("recall")]
    assert len(recall) == len(KINDS)
    assert np.mean(recall) > 0.9
    assert any(figure.what.startswith("precision") for figure in figures)  # its value is one of real films
