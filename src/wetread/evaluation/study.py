"""Studies judged as a whole: Cohen's kappa, each body part by itself, and aggregated image scores beside the reader.

The paired test draws the same patients for both. 'Better' needs an interval of the difference that excludes 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, UsageError, expected
from wetread.evaluation.intervals import Resampler, summarise
from wetread.evaluation.metrics import confusion_matrix, matrix_scores
from wetread.evaluation.operating import choose_operating_points, default_operating_point
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationResult, EvaluationSpec
from wetread.evaluation.table import PROBABILITY, Cases
from wetread.types import Estimate, OperatingPoint, Record, Task

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest

__all__ = [
    "AGGREGATIONS",
    "MURA_PUBLISHED",
    "Aggregate",
    "Aggregation",
    "KappaComparison",
    "PartRow",
    "PublishedRow",
    "StudyEvaluation",
    "aggregated",
    "compare_kappa",
    "evaluate_studies",
    "paired_kappa",
    "points_for",
    "published_for",
]

Floats = NDArray[np.float64]
Aggregation = Literal["mean", "max"]
AGGREGATIONS: tuple[Aggregation, ...] = ("mean", "max")
_WHAT_IMAGES = "operating points were chosen on single images"
"""Begins a warning that holds for aggregated image scores and not for a reader of studies."""


class PartRow(Record):
    """One value of one column, e.g. body part ELBOW, for one label; estimates at the first operating point."""

    column: str
    value: str
    label: str
    n: int
    patients: int | None
    positives: int
    kappa: Estimate
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate


class KappaComparison(Record):
    """Kappa of the reader and of something else on the same studies; ``difference`` is reader minus other.

    ``verdict``: 'better' or 'worse' only where the interval of the difference excludes 0.
    """

    other: str
    label: str
    reader: Estimate
    baseline: Estimate
    difference: Estimate
    verdict: Literal["better", "worse", "no difference shown", "not assessable"]


class PublishedRow(Record):
    """A published figure: another protocol and other studies, so it is no test."""

    name: str
    kappa: str
    protocol: str
    source: str


class StudyEvaluation(Record):
    """An evaluation at the level of studies, with what stands beside it."""

    schema_version: Literal["1"] = "1"
    result: EvaluationResult
    kappa: dict[str, Estimate]
    parts: tuple[PartRow, ...] = ()
    baselines: tuple[KappaComparison, ...] = ()
    published: tuple[PublishedRow, ...] = ()


MURA_PUBLISHED = (
    PublishedRow(
        name="DenseNet169, single model",
        kappa=".705",
        protocol="207 hidden test studies; mean of the probabilities of the views",
        source="Rajpurkar et al. 2018, arXiv 1712.06957",
    ),
    PublishedRow(
        name="best of three radiologists",
        kappa=".778",
        protocol="207 hidden test studies; Sci Rep quotes .73 to .78 for radiologists",
        source="MURA leaderboard, Stanford ML Group",
    ),
    PublishedRow(
        name="DenseNet201, public code",
        kappa=".645",
        protocol="public validation studies",
        source="github.com/ilias-ant/mura",
    ),
)
"""What is published for MURA. The hidden test studies were never released, so only the last row has our protocol."""


def published_for(importer: str | None) -> tuple[PublishedRow, ...]:
    """Return the published figures for data sets of this importer; most have none."""
    return MURA_PUBLISHED if importer == "mura" else ()


@dataclass(frozen=True)
class Aggregate:
    """Scores of single images made into scores of studies: ``table`` has a row for each study.

    ``points``: thresholds for these scores, chosen on validation studies; empty: 0.5, or argmax of several classes.
    """

    name: str
    table: pd.DataFrame
    points: tuple[OperatingPoint, ...] = ()


def aggregated(views: pd.DataFrame, labels: Sequence[str], how: Aggregation, task: Task) -> pd.DataFrame:
    """Return the mean or the maximum of calibrated image probabilities for each study, in the order of their names.

    ``views``: a row for each image with ``study``. The maxima of exclusive classes do not sum to 1 and are divided by
    their sum, which leaves the highest class the highest.
    """
    columns = [PROBABILITY + label for label in labels]
    found = views.groupby("study", sort=True)[columns].agg(how)
    if task == "multiclass":
        found = found.div(found.sum(axis=1), axis=0)
    return found.reset_index()


def points_for(table: pd.DataFrame, truth: pd.DataFrame, spec: EvaluationSpec, rule: str) -> tuple[OperatingPoint, ...]:
    """Choose thresholds for aggregated scores by ``rule`` on validation studies, as the reader's own were chosen."""
    if spec.task == "multiclass":
        return ()
    cases = Cases.of(_joined(table, truth, spec), _plain(spec))
    points: list[OperatingPoint] = []
    for number, label in enumerate(spec.labels):
        points += choose_operating_points(
            cases.probabilities[:, number], cases.targets[:, number], label, (rule,), cases.groups
        )
    return tuple(points)


