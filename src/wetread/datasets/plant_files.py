"""The files of a planted data set: each image with what is planted into it, and masks where sizes change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import load_masks
from wetread.datasets.plant_edits import Mask, Pixels, edited, jpeg_quality
from wetread.datasets.plant_spec import PlantSpec, generator_of
from wetread.errors import DatasetRefused, expected
from wetread.imaging import load_image
from wetread.imaging.sniff import kind_of
from wetread.imaging.transforms import percentile_limits
from wetread.provenance import file_sha256

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["image_names", "write_image"]

_IMAGES, _MASKS = "images", "masks"
_WIDE_SHARE = 0.26
"""A 16-bit picture that fills less than a quarter of its range is stretched by readers, ours too; with a margin."""
_PNG_LEVEL = 3
"""Compression: at 6 a film takes three times as long and is 3 % smaller."""


def image_names(paths: Sequence[str], suffix: str) -> list[str]:
    """A new path ``images/...`` for each path of a table: the same tree, all of one suffix, none twice."""
    names: list[str] = []
    taken: set[str] = set()
    for number, path in enumerate(paths):
        parts = [p for p in PurePosixPath(path.replace("\\", "/")).parts if p not in ("..", "/", ".")]
        own = PurePosixPath(_IMAGES, *(parts[1:] if len(parts) > 1 and parts[0] == _IMAGES else parts))
        tries = (own.with_suffix(suffix), own.with_name(own.name + suffix), PurePosixPath(_IMAGES, f"{number}{suffix}"))
        name = next(str(t) for t in tries if str(t).casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def write_image(
    manifest: Manifest, row: pd.Series, spec: PlantSpec, place: tuple[Path, str], *, carries: bool
) -> dict[str, Any]:
    """Write one image to ``place`` (the new folder and the path in it); return the cells of its row that changed.

    ``carries``: the edit of ``spec`` is applied, else the pixels stay. PNG of 8 bits, or of 16 where the original
    has more bits and its grey values span at least a quarter of the range (a narrower span would be stretched when
    it is read); JPEG for kind ``jpeg``. Boxes, spacing and masks follow where the size changes.
    """
    image, file = load_image(manifest.path_of(row)), place[0] / place[1]
    before, spacing = image.pixels, image.facts.spacing_mm
    after = before
    if carries and spec.kind != "jpeg":
        rng = generator_of(spec, str(row["path"]))
        mask = _mask(manifest, row, spec, before.shape)
        after = edited(spec.kind, before, spec.strength, rng, mask=mask, keep_size=spec.keep_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    if spec.kind == "jpeg":
        bits = _write_jpeg(after, file, jpeg_quality(spec.strength if carries else 0.0))
    else:
        bits = _write_png(after, file, image.facts.bits)
    cells = {
        "sha256": file_sha256(file),
        "width": after.shape[1],
        "height": after.shape[0],
        "bits": bits,
        "spacing_mm": _spacing(row["spacing_mm"], spacing, before.shape, after.shape),
        "boxes": _boxes(row["boxes"], before.shape, after.shape),
    }
    return cells | (_masks(manifest, row, place, after.shape) if spec.resizes else {})


def _mask(manifest: Manifest, row: pd.Series, spec: PlantSpec, shape: tuple[int, ...]) -> Mask | None:
    if not spec.needs_mask:
        return None
    mask = load_masks(manifest, row, [spec.organ], shape[0], shape[1])[spec.organ]
    if mask is None or not mask.any():
        cure = "leave that image out of the table, or mend its mask"
        raise DatasetRefused(expected(f"a mask with {spec.organ} in it", f"an empty one of {row['path']}", cure))
    return mask


def _write_jpeg(pixels: Pixels, file: Path, quality: int) -> int:
    PilImage.fromarray(_levels(pixels, np.uint8)).save(file, "JPEG", quality=quality)
    return 8


def _write_png(pixels: Pixels, file: Path, bits: int) -> int:
    """Write a PNG; return its bits: 8 or 16."""
    levels = _levels(pixels, np.uint16 if bits > 8 else np.uint8)
    if bits > 8 and not _is_wide(levels):
        levels = _levels(pixels, np.uint8)
    PilImage.fromarray(levels).save(file, compress_level=_PNG_LEVEL)
    return 8 * levels.itemsize


def _levels(pixels: Pixels, kind: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    levels: NDArray[Any] = np.rint(pixels * np.float32(np.iinfo(kind).max)).astype(kind)
    return levels


def _is_wide(levels: NDArray[np.uint16]) -> bool:
    counts = np.bincount(levels.ravel(), minlength=1 << 16)
    low, high = percentile_limits(counts, np.arange(1 << 16, dtype=np.float64))
    return high - low >= _WIDE_SHARE * 65535


def _spacing(
    cell: Any, found: tuple[float, float] | None, before: tuple[int, ...], after: tuple[int, ...]
) -> str | None:
    """Row and column spacing in mm, of the table or else of the file, for the size that the image has now."""
    if isinstance(cell, str) and before == after:
        return cell
    known = tuple(float(v) for v in cell.split(",")) if isinstance(cell, str) else found
    if known is None:
        return None
    return ",".join(f"{known[axis] * before[axis] / after[axis]:.6g}" for axis in (0, 1))


def _boxes(cell: Any, before: tuple[int, ...], after: tuple[int, ...]) -> str | None:
    if not isinstance(cell, str):
        return None
    if before == after:
        return cell
    down, across = after[0] / before[0], after[1] / before[1]
    scales = {"x": across, "width": across, "y": down, "height": down}
    boxes = [{k: round(v * scales[k], 3) if k in scales else v for k, v in box.items()} for box in json.loads(cell)]
    return json.dumps(boxes)


def _masks(
    manifest: Manifest, row: pd.Series, place: tuple[Path, str], shape: tuple[int, ...]
) -> dict[str, str | None]:
    """Write each mask of a row beside the new images, in the size of its image; return the new cells."""
    cells: dict[str, str | None] = {}
    for column in (str(c) for c in manifest.table.columns if c == "mask" or str(c).startswith("mask_")):
        value = cells[column] = row[column]
        if isinstance(value, str) and value.strip():
            name = Path(_MASKS, column, f"{place[1].removeprefix(_IMAGES + '/')}.png")
            _write_mask(manifest.mask_path_of(value), place[0] / name, shape)
            cells[column] = name.as_posix()
    return cells


def _write_mask(source: Path, file: Path, shape: tuple[int, ...]) -> None:
    """Scale a raster mask by nearest neighbour: values and palette stay, none is mixed."""
    try:
        data = source.read_bytes()
        if kind_of(data) not in ("PNG", "TIFF"):
            raise ValueError("no raster mask")
        with PilImage.open(source) as picture:
            if picture.mode not in ("1", "L", "P", "I;16"):
                raise ValueError(picture.mode)
            scaled = picture.resize((shape[1], shape[0]), PilImage.Resampling.NEAREST)
            if kind_of(data) == "PNG" and picture.mode == "L" and data[24] < 8:
                levels = 255 // ((1 << data[24]) - 1)  # Pillow stretches 2 and 4 bits: back to what is stored
                scaled = scaled.point([value // levels for value in range(256)])
    except (OSError, ValueError, SyntaxError) as error:
        got, cure = f"another kind in {source.name}", "keep the size of the images: --keep-size"
        raise DatasetRefused(expected("a mask as PNG or TIFF of one channel", got, cure)) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    scaled.save(file, compress_level=_PNG_LEVEL)
