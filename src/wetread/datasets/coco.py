"""A COCO instances file as it was written: images, categories and annotations, and what they must agree on.

The format is that of https://cocodataset.org/#format-data. Nothing is drawn here: :mod:`.mask_coco` makes masks of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wetread.datasets.mask_raster import SHOWN, mask_bytes
from wetread.errors import DatasetRefused, expected

__all__ = ["Annotation", "Category", "Coco", "ListedImage", "RunLengths", "boxes_of", "path_below", "read_coco"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXPORT_AGAIN = "export it again as COCO instances with images, categories and annotations"


class RunLengths(BaseModel):
    """A mask as run lengths in pixels, down the columns; ``size`` is (rows, columns), ``counts`` may be COCO's text."""

    size: tuple[int, int]
    counts: list[int] | str


class ListedImage(BaseModel):
    """An image as it is listed, with its size in pixels; other keys of the entry are in ``model_extra``."""

    model_config = ConfigDict(extra="allow")

    id: int
    file_name: str = Field(min_length=1)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Category(BaseModel):
    """What can be annotated."""

    id: int
    name: str


class Annotation(BaseModel):
    """One annotated thing: an outline (polygons of x, y, x, y ... or run lengths), a box, or both.

    ``bbox`` is left, top, width and height in pixels; None or empty where there is none.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    image_id: int
    category_id: int
    segmentation: list[list[float]] | RunLengths | None = None
    bbox: list[float] | None = None


class Coco(BaseModel):
    """The whole file. ``licenses`` is kept as it is: many files have something else there."""

    images: list[ListedImage]
    categories: list[Category]
    annotations: list[Annotation]
    licenses: Any = None

    def category_ids(self, name: str, file_name: str) -> set[int]:
        """Ids of the categories of that name; case does not matter.

        Raises:
            DatasetRefused: no such category; names those there are.
        """
        found = {c.id for c in self.categories if c.name.casefold() == name.casefold()}
        if not found:
            there = ", ".join(f"'{c.name}'" for c in self.categories[:SHOWN]) or "none"
            raise DatasetRefused(expected(f"a category '{name}'", f"{there} in {file_name}", "name one of those"))
        return found

    def with_paths(self, file_name: str) -> Self:
        """The same with plain relative file names, each once; ``file_name`` is that of the JSON, for messages.

        Raises:
            DatasetRefused: an image name that leads out of its folder, or two that are the same file.
        """
        named = [one.model_copy(update={"file_name": path_below(one.file_name).as_posix()}) for one in self.images]
        _require_unique(named, file_name)
        return self.model_copy(update={"images": named})


def read_coco(path: Path) -> Coco:
    """Read a COCO instances file.

    Args:
        path: The JSON file.

    Raises:
        DatasetRefused: no such file, not such JSON, a repeated image, or an annotation of an image or a category
            that is not listed.
        ImageRefused: an empty file (OverBudget: above the memory budget).
    """
    data = mask_bytes(path, "a COCO file").removeprefix(_BYTE_ORDER_MARK)
    try:
        coco = Coco.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DatasetRefused(expected("a COCO file", f"in {where}: {first['msg']}", _EXPORT_AGAIN)) from None
    _require_unique(coco.images, path.name)
    _require_listed(coco, path.name)
    return coco


def path_below(file_name: str) -> PurePosixPath:
    """The file name as a relative path, without ``.`` and doubled slashes.

    Raises:
        DatasetRefused: it is absolute, leads out of its folder, or has a backslash.
    """
    target = PurePosixPath(file_name)
    if target.is_absolute() or ".." in target.parts or "\\" in file_name or "\0" in file_name or not target.name:
        got = f"one that leads out of it or has a backslash: {file_name!r}"
        raise DatasetRefused(expected("image names below the folder", got, "rename the images"))
    return target


def boxes_of(coco: Coco, labels: Mapping[int, str], name: str) -> dict[str, list[dict[str, str | float]]]:
    """The boxes of each image, by its file name, as column ``boxes`` of a manifest holds them; cut at the edge.

    Args:
        coco: A file that was read.
        labels: Id of a category to what its boxes are called; others are left out.
        name: The file's name, for messages.

    Raises:
        DatasetRefused: not four numbers, or less than one pixel of the box lies on the image.
    """
    images = {image.id: image for image in coco.images}
    found: dict[str, list[dict[str, str | float]]] = defaultdict(list)
    for number, one in enumerate(coco.annotations):
        if one.category_id in labels and one.bbox:
            image = images[one.image_id]
            sides = _box_on(image, one.bbox, f"annotation {number} of {name}")
            found[image.file_name].append({"label": labels[one.category_id], **sides})
    return dict(found)


def _box_on(image: ListedImage, box: list[float], where: str) -> dict[str, float]:
    what, cure = "boxes of left, top, width and height in pixels", "export again"
    if len(box) != 4:
        raise DatasetRefused(expected(what, f"{len(box)} numbers in {where}", cure))
    left, top = max(0.0, box[0]), max(0.0, box[1])
    width = min(float(image.width), box[0] + box[2]) - left
    height = min(float(image.height), box[1] + box[3]) - top
    if min(width, height) < 1:
        got = f"less than a pixel of one on its image of {image.width} x {image.height} pixels in {where}"
        raise DatasetRefused(expected(what, got, "draw it again, or give pixels instead of shares"))
    return {"x": left, "y": top, "width": width, "height": height}


def _require_unique(images: list[ListedImage], name: str) -> None:
    ids, names = {one.id for one in images}, {one.file_name for one in images}
    if not len(ids) == len(names) == len(images):
        got = f"a repeated id or file_name in {name}"
        raise DatasetRefused(expected("each image once", got, "export again, or rename the images"))


def _require_listed(coco: Coco, name: str) -> None:
    images, categories = {one.id for one in coco.images}, {one.id for one in coco.categories}
    for number, one in enumerate(coco.annotations):
        if one.image_id not in images or one.category_id not in categories:
            what = "categories" if one.image_id in images else "images"
            got = f"annotation {number} of {name} of another"
            raise DatasetRefused(expected(f"annotations of listed {what}", got, "export again"))
