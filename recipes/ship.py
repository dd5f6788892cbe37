"""Put a trained run on the shelf of shipped readers, with the figures of images that it did not see.

Run by ``make zoo`` after ``make kermany`` and ``make zoo-guided`` after ``make guides`` (readers, with their one look
at the test split) and by ``make zoo-lungs`` after ``make lungs`` (a segmenter, with the scores of the folds). The
bundle is the run's own; only its name, those figures and the known limits of its recipe are put into the card, and,
for a run that has none, the conformal quantiles of its validation images and the look of its films. ``make audits``
then audits what is on the shelf, and ``--audit`` puts the answer into the bundle that was audited.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import tomllib
from pathlib import Path

from wetread.audit.record import record_audit
from wetread.audit.result import AuditResult
from wetread.datasets.manifest import load_manifest
from wetread.evaluation.conformal import fit_sets
from wetread.evaluation.result import EvaluationResult, HiddenResult
from wetread.models.bundle import ZOO, export_reader, load_any_card
from wetread.models.card import Card, MetricRow, ReaderCard, SegmenterCard, parse_any_card
from wetread.models.readme import card_readme
from wetread.training.finish import ALSO_CHOSE
from wetread.training.look import learn_look
from wetread.training.parts import split_pair

POINT_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "kappa", "mcc")
LABEL_METRICS = ("auroc", "auprc", "brier", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="finished run folder; a reader's has test-results.json")
    parser.add_argument("--name", default="chest-pneumonia")
    parser.add_argument("--folds", type=Path, help="for a segmenter: the run with the same recipe in folds")
    parser.add_argument("--evaluation", type=Path, help="folder of `wetread evaluate --out`, else the run itself")
    parser.add_argument("--recipe", type=Path, help="take the known limits from this recipe, as it reads now")
    parser.add_argument("--data", type=Path, help="data set of the run, for a reader whose gate has no look yet")
    parser.add_argument("--audit", type=Path, help="audit.json of the reader on the shelf: recorded, nothing shipped")
    parser.add_argument("--shelf", type=Path, default=ZOO)
    asked = parser.parse_args()
    if asked.audit:
        result = AuditResult.model_validate_json(asked.audit.read_text(encoding="utf-8"))
        print(f"{asked.name}: {record_audit(asked.shelf / asked.name, result).audit_verdict}")
        return
    if asked.run is None:
        parser.error("name a run folder, or an --audit")
    card = load_any_card(asked.run / "reader")
    if isinstance(card, SegmenterCard):
        figures = fold_rows(asked.folds)
    else:
        figures = test_rows(asked.run, asked.evaluation)
        card = card if card.conformal else with_sets(card, asked.run)
        card = with_look(card, asked.data) if asked.data else card
    shipped = card.model_copy(update={"name": asked.name, "metrics": (*card.metrics, *figures)})
    if asked.recipe:
        limits = tomllib.loads(asked.recipe.read_text(encoding="utf-8"))["limits"]
        shipped = shipped.model_copy(update={"limits": tuple(limits)})
    target = asked.shelf / asked.name
    put(asked.run / "reader", shipped, target)
    print(f"{target}: sha256 {shipped.sha256}")


def with_sets(card: ReaderCard, run: Path) -> ReaderCard:
    """The card with the conformal quantiles of the run's validation images, as training writes them today."""
    import numpy as np
    import pandas as pd

    table = pd.read_parquet(run / "predictions.parquet")
    table = table[(table["split"] == "val") & ~table["gated"].astype(bool)]
    probabilities = table[[f"probability_{label}" for label in card.labels]].to_numpy(dtype=np.float64)
    targets = np.stack([(table["target"] == label).to_numpy(dtype=np.float64) for label in card.labels], axis=1)
    patients = table["patient"].fillna(table["image"]).astype(str).to_numpy(dtype=np.str_)
    sets = fit_sets(probabilities, targets, card.task, card.classes, patients=patients)
    return card.model_copy(update={"conformal": sets.model_copy(update={"notes": (*sets.notes, ALSO_CHOSE)})})


def with_look(card: ReaderCard, data: Path) -> ReaderCard:
    """The card with the look of the films it learned from in its gate, as training writes it today."""
    if card.gate is None or card.gate.look is not None:
        return card
    manifest = load_manifest(data)
    look = learn_look(manifest, *split_pair(manifest.table), seed=0)
    return card.model_copy(update={"gate": card.gate.model_copy(update={"look": look})})


def fold_rows(run: Path) -> list[MetricRow]:
    """The out-of-fold scores of the same recipe."""
    return [row for row in load_any_card(run / "reader").metrics if row.split == "out-of-fold"]


def test_rows(run: Path, evaluation: Path | None) -> list[MetricRow]:
    """The figures of the one look at the test split, and of the same images without an organ where that was asked."""
    file = evaluation / "results.json" if evaluation else run / "test-results.json"
    found = rows(EvaluationResult.model_validate_json(file.read_text(encoding="utf-8")))
    hidden = evaluation / "hidden.json" if evaluation else None
    if hidden and hidden.is_file():
        found += hidden_rows(HiddenResult.model_validate_json(hidden.read_text(encoding="utf-8")))
    return found


def hidden_rows(result: HiddenResult) -> list[MetricRow]:
    """What is left of each AUROC with the organ painted over."""
    return [
        MetricRow(name=f"AUROC {row.label}, {result.organ} painted over", split="official test", estimate=row.hidden)
        for row in result.labels
    ]


def rows(result: EvaluationResult) -> list[MetricRow]:
    """The test figures, each with its interval; those of a decision name their operating point."""
    label = result.labels[0]
    found = [
        MetricRow(name=f"{name.upper()} {label.label}", split="official test", estimate=label.metrics[name])
        for name in LABEL_METRICS
    ]
    for point in label.operating_points:
        found += [
            MetricRow(name=name, split="official test", operating_point=point.name, estimate=point.metrics[name])
            for name in POINT_METRICS
        ]
    return found


def put(bundle: Path, card: Card, target: Path) -> None:
    """Copy the bundle with its new card, in place of an older one."""
    checked = parse_any_card(card.model_dump_json(), target.name)
    with tempfile.TemporaryDirectory() as scratch:
        copy = export_reader(bundle, Path(scratch) / card.name)
        (copy / "card.json").write_text(checked.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (copy / "README.md").write_text(card_readme(checked), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(copy, target)


if __name__ == "__main__":
    main()
