"""Masks on film: each organ tinted and outlined in a colour that every kind of colour vision tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = ["ORGAN_COLOURS", "contact_sheet", "organ_picture"]

ORGAN_COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66))
"""Sky blue, orange, green, purple and yellow of the Okabe-Ito palette, in the order of the organs."""

_TINT = 0.22
"""Opacity of the fill: the film must be seen through it."""

LONGEST_PX = 1024
_GAP_PX = 4


def organ_picture(
    pixels: NDArray[np.float32], masks: Mapping[str, NDArray[np.bool_]], longest_px: int = LONGEST_PX
) -> PilImage.Image:
    """Return the film, float32 (rows, columns) in [0, 1], with its masks; RGB, at most ``longest_px`` wide or high."""
    rows, columns = pixels.shape
    share = min(1.0, longest_px / max(rows, columns))
    size = (max(1, round(columns * share)), max(1, round(rows * share)))
    grey = PilImage.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)).resize(
        size, PilImage.Resampling.BOX if share < 1 else PilImage.Resampling.NEAREST
    )
    picture = np.repeat(np.asarray(grey, np.float32)[..., None], 3, axis=2)
    for number, mask in enumerate(masks.values()):
        small = np.asarray(PilImage.fromarray(mask).resize(size, PilImage.Resampling.NEAREST))
        colour = np.array(ORGAN_COLOURS[number % len(ORGAN_COLOURS)], np.float32)
        picture[small] = (1 - _TINT) * picture[small] + _TINT * colour
        picture[_edge(small, thick=max(1, max(size) // 400))] = colour
    return PilImage.fromarray((picture + 0.5).astype(np.uint8))


def _edge(mask: NDArray[np.bool_], thick: int) -> NDArray[np.bool_]:
    """The inner border of a mask, ``thick`` pixels wide; the image's own edge is no border."""
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask, iterations=thick, border_value=1)
    return np.asarray(mask & ~inner, dtype=np.bool_)


def contact_sheet(pictures: Sequence[PilImage.Image], columns: int = 8, side_px: int = 160) -> PilImage.Image:
    """Lay pictures out in rows on black, each within a square of ``side_px``."""
    rows = -(-len(pictures) // columns)
    step = side_px + _GAP_PX
    sheet = PilImage.new("RGB", (columns * step + _GAP_PX, rows * step + _GAP_PX))
    for number, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((side_px, side_px), PilImage.Resampling.BOX)
        row, column = divmod(number, columns)
        left, top = (side_px - small.width) // 2, (side_px - small.height) // 2
        sheet.paste(small, (_GAP_PX + column * step + left, _GAP_PX + row * step + top))
    return sheet
