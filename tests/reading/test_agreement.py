"""Ratio and classifier beside each other, by hand: who says what, when nothing is claimed, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.reading.support import facts_of
from wetread.reading.agreement import LIMIT, agreement_on, mask_cautions, ratio_says, told_apart
from wetread.reading.mask_quality import oddities_of
from wetread.reading.measures import CARDIOTHORACIC_RATIO
from wetread.types import Agreement, Decision, LabelReading, Measure

ADULT: dict[str, Any] = {"view": "PA", "age_years": 60.0}


def ratio(value: float | None, reason: str = "") -> Measure:
    return Measure(name=CARDIOTHORACIC_RATIO, organ="heart", value=value, unit="1", reason=reason)


def label(decision: Decision, name: str = "cardiomegaly") -> LabelReading:
    return LabelReading(label=name, probability=None if decision == "withheld" else 0.5, decision=decision)


def compared(value: float | None, decision: Decision, reason: str = "", **facts: Any) -> Agreement:
    found = agreement_on([label(decision)], [ratio(value, reason)], facts_of(**(ADULT | facts)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "decision", "says", "agree", "sentence"),
    [
        (0.56, "positive", "positive", True,
         "The cardiothoracic ratio is 0.56, above the limit of 0.50, and the classifier finds cardiomegaly: "
         "they agree."),
        (0.56, "negative", "positive", False,
         "The cardiothoracic ratio is 0.56, above the limit of 0.50, but the classifier finds no cardiomegaly: "
         "they disagree."),
        (0.44, "negative", "negative", True,
         "The cardiothoracic ratio is 0.44, not above the limit of 0.50, and the classifier finds no cardiomegaly: "
         "they agree."),
        (0.44, "positive", "negative", False,
         "The cardiothoracic ratio is 0.44, not above the limit of 0.50, but the classifier finds cardiomegaly: "
         "they disagree."),
    ],
)  # fmt: skip
def test_four_ways_to_meet(value: float, decision: Decision, says: str, agree: bool, sentence: str) -> None:
    found = compared(value, decision)
    assert (found.value, found.limit, found.measure_says, found.classifier_says) == (value, 0.5, says, decision)
    assert found.agree is agree
    assert found.sentence == sentence
    assert (found.reason, found.cautions) == ("", ())
    assert "Danzer 1919" in found.source


def test_half_the_chest_is_not_above_half() -> None:
    assert compared(LIMIT, "negative").measure_says == "negative"
    assert compared(np.nextafter(LIMIT, 1), "negative").measure_says == "positive"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.56, ("0.56", "0.50")), (0.503, ("0.503", "0.500")), (0.49996, ("0.50", "0.50")), (0.5, ("0.50", "0.50"))],
)
def test_ratio_and_limit_read_differently_where_four_decimals_can_tell(value: float, shown: tuple[str, str]) -> None:
    assert told_apart(value, LIMIT) == shown


@pytest.mark.parametrize("view", ["AP", "ap supine", "ANTERO-POSTERIOR"])
def test_an_ap_film_shows_the_ratio_and_claims_nothing(view: str) -> None:
    found = compared(0.56, "positive", view=view)
    assert (found.value, found.measure_says, found.classifier_says, found.agree) == (0.56, None, "positive", None)
    reason = f"the limit holds for PA films, and the file states the view {view.upper()}, which shows the heart larger"
    assert found.reason == reason
    assert found.sentence == (
        f"The cardiothoracic ratio is 0.56; it is not compared with the classifier, because {reason}."
    )


def test_other_views_claim_nothing_and_pa_may_be_written_out() -> None:
    assert ratio_says(ratio(0.56), facts_of(view="LLD", age_years=60.0)) == (
        None,
        "the limit holds for PA films, and the file states the view LLD",
    )
    for view in ("pa", " PA ", "PA ERECT", "Postero-anterior"):
        assert ratio_says(ratio(0.56), facts_of(view=view, age_years=60.0)) == ("positive", "")


def test_children_have_no_limit() -> None:
    assert ratio_says(ratio(0.56), facts_of(view="PA", age_years=17.9)) == (
        None,
        "the limit holds for adults, and the file states the age of a child",
    )
    assert ratio_says(ratio(0.56), facts_of(view="PA", age_years=18.0)) == ("positive", "")


def test_what_the_file_does_not_state_becomes_a_caution() -> None:
    found = compared(0.56, "positive", view=None, age_years=None)
    assert found.agree is True
    assert found.cautions == (
        "The file states no view; in an AP film the ratio would be too large.",
        "The file states no age; the limit holds for adults.",
    )
    assert compared(0.56, "positive", view=" ").cautions == found.cautions[:1]
    assert compared(0.56, "positive", view=None, age_years=5.0).cautions == ()  # nothing is claimed


def test_without_a_ratio_the_reason_is_its_own() -> None:
    found = compared(None, "positive", "the mask of the heart is empty")
    assert (found.value, found.measure_says, found.classifier_says, found.agree) == (None, None, "positive", None)
    assert found.sentence == (
        "There is no cardiothoracic ratio to compare with the classifier, because the mask of the heart is empty."
    )


def test_a_withheld_answer_agrees_with_nothing() -> None:
    found = compared(0.56, "withheld")
    assert (found.measure_says, found.classifier_says, found.agree) == ("positive", None, None)
    assert found.sentence.endswith("not compared with the classifier, because the classifier gave no answer.")


def test_only_the_label_cardiomegaly_has_a_ruler() -> None:
    facts = facts_of(**ADULT)
    assert agreement_on([label("positive", "pneumonia")], [ratio(0.56)], facts) is None
    assert agreement_on([label("positive")], [], facts) is None  # the segmenter does not look for both organs
    found = agreement_on([label("positive", "effusion"), label("negative", " Cardiomegaly")], [ratio(0.56)], facts)
    assert found is not None
    assert (found.label, found.agree) == (" Cardiomegaly", False)


def test_odd_masks_are_cautions_wherever_there_is_a_ratio() -> None:
    box = np.zeros((200, 200), np.bool_)
    box[80:140, 60:140] = True
    speck = np.zeros((200, 200), np.bool_)
    speck[0:3, 0:3] = True
    masks = {"heart": speck, "clavicle": speck}
    assert mask_cautions(oddities_of({"heart": box})) == ()
    (caution,) = mask_cautions(oddities_of(masks))
    assert caution == "The mask of the heart is odd (too small); the ratio leans on it."
    facts = facts_of(**(ADULT | {"view": "AP"}))
    shown = agreement_on([label("positive")], [ratio(0.56)], facts, (caution,))
    missing = agreement_on([label("positive")], [ratio(None, "x")], facts, (caution,))
    assert shown is not None
    assert missing is not None
    assert (shown.cautions, missing.cautions) == ((caution,), ())
