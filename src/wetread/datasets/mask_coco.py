"""Masks of COCO instances: polygons and run lengths of one JSON file for many images, drawn when asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PilImage

from wetread.datasets.coco import Coco, RunLengths, path_below, read_coco
from wetread.datasets.mask_raster import Mask
from wetread.errors import DatasetRefused, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES, require_budget
from wetread.provenance import atomic_folder

if TYPE_CHECKING:
    from wetread.datasets.coco import ListedImage

__all__ = ["CocoMasks", "coco_masks", "masks_of", "write_coco_masks", "write_mask"]


class CocoMasks(Mapping[str, Mask]):
    """The masks of one category by image file name; each is made when it is asked for.

    Images without an annotation of the category are absent: unknown, not empty.
    """

    def __init__(self, category: str, shapes: dict[str, _Shape]) -> None:
        self.category = category
        self._shapes = shapes

    def __getitem__(self, file_name: str) -> Mask:
        """Return bool (rows, columns): the union of the annotations of that image."""
        return self._shapes[file_name].mask()

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def coco_masks(path: Path, *, category: str) -> CocoMasks:
    """Read a COCO instances file: polygons, uncompressed and compressed run lengths.

    Everything of the category is checked at once, so that no mask fails later. Run lengths must
    cover the image exactly.

    Args:
        path: The JSON file.
        category: Name of the category; case does not matter.

    Raises:
        DatasetRefused: Not such a file, no such category, an unknown image, or an annotation that
            does not fit its image.
        OverBudget: An image whose mask would exceed the memory budget.
    """
    return masks_of(read_coco(path), category, path.name)


def masks_of(coco: Coco, category: str, name: str, *, without: Collection[int] = ()) -> CocoMasks:
    """The masks of one category of a file that was read; ``name`` is the file's, for messages.

    Images whose ids are in ``without`` are left out: unknown. Raises as :func:`coco_masks`.
    """
    wanted = coco.category_ids(category, name)
    images = {image.id: image for image in coco.images}
    shapes: dict[str, _Shape] = {}
    for number, annotation in enumerate(coco.annotations):
        if annotation.category_id in wanted and annotation.image_id not in without:
            image = images[annotation.image_id]
            shape = shapes.get(image.file_name) or shapes.setdefault(image.file_name, _Shape(image))
            shape.add(annotation.segmentation, f"annotation {number} of {name}")
    return CocoMasks(category, shapes)


def write_coco_masks(path: Path, folder: Path, *, category: str) -> dict[str, Path]:
    """Write the masks of a COCO file as 1-bit PNGs ``<image file name>.png`` into a new ``folder``.

    Returns the PNG of each image file name, to be put into a mask column; images without an
    annotation of the category are left out. All files or none are written. Raises as
    :func:`coco_masks`, DatasetRefused for an image name that leads out of ``folder``, and
    UsageError where ``folder`` exists.
    """
    masks = coco_masks(path, category=category)
    targets = {name: f"{path_below(name)}.png" for name in masks}
    with atomic_folder(folder, failure=DatasetRefused) as part:
        for name, target in targets.items():
            write_mask(masks[name], part / target)
    return {name: folder / target for name, target in targets.items()}


def write_mask(mask: Mask, target: Path) -> None:
    """Write bool (rows, columns) as a 1-bit PNG; folders on the way are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(mask).save(target, compress_level=3)


class _Shape:
    """What is annotated on one image, checked.

    pycocotools turns polygons into run lengths, but its decoder is not used: it hands back
    uninitialised memory for run lengths that are too short.
    """

    def __init__(self, image: ListedImage) -> None:
        self.rows, self.columns = image.height, image.width
        name = Path(image.file_name).name
        size = (self.rows, self.columns)
        require_budget(name, size, samples=1, frames=1, bits=8, budget_bytes=DEFAULT_BUDGET_BYTES)
        self.polygons: list[list[float]] = []
        self.runs: list[list[int]] = []

    def add(self, segmentation: list[list[float]] | RunLengths | None, where: str) -> None:
        """Check one annotation and take it in."""
        if isinstance(segmentation, RunLengths):
            self.runs.append(self._checked(segmentation, where))
        elif segmentation:
            for polygon in segmentation:
                self._require_polygon(polygon, where)
            self.polygons += segmentation
        else:
            raise DatasetRefused(expected("a polygon or run lengths", f"only a box in {where}", "annotate an outline"))

    def mask(self) -> Mask:
        """Return bool (rows, columns): the union of all parts."""
        whole = np.zeros((self.rows, self.columns), np.bool_)
        for runs in (*self.runs, *self._drawn()):
            inside = np.arange(len(runs)) % 2 == 1
            whole |= np.repeat(inside, runs).reshape(self.columns, self.rows).T  # runs go down the columns
        return whole

    def _drawn(self) -> list[list[int]]:
        from pycocotools import mask as coco

        found = coco.frPyObjects(self.polygons, self.rows, self.columns) if self.polygons else []
        return [_uncompressed(rle["counts"].decode("ascii")) for rle in found]

    def _checked(self, rle: RunLengths, where: str) -> list[int]:
        if rle.size != (self.rows, self.columns):
            what = f"run lengths of an image of {self.columns} x {self.rows} pixels"
            got = f"{rle.size[1]} x {rle.size[0]} in {where}"
            raise DatasetRefused(expected(what, got, "export again with the images as they are"))
        runs = _uncompressed(rle.counts) if isinstance(rle.counts, str) else rle.counts
        if not runs or min(runs) < 0 or sum(runs) != self.rows * self.columns:
            what = f"run lengths that add up to {self.rows * self.columns} pixels"
            raise DatasetRefused(expected(what, f"{sum(runs)} in {where}", "the export is damaged: export again"))
        return runs

    def _require_polygon(self, polygon: list[float], where: str) -> None:
        """Points may stray past the edge, but pycocotools walks every pixel between them."""
        x, y = polygon[0::2], polygon[1::2]
        if len(polygon) < 6 or len(polygon) % 2:
            what, got = "polygons of at least three points x, y", f"{len(polygon)} numbers in {where}"
            raise DatasetRefused(expected(what, got, "draw it again"))
        for values, side in ((x, self.columns), (y, self.rows)):
            if min(values) < -side or max(values) > 2 * side:
                what = f"polygons on an image of {self.columns} x {self.rows} pixels"
                cure = "give coordinates in pixels of this image"
                raise DatasetRefused(expected(what, f"points far outside in {where}", cure))


def _uncompressed(text: str) -> list[int]:
    """Run lengths of COCO's text: 5 bits a character from '0', low first, differences from the third on.

    Empty where the text is none of that.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > 35:
            return []
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return [] if shift else runs