def evaluate_studies(
    predictions: pd.DataFrame,
    spec: EvaluationSpec,
    *,
    baselines: Sequence[Aggregate] = (),
    parts: str | None = None,
    provenance: Mapping[str, str] | None = None,
    published: Sequence[PublishedRow] = (),
    manifest: Manifest | None = None,
) -> StudyEvaluation:
    """Evaluate a reader of studies from its predictions, a row for each study.

    ``parts``: column whose values are evaluated one by one. Kappa is at the first operating point, of several classes
    at the highest probability. Raises what :func:`~wetread.evaluation.protocol.evaluate` raises.
    """
    alone = _plain(spec)
    result = evaluate(predictions, alone, manifest=manifest, provenance=provenance)
    kappa = {label.label: label.operating_points[0].metrics["kappa"] for label in result.labels}
    if spec.task == "multiclass":
        kappa = {"all classes": result.overall["kappa"]} | kappa
    images = int(predictions["images"].sum()) if "images" in predictions else result.facts.n
    facts = result.facts.model_copy(update={"level": spec.level, "images": images})
    warnings = tuple(text for text in result.warnings if not text.startswith(_WHAT_IMAGES))
    return StudyEvaluation(
        result=result.model_copy(update={"facts": facts, "warnings": warnings}),
        kappa=kappa,
        parts=_parts(predictions, alone, parts) if parts else (),
        baselines=tuple(row for one in baselines for row in compare_kappa(predictions, one, alone)),
        published=tuple(published),
    )


def _plain(spec: EvaluationSpec) -> EvaluationSpec:
    """The rows are studies already: nothing is left to gather."""
    return spec.model_copy(update={"level": "image"})


def _parts(predictions: pd.DataFrame, spec: EvaluationSpec, column: str) -> tuple[PartRow, ...]:
    if column not in predictions:
        cure = f"choose among {', '.join(map(str, predictions.columns))}"
        raise UsageError(expected(f"a column {column} of the studies", "none", cure))
    if spec.split is not None and "split" in predictions:
        predictions = predictions[predictions["split"] == spec.split]
    rows = []
    for value, table in predictions.groupby(column, sort=True):
        result = evaluate(table, spec.model_copy(update={"by": ()}))
        for label in result.labels:
            rates = label.operating_points[0].metrics
            rows.append(
                PartRow(
                    column=column,
                    value=str(value),
                    label=label.label,
                    n=label.positives + label.negatives,
                    patients=result.facts.patients,
                    positives=label.positives,
                    auroc=label.metrics["auroc"],
                    **{name: rates[name] for name in ("kappa", "sensitivity", "specificity")},
                )
            )
    return tuple(rows)


def compare_kappa(predictions: pd.DataFrame, other: Aggregate, spec: EvaluationSpec) -> list[KappaComparison]:
    """Compare the reader's kappa with that of ``other`` on the same studies, for all classes or label by label.

    Raises:
        DatasetRefused: they do not hold the same studies.
    """
    joined = _joined(other.table, predictions, spec)
    ours = Cases.of(predictions, spec)
    theirs = Cases.of(joined, spec.model_copy(update={"operating_points": other.points}))
    resampler = Resampler(len(ours.targets), ours.groups, spec.resamples, spec.seed)
    if spec.task == "multiclass":
        assert ours.truth is not None  # noqa: S101  for the type checker: Cases.of sets it
        called = ours.probabilities.argmax(1), theirs.probabilities.argmax(1)
        return [paired_kappa(ours.truth, called, resampler, (other.name, "all classes"), len(spec.classes))]
    rows = []
    for number, label in enumerate(spec.labels):
        known = np.isfinite(ours.targets[:, number])
        pair = _called(ours, number)[known], _called(theirs, number)[known]
        truth = (ours.targets[known, number] > 0).astype(np.intp)
        rows.append(paired_kappa(truth, pair, resampler.subset(known), (other.name, label), 2))
    return rows


def _called(cases: Cases, number: int) -> NDArray[np.intp]:
    label = cases.spec.labels[number]
    points = [point for point in cases.spec.operating_points if point.label == label]
    point = points[0] if points else default_operating_point(label)
    return (cases.probabilities[:, number] >= point.threshold).astype(np.intp)


def paired_kappa(
    truth: NDArray[np.intp],
    called: tuple[NDArray[np.intp], NDArray[np.intp]],
    resampler: Resampler,
    names: tuple[str, str],
    classes: int,
) -> KappaComparison:
    """Return kappa of both decisions (n,) against the truth (n,), and their difference, by the same resamples.

    ``names``: what it is compared with, and the label. Kappa: Cohen 1960, doi 10.1177/001316446002000104.
    """

    def kappas(weights: Floats) -> tuple[Floats, Floats]:
        first, second = (matrix_scores(confusion_matrix(truth, one, weights, classes))["kappa"] for one in called)
        return first, second

    values = kappas(np.ones((1, len(truth))))
    blocks = [kappas(weights) for weights in resampler.blocks()]
    a, b = (np.concatenate([block[k] for block in blocks]) for k in (0, 1))
    first, second = float(values[0][0]), float(values[1][0])
    difference = summarise(first - second, a - b, resampler)
    return KappaComparison(
        other=names[0],
        label=names[1],
        reader=summarise(first, a, resampler),
        baseline=summarise(second, b, resampler),
        difference=difference,
        verdict=_verdict(difference),
    )


def _verdict(difference: Estimate) -> Literal["better", "worse", "no difference shown", "not assessable"]:
    if difference.low is None or difference.high is None:
        return "no difference shown" if difference.value == 0 else "not assessable"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    return "better" if difference.low > 0 else "worse"


def _joined(table: pd.DataFrame, truth: pd.DataFrame, spec: EvaluationSpec) -> pd.DataFrame:
    """The studies of ``truth`` in their order, with the probabilities of ``table``."""
    columns = [PROBABILITY + label for label in spec.labels]
    known, asked = set(table["study"]), set(truth["study"])
    if known != asked:
        got = f"{len(asked - known)} missing and {len(known - asked)} others"
        raise DatasetRefused(expected("the same studies in both tables", got, "predict the same manifest and split"))
    found = table.set_index("study").loc[list(truth["study"]), columns]
    return truth.assign(**{column: found[column].to_numpy() for column in columns})
