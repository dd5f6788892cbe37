"""Whether one reader beats another on the same images, and when that must not be claimed.

'Better' needs an interval of the difference that excludes 0 and a p-value that stays below 0.05
after Holm's adjustment over all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, UsageError, expected
from wetread.evaluation.auroc import auroc_estimate, delong
from wetread.evaluation.intervals import Z95, Resampler, Statistics, proportion, summarise
from wetread.evaluation.labels import LabelCases, label_cases
from wetread.evaluation.metrics import confusion_counts, counts_rates, weighted_auprc, weighted_ece
from wetread.evaluation.result import ComparisonResult, ComparisonRow, EvaluationSpec
from wetread.evaluation.table import Cases
from wetread.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare", "holm", "mcnemar_exact"]

Floats = NDArray[np.float64]

LEVEL = 0.05
_RESAMPLES_PER_ROW = 50
"""A bootstrap p-value is never below 2 / resamples; with fewer, Holm could never come below 0.05."""
_LOWER_IS_BETTER = frozenset({"brier", "ece", "log_loss"})
_DIFFERENCES = ("auprc", "brier", "ece", "sensitivity", "specificity", "balanced_accuracy", "f1", "kappa", "mcc")


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    specs: tuple[EvaluationSpec, EvaluationSpec],
    names: tuple[str, str] = ("A", "B"),
) -> ComparisonResult:
    """Return differences B minus A, for each label, on images that both tables hold.

    Same task, classes, level and images with the same truth, else :class:`DatasetRefused`. AUROC
    by DeLong's paired test, accuracy by McNemar's exact test at each reader's own operating point
    (its first), the rest by a bootstrap over patients that draws the same patients for both.
    """
    _refuse_other_protocol(*specs)
    b = _align(a, b, specs[0])
    both = Cases.of(a, specs[0]), Cases.of(b, specs[1])
    if not np.array_equal(both[0].targets, both[1].targets, equal_nan=True):
        raise DatasetRefused(
            expected("the same truth in both tables", "different targets", "predict the same manifest twice")
        )
    asked = len(specs[0].labels) * (len(_DIFFERENCES) + 2)
    spec = specs[0].model_copy(update={"resamples": max(specs[0].resamples, _RESAMPLES_PER_ROW * asked)})
    rows: list[ComparisonRow] = []
    for number in range(len(spec.labels)):
        rows += _label_rows(label_cases(both[0], number), label_cases(both[1], number), spec)
    return ComparisonResult(
        name_a=names[0],
        name_b=names[1],
        n=len(both[0].targets),
        patients=both[0].patients,
        rows=tuple(_judge(rows)),
        warnings=both[0].warnings,
    )


def _refuse_other_protocol(a: EvaluationSpec, b: EvaluationSpec) -> None:
    for name in ("task", "classes", "level", "aggregation", "split"):
        if getattr(a, name) != getattr(b, name):
            raise UsageError(
                expected(
                    f"the same {name} for both readers", f"{getattr(a, name)} and {getattr(b, name)}", "align them"
                )
            )


def _align(a: pd.DataFrame, b: pd.DataFrame, spec: EvaluationSpec) -> pd.DataFrame:
    """Return the rows of b in the order of a; refuse tables of different images."""
    if "image" not in a or "image" not in b:
        raise DatasetRefused(expected("a column image in both tables", "none", "add it"))
    if spec.split is not None and "split" in a and "split" in b:
        a, b = a[a["split"] == spec.split], b[b["split"] == spec.split]
    left, right = set(a["image"]), set(b["image"])
    if left != right:
        raise DatasetRefused(
            expected(
                "the same images in both tables",
                f"{len(left - right)} only in the first and {len(right - left)} only in the second",
                "predict the same manifest and split with both readers",
            )
        )
    if len(b) != len(right):
        raise DatasetRefused(expected("each image once", "repeats", "remove the repeats"))
    return b.set_index("image", drop=False).loc[list(a["image"])].reset_index(drop=True)


def _label_rows(a: LabelCases, b: LabelCases, spec: EvaluationSpec) -> list[ComparisonRow]:
    if not len(a.y):
        return []
    return [_auroc_row(a, b), _accuracy_row(a, b, spec), *_bootstrap_rows(a, b, spec)]


def _auroc_row(a: LabelCases, b: LabelCases) -> ComparisonRow:
    first, second = (auroc_estimate(one.p, one.y, one.groups) for one in (a, b))
    method, n = "DeLong, paired", len(a.y)
    if a.groups is not None:
        method += ", clustered by patient"
    if first.value is None or second.value is None or first.low is None or second.low is None:
        note = first.note or second.note
        value = None if first.value is None or second.value is None else second.value - first.value
        none = Estimate(value=value, n=n, method=method, note=note)
        return _row(a.label, "auroc", (first, second, none), None, method)
    found = delong(np.stack([a.p, b.p]), a.y, a.groups)
    contrast = np.array([-1.0, 1.0])
    value, variance = float(contrast @ found.areas), float(contrast @ found.covariance @ contrast)
    if variance <= 1e-18:
        note = "no interval: the readers rank every pair alike"
        none = Estimate(value=value, n=n, method=method, note=note)
        return _row(a.label, "auroc", (first, second, none), None, method)
    from scipy.stats import norm

    error = float(np.sqrt(variance))
    difference = Estimate(value=value, low=value - Z95 * error, high=value + Z95 * error, n=n, method=method)
    p_value = float(2 * norm.sf(abs(value) / error))
    return _row(a.label, "auroc", (first, second, difference), p_value, method)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p-value of McNemar's test from the discordant counts.

    Binomial with probability 1/2; McNemar 1947, doi 10.1007/BF02295996. 1 when there are none.
    """
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binom

    return float(min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def _accuracy_row(a: LabelCases, b: LabelCases, spec: EvaluationSpec) -> ComparisonRow:
    """McNemar assumes independent images; with several per patient the bootstrap decides instead."""
    truth = a.y > 0
    right_a, right_b = a.rules[0].called == truth, b.rules[0].called == truth
    estimates = proportion(right_a, a.groups), proportion(right_b, b.groups)
    gain = right_b.astype(np.float64) - right_a

    def statistics(weights: Floats) -> dict[str, Floats]:
        return {"accuracy": weights @ gain / weights.sum(axis=1)}

    samples = _samples(statistics, a.resampler(spec))["accuracy"]
    difference = summarise(float(gain.mean()), samples, a.resampler(spec))
    if a.groups is None:
        p_value = mcnemar_exact(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()))
        return _row(a.label, "accuracy", (*estimates, difference), p_value, "McNemar, exact")
    p_value_b = _bootstrap_p(samples) if difference.low is not None else None
    return _row(a.label, "accuracy", (*estimates, difference), p_value_b, "bootstrap over patients")


