"""Predictions of a reader for the images of a manifest: the table that ``evaluate`` works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.errors import DatasetRefused, SplitRefused, expected
from wetread.models.guide import Guide, Hidden
from wetread.models.predict import Reader
from wetread.training.data import LabelledImages, Progress, gather, labels_of, to_float
from wetread.training.finish import Judged, prediction_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict_manifest", "refuse_other_labels"]

_BATCH = 32


def predict_manifest(
    reader: Reader,
    manifest: Manifest,
    split: str | None = "test",
    *,
    views: int | None = None,
    hide: Guide | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return one row per image of ``split`` (None: all) with targets and calibrated probabilities.

    ``hide``: finds the organ that is painted over in every image before the reader sees it.

    Gated images keep their probability here and are marked ``gated``: an evaluation that left them
    out would be easier than the work.

    Raises:
        SplitRefused: the split leaks, or has no images.
        DatasetRefused: the task or the classes of the data set are not those of the reader.
    """
    assert_no_leak(manifest)
    refuse_other_labels(reader, manifest)
    table = manifest.table if split is None else manifest.table[manifest.table["split"] == split]
    if not len(table):
        raise SplitRefused(expected(f"images in the split {split!r}", "none", "name another --split"))
    guide = Hidden(hide, reader.guide) if hide else reader.guide
    images = gather(manifest, table.reset_index(drop=True), reader.input, cache, progress, guide=guide)
    return prediction_table(reader.card, manifest, _judge(reader, images, views, progress), split)


def refuse_other_labels(reader: Reader, manifest: Manifest) -> None:
    """Refuse a data set whose task or classes are not those of the reader.

    Raises:
        DatasetRefused: names both.
    """
    labels_of(manifest.meta)
    if manifest.meta.task != reader.card.task:
        raise DatasetRefused(
            expected(f"a {reader.card.task} data set", f"a {manifest.meta.task} one", "map the labels when importing")
        )
    if tuple(manifest.meta.classes) != tuple(reader.card.classes):
        raise DatasetRefused(
            expected(
                f"a data set with the reader's classes {', '.join(reader.card.classes)}",
                ", ".join(manifest.meta.classes),
                "map the labels when importing",
            )
        )


def _judge(reader: Reader, images: LabelledImages, views: int | None, progress: Progress | None) -> Judged:
    logits, distances = [], []
    for start in range(0, len(images), _BATCH):
        forward = reader.forward(to_float(images.pixels[start : start + _BATCH]), views)
        logits.append(forward.logits.numpy())
        apart = reader.distances(forward)
        if apart is not None:
            distances.append(apart)
        if progress:
            progress("reading images", min(start + _BATCH, len(images)), len(images))
    return Judged(
        images.table,
        np.concatenate(logits),
        images.targets,
        images.patients,
        np.concatenate(distances) if distances else None,
    )
