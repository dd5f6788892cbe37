"""Risk-coverage and AURC: on paper, by brute force over all orders of ties, and with intervals over patients."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.errors import StatisticRefused, UsageError
from wetread.evaluation.selective import aurc, certainty, risk_coverage, selective_result, weighted_aurc

Floats = NDArray[np.float64]


def mean_risk(wrong: list[float]) -> float:
    """AURC of cases in this order: the mean of the shares of errors among the first 1, 2, ... n."""
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def study(n: int, seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidences (n,) and errors that are the rarer the surer."""
    generator = np.random.default_rng(seed)
    sure = generator.random(n)
    return sure, generator.random(n) < 0.6 * (1 - sure)


def test_curve_and_area_by_hand() -> None:
    """Sure to unsure: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 1/2; their mean is 1/3."""
    sure, wrong = [0.6, 0.9, 0.8, 0.7], [1, 0, 1, 0]
    coverage, risk = risk_coverage(sure, wrong)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(sure, wrong) == pytest.approx(1 / 3)
    found = selective_result(sure, wrong)
    assert (found.n, found.errors, found.random) == (4, 2, 0.5)
    assert found.optimal == pytest.approx(mean_risk([0, 0, 1, 1]))  # (0 + 0 + 1/3 + 1/2) / 4
    assert found.excess.value == pytest.approx(1 / 3 - (1 / 3 + 1 / 2) / 4)


def test_ties_are_the_mean_over_all_orders() -> None:
    sure = np.array([3, 2, 2, 2, 2, 1, 1])
    wrong = np.array([0, 1, 0, 0, 1, 1, 0])
    orders = [
        mean_risk([0, *middle, *last]) for middle in permutations([1, 0, 0, 1]) for last in permutations([1.0, 0.0])
    ]
    assert aurc(sure, wrong) == pytest.approx(np.mean(orders), abs=1e-12)
    coverage, risk = risk_coverage(sure, wrong)
    np.testing.assert_allclose(coverage, [1 / 7, 5 / 7, 1])
    np.testing.assert_allclose(risk, [0, 2 / 5, 3 / 7])


def test_the_area_equals_the_definition_without_ties() -> None:
    sure, wrong = study(500)
    order = np.argsort(-sure)
    assert aurc(sure, wrong) == pytest.approx(mean_risk(wrong[order].tolist()), abs=1e-12)


def test_best_worst_and_random_rankings() -> None:
    _, wrong = study(400)
    found = selective_result(-wrong.astype(float) + np.linspace(0, 0.1, 400), wrong)
    assert found.aurc.value == pytest.approx(found.optimal, abs=1e-12)
    share = wrong.mean()
    # Geifman et al. 2019: the optimum tends to r + (1 - r) log(1 - r)
    assert found.optimal == pytest.approx(share + (1 - share) * np.log(1 - share), abs=2e-3)
    assert aurc(np.zeros(400), wrong) == pytest.approx(found.random, abs=1e-12)
    assert aurc(wrong.astype(float), wrong) > found.random
    generator = np.random.default_rng(0)
    shuffled = np.mean([aurc(generator.permutation(400), wrong) for _ in range(400)])
    assert shuffled == pytest.approx(found.random, abs=5e-3)


def test_weights_are_copies() -> None:
    sure, wrong = study(60)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
    found = weighted_aurc(sure, wrong.astype(float), weights)
    for row, area in zip(weights.astype(int), found, strict=True):
        assert area == pytest.approx(aurc(np.repeat(sure, row), np.repeat(wrong, row)), abs=1e-12)


def test_neither_the_order_of_rows_nor_the_scale_matters() -> None:
    sure, wrong = study(200)
    sure = np.round(sure, 1)  # many ties
    order = np.random.default_rng(0).permutation(200)
    assert aurc(sure[order], wrong[order]) == pytest.approx(aurc(sure, wrong), abs=1e-12)
    assert aurc(np.exp(5 * sure), wrong) == pytest.approx(aurc(sure, wrong), abs=1e-12)


def test_intervals_know_about_patients() -> None:
    """Each case five times: with patients the width is that of the single cases, without it is far too small."""
    sure, wrong = study(150)
    patients = np.arange(150).repeat(5)
    single = selective_result(sure, wrong).aurc
    copies = selective_result(sure.repeat(5), wrong.repeat(5), patients).aurc
    blind = selective_result(sure.repeat(5), wrong.repeat(5)).aurc
    widths = [one.high - one.low for one in (single, copies, blind) if one.high is not None and one.low is not None]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert widths[2] < 0.6 * widths[1]
    assert "over patients" in copies.method


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = aurc(*study(400_000, 99))
    inside = []
    for seed in range(120):
        found = selective_result(*study(300, seed), resamples=200, seed=seed).aurc
        assert found.low is not None
        assert found.high is not None
        inside.append(found.low <= truth <= found.high)
    assert np.mean(inside) >= 0.89  # 95 % within three standard errors


def test_the_curve_is_thinned_and_can_be_read() -> None:
    sure, wrong = study(3000)
    found = selective_result(sure, wrong, resamples=200)
    assert len(found.coverage) == len(found.risk) == 400
    assert found.coverage[-1] == 1
    assert found.risk[-1] == pytest.approx(wrong.mean())
    order = np.argsort(-sure)[:1500]
    assert found.risk_at(0.5) == pytest.approx(wrong[order].mean(), abs=2e-3)
    with pytest.raises(UsageError, match=r"a coverage from .* to 1, got 1.2; choose one in this range"):
        found.risk_at(1.2)


def test_without_errors_the_area_is_0_and_has_no_interval() -> None:
    found = selective_result(np.linspace(0, 1, 50), np.zeros(50))
    assert (found.aurc.value, found.optimal, found.random, found.aurc.low) == (0, 0, 0, None)
    assert "no interval" in found.aurc.note


def test_certainty_is_the_distance_from_the_decision() -> None:
    near, far = certainty([0.31, 0.99], threshold=0.3)
    assert near < far
    np.testing.assert_allclose(certainty([0.2, 0.8]), certainty([0.8, 0.2]))
    np.testing.assert_array_equal(certainty([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]), [0.5, 0.9])


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"confidence and errors \(n,\), got \(2,\) and \(3,\)"):
        aurc([1.0, 2.0], [0, 1, 0])
    with pytest.raises(StatisticRefused, match="cases with known truth, got none"):
        aurc([], [])
    with pytest.raises(StatisticRefused, match="finite confidences, got NaN"):
        aurc([np.nan, 1.0], [0, 1])
