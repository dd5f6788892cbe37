"""Text in pixels: found where it is, marks of side left alone, large frames in tiles."""

from __future__ import annotations

import numpy as np
import pytest

from tests.deid.support import lettered
from wetread.deid.text import find_text, is_mark


def _covers(box: object, area: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = (getattr(box, name) for name in ("left", "top", "right", "bottom"))
    return bool(left <= area[0] and top <= area[1] and right >= area[2] and bottom >= area[3])


def test_a_line_is_found_where_it_is_and_a_mark_is_left() -> None:
    frame = lettered("VEXHOLLOW 4711")
    frame[100:130, 280:310] = lettered("L", (30, 30), (8, 4))
    boxes = find_text(frame)
    rows, columns = np.nonzero(frame[:60] > 150)
    assert len(boxes) == 1
    assert _covers(boxes[0], (columns.min(), rows.min(), columns.max(), rows.max()))
    assert boxes[0].bottom < 60
    assert "VEX" in boxes[0].text
    assert "VEX" not in repr(boxes[0])


def test_faint_text_of_a_wide_range_is_found_after_stretching() -> None:
    """400 of 60,000 grey levels: nothing to see over the whole range."""
    frame = 1000 + lettered("VEXHOLLOW 4711").astype(np.uint16) * 2
    frame[-1, -1] = 60000
    assert find_text(frame)


def test_nothing_is_found_in_nothing() -> None:
    assert find_text(np.full((64, 64), 7, np.uint8)) == []
    assert find_text(np.add.outer(np.arange(200), np.arange(200)).astype(np.uint16)) == []


def test_a_large_frame_is_searched_at_its_own_resolution() -> None:
    frame = np.full((900, 1300), 40, np.uint8)
    frame[780:880, 900:1250] = lettered("VEXHOLLOW", (100, 350), (20, 40))
    boxes = find_text(frame)
    rows, columns = np.nonzero(frame > 150)
    assert any(_covers(box, (columns.min(), rows.min(), columns.max(), rows.max())) for box in boxes)
    assert all(box.top > 780 and box.left > 890 for box in boxes)


@pytest.mark.parametrize(
    ("text", "mark"),
    [("L", True), ("R PA", True), ("left", True), ("L. LAT", True), ("LR7", False), ("", False), ("Lee", False)],
)
def test_marks(text: str, mark: bool) -> None:
    assert is_mark(text) == mark
