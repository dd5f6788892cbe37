"""The one way a reader is evaluated: table in, checked for leaks, one record out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.evaluation.labels import LabelCases, label_cases, label_result
from wetread.evaluation.overall import confusion, overall
from wetread.evaluation.result import DatasetFacts, EvaluationResult, EvaluationSpec, LabelResult
from wetread.evaluation.subgroups import subgroups
from wetread.evaluation.table import Cases

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOT_CHECKED", "evaluate"]

NOT_CHECKED = "not checked: nobody showed that no patient or image of these is in the training data"


def evaluate(
    predictions: pd.DataFrame,
    spec: EvaluationSpec,
    *,
    manifest: Manifest | None = None,
    provenance: Mapping[str, str] | None = None,
) -> EvaluationResult:
    """Return everything that is known about a reader from its predictions (one row for each image).

    Columns: ``image``, ``probability_<label>`` (binary: of the positive class), ``target`` (class
    name) or ``target_<label>`` (1, 0, empty = unknown), and if present ``patient``, ``study``,
    ``split`` and the columns in ``spec.by``. With a ``manifest`` its split is checked and a leak
    raises :class:`SplitRefused`; a table that cannot be used raises :class:`DatasetRefused`.
    """
    leak = spec.leak_checked or NOT_CHECKED
    if manifest is not None:
        assert_no_leak(manifest)
        leak = f"no patient, study or image of {manifest.meta.name} is in two splits"
        leak += f"; {spec.leak_checked}" if spec.leak_checked else ""
    cases = Cases.of(predictions, spec)
    labels = [label_cases(cases, number) for number in range(len(spec.labels))]
    results = [label_result(label, spec) for label in labels]
    warnings = list(cases.warnings)
    if leak == NOT_CHECKED:
        warnings.append(f"leaks between splits were {NOT_CHECKED}")
    return EvaluationResult(
        task=spec.task,
        classes=spec.classes,
        facts=_facts(cases, labels, leak),
        labels=tuple(results),
        overall=overall(cases, labels, results),
        confusion=confusion(cases, labels),
        subgroups=subgroups(cases, labels),
        warnings=(*warnings, *_label_warnings(results)),
        provenance=dict(provenance or {}),
    )


def _facts(cases: Cases, labels: list[LabelCases], leak: str) -> DatasetFacts:
    spec = cases.spec
    n = len(cases.targets)
    if spec.task == "binary":
        positives = int(cases.targets.sum())
        per_class = {spec.classes[0]: n - positives, spec.classes[1]: positives}
    else:
        per_class = {label.label: int(label.y.sum()) for label in labels}
    return DatasetFacts(
        source=spec.source,
        reader=spec.reader,
        split=spec.split,
        level=spec.level,
        aggregation=spec.aggregation,
        n=n,
        images=cases.images,
        patients=cases.patients,
        unlabelled=cases.unlabelled,
        per_class=per_class,
        leak=leak,
    )


def _label_warnings(results: list[LabelResult]) -> list[str]:
    found = []
    for result in results:
        if min(result.positives, result.negatives) == 0:
            found.append(
                f"{result.label}: {result.positives} positive and {result.negatives} negative, so AUROC, "
                "AUPRC and calibration slope are not defined"
            )
        if any(point.chosen_on == "not chosen on data" for point in result.operating_points):
            found.append(f"{result.label}: no operating point was given, 0.5 was used")
    return found
