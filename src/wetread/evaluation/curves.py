"""The points that plots are drawn from: ROC with band, precision-recall, reliability, score histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.evaluation.calibration import bin_edges, bin_index, ece, ece_null
from wetread.evaluation.intervals import MINIMUM_PATIENTS, Resampler, proportion
from wetread.evaluation.result import (
    PrCurve,
    ReliabilityBin,
    ReliabilityCurve,
    RocCurve,
    ScoreHistogram,
)

__all__ = ["pr_curve", "reliability_curve", "roc_curve", "score_histogram"]

Floats = NDArray[np.float64]

MAXIMUM_POINTS = 400
"""More points than this cannot be told apart on a page and only make the JSON long."""

_GRID = np.linspace(0.0, 1.0, 51)
"""False positive rates at which the band of the ROC curve is given."""


def _steps(p: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return distinct scores from high to low with true and false positives at or above each."""
    scores, index = np.unique(p, return_inverse=True)
    index = index.reshape(-1)
    positives = np.bincount(index, weights=y, minlength=len(scores))[::-1]
    negatives = np.bincount(index, weights=1 - y, minlength=len(scores))[::-1]
    return scores[::-1], np.cumsum(positives), np.cumsum(negatives)


def _thin(keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the numbers of at most MAXIMUM_POINTS of the kept points, first and last among them."""
    kept = np.flatnonzero(keep)
    if len(kept) <= MAXIMUM_POINTS:
        return kept
    return kept[np.unique(np.linspace(0, len(kept) - 1, MAXIMUM_POINTS).round().astype(np.intp))]


def roc_curve(p: Floats, y: Floats, resampler: Resampler | None = None) -> RocCurve:
    """Return the ROC curve of probabilities (n,) for truth (n,); both classes must be present.

    With a ``resampler`` also the pointwise 95 % band of sensitivity. Points on a straight line
    between their neighbours are left out; the curve is the same.
    """
    scores, tp, fp = _steps(p, y)
    x, z = np.append(0.0, fp / fp[-1]), np.append(0.0, tp / tp[-1])
    corner = np.ones(len(x), dtype=bool)
    corner[1:-1] = np.abs(np.diff(x[:-1]) * np.diff(z[1:]) - np.diff(x[1:]) * np.diff(z[:-1])) > 1e-15
    kept = _thin(corner)
    thresholds: list[float | None] = [None, *map(float, scores)]
    low, high = (np.empty(0), np.empty(0)) if resampler is None else _band(p, y, resampler)
    return RocCurve(
        false_positive_rate=tuple(x[kept]),
        sensitivity=tuple(z[kept]),
        thresholds=tuple(thresholds[k] for k in kept),
        grid=tuple(_GRID) if len(low) else (),
        low=tuple(low),
        high=tuple(high),
    )


def _band(p: Floats, y: Floats, resampler: Resampler) -> tuple[Floats, Floats]:
    """Return the 2.5th and 97.5th percentile of sensitivity at each false positive rate of the grid."""
    if resampler.patients < MINIMUM_PATIENTS:
        return np.empty(0), np.empty(0)
    order = np.argsort(-p, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    rows = []
    for weights in resampler.blocks():
        ranked = weights[:, order]
        tp = np.cumsum(ranked * y[order], axis=1)[:, ends]
        fp = np.cumsum(ranked * (1 - y[order]), axis=1)[:, ends]
        for one_tp, one_fp in zip(tp, fp, strict=True):
            if one_tp[-1] and one_fp[-1]:
                x, z = np.append(0.0, one_fp / one_fp[-1]), np.append(0.0, one_tp / one_tp[-1])
                rows.append(np.interp(_GRID, x, z))
    low, high = np.quantile(np.array(rows), [0.025, 0.975], axis=0)
    return low, high


def pr_curve(p: Floats, y: Floats) -> PrCurve:
    """Return precision against recall, recall rising; needs a positive."""
    scores, tp, fp = _steps(p, y)
    new = np.append(True, np.diff(tp) > 0) & (tp > 0)
    kept = _thin(new)
    return PrCurve(
        recall=tuple(tp[kept] / tp[-1]),
        precision=tuple(tp[kept] / (tp[kept] + fp[kept])),
        thresholds=tuple(map(float, scores[kept])),
        prevalence=float(y.mean()),
    )


def reliability_curve(
    p: Floats, y: Floats, groups: NDArray[np.str_] | None = None, bins: int = 15, seed: int = 0
) -> ReliabilityCurve:
    """Return reliability bins of equal width, the ECE, and the ECE of a perfectly calibrated reader."""
    edges = bin_edges(p, bins)
    index = bin_index(p, edges)
    rows = []
    for number in range(bins):
        inside = index == number
        some = bool(inside.any())
        rows.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                count=int(inside.sum()),
                mean_probability=float(p[inside].mean()) if some else None,
                observed=proportion(y[inside] > 0, None if groups is None else groups[inside]),
            )
        )
    mean, p95 = ece_null(p, bins, seed=seed)
    return ReliabilityCurve(bins=tuple(rows), ece=ece(p, y, bins), null_mean=mean, null_p95=p95)


def score_histogram(p: Floats, y: Floats, bins: int = 25) -> ScoreHistogram:
    """Return how many positives and negatives fall into each of ``bins`` bins of probability."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    positives, negatives = (np.histogram(p[y == value], edges)[0] for value in (1, 0))
    return ScoreHistogram(
        edges=tuple(map(float, edges)),
        positives=tuple(map(int, positives)),
        negatives=tuple(map(int, negatives)),
    )
