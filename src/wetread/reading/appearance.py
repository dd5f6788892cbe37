"""What an image looks like when it is no radiograph: blank, noise, or a page of text.

Decided from the pixels alone, with limits far from real radiographs (the margins are in
``docs/how-to/read-images.md``). A grey photograph of a film on a light box is *not* detected here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = ["Appearance", "look_at"]

Levels = NDArray[np.uint8]

_WORKING_SIDE = 512
"""Long side at which all is measured: the lines of a page stay apart, and it takes milliseconds."""

_COARSE_SIDE = 16
"""Anatomy shows in 16 x 16 tiles; noise and letters average out there."""

_PAPER_LEVELS = 15
"""Levels of 255 on either side that count as one paper: scanners and JPEG move it by a few."""

_STROKE_REACH = 5
"""A stroke is what 11 x 11 pixels do not fit into: letters at the working size, and no rib."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """Measured properties, all in [0, 1].

    ``spread``: range of grey that the middle 94 % of the pixels cover. ``structure``: share of the
    standard deviation that is left in 16 x 16 tiles. ``paper``: share of pixels within 6 % of the
    commonest grey. ``strokes``: share of all other pixels that belong to something thin.
    """

    spread: float
    structure: float
    paper: float
    strokes: float


def look_at(pixels: NDArray[np.float32]) -> Appearance:
    """Measure one image, float32 (H, W) in [0, 1]."""
    levels = _shrink((np.clip(pixels, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    shares = np.bincount(levels.ravel(), minlength=256) / levels.size
    below = shares.cumsum()
    low, high = np.searchsorted(below, (0.03, 0.97))
    around = np.convolve(shares, np.ones(2 * _PAPER_LEVELS + 1), mode="same")
    paper = int(around.argmax())
    return Appearance(
        spread=float(high - low) / 255,
        structure=_structure(levels),
        paper=min(1.0, float(around[paper])),
        strokes=_strokes(np.abs(levels.astype(np.int16) - paper) > _PAPER_LEVELS),
    )


def _shrink(levels: Levels) -> Levels:
    """Reduce so that the long side is at most the working side, averaging what falls together."""
    rows, columns = levels.shape
    factor = max(rows, columns) / _WORKING_SIDE
    if factor <= 1:
        return levels
    size = (max(1, round(columns / factor)), max(1, round(rows / factor)))
    return np.asarray(PilImage.fromarray(levels).resize(size, PilImage.Resampling.BOX))


def _structure(levels: Levels) -> float:
    whole = float(levels.std())
    if whole == 0:
        return 0.0
    tiles = PilImage.fromarray(levels).resize((_COARSE_SIDE, _COARSE_SIDE), PilImage.Resampling.BOX)
    return min(1.0, float(np.asarray(tiles).std()) / whole)


def _strokes(ink: NDArray[np.bool_]) -> float:
    """Return the share of ``ink`` that an opening removes; 0 where there is no ink."""
    total = int(ink.sum())
    if total == 0:
        return 0.0
    opened = _grow(~_grow(~ink))
    return 1.0 - int((ink & opened).sum()) / total


def _grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate by a square of 11 x 11 pixels, one axis after the other; outside is empty."""
    grown = mask
    for axis in (0, 1):
        length = grown.shape[axis]
        edge = np.zeros_like(grown.take([0], axis), dtype=np.int32)
        sums = np.concatenate([edge, grown.cumsum(axis, dtype=np.int32)], axis)
        at = np.arange(length)
        upper = sums.take(np.minimum(at + _STROKE_REACH + 1, length), axis)
        grown = upper > sums.take(np.maximum(at - _STROKE_REACH, 0), axis)
    return grown
