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
from wetread.evaluation.intervals import MINIMUM_PATIENTS, Z95, Resampler, unbounded
from wetread.types import Estimate, Record, Task

__all__ = [
    "EceVerdict",
    "apply_temperature",
    "bin_edges",
    "bin_index",
    "calibration_slope",
    "ece",
    "ece_null",
    "ece_verdict",
    "fit_temperature",
    "logit",
    "mean_offset",
    "slope_estimate",
]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Binning = Literal["width", "mass"]

TEMPERATURE_RANGE = (0.05, 20.0)
"""Outside this range the validation split does not determine a temperature."""

CLIP = 1e-12
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

MINIMUM_CASES = 50
"""Below this many cases the ECE of a perfect reader reaches .2: no verdict means anything."""

MINIMUM_EVENTS = 10
"""Fewer cases of either class do not determine a slope."""

ONE_SIDED = 0.05
"""A reader fails only where its ECE is too high: a one-sided 95 % bound decides."""


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


def ece_null(
    probabilities: ArrayLike, bins: int = 15, draws: int = 1000, seed: int = 0, groups: ArrayLike | None = None
) -> tuple[float, float]:
    """Return mean and 95th percentile of the ECE that a *perfectly* calibrated reader would show.

    Truth is drawn from the probabilities themselves (n,), ``draws`` times. At n = 100 the mean is
    about 0.1: an ECE below the 95th percentile is no evidence of miscalibration. ``groups``: (n,) patients,
    whose images then share one random number: as dependent as calibration allows, so the percentile errs upwards.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    codes = np.arange(len(p)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    patients = int(codes.max(initial=-1)) + 1
    edges = bin_edges(p, bins)
    index = bin_index(p, edges)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        truth = generator.random(patients)[codes] < p
        found[draw] = np.abs(np.bincount(index, weights=p - truth, minlength=bins)).sum() / len(p)
    return float(found.mean()), float(np.quantile(found, 0.95))


def calibration_slope(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the slope of a logistic regression of the truth on logit(p): 1 is ideal, < 1 overconfident.

    Cox 1958; Van Calster et al. 2016, doi 10.1016/j.jclinepi.2015.12.005. NaN when the classes are
    separated, where no finite slope exists.
    """
    weights = np.ones((1, np.asarray(targets).size))
    return float(slopes(logit(probabilities), np.asarray(targets, dtype=np.float64), weights)[0])


