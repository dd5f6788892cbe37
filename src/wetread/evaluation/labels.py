"""One label against the rest: every metric with the interval that suits it, at every operating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.curves import pr_curve, reliability_curve, roc_curve, score_histogram
from wetread.evaluation.intervals import Resampler, bootstrap, proportion, unbounded
from wetread.evaluation.metrics import (
    at_prevalence,
    confusion_counts,
    counts_rates,
    probability_scores,
)
from wetread.evaluation.operating import default_operating_point
from wetread.evaluation.result import EvaluationSpec, LabelResult, OperatingPointResult
from wetread.evaluation.table import Cases
from wetread.types import Estimate, OperatingPoint

__all__ = ["BIASED", "LabelCases", "Rule", "label_cases", "label_result", "rate_estimates"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BIASED = frozenset({"ece", "macro_ece"})
"""Noise only ever adds to these, so a percentile interval would sit too high."""

_BOOTSTRAPPED = ("balanced_accuracy", "f1", "kappa", "mcc")


@dataclass(frozen=True)
class Rule:
    """How a label is called: the decisions (n,), and the operating point or None for argmax."""

    called: Flags
    point: OperatingPoint | None


@dataclass(frozen=True)
class LabelCases:
    """The units whose truth is known for one label; ``keep`` (all units,) says which they are."""

    label: str
    p: Floats
    y: Floats
    groups: NDArray[np.str_] | None
    keep: Flags
    rules: tuple[Rule, ...]

    @property
    def both_classes(self) -> bool:
        """Whether positives and negatives are present."""
        return bool(0 < self.y.sum() < len(self.y))

    def resampler(self, spec: EvaluationSpec) -> Resampler:
        """Return the bootstrap over the patients of these units."""
        return Resampler(len(self.y), self.groups, spec.resamples, spec.seed)


def label_cases(cases: Cases, number: int) -> LabelCases:
    """Return the known units of label ``number`` with its calls; the first rule is the main one."""
    label, spec = cases.spec.labels[number], cases.spec
    keep = np.isfinite(cases.targets[:, number])
    p = cases.probabilities[keep, number]
    points = [point for point in spec.operating_points if point.label == label]
    rules = [Rule(p >= point.threshold, point) for point in points]
    if spec.task == "multiclass":
        rules.insert(0, Rule(cases.probabilities[keep].argmax(axis=1) == number, None))
    elif not rules:
        point = default_operating_point(label)
        rules = [Rule(p >= point.threshold, point)]
    return LabelCases(
        label=label,
        p=p,
        y=cases.targets[keep, number],
        groups=None if cases.groups is None else cases.groups[keep],
        keep=keep,
        rules=tuple(rules),
    )


def label_result(cases: LabelCases, spec: EvaluationSpec) -> LabelResult:
    """Return every metric and curve of one label."""
    known, positives = len(cases.y), int(cases.y.sum())
    both = cases.both_classes
    resampler = cases.resampler(spec)
    return LabelResult(
        label=cases.label,
        positives=positives,
        negatives=known - positives,
        unknown=int((~cases.keep).sum()),
        metrics=_score_estimates(cases, spec),
        operating_points=tuple(_point_result(cases, rule, spec) for rule in cases.rules),
        roc=roc_curve(cases.p, cases.y, resampler) if both else None,
        pr=pr_curve(cases.p, cases.y) if both else None,
        reliability=reliability_curve(cases.p, cases.y, cases.groups, spec.bins, spec.seed) if known else None,
        histogram=score_histogram(cases.p, cases.y) if known else None,
    )


def _score_estimates(cases: LabelCases, spec: EvaluationSpec) -> dict[str, Estimate]:
    found = {"auroc": auroc_estimate(cases.p, cases.y, cases.groups)}
    if len(cases.y) == 0:
        return found
    scores = bootstrap(
        lambda weights: probability_scores(cases.p, cases.y, weights, spec.bins),
        cases.resampler(spec),
        BIASED,
    )
    if not cases.both_classes:
        for name in ("auprc", "slope", "intercept"):
            scores[name] = unbounded(None, len(cases.y), "not defined: only one class is present")
    return found | scores


def rate_estimates(
    called: Flags, truth: Flags, groups: NDArray[np.str_] | None, resampler: Resampler
) -> dict[str, Estimate]:
    """Return every rate in ``metrics.RATES``: Wilson for proportions, bootstrap for the rest."""

    def share(hits: Flags, among: Flags) -> Estimate:
        return proportion(hits[among], None if groups is None else groups[among])

    everything = np.ones(len(truth), dtype=bool)
    found = {
        "accuracy": share(called == truth, everything),
        "sensitivity": share(called, truth),
        "specificity": share(~called, ~truth),
        "ppv": share(truth, called),
        "npv": share(~truth, ~called),
    }

    def statistics(weights: Floats) -> dict[str, Floats]:
        rates = counts_rates(confusion_counts(called, truth, weights))
        return {name: rates[name] for name in _BOOTSTRAPPED}

    return found | bootstrap(statistics, resampler)


def _point_result(cases: LabelCases, rule: Rule, spec: EvaluationSpec) -> OperatingPointResult:
    truth, point = cases.y > 0, rule.point
    resampler = cases.resampler(spec)
    metrics = rate_estimates(rule.called, truth, cases.groups, resampler) if len(truth) else {}
    prevalence = spec.prevalence.get(cases.label)
    if prevalence is not None and len(truth):
        metrics |= _at_prevalence(rule.called, truth, prevalence, resampler)
    tp, fp, tn, fn = (int(count) for count in confusion_counts(rule.called, truth, np.ones((1, len(truth))))[:, 0])
    return OperatingPointResult(
        name="argmax" if point is None else point.name,
        rule="highest class probability" if point is None else point.rule,
        threshold=None if point is None else point.threshold,
        chosen_on=_chosen_on(point),
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
        metrics=metrics,
        prevalence=prevalence,
    )


def _chosen_on(point: OperatingPoint | None) -> str:
    if point is None:
        return "no threshold"
    if point.sensitivity.n == 0:
        return "not chosen on data"
    return "validation"


def _at_prevalence(called: Flags, truth: Flags, prevalence: float, resampler: Resampler) -> dict[str, Estimate]:
    def statistics(weights: Floats) -> dict[str, Floats]:
        rates = counts_rates(confusion_counts(called, truth, weights))
        ppv, npv = at_prevalence(rates["sensitivity"], rates["specificity"], prevalence)
        return {"ppv_at_prevalence": ppv, "npv_at_prevalence": npv}

    return bootstrap(statistics, resampler)
