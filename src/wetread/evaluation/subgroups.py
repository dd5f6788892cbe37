"""Who is served worse: metrics of each subgroup and its gap to everybody else, or 'not assessable'."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import Resampler, bootstrap, proportion
from wetread.evaluation.labels import BIASED, LabelCases
from wetread.evaluation.metrics import confusion_counts, counts_rates, weighted_auroc, weighted_ece
from wetread.evaluation.result import EvaluationSpec, Subgroup
from wetread.evaluation.table import Cases
from wetread.types import Estimate

__all__ = ["subgroups"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def subgroups(cases: Cases, labels: list[LabelCases]) -> tuple[Subgroup, ...]:
    """Return one record for each value of each column in ``spec.by``, values in text order."""
    return tuple(
        _subgroup(cases, labels, column, str(value))
        for column, values in cases.columns.items()
        for value in np.unique(values)
    )


def _subgroup(cases: Cases, labels: list[LabelCases], column: str, value: str) -> Subgroup:
    inside = cases.columns[column] == value
    spec, n = cases.spec, int(inside.sum())
    patients = None if cases.groups is None else int(np.unique(cases.groups[inside]).size)
    reasons, metrics, gaps = [], {}, {}
    for label in labels:
        mine = inside[label.keep]
        reason = _too_few(label.y[mine], spec)
        if reason:
            reasons.append(f"{label.label}: {reason}")
            continue
        metrics[label.label] = _metrics(label, mine, spec)
        if not _too_few(label.y[~mine], spec):
            gaps[label.label] = _gaps(label, mine, spec)
    return Subgroup(
        column=column,
        value=value,
        n=n,
        patients=patients,
        assessable=bool(metrics),
        reason="; ".join(reasons),
        metrics=metrics,
        gaps=gaps,
    )


def _too_few(y: Floats, spec: EvaluationSpec) -> str:
    """Return why a group is not assessable, or ''."""
    n, positives = len(y), int(y.sum())
    if n < spec.minimum_subgroup:
        return f"n {n}, fewer than {spec.minimum_subgroup}"
    if min(positives, n - positives) < spec.minimum_events:
        return f"{positives} positive and {n - positives} negative, fewer than {spec.minimum_events} of one"
    return ""


def _metrics(label: LabelCases, mine: Flags, spec: EvaluationSpec) -> dict[str, Estimate]:
    p, y, called = label.p[mine], label.y[mine], label.rules[0].called[mine]
    groups = None if label.groups is None else label.groups[mine]
    positive = y > 0
    resampler = Resampler(len(y), groups, spec.resamples, spec.seed)

    def statistics(weights: Floats) -> dict[str, Floats]:
        return {
            "brier": weights @ (p - y) ** 2 / weights.sum(axis=1),
            "ece": weighted_ece(p, y, weights, spec.bins),
        }

    return {
        "auroc": auroc_estimate(p, y, groups),
        "sensitivity": proportion(called[positive], None if groups is None else groups[positive]),
        "specificity": proportion(~called[~positive], None if groups is None else groups[~positive]),
    } | bootstrap(statistics, resampler, BIASED)


def _gaps(label: LabelCases, mine: Flags, spec: EvaluationSpec) -> dict[str, Estimate]:
    """Return group minus rest; patients are drawn from both together, as they were sampled."""

    def statistics(weights: Floats) -> dict[str, Floats]:
        group, rest = _side(label, mine, weights), _side(label, ~mine, weights)
        return {name: group[name] - rest[name] for name in group}

    return bootstrap(statistics, label.resampler(spec))


def _side(label: LabelCases, mine: Flags, weights: Floats) -> dict[str, Floats]:
    p, y, called = label.p[mine], label.y[mine], label.rules[0].called[mine]
    rates = counts_rates(confusion_counts(called, y > 0, weights[:, mine]))
    return {
        "auroc": weighted_auroc(p, y, weights[:, mine]),
        "sensitivity": rates["sensitivity"],
        "specificity": rates["specificity"],
    }
