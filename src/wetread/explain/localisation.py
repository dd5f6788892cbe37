"""Whether a heat map lies on the finding whose place is known: per image, and per set with intervals.

Decided here: only positive evidence counts, and values that tie share what they would win (the expected value
over every order of the tied pixels), so that no result hangs on the order in which pixels are stored. Mass alone
rewards large organs, hence lift: how many times denser the heat is on the finding than over the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.evaluation.intervals import proportion
from wetread.evaluation.overlap import iou, summarise
from wetread.explain.localise import otsu_threshold
from wetread.types import Estimate, Record

__all__ = [
    "Localisation",
    "LocalisationSummary",
    "heat_overlap",
    "lift",
    "localisation_of",
    "mass_accuracy",
    "pointing_hit",
    "rank_accuracy",
    "summarise_localisation",
]

Heat = NDArray[np.floating]
Mask = NDArray[np.bool_]


class Localisation(Record):
    """How one heat map lies on one mask.

    ``hit``: 1 where the hottest pixel is in the mask, else 0 (ties: the share of hottest pixels in it).
    ``tolerant_hit``: the same with ``tolerance_px`` around the mask. ``mass``: share (0-1) of the heat in the mask.
    ``rank``: share (0-1) of the as many hottest pixels as the mask has that lie in it. ``area``: share (0-1)
    of the image that the mask takes. ``lift``: mass / area. ``overlap``: IoU (0-1) of the mask and the heat
    above Otsu's threshold, 0 where the reader did not call the finding.
    """

    hit: float
    tolerant_hit: float
    tolerance_px: float
    mass: float
    rank: float
    area: float
    lift: float
    overlap: float


class LocalisationSummary(Record):
    """The means over a set, each with n and a 95 % interval over patients."""

    hit: Estimate
    tolerant_hit: Estimate
    mass: Estimate
    rank: Estimate
    lift: Estimate
    overlap: Estimate


def _checked(heat: Heat, mask: Mask) -> NDArray[np.float64]:
    """Return the positive part of ``heat`` as float64, or refuse the pair."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise UsageError(
            expected("a bool mask (rows, columns)", f"{mask.dtype} {mask.shape}", "compare with a threshold first")
        )
    if heat.shape != mask.shape:
        raise UsageError(expected(f"heat of the mask's shape {mask.shape}", heat.shape, "use Explanation.heat"))
    if not mask.any():
        raise UsageError(expected("a mask with the finding in it", "an empty one", "leave out images without finding"))
    if not np.isfinite(heat).all():
        raise ExplanationFailed(expected("finite heat", "NaN or infinity", "check the weights of the reader"))
    positive = np.maximum(heat, 0).astype(np.float64)
    if not positive.any():
        raise ExplanationFailed(expected("heat with positive evidence", "none", "count the image as one without a map"))
    return positive


def pointing_hit(heat: Heat, mask: Mask, tolerance_px: float = 0.0) -> float:
    """Return 1.0 where the hottest pixel of ``heat`` lies in ``mask``, else 0.0.

    ``heat``: float (rows, columns), of which the positive part counts; ``mask``: bool (rows, columns). Where several
    pixels tie for the maximum, the share of them that lies in the mask: the expected value of a fair draw.
    ``tolerance_px``: how far beside the mask (Euclidean) still counts. Source: Zhang et al., ECCV 2016 (pointing game,
    15 px there); the hit rate of Saporta et al., Nat Mach Intell 2022, has no tolerance.

    Raises:
        UsageError: an empty mask, one that is not bool, or another shape.
        ExplanationFailed: heat that is not finite or has no positive evidence.
    """
    positive = _checked(heat, mask)
    return float(_widened(mask, tolerance_px)[positive == positive.max()].mean())


def _widened(mask: Mask, by_px: float) -> Mask:
    from scipy import ndimage

    if by_px < 0:
        raise UsageError(expected("a tolerance of at least 0 px", by_px, "give 0 for none"))
    return np.asarray(ndimage.distance_transform_edt(~mask) <= by_px) if by_px else mask


