"""The coverage benchmark runs, is repeatable, and shows what a wrong interval would look like."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.interval_coverage import COLUMNS, Setting, main, simulate


def test_quick_mode_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file in files:
        main(["--quick", "--repetitions", "20", "--resamples", "50", "--out", str(file)])
    capsys.readouterr()
    assert files[0].read_text() == files[1].read_text()
    with files[0].open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert {row["method"] for row in rows} == {
        "DeLong",
        "logit-DeLong",
        "logit-DeLong by patient",
        "bootstrap percentile",
        "wetread",
    }


def test_true_area_is_that_of_the_setting() -> None:
    from wetread.evaluation.auroc import auroc

    for per_patient in (1, 5):
        scores, truth, _ = Setting(0.9, 20_000, per_patient).draw(np.random.default_rng(0))
        assert auroc(scores, truth) == pytest.approx(0.9, abs=0.01)


def test_logit_delong_covers_and_ignoring_patients_does_not() -> None:
    """At .8 with 100 per class: about 95 % with single images; far less when copies count as cases."""
    single = {str(row["method"]): row for row in simulate(Setting(0.8, 100), 400, 0)}
    assert 0.92 <= float(str(single["wetread"]["coverage"])) <= 0.98
    several = {str(row["method"]): row for row in simulate(Setting(0.8, 150, 5), 400, 0)}
    assert float(str(several["logit-DeLong"]["coverage"])) < 0.85
    assert float(str(several["wetread"]["coverage"])) > 0.89
    near_one = {str(row["method"]): row for row in simulate(Setting(0.98, 15), 200, 0)}
    assert float(str(near_one["wetread"]["no_interval"])) > 0.7
