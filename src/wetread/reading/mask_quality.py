"""Whether an organ's mask looks like that organ, how sure the network was, and light cleaning.

The limits come from truth masks, measured once: 322 frontal films of covid-cxr (lungs; 160 PA,
162 AP) and 300 phantoms (lungs and heart). Each is the 0.5 or 99.5 percentile, widened. They mark
masks to look at; a mask inside them can still be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.reading.measures import ORGANS, SECOND_LUNG_SHARE, box_of, check_mask, regions, split_lungs

__all__ = ["FLAGS", "clean_mask", "confidence", "oddities", "oddities_of", "quality_flags"]

Mask = NDArray[np.bool_]
Range = tuple[float, float]

_TOUCHES_BORDER = "touches border"

FLAGS = (
    "empty",
    "too small",
    "too large",
    _TOUCHES_BORDER,
    "more than one component",
    "more than two components",
    "fewer than two lungs",
    "implausible shape",
)
"""The names that :func:`quality_flags` gives, in its order; 3 and more expected components read ``more than 3``."""

SHARES: dict[str, Range] = {
    "lungs": (0.09, 0.70),
    "lung_left": (0.04, 0.37),
    "lung_right": (0.04, 0.37),
    "heart": (0.02, 0.25),
}
"""Area as share of the image: half the 0.5 percentile to 1.2 times the 99.5 percentile.

Lungs: 0.185 to 0.578 (covid-cxr). One lung: 0.086 (phantoms) to 0.307. Heart: 0.045 to 0.124, of
phantoms alone, whose lungs fill less of the film (median 0.27 against 0.37), so the upper limit is
widened by that too.
"""

COMPONENT_SHARE = 0.01
"""A region counts as a component above this share of the mask's area; truth masks have 2 in 315 of 322.

In the other seven the third is a bar drawn into the mask, 6 to 7 % of its area.
"""

LUNG_ASPECT: Range = (0.25, 1.1)
"""Width over height of one lung: 0.337 (phantoms) to 0.940, largest 1.007. Assumes square pixels."""

LUNG_SOLIDITY = 0.70
"""Area of one lung over that of its convex hull, at least: 0.5 percentile 0.778, smallest 0.653.

