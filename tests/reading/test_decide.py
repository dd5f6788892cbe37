"""Thresholds, named operating points, and labels that have none."""

from __future__ import annotations

import pytest

from tests.models.support import card_for
from tests.reading.support import point
from wetread.errors import UsageError
from wetread.models.card import ConformalSpec
from wetread.reading.decide import Decider, prediction_set


def test_at_the_threshold_is_positive() -> None:
    decider = Decider(card_for(operating_points=(point("youden", "finding", 0.3),)))
    assert [decider.decide([p])[0].decision for p in (0.2999, 0.3, 0.9)] == ["negative", "positive", "positive"]


def test_the_named_point_is_used_and_reported() -> None:
    points = (point("youden", "finding", 0.3), point("specificity=0.95", "finding", 0.8))
    reading = Decider(card_for(operating_points=points), "specificity=0.95").decide([0.5])[0]
    assert reading.decision == "negative"
    assert reading.operating_point == points[1]


def test_an_unknown_point_names_those_there_are() -> None:
    card = card_for(operating_points=(point("youden", "finding", 0.3),))
    with pytest.raises(UsageError, match=r"an operating point of small, got 'best'; choose one of: youden"):
        Decider(card, "best")


def test_without_points_the_fixed_threshold_is_named_as_such() -> None:
    reading = Decider(card_for()).decide([0.6])[0]
    assert reading.decision == "positive"
    assert reading.operating_point is not None
    assert reading.operating_point.name == "fixed 0.5"
    assert "No threshold was chosen" in reading.reason


def test_a_label_without_the_named_point_is_withheld_with_its_probability() -> None:
    points = (point("youden", "a", 0.5), point("youden", "b", 0.5), point("sensitivity=0.95", "a", 0.1))
    card = card_for(("a", "b"), task="multilabel", operating_points=points)
    first, second = Decider(card, "sensitivity=0.95").decide([0.2, 0.9])
    assert (first.decision, second.decision) == ("positive", "withheld")
    assert second.probability == 0.9
    assert second.reason


def test_classes_without_points_go_to_the_most_probable() -> None:
    readings = Decider(card_for(("a", "b", "c"))).decide([0.2, 0.5, 0.3])
    assert [reading.decision for reading in readings] == ["negative", "positive", "negative"]


def test_withheld_readings_have_no_probability() -> None:
    for reading in Decider(card_for(("a", "b"))).withhold("It is blank."):
        assert (reading.probability, reading.decision, reading.reason) == (None, "withheld", "It is blank.")


def sets_of(**quantiles: float) -> ConformalSpec:
    values: dict[str, float | None] = dict(quantiles)
    n = dict.fromkeys(quantiles, 50)
    return ConformalSpec(alpha=0.05, rule="", cases="", n=n, conditional=values, marginal=dict.fromkeys(quantiles))


def test_the_prediction_set_comes_from_the_card() -> None:
    card = card_for(("a", "b", "c"), conformal=sets_of(a=0.6, b=0.6, c=0.95))
    found = prediction_set(card, Decider(card).decide([0.5, 0.45, 0.05]))
    assert found is not None
    assert (found.classes, found.alpha, found.abstains) == (("a", "b", "c"), 0.05, True)
    assert found.reason == "3 classes remain possible at an error rate of 5 %: a, b, c."
    alone = prediction_set(card, Decider(card).decide([0.94, 0.02, 0.04]))
    assert alone is not None
    assert (alone.classes, alone.abstains, alone.reason) == (("a",), False, "")


def test_without_quantiles_or_probabilities_there_is_no_prediction_set() -> None:
    bare = card_for()
    assert prediction_set(bare, Decider(bare).decide([0.6])) is None
    card = card_for(conformal=sets_of(normal=0.6, finding=0.6))
    assert prediction_set(card, Decider(card).withhold("It is blank.")) is None
    assert prediction_set(card, Decider(card).decide([0.6])) is not None
