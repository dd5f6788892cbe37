"""The records an evaluation leaves behind: what was asked, what was found, what a report draws.

Everything here is plain JSON: estimates with intervals, curve points, counts. Nothing here computes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wetread.errors import UsageError, expected
from wetread.types import Estimate, OperatingPoint, Record, Task

__all__ = [
    "Aggregation",
    "ComparisonResult",
    "ComparisonRow",
    "ConfusionMatrix",
    "DatasetFacts",
    "EvaluationResult",
    "EvaluationSpec",
    "HiddenLabel",
    "HiddenResult",
    "LabelResult",
    "Level",
    "OperatingPointResult",
    "PrCurve",
    "ReliabilityBin",
    "ReliabilityCurve",
    "RocCurve",
    "ScoreHistogram",
    "Subgroup",
]

Level = Literal["image", "study", "patient"]
Aggregation = Literal["mean", "max"]


class EvaluationSpec(Record):
    """What to evaluate and how.

    ``classes``: binary ``(negative, positive)``, multi-class all classes in order, multi-label
    all labels. ``prevalence`` maps a label to a prevalence in (0, 1) at which PPV and NPV are
    also given. ``leak_checked`` states who showed that no patient or image is in two splits;
    empty means that nobody did, and the result then says so.
    """

    task: Task
    classes: tuple[str, ...]
    level: Level = "image"
    aggregation: Aggregation = "mean"
    operating_points: tuple[OperatingPoint, ...] = ()
    prevalence: dict[str, float] = Field(default_factory=dict)
    by: tuple[str, ...] = ()
    split: str | None = None
    source: str = "predictions"
    reader: str = ""
    leak_checked: str = ""
    resamples: int = 1000
    seed: int = 0
    bins: int = 15
    minimum_subgroup: int = 50
    minimum_events: int = 10

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that carry a probability column: all classes, or the positive one if binary."""
        return self.classes[1:] if self.task == "binary" else self.classes

    @model_validator(mode="after")
    def _make_sense(self) -> EvaluationSpec:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise UsageError(expected("classes without repeats", list(self.classes), "name each class exactly once"))
        if self.task == "binary" and len(self.classes) != 2:
            raise UsageError(
                expected(
                    "two classes (negative, positive) for a binary task",
                    f"{len(self.classes)}",
                    "name both, or choose the task multiclass or multilabel",
                )
            )
        for label, value in self.prevalence.items():
            if label not in self.labels or not 0.0 < value < 1.0:
                raise UsageError(
                    expected(
                        f"a prevalence between 0 and 1 (both excluded) for one of {list(self.labels)}",
                        f"{label}={value:g}",
                        "write it as LABEL=0.1",
                    )
                )
        return self


class DatasetFacts(Record):
    """What was evaluated. ``n`` counts units of ``level``; images without a label are ``unlabelled``.

    ``leak`` is the statement about leaking splits that every report prints.
    """

    source: str
    reader: str = ""
    split: str | None = None
    level: Level = "image"
    aggregation: Aggregation = "mean"
    n: int
    images: int
    patients: int | None = None
    unlabelled: int = 0
    per_class: dict[str, int]
    leak: str


class RocCurve(Record):
    """ROC points from (0, 0) to (1, 1); ``thresholds`` at which each was reached (first is None).

    ``low`` and ``high``: pointwise 95 % band of sensitivity at the false positive rates of
    ``grid``, by bootstrap over patients; empty when it was not made.
    """

    false_positive_rate: tuple[float, ...]
    sensitivity: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    grid: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class PrCurve(Record):
    """Precision (PPV) against recall (sensitivity); ``prevalence`` is what guessing would reach."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    prevalence: float


class ReliabilityBin(Record):
    """One bin: probability range, how many, their mean probability, the observed share (Wilson)."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    observed: Estimate


