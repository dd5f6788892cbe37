"""Small labelled sets for the training tests: phantoms on disk, and arrays in memory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.phantoms import DatasetPlan, FindingKind, make_dataset
from wetread.datasets.splits import make_split
from wetread.training.config import SegmentConfig, TrainingConfig
from wetread.training.data import LabelledImages
from wetread.types import Task

__all__ = [
    "KINDS",
    "SIDE_PX",
    "blobs",
    "copied",
    "images_of",
    "meta_of",
    "organ_films",
    "relabelled",
    "tiny",
    "tiny_organs",
    "with_masks_copied",
]

KINDS: tuple[FindingKind, ...] = ("consolidation", "cardiomegaly")
SIDE_PX = 64
_UNKNOWN_EVERY = 9


def tiny(**changes: Any) -> TrainingConfig:
    """The smallest run that goes through every step: own cnn, 32 px, one epoch, no TensorBoard."""
    settings: dict[str, Any] = {
        "mode": "finetune",
        "model": "cnn",
        "image_size": 32,
        "epochs": 1,
        "head_epochs": 0,
        "batch_size": 16,
        "threads": 1,
        "tensorboard": False,
    }
    return TrainingConfig(**{**settings, **changes})


def relabelled(phantoms: Manifest, task: Task, *, unknown: bool = False, seed: int = 0) -> Manifest:
    """The same phantoms under another task, split by patient; ``unknown`` blanks every ninth label."""
    table = phantoms.table.copy()
    has = {kind: table[f"label_{kind}"] == 1 for kind in KINDS}
    blank = np.arange(len(table)) % _UNKNOWN_EVERY == 0
    classes: tuple[str, ...]
    if task == "multilabel":
        classes = KINDS
        for shift, kind in enumerate(KINDS):
            column = table[f"label_{kind}"].astype("float64")
            table[f"label_{kind}"] = column.mask(np.roll(blank, shift)) if unknown else column
    else:
        ill = np.where(has[KINDS[0]], KINDS[0], np.where(has[KINDS[1]], KINDS[1], "normal"))
        label = pd.Series(ill) if task == "multiclass" else pd.Series(np.where(ill == "normal", "normal", "ill"))
        classes = ("normal", *KINDS) if task == "multiclass" else ("normal", "ill")
        table = table.drop(columns=[f"label_{kind}" for kind in KINDS]).assign(label=label.astype("str"))
        if unknown:
            table["label"] = table["label"].mask(blank)
    meta = phantoms.meta.model_copy(update={"task": task, "classes": classes, "split": None})
    manifest = replace(phantoms, table=table.assign(split=None), meta=meta)
    return make_split(manifest, {"train": 0.6, "val": 0.25, "test": 0.15}, seed=seed)


def images_of(pixels: np.ndarray, targets: np.ndarray) -> LabelledImages:
    """Arrays in memory as labelled images: (N, H, W) in [0, 1] and (N, outputs)."""
    count = len(pixels)
    names = [f"{number:03d}" for number in range(count)]
    table = pd.DataFrame({"path": [f"{name}.png" for name in names], "patient": names, "study": names})
    stored = np.rint(pixels * 65535).astype(np.uint16)
    return LabelledImages(table, stored, targets.astype(np.float32), tuple(names))


def blobs(count: int, side: int = 32, outputs: int = 1, seed: int = 0) -> LabelledImages:
    """Noise in which a positive of output k has a bright square in corner k: easy to learn."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0.0, 0.5, (count, side, side))
    targets = np.zeros((count, outputs))
    for output in range(outputs):
        targets[:, output] = np.arange(count) % (output + 2) == 0
        top, left = (side // 2) * (output // 2), (side // 2) * (output % 2)
        pixels[targets[:, output] == 1, top : top + side // 3, left : left + side // 3] += 0.5
    return images_of(pixels.clip(0, 1), targets)


def meta_of(task: Task, classes: tuple[str, ...]) -> DatasetMeta:
    """Meta data of a set without files."""
    return DatasetMeta(name="small", task=task, classes=classes)


def copied(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with its images copied below ``folder``, so that a test may harm them."""
    for path in manifest.table["path"]:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(manifest.path_of(path).read_bytes())
    return replace(manifest, folder=folder)


def organ_films(folder: Path, count: int = 24) -> Manifest:
    """Phantoms with masks of the lungs, of each lung and of the heart, split by patient."""
    return make_dataset(folder, DatasetPlan(count, format="png", size_px=SIDE_PX))


def tiny_organs(**changes: Any) -> SegmentConfig:
    """The smallest run of a segmenter that learns something: 64 px, two epochs, no augmentation."""
    settings: dict[str, Any] = {
        "image_size": SIDE_PX,
        "epochs": 2,
        "batch_size": 4,
        "augment": "none",
        "averaging": 0.5,
        "threads": 1,
        "tensorboard": False,
    }
    return SegmentConfig(**{**settings, **changes})


def with_masks_copied(manifest: Manifest, folder: Path) -> Manifest:
    """The whole data set below ``folder``, so that a test may harm its files."""
    shutil.copytree(manifest.folder, folder)
    return replace(manifest, folder=folder, table=manifest.table.copy())
