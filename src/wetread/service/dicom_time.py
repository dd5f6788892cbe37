"""DICOM dates and times (VR DT, PS3.5 6.2) as seconds since 1970, and ranges of them (PS3.4 C.2.2.2.5).

Decided here: a value without an offset from UTC has that of its data set, and else the local one of this machine; a
value that leaves out its last parts means the whole day, month or year.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone

__all__ = ["moment", "now_text", "span"]

_DT = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?"  # to a millionth
)
_OFFSET = re.compile(r"[+-]\d{4}")
_STEPS = (None, None, timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
"""How long a value is that ends with the day, hour, minute or second; year and month differ."""
_FIRST, _LAST = -1200, 1400
"""Offsets from UTC that there are, as hours and minutes."""


def now_text(at: float | None = None) -> str:
    """A moment as DICOM date and time, in UTC and with the offset that says so."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y%m%d%H%M%S") + "+0000"


def moment(value: str, offset: str = "") -> float:
    """When a date and time begins.

    Args:
        value: A DT.
        offset: Timezone Offset From UTC (0008,0201) of its data set, if any.

    Raises:
        ValueError: it is none.
    """
    begin, _ = _single(value, offset)
    return begin


def span(value: str) -> tuple[float | None, float | None]:
    """The first and the last moment of a date and time, or of a range ``A-B``, ``A-`` or ``-B``; None: open.

    Raises:
        ValueError: it is none.
    """
    try:
        return _single(value, "")
    except ValueError:
        pass
    for place in [number for number, letter in enumerate(value) if letter == "-"]:
        left, right = value[:place], value[place + 1 :]
        try:
            begin = _single(left, "")[0] if left else None
            end = _single(right, "")[1] if right else None
        except ValueError:
            continue
        if left or right:
            return begin, end
    raise ValueError("no date and time, and no range")


def _single(value: str, offset: str) -> tuple[float, float]:
    found = _DT.fullmatch(value.strip())
    if found is None:
        raise ValueError("no date and time")
    *parts, fraction, own = found.groups()
    zone = _zone(own or offset)
    numbers = [int(part) for part in parts if part is not None]
    year, month, day, hour, minute, second = [*numbers, *(1, 1, 1, 0, 0, 0)[len(numbers) :]]
    try:
        begin = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        if fraction:
            begin += timedelta(microseconds=int(fraction.ljust(6, "0")))
            return begin.timestamp(), begin.timestamp()
        return begin.timestamp(), _after(begin, len(numbers)).timestamp() - 1e-6
    except (OverflowError, OSError):
        raise ValueError("a date out of range") from None


def _after(begin: datetime, parts: int) -> datetime:
    """The beginning of the next year, month, day … of a value that has so many parts."""
    step = _STEPS[parts - 1]
    if step is not None:
        return begin + step
    months = begin.year * 12 + begin.month - 1 + (12 if parts == 1 else 1)
    return begin.replace(year=months // 12, month=months % 12 + 1)


def _zone(offset: str) -> timezone | None:
    if not offset:
        return None
    if not _OFFSET.fullmatch(offset) or not _FIRST <= int(offset) <= _LAST:
        raise ValueError("no offset from UTC")
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:])))
