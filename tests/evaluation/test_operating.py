"""Thresholds: worked by hand, ties, perfect separation, saturated scores, refusals."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from wetread.errors import StatisticRefused, UsageError
from wetread.evaluation.operating import DEFAULT_RULES, choose_operating_points, default_operating_point


def middle(low: float, high: float) -> float:
    """The middle in logits, written out."""
    value = (np.log(low / (1 - low)) + np.log(high / (1 - high))) / 2
    return float(1 / (1 + np.exp(-value)))


def thresholds(p: list[float], y: list[float], *rules: str) -> list[float]:
    return [point.threshold for point in choose_operating_points(p, y, "x", rules)]


def test_by_hand() -> None:
    """Sorted: .1- .2+ .3- .4- .6+ .7+ .8- .9+; 4 of each.

    Youden: at .6 sensitivity 3/4, specificity 3/4 (index .5), the best cut. Sensitivity 1 needs .2;
    specificity 1 starts above .8.
    """
    p, y = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], [0.0, 1, 0, 0, 1, 1, 0, 1]
    found = choose_operating_points(p, y, "x", ("youden", "sensitivity=1", "specificity=1", "sensitivity=0.75"))
    assert [point.threshold for point in found] == pytest.approx(
        [middle(0.4, 0.6), middle(0.1, 0.2), middle(0.8, 0.9), middle(0.4, 0.6)]
    )
    assert (found[0].sensitivity.value, found[0].specificity.value) == (0.75, 0.75)
    assert (found[1].sensitivity.value, found[1].specificity.value) == (1.0, 0.25)
    assert found[0].sensitivity.method == "Wilson"
    assert found[0].sensitivity.n == 4
    assert found[0].rule == "youden on validation, 4 positive and 4 negative"


@pytest.mark.parametrize("seed", range(5))
def test_youden_equals_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    y = (generator.random(300) < 0.3).astype(float)
    p = 1 / (1 + np.exp(-generator.normal(2 * y - 1, 1.5)))
    false_rate, true_rate, _ = roc_curve(y, p)
    point = choose_operating_points(p, y, "x", ("youden",))[0]
    assert point.sensitivity.value is not None
    assert point.specificity.value is not None
    assert point.sensitivity.value + point.specificity.value - 1 == pytest.approx((true_rate - false_rate).max())


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_targets_are_reached_and_no_more(target: float) -> None:
    generator = np.random.default_rng(1)
    y = np.r_[np.ones(80), np.zeros(120)]
    p = np.round(1 / (1 + np.exp(-generator.normal(2 * y - 1))), 2)  # ties
    sensitive, specific = choose_operating_points(p, y, "x", (f"sensitivity={target}", f"specificity={target}"))
    assert (p[y == 1] >= sensitive.threshold).mean() >= target
    higher = np.unique(p[p >= sensitive.threshold])[0] + 1e-9
    assert (p[y == 1] >= higher).mean() < target or target == 0
    assert (p[y == 0] < specific.threshold).mean() >= target
    lower = p[p < specific.threshold].max()
    assert (p[y == 0] < lower).mean() < target


def test_perfect_separation_is_cut_in_the_middle_of_the_gap_in_logits() -> None:
    found = thresholds([0.001, 0.01, 0.9, 0.99], [0, 0, 1, 1], *DEFAULT_RULES)
    assert found == pytest.approx([middle(0.01, 0.9)] * 3)
    assert middle(0.01, 0.9) == pytest.approx(0.2317, abs=1e-4)  # logits -4.595 and 2.197: -1.199


def test_saturated_scores_are_still_separated() -> None:
    assert thresholds([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], "youden") == pytest.approx([0.5], abs=1e-4)
    near = float(np.nextafter(1.0, 0.0))
    (found,) = thresholds([near, near, 1.0, 1.0], [0, 0, 1, 1], "youden")
    assert near < found <= 1.0


def test_ties_go_to_the_balanced_cut_then_to_the_widest_gap() -> None:
    """Sorted .1- .2- .3+ .5- .6+ .7+: cuts below .3 and below .6 both have index 2/3, mirrored.

    Both are unbalanced by 1/3; the gap .5 to .6 is narrower in logits than .2 to .3.
    """
    p, y = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7], [0.0, 0, 1, 0, 1, 1]
    assert thresholds(p, y, "youden") == pytest.approx([middle(0.2, 0.3)])


def test_useless_scores_give_every_image_one_decision_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        points = choose_operating_points([0.5] * 4, [0, 1, 0, 1], "x", ("sensitivity=0.95", "specificity=0.95"))
    assert points[0].threshold == 0.0
    assert points[1].threshold > 0.5
    assert (points[0].specificity.value, points[1].sensitivity.value) == (0.0, 0.0)
    assert "gives every image of label x the same decision" in caplog.text
    with caplog.at_level(logging.WARNING):
        (beyond,) = choose_operating_points([1.0] * 4, [0, 1, 0, 1], "x", ("specificity=0.95",))
    assert beyond.threshold > 1.0


def test_unknown_targets_are_left_out_and_patients_widen_the_interval() -> None:
    p, y = np.tile([0.2, 0.4, 0.6, 0.8], 30), np.tile([0.0, 1.0, 0.0, 1.0], 30)
    unknown = np.r_[y, np.full(40, np.nan)]
    plain = choose_operating_points(np.r_[p, np.full(40, 0.99)], unknown, "x", ("youden",))[0]
    assert plain == choose_operating_points(p, y, "x", ("youden",))[0]
    patients = np.arange(120) // 12
    grouped = choose_operating_points(p, y, "x", ("youden",), groups=patients)[0]
    assert grouped.threshold == plain.threshold
    assert grouped.sensitivity.method == "Wilson, clustered by patient"


def test_refusals() -> None:
    with pytest.raises(StatisticRefused, match="label x, got 0 positive, 2 negative"):
        choose_operating_points([0.1, 0.2], [0, 0], "x")
    with pytest.raises(StatisticRefused, match="probabilities between 0 and 1"):
        choose_operating_points([0.1, 1.2], [0, 1], "x")
    with pytest.raises(StatisticRefused, match="probabilities between 0 and 1"):
        choose_operating_points([0.1, np.nan], [0, 1], "x")
    with pytest.raises(UsageError, match=r"probabilities and targets \(n,\)"):
        choose_operating_points([[0.1, 0.9]], [0, 1], "x")
    with pytest.raises(UsageError, match="a rule 'youden', 'sensitivity=X' or 'specificity=X', got 'best'"):
        choose_operating_points([0.1, 0.9], [0, 1], "x", ("best",))
    for rule in ("sensitivity=95", "sensitivity=", "specificity=0"):
        with pytest.raises(UsageError, match="a target above 0 and at most 1"):
            choose_operating_points([0.1, 0.9], [0, 1], "x", (rule,))


def test_fixed_threshold_is_named_as_such() -> None:
    point = default_operating_point("x")
    assert (point.name, point.threshold, point.sensitivity.n) == ("fixed 0.5", 0.5, 0)
    assert point.rule == "fixed, not chosen on validation"
