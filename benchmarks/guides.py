"""Guides side by side on the official Kermany test: accuracy, and what the same reader makes of the background alone.

A reader that judges lungs has nothing left to go by when they are painted over. Guides differ in nothing but
the guide: same recipe, same seeds, same split; operating points are chosen on validation images as the guide shows
them. The test is opened once for each finished reader.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import RECIPE, dataset, progress
from wetread.datasets.manifest import Manifest
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import proportion
from wetread.models.bundle import HIDING_MARGIN, load_finder, load_reader
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.config import load_recipe, make_config
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.types import Estimate

GUIDES: dict[str, dict[str, object]] = {
    "none": {},
    "mask": {"guide": "mask"},
    "crop": {"guide": "crop"},
    "attention": {"guide": "attention"},
    "background": {"guide": "background"},
}
PROTOCOL = (
    "official Kermany test, n=624, recipe chest-pneumonia; threshold, temperature and epoch chosen on validation "
    "images inside train, as the guide shows them; lungs found by the shipped segmenter, which saw none of these images"
)
BACKGROUND = (
    f"{PROTOCOL}; background only: the lungs, widened by {HIDING_MARGIN:.0%} of the side, take the mean grey of the "
    "rest, and the same reader reads what is left; one that masks or crops still knows where the lungs were"
)


def main() -> None:
    parser = arguments(__doc__, "results/guides.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--work", type=Path, default=Path("runs/kermany"), help="finished runs here are not repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one reader of each guide for each seed")
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES))
    asked = parser.parse_args()
    prepare_torch()
    manifest = dataset(asked.data, asked.work / "dataset")
    figures = []
    for name in asked.guides:
        of_seeds = []
        for seed in asked.seeds:
            reader = load_reader(trained(manifest, name, seed, asked.work) / "reader")
            of_seeds.append(figures_of(f"{name}, seed {seed}", reader, manifest))
        figures += [figure for one in of_seeds for figure in one]
        if len(of_seeds) > 1:
            figures += means(name, of_seeds)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:.4f} ({figure.low or 0:.4f} to {figure.high or 0:.4f}) {figure.met}")


def trained(manifest: Manifest, name: str, seed: int, work: Path) -> Path:
    """The run folder of the recipe under one guide, trained unless it is there; without one it is the recipe's own."""
    guide = GUIDES[name]
    run = "chest-pneumonia" + "".join(f"-{value}" for value in guide.values()) + f"-seed{seed}"
    folder = work / run
    if not (folder / "reader" / "card.json").is_file():
        config = make_config(load_recipe(RECIPE) | {"seed": seed, "name": run} | guide)
        resume = (folder / "config.toml").is_file()
        train(manifest, config, folder, cache=work / "cache", resume=resume, progress=progress)
    return folder


def figures_of(name: str, reader: Reader, manifest: Manifest) -> list[Figure]:
    """AUROC and accuracy of the films, AUROC of their backgrounds."""
    whole, hidden = (
        predict_manifest(reader, manifest, "test", hide=finder, progress=progress)
        for finder in (None, load_finder("lungs", "lungs"))
    )
    label, guided = reader.labels[0], not name.startswith("none")
    truth = (whole["target"] == label).to_numpy()
    patients = whole["patient"].fillna(whole["image"]).astype(str).to_numpy(dtype=np.str_)
    figures = []
    for what, table, protocol, bar in (
        ("AUROC", whole, PROTOCOL, ">= 0.975"),
        ("AUROC, background only", hidden, BACKGROUND, "<= 0.75"),
    ):
        area = auroc_estimate(table[f"probability_{label}"].to_numpy(), truth, groups=patients)
        shown = (area.n, area.low, area.high, bar if guided else "")
        figures.append(Figure(f"{name}: {what}", known(area), "AUROC", protocol, *shown))
    point = reader.card.operating_point(label)
    decided = whole[f"probability_{label}"].to_numpy() >= (point.threshold if point else 0.5)
    accuracy = proportion(decided == truth, patients)
    shown = (accuracy.n, accuracy.low, accuracy.high, "")
    return [*figures, Figure(f"{name}: accuracy", known(accuracy), "share", PROTOCOL, *shown)]


def known(estimate: Estimate) -> float:
    """The value of an estimate, NaN where there is none."""
    return float("nan") if estimate.value is None else estimate.value


def means(name: str, of_seeds: list[list[Figure]]) -> list[Figure]:
    """The mean of each figure over seeds; ``low`` and ``high`` are the smallest and largest seed, no interval."""
    found = []
    for same in zip(*of_seeds, strict=True):
        values = [figure.value for figure in same]
        what = f"{name}, mean of {len(values)} seeds: {same[0].what.split(': ')[1]}"
        first, spread = same[0], (min(values), max(values))
        protocol = f"{first.protocol}; low and high are the smallest and the largest seed"
        found.append(Figure(what, sum(values) / len(values), first.unit, protocol, first.n, *spread, first.bar))
    return found


if __name__ == "__main__":
    main()
