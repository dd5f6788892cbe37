"""T13: a planted gap is found, equal groups pass, and small groups are said to be too small."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wetread.audit.groups import groups_line
from wetread.audit.thresholds import Thresholds
from wetread.evaluation.result import EvaluationSpec

SPEC = EvaluationSpec(task="binary", classes=("well", "ill"), resamples=200)


def predictions(rates: dict[str, float], each: int = 300) -> pd.DataFrame:
    """Readings with the sensitivity and specificity of ``rates`` in each sex; the operating point is 0.5."""
    rng = np.random.default_rng(0)
    parts = []
    for sex, rate in rates.items():
        ill = np.arange(each) % 2 == 1
        right = rng.random(each) < rate
        p = np.where(ill == right, rng.uniform(0.6, 0.95, each), rng.uniform(0.05, 0.4, each))
        parts.append(pd.DataFrame({
            "image": [f"{sex}{i}" for i in range(each)], "patient": [f"{sex}{i}" for i in range(each)],
            "target": np.where(ill, "ill", "well"), "probability_ill": p, "sex": sex, "age": 50,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_a_planted_gap_fails_and_is_named() -> None:
    line = groups_line(predictions({"F": 0.65, "M": 0.95}), SPEC, Thresholds())
    assert line.answer == "FAIL"
    assert "for sex" in line.sentence
    worst = max(abs(figure.estimate.value or 0) for figure in line.figures)
    assert worst == pytest.approx(0.3, abs=0.12)
    assert line.thresholds == {"t13_gap_pass": 0.05, "t13_gap_fail": 0.1}


def test_equal_groups_pass() -> None:
    women = predictions({"F": 0.9})
    men = women.assign(sex="M", image="M" + women["image"], patient="M" + women["patient"])
    line = groups_line(pd.concat([women, men], ignore_index=True), SPEC, Thresholds())
    assert line.answer == "PASS"
    assert {figure.estimate.value for figure in line.figures} == {0.0}
    assert line.sentence.startswith("No group differs from the others for certain")


def test_small_groups_and_missing_columns_are_not_assessable() -> None:
    small = groups_line(predictions({"F": 0.9, "M": 0.9}, each=30), SPEC, Thresholds())
    assert small.answer == "NOT ASSESSABLE"
    assert "fewer than 50" in " ".join(small.notes)
    without = groups_line(predictions({"F": 0.9}).drop(columns=["sex", "age"]), SPEC, Thresholds())
    assert without.answer == "NOT ASSESSABLE"
    assert without.cure == "add one of the columns sex, age group, view, source to the manifest"
