"""T15: a reader of grey survives, one of grain does not, and losses are paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.audit.looking import MIDDLE, ORGAN, Grain, films, looking_at, write
from wetread.audit.robustness import CONDITIONS, auroc_loss, judge_robustness, robustness_variants, turned
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import OneLabel, read_variants
from wetread.datasets.manifest import Manifest


def grained(folder: Path, count: int = 80) -> Manifest:
    """The organ of the ill has a chequered grain, and no other grey."""
    manifest = films(folder, count, signal=None)
    rng = np.random.default_rng(1)
    checks = np.indices((64, 64)).sum(0) % 2 - 0.5
    for path, label in zip(manifest.table["path"], manifest.table["label"], strict=True):
        pixels = np.full((64, 64), 0.3) + rng.normal(0, 0.01, (64, 64))
        pixels[ORGAN] += 0.06 * checks[ORGAN] * (label == "ill")
        write(folder / path, pixels)
    return manifest


def test_a_reader_of_grey_survives_everything(tmp_path: Path) -> None:
    readings = read_variants(looking_at(MIDDLE, 0.6), films(tmp_path), robustness_variants())
    line, pictures = judge_robustness(readings, Thresholds())
    assert (line.code, line.answer, line.cure, pictures) == ("T15", "PASS", "", {})
    assert line.sentence == f"None of {len(CONDITIONS)} conditions costs any AUROC."
    assert [one.what for one in line.figures] == [f"loss of AUROC ill, {name}" for name in CONDITIONS]


def test_a_reader_of_grain_fails_where_details_are_lost(tmp_path: Path) -> None:
    readings = read_variants(looking_at(MIDDLE, 0.03, Grain), grained(tmp_path), robustness_variants())
    line, _ = judge_robustness(readings, Thresholds())
    lost = {one.what.removeprefix("loss of AUROC ill, "): one.estimate.value or 0.0 for one in line.figures}
    assert line.answer == "FAIL"
    assert lost["scaled to 1/2 and back"] > 0.3
    assert abs(lost["gamma 1.25"]) < 0.02
    assert "scaled to" in line.sentence
    assert line.cure


def test_few_patients_are_not_compared(tmp_path: Path) -> None:
    readings = read_variants(looking_at(MIDDLE, 0.6), films(tmp_path, 40), robustness_variants())
    line, _ = judge_robustness(readings, Thresholds())
    assert line.answer == "NOT ASSESSABLE"
    assert "fewer than 30 patients in a class: ill" in line.notes[-1]


def pair(before: np.ndarray, after: np.ndarray, patients: np.ndarray | None = None) -> OneLabel:
    n = len(before)
    names = np.array([f"p{k}" for k in range(n)]) if patients is None else patients
    return OneLabel(before, after, np.arange(n) % 2 == 1, names, np.arange(n))


def test_a_loss_by_hand() -> None:
    """Of 2 x 2 pairs, four are right before and two after."""
    found = auroc_loss(pair(np.array([0.1, 0.8, 0.2, 0.9]), np.array([0.5, 0.8, 0.2, 0.3])))
    assert found.value == pytest.approx(1.0 - 0.75)
    same = auroc_loss(pair(np.array([0.1, 0.8, 0.2, 0.9]), np.array([0.2, 0.7, 0.3, 0.8])))
    assert (same.value, same.low) == (0.0, None)
    assert "rank every pair alike" in same.note


def test_the_interval_of_a_loss_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(400) % 2
    before = y + rng.normal(0, 1, 400)
    one = pair(before, before + rng.normal(0, 0.7, 400))
    found = auroc_loss(one)
    drawn = []
    for _ in range(600):
        at = rng.integers(0, 400, 400)
        drawn.append(_area(one.before[at], y[at]) - _area(one.after[at], y[at]))
    assert found.low is not None
    assert found.high is not None
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)
    assert _area(one.before, y) - _area(one.after, y) == pytest.approx(found.value)


def _area(scores: np.ndarray, y: np.ndarray) -> float:
    differences = scores[y == 1][:, None] - scores[y == 0][None, :]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


def test_several_films_of_a_patient_are_no_new_patients() -> None:
    rng = np.random.default_rng(5)
    y = np.arange(100) % 2
    before = y + rng.normal(0, 1, 100)
    after = before + rng.normal(0, 0.7, 100)
    once = auroc_loss(pair(before, after))
    patients = np.tile(np.arange(100).astype(str), 10)
    first, second, truth = (np.tile(one, 10) for one in (before, after, y == 1))
    tenfold = auroc_loss(OneLabel(first, second, truth, patients, np.arange(1000)))
    assert "clustered by patient" in tenfold.method
    for narrow, wide in ((once.low, tenfold.low), (once.high, tenfold.high)):
        assert narrow is not None
        assert wide == pytest.approx(narrow, abs=0.01)


def test_a_film_turns_about_its_centre_without_black_corners() -> None:
    grey = np.full((80, 120), 0.4, np.float32)
    np.testing.assert_allclose(turned(grey, 5), 0.4, atol=1e-6)
    dot = np.zeros((101, 101), np.float32)
    dot[48:53, 88:93] = 1
    rows, columns = np.nonzero(turned(dot, 5) > 0.5)
    assert rows.mean() == pytest.approx(50 - 40 * np.sin(np.radians(5)), abs=0.6)  # anticlockwise: up at the right
    assert columns.mean() == pytest.approx(50 + 40 * np.cos(np.radians(5)), abs=0.6)
    assert turned(dot, -5).shape == dot.shape
