"""Put a trained run on the shelf of shipped readers, with the figures of its one look at the test split.

Run by ``make zoo`` after ``make kermany``. The bundle is the run's own; only its name, the sentence on
intended use and the test figures are added to the card.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from wetread.evaluation.result import EvaluationResult
from wetread.models.bundle import ZOO, export_reader, load_card, load_reader
from wetread.models.card import MetricRow, ReaderCard, parse_card
from wetread.models.readme import card_readme

POINT_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "kappa", "mcc")
LABEL_METRICS = ("auroc", "auprc", "brier", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder with test-results.json")
    parser.add_argument("--name", default="chest-pneumonia")
    parser.add_argument("--shelf", type=Path, default=ZOO)
    asked = parser.parse_args()
    result = EvaluationResult.model_validate_json((asked.run / "test-results.json").read_text(encoding="utf-8"))
    card = load_card(asked.run / "reader")
    shipped = card.model_copy(update={"name": asked.name, "metrics": (*card.metrics, *rows(result))})
    target = asked.shelf / asked.name
    put(asked.run / "reader", shipped, target)
    load_reader(target)
    print(f"{target}: sha256 {shipped.sha256}")


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


def put(bundle: Path, card: ReaderCard, target: Path) -> None:
    """Copy the bundle with its new card, in place of an older one."""
    checked = parse_card(card.model_dump_json(), target.name)
    with tempfile.TemporaryDirectory() as scratch:
        copy = export_reader(bundle, Path(scratch) / card.name)
        (copy / "card.json").write_text(checked.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (copy / "README.md").write_text(card_readme(checked), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(copy, target)


if __name__ == "__main__":
    main()