def _bootstrap_rows(a: LabelCases, b: LabelCases, spec: EvaluationSpec) -> list[ComparisonRow]:
    resampler = a.resampler(spec)
    ones = np.ones((1, len(a.y)))

    def each(case: LabelCases, weights: Floats) -> dict[str, Floats]:
        rates = counts_rates(confusion_counts(case.rules[0].called, case.y > 0, weights))
        scores = {
            "auprc": weighted_auprc(case.p, case.y, weights),
            "brier": weights @ (case.p - case.y) ** 2 / weights.sum(axis=1),
            "ece": weighted_ece(case.p, case.y, weights, spec.bins),
        }
        return {name: (scores | rates)[name] for name in _DIFFERENCES}

    samples_a = _samples(lambda weights: each(a, weights), resampler)
    samples_b = _samples(lambda weights: each(b, weights), resampler)
    values_a, values_b = each(a, ones), each(b, ones)
    rows = []
    for name in _DIFFERENCES:
        first, second = float(values_a[name][0]), float(values_b[name][0])
        estimates = (
            summarise(first, samples_a[name], resampler, biased=name == "ece"),
            summarise(second, samples_b[name], resampler, biased=name == "ece"),
            summarise(second - first, samples_b[name] - samples_a[name], resampler),
        )
        known = estimates[2].low is not None
        p_value = _bootstrap_p(samples_b[name] - samples_a[name]) if known else None
        rows.append(_row(a.label, name, estimates, p_value, resampler.method))
    return rows


def _samples(statistics: Statistics, resampler: Resampler) -> dict[str, Floats]:
    drawn: dict[str, list[Floats]] = {}
    for weights in resampler.blocks():
        for name, values in statistics(weights).items():
            drawn.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _bootstrap_p(differences: Floats) -> float:
    """Return the two-sided p-value by inverting the percentile interval; never below 2 / (B + 1).

    Davison & Hinkley 1997, section 5.4: twice the smaller share of resamples on one side of 0.
    """
    known = differences[np.isfinite(differences)]
    below = (1 + int((known <= 0).sum())) / (len(known) + 1)
    above = (1 + int((known >= 0).sum())) / (len(known) + 1)
    return float(min(1.0, 2 * min(below, above)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by Holm's step-down rule (1979); None stays None and is not counted."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


def _row(
    label: str, metric: str, estimates: tuple[Estimate, Estimate, Estimate], p_value: float | None, test: str
) -> ComparisonRow:
    a, b, difference = estimates
    return ComparisonRow(
        label=label,
        metric=metric,
        a=a,
        b=b,
        difference=difference,
        p_value=p_value,
        p_adjusted=None,
        test=test,
        verdict="not assessable",
    )


def _judge(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    adjusted = holm([row.p_value for row in rows])
    return [
        row.model_copy(update={"p_adjusted": p, "verdict": _verdict(row, p)})
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _verdict(row: ComparisonRow, p_adjusted: float | None) -> str:
    low, high = row.difference.low, row.difference.high
    if low is None or high is None or p_adjusted is None:
        return "no difference shown" if row.difference.value == 0 else "not assessable"
    if low <= 0 <= high or p_adjusted >= LEVEL:
        return "no difference shown"
    higher_wins = row.metric not in _LOWER_IS_BETTER
    return "B better" if (low > 0) == higher_wins else "A better"
