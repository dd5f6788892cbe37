"""COVID-19, other pneumonia or neither from two data sets: the accuracy of the articles, and what it is worth.

Films of children of one hospital and of adults from publications in one table, divided by patient. The reader reaches
what articles report. Beside it: the same reader shown the lungs alone or all but the lungs, and what it makes of the
films of two hospitals that it never saw, all of them without COVID-19. Its audit is `make covid-audit`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import progress
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.merge import merge
from wetread.datasets.splits import make_split
from wetread.evaluation.intervals import proportion
from wetread.models.bundle import load_finder, load_reader
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.config import load_recipe, make_config
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.types import Estimate

RECIPE = Path("recipes/chest-three.toml")
CLASSES = ("NORMAL", "PNEUMONIA", "COVID-19")
RENAMED = {"No Finding": "NORMAL", "Other pneumonia": "PNEUMONIA"}
UNSEEN = ("Melbourne, Australia", "Mount Sinai Hospital, Toronto, Ontario, Canada")
"""The two places of the adults' set with ten films or more and none of COVID-19: left out of everything else."""

PROTOCOL = (
    "kermany-cxr and covid-cxr in one table without the films of two hospitals, divided by patient once (seed 0), "
    "recipe chest-three; epoch and temperature chosen on validation; the class of highest probability"
)


def main() -> None:
    parser = arguments(__doc__, "results/covid.csv")
    parser.add_argument("--children", type=Path, required=True, help="kermany-cxr with train/ and test/")
    parser.add_argument("--adults", type=Path, required=True, help="covid-cxr with metadata.csv and images/")
    parser.add_argument("--work", type=Path, default=Path("runs/covid"), help="what is there is not made again")
    asked = parser.parse_args()
    prepare_torch()
    seen, unseen = datasets(asked.children, asked.adults, asked.work)
    folder, cache = asked.work / "chest-three", asked.work / "cache"
    if not (folder / "reader" / "card.json").is_file():
        config = make_config(load_recipe(RECIPE) | {"name": "chest-three"})
        train(seen, config, folder, cache=cache, resume=(folder / "config.toml").is_file(), progress=progress)
    figures = measured(load_reader(folder / "reader"), seen, unseen, cache)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:70} {figure.value:.4f} ({figure.low or 0:.4f} to {figure.high or 0:.4f}) {figure.met}")


def datasets(children: Path, adults: Path, work: Path) -> tuple[Manifest, Manifest]:
    """The table that is learned and tested, and that of the two unseen hospitals; made once."""
    if not (work / "seen" / "dataset.toml").is_file():
        parts = [import_dataset(children, layout="kermany").manifest, import_dataset(adults).manifest]
        both = merge(parts, "chest-three", CLASSES, RENAMED)
        foreign = both.table["site"].isin(UNSEEN)
        both.with_table(both.table[foreign].assign(split="test").reset_index(drop=True)).save(work / "unseen")
        rest = both.with_table(both.table[~foreign].reset_index(drop=True))
        make_split(rest, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=0).save(work / "seen")
    return load_manifest(work / "seen"), load_manifest(work / "unseen")


def measured(reader: Reader, seen: Manifest, unseen: Manifest, cache: Path) -> list[Figure]:
    """Accuracy on the test split, whole and with the lungs painted over; and what the unseen hospitals are called."""
    card = reader.card
    seconds = card.training["seconds"]
    spent = (seconds["decoding"] + seconds["training"]) / 60
    parameters = card.training["parameters"] / 1e6
    figures = [
        Figure("training", spent, "min", PROTOCOL, bar="<= 30"),
        Figure("parameters", parameters, "million", "of the network", bar="<= 10"),
    ]
    hidden = "; all but the lungs: these, widened, take the mean grey of the rest"
    for what, finder, protocol, bar in (
        ("whole film", None, PROTOCOL, ">= 0.95"),
        ("lungs painted over", load_finder("lungs", "lungs"), PROTOCOL + hidden, ""),
    ):
        table = predict_manifest(reader, seen, "test", hide=finder, cache=cache, progress=progress)
        figures += _figures(what, table["target"].to_numpy(), _called(reader, table), _patients(table), protocol, bar)
    table = predict_manifest(reader, unseen, "test", cache=cache, progress=progress)
    called, groups = _called(reader, table), _patients(table)
    protocol = f"{len(table)} films of {' and '.join(UNSEEN)}, all of other pneumonias; the reader never saw the places"
    covid, right = proportion(called == "COVID-19", groups), proportion(called == "PNEUMONIA", groups)
    return [
        *figures,
        _figure("two unseen hospitals without COVID-19: called COVID-19", covid, protocol),
        _figure("two unseen hospitals without COVID-19: accuracy", right, protocol),
    ]


def _figures(
    what: str, truth: NDArray[np.str_], called: NDArray[np.str_], groups: NDArray[np.str_], protocol: str, bar: str
) -> list[Figure]:
    found = [_figure(f"{what}: accuracy", proportion(called == truth, groups), protocol, bar)]
    shares = []
    for label in CLASSES:
        mine = truth == label
        share = proportion(called[mine] == label, groups[mine])
        shares.append(share.value or 0.0)
        found.append(_figure(f"{what}: recall of {label}", share, protocol))
    return [*found, Figure(f"{what}: balanced accuracy", float(np.mean(shares)), "share", protocol, len(truth))]


def _figure(what: str, estimate: Estimate, protocol: str, bar: str = "") -> Figure:
    value = float("nan") if estimate.value is None else estimate.value
    return Figure(what, value, "share", protocol, estimate.n, estimate.low, estimate.high, bar)


def _called(reader: Reader, table: pd.DataFrame) -> NDArray[np.str_]:
    columns = np.stack([table[f"probability_{label}"] for label in reader.labels], axis=1)
    return np.array([reader.labels[i] for i in columns.argmax(1)])


def _patients(table: pd.DataFrame) -> NDArray[np.str_]:
    return np.array(table["patient"].fillna(table["image"]).astype(str), dtype=np.str_)


if __name__ == "__main__":
    main()
