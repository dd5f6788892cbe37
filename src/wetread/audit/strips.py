"""Pictures of an audit: a few films side by side in one PNG, with a line of words below each.

Decided here: films keep their proportions and their greys; nothing is stretched to look better.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.audit.result import AuditExample, AuditLine

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["Pictures", "illustrated", "strip_png"]

Pictures = Mapping[str, tuple[str, bytes]]
"""Name of a PNG -> its caption and its bytes."""

_SIDE_PX = 224
_GAP_PX = 8
_WORDS_PX = 14


def strip_png(panels: Sequence[tuple[NDArray[np.float32], str]]) -> bytes:
    """Draw (film, words) pairs in a row; films are float32 (rows, columns) in [0, 1], as PNG bytes, 8-bit grey.

    ``words`` may have several lines.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=_WORDS_PX)
    lines = max(words.count("\n") for _, words in panels) + 1
    below = round(1.4 * _WORDS_PX) * lines + 4
    width = len(panels) * (_SIDE_PX + _GAP_PX) + _GAP_PX
    picture = Image.new("L", (width, _SIDE_PX + below + 2 * _GAP_PX), 255)
    draw = ImageDraw.Draw(picture)
    for number, (pixels, words) in enumerate(panels):
        left = _GAP_PX + number * (_SIDE_PX + _GAP_PX)
        film = _fitted(pixels)
        picture.paste(film, (left + (_SIDE_PX - film.width) // 2, _GAP_PX + (_SIDE_PX - film.height) // 2))
        draw.multiline_text((left, _SIDE_PX + _GAP_PX + 4), words, fill=0, font=font, spacing=4)
    target = io.BytesIO()
    picture.save(target, "PNG", optimize=True)
    return target.getvalue()


def illustrated(line: AuditLine, pictures: Pictures, **told: Any) -> tuple[AuditLine, dict[str, bytes]]:
    """Return the line with the fields of ``told`` and its pictures as examples, and the PNG bytes by name."""
    examples = tuple(AuditExample(picture=name, caption=caption) for name, (caption, _) in pictures.items())
    whole = line.model_copy(update={**told, "examples": examples})
    return whole, {name: picture for name, (_, picture) in pictures.items()}


def _fitted(pixels: NDArray[np.float32]) -> PilImage.Image:
    from PIL import Image

    levels = np.rint(np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8)
    film = Image.fromarray(levels)
    scale = _SIDE_PX / max(film.size)
    size = (max(1, round(film.width * scale)), max(1, round(film.height * scale)))
    return film.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
