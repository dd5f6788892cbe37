"""Showing a reader one organ alone: what lies outside is taken away before the network sees the image.

The mask comes from a segmenter that the reader's card names by hash. The geometry of the image stays, so heat
maps and boxes need no other mapping. Source of the idea: organ first, then disease (arXiv 1808.08277).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.models.card import GuideSpec
from wetread.models.organs import Segmenter
from wetread.types import Image

__all__ = ["Guide", "organ_alone", "organ_removed", "widened"]

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Guide:
    """A segmenter with what is done with its mask; see :class:`GuideSpec`."""

    spec: GuideSpec
    segmenter: Segmenter

    def __post_init__(self) -> None:
        if self.spec.organ not in self.segmenter.organs:
            there = ", ".join(self.segmenter.organs)
            raise UsageError(
                expected(
                    f"a segmenter that finds {self.spec.organ}", f"one for {there}", "name another with --segmenter"
                )
            )

    @property
    def key(self) -> str:
        """What decides the guided pixels, as text: part of the name of a cache."""
        return f"{self.segmenter.card.sha256} {self.spec.model_dump_json()}"

    def mask(self, image: Image) -> Mask:
        """The organ of the image, bool (rows, columns), as the segmenter draws it."""
        return self.segmenter.masks(image)[self.spec.organ]

    def apply(self, pixels: Pixels, mask: Mask) -> Pixels:
        """Return the image with the organ alone, float32 (rows, columns) in [0, 1].

        An empty mask leaves nothing to read: the whole image is filled, and the caller refuses it.
        """
        return organ_alone(pixels, widened(mask, self.spec.margin), self.spec.fill)

    def pixels(self, image: Image) -> Pixels:
        """Find the organ and return the image with it alone."""
        return self.apply(image.pixels, self.mask(image))


def widened(mask: Mask, margin: float) -> Mask:
    """Widen a mask (rows, columns) by ``margin`` of the shorter side on all sides, as a square would."""
    steps = round(margin * min(mask.shape))
    if not steps:
        return mask
    return _running_any(_running_any(mask, steps, 0), steps, 1)


def _running_any(mask: Mask, steps: int, axis: int) -> Mask:
    """Whether a pixel within ``steps`` along ``axis`` is set: by differences of running sums."""
    padded = np.pad(mask, [(steps + 1, steps) if a == axis else (0, 0) for a in range(2)])
    sums = padded.cumsum(axis, dtype=np.int32)
    width = 2 * steps + 1
    upper = np.take(sums, np.arange(width, sums.shape[axis]), axis)
    lower = np.take(sums, np.arange(sums.shape[axis] - width), axis)
    return np.asarray(upper > lower)


def organ_alone(pixels: Pixels, mask: Mask, fill: str) -> Pixels:
    """Fill what lies outside ``mask``: ``black``, or the ``mean`` grey of the organ."""
    return np.where(mask, pixels, _grey(pixels, mask, fill)).astype(np.float32)


def organ_removed(pixels: Pixels, mask: Mask, fill: str = "mean") -> Pixels:
    """The opposite of :func:`organ_alone`: fill what lies inside with the mean grey of the rest, or black."""
    return organ_alone(pixels, ~mask, fill)


def _grey(pixels: Pixels, kept: Mask, fill: str) -> np.float32:
    fills: Mapping[str, float] = {"black": 0.0, "mean": float(pixels[kept].mean()) if kept.any() else 0.0}
    if fill not in fills:
        raise UsageError(expected(f"a fill among {', '.join(fills)}", repr(fill), "set --fill to one"))
    return np.float32(fills[fill])
