"""How well two masks agree: overlap, distance of their borders, and the mean over many images.

Definitions: Maier-Hein et al. 2024, Metrics reloaded, doi 10.1038/s41592-023-02151-z; Taha & Hanbury
2015, doi 10.1186/s12880-015-0068-x. What is not defined is None and is counted apart, never 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.evaluation.intervals import Resampler, bootstrap, unbounded
from wetread.types import Estimate, Record

__all__ = ["SurfaceDistances", "dice", "iou", "summarise", "surface_distances"]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class SurfaceDistances(Record):
    """How far apart two borders are, at least 0, in ``unit``.

    ``hd95``: larger of the two directed 95th percentiles. ``average``: average symmetric surface
    distance. ``unit`` ``px``: no spacing was given, and pixels counted as square.
    """

    hd95: float
    average: float
    unit: Literal["mm", "px"]


def dice(a: Mask, b: Mask) -> float | None:
    """Return 2 * abs(A and B) / (abs(A) + abs(B)), 0-1; None when both masks are empty.

    ``a``, ``b``: bool (rows, columns).

    Raises:
        UsageError: masks of different shapes, or not bool (rows, columns).
    """
    _check(a, b)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else None


def iou(a: Mask, b: Mask) -> float | None:
    """Return abs(A and B) / abs(A or B), 0-1, also called Jaccard; None when both masks are empty.

    ``a``, ``b``: bool (rows, columns).

    Raises:
        UsageError: masks of different shapes, or not bool (rows, columns).
    """
    _check(a, b)
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else None


def surface_distances(a: Mask, b: Mask, spacing_mm: tuple[float, float] | None) -> SurfaceDistances | None:
    """Return how far apart the borders of ``a`` and ``b``, bool (rows, columns), are; None when one is empty.

    ``spacing_mm``: (row, column), None for pixels. A border pixel is one of the mask with a neighbour
    (of four) outside the mask or the image. From each border pixel the distance to the nearest of the
    other border is taken. HD95 is the larger of the two directed 95th percentiles (linear between
    ranks), where some tools take one percentile of both sets. The average is over both sets together
    (ASSD), where MASD would be the mean of two means.

    Raises:
        UsageError: masks of different shapes, not bool (rows, columns), a spacing not above 0.
    """
    _check(a, b)
    if spacing_mm is not None and not all(0 < mm < np.inf for mm in spacing_mm):
        raise UsageError(
            expected("a spacing (row, column) above 0 mm", spacing_mm, "give None when the file states none")
        )
    if not (a.any() and b.any()):
        return None
    box = _box(a | b)
    there, back = _distances(a[box], b[box], spacing_mm or (1.0, 1.0))
    return SurfaceDistances(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        average=float(np.concatenate([there, back]).mean()),
        unit="px" if spacing_mm is None else "mm",
    )


def summarise(values: Sequence[float | None], patients: Sequence[str], seed: int) -> Estimate:
    """Return the mean of ``values`` (n,) with a 95 % interval from a bootstrap over ``patients`` (n,).

    None is undefined: left out of the mean, and counted in the note. ``n`` is the number of values in
    the mean. Every image counts alike, whatever the patient's number of images.

    Raises:
        UsageError: as many patients as values are needed; a value that is not finite.
    """
    if len(values) != len(patients):
        raise UsageError(expected(f"{len(values)} patients, one for each value", len(patients), "name all"))
    defined = np.array([value is not None for value in values], dtype=np.bool_)
    kept: Floats = np.array([value for value in values if value is not None], dtype=np.float64)
    if not np.isfinite(kept).all():
        raise UsageError(expected("finite values", "NaN or infinity", "give None where a value is not defined"))
    missing = f"{len(values) - len(kept)} of {len(values)} not defined and left out" if len(kept) < len(values) else ""
    resampler = Resampler(len(values), np.asarray(patients, dtype=np.str_), seed=seed).subset(defined)
    if len(kept) == 0:
        return unbounded(None, 0, missing or "no cases", resampler.method)
    found = bootstrap(lambda weights: {"mean": weights @ kept / weights.sum(axis=1)}, resampler)["mean"]
    notes = (f"mean over {resampler.patients} patients", missing, found.note)
    return found.model_copy(update={"note": "; ".join(note for note in notes if note)})


def _check(a: Mask, b: Mask) -> None:
    for mask in (a, b):
        if mask.dtype != np.bool_:
            raise UsageError(expected("a bool mask", mask.dtype, "compare with a threshold first"))
        if mask.ndim != 2:
            raise UsageError(expected("a mask (rows, columns)", f"shape {mask.shape}", "give one image"))
    if a.shape != b.shape:
        raise UsageError(expected("two masks of one shape", f"{a.shape} and {b.shape}", "resize one to the other"))


def _box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _distances(a: Mask, b: Mask, spacing: tuple[float, float]) -> tuple[Floats, Floats]:
    """From each border pixel of ``a`` to the border of ``b``, and back."""
    from scipy import ndimage

    # Outside the array counts as background, so cropping to the union's box changes no border.
    borders = [mask & ~np.asarray(ndimage.binary_erosion(mask)) for mask in (a, b)]
    to_b, to_a = (np.asarray(ndimage.distance_transform_edt(~edge, sampling=spacing)) for edge in reversed(borders))
    return to_b[borders[0]], to_a[borders[1]]
