"""How probabilities are made honest (one temperature) and how honest they are (bins, ECE, slope).

The temperature is fitted on validation only. ECE has a noise floor, so it is never judged
against a fixed limit but against a perfectly calibrated reader of the same size and scores.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, UsageError, expected
from wetread.types import Task

__all__ = [
    "apply_temperature",
    "bin_edges",
    "bin_index",
    "calibration_slope",
    "ece",
    "ece_null",
    "fit_temperature",
    "logit",
    "mean_offset",
]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Binning = Literal["width", "mass"]

TEMPERATURE_RANGE = (0.05, 20.0)
"""Outside this range the validation split does not determine a temperature."""

CLIP = 1e-12
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""


def logit(probabilities: ArrayLike, clip: float = CLIP) -> Floats:
    """Return log(p / (1 - p)) with ``p`` kept ``clip`` away from 0 and 1; same shape."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), clip, 1 - clip)
    return np.log(p) - np.log1p(-p)


def apply_temperature(logits: ArrayLike, temperature: float, task: Task) -> Floats:
    """Return probabilities of ``logits / temperature``; shape as given.

    Softmax over the last axis for ``multiclass`` (N, C); sigmoid of each logit else.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise UsageError(expected("a temperature above 0", temperature, "fit it with fit_temperature"))
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if task == "multiclass":
        shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
    return _sigmoid(scaled)


def fit_temperature(logits: ArrayLike, targets: ArrayLike, task: Task) -> float:
    """Return the temperature T > 0 that minimises the negative log likelihood of logits / T.

    Guo et al. 2017, arXiv 1706.04599. ``logits``: (N, L) or, for binary, (N,) or (N, 1).
    ``targets``: binary and multilabel 1, 0 or NaN (unknown, masked), shape as the logits;
    multiclass (N,) class numbers, -1 or NaN unknown. The loss is convex in 1/T. Where the split
    does not determine T (every case right, or logits that carry nothing) the result is 1 or the
    upper bound, and a warning is logged. Raises :class:`StatisticRefused` without known targets.
    """
    values, known = _checked(np.asarray(logits, dtype=np.float64), targets, task)
    slope = _multiclass_slope if task == "multiclass" else _binary_slope
    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if slope(values, known, high) < 0:
        logger.warning("the validation split is classified (almost) without error: temperature kept at 1")
        return 1.0
    if slope(values, known, low) > 0:
        logger.warning("the logits carry no information on the validation split: temperature at its bound")
        return TEMPERATURE_RANGE[1]
    from scipy.optimize import brentq

    return 1.0 / float(brentq(lambda inverse: slope(values, known, inverse), low, high, xtol=1e-10))


def _checked(logits: Floats, targets: ArrayLike, task: Task) -> tuple[Floats, Floats]:
    """Return finite logits and known targets: (K,) for binary and multilabel, (K, C) and (K,) else."""
    target = np.asarray(targets, dtype=np.float64)
    if task == "multiclass":
        if logits.ndim != 2 or target.shape != logits.shape[:1]:
            raise UsageError(
                expected("logits (N, C) and targets (N,)", f"{logits.shape} and {target.shape}", "reshape them")
            )
        known = np.isfinite(target) & (target >= 0)
    else:
        if logits.size != target.size:
            raise UsageError(
                expected("one target for each logit", f"{target.shape} for {logits.shape}", "reshape them")
            )
        logits, target = logits.reshape(-1), target.reshape(-1)
        known = np.isfinite(target)
    if not known.any():
        raise StatisticRefused(
            expected("validation images with known labels", "none", "add labels to the validation split")
        )
    if not np.isfinite(logits[known]).all():
        raise StatisticRefused(expected("finite logits", "NaN or infinity", "look for a diverged training"))
    return logits[known], target[known]


def _binary_slope(logits: Floats, targets: Floats, inverse: float) -> float:
    """Derivative of the NLL by 1/T, of the sigmoid, mean over cases."""
    return float(np.mean((_sigmoid(logits * inverse) - targets) * logits))


def _multiclass_slope(logits: Floats, targets: Floats, inverse: float) -> float:
    """Derivative of the NLL by 1/T, of the softmax, mean over cases."""
    probabilities = apply_temperature(logits, 1 / inverse, "multiclass")
    chosen = logits[np.arange(len(logits)), targets.astype(np.intp)]
    return float(np.mean((probabilities * logits).sum(axis=1) - chosen))


def _sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


def bin_edges(probabilities: ArrayLike, bins: int = 15, binning: Binning = "width") -> Floats:
    """Return edges (<= bins + 1,) from 0 to 1: of equal width, or holding equally many cases."""
    if binning == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    inner = np.quantile(np.asarray(probabilities, dtype=np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def bin_index(probabilities: ArrayLike, edges: Floats) -> NDArray[np.intp]:
    """Return the bin (n,) of each probability; bins are [low, high), the last one [low, 1]."""
    found = np.searchsorted(edges, np.asarray(probabilities, dtype=np.float64), side="right") - 1
    return np.clip(found, 0, len(edges) - 2)


def ece(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15, binning: Binning = "width") -> float:
    """Return the expected calibration error, sum over bins of n_b/n * abs(mean p - mean y); 0-1.

    Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602. ``probabilities``: (n,) of the positive class
    (or the top-label confidence), ``targets``: (n,) 0/1 (or whether the top label was right).
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    edges = bin_edges(p, bins, binning)
    sums = np.bincount(bin_index(p, edges), weights=p - y, minlength=len(edges) - 1)
    return float(np.abs(sums).sum() / len(p))


