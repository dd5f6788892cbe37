"""The views that probes are given of a sample: all of the image, what lies outside the organ, the frame, the outline.

Decided here: what *outside the organ* means. The same area is hidden in all images: where the organ, widened, lies in
more than :data:`COMMON` of them; otherwise the shape of what was hidden would itself tell the label. Where an organ
reaches beyond that area, the cells that it touches are hidden too, and take the values of another image drawn at
random: a mean or a blank would show where the organ is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.audit.features import CELLS, GRID, TEXTURES, cell_share
from wetread.audit.material import FACTS, Material
from wetread.models.guide import widened

__all__ = [
    "COMMON",
    "FEWEST_CELLS",
    "Hidden",
    "background_views",
    "fact_views",
    "frame_views",
    "full_views",
    "hidden_area",
    "outline_views",
]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

COMMON = 0.1
"""Share of the images in which a pixel must show the (widened) organ to be hidden in all."""
FEWEST_CELLS = 12
"""Cells that must be left (of 256): else there is next to nothing outside the organ."""
FRAME = 6
"""Width of the frame in pixels of the grid: the outer 5 % of the image."""
_PARTLY = 0.1
"""Share of a cell that may be hidden in all images."""
_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
_DETAILS = {
    "grey": ("mean",),
    "texture": ("edges", "grain", "sharpness", "blocks"),
    "extremes": ("lightest", "darkest", "strokes"),
}
"""Textures that make a view of their own, cell by cell."""


@dataclass(frozen=True)
class Hidden:
    """What is hidden of each image.

    ``area``: bool (GRID, GRID), in all images. ``cells``: bool (CELLS, CELLS), the cells that are shown. ``also``: bool
    (N, CELLS, CELLS), cells outside the area that the image's own organ touches.
    """

    area: Mask
    cells: Mask
    also: Mask

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Hidden:
        """The same for some of the images."""
        return Hidden(self.area, self.cells, self.also[index])

    @property
    def share(self) -> float:
        """Share of the image that is hidden in all images."""
        return float(self.area.mean())


def hidden_area(material: Material) -> Hidden | None:
    """What has to be hidden so that the organ cannot be seen.

    None where nobody knows where the organ is, and where fewer than :data:`FEWEST_CELLS` would be left.
    """
    if material.masks is None or not material.masks.any():
        return None
    wide = np.stack([widened(mask, material.margin) for mask in material.masks])
    drawn = wide.any(axis=(1, 2))
    area = wide[drawn].mean(axis=0) > COMMON
    cells = cell_share(area) <= _PARTLY
    return Hidden(area, cells, cell_share(wide) > 0) if cells.sum() >= FEWEST_CELLS else None


def background_views(material: Material, hidden: Hidden, seed: int = 0) -> dict[str, Floats]:
    """What lies outside the organ: grey values, texture and extremes of each cell shown, and summaries of them."""
    texture = _without(material.texture, hidden, seed)
    return _cell_views(texture, hidden.cells, "outside ") | _edge_views(texture, hidden.cells)


def full_views(material: Material, hidden: Hidden | None, around: dict[str, Floats]) -> dict[str, Floats]:
    """All of the image: the cells with the organ (all cells where it is not known) and what lies ``around`` it."""
    inside = np.ones((CELLS, CELLS), np.bool_) if hidden is None else ~hidden.cells
    return _cell_views(material.texture, inside, "inside ") | around


def frame_views(material: Material) -> dict[str, Floats]:
    """The outer 5 % of the image: grey values of its four sides in pieces of half its width."""
    grey = material.grey.astype(np.float32)
    sides = (grey[:, :FRAME], grey[:, ::-1][:, :FRAME], grey.transpose(0, 2, 1)[:, :FRAME],
             grey.transpose(0, 2, 1)[:, ::-1][:, :FRAME])  # fmt: skip
    pieces = [side.reshape(len(grey), 2, FRAME // 2, GRID // 4, 4).mean(axis=(2, 4)) for side in sides]
    return {"frame": np.stack(pieces, axis=1).reshape(len(grey), -1)}


def outline_views(material: Material) -> dict[str, Floats]:
    """The organ's outline alone: how much of each cell it covers, its size, extent and middle; empty without masks."""
    if material.masks is None:
        return {}
    masks = material.masks
    grid = (np.arange(GRID, dtype=np.float32) + np.float32(0.5)) / GRID
    measures = [masks.mean(axis=(1, 2), dtype=np.float32)]
    for axis in (1, 2):
        across = masks.mean(axis=axis, dtype=np.float32)  # share of each column (axis 1) or row (axis 2)
        total = np.maximum(across.sum(axis=1), 1e-6)
        middle = (across * grid).sum(axis=1) / total
        spread = np.sqrt(np.maximum((across * (grid - middle[:, None]) ** 2).sum(axis=1) / total, 0))
        measures += [middle, spread, (across > 0).mean(axis=1, dtype=np.float32)]
    return {
        "outline": cell_share(masks).reshape(len(masks), -1),
        "outline size": np.stack(measures, axis=1).astype(np.float32),
    }


def fact_views(material: Material, *, content: bool) -> dict[str, Floats]:
    """Facts of the file; without ``content`` only those that do not depend on what the image shows."""
    size = [FACTS.index(name) for name in ("bytes", "bytes per pixel")]
    facts = material.facts.copy()
    facts[:, size] = np.log(np.maximum(facts[:, size], 1e-6))
    shape = np.log(np.maximum(facts[:, :1], 1) / np.maximum(facts[:, 1:2], 1))
    kinds = facts[:, FACTS.index("format"), None] == np.arange(7)
    columns = [facts[:, [i for i in range(len(FACTS)) if content or i not in size]], shape, kinds]
    return {"file": np.concatenate(columns, axis=1).astype(np.float32)}


def _without(texture: Floats, hidden: Hidden, seed: int) -> Floats:
    """The texture with the cells that are hidden in one image taken from another one, drawn at random."""
    rng = np.random.default_rng([seed, 7])
    filled = texture.copy()
    for row, column in zip(*np.nonzero(hidden.cells), strict=True):
        touched = hidden.also[:, row, column]
        donors = np.flatnonzero(~touched)
        if touched.any() and len(donors):
            filled[touched, row, column] = texture[rng.choice(donors, int(touched.sum())), row, column]
    return filled


def _cell_views(texture: Floats, cells: Mask, name: str) -> dict[str, Floats]:
    shown = texture[:, cells]  # (N, cells, textures)
    views = {
        name + view: shown[:, :, [TEXTURES.index(t) for t in textures]].reshape(len(shown), -1)
        for view, textures in _DETAILS.items()
    }
    parts = np.sort(shown, axis=1)
    at = [round(q * (parts.shape[1] - 1)) for q in _QUANTILES]
    moments = np.concatenate([shown.mean(axis=1), shown.std(axis=1)], axis=1)
    views[name + "summary"] = np.concatenate([parts[:, at].reshape(len(shown), -1), moments], axis=1)
    return views


def _edge_views(texture: Floats, cells: Mask) -> dict[str, Floats]:
    """Largest and mean texture of the cells shown at each of the four sides: letters may stand anywhere along one."""
    rows, columns = np.indices((CELLS, CELLS))
    sides = (rows < 2, rows >= CELLS - 2, columns < 2, columns >= CELLS - 2)
    views = []
    for side in sides:
        chosen = texture[:, cells & side]
        if chosen.shape[1]:
            views += [chosen.max(axis=1), chosen.mean(axis=1)]
    return {"outside sides": np.concatenate(views, axis=1)} if views else {}
