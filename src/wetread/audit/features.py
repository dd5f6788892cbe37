"""What a probe is given of an image: grey values on a fixed grid, and the texture of each cell at native resolution.

Decided here: one decoding gives both. The texture is measured in windows of :data:`CELLS` x :data:`CELLS` cells
that start on the 8-pixel grid of JPEG, at the resolution of the file, because resampling would hide exactly what gives
a scanner or a file format away. A window reaches into its neighbours by at most a quarter of a cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = ["CELLS", "GRID", "TEXTURES", "cell_share", "on_grid", "texture_of"]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

GRID = 128
"""Side of the grid that grey values and masks are kept on, pixels; images are stretched to it."""
CELLS = 16
"""Cells along each side: 8 pixels of the grid each."""
TEXTURES = ("mean", "spread", "lightest", "darkest", "edges", "grain", "sharpness", "blocks", "strokes")
"""What is measured in each cell; see :func:`texture_of`."""
_SMALLEST, _LARGEST = 12, 32
"""Sides of a window in pixels: below, edges and blocks cannot be told; above, nothing is gained."""
_BLOCK = 8
"""JPEG compresses blocks of 8 x 8 pixels (ITU-T T.81 A.3)."""
_STROKE_SIDE, _STROKE = 256, 5
"""Letters and markers are looked for at most at 256 pixels along the longer side, as bright lines under 5 wide."""
_FLOOR = 1e-4
"""Added before a logarithm: a fortieth of a step of 8 bits."""


def on_grid(pixels: Pixels) -> NDArray[np.uint8]:
    """Stretch float32 (rows, columns) in [0, 1] to uint8 (GRID, GRID), averaged where it shrinks."""
    picture = PilImage.fromarray(np.ascontiguousarray(pixels, np.float32))
    small = np.asarray(picture.resize((GRID, GRID), PilImage.Resampling.BILINEAR), np.float32)
    return np.asarray(np.rint(np.clip(small, 0, 1) * np.float32(255)), np.uint8)


def cell_share(mask: Mask) -> Pixels:
    """Share of each cell that the mask covers: bool (..., GRID, GRID) to float32 (..., CELLS, CELLS)."""
    side = GRID // CELLS
    shape = (*mask.shape[:-2], CELLS, side, CELLS, side)
    return np.asarray(mask.reshape(shape).mean(axis=(-3, -1)), np.float32)


def texture_of(pixels: Pixels) -> Pixels:
    """Measure the texture of each cell at native resolution: float32 (CELLS, CELLS, len(TEXTURES)).

    ``mean``, ``spread`` (standard deviation), ``lightest`` and ``darkest`` in grey values [0, 1]. ``edges``: natural
    logarithm of the mean absolute difference of neighbours. ``grain``: the same of the noise that Immerkaer's
    mask leaves, which cancels edges (Immerkaer 1996, doi 10.1006/cviu.1996.0060). ``sharpness``: logarithm of the ratio
    of differences one and two pixels apart. ``blocks``: logarithm of the ratio of differences across and within
    the 8-pixel grid (after Wang et al. 2002, doi 10.1109/ICIP.2002.1038064); 0 in an image without compression.
    ``strokes``: the brightest thin line, as the white top-hat leaves it (Serra 1982): letters, markers, wires.
    """
    windows, column_seams, row_seams = _windows(pixels)
    across, down = np.abs(np.diff(windows, axis=3)), np.abs(np.diff(windows, axis=2))
    both = across.mean((2, 3)) + down.mean((2, 3))
    wide = np.abs(windows[..., 2:] - windows[..., :-2]).mean((2, 3))
    wide += np.abs(windows[:, :, 2:] - windows[:, :, :-2]).mean((2, 3))
    stack = (
        windows.mean((2, 3)),
        windows.std((2, 3)),
        windows.max((2, 3)),
        windows.min((2, 3)),
        np.log(both + _FLOOR),
        np.log(_grain(windows) + _FLOOR),
        np.log((both + _FLOOR) / (wide + _FLOOR)),
        _blocks(across.mean(2), column_seams[None]) + _blocks(down.mean(3), row_seams[:, None]),
        _strokes(pixels),
    )
    return np.stack(stack, axis=-1).astype(np.float32)


def _windows(pixels: Pixels) -> tuple[Pixels, Mask, Mask]:
    """Windows (CELLS, CELLS, height, width), and which differences of columns and of rows cross the block grid.

    The latter are bool (CELLS, width - 1) and (CELLS, height - 1).
    """
    rows, columns = (_places(side) for side in pixels.shape)
    windows = pixels[rows[:, None, :, None], columns[None, :, None, :]]
    return windows, columns[:, 1:] % _BLOCK == 0, rows[:, 1:] % _BLOCK == 0


def _places(side: int) -> NDArray[np.intp]:
    """Pixel numbers of each window along an axis of ``side`` pixels: (CELLS, width)."""
    width = min(side, max(_SMALLEST, min(_LARGEST, side // CELLS)))
    middle = (np.arange(CELLS) + 0.5) * side / CELLS
    start = np.clip(np.rint(middle - width / 2), 0, side - width).astype(np.intp)
    return start[:, None] + np.arange(width)


def _grain(windows: Pixels) -> Pixels:
    """Mean absolute response to [[1, -2, 1], [-2, 4, -2], [1, -2, 1]], scaled to a standard deviation."""
    once = windows[:, :, :-2] - 2 * windows[:, :, 1:-1] + windows[:, :, 2:]
    twice = once[..., :-2] - 2 * once[..., 1:-1] + once[..., 2:]
    return np.asarray(np.sqrt(np.pi / 2) / 6 * np.abs(twice).mean((2, 3)), np.float32)


def _blocks(differences: Pixels, seams: Mask) -> Pixels:
    """Logarithm of mean difference on seams over elsewhere, (CELLS, CELLS); 0 where a window has no seam."""
    seam = np.broadcast_to(seams, differences.shape)
    count = seam.sum(-1)
    on = np.where(seam, differences, 0).sum(-1) / np.maximum(1, count)
    off = np.where(seam, 0, differences).sum(-1) / np.maximum(1, seam.shape[-1] - count)
    return np.where(count > 0, np.log((on + _FLOOR) / (off + _FLOOR)), 0.0).astype(np.float32)


def _strokes(pixels: Pixels) -> Pixels:
    """Largest white top-hat in each cell, (CELLS, CELLS)."""
    from scipy.ndimage import grey_opening

    factor = max(pixels.shape) / _STROKE_SIDE
    small = pixels
    if factor > 1:
        size = tuple(max(CELLS, round(side / factor)) for side in pixels.shape[::-1])
        small = np.asarray(PilImage.fromarray(pixels).resize(size, PilImage.Resampling.BILINEAR))
    lines = small - grey_opening(small, size=(_STROKE, _STROKE))
    for axis, side in enumerate(small.shape):
        lines = np.maximum.reduceat(lines, np.arange(CELLS) * side // CELLS, axis=axis)
    return np.asarray(lines, np.float32)
