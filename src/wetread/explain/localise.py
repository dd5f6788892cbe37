"""From a heat map to boxes: threshold, connected areas, smallest size, score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.explain.base import Explanation
from wetread.types import Box

__all__ = ["boxes_from_heat", "boxes_of", "otsu_threshold"]

_WORKING_PIXELS = 256
"""Longer side of the grid on which boxes are found; a map has 5 to 56 cells, so nothing is lost."""


def otsu_threshold(heat: NDArray[np.float32], bins: int = 256) -> float:
    """Return the threshold in (0, 1) that best parts ``heat``, values in [0, 1], into two classes.

    Source: Otsu, IEEE Trans. SMC 1979: the largest variance between the classes.
    """
    counts, edges = np.histogram(heat, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty class counts as no parting
        apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    between = np.nan_to_num(below * above * apart**2, nan=0.0, posinf=0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())  # the middle of a plateau


def boxes_from_heat(
    heat: NDArray[np.float32],
    threshold: float | None = None,
    *,
    min_area: float = 0.002,
    max_boxes: int = 8,
) -> tuple[Box, ...]:
    """Return boxes around the areas of ``heat``, float32 (rows, columns) in [0, 1], strongest first.

    ``threshold``: share (0-1) of the map's maximum; None lets Otsu's rule choose. ``min_area``:
    share of the image that an area needs. A box's ``score`` is the highest heat in it (0-1).
    Areas that touch only at a corner are one area.

    Raises:
        UsageError: a threshold that is no share.
    """
    from scipy import ndimage

    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(expected("a threshold between 0 and 1", threshold, "give a share of the maximum"))
    level = otsu_threshold(heat) if threshold is None else threshold * float(heat.max())
    areas, count = ndimage.label(heat > level, structure=np.ones((3, 3)))
    if count == 0:
        return ()
    pixels = np.bincount(areas.ravel(), minlength=count + 1)[1:]
    peaks = ndimage.maximum(heat, areas, np.arange(1, count + 1))
    boxes = [
        Box(x=part[1].start, y=part[0].start, width=part[1].stop - part[1].start,
            height=part[0].stop - part[0].start, score=float(peak))
        for part, area, peak in zip(ndimage.find_objects(areas), pixels, peaks, strict=True)
        if area >= min_area * heat.size
    ]  # fmt: skip
    return tuple(sorted(boxes, key=lambda box: -(box.score or 0.0))[:max_boxes])


def boxes_of(explanation: Explanation, threshold: float | None = None, *, min_area: float = 0.002) -> tuple[Box, ...]:
    """Return boxes around the evidence, in pixels of the original image; see :func:`boxes_from_heat`."""
    heat = explanation.heat_at(_WORKING_PIXELS)
    down = explanation.size[0] / heat.shape[0]
    across = explanation.size[1] / heat.shape[1]
    return tuple(
        Box(
            x=box.x * across,
            y=box.y * down,
            width=box.width * across,
            height=box.height * down,
            score=box.score,
        )
        for box in boxes_from_heat(heat, threshold, min_area=min_area)
    )
