"""What is said about all labels together: multi-class scores of the argmax, and macro averages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.evaluation.calibration import CLIP
from wetread.evaluation.intervals import Resampler, bootstrap, proportion, unbounded
from wetread.evaluation.labels import BIASED, LabelCases
from wetread.evaluation.metrics import (
    confusion_counts,
    confusion_matrix,
    counts_rates,
    matrix_scores,
    weighted_auprc,
    weighted_auroc,
    weighted_ece,
)
from wetread.evaluation.result import ConfusionMatrix, EvaluationSpec, LabelResult
from wetread.evaluation.table import Cases
from wetread.types import Estimate

__all__ = ["confusion", "overall"]

Floats = NDArray[np.float64]

_MACRO_RATES = ("sensitivity", "specificity", "f1")


def confusion(cases: Cases, labels: list[LabelCases]) -> ConfusionMatrix | None:
    """Return the confusion matrix, binary at the first operating point, multi-class by argmax."""
    spec = cases.spec
    if spec.task == "multilabel":
        return None
    if spec.task == "multiclass":
        assert cases.truth is not None  # noqa: S101  for the type checker: Cases.of sets it
        truth, called = cases.truth, cases.probabilities.argmax(axis=1)
        rule = "highest class probability"
    else:
        main = labels[0].rules[0]
        truth, called = labels[0].y.astype(np.intp), main.called.astype(np.intp)
        threshold = "" if main.point is None else f"{main.point.name}, threshold {main.point.threshold:.4g}"
        rule = threshold
    counts = confusion_matrix(truth, called, np.ones((1, len(truth))), len(spec.classes))[0]
    rows = tuple(tuple(int(cell) for cell in row) for row in counts)
    return ConfusionMatrix(classes=spec.classes, counts=rows, rule=rule)


def overall(cases: Cases, labels: list[LabelCases], results: list[LabelResult]) -> dict[str, Estimate]:
    """Return the estimates over all labels; empty for a binary task, which has one label."""
    if cases.spec.task == "binary":
        return {}
    resampler = Resampler(len(cases.targets), cases.groups, cases.spec.resamples, cases.spec.seed)
    found = _multiclass(cases, resampler) if cases.spec.task == "multiclass" else {}
    return found | _macro(cases.spec, labels, results, resampler)


def _multiclass(cases: Cases, resampler: Resampler) -> dict[str, Estimate]:
    truth, p = cases.truth, cases.probabilities
    assert truth is not None  # noqa: S101  for the type checker: Cases.of sets it
    called, bins = p.argmax(axis=1), cases.spec.bins
    right = (called == truth).astype(np.float64)
    likelihood = np.log(np.clip(p[np.arange(len(p)), truth], CLIP, 1.0))
    squares = ((p - cases.targets) ** 2).sum(axis=1)

    def statistics(weights: Floats) -> dict[str, Floats]:
        total = weights.sum(axis=1)
        scores = matrix_scores(confusion_matrix(truth, called, weights, p.shape[1]))
        return scores | {
            "log_loss": -(weights @ likelihood) / total,
            "brier": (weights @ squares) / total,
            "ece": weighted_ece(p.max(axis=1), right, weights, bins),
        }

    found = bootstrap(statistics, resampler, BIASED)
    found["accuracy"] = proportion(right, cases.groups)
    return found


def _macro(
    spec: EvaluationSpec, labels: list[LabelCases], results: list[LabelResult], resampler: Resampler
) -> dict[str, Estimate]:
    """Return plain means over the labels that have both classes."""
    used = [label for label in labels if label.both_classes]
    if not used:
        return {}

    def statistics(weights: Floats) -> dict[str, Floats]:
        each = [_label_scores(label, weights[:, label.keep], spec.bins) for label in used]
        return {"macro_" + name: np.mean([one[name] for one in each], axis=0) for name in each[0]}

    found = bootstrap(statistics, resampler, BIASED)
    bare = [r.label for r in results if r.metrics["auroc"].low is None and r.metrics["auroc"].value is not None]
    if bare:
        value = found["macro_auroc"].value
        note = f"no interval: none for {', '.join(bare)}"
        found["macro_auroc"] = unbounded(value, resampler.n, note)
    left_out = [label.label for label in labels if not label.both_classes]
    if left_out:
        note = f"without {', '.join(left_out)}: only one class present"
        found = {k: e.model_copy(update={"note": "; ".join(filter(None, [e.note, note]))}) for k, e in found.items()}
    return found


def _label_scores(label: LabelCases, weights: Floats, bins: int) -> dict[str, Floats]:
    p, y = label.p, label.y
    rates = counts_rates(confusion_counts(label.rules[0].called, y > 0, weights))
    with np.errstate(invalid="ignore"):
        brier = weights @ (p - y) ** 2 / weights.sum(axis=1)
    return {
        "auroc": weighted_auroc(p, y, weights),
        "auprc": weighted_auprc(p, y, weights),
        "brier": brier,
        "ece": weighted_ece(p, y, weights, bins),
    } | {name: rates[name] for name in _MACRO_RATES}
