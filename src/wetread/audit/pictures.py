"""Pictures that show what a line about data says, as PNG bytes; grey films, and one scale for differences.

The scale runs from blue over white to orange, which every kind of colour vision tells apart (after Okabe & Ito).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = ["beside", "difference_png", "film_rgb", "png"]

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LOW, _MIDDLE, _HIGH = (0, 114, 178), (255, 255, 255), (213, 94, 0)
_HIDDEN, _STRIPE = (120, 120, 120), (96, 96, 96)
_ZOOM = 2
"""The grid of 128 pixels is shown at 256."""
_GAP = 4
_HATCH = 6
"""Pixels between the stripes over what is hidden."""


def png(pixels: Rgb) -> bytes:
    """Encode uint8 (rows, columns) or (rows, columns, 3)."""
    target = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(target, "PNG", optimize=True)
    return target.getvalue()


def difference_png(effect: NDArray[np.float64], hidden: Mask) -> bytes:
    """Show a difference in standard deviations, (rows, columns): full colour from 1; grey where ``hidden``."""
    share = np.clip(effect, -1, 1)[:, :, None]
    middle = np.array(_MIDDLE, np.float64)
    ends = np.where(share < 0, np.array(_LOW, np.float64), np.array(_HIGH, np.float64))
    colours = middle + np.abs(share) * (ends - middle)
    colours[hidden] = _HIDDEN
    return png(_enlarged(np.rint(colours).astype(np.uint8)))


def film_rgb(grey: NDArray[np.uint8], hidden: Mask | None = None) -> Rgb:
    """A film (rows, columns) as colours, striped where ``hidden``, at twice its size."""
    film = np.repeat(grey[:, :, None], 3, axis=2)
    if hidden is not None:
        row, column = np.indices(grey.shape)
        stripe = (row + column) % _HATCH < _HATCH // 3
        film[hidden] = _HIDDEN
        film[hidden & stripe] = _STRIPE
    return _enlarged(film)


def beside(films: Sequence[Rgb]) -> Rgb:
    """Pictures of one height from left to right, with a white gap."""
    gap = np.full((films[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for film in films for part in (film, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _enlarged(pixels: Rgb) -> Rgb:
    return pixels.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