class ReliabilityCurve(Record):
    """Reliability bins beside what a perfectly calibrated reader of this n would show.

    ``null_mean`` and ``null_p95``: mean and 95th percentile of the ECE of such a reader.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    null_mean: float
    null_p95: float


class ScoreHistogram(Record):
    """How the probabilities of positives and negatives are spread; counts per bin."""

    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]


class OperatingPointResult(Record):
    """What one operating point gave on the evaluated data. ``threshold`` None means argmax.

    ``chosen_on`` says where the threshold comes from. Metrics: accuracy, balanced_accuracy,
    sensitivity, specificity, ppv, npv, f1, kappa, mcc, and ppv_at_prevalence,
    npv_at_prevalence when a prevalence was stated.
    """

    name: str
    rule: str
    threshold: float | None
    chosen_on: str
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    metrics: dict[str, Estimate]
    prevalence: float | None = None


class LabelResult(Record):
    """One label against the rest. Metrics: auroc, auprc, brier, ece, log_loss, slope, intercept.

    Curves are None when only one class is present.
    """

    label: str
    positives: int
    negatives: int
    unknown: int
    metrics: dict[str, Estimate]
    operating_points: tuple[OperatingPointResult, ...] = ()
    roc: RocCurve | None = None
    pr: PrCurve | None = None
    reliability: ReliabilityCurve | None = None
    histogram: ScoreHistogram | None = None


class ConfusionMatrix(Record):
    """Counts with rows = truth, columns = decision, in the order of ``classes``; ``rule`` that decided."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    rule: str


class Subgroup(Record):
    """One value of one column. Not assessable groups carry a ``reason`` and no metrics.

    ``metrics`` maps a label to auroc, sensitivity, specificity, brier, ece of that group;
    ``gaps`` maps a label to group minus everybody else, with a patient-clustered interval.
    """

    column: str
    value: str
    n: int
    patients: int | None = None
    assessable: bool
    reason: str = ""
    metrics: dict[str, dict[str, Estimate]] = Field(default_factory=dict)
    gaps: dict[str, dict[str, Estimate]] = Field(default_factory=dict)


class EvaluationResult(Record):
    """One evaluation, as written to ``results.json``.

    ``overall``: for multi-class accuracy, balanced_accuracy, macro_f1, kappa, mcc, log_loss,
    top-label ece and macro averages; for multi-label macro averages; empty for binary.
    ``provenance``: versions, hashes and settings as text.
    """

    schema_version: Literal["1"] = "1"
    task: Task
    classes: tuple[str, ...]
    facts: DatasetFacts
    labels: tuple[LabelResult, ...]
    overall: dict[str, Estimate] = Field(default_factory=dict)
    confusion: ConfusionMatrix | None = None
    subgroups: tuple[Subgroup, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: dict[str, str] = Field(default_factory=dict)


class ComparisonRow(Record):
    """One metric of one label in two prediction tables of the same images.

    ``difference`` is B minus A. ``p_adjusted`` is Holm's over all rows of the comparison.
    ``verdict``: 'A better' or 'B better' only if the interval excludes 0 *and* the adjusted
    p-value is below 0.05; otherwise 'no difference shown'; 'not assessable' without an interval.
    """

    label: str
    metric: str
    a: Estimate
    b: Estimate
    difference: Estimate
    p_value: float | None
    p_adjusted: float | None
    test: str
    verdict: Literal["A better", "B better", "no difference shown", "not assessable"]


class HiddenLabel(Record):
    """What one label loses when the organ is hidden.

    ``whole`` and ``hidden``: AUROC on the same images. ``difference``: hidden minus whole, paired. ``left``: the share
    of what AUROC has above chance that is left, (hidden - .5) / (whole - .5); None where the whole image gives none.
    """

    label: str
    whole: Estimate
    hidden: Estimate
    difference: Estimate
    left: float | None


class HiddenResult(Record):
    """The same reader on the same images with one organ painted over.

    ``margin``: how far its mask was widened, share of the shorter side. ``segmenter`` found it, known by ``sha256``.
    A reader that judges the organ should be left with an AUROC about .5.
    """

    organ: str
    segmenter: str
    sha256: str
    margin: float
    n: int
    patients: int | None = None
    labels: tuple[HiddenLabel, ...]


class ComparisonResult(Record):
    """A paired comparison: rows for auroc, accuracy (McNemar) and the bootstrapped metrics."""

    schema_version: Literal["1"] = "1"
    name_a: str
    name_b: str
    n: int
    patients: int | None = None
    rows: tuple[ComparisonRow, ...]
    warnings: tuple[str, ...] = ()