def slope_estimate(probabilities: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Return the calibration slope with its Wald interval; value None where the classes are separated.

    ``groups``: (n,) patients, for the sandwich variance over them (Liang & Zeger 1986, doi 10.1093/biomet/73.1.13).
    """
    scores, y = logit(probabilities), np.asarray(targets, dtype=np.float64)
    n, ones = len(y), np.ones((1, len(y)))
    slope = float(slopes(scores, y, ones)[0])
    if not np.isfinite(slope):
        return unbounded(None, n, "not defined: the classes are separated, or one is missing", "logistic regression")
    p = _sigmoid(slope * scores + float(offsets(slope * scores, y, ones)[0]))
    design = np.stack([np.ones(n), scores], axis=1)
    inverse = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    variance, method = inverse, "logistic regression, Wald"
    if groups is not None:
        codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        patients = int(codes.max()) + 1
        sums = np.stack([np.bincount(codes, part) for part in (design * (y - p)[:, None]).T], axis=1)
        variance = inverse @ (sums.T @ sums) @ inverse * patients / max(1, patients - 1)
        method = "logistic regression, sandwich over patients"
    half = Z95 * float(np.sqrt(variance[1, 1]))
    return Estimate(value=slope, low=slope - half, high=slope + half, n=n, method=method)


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


class EceVerdict(Record):
    """Whether probabilities are honest, with the numbers that say so.

    ``verdict``: PASS where the ECE is at or below ``null_p95``, the interval of ``slope`` holds 1 and
    ``brier_skill`` (1 - Brier score over that of the base rate) is above 0; FAIL where ``ece_low``, the one-sided 95 %
    lower bound of the ECE, is above ``null_p95``; WARN otherwise. ``null_mean`` and ``null_p95``: mean and 95th
    percentile of the ECE of a perfectly calibrated reader with these probabilities. ``reasons``: what is not met.
    """

    verdict: Literal["PASS", "WARN", "FAIL"]
    n: int
    positives: int
    patients: int
    ece: float
    ece_low: float | None
    null_mean: float
    null_p95: float
    slope: Estimate
    brier_skill: float
    reasons: tuple[str, ...] = ()


def ece_verdict(
    probabilities: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> EceVerdict:
    """Judge calibration against a perfectly calibrated reader of the same size and scores.

    ``probabilities``: (n,) of the positive class; ``targets``: (n,) 1 or 0, NaN unknown and left out. ``groups``: (n,)
    patients. The lower bound is a percentile of the bootstrap over patients, whose noise raises the ECE as it raises
    that of the null. How often it errs: ``benchmarks/conformal_coverage.py``.

    Raises:
        StatisticRefused: fewer than 50 cases, or fewer than 10 of a class.
    """
    target = np.asarray(targets, dtype=np.float64)
    known = np.isfinite(target)
    p, y = np.asarray(probabilities, dtype=np.float64)[known], target[known]
    patients = None if groups is None else np.asarray(groups)[known]
    positives = int(y.sum())
    if len(y) < MINIMUM_CASES or min(positives, len(y) - positives) < MINIMUM_EVENTS:
        raise StatisticRefused(
            expected(
                f"at least {MINIMUM_CASES} cases and {MINIMUM_EVENTS} of each class to judge calibration",
                f"{positives} positive and {len(y) - positives} negative",
                "add images",
            )
        )
    resampler = Resampler(len(y), patients, resamples, seed)
    found = ece(p, y, bins)
    low = None if resampler.patients < MINIMUM_PATIENTS else _lower_bound(p, y, bins, resampler)
    mean, p95 = ece_null(p, bins, resamples, seed, patients)
    slope = slope_estimate(p, y, patients)
    skill = 1 - float(np.mean((p - y) ** 2)) / float(y.mean() * (1 - y.mean()))
    reasons = _not_met(found, p95, slope, skill)
    failed = low is not None and low > p95
    return EceVerdict(
        verdict="FAIL" if failed else "WARN" if reasons else "PASS",
        n=len(y),
        positives=positives,
        patients=resampler.patients,
        ece=found,
        ece_low=low,
        null_mean=mean,
        null_p95=p95,
        slope=slope,
        brier_skill=skill,
        reasons=reasons,
    )


def _lower_bound(p: Floats, y: Floats, bins: int, resampler: Resampler) -> float:
    index = bin_index(p, bin_edges(p, bins))
    member = np.zeros((len(p), bins))
    member[np.arange(len(p)), index] = p - y
    drawn = [np.abs(weights @ member).sum(axis=1) / weights.sum(axis=1) for weights in resampler.blocks()]
    return float(np.quantile(np.concatenate(drawn), ONE_SIDED))


def _not_met(found: float, p95: float, slope: Estimate, skill: float) -> tuple[str, ...]:
    reasons = []
    if found > p95:
        reasons.append(f"ECE {found:.3f} is above {p95:.3f}, which 95 % of perfectly calibrated readers stay below")
    if slope.low is None or slope.high is None:
        reasons.append(f"calibration slope {slope.note}")
    elif not slope.low <= 1 <= slope.high:
        reasons.append(f"calibration slope {slope.value:.2f} ({slope.low:.2f} to {slope.high:.2f}) is not 1")
    if skill <= 0:
        reasons.append(f"Brier skill {skill:.3f}: no better than stating the base rate")
    return tuple(reasons)
