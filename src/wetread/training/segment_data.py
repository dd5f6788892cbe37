"""What a segmenter trains on: pixels with the masks of its organs, at the geometry of the input."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import load_masks, mask_column
from wetread.errors import DatasetRefused, ImageRefused, expected
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.inputs import fit_pixels
from wetread.runtime import in_order
from wetread.training.data import Progress
from wetread.types import Image, Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AnnotatedImages", "MaskCounts", "annotated_rows", "count_masks", "gather_masks", "load_annotated"]

_WHITE = 65535
Mask = NDArray[np.bool_]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedImages:
    """Rows of a manifest with pixels and masks.

    ``pixels``: uint16 (N, height, width). ``masks``: bool (N, organs, height, width). ``known``: bool (N, organs),
    False where the image has no mask of that organ, which says nothing about the organ. ``empty``: how many known
    masks hold no pixel at all.
    """

    table: pd.DataFrame
    pixels: NDArray[np.uint16]
    masks: Mask
    known: Mask
    empty: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: NDArray[np.intp]) -> AnnotatedImages:
        """The images at ``index``, in that order."""
        return AnnotatedImages(self.table.iloc[index], self.pixels[index], self.masks[index], self.known[index])


class MaskCounts(Record):
    """What a run was given: images that were ``used`` or left out as ``without_mask``, and ``masks`` of each organ."""

    used: int
    without_mask: int
    masks: dict[str, int]


def count_masks(manifest: Manifest, used: pd.DataFrame, organs: tuple[str, ...], *, folds: int) -> MaskCounts:
    """Count the images of the splits that a run takes its images from, of which ``used`` have a mask."""
    split = manifest.table["split"]
    offered = split.isin(("train", "val")) | (split.isna() if folds else False)
    masks = {organ: int(used[mask_column(organ, manifest)].notna().sum()) for organ in organs}
    return MaskCounts(used=len(used), without_mask=int(offered.sum()) - len(used), masks=masks)


def annotated_rows(manifest: Manifest, organs: tuple[str, ...]) -> pd.DataFrame:
    """The rows with a mask of at least one organ; the others are counted in the log, not trained on.

    Raises:
        DatasetRefused: an organ without a single mask; names the columns that there are.
    """
    table = manifest.table
    columns = {organ: mask_column(organ, manifest) for organ in organs}
    for organ, column in columns.items():
        if column is None or table[column].notna().sum() == 0:
            there = ", ".join(name for name in table.columns if name.startswith("mask")) or "none"
            cure = f"add a column mask_{organ}, or name another organ with --organs"
            raise DatasetRefused(expected(f"masks of {organ}", f"the mask columns {there}", cure))
    marked = table[[column for column in columns.values() if column]].notna().any(axis=1)
    if not marked.all():
        logger.warning("%d of %d images have no mask and are left out", int((~marked).sum()), len(table))
    return table[marked].reset_index(drop=True)


def load_annotated(manifest: Manifest, row: pd.Series, organs: tuple[str, ...]) -> tuple[Image, dict[str, Mask | None]]:
    """Read one image with its masks (rows, columns), None for an organ that nobody annotated.

    Raises:
        DatasetRefused: the image or a mask cannot be read, or their sizes differ.
    """
    path = manifest.path_of(row)
    try:
        image = load_image(path)
    except ImageRefused as error:
        cure = "run `wetread dataset check` and leave it out"
        raise DatasetRefused(expected("readable images", f"{path.name} ({error})", cure)) from error
    return image, load_masks(manifest, row, organs, *image.pixels.shape)


def gather_masks(
    manifest: Manifest,
    table: pd.DataFrame,
    organs: tuple[str, ...],
    spec: InputSpec,
    progress: Progress | None = None,
    *,
    exclusive: bool = False,
) -> AnnotatedImages:
    """Decode images and masks of ``table`` at the geometry of ``spec``; ``exclusive`` organs share no pixel.

    Raises:
        DatasetRefused: the first image or mask that cannot be read, exclusive masks that overlap, or no image
            that has masks of all exclusive organs.
    """
    shape = (spec.height, spec.width)
    pixels = np.zeros((len(table), *shape), np.uint16)
    masks = np.zeros((len(table), len(organs), *shape), np.bool_)
    known = np.zeros((len(table), len(organs)), np.bool_)
    rows = (row for _, row in table.iterrows())
    empty = 0
    for index, (image, found) in enumerate(_decoded(manifest, rows, organs)):
        if exclusive:
            _refuse_overlap(found, image.facts.name)
        pixels[index] = np.rint(fit_pixels(image.pixels, spec).clip(0, 1) * _WHITE)
        for channel, organ in enumerate(organs):
            mask = found[organ]
            if mask is not None:
                masks[index, channel] = fit_pixels(mask.astype(np.float32), spec) >= 0.5
                known[index, channel] = True
                empty += not mask.any()
        if exclusive:  # on a common border both can round up: the first organ keeps the pixel
            masks[index] &= masks[index].cumsum(0) == 1
        if progress:
            progress("decoding images and masks", index + 1, len(table))
    if exclusive:
        _require_whole(known, organs)
    if empty:
        logger.warning("%d masks are empty: taken as organs that are not there", empty)
    return AnnotatedImages(table, pixels, masks, known, empty)


def _refuse_overlap(masks: Mapping[str, Mask | None], name: str) -> None:
    drawn = [(organ, mask) for organ, mask in masks.items() if mask is not None]
    for (one, first), (other, second) in itertools.combinations(drawn, 2):
        if shared := int((first & second).sum()):
            cure = "mend the masks, or leave --exclusive out"
            got = f"{shared} shared by {one} and {other} in {name}"
            raise DatasetRefused(expected("exclusive masks without a common pixel", got, cure))


def _require_whole(known: Mask, organs: tuple[str, ...]) -> None:
    """Where one organ is unknown, so is the background: exclusive organs learn from whole annotations only."""
    partly = int((~known.all(1)).sum())
    if partly == len(known):
        cure = "draw all of them, or leave --exclusive out"
        raise DatasetRefused(expected(f"images with masks of all of {', '.join(organs)}", "none", cure))
    if partly:
        logger.warning("%d images lack a mask of some exclusive organ: nothing is learned from them", partly)


def _decoded(
    manifest: Manifest, rows: Iterator[pd.Series], organs: tuple[str, ...]
) -> Iterator[tuple[Image, dict[str, Mask | None]]]:
    return in_order(lambda row: load_annotated(manifest, row, organs), rows)
