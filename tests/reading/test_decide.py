"""Thresholds, named operating points, and labels that have none."""

from __future__ import annotations

import pytest

from tests.models.support import card_for
from tests.reading.support import point
from wetread.errors import UsageError
from wetread.reading.decide import Decider


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
