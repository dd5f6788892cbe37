"""What each metric means: plain numpy, for one data set or for many bootstrap resamples at once.

Functions with ``weights`` (B, n) return (B,), one value for each row of case counts; a row of ones
is the data itself. A metric that is not defined (0/0, one class) is NaN, never 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.evaluation.calibration import CLIP, bin_edges, bin_index, logit, offsets, slopes

__all__ = [
    "RATES",
    "at_prevalence",
    "auprc",
    "confusion_counts",
    "confusion_matrix",
    "counts_rates",
    "matrix_scores",
    "probability_scores",
    "weighted_auprc",
    "weighted_auroc",
]

Floats = NDArray[np.float64]
Rate = Literal[
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "kappa",
    "mcc",
]

RATES: tuple[Rate, ...] = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "kappa",
    "mcc",
)


def _divide(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Return the quotient, NaN where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bottom == 0, np.nan, top / bottom))


def confusion_counts(called: NDArray[np.bool_], truth: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return true positives, false positives, true negatives, false negatives: (4, B)."""
    cells = np.stack([called & truth, called & ~truth, ~called & ~truth, ~called & truth])
    return np.asarray(cells.astype(np.float64) @ weights.T)


def counts_rates(counts: Floats) -> dict[str, Floats]:
    """Return every rate in ``RATES`` from ``confusion_counts`` (4, ...), each (...).

    Kappa: Cohen 1960, doi 10.1177/001316446002000104. MCC: Matthews 1975,
    doi 10.1016/0005-2795(75)90109-9.
    """
    tp, fp, tn, fn = counts
    n = tp + fp + tn + fn
    sensitivity, specificity = _divide(tp, tp + fn), _divide(tn, tn + fp)
    observed = _divide(tp + tn, n)
    chance = _divide((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp), n * n)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": observed,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": _divide(tp, tp + fp),
        "npv": _divide(tn, tn + fn),
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "kappa": _divide(observed - chance, 1 - chance),
        "mcc": _divide(tp * tn - fp * fn, spread),
    }


def at_prevalence(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: float) -> tuple[Floats, Floats]:
    """Return PPV and NPV where a share ``prevalence`` (0-1) is positive, by Bayes' rule."""
    se, sp = np.asarray(sensitivity, dtype=np.float64), np.asarray(specificity, dtype=np.float64)
    true_positive, false_positive = se * prevalence, (1 - sp) * (1 - prevalence)
    true_negative, false_negative = sp * (1 - prevalence), (1 - se) * prevalence
    return (
        _divide(true_positive, true_positive + false_positive),
        _divide(true_negative, true_negative + false_negative),
    )


def auprc(scores: ArrayLike, targets: ArrayLike) -> float:
    """Return average precision, sum over thresholds of (recall step) * precision; 0-1.

    No interpolation (Davis & Goadrich 2006, doi 10.1145/1143844.1143874). NaN without positives.
    """
    s = np.asarray(scores, dtype=np.float64)
    return float(weighted_auprc(s, np.asarray(targets, dtype=np.float64), np.ones((1, len(s))))[0])


def _descending(scores: Floats, targets: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return cumulated positives and negatives (B, K) at each of K distinct scores, highest first."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    sorted_weights = weights[:, order]
    positives = np.cumsum(sorted_weights * targets[order], axis=1)[:, ends]
    return positives, np.cumsum(sorted_weights, axis=1)[:, ends] - positives


def weighted_auprc(scores: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return average precision (B,) for case weights (B, n)."""
    positives, negatives = _descending(scores, targets, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.nan_to_num(positives / (positives + negatives))
    steps = np.diff(positives, axis=1, prepend=0.0)
    return _divide((steps * precision).sum(axis=1), positives[:, -1])


def weighted_auroc(scores: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return AUROC (B,) for case weights (B, n), ties counting half."""
    positives, negatives = _descending(scores, targets, weights)
    steps = np.diff(negatives, axis=1, prepend=0.0)
    before = positives - np.diff(positives, axis=1, prepend=0.0) / 2
    return _divide((steps * before).sum(axis=1), positives[:, -1] * negatives[:, -1])


def probability_scores(p: Floats, y: Floats, weights: Floats, bins: int = 15) -> dict[str, Floats]:
    """Return auprc, brier, ece, log_loss, slope and intercept (B,) of probabilities (n,) for truth (n,).

    Brier 1950, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2. Log loss in nats, with
    probabilities kept 1e-12 from 0 and 1. ECE in ``bins`` bins of equal width.
    """
    total = weights.sum(axis=1)
    scores = logit(p)
    likelihood = np.where(y > 0, np.log(np.clip(p, CLIP, 1)), np.log(np.clip(1 - p, CLIP, 1)))
    return {
        "auprc": weighted_auprc(p, y, weights),
        "brier": _divide(weights @ (p - y) ** 2, total),
        "ece": weighted_ece(p, y, weights, bins),
        "log_loss": _divide(-(weights @ likelihood), total),
        "slope": slopes(scores, y, weights),
        "intercept": offsets(scores, y, weights),
    }


def weighted_ece(p: Floats, y: Floats, weights: Floats, bins: int = 15) -> Floats:
    """Return the expected calibration error (B,) in ``bins`` bins of equal width."""
    index = bin_index(p, bin_edges(p, bins))
    member = np.zeros((len(p), bins))
    member[np.arange(len(p)), index] = p - y
    return _divide(np.abs(weights @ member).sum(axis=1), weights.sum(axis=1))


def confusion_matrix(truth: NDArray[np.intp], called: NDArray[np.intp], weights: Floats, classes: int) -> Floats:
    """Return counts (B, C, C), rows = truth, columns = decision."""
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + called] = 1.0
    return np.asarray(weights @ cells).reshape(len(weights), classes, classes)


def matrix_scores(matrix: Floats) -> dict[str, Floats]:
    """Return accuracy, balanced_accuracy, macro_f1, kappa and mcc (B,) of (B, C, C).

    Balanced accuracy averages the recall of the classes that occur in the truth; macro F1
    averages the classes that occur in truth or decisions. MCC: Gorodkin 2004,
    doi 10.1016/j.compbiolchem.2004.09.006.
    """
    right = np.diagonal(matrix, axis1=1, axis2=2)
    rows, columns, n = matrix.sum(axis=2), matrix.sum(axis=1), matrix.sum(axis=(1, 2))
    correct, chance = right.sum(axis=1), (rows * columns).sum(axis=1)
    spread = np.sqrt((n**2 - (rows**2).sum(axis=1)) * (n**2 - (columns**2).sum(axis=1)))
    return {
        "accuracy": _divide(correct, n),
        "balanced_accuracy": _mean_defined(_divide(right, rows)),
        "macro_f1": _mean_defined(_divide(2 * right, rows + columns)),
        "kappa": _divide(n * correct - chance, n**2 - chance),
        "mcc": _divide(n * correct - chance, spread),
    }


def _mean_defined(values: Floats) -> Floats:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
