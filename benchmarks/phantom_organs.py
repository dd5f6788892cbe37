"""Lungs, heart and cardiothoracic ratio on phantoms of sources that the segmenter never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.lungs import progress
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.phantoms import SOURCES, DatasetPlan, make_dataset
from wetread.models.bundle import load_segmenter
from wetread.models.organs import Segmenter
from wetread.reading.measures import measure_organs
from wetread.runtime import prepare_torch
from wetread.training.config import SegmentConfig, config_of, load_recipe
from wetread.training.segment import train_segmenter
from wetread.training.segment_data import load_annotated
from wetread.training.segment_scores import mean_overlaps, score_images

RECIPE = Path("recipes/phantom-organs.toml")
ORGANS = ("lungs", "heart")
TRAINED, UNSEEN = 320, 80
PROTOCOL = (
    f"{UNSEEN} phantoms with findings in half of them, sources {', '.join(list(SOURCES)[-2:])}; trained on {TRAINED} "
    "of the other sources with 15 % of their patients for validation; bootstrap over patients"
)


def main() -> None:
    parser = arguments(__doc__, "results/phantom_organs.csv")
    parser.add_argument("--work", type=Path, default=Path("runs/phantom-organs"), help="what is here is not made again")
    asked = parser.parse_args()
    prepare_torch()
    names = list(SOURCES)
    seen = made(asked.work / "seen", TRAINED, names[:-2], seed=1, fractions={"train": 0.85, "val": 0.15})
    unseen = made(asked.work / "unseen", UNSEEN, names[-2:], seed=2, fractions={})
    run = asked.work / "run"
    if not (run / "reader" / "card.json").is_file():
        config = config_of(SegmentConfig, load_recipe(RECIPE, SegmentConfig) | {"name": "phantom-organs"})
        train_segmenter(seen, config, run, resume=(run / "config.toml").is_file(), progress=progress)
    figures = overlap_and_ratio(load_segmenter(run / "reader"), unseen)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:9.4f} {figure.unit:8} {figure.bar:8} {figure.met}")


def made(folder: Path, count: int, sources: list[str], *, seed: int, fractions: dict[str, float]) -> Manifest:
    """Phantoms on disk, once; half of the patients have one of the four findings."""
    if (folder / "dataset.toml").is_file():
        return load_manifest(folder)
    plan = DatasetPlan(
        count,
        seed=seed,
        kinds=("consolidation", "nodule", "effusion", "cardiomegaly"),
        sources=tuple(sources),
        size_px=512,
        fractions=fractions,
    )
    return make_dataset(folder, plan)


def overlap_and_ratio(segmenter: Segmenter, manifest: Manifest) -> list[Figure]:
    """Overlaps with their intervals, and how far the measured ratio lies from that of the true masks."""
    figures = []
    for row in mean_overlaps(score_images(segmenter, manifest, manifest.table, progress), "unseen sources"):
        value = row.estimate
        bar = ">= 0.96" if row.name.startswith("dice") else ""
        unit = "mm" if "mm" in row.name else "share"
        name = f"phantoms, mean {row.name}"
        figures.append(Figure(name, value.value or 0.0, unit, PROTOCOL, value.n, value.low, value.high, bar))
    errors, missing = ratio_errors(segmenter, manifest)
    figures.append(
        Figure(
            "phantoms, mean absolute error of the cardiothoracic ratio",
            float(np.mean(errors)),
            "ratio",
            f"{PROTOCOL}; the ratio of the true masks is the truth; low and high are the 5th and 95th percentile",
            len(errors),
            float(np.quantile(errors, 0.05)),
            float(np.quantile(errors, 0.95)),
            "<= 0.02",
        )
    )
    figures.append(Figure("phantoms, films without a ratio", missing, "images", PROTOCOL, len(errors) + missing))
    return figures


def ratio_errors(segmenter: Segmenter, manifest: Manifest) -> tuple[list[float], int]:
    """Absolute errors, and the number of films where either mask gave no ratio."""
    errors, missing = [], 0
    for _, row in manifest.table.iterrows():
        image, masks = load_annotated(manifest, row, ORGANS)
        truth = ratio({organ: mask for organ, mask in masks.items() if mask is not None})
        found = ratio(segmenter.masks(image))
        if truth is None or found is None:
            missing += 1
        else:
            errors.append(abs(found - truth))
    return errors, missing


def ratio(masks: dict[str, np.ndarray]) -> float | None:
    """The cardiothoracic ratio of masks by organ; None where it cannot be measured."""
    measures = measure_organs(masks, None)
    return next((one.value for one in measures if one.name == "cardiothoracic ratio"), None)


if __name__ == "__main__":
    main()
