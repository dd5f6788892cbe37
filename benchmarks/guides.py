"""Guides side by side on the official Kermany test: accuracy, and what the same reader makes of the background alone.

A reader that judges lungs has nothing left to go by when they are painted over. Guides differ in nothing but
the guide: same recipe, same seed, same split; operating points are chosen on guided validation images. The test
is opened once for each finished reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import RECIPE, dataset, progress
from wetread.datasets.manifest import Manifest
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import proportion
from wetread.imaging import load_image
from wetread.models.bundle import load_reader, load_segmenter
from wetread.models.card import GuideSpec
from wetread.models.guide import Guide, organ_removed, widened
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.config import load_recipe, make_config
from wetread.training.data import targets_of
from wetread.training.fit import train
from wetread.types import Image

GUIDES: dict[str, dict[str, object]] = {
    "none": {},
    "mask, mean grey outside": {"guide": "mask"},
    "mask, black outside": {"guide": "mask", "fill": "black"},
}
MARGIN = 0.03
PROTOCOL = (
    "official Kermany test, n=624, recipe chest-pneumonia with seed 0; threshold, temperature and epoch chosen on "
    "guided validation images inside train; lungs found by the shipped segmenter, which saw none of these images"
)
BACKGROUND = (
    f"{PROTOCOL}; background only: the lungs, widened by {MARGIN:.0%} of the side, take the mean grey of the rest, and "
    "the same reader reads what is left; a guided one still knows where the lungs were"
)


@dataclass(frozen=True)
class Scored:
    """Probabilities (N,) of the films and of their backgrounds, and the truth (N,)."""

    film: NDArray[np.float64]
    background: NDArray[np.float64]
    truth: NDArray[np.float32]
    patients: NDArray[np.str_]


def main() -> None:
    parser = arguments(__doc__, "results/guides.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--work", type=Path, default=Path("runs/kermany"), help="finished runs here are not repeated")
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES))
    asked = parser.parse_args()
    prepare_torch()
    manifest = dataset(asked.data, asked.work / "dataset")
    figures = []
    for name in asked.guides:
        reader = load_reader(trained(manifest, name, asked.work) / "reader")
        figures += figures_of(name, reader, scored(reader, manifest))
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:.4f} ({figure.low or 0:.4f} to {figure.high or 0:.4f}) {figure.met}")


def trained(manifest: Manifest, name: str, work: Path) -> Path:
    """The run folder of the recipe under one guide, trained unless it is there; without one it is the recipe's own."""
    guide = GUIDES[name]
    run = "chest-pneumonia" + "".join(f"-{value}" for value in guide.values()) + "-seed0"
    folder = work / run
    if not (folder / "reader" / "card.json").is_file():
        config = make_config(load_recipe(RECIPE) | {"seed": 0, "name": run} | guide)
        resume = (folder / "config.toml").is_file()
        train(manifest, config, folder, cache=work / "cache", resume=resume, progress=progress)
    return folder


def scored(reader: Reader, manifest: Manifest) -> Scored:
    """Read every test film, and its background alone."""
    table = manifest.table[manifest.table["split"] == "test"].reset_index(drop=True)
    finder = reader.guide or shipped_lungs()
    films, backgrounds = [], []
    for number, image in enumerate(_images(manifest, table["path"].tolist())):
        mask = finder.mask(image)
        films.append(_probability(reader, image, mask))
        backgrounds.append(_probability(reader, without(image, mask), mask))
        progress("reading", number + 1, len(table))
    patients = table["patient"].fillna(table["path"]).astype(str).to_numpy(dtype=np.str_)
    return Scored(np.array(films), np.array(backgrounds), targets_of(table, manifest.meta)[:, 0], patients)


def _images(manifest: Manifest, paths: list[str]) -> Iterator[Image]:
    return (load_image(manifest.path_of(path)) for path in paths)


def shipped_lungs() -> Guide:
    """What finds the lungs of a reader that has no guide of its own."""
    segmenter = load_segmenter("lungs")
    return Guide(GuideSpec(organ="lungs", segmenter="lungs", sha256=segmenter.card.sha256), segmenter)


def without(image: Image, mask: NDArray[np.bool_]) -> Image:
    """The film with its lungs painted over."""
    return Image(organ_removed(image.pixels, widened(mask, MARGIN)), image.facts, image.applied)


def _probability(reader: Reader, image: Image, mask: NDArray[np.bool_]) -> float:
    return float(reader.probabilities(reader.forward(reader.prepare([image], [mask])))[0, 0])


def figures_of(name: str, reader: Reader, found: Scored) -> list[Figure]:
    """AUROC and accuracy of the films, AUROC of their backgrounds."""
    figures = []
    for what, values, protocol, bar in (
        ("AUROC", found.film, PROTOCOL, "" if name == "none" else ">= 0.975"),
        ("AUROC, background only", found.background, BACKGROUND, "" if name == "none" else "<= 0.75"),
    ):
        area = auroc_estimate(values, found.truth, groups=found.patients)
        value = float("nan") if area.value is None else area.value
        figures.append(Figure(f"guide {name}: {what}", value, "AUROC", protocol, area.n, area.low, area.high, bar))
    point = reader.card.operating_point(reader.labels[0])
    threshold = point.threshold if point else 0.5
    accuracy = proportion((found.film >= threshold) == (found.truth == 1), found.patients)
    share = float("nan") if accuracy.value is None else accuracy.value
    figures.append(Figure(f"guide {name}: accuracy", share, "share", PROTOCOL, accuracy.n, accuracy.low, accuracy.high))
    return figures


if __name__ == "__main__":
    main()
