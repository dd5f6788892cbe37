"""The official Kermany test: three seeds of the recipe, baselines, and published peers in one table.

The test split is opened once for each finished reader, after its weights, temperature and operating
point are fixed on patient-grouped validation images inside the training split.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import arguments, machine
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.splits import make_split
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationResult, EvaluationSpec
from wetread.models.bundle import load_reader
from wetread.provenance import atomic_file
from wetread.training.config import TrainingConfig, load_recipe, make_config
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.types import Estimate

RECIPE = Path("recipes/chest-pneumonia.toml")
PROTOCOL = (
    "official test split, n=624; threshold, temperature and epoch chosen on 15 % of the training images, grouped by "
    "patient; images as shared: stretched to 224 px"
)
COLUMNS = (
    "reader",
    "seed",
    "auroc",
    "auroc_low",
    "auroc_high",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "sensitivity",
    "specificity",
    "brier",
    "ece",
    "n",
    "validation_auroc",
    "threshold",
    "train_seconds",
    "parameters",
    "protocol",
    "source",
)
BASELINES: dict[str, dict[str, object]] = {
    "pixels, kNN": {"mode": "features", "model": "knn", "inputs": "pixels"},
    "pixels, linear SVM": {"mode": "features", "model": "svm", "inputs": "pixels"},
    "pixels, logistic": {"mode": "features", "model": "logistic", "inputs": "pixels"},
    "features, kNN": {"mode": "features", "model": "knn"},
    "features, linear SVM": {"mode": "features", "model": "svm"},
    "features, logistic": {"mode": "features", "model": "logistic"},
    "custom CNN": {"mode": "finetune", "model": "cnn", "learning_rate": 2e-3, "head_epochs": 0, "epochs": 5},
}
PEERS = (
    ("Kermany et al., Inception v3", 0.968, 0.928, "official test; quoted second hand", "Cell 2018;172:1122"),
    ("MedMNIST+ ResNet-18, 224 px", 0.9804, 0.9113, "same 624 images, 3 seeds", "sdoerrich97 MedMNIST+ benchmark"),
    ("MedMNIST+ VGG16, 224 px", 0.9847, 0.8739, "same 624 images, 3 seeds", "sdoerrich97 MedMNIST+ benchmark"),
    ("DINO ViT-B/16, frozen", 0.9892, 0.9156, "same 624 images, linear probe", "sdoerrich97 MedMNIST+ benchmark"),
    ("ConvNeXtV2-tiny, 3 classes", 0.975, 0.9135, "official test", "Hugging Face model card kiselyovd"),
)


def main() -> None:
    parser = arguments(__doc__, "results/kermany.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--work", type=Path, default=Path("runs/kermany"), help="finished runs here are not repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("all", "recipe", "baselines"), default="all")
    asked = parser.parse_args()
    manifest = dataset(asked.data, asked.work / "dataset")
    rows = []
    if asked.only != "baselines":
        seeded = [measure("wetread chest-pneumonia", manifest, recipe(seed), asked.work) for seed in asked.seeds]
        rows += [*seeded, *spread(seeded)]
    if asked.only != "recipe":
        rows += [
            measure(name, manifest, make_config(settings | {"name": slug(name), "tensorboard": False}), asked.work)
            for name, settings in BASELINES.items()
        ]
    write(asked.out, [*rows, *(peer(*row) for row in PEERS)])


def dataset(source: Path, folder: Path) -> Manifest:
    """Import with a patient-grouped validation split inside train, once."""
    if not (folder / "dataset.toml").is_file():
        manifest = import_dataset(source, layout="kermany").manifest
        make_split(manifest, {"train": 0.85, "val": 0.15}, seed=0).save(folder)
    return load_manifest(folder)


def recipe(seed: int) -> TrainingConfig:
    """The committed recipe with another seed."""
    return make_config(load_recipe(RECIPE) | {"seed": seed, "name": f"chest-pneumonia-seed{seed}"})


def slug(name: str) -> str:
    """A name that a reader may have."""
    return name.lower().replace(", ", "-").replace(" ", "-")


def progress(stage: str, done: int, total: int) -> None:
    """One line on stderr now and then."""
    if done == total or done % 1024 < 32:
        print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


def measure(name: str, manifest: Manifest, config: TrainingConfig, work: Path) -> dict[str, object]:
    """Train unless trained, then evaluate on the official test split."""
    folder, cache = work / str(config.name), work / "cache"
    if not (folder / "reader" / "card.json").is_file():
        resume = (folder / "config.toml").is_file()
        train(manifest, config, folder, cache=cache, resume=resume, progress=progress)
    reader = load_reader(folder / "reader")
    predictions = predict_manifest(reader, manifest, "test", cache=cache)
    predictions.to_parquet(folder / "test-predictions.parquet", index=False)
    result = evaluate(predictions, specification(reader.card.operating_points, reader.card.name, reader.card.classes))
    with atomic_file(folder / "test-results.json") as part:
        part.write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return row_of(name, config.seed, result, reader.card)


def specification(points: object, name: str, classes: Sequence[str]) -> EvaluationSpec:
    """The protocol of the table."""
    return EvaluationSpec.model_validate(
        {
            "task": "binary",
            "classes": tuple(classes),
            "operating_points": points,
            "reader": name,
            "split": "test",
            "leak_checked": "patients, studies and identical files do not cross splits",
        }
    )


def row_of(name: str, seed: int, result: EvaluationResult, card: object) -> dict[str, object]:
    """One line of the table, at the reader's default operating point."""
    from wetread.models.card import ReaderCard

    if not isinstance(card, ReaderCard):
        raise TypeError("expected a reader card")
    label = result.labels[0]
    point = label.operating_points[0]
    validation = next((row.estimate.value for row in card.metrics), None)
    seconds = card.training["seconds"]
    area, accuracy = label.metrics["auroc"], point.metrics["accuracy"]
    return {
        "reader": name,
        "seed": seed,
        **interval("auroc", area),
        **interval("accuracy", accuracy),
        "sensitivity": point.metrics["sensitivity"].value,
        "specificity": point.metrics["specificity"].value,
        "brier": label.metrics["brier"].value,
        "ece": label.metrics["ece"].value,
        "n": area.n,
        "validation_auroc": validation,
        "threshold": point.threshold,
        "train_seconds": seconds["decoding"] + seconds["training"],
        "parameters": card.training["parameters"],
        "protocol": PROTOCOL,
        "source": "measured",
    }


