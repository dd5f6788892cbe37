"""The report of a training run: facts gathered from its folder, page and plots written into it."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wetread import __version__
from wetread.training.run import RunFolder

if TYPE_CHECKING:
    from wetread.evaluation.result import EvaluationResult, EvaluationSpec
    from wetread.models.card import ReaderCard
    from wetread.reporting.facts import DataFacts, FoldRow, ReaderSummary, TrainingReport
    from wetread.training.fit import TrainingResult

__all__ = ["learning_curves", "run_provenance", "write_report"]

_RESAMPLES = 500
"""Bootstrap resamples for the run's own page; ``wetread evaluate`` uses more."""


def write_report(result: TrainingResult) -> Path:
    """Write ``report.html``, ``plots/*.svg`` and ``metrics.csv`` into the run folder; return the page."""
    from wetread.evaluation.plots import result_plots
    from wetread.evaluation.protocol import evaluate
    from wetread.reporting.html import render_training

    run = RunFolder(result.run_folder)
    evaluation = evaluate(result.predictions, _spec(result))
    curves = learning_curves(run) | {f"{name} (validation)": svg for name, svg in result_plots(evaluation).items()}
    for number, svg in enumerate(curves.values(), 1):
        run.write_text(f"plots/{number:02d}.svg", svg)
    run.write_text("report.html", render_training(_facts(result, evaluation, curves)))
    return run.path / "report.html"


def _spec(result: TrainingResult) -> EvaluationSpec:
    from wetread.evaluation.result import EvaluationSpec

    card = result.card
    return EvaluationSpec(
        task=card.task,
        classes=card.classes,
        operating_points=card.operating_points,
        source="validation predictions of the run",
        reader=card.name,
        leak_checked="patients, studies and identical files do not cross splits (checked before training)",
        resamples=_RESAMPLES,
        seed=result.config.seed,
    )


def learning_curves(run: RunFolder, score: str = "val_auroc", named: str = "AUROC") -> dict[str, str]:
    """Return caption -> SVG of loss and validation score over epochs; empty for heads without epochs.

    The logs of all folds are gathered into ``metrics.csv`` of the run.
    """
    from wetread.evaluation.plots import learning_plot

    # A run that was stopped and resumed has metrics-1.csv, metrics-2.csv ... before metrics.csv.
    logs = sorted(run.path.glob("logs/metrics*.csv")) + sorted(run.path.glob("fold-*/logs/metrics*.csv"))
    losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
    scores: dict[str, list[tuple[int, float]]] = defaultdict(list)
    rows = [row | {"network": _network(path)} for path in logs for row in _rows(path)]
    several = len({row["network"] for row in rows}) > 1
    if not rows:
        return {}
    for row in rows:
        for column, target in (("train_loss", losses), ("val_loss", losses), (score, scores)):
            value = float(row.get(column) or "nan")
            if math.isfinite(value):
                name = f"{column.replace('_', ' ')} {row['network']}" if several else column.replace("_", " ")
                target[name].append((int(row["epoch"]), value))
    _write_metrics(run, rows, score)
    return {
        "Loss over epochs": learning_plot(losses, "loss", "Loss"),
        f"Validation {named} over epochs": learning_plot(scores, named, f"Validation {named}"),
    }


def _network(path: Path) -> str:
    return path.parent.parent.name if path.parent.parent.name.startswith("fold-") else "network"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_metrics(run: RunFolder, rows: list[dict[str, str]], score: str) -> None:
    columns = ("network", "epoch", "step", "train_loss", "val_loss", score)
    lines = [",".join(columns)] + [",".join(row.get(column, "") for column in columns) for row in rows]
    run.write_text("metrics.csv", "\n".join(lines) + "\n")


def _facts(result: TrainingResult, evaluation: EvaluationResult, curves: dict[str, str]) -> TrainingReport:
    from wetread.reporting.facts import CalibrationFacts, MetricRow, NextStep, TrainingReport

    card = result.card
    config = {
        key: ", ".join(map(str, value)) if isinstance(value, tuple) else value
        for key, value in result.config.model_dump().items()
    }
    reader = result.reader_folder
    return TrainingReport(
        title=f"Training run {card.name}",
        created=datetime.fromisoformat(card.created),
        run_folder=str(result.run_folder),
        reader=_summary(card),
        outcome=f"Reader {card.name} is trained; its operating points were chosen on the validation images alone.",
        config=config,
        data=_data(result),
        curves=curves,
        metrics=tuple(
            MetricRow(name=name, label=label.label, estimate=estimate)
            for label in evaluation.labels
            for name, estimate in label.metrics.items()
        ),
        operating_points=card.operating_points,
        calibration=CalibrationFacts(
            method="temperature scaling",
            temperature={"all": card.temperature},
            n=len(result.predictions),
        ),
        folds=_folds(result),
        provenance=run_provenance(result.run_folder),
        next_steps=(
            NextStep(text="Measure it on images it has not seen.", command=f"wetread evaluate {reader} --data DATASET"),
            NextStep(text="Read your own images.", command=f"wetread read IMAGES --reader {reader}"),
        ),
        audit_verdict=card.audit_verdict,
        wetread_version=__version__,
    )


def _summary(card: ReaderCard) -> ReaderSummary:
    from wetread.reporting.facts import ReaderSummary

    return ReaderSummary(
        name=card.name,
        intended_use=card.intended_use,
        population=card.data.population,
        limits=card.limits,
        licence=card.licence,
    )


def _data(result: TrainingResult) -> DataFacts:
    from wetread.reporting.facts import DataFacts

    card = result.card
    split = card.training.get("split") or {}
    folds = f"{result.config.folds} patient-grouped folds" if result.config.folds else "given by the data set"
    return DataFacts(
        name=card.data.name,
        task=card.task,
        classes=card.classes,
        n_images=card.data.images,
        n_patients=card.data.patients,
        split_method=folds if result.config.folds else str(split.get("method", folds)),
        split_seed=split.get("seed"),
        split_sha256=split.get("sha256"),
        manifest_sha256=card.data.sha256,
        licence=card.data.licence,
    )


def _folds(result: TrainingResult) -> tuple[FoldRow, ...]:
    """One row per fold with the AUROC of each label on the images that its network did not see."""
    from wetread.evaluation.protocol import evaluate
    from wetread.reporting.facts import FoldRow

    if not result.config.folds:
        return ()
    rows = []
    for number, table in result.predictions.groupby("fold"):
        labels = evaluate(table, _spec(result)).labels
        rows.append(
            FoldRow(
                fold=int(str(number)) + 1,
                n_train=len(result.predictions) - len(table),
                n_validation=len(table),
                metrics={f"AUROC {label.label}": label.metrics["auroc"] for label in labels},
            )
        )
    return tuple(rows)


def run_provenance(folder: Path) -> dict[str, str]:
    """Versions, hashes, seed and device of a run, as one flat table."""
    facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    flat = {key: str(value) for key, value in facts.items() if isinstance(value, str | int | float) and value != ""}
    flat |= {key: str(value) for key, value in facts.get("libraries", {}).items()}
    return flat | {f"sha256 {key}": value for key, value in facts.get("hashes", {}).items()}
