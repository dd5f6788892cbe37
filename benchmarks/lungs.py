"""The shipped lung segmenter: five folds by patient on covid-cxr, masks on children, and speed.

No figure here chooses anything: the recipe was fixed before. Flagged masks are counted, never dropped.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import Figure, arguments, timed, write_figures
from wetread.cli.evaluate_segment import odd
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.phantoms import render, sample_spec
from wetread.datasets.splits import make_split
from wetread.imaging import find_images, load_image
from wetread.models.bundle import load_segmenter
from wetread.models.organs import Segmenter
from wetread.reading.organ_picture import contact_sheet, organ_picture
from wetread.reading.organs import segment_image
from wetread.runtime import prepare_torch
from wetread.training.config import SegmentConfig, config_of, load_recipe
from wetread.training.segment import train_segmenter
from wetread.training.segment_scores import mean_overlaps, score_images
from wetread.types import Image, ImageFacts

RECIPE = Path("recipes/lungs.toml")
FOLDS = 5
SHEET = 64
FOLDS_PROTOCOL = (
    "covid-cxr, all 322 annotated images of 200 patients, 5 folds by patient, each image judged by the network that "
    "did not see its patient, at the image's own size, masks as the network drew them; best epoch by the fold's own "
    "Dice, which flatters it a little; bootstrap over patients"
)
CHILDREN_PROTOCOL = (
    "every training image of kermany-cxr (children aged 1 to 5; none was annotated or trained on), the shipped "
    "segmenter; plausible: no flag of wetread.reading.mask_quality but 'touches border'"
)
SPEED_PROTOCOL = "median of 20 images in one process after 3, pixels to masks, flags and measures; phantom of that size"


def main() -> None:
    parser = arguments(__doc__, "results/lungs.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder of covid-cxr")
    parser.add_argument("--children", type=Path, help="folder with images of children to look at")
    parser.add_argument("--work", type=Path, default=Path("runs/lungs"), help="finished runs here are not repeated")
    parser.add_argument("--sheet", type=Path, default=Path("docs/images/lungs-children.jpg"))
    asked = parser.parse_args()
    prepare_torch()
    manifest = dataset(asked.data, asked.work / "dataset")
    figures = fold_figures(manifest, asked.work)
    segmenter = load_segmenter(trained(manifest, asked.work, "lungs", folds=0) / "reader")
    if asked.children:
        figures += child_figures(segmenter, asked.children, asked.sheet)
    figures += speed_figures(segmenter)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:9.4f} {figure.unit:8} {figure.bar:8} {figure.met}")


def dataset(source: Path, folder: Path) -> Manifest:
    """Import, and split the patients for the shipped network, once."""
    if not (folder / "dataset.toml").is_file():
        manifest = import_dataset(source, layout="covid-cxr").manifest
        table = manifest.table[manifest.table["mask"].notna()]
        bare = manifest.with_table(table.assign(label=None), task="binary", classes=())
        make_split(bare, {"train": 0.85, "val": 0.15}, seed=0).save(folder)
    return load_manifest(folder)


def trained(manifest: Manifest, work: Path, name: str, folds: int) -> Path:
    """The run folder of the recipe, trained unless it is there."""
    config = config_of(SegmentConfig, load_recipe(RECIPE, SegmentConfig) | {"name": name, "folds": folds})
    folder = work / name
    if not (folder / "reader" / "card.json").is_file():
        train_segmenter(manifest, config, folder, resume=(folder / "config.toml").is_file(), progress=progress)
    return folder


def fold_figures(manifest: Manifest, work: Path) -> list[Figure]:
    """Overlap on patients that the network did not see."""
    run = trained(manifest, work, "lungs-folds", FOLDS)
    place = pd.read_parquet(run / "scores.parquet").drop_duplicates("path").set_index("path")["network"]
    folds = load_segmenter(run / "reader")
    scores = pd.concat(
        score_images(
            Segmenter(folds.card, [network]),
            manifest,
            manifest.table[manifest.table["path"].map(place) == number],
            progress,
            look=odd,
        )
        for number, network in enumerate(folds.networks, 1)
    )
    figures = []
    for row in mean_overlaps(scores, "out-of-fold"):
        value = row.estimate
        bar = ">= 0.95" if row.name == "dice lungs" else ""
        unit = "px" if "px" in row.name else "share"
        name = f"covid-cxr, mean {row.name}"
        figures.append(Figure(name, value.value or 0.0, unit, FOLDS_PROTOCOL, value.n, value.low, value.high, bar))
    flagged = float((scores["flags"] != "").mean())
    figures.append(Figure("covid-cxr, share of flagged masks", flagged, "share", FOLDS_PROTOCOL, len(scores)))
    return figures


def child_figures(segmenter: Segmenter, folder: Path, sheet: Path) -> list[Figure]:
    """How many masks of children are plausible, and a contact sheet of some drawn at random."""
    paths = find_images([folder])
    shown = set(np.random.default_rng(0).choice(len(paths), min(SHEET, len(paths)), replace=False).tolist())
    tally: Counter[str] = Counter()
    pictures = []
    for number, path in enumerate(paths):
        image = load_image(path)
        reading, masks = segment_image(segmenter, image)
        tally.update(reading.flags or ("plausible",))
        tally["plausible after cleaning"] += not odd("lungs", masks["lungs"])
        if number in shown:
            pictures.append(organ_picture(image.pixels, masks))
        progress("children", number + 1, len(paths))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures, side_px=128).save(sheet, quality=80)
    figures = []
    for flag, count in tally.most_common():
        bar = ">= 0.97" if flag == "plausible" else ""
        name = f"kermany-cxr, {flag}"
        figures.append(Figure(name, count / len(paths), "share", CHILDREN_PROTOCOL, len(paths), bar=bar))
    return figures


def speed_figures(segmenter: Segmenter) -> list[Figure]:
    """Milliseconds for one image."""
    figures = []
    for size in (256, 512):
        film = render(sample_spec(np.random.default_rng(0), size_px=size)).image
        facts = ImageFacts(name="phantom", format="DICOM", sha256="", rows=size, columns=size, bits=16)
        seconds = sorted(timed(partial(segment_image, segmenter, Image(film, facts)), repeats=20, warm_up=3))
        spread = (1e3 * seconds[0], 1e3 * seconds[-1])
        middle = 1e3 * seconds[len(seconds) // 2]
        figures.append(Figure(f"segment, {size} px", middle, "ms", SPEED_PROTOCOL, len(seconds), *spread, "<= 120"))
    return figures


def progress(stage: str, done: int, total: int) -> None:
    """One line on stderr now and then."""
    if done == total or done % 512 < 8:
        print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
