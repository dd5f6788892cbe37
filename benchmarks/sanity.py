"""The randomisation test tested: it must reject edges and guided backpropagation, and accept gradient and Grad-CAM.

Real radiographs, three architectures: shipped (or given) readers, and small networks trained here from random weights
on a part of the same training images. Validation images inside the training split; the test split is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import dataset, progress
from wetread.datasets.manifest import Manifest
from wetread.explain.base import Method
from wetread.explain.references import Reference
from wetread.explain.sanity import TOLERANCE, SanityResult, SanitySettings, check_sanity, map_maker
from wetread.models.bundle import load_reader
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.config import make_config
from wetread.training.data import gather, to_float
from wetread.training.fit import train

IMAGES = 30
TRAINING_IMAGES, VALIDATION_IMAGES = 1200, 300
SHOULD: dict[Method | Reference, str] = {
    "sobel": "fails",
    "guided-backpropagation": "fails",
    "gradient": "passes",
    "gradcam": "passes",
}
"""The verdict that is known beforehand (Adebayo et al., NeurIPS 2018)."""
SETTINGS = SanitySettings(shares=(0.0, 0.25, 0.5, 0.75, 1.0), seeds=5, pairs=200)
SMALL: dict[str, object] = {
    "mode": "finetune",
    "weights": "random",
    "image_size": 128,
    "epochs": 4,
    "head_epochs": 0,
    "layer_decay": 1.0,
    "learning_rate": 2e-3,
    "averaging": 0.0,
    "augment": "light",
    "gate": False,
    "tensorboard": False,
    "threads": 1,
}
"""A reader that is right most of the time after minutes on one core; how good it is does not matter here."""


def main() -> None:
    parser = arguments(__doc__, "results/sanity.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--work", type=Path, default=Path("runs/sanity"), help="what is here is not made again")
    parser.add_argument("--train", nargs="*", default=["cnn", "resnet18"], help="networks to train from random weights")
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="images of the positive class (default: %(default)s)"
    )
    parser.add_argument("readers", nargs="*", default=["chest-pneumonia"], help="names or folders of readers")
    asked = parser.parse_args()
    prepare_torch()
    manifest = dataset(asked.data, asked.work / "dataset")
    readers = [load_reader(name) for name in asked.readers]
    readers += [trained(manifest, name, asked.work) for name in asked.train]
    figures: list[Figure] = []
    right = 0
    for reader in readers:
        batch, patients = positives(manifest, reader, asked.work / "cache", asked.images)
        results = judged(reader, batch, patients)
        right += sum(one.verdict == SHOULD[method] for method, one in results.items())
        figures += [figure for method, one in results.items() for figure in rows(reader, method, one)]
    total = len(SHOULD) * len(readers)
    names = ", ".join(reader.card.architecture for reader in readers)
    figures.append(Figure("verdicts as they should be", right, "verdicts", protocol(names), total, bar=f">= {total}"))
    write_figures(asked.out, figures)
    for figure in figures:
        around = "" if figure.low is None else f"({figure.low:.3f} to {figure.high:.3f})"
        print(f"{figure.what:76} {figure.value:8.3f} {around:20} n={figure.n} {figure.met}")


def protocol(architecture: str) -> str:
    """How every row was measured."""
    return (
        f"{architecture}; Kermany validation images of the positive class, one for each patient; positive part of each "
        f"map at input size; layers shuffled from the head down, {SETTINGS.seeds} times, batch normalisation measured "
        f"anew; chance: {SETTINGS.pairs} pairs of different images; 95 % bootstrap over images and shufflings; passes: "
        "after half of the layers and after all, by rank and structure, interval of the retention "
        f"below {TOLERANCE}; "
        "the tolerance and the depths were chosen on the shipped reader and on another cnn"
    )


def part_of(manifest: Manifest, counts: dict[str, int]) -> Manifest:
    """About as many images of each split as ``counts`` says, whole patients, drawn with a fixed seed."""
    import pandas as pd

    parts = []
    for split, count in counts.items():
        table = manifest.table[manifest.table["split"] == split]
        patients = table["patient"].fillna(table["path"]).astype(str)
        drawn = np.random.default_rng(0).permutation(np.unique(patients.to_numpy(dtype=np.str_)))
        place = patients.map({name: i for i, name in enumerate(drawn)})
        parts.append(table[place <= place.sort_values().iloc[min(count, len(table)) - 1]])
    return replace(manifest, table=pd.concat(parts), meta=manifest.meta.model_copy(update={"split": None}))


def trained(manifest: Manifest, architecture: str, work: Path) -> Reader:
    """A small reader of that architecture, trained unless it is there."""
    run = work / architecture
    if not (run / "reader" / "card.json").is_file():
        part = part_of(manifest, {"train": TRAINING_IMAGES, "val": VALIDATION_IMAGES})
        config = make_config(SMALL | {"model": architecture, "name": f"small-{architecture}"})
        resume = (run / "config.toml").is_file()
        train(part, config, run, cache=work / "cache", resume=resume, progress=progress)
    return load_reader(run / "reader")


def positives(manifest: Manifest, reader: Reader, cache: Path, count: int) -> tuple[Tensor, list[str]]:
    """Validation images of the reader's label, one for each patient, and the patients."""
    table: Any = manifest.table[(manifest.table["split"] == "val") & (manifest.table["label"] == reader.labels[0])]
    table = table.drop_duplicates("patient").sample(frac=1, random_state=7).head(count).reset_index(drop=True)
    images = gather(manifest, table, reader.input, cache, guide=reader.guide)
    patients: NDArray[np.str_] = images.patients
    return to_float(images.pixels), patients.tolist()


def judged(reader: Reader, batch: Tensor, patients: Sequence[str]) -> dict[Method | Reference, SanityResult]:
    """Every method of :data:`SHOULD` put to the test."""
    label = reader.labels[0]
    return {
        method: check_sanity(reader, batch, method, map_maker(method, label), label, SETTINGS, patients)
        for method in SHOULD
    }


def rows(reader: Reader, method: Method | Reference, result: SanityResult) -> list[Figure]:
    """Whether the verdict is right, and what was left of the maps at each depth."""
    name, how = f"{reader.card.name} ({reader.card.architecture})", protocol(reader.card.architecture)
    wanted = "rejected" if SHOULD[method] == "fails" else "accepted"
    right = float(result.verdict == SHOULD[method])
    found = [Figure(f"{name}: {method} {wanted}", right, "1 is yes", f"{how}; {result.sentence}", result.n, bar=">= 1")]
    for one in result.retentions:
        value = float("nan") if one.retention.value is None else one.retention.value
        depth = "the last layer" if one.share == 0 else f"{one.share:.0%} of the layers"
        what = f"{name}: {method}, left by {one.measure} after {depth}"
        found.append(Figure(what, value, "retention", how, result.n, one.retention.low, one.retention.high))
    return found


if __name__ == "__main__":
    main()
