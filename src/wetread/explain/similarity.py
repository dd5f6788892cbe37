"""How alike two heat maps are, by two of the measures of Adebayo et al. (NeurIPS 2018): rank and structure.

Decided here: maps are compared as they are shown, that is their positive part over its maximum, at one size. An empty
map (nothing speaks for the label) is like no other: 0 in every measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wetread.models.card import InputSpec
from wetread.models.inputs import restore_map

__all__ = ["MEASURES", "Measure", "as_shown", "rank_correlation", "similarity", "structural_similarity"]

Measure = Literal["rank", "structure"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

Map = NDArray[np.float32]


def as_shown(raw: Map, rows: int, columns: int) -> Map:
    """Return what a person would see of a raw map (h, w): its positive part at (rows, columns), largest value 1.

    Zero everywhere where nothing is positive.
    """
    size = InputSpec(height=rows, width=columns, fit="stretch")
    heat = restore_map(np.maximum(raw, 0), size, rows, columns)
    largest = float(heat.max())
    return np.maximum(heat / largest, 0).astype(np.float32) if largest > 0 else np.zeros_like(heat)


def rank_correlation(a: Map, b: Map) -> float:
    """Return Spearman's correlation (-1 to 1) of two maps (rows, columns); 0 where one is the same everywhere."""
    from scipy.stats import rankdata

    return _correlation(rankdata(a), rankdata(b))


def structural_similarity(a: Map, b: Map) -> float:
    """Return the SSIM (-1 to 1) of two maps (rows, columns) in [0, 1]; windows of 7 pixels.

    0 where one of them is zero everywhere. Source: Wang et al., IEEE TIP 2004, as in scikit-image.
    """
    from skimage.metrics import structural_similarity as ssim

    return float(ssim(a, b, data_range=1.0)) if a.any() and b.any() else 0.0


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    a, b = (one.ravel().astype(np.float64) - one.mean() for one in (a, b))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


_FUNCTIONS: dict[Measure, Callable[[Map, Map], float]] = {
    "rank": rank_correlation,
    "structure": structural_similarity,
}


def similarity(a: Map, b: Map, measure: Measure) -> float:
    """Return how alike two maps of one shape are: float32 (rows, columns) in [0, 1], by one of :data:`MEASURES`."""
    return _FUNCTIONS[measure](a, b)
