"""Large images cut into bags of tiles: tissue is kept, glass and borders are left out, and every place is remembered.

Tiles are written as 8-bit luminance, which is what readers see. ``tiles.json`` beside them says where each lies, so
that the weights a reader gives can be laid over the whole image again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.imaging.slide import open_slide
from wetread.provenance import atomic_folder, file_sha256

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PLACES", "TilePlan", "cut_tiles", "read_places", "tissue_share", "weight_map"]

PLACES = "tiles.json"
FOLDER = "tiles"
_SATURATED, _DARK, _BLACK = 0.07, 0.82, 0.04
"""Saturation of stained tissue, luminance below which grey counts as tissue, and black of borders and pen."""
_KEPT = ("patient", "label", "split", "source", "body_part", "laterality", "sex", "age", "licence")


@dataclass(frozen=True)
class TilePlan:
    """Square tiles of ``size_px`` pixels of the full resolution, ``step_px`` apart (0: side by side).

    A tile is kept where at least a share ``tissue`` (0-1) of its pixels is tissue. ``most``: tiles of one image at
    most, 0 for all; those with most tissue are kept.
    """

    size_px: int = 256
    step_px: int = 0
    tissue: float = 0.25
    most: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 4096:
            raise UsageError(expected("tiles of 16 to 4096 pixels", self.size_px, "set --tiles in that range"))
        if not 0 <= self.tissue <= 1:
            raise UsageError(expected("a tissue share from 0 to 1", self.tissue, "set --tissue in that range"))
        if self.step_px < 0 or self.most < 0:
            raise UsageError(expected("a step and a number of 0 or more", min(self.step_px, self.most), "raise it"))

    @property
    def step(self) -> int:
        """Pixels between the corners of neighbouring tiles."""
        return self.step_px or self.size_px


@dataclass(frozen=True)
class _Tile:
    x: int
    y: int
    share: float
    pixels: NDArray[np.uint8]


def tissue_share(pixels: NDArray[np.uint8]) -> float:
    """Share (0-1) of tissue in uint8 (rows, columns, 1 or 3): coloured or darker than glass, and not black."""
    values = pixels.astype(np.float32) / 255
    bright = values.mean(-1)
    found = (bright < _DARK) & (bright > _BLACK)
    if values.shape[-1] == 3:
        high = values.max(-1)
        saturation = (high - values.min(-1)) / np.maximum(high, 1e-6)
        found |= (saturation > _SATURATED) & (bright > _BLACK)
    return float(found.mean())


def cut_tiles(
    manifest: Manifest,
    folder: Path,
    plan: TilePlan,
    progress: Callable[[int, int], None] | None = None,
    *,
    replace: bool = False,
) -> Manifest:
    """Cut every image of ``manifest`` into tiles below ``folder`` and return the manifest of the tiles.

    A study of the new manifest is one image of the old one; its columns go to each of its tiles. ``replace`` puts them
    in place of tiles that were cut before.

    Raises:
        ImageRefused: an image that cannot be read.
        DatasetRefused: an image without tissue.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    with atomic_folder(folder / FOLDER, replace=replace, failure=DatasetRefused) as part:
        for number, (_, row) in enumerate(manifest.table.iterrows(), 1):
            name = f"{number:04d}-" + re.sub(r"[^A-Za-z0-9._-]+", "_", Path(str(row["path"])).stem)[:60]
            rows += _cut(manifest, row, part / name, plan)
            if progress:
                progress(number, len(manifest.table))
    meta = manifest.meta.model_copy(
        update={"root": str((folder / FOLDER).resolve()), "mask_root": None, "split": None, "allowed_flips": ()}
    )
    return Manifest(pd.DataFrame(rows), meta, folder)


def _cut(manifest: Manifest, row: pd.Series[Any], folder: Path, plan: TilePlan) -> list[dict[str, Any]]:
    from PIL import Image

    path = manifest.path_of(str(row["path"]))
    with open_slide(path) as slide:
        tiles = _tiles(slide, plan)
        size = slide.size
    if not tiles:
        cure = "lower --tissue, take smaller --tiles, or leave the image out"
        got = f"none in {path.name} of {size[1]} x {size[0]} pixels"
        raise DatasetRefused(expected(f"a tile with {plan.tissue:.0%} tissue", got, cure))
    folder.mkdir(parents=True)
    places, rows = {}, []
    kept = {name: row[name] for name in _KEPT if name in row.index}
    kept |= {name: row[name] for name in row.index if str(name).startswith("label_")}
    for tile in tiles:
        file = folder / f"x{tile.x:06d}-y{tile.y:06d}.png"
        Image.fromarray(_luminance(tile.pixels)).save(file, compress_level=3)
        places[file.name] = [tile.x, tile.y]
        relative = f"{folder.name}/{file.name}"
        known = {"path": relative, "study": folder.name, "series": str(row["path"]), "sha256": file_sha256(file)}
        rows.append(kept | known | {"tile_x": tile.x, "tile_y": tile.y, "tissue": round(tile.share, 4)})
    about = {"image": path.name, "rows": size[0], "columns": size[1], "tile_px": plan.size_px, "tiles": places}
    (folder / PLACES).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return rows


def _tiles(slide: Any, plan: TilePlan) -> list[_Tile]:
    """The tiles with tissue, row by row; only whole tiles are cut. One band of the image is held at a time."""
    found: list[_Tile] = []
    for top in range(0, slide.size[0] - plan.size_px + 1, plan.step):
        band = slide.band(top, plan.size_px)
        for left in range(0, slide.size[1] - plan.size_px + 1, plan.step):
            pixels = band[:, left : left + plan.size_px]
            share = tissue_share(pixels)
            if share >= plan.tissue:
                found.append(_Tile(left, top, share, pixels.copy()))
    if plan.most and len(found) > plan.most:
        best = sorted(found, key=lambda tile: -tile.share)[: plan.most]
        found = sorted(best, key=lambda tile: (tile.y, tile.x))
    return found


def _luminance(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rec. 601 luminance of uint8 (rows, columns, 1 or 3)."""
    if pixels.shape[-1] == 1:
        return np.ascontiguousarray(pixels[..., 0])
    grey: NDArray[np.uint8] = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return grey


def read_places(folder: Path) -> dict[str, Any] | None:
    """Return what ``tiles.json`` of a folder of tiles says, or None where there is none."""
    file = folder / PLACES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def weight_map(places: Mapping[str, Any], weights: Mapping[str, float], longest_px: int = 1024) -> NDArray[np.float32]:
    """Lay the weights of tiles over the whole image: float32 in [0, 1], long side at most ``longest_px``.

    ``places``: as :func:`read_places` gives. 1 is the highest weight; overlapping tiles give their mean; what was not
    cut, or not looked at, is 0.
    """
    rows, columns, size = int(places["rows"]), int(places["columns"]), int(places["tile_px"])
    scale = min(1.0, longest_px / max(rows, columns))
    shape = max(1, round(rows * scale)), max(1, round(columns * scale))
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for name, weight in weights.items():
        x, y = places["tiles"][name]
        part = (
            slice(int(y * scale), max(int(y * scale) + 1, round((y + size) * scale))),
            slice(int(x * scale), max(int(x * scale) + 1, round((x + size) * scale))),
        )
        total[part] += weight
        count[part] += 1
    found = np.divide(total, count, out=np.zeros(shape, np.float32), where=count > 0)
    return found / found.max() if found.max() > 0 else found
