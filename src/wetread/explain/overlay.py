"""Heat on film as PNG: one colour scale, ordered in lightness and readable without colour vision.

The scale is *inferno* (van der Walt & Smith, CC0) from 18 of its points, with an opacity that
rises with the heat, so that film without evidence stays untouched film.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from wetread.explain.base import Explanation, fitted_size
from wetread.types import Box

__all__ = ["LONGEST_PIXELS", "colour_scale", "heat_png", "heat_rgba", "overlay", "overlay_png"]

LONGEST_PIXELS = 1024
"""Longer side of a picture at most; a heat map has no detail that would need more."""

_POINTS = (
    (0, 0, 4),
    (10, 7, 34),
    (30, 12, 69),
    (56, 9, 98),
    (81, 14, 108),
    (105, 22, 110),
    (128, 31, 108),
    (152, 39, 102),
    (176, 49, 91),
    (198, 61, 77),
    (217, 77, 61),
    (233, 97, 43),
    (244, 121, 24),
    (250, 148, 7),
    (252, 176, 20),
    (248, 205, 55),
    (242, 234, 105),
    (252, 255, 164),
)
_MOST_OPAQUE = 0.65
"""Opacity of the strongest heat: the film must be seen through it."""

_BAND = (140, 16, 36)
"""The red of the banner on pages of a reader whose audit failed."""

_BOX_COLOUR = (86, 180, 233)
"""Sky blue of the Okabe-Ito palette: apart from the scale for every kind of colour vision."""


def colour_scale() -> NDArray[np.uint8]:
    """Return the scale, uint8 (256, 4): red, green, blue and opacity of heat 0 to 1."""
    at = np.linspace(0, 1, 256)
    points = np.array(_POINTS, dtype=np.float64)
    known = np.linspace(0, 1, len(points))
    colours = [np.interp(at, known, points[:, channel]) for channel in range(3)]
    opacity = 255 * _MOST_OPAQUE * np.clip((at - 0.08) / 0.55, 0, 1)  # none below 8 %, full from 63 %
    return np.stack([*colours, opacity], axis=1).round().astype(np.uint8)


_SCALE = colour_scale()
_WORDS = _SCALE.view(np.uint32)[:, 0]
_OPACITY = _SCALE[:, 3].astype(np.uint16)
_WEIGHTED = (_SCALE[:, :3].astype(np.uint16) * _OPACITY[:, None] + 127).astype(np.uint16)


def _levels(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.clip(heat, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def heat_rgba(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour ``heat``, float32 (H, W) in [0, 1]; uint8 (H, W, 4), not multiplied by opacity."""
    words = _WORDS.take(_levels(heat))
    return words.view(np.uint8).reshape(*heat.shape, 4)


def overlay(film: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay ``heat``, float32 (H, W) in [0, 1], over ``film``, uint8 (H, W); uint8 (H, W, 3)."""
    levels = _levels(heat)
    under = film * (255 - _OPACITY).take(levels)  # uint16: at most 255 * 255
    return ((_WEIGHTED.take(levels, axis=0) + under[..., None]) // 255).astype(np.uint8)


def _png(pixels: NDArray[np.uint8], boxes: Sequence[Box] = (), watermark: str = "") -> bytes:
    picture = PilImage.fromarray(pixels)
    if watermark:
        picture = _marked(picture, watermark)
    draw = ImageDraw.Draw(picture)
    thick = max(1, max(pixels.shape[:2]) // 256)
    for box in boxes:
        corners = [box.x, box.y, box.x + box.width - 1, box.y + box.height - 1]
        draw.rectangle(corners, outline=_BOX_COLOUR, width=thick)
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=3)
    return target.getvalue()


def _marked(picture: PilImage.Image, text: str) -> PilImage.Image:
    """The picture with a line of text on a red band below it, as large as the width allows."""
    size = max(8, min(24, picture.width // max(1, len(text) * 3 // 5)))
    whole = PilImage.new("RGB", (picture.width, picture.height + 2 * size), _BAND)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    draw.text((picture.width / 2, picture.height + size), text, "white", ImageFont.load_default(size), anchor="mm")
    return whole


def heat_png(explanation: Explanation, longest: int = LONGEST_PIXELS) -> bytes:
    """Return the heat alone, with transparency, over the original image's frame."""
    return _png(heat_rgba(explanation.heat_at(longest)))


def overlay_png(
    pixels: NDArray[np.float32],
    explanation: Explanation,
    boxes: Sequence[Box] = (),
    longest: int = LONGEST_PIXELS,
    watermark: str = "",
) -> bytes:
    """Return the heat (and ``boxes``, in original pixels) over the film; RGB PNG.

    ``pixels``: float32 (rows, columns) in [0, 1] of the original image. ``watermark``: a line on a red band below.
    """
    rows, columns = fitted_size(explanation.size, longest)
    film = PilImage.fromarray((np.clip(pixels, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    if film.size != (columns, rows):
        film = film.resize((columns, rows), PilImage.Resampling.BOX if film.width > 2 * columns else None)
    across, down = columns / explanation.size[1], rows / explanation.size[0]
    placed = [
        Box(x=box.x * across, y=box.y * down, width=box.width * across, height=box.height * down) for box in boxes
    ]
    return _png(overlay(np.asarray(film), explanation.heat_at(longest)), placed, watermark)
