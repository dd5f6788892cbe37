"""Text burned into pixels: where it is, found by rapidocr on the CPU, without a network.

Decided here: a large frame is searched in overlapping tiles at its full resolution and once as a whole, made smaller;
a frame whose grey levels are used unevenly is searched a second time with its contrast stretched. Everything that
reads like text is text, whoever it names, but for the few marks that tell sides and projections.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wetread.deid.words import word_set
from wetread.errors import UsageError, expected

__all__ = ["MARKS", "TextBox", "find_text", "is_mark", "require_engine"]

MARKS = word_set(
    """
    L R LT RT LEFT RIGHT AP PA LAT LL RL AX SAG COR SUP INF ANT POST A P H F S I UPRIGHT SUPINE PRONE ERECT
    LATERAL CM MM LCC RCC LMLO RMLO CC MLO
    """
)
"""Marks of side, projection and position: no text that identifies anybody, and needed to read the image."""

_SURE, _LIKELY = 0.5, 0.2
"""Recognition scores: two characters need the first, four the second."""
_TILE_PX, _OVERLAP_PX = 640, 128
"""In parts of 1,280 pixels the recognition misses letters of 12 pixels that it finds in parts of 640."""
_WHOLE_PX = 960
_UNEVEN = 0.6
"""Below this share of the range between its 1st and 99th percentile, a frame is also looked at stretched."""

_lock = threading.Lock()


@dataclass(frozen=True)
class TextBox:
    """One line of text: rows ``top`` to ``bottom`` and columns ``left`` to ``right`` (ends excluded).

    ``text`` as it was read, which may identify somebody: it is never written anywhere. ``score``: 0-1.
    """

    left: int
    top: int
    right: int
    bottom: int
    text: str
    score: float

    def __repr__(self) -> str:
        return f"<TextBox {self.left}, {self.top}, {self.right}, {self.bottom}>"  # a traceback shows no text


def require_engine() -> None:
    """Make sure that text can be looked for.

    Raises:
        UsageError: rapidocr or onnxruntime is not installed.
    """
    try:
        import onnxruntime  # noqa: F401
        import rapidocr  # noqa: F401
    except ImportError as error:
        cure = "install it: pip install 'wetread[deid]'"
        raise UsageError(expected("rapidocr and onnxruntime", f"no package {error.name}", cure)) from None


def find_text(frame: NDArray[Any]) -> list[TextBox]:
    """Find text in one frame.

    Args:
        frame: Shape (rows, columns), any real dtype, or (rows, columns, 3) uint8 RGB.

    Returns:
        Boxes within the frame, marks of side left out; a line may come twice, once from each of two tiles.
    """
    found: list[TextBox] = []
    for picture in _looks(frame):
        for left, top, scale, view in _views(picture):
            found += [_placed(box, (left, top), scale, picture.shape) for box in _lines(view)]
    return [box for box in found if _is_text(box) and box.right > box.left and box.bottom > box.top]


def is_mark(text: str) -> bool:
    """Whether a text is nothing but marks of side, projection or position."""
    words = re.findall(r"[^\W_]+", text.upper())
    return bool(words) and all(word in MARKS for word in words)


def _is_text(box: TextBox) -> bool:
    letters = len(re.findall(r"[^\W_]", box.text))
    if is_mark(box.text):
        return False
    return (letters >= 2 and box.score >= _SURE) or (letters >= 4 and box.score >= _LIKELY)


def _looks(frame: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """The frame as 8-bit RGB over its full range and, where most of it lies in a small part of that, stretched."""
    if frame.ndim == 3:
        yield np.ascontiguousarray(frame, np.uint8)
        return
    values = frame.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return
    yield _as_rgb(values, low, high)
    first, last = (float(x) for x in np.percentile(values, (1, 99)))
    if first < last and last - first < _UNEVEN * (high - low):
        yield _as_rgb(values, first, last)


def _as_rgb(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    grey = np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))


def _views(picture: NDArray[np.uint8]) -> Iterator[tuple[int, int, float, NDArray[np.uint8]]]:
    """(left, top, scale, part) of each part to search; a part pixel is ``scale`` pixels of the picture."""
    rows, columns = picture.shape[:2]
    if max(rows, columns) <= _TILE_PX + _OVERLAP_PX:
        yield 0, 0, 1.0, picture
        return
    scale = max(rows, columns) / _WHOLE_PX
    small = Image.fromarray(picture).resize((round(columns / scale), round(rows / scale)), Image.Resampling.BOX)
    yield 0, 0, scale, np.asarray(small)
    for top in _starts(rows):
        for left in _starts(columns):
            yield left, top, 1.0, np.ascontiguousarray(picture[top : top + _TILE_PX, left : left + _TILE_PX])


def _starts(length: int) -> Sequence[int]:
    if length <= _TILE_PX:
        return [0]
    step = _TILE_PX - _OVERLAP_PX
    starts = list(range(0, length - _TILE_PX, step))
    return [*starts, length - _TILE_PX]


def _lines(view: NDArray[np.uint8]) -> list[TextBox]:
    with _lock:
        result = _engine()(view, use_cls=False)
    if getattr(result, "boxes", None) is None or not getattr(result, "txts", None):
        return []
    found = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        found.append(TextBox(int(left), int(top), int(right) + 1, int(bottom) + 1, str(text), float(score)))
    return found


def _placed(box: TextBox, start: tuple[int, int], scale: float, shape: tuple[int, ...]) -> TextBox:
    """A box of a part as a box of the picture, with the margin that letters reach beyond their line."""
    rows, columns = shape[:2]
    margin = 2 + round(0.15 * scale * min(box.bottom - box.top, box.right - box.left))
    left, right = (round(scale * x) + start[0] for x in (box.left, box.right))
    top, bottom = (round(scale * y) + start[1] for y in (box.top, box.bottom))
    clipped = (max(0, left - margin), max(0, top - margin), min(columns, right + margin), min(rows, bottom + margin))
    return TextBox(*clipped, box.text, box.score)


@cache
def _engine() -> Any:
    from rapidocr import RapidOCR

    from wetread.runtime import thread_count

    threads = thread_count()
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "Global.max_side_len": 4096,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
