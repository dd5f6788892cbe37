"""Dates and times of DICOM against the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wetread.service.dicom_time import moment, now_text, span


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("value", "offset", "expected"),
    [
        ("20260102030405+0000", "", at(2026, 1, 2, 3, 4, 5)),
        ("20260102030405-0130", "", at(2026, 1, 2, 4, 34, 5)),
        ("20260102030405.250000+0000", "", at(2026, 1, 2, 3, 4, 5) + 0.25),
        ("202601020304", "+0200", at(2026, 1, 2, 1, 4)),
        ("2026+0000", "+0200", at(2026, 1, 1)),
    ],
)
def test_a_moment(value: str, offset: str, expected: float) -> None:
    assert moment(value, offset) == expected


def test_without_an_offset_it_is_local() -> None:
    assert moment("20260102030405") == datetime(2026, 1, 2, 3, 4, 5).timestamp()


@pytest.mark.parametrize(
    ("value", "begin", "beyond"),
    [
        ("2026+0000", at(2026, 1, 1), at(2027, 1, 1)),
        ("202612+0000", at(2026, 12, 1), at(2027, 1, 1)),
        ("20240229+0000", at(2024, 2, 29), at(2024, 3, 1)),
        ("2026010203+0000", at(2026, 1, 2, 3), at(2026, 1, 2, 4)),
        ("202601020304+0000", at(2026, 1, 2, 3, 4), at(2026, 1, 2, 3, 5)),
        ("20260101+0000-20260103+0000", at(2026, 1, 1), at(2026, 1, 4)),
        ("20260101-0100-20260103-0100", at(2026, 1, 1, 1), at(2026, 1, 4, 1)),
        ("20260101+0000-", at(2026, 1, 1), None),
        ("-20260103+0000", None, at(2026, 1, 4)),
    ],
)
def test_a_span_is_the_whole_of_what_is_said(value: str, begin: float | None, beyond: float | None) -> None:
    first, last = span(value)
    assert first == begin
    assert last == (None if beyond is None else pytest.approx(beyond, abs=1e-5))
    assert last is None or beyond is None or last < beyond


@pytest.mark.parametrize("value", ["", "-", "x", "20261301", "20260230", "2026-13-01", "20260101+9900", "0000", "9999"])
def test_what_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="no date and time, and no range"):
        span(value)


def test_now_is_now() -> None:
    assert moment(now_text(at(2026, 1, 2, 3, 4, 5))) == at(2026, 1, 2, 3, 4, 5)