def mass_accuracy(heat: Heat, mask: Mask) -> float:
    """Return the share (0-1) of the positive heat that lies in ``mask``; arguments and errors of :func:`pointing_hit`.

    Source: relevance mass accuracy, Arras et al., Information Fusion 2022.
    """
    positive = _checked(heat, mask)
    return float(positive[mask].sum() / positive.sum())


def rank_accuracy(heat: Heat, mask: Mask) -> float:
    """Return the share (0-1) of the K hottest pixels that lie in ``mask``, K the pixels of the mask.

    Pixels that tie for the last of the K places share them. Arguments and errors of :func:`pointing_hit`.
    Source: relevance rank accuracy, Arras et al., Information Fusion 2022.
    """
    positive = _checked(heat, mask)
    count = int(mask.sum())
    last = np.partition(positive, -count, axis=None)[-count]
    above, tied = positive > last, positive == last
    places = count - int(above.sum())
    return float((above[mask].sum() + places * tied[mask].sum() / tied.sum()) / count)


def lift(heat: Heat, mask: Mask) -> float:
    """Return how many times denser the heat is in ``mask`` than in the whole image: mass / area; 1 is chance.

    At most 1 / area. Arguments and errors of :func:`pointing_hit`.
    """
    return mass_accuracy(heat, mask) / float(mask.mean())


def heat_overlap(heat: Heat, mask: Mask, *, called: bool = True) -> float:
    """Return the IoU (0-1) of ``mask`` with the heat above Otsu's threshold; 0 where the finding was not ``called``.

    Arguments and errors of :func:`pointing_hit`. Source: Saporta et al., Nat Mach Intell 2022: a map below the
    reader's threshold shows nothing to a person, so it overlaps with nothing.
    """
    positive = _checked(heat, mask)
    if not called:
        return 0.0
    scaled = (positive / positive.max()).astype(np.float32)
    return iou(scaled > otsu_threshold(scaled), mask) or 0.0


def localisation_of(heat: Heat, mask: Mask, *, tolerance_px: float = 0.0, called: bool = True) -> Localisation:
    """Return every measure of one pair; arguments and errors of :func:`pointing_hit` and :func:`heat_overlap`."""
    mass, area = mass_accuracy(heat, mask), float(mask.mean())
    return Localisation(
        hit=pointing_hit(heat, mask),
        tolerant_hit=pointing_hit(heat, mask, tolerance_px),
        tolerance_px=tolerance_px,
        mass=mass,
        rank=rank_accuracy(heat, mask),
        area=area,
        lift=mass / area,
        overlap=heat_overlap(heat, mask, called=called),
    )


def summarise_localisation(
    found: Sequence[Localisation | None], patients: Sequence[str], seed: int = 0
) -> LocalisationSummary:
    """Return the means over ``found`` (n,), None where an image has no map.

    A finding without a map was not found: it counts as 0 in ``hit`` and ``overlap``, and is left out of (and counted
    in the note of) mass, rank and lift, which speak of the heat that there is. ``patients``: (n,). Intervals: Wilson
    with design effect for hits without ties, else a bootstrap over patients.

    Raises:
        UsageError: not one patient for each image.
    """
    if len(found) != len(patients):
        raise UsageError(expected(f"{len(found)} patients, one for each image", len(patients), "name all"))

    def mean(name: str) -> Estimate:
        return summarise([None if one is None else float(getattr(one, name)) for one in found], patients, seed)

    def rate(name: str) -> Estimate:
        values = [0.0 if one is None else float(getattr(one, name)) for one in found]
        if set(values) <= {0.0, 1.0}:
            return proportion(np.array(values), np.asarray(patients, dtype=np.str_))
        return summarise(values, patients, seed)

    return LocalisationSummary(
        hit=rate("hit"),
        tolerant_hit=rate("tolerant_hit"),
        mass=mean("mass"),
        rank=mean("rank"),
        lift=mean("lift"),
        overlap=summarise([0.0 if one is None else one.overlap for one in found], patients, seed),
    )
