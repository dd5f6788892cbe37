"""The coverage benchmark: its laws hold and can be broken, its studies are what their names say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import Figure
from benchmarks.conformal_coverage import (
    SPREADS,
    TRUE_ECE,
    Tally,
    cases,
    main,
    new_cases,
    patients,
    splits_of_a_pool,
    studies,
    verdicts,
)
from wetread.evaluation.auroc import auroc
from wetread.evaluation.calibration import ece


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.what: figure for figure in figures}


def test_splits_follow_the_law_marginal_and_in_each_class() -> None:
    found = by_name(splits_of_a_pool(120, 200, seed=5))
    assert len(found) == 8
    for what, figure in found.items():
        if what.endswith("Smirnov p"):
            assert figure.value > 1e-3, what
            assert figure.bar == ">= 0.01"
        else:
            assert figure.value == pytest.approx(0.9, abs=0.025)
    assert new_cases(200, 100, seed=5)[1].value > 1e-3


def test_a_quantile_of_one_rank_less_and_copies_of_patients_are_noticed() -> None:
    generator = np.random.default_rng(0)
    right, wrong = Tally(), Tally()
    for _ in range(400):
        scores = np.sort(generator.random(50))
        right.add_share(float(scores[45]), 50)  # k = ceil(51 * .9) = 46
        wrong.add_share(float(scores[44]), 50)
    assert right.figures("right", "")[1].value > 0.01
    assert wrong.figures("wrong", "")[1].value < 0.01
    found = by_name(patients(150, seed=5))
    assert found["patients, one image of each (the default): Kolmogorov-Smirnov p"].value > 1e-3
    assert found["patients, every image counted as a case: Kolmogorov-Smirnov p"].value < 1e-3


def test_counts_of_the_true_law_are_uniform() -> None:
    generator = np.random.default_rng(0)
    tally = Tally()
    for _ in range(1500):
        tally.add_count(int((generator.random(30) < generator.beta(18, 3)).sum()), 30, 20, generator)  # k = 19 of 20
    assert tally.figures("wrong", "")[1].value < 1e-6
    tally = Tally()
    for _ in range(1500):
        tally.add_count(int((generator.random(30) < generator.beta(19, 2)).sum()), 30, 20, generator)
    assert tally.figures("right", "")[1].value > 0.01


def test_studies_are_what_their_names_say() -> None:
    generator = np.random.default_rng(0)
    for name, study, bar in studies():
        many = type(study)(200_000, study.spread, study.factor, study.offset)
        p, y, _ = many.draw(generator)
        calibrated = name.startswith("calibrated")
        assert ece(p, y) == pytest.approx(0 if calibrated else TRUE_ECE, abs=0.012)
        assert bar == ("<= 0.05" if calibrated else ">= 0.8")
        if calibrated:
            assert auroc(p, y) == pytest.approx(float(SPREADS[study.spread]), abs=0.006)
    p, truth = cases(50_000, generator)
    np.testing.assert_allclose(np.bincount(truth) / 50_000, [0.6, 0.25, 0.15], atol=0.05)
    assert ece(p.max(axis=1), p.argmax(axis=1) == truth) > 0.05


def test_verdicts_are_counted() -> None:
    name, study, bar = next(one for one in studies() if one[0].startswith("overconfident, AUROC .86"))
    failed, passed = verdicts(name, study, bar, 15, seed=5)
    assert failed.value >= 0.6
    assert passed.value <= 0.2
    assert (failed.n, failed.bar, passed.bar) == (15, ">= 0.8", "")
    assert "true ECE 0.10" in failed.protocol


def test_the_table_is_written_and_repeatable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.conformal_coverage.studies", lambda: studies()[:1])
    tables = []
    for name in ("a.csv", "b.csv"):
        main(["--repetitions", "20", "--studies", "3", "--out", str(tmp_path / name)])
        with (tmp_path / name).open(encoding="utf-8") as stream:
            tables.append([(row["what"], row["value"], row["met"]) for row in csv.DictReader(stream)])
    capsys.readouterr()
    assert tables[0] == tables[1]
    assert len(tables[0]) == 30
