"""The area under the ROC curve, how sure it is, and when that cannot be said.

DeLong's variance by midranks in O(n log n), extended to several images per patient, and the
interval on the logit scale, because the plain one under-covers near 1 (``benchmarks/interval_coverage.py``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, UsageError, expected
from wetread.evaluation.intervals import Z95, unbounded
from wetread.types import Estimate

__all__ = ["DeLong", "auroc", "auroc_estimate", "delong", "logit_interval", "wald_interval"]

Floats = NDArray[np.float64]

MINIMUM_PER_CLASS = 10
"""Fewer positives or negatives than this never get an interval."""

MINIMUM_NEAR_ONE = 30
"""Above ``NEAR_ONE`` fewer than this per class get none: coverage falls to 65-90 % of nominal 95 %."""

NEAR_ONE = 0.95


class DeLong(NamedTuple):
    """Areas (R,) of R readers on the same cases and their covariance (R, R)."""

    areas: Floats
    covariance: Floats
    positives: int
    negatives: int
    patients: int


def auroc(scores: ArrayLike, targets: ArrayLike) -> float:
    """Return the probability that a positive scores above a negative, ties counting half; 0-1.

    ``scores``, ``targets``: (n,), targets 1 or 0. NaN when a class is missing.
    """
    s, positive = np.asarray(scores, dtype=np.float64), np.asarray(targets) > 0
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        return float("nan")
    return float((_midranks(s)[positive].sum() - m * (m + 1) / 2) / (m * n))


def delong(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> DeLong:
    """Return areas and covariance of one or several readers on the same cases.

    DeLong et al. 1988, doi 10.2307/2531595; midranks after Sun & Xu 2014,
    doi 10.1109/LSP.2014.2337313; patients with several images after Obuchowski 1997,
    doi 10.2307/2533958. ``scores``: (n,) or (R, n). ``targets``: (n,) 1 or 0. ``groups``: (n,)
    patients; when each has one image the result is DeLong's own. Needs two positives and two
    negatives (with groups: two patients with each), else raises :class:`StatisticRefused`.
    """
    s = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    positive = np.asarray(targets) > 0
    if s.shape[1:] != positive.shape:
        raise UsageError(expected("one target for each score", f"{positive.shape} for {s.shape}", "align them"))
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise StatisticRefused(expected("two positives and two negatives", f"{m} and {n}", "evaluate more images"))
    # v10: share of negatives that each positive beats; v01: share of positives that beat each negative
    v10, v01 = np.empty((len(s), m)), np.empty((len(s), n))
    for reader, row in enumerate(s):
        together = _midranks(row)
        v10[reader] = (together[positive] - _midranks(row[positive])) / n
        v01[reader] = 1 - (together[~positive] - _midranks(row[~positive])) / m
    areas = v10.mean(axis=1)
    if groups is None:
        covariance = np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n
        return DeLong(areas, covariance, m, n, m + n)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    covariance, patients = _clustered(v10 - areas[:, None], v01 - areas[:, None], positive, codes)
    return DeLong(areas, covariance, m, n, patients)


def _clustered(x: Floats, y: Floats, positive: NDArray[np.bool_], codes: NDArray[np.intp]) -> tuple[Floats, int]:
    """Return Obuchowski's covariance from centred placements x (R, m) and y (R, n)."""
    patients = int(codes.max()) + 1
    with_positive = np.unique(codes[positive]).size
    with_negative = np.unique(codes[~positive]).size
    if min(with_positive, with_negative) < 2:
        raise StatisticRefused(
            expected(
                "two patients with positives and two with negatives",
                f"{with_positive} and {with_negative}",
                "evaluate more patients",
            )
        )
    m, n = x.shape[1], y.shape[1]
    sums_x = np.stack([np.bincount(codes[positive], row, patients) for row in x])
    sums_y = np.stack([np.bincount(codes[~positive], row, patients) for row in y])
    s10 = with_positive / ((with_positive - 1) * m) * sums_x @ sums_x.T
    s01 = with_negative / ((with_negative - 1) * n) * sums_y @ sums_y.T
    s11 = patients / (patients - 1) * sums_x @ sums_y.T
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n), patients