def interval(name: str, estimate: Estimate) -> dict[str, object]:
    """Value and bounds under the names of the columns."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def spread(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Mean over seeds and, as low and high, the smallest and the largest seed."""
    if len(rows) < 2:
        return []
    mean: dict[str, object] = {"reader": f"{rows[0]['reader']}, mean of {len(rows)} seeds", "seed": "mean"}
    for column in ("auroc", "accuracy", "sensitivity", "specificity", "brier", "ece", "train_seconds"):
        values = [float(str(row[column])) for row in rows]
        mean[column] = statistics.fmean(values)
        if column in ("auroc", "accuracy"):
            mean |= {f"{column}_low": min(values), f"{column}_high": max(values)}
    mean |= {"n": rows[0]["n"], "protocol": "low and high are the smallest and largest seed", "source": "measured"}
    return [mean]


def peer(name: str, auroc: float, accuracy: float, protocol: str, source: str) -> dict[str, object]:
    """A published figure beside ours; another protocol, so no interval."""
    return {"reader": name, "auroc": auroc, "accuracy": accuracy, "n": 624, "protocol": protocol, "source": source}


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the table with the machine in every measured row, and print it."""
    facts = machine()
    with atomic_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, *facts], lineterminator="\n", restval="")
        writer.writeheader()
        for row in rows:
            measured = row["source"] == "measured"
            writer.writerow(
                {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in (row | (facts if measured else {})).items()}
            )
    for row in rows:
        print(json.dumps({key: row.get(key) for key in ("reader", "seed", "auroc", "accuracy", "source")}))


if __name__ == "__main__":
    main()
