"""Lines of an audit become a verdict: nothing passes by not being asked, and T3 is read in the light of T4."""

from __future__ import annotations

import pytest

from wetread.audit.result import GROUPS, QUESTIONS, Answered, AuditLine, verdict_of, weighed
from wetread.audit.thresholds import Thresholds, thresholds_of
from wetread.errors import UsageError


def lines(**answers: Answered) -> tuple[AuditLine, ...]:
    every: dict[str, Answered] = dict.fromkeys(QUESTIONS, "PASS") | answers  # type: ignore[assignment]
    return tuple(
        AuditLine(code=code, question=QUESTIONS[code], answer=answer, sentence=f"{code}.")
        for code, answer in every.items()
    )


def test_every_question_has_a_place_on_the_page() -> None:
    assert [code for codes in GROUPS.values() for code in codes] == list(QUESTIONS) == [f"T{i}" for i in range(1, 17)]


@pytest.mark.parametrize(
    ("reader", "left"), [("PASS", "WARN"), ("WARN", "FAIL"), ("FAIL", "FAIL"), ("NOT ASSESSABLE", "FAIL")]
)
def test_a_shortcut_of_the_data_is_a_warning_only_for_a_reader_that_was_shown_not_to_use_it(
    reader: Answered, left: str
) -> None:
    found = {line.code: line for line in weighed(lines(T3="FAIL", T4=reader))}
    assert found["T3"].answer == left
    assert ("does not use it, as far as tested" in found["T3"].sentence) == (left == "WARN")
    assert found["T4"].answer == reader


def test_a_failed_decisive_line_fails_the_reader_and_watermarks_it() -> None:
    found = verdict_of(lines(T2="FAIL", T9="FAIL"), "films")
    assert found.verdict == "FAIL T2 on films"
    assert found.failed == ("T2", "T9")
    assert found.watermark == (
        "Do not trust this reader: shortcut or leak (T2, the source gives the label away) on films."
    )


def test_a_failed_line_of_another_kind_is_a_warning_without_a_watermark() -> None:
    found = verdict_of(lines(T13="FAIL", T5="WARN"), "films")
    assert found.verdict == "WARN T5, T13 on films"
    assert found.failed == ("T13",)
    assert found.watermark is None


def test_nothing_passes_by_not_being_asked() -> None:
    assert verdict_of(lines(), "films").verdict == "PASS on films"
    assert verdict_of(lines(T4="NOT ASSESSABLE"), "films").verdict == "OPEN T4 not assessable on films"
    without = tuple(line for line in lines() if line.code not in ("T1", "T2"))
    assert verdict_of(without, "films").verdict == "OPEN T1, T2 not assessable on films"
    later = verdict_of(lines(T6="NOT ASSESSABLE"), "films")
    assert later.verdict == "PASS on films"
    assert later.headline == "Passed, as far as could be asked: T6 not assessable"


def test_limits_are_set_by_name_and_a_wrong_name_is_refused_with_the_nearest() -> None:
    assert thresholds_of(["t3_share_fail=0.6"]) == Thresholds(t3_share_fail=0.6)
    with pytest.raises(UsageError, match="got 't3_share_fial=1'; did you mean t3_share_fail"):
        thresholds_of(["t3_share_fial=1"])
    with pytest.raises(UsageError, match=r"expected a number for t3_share_fail, got 'much'; write it as NAME=0\.2"):
        thresholds_of(["t3_share_fail=much"])