def _midranks(values: Floats) -> Floats:
    """Return ranks from 1, tied values sharing their mean rank; (n,)."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[index.reshape(-1)]


def logit_interval(area: float, variance: float) -> tuple[float, float]:
    """Return the 95 % interval made on the logit scale; ``area`` strictly between 0 and 1.

    Delta method: the standard error of logit(A) is se(A) / (A (1 - A)); Pepe 2003, section 5.2.
    """
    middle = np.log(area / (1 - area))
    half = Z95 * np.sqrt(variance) / (area * (1 - area))
    return float(1 / (1 + np.exp(-(middle - half)))), float(1 / (1 + np.exp(-(middle + half))))


def wald_interval(area: float, variance: float) -> tuple[float, float]:
    """Return the plain 95 % interval, area +- 1.96 se, not cut at 1: for comparison only."""
    half = Z95 * float(np.sqrt(variance))
    return area - half, area + half


def auroc_estimate(
    scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None, *, strict: bool = False
) -> Estimate:
    """Return the AUROC with its logit-DeLong interval, or without one and a note that says why.

    No interval: fewer than 10 positives or negatives; fewer than 30 at an area above 0.95; an
    area of exactly 0 or 1; scores that are all alike. With ``groups`` these counts are of patients. ``strict`` raises
    :class:`StatisticRefused` instead of leaving the interval out.
    """
    s, positive = np.asarray(scores, dtype=np.float64), np.asarray(targets) > 0
    n, value = len(s), auroc(s, positive)
    clusters = None if groups is None else np.asarray(groups)
    reason = _reason(value, positive, clusters)
    if not reason and s.min() == s.max():
        reason = "all scores are alike, so nothing is ranked and the variance cannot be estimated"
    if reason:
        if strict:
            raise StatisticRefused(
                expected("enough cases for an interval of the AUROC", reason, "evaluate more patients")
            )
        return unbounded(None if np.isnan(value) else value, n, f"no interval: {reason}", "logit-DeLong")
    if clusters is not None and np.unique(clusters).size == n:
        clusters = None
    found = delong(s, positive, clusters)
    low, high = logit_interval(value, float(found.covariance[0, 0]))
    method, note = "logit-DeLong", ""
    if clusters is not None:
        method = "logit-DeLong, clustered by patient (Obuchowski)"
        effect = float(found.covariance[0, 0] / delong(s, positive).covariance[0, 0])
        note = f"{n} cases of {found.patients} patients, design effect {effect:.2f}"
    return Estimate(value=value, low=low, high=high, n=n, method=method, note=note)


def _reason(value: float, positive: NDArray[np.bool_], groups: NDArray[np.generic] | None) -> str:
    """Return why an interval would mislead, or ''."""
    unit, m, n = "cases", int(positive.sum()), int((~positive).sum())
    if groups is not None:
        unit, m, n = "patients", np.unique(groups[positive]).size, np.unique(groups[~positive]).size
    if min(m, n) == 0:
        return "only one class is present" if m + n else "no cases"
    if min(m, n) < MINIMUM_PER_CLASS:
        return f"{m} positive and {n} negative {unit}, fewer than {MINIMUM_PER_CLASS} of one class"
    if value > NEAR_ONE and min(m, n) < MINIMUM_NEAR_ONE:
        return (
            f"{m} positive and {n} negative {unit}, fewer than {MINIMUM_NEAR_ONE} of one class "
            f"with an AUROC above {NEAR_ONE}"
        )
    if value in (0.0, 1.0):
        return "the classes do not overlap, so the variance cannot be estimated"
    return ""
