"""From validation logits to a reader: temperature, operating points, gate limit, figures, card."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread import __version__
from wetread.errors import StatisticRefused
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.calibration import fit_temperature
from wetread.evaluation.conformal import ALPHA, fit_sets
from wetread.evaluation.operating import DEFAULT_RULES, choose_operating_points
from wetread.models.card import ConformalSpec, DataCard, GateSpec, HeadSpec, InputSpec, MetricRow, ReaderCard
from wetread.models.outlier import FeatureStatistics, fit_statistics
from wetread.models.predict import probabilities_of
from wetread.provenance import rows_sha256
from wetread.training.config import TrainingConfig
from wetread.training.data import labels_of

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.types import OperatingPoint, Task

__all__ = [
    "ALSO_CHOSE",
    "GATE_QUANTILE",
    "Judged",
    "fit_calibration",
    "make_card",
    "make_gate",
    "prediction_table",
    "recalibrate",
]

GATE_QUANTILE = 0.99
"""Share of validation images that the gate lets through."""
_COMPONENTS = 64
ALSO_CHOSE = "The same images chose settings of the training, so the sets may be somewhat too small."
_RANKS = ("AUROC", "AUPRC")
"""Figures of a sigmoid that no temperature changes."""


@dataclass(frozen=True)
class Judged:
    """Images that no network of the reader trained on, with what the reader says of them.

    ``logits``: float (N, outputs) before temperature. ``targets``: (N, outputs), NaN unknown.
    ``patients``: (N,). ``distances``: (N,) from the training features, or None without a gate.
    """

    table: pd.DataFrame
    logits: NDArray[np.floating]
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]
    distances: NDArray[np.float64] | None = None


def make_gate(
    train: NDArray[np.float32], judged: NDArray[np.float32], config: TrainingConfig
) -> tuple[FeatureStatistics, GateSpec, NDArray[np.float64]]:
    """Fit feature statistics on training embeddings (N, D) and set the limit on validation ones.

    Returns statistics, specification, and the distance of each validation image.
    """
    statistics = fit_statistics(train, _COMPONENTS)
    distances = statistics.distances(judged)
    spec = GateSpec(
        limit=float(np.quantile(distances, GATE_QUANTILE)),
        quantile=GATE_QUANTILE,
        n=len(distances),
        components=len(statistics.directions),
        modalities=config.modalities,
        body_parts=config.body_parts,
    )
    return statistics, spec, distances


def _points(
    probabilities: NDArray[np.float64], judged: Judged, labels: tuple[str, ...], rules: tuple[str, ...]
) -> list[OperatingPoint]:
    points: list[OperatingPoint] = []
    for column, label in enumerate(labels):
        points += choose_operating_points(
            probabilities[:, column], judged.targets[:, column], label, rules, judged.patients
        )
    return points


def fit_calibration(
    judged: Judged, task: Task, classes: tuple[str, ...], *, alpha: float = ALPHA, seed: int = 0
) -> tuple[float, ConformalSpec]:
    """Return temperature and conformal quantiles of ``judged`` images; one image of each patient counts for the latter.

    Raises:
        StatisticRefused: no known targets.
    """
    softmax = task == "multiclass"
    temperature = fit_temperature(judged.logits, _calibration_targets(judged.targets, softmax), task)
    probabilities = probabilities_of(judged.logits, temperature, softmax=softmax)
    patients = None if judged.table["patient"].isna().all() else judged.patients
    return temperature, fit_sets(
        probabilities, judged.targets, task, classes, patients=patients, alpha=alpha, seed=seed
    )


def _figures(
    probabilities: NDArray[np.float64], judged: Judged, labels: tuple[str, ...], split: str = "validation"
) -> list[MetricRow]:
    rows = []
    for column, label in enumerate(labels):
        known = ~np.isnan(judged.targets[:, column])
        try:
            estimate = auroc_estimate(
                probabilities[known, column], judged.targets[known, column], groups=judged.patients[known]
            )
        except StatisticRefused:
            continue  # a label with one class on validation has no AUROC; the operating point said so already
        rows.append(MetricRow(name=f"AUROC {label}", split=split, estimate=estimate))
    return rows


def make_card(
    config: TrainingConfig,
    manifest: Manifest,
    parts: tuple[str, HeadSpec, InputSpec],
    judged: Judged,
    gate: GateSpec | None,
    trained_on: pd.DataFrame,
    history: dict[str, object],
) -> ReaderCard:
    """Calibrate on validation and write the card; ``parts`` are architecture, head and input."""
    labels = labels_of(manifest.meta)
    temperature, sets = fit_calibration(judged, manifest.meta.task, manifest.meta.classes, seed=config.seed)
    probabilities = probabilities_of(judged.logits, temperature, softmax=manifest.meta.task == "multiclass")
    architecture, head, spec = parts
    points = _points(probabilities, judged, labels, config.operating_points)
    return ReaderCard(
        name=config.run_name,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=manifest.meta.task,
        classes=manifest.meta.classes,
        labels=labels,
        architecture=architecture,
        head=head,
        input=spec,
        views=config.views,
        weights={},
        temperature=temperature,
        operating_points=tuple(points),
        default_operating_point=points[0].name if points else "youden",
        conformal=sets.model_copy(update={"notes": (*sets.notes, ALSO_CHOSE)}),
        gate=gate,
        data=DataCard(
            name=manifest.meta.name,
            licence=manifest.meta.licence or "unknown",
            population=config.population,
            images=len(trained_on),
            patients=int(trained_on["patient"].fillna(trained_on["path"]).nunique()),
            sha256=rows_sha256(zip(trained_on["path"], trained_on["patient"], strict=True)),
        ),
        metrics=tuple(_figures(probabilities, judged, labels)),
        intended_use=config.intended_use,
        limits=config.limits,
        training=history,
    )


def recalibrate(card: ReaderCard, judged: Judged, where: str, *, alpha: float = ALPHA, seed: int = 0) -> ReaderCard:
    """Return ``card`` with temperature, operating points and conformal quantiles fitted to ``judged`` images.

    ``where`` names them, such as ``val of my-films``. Weights and gate stay. Figures that depend on the old
    probabilities are left out; known limits and the audit verdict stay.

    Raises:
        StatisticRefused: no known targets, or a label with one class only.
    """
    softmax = card.task == "multiclass"
    temperature, sets = fit_calibration(judged, card.task, card.classes, alpha=alpha, seed=seed)
    probabilities = probabilities_of(judged.logits, temperature, softmax=softmax)
    rules = tuple(dict.fromkeys(point.name for point in card.operating_points)) or DEFAULT_RULES
    points = [
        point.model_copy(update={"rule": point.rule.replace("on validation", f"on {where}")})
        for point in _points(probabilities, judged, card.labels, rules)
    ]
    names = [point.name for point in points]
    default = card.default_operating_point if card.default_operating_point in names else names[0]
    kept = [row for row in card.metrics if row.name.startswith(_RANKS) and not row.operating_point and not softmax]
    images = f"{len(judged.logits)} images of {len(np.unique(judged.patients))} patients"
    limit = f"Probabilities, thresholds and prediction sets were fitted on {where} ({images}) after any audit."
    return card.model_copy(
        update={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "temperature": temperature,
            "operating_points": tuple(points),
            "default_operating_point": default,
            "conformal": sets,
            "metrics": (*kept, *_figures(probabilities, judged, card.labels, where)),
            "limits": (*card.limits, limit),
        }
    )


def _calibration_targets(targets: NDArray[np.float32], softmax: bool) -> NDArray[np.float32]:
    """Class numbers (N,), -1 unknown, for exclusive classes; the targets themselves otherwise."""
    if not softmax:
        return targets
    unknown = np.isnan(targets).any(1)
    return np.where(unknown, -1, np.nan_to_num(targets).argmax(1)).astype(np.float32)


def prediction_table(card: ReaderCard, manifest: Manifest, judged: Judged, split: str | None) -> pd.DataFrame:
    """One row per image: identity, targets and calibrated probabilities, as ``evaluate`` reads them."""
    import pandas as pd

    probabilities = probabilities_of(judged.logits, card.temperature, softmax=card.task == "multiclass")
    table = judged.table.reset_index(drop=True)
    out = pd.DataFrame({"image": table["path"], "patient": table["patient"], "study": table["study"]})
    out["split"] = table["split"] if split is None else split
    for column, label in enumerate(card.labels):
        out[f"probability_{label}"] = probabilities[:, column]
    if card.task == "multilabel":
        for column, label in enumerate(card.labels):
            out[f"target_{label}"] = judged.targets[:, column]
    else:
        out["target"] = table["label"]
    for name in ("source", "view", "sex", "age", "body_part", "fold"):
        if name in table.columns and table[name].notna().any():
            out[name] = table[name]
    if card.gate is not None and judged.distances is not None:
        out["gate_distance"] = judged.distances
        out["gated"] = judged.distances > card.gate.limit
    return out
