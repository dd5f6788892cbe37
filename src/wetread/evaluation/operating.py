"""Which threshold a reader uses: chosen by a named rule on validation, never on test.

A case is positive when its probability is at or above the threshold. The threshold lies midway
*in logits* between the two neighbouring scores of the chosen cut, so that it does not sit on
a validation image, and so that a validation split that separates perfectly gives the middle of the gap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, UsageError, expected
from wetread.evaluation.calibration import logit
from wetread.evaluation.intervals import proportion, unbounded
from wetread.types import OperatingPoint

__all__ = ["DEFAULT_RULES", "choose_operating_points", "default_operating_point"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

DEFAULT_RULES = ("youden", "sensitivity=0.95", "specificity=0.95")


@dataclass(frozen=True)
class _Cuts:
    """Every distinct cut, from 'all positive' to 'all negative'; arrays of (distinct scores + 1,)."""

    low: Floats  # highest score below the cut; minus infinity at the first
    high: Floats  # lowest score above the cut; infinity at the last
    sensitivity: Floats
    specificity: Floats


def choose_operating_points(
    probabilities: ArrayLike,
    targets: ArrayLike,
    label: str,
    rules: Sequence[str] = DEFAULT_RULES,
    groups: ArrayLike | None = None,
) -> list[OperatingPoint]:
    """Return one operating point for each rule, with its sensitivity and specificity on validation.

    ``probabilities``: (n,) calibrated, in [0, 1]. ``targets``: (n,) 1, 0 or NaN (unknown, left out).
    ``groups``: (n,) patients, for the intervals. Rules: ``youden`` (highest sensitivity +
    specificity - 1; ties: the most balanced cut, then the one in the widest gap);
    ``sensitivity=X`` (highest threshold that reaches X); ``specificity=X`` (lowest threshold that
    reaches X). Raises :class:`StatisticRefused` when a class is missing, :class:`UsageError`
    for a rule that is not known.
    """
    p, y, patients = _known(probabilities, targets, groups, label)
    cuts = _cuts(p, y)
    points = []
    for rule in rules:
        index = _choose(rule, cuts)
        threshold = _between(float(cuts.low[index]), float(cuts.high[index]))
        if index in (0, len(cuts.low) - 1):
            logger.warning("rule %s gives every image of label %s the same decision", rule, label)
        points.append(_point(rule, label, threshold, (p, y, patients)))
    return points


def default_operating_point(label: str, threshold: float = 0.5) -> OperatingPoint:
    """Return the fixed threshold that is used, and named as such, where none was chosen."""
    unknown = unbounded(None, 0, "not chosen on data")
    return OperatingPoint(
        name=f"fixed {threshold:g}",
        label=label,
        threshold=threshold,
        rule="fixed, not chosen on validation",
        sensitivity=unknown,
        specificity=unknown,
    )


def _known(
    probabilities: ArrayLike, targets: ArrayLike, groups: ArrayLike | None, label: str
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.generic] | None]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise UsageError(expected("probabilities and targets (n,)", f"{p.shape} and {y.shape}", "reshape them"))
    known = np.isfinite(y)
    p, positive = p[known], y[known] > 0
    if not (np.isfinite(p).all() and p.min(initial=0) >= 0 and p.max(initial=0) <= 1):
        raise StatisticRefused(
            expected("probabilities between 0 and 1", "NaN or values outside", "apply sigmoid or softmax")
        )
    if positive.all() or not positive.any():
        raise StatisticRefused(
            expected(
                f"positive and negative validation images of label {label}",
                f"{int(positive.sum())} positive, {int((~positive).sum())} negative",
                "put both classes into the validation split",
            )
        )
    return p, positive, None if groups is None else np.asarray(groups)[known]


def _cuts(p: Floats, positive: NDArray[np.bool_]) -> _Cuts:
    scores, index = np.unique(p, return_inverse=True)
    index = index.reshape(-1)
    positives = np.bincount(index[positive], minlength=len(scores))
    negatives = np.bincount(index[~positive], minlength=len(scores))
    missed = np.concatenate([[0], np.cumsum(positives)])  # positives below the cut
    rejected = np.concatenate([[0], np.cumsum(negatives)])  # negatives below the cut
    return _Cuts(
        low=np.concatenate([[-np.inf], scores]),
        high=np.concatenate([scores, [np.inf]]),
        sensitivity=1 - missed / positives.sum(),
        specificity=rejected / negatives.sum(),
    )


_TIE = 1e-12
"""Shares that differ by less than this differ by rounding only."""


def _choose(rule: str, cuts: _Cuts) -> int:
    name, _, text = rule.partition("=")
    if rule == "youden":
        index = cuts.sensitivity + cuts.specificity
        best = np.flatnonzero(index >= index.max() - _TIE)
        unbalance = np.abs(cuts.sensitivity - cuts.specificity)[best]
        best = best[unbalance <= unbalance.min() + _TIE]
        gap = logit(np.minimum(cuts.high[best], 1.0)) - logit(cuts.low[best])
        return int(best[np.argmax(gap)])
    target = _target(rule, text) if name in ("sensitivity", "specificity") else None
    if target is None:
        raise UsageError(
            expected("a rule 'youden', 'sensitivity=X' or 'specificity=X'", repr(rule), "choose one of these")
        )
    if name == "sensitivity":
        return int(np.flatnonzero(cuts.sensitivity >= target - _TIE)[-1])
    return int(np.flatnonzero(cuts.specificity >= target - _TIE)[0])


def _target(rule: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise UsageError(expected("a target above 0 and at most 1", repr(rule), "write e.g. sensitivity=0.95"))
    return value


def _between(low: float, high: float) -> float:
    """Return the threshold between two neighbouring scores: above ``low``, at most ``high``.

    The first cut (nothing below) is 0, so that every image is positive; the last cut lies above
    the highest score, so that none is.
    """
    if low == -np.inf:
        return 0.0
    if high == np.inf:
        high = 1.0 if low < 1.0 else float(np.nextafter(1.0, 2.0))
    middle = float(1 / (1 + np.exp(-logit([low, min(high, 1.0)]).mean())))
    return middle if low < middle < high else high


def _point(
    rule: str,
    label: str,
    threshold: float,
    data: tuple[Floats, NDArray[np.bool_], NDArray[np.generic] | None],
) -> OperatingPoint:
    p, positive, groups = data
    called = p >= threshold
    return OperatingPoint(
        name=rule,
        label=label,
        threshold=threshold,
        rule=f"{rule} on validation, {int(positive.sum())} positive and {int((~positive).sum())} negative",
        sensitivity=proportion(called[positive], None if groups is None else groups[positive]),
        specificity=proportion(~called[~positive], None if groups is None else groups[~positive]),
    )
