"""How well a segmenter's masks lie on annotated ones: one row for each image and organ, and their means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import mask_column
from wetread.errors import DatasetRefused, expected
from wetread.evaluation.overlap import dice, iou, summarise, surface_distances
from wetread.models.card import MetricRow
from wetread.models.organs import Segmenter
from wetread.runtime import in_order
from wetread.training.data import Progress
from wetread.training.segment_data import annotated_rows, load_annotated
from wetread.types import Estimate

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["OVERLAPS", "mean_overlaps", "overlap_rows", "patients_of", "score_images"]

OVERLAPS = ("dice", "iou", "hd95", "average_distance")
"""Columns of the table of scores. Distances are in ``unit``: mm where the file states a spacing, else px."""


def score_images(
    segmenter: Segmenter,
    manifest: Manifest,
    table: pd.DataFrame,
    progress: Progress | None = None,
    *,
    look: Callable[[str, NDArray[np.bool_]], tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Segment the annotated images of ``table``, each at its own size, and compare with its masks.

    ``look`` says what is odd about the found mask of an organ; the column ``flags`` joins it with commas.

    Columns: ``path, patient, flags, organ, dice, iou, hd95, average_distance, unit, found_px, annotated_px``. One is
    missing where it is undefined: both masks empty, or for distances one of them.

    Raises:
        DatasetRefused: no image of the table has a mask of these organs, or one cannot be read.
    """
    import pandas as pd

    there = [organ for organ in segmenter.organs if _has_masks(manifest, table, organ)]
    if not there:
        cure = "import the masks with the data set, or choose another segmenter"
        raise DatasetRefused(expected(f"images with masks of {', '.join(segmenter.organs)}", "none", cure))
    rows = annotated_rows(manifest.with_table(table), tuple(there))
    records: list[dict[str, object]] = []
    loaded = in_order(
        lambda row: (row, *load_annotated(manifest, row, tuple(there))), (row for _, row in rows.iterrows())
    )
    for done, (row, image, masks) in enumerate(loaded, 1):
        found = segmenter.masks(image)
        facts = {"path": str(row["path"]), "patient": row["patient"]}
        for organ, wanted in masks.items():
            if wanted is not None:
                flags = ", ".join(look(organ, found[organ])) if look else ""
                records.append(
                    facts | {"flags": flags} | overlap_rows(organ, found[organ], wanted, image.facts.spacing_mm)
                )
        if progress:
            progress("segmenting", done, len(rows))
    return pd.DataFrame(records)


def _has_masks(manifest: Manifest, table: pd.DataFrame, organ: str) -> bool:
    column = mask_column(organ, manifest)
    return column is not None and bool(table[column].notna().any())


def overlap_rows(
    organ: str, found: NDArray[np.bool_], wanted: NDArray[np.bool_], spacing_mm: tuple[float, float] | None
) -> dict[str, object]:
    """The scores of one organ of one image."""
    distances = surface_distances(found, wanted, spacing_mm)
    return {
        "organ": organ,
        "dice": dice(found, wanted),
        "iou": iou(found, wanted),
        "hd95": distances.hd95 if distances else None,
        "average_distance": distances.average if distances else None,
        "unit": "px" if spacing_mm is None else "mm",
        "found_px": int(found.sum()),
        "annotated_px": int(wanted.sum()),
    }


def mean_overlaps(scores: pd.DataFrame, split: str, seed: int = 0) -> tuple[MetricRow, ...]:
    """Mean of each score for each organ, with a patient-clustered bootstrap interval.

    Distances are averaged within one unit at a time: millimetres and pixels do not mix.
    """
    rows = []
    for organ in dict.fromkeys(scores["organ"]):
        of_organ = scores[scores["organ"] == organ]
        for score in OVERLAPS:
            distance = score in ("hd95", "average_distance")
            units = sorted(set(of_organ["unit"])) if distance else [None]
            for unit in units:
                part = of_organ if unit is None else of_organ[of_organ["unit"] == unit]
                name = f"{score} {organ}" + (f" ({unit})" if unit else "")
                rows.append(MetricRow(name=name, split=split, estimate=_mean(part, score, seed)))
    return tuple(rows)


def _mean(part: pd.DataFrame, score: str, seed: int) -> Estimate:
    values = [None if value != value or value is None else float(value) for value in part[score]]  # NaN is not itself
    return summarise(values, patients_of(part), seed)


def patients_of(scores: pd.DataFrame) -> list[str]:
    """Whose image each row is; one without a patient counts as a patient of its own."""
    known = scores["patient"].notna()
    pairs = zip(known, scores["patient"], scores["path"], strict=True)
    return [str(patient if there else path) for there, patient, path in pairs]