def ece_null(probabilities: ArrayLike, bins: int = 15, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return mean and 95th percentile of the ECE that a *perfectly* calibrated reader would show.

    Truth is drawn from the probabilities themselves (n,), ``draws`` times. At n = 100 the mean is
    about 0.1: an ECE below the 95th percentile is no evidence of miscalibration.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    edges = bin_edges(p, bins)
    index = bin_index(p, edges)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        truth = generator.random(len(p)) < p
        found[draw] = np.abs(np.bincount(index, weights=p - truth, minlength=bins)).sum() / len(p)
    return float(found.mean()), float(np.quantile(found, 0.95))


def calibration_slope(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the slope of a logistic regression of the truth on logit(p): 1 is ideal, < 1 overconfident.

    Cox 1958; Van Calster et al. 2016, doi 10.1016/j.jclinepi.2015.12.005. NaN when the classes are
    separated, where no finite slope exists.
    """
    weights = np.ones((1, np.asarray(targets).size))
    return float(slopes(logit(probabilities), np.asarray(targets, dtype=np.float64), weights)[0])


def mean_offset(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the calibration intercept at slope 1 (calibration in the large): 0 is ideal.

    Above 0 the probabilities are too low on average, in logits.
    """
    weights = np.ones((1, np.asarray(targets).size))
    return float(offsets(logit(probabilities), np.asarray(targets, dtype=np.float64), weights)[0])


_STEPS = 30
"""Newton steps; a fit that needs more has run away to an infinite slope."""

_CONVERGED = 1e-10
"""Largest change of a coefficient at which a Newton fit counts as done."""


def slopes(scores: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return the calibration slope of each row of case weights (B, n); NaN where none exists."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    change = np.full(len(weights), np.inf)
    for _ in range(_STEPS):
        p = _sigmoid(a[:, None] + b[:, None] * scores)
        error, curve = weights * (targets - p), weights * p * (1 - p)
        g0, g1 = error.sum(axis=1), error @ scores
        h00, h01, h11 = curve.sum(axis=1), curve @ scores, curve @ scores**2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            det = h00 * h11 - h01**2
            step_a, step_b = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        change = np.abs(step_a) + np.abs(step_b)
        a, b = a + np.nan_to_num(step_a), b + np.nan_to_num(step_b)
        if np.nanmax(np.where(np.isfinite(change), change, 0.0)) < _CONVERGED:
            break
    return np.where(np.isfinite(change) & (change < _CONVERGED**0.5), b, np.nan)


def offsets(scores: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return the calibration intercept at slope 1 for each row of case weights (B, n)."""
    a = np.zeros(len(weights))
    change = np.full(len(weights), np.inf)
    for _ in range(_STEPS):
        p = _sigmoid(a[:, None] + scores)
        curve = (weights * p * (1 - p)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = (weights * (targets - p)).sum(axis=1) / curve
        a = a + np.clip(np.nan_to_num(change), -2.0, 2.0)  # damped: far offsets overshoot
        if np.nanmax(np.abs(np.where(np.isfinite(change), change, 0.0))) < _CONVERGED:
            break
    return np.where(np.isfinite(change) & (np.abs(change) < _CONVERGED**0.5), a, np.nan)