The smallest is a mask with lines drawn into it; the next is 0.761.
"""

LUNGS_ASPECT: Range = (0.6, 2.2)
"""Width over height of both lungs: 0.873 (phantoms) to 1.712, largest 1.911."""

LUNGS_SOLIDITY: Range = (0.45, 0.90)
"""Area of both lungs over their common hull: 0.522 (phantoms) to 0.794; above, the mask has no mediastinum."""

LUNG_RATIO = 3.0
"""Larger lung over smaller, at most. Truth masks reach 1.76; a collapsed lung may pass, a lost one not."""

HEART_ASPECT: Range = (0.5, 2.2)
"""Width over height of the heart: 0.727 to 1.737 (phantoms)."""

HEART_SOLIDITY = 0.80
"""Area of the heart over its hull, at least: 0.939 (phantoms, which are smoother than a reader's masks)."""

TWO_LUNGS_ASPECT = 0.85
"""One region at least this wide for its height may be two lungs that touch.

Both lungs: smallest 0.871; one lung is wider in 1.2 % of the truth masks.
"""

WAIST = 0.6
"""Two touching lungs have a column in the middle third with at most this share of the fullest column.

Truth masks grown by 12 px until lungs touch: 99.5 percentile 0.568. One lung: 0.5 percentile 0.532, median 0.79.
"""

HOLE_SHARE = 0.10
"""A hole is filled up to this share of the mask: truth masks have at most 0.01, the mediastinum is larger.

Lungs that touch above and below the heart enclose it; that is no hole.
"""

_WORDS = {1: "one component", 2: "two components"}


def quality_flags(organ: str, mask: Mask, *, expected_components: int | None = None) -> tuple[str, ...]:
    """Return what is odd about ``mask``, bool (rows, columns) of the whole image, as names of ``FLAGS``.

    ``organ``: as in ``measures.ORGANS``. ``expected_components``: None for the organ's own number
    (lungs 2, else 1); 1 for lungs in a lateral view, which are then judged as one lung. ``touches
    border`` is common (14 % of the truth masks): the organ may be cut off, and lengths too short.

    Raises:
        UsageError: an unknown organ, a mask that is not bool (rows, columns), fewer than 1 expected.
    """
    check_mask(organ, mask)
    usual = 2 if organ == "lungs" else 1
    most = usual if expected_components is None else expected_components
    if most < 1:
        raise UsageError(expected("at least 1 expected component", expected_components, "give None for the usual"))
    if not mask.any():
        return ("empty",)
    found = regions(mask)
    share = float(mask.mean())
    low, high = SHARES[organ]
    both = organ == "lungs" and most > 1
    pair = split_lungs(mask, found) if both else None
    body = found.mask(0)
    flags = {
        "too small": share < low,
        "too large": share > high,
        _TOUCHES_BORDER: _touches_border(mask),
        f"more than {_WORDS.get(most, f'{most} components')}": (found.sizes > COMPONENT_SHARE * mask.sum()).sum()
        > most,
        "fewer than two lungs": both and pair is None and not _looks_like_two(body),
        "implausible shape": _odd_lungs(pair, body) if both else _odd_one(organ, body),
    }
    return tuple(name for name, present in flags.items() if present)


def oddities_of(masks: Mapping[str, Mask]) -> dict[str, tuple[str, ...]]:
    """What is odd about each mask of ``masks`` that can be judged, bool (rows, columns) by organ."""
    return {organ: oddities(quality_flags(organ, mask)) for organ, mask in masks.items() if organ in ORGANS}


def oddities(flags: Iterable[str]) -> tuple[str, ...]:
    """Return ``flags`` without ``touches border``, which 14 % of the true masks have too."""
    return tuple(flag for flag in flags if flag != _TOUCHES_BORDER)


def confidence(probability: NDArray[np.floating[Any]], mask: Mask) -> float:
    """Return how sure the network is of ``mask``, 0-1: the soft Dice of probabilities and mask.

    2 * sum(p * m) / (sum(p) + sum(m)), 0 for an empty mask. ``probability``: float (rows, columns) in
    [0, 1]. It is high when the probabilities inside are near 1 and those outside near 0; it is not
    calibrated and says nothing of organs the network never saw. Milletari 2016, doi 10.1109/3DV.2016.79.

    Raises:
        UsageError: different shapes, a mask that is not bool, probabilities outside [0, 1].
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise UsageError(
            expected("a bool mask (rows, columns)", f"{mask.dtype} {mask.shape}", "compare with a threshold first")
        )
    if probability.shape != mask.shape:
        raise UsageError(expected(f"probabilities of shape {mask.shape}", probability.shape, "resize them first"))
    if not mask.any():
        return 0.0
    if not (probability.min() >= 0 and probability.max() <= 1):  # also refuses NaN
        raise UsageError(expected("probabilities from 0 to 1", "others", "apply the sigmoid first"))
    total = float(probability.sum(dtype=np.float64)) + int(mask.sum())
    return 2 * float(probability[mask].sum(dtype=np.float64)) / total


def clean_mask(organ: str, mask: Mask) -> Mask:
    """Return a cleaned copy of ``mask``, bool (rows, columns): strays removed, small holes filled.

    Keeps the largest region, for lungs the two largest, the second only from ``SECOND_LUNG_SHARE``
    of the first; fills holes up to ``HOLE_SHARE`` of what is kept. The caller reports what changed.

    Raises:
        UsageError: an unknown organ, a mask that is not bool (rows, columns).
    """
    check_mask(organ, mask)
    if not mask.any():
        return mask.copy()
    found = regions(mask)
    kept = found.mask(0)
    if organ == "lungs" and len(found.sizes) > 1 and found.sizes[1] >= SECOND_LUNG_SHARE * found.sizes[0]:
        kept |= found.mask(1)
    # Holes are what is around the mask and does not reach the edge; scipy's binary_fill_holes takes ten times as long.
    window = box_of(kept)
    around = regions(~np.pad(kept[window], 1))
    small = np.zeros(len(around.order) + 1, np.bool_)
    small[around.order[around.sizes <= HOLE_SHARE * kept.sum()]] = True
    small[around.labels[0, 0]] = False
    kept[window] |= small[around.labels[1:-1, 1:-1]]
    return kept


def _touches_border(mask: Mask) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _odd_lungs(pair: tuple[Mask, Mask] | None, body: Mask) -> bool:
    """Whether two lungs, or the region of two that touch, have no shape of lungs."""
    if pair is None:
        return not (_inside(_aspect(body), LUNGS_ASPECT) and _inside(_solidity(body), LUNGS_SOLIDITY))
    areas = sorted(int(one.sum()) for one in pair)
    return (
        areas[1] > LUNG_RATIO * areas[0]
        or not _inside(_aspect(pair[0] | pair[1]), LUNGS_ASPECT)
        or any(_odd_one("lungs", one) for one in pair)
    )


def _odd_one(organ: str, body: Mask) -> bool:
    """Whether one region has no shape of a heart, or of one lung."""
    heart = organ == "heart"
    solidity = HEART_SOLIDITY if heart else LUNG_SOLIDITY
    return not _inside(_aspect(body), HEART_ASPECT if heart else LUNG_ASPECT) or _solidity(body) < solidity


def _looks_like_two(body: Mask) -> bool:
    """Whether one region is two lungs that touch: wide, with a waist in the middle."""
    counts = np.trim_zeros(body.sum(axis=0))
    third = len(counts) // 3
    middle = counts[third : len(counts) - third]
    return _aspect(body) >= TWO_LUNGS_ASPECT and bool(middle.min() <= WAIST * counts.max())


def _inside(value: float, limits: Range) -> bool:
    return limits[0] <= value <= limits[1]


def _aspect(mask: Mask) -> float:
    """Width over height of the box around a mask, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float((columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1))


def _solidity(mask: Mask) -> float:
    """Area over that of the convex hull of the pixels' corners, 0-1; the pixel spacing does not matter."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(mask.any(axis=1))
    filled = mask[rows]
    first, stop = filled.argmax(axis=1), filled.shape[1] - filled[:, ::-1].argmax(axis=1)
    corners = [np.column_stack([at, edge]) for at in (rows, rows + 1) for edge in (first, stop)]
    return float(mask.sum() / ConvexHull(np.concatenate(corners)).volume)  # in the plane, volume is area
