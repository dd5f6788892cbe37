"""From pixels to the network's input and back: one geometry for training, reading and heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import UsageError, expected
from wetread.models.card import InputSpec

__all__ = ["VIEW_SHARES", "fit_pixels", "normalise", "placement", "restore_map", "to_batch", "views_of"]

VIEW_SHARES = (1.0, 0.9, 0.95, 0.85, 0.8)
"""Shares of the image shown by the views that a reader may average, in the order they are taken.

None shows more than the image: a border of invented pixels would be a sign in itself. No flips: sides mean something.
"""

_FLAT_STD = 1e-3
"""Added to the standard deviation, so that a constant image becomes zeros and not NaN."""


def _resize(pixels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resize float32 (H, W) with an antialiased bilinear filter."""
    if pixels.shape == (rows, columns):
        return pixels
    picture = PilImage.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(picture.resize((columns, rows), PilImage.Resampling.BILINEAR), dtype=np.float32)


def placement(rows: int, columns: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the whole image in input coordinates; may reach outside."""
    if spec.fit == "stretch":
        return 0, 0, spec.height, spec.width
    ratios = (spec.height / rows, spec.width / columns)
    scale = min(ratios) if spec.fit == "pad" else max(ratios)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    return (spec.height - height) // 2, (spec.width - width) // 2, height, width


def fit_pixels(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Bring one image, float32 (H, W) in [0, 1], to (spec.height, spec.width)."""
    top, left, height, width = placement(pixels.shape[0], pixels.shape[1], spec)
    resized = _resize(pixels, height, width)
    if spec.fit == "stretch":
        return resized
    if spec.fit == "crop":
        return np.ascontiguousarray(resized[-top : spec.height - top, -left : spec.width - left])
    canvas = np.zeros((spec.height, spec.width), dtype=np.float32)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def to_batch(images: Sequence[NDArray[np.float32]], spec: InputSpec) -> Tensor:
    """Stack images, each float32 (H, W) in [0, 1], into (N, 1, height, width)."""
    return torch.from_numpy(np.stack([fit_pixels(image, spec) for image in images])[:, None])


def normalise(batch: Tensor, spec: InputSpec) -> Tensor:
    """Standardise float32 (N, 1, H, W) in [0, 1] and repeat it to ``spec.channels``, channels last."""
    if spec.standardise == "zscore":
        mean = batch.mean((2, 3), keepdim=True)
        std = batch.std((2, 3), keepdim=True, correction=0) + _FLAT_STD
    else:
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    scaled = (batch - mean) / std
    return scaled.expand(-1, spec.channels, -1, -1).contiguous(memory_format=torch.channels_last)


def views_of(batch: Tensor, count: int) -> list[Tensor]:
    """The first ``count`` views of (N, 1, H, W), 1 to 5: the image itself, then zooms about its centre.

    Raises:
        UsageError: more views than there are zooms, or none.
    """
    if not 1 <= count <= len(VIEW_SHARES):
        raise UsageError(expected(f"1 to {len(VIEW_SHARES)} views", count, "set --views in that range"))
    return [_zoomed(batch, share) for share in VIEW_SHARES[:count]]


def _zoomed(batch: Tensor, share: float) -> Tensor:
    if share == 1.0:
        return batch
    matrix = torch.tensor([[share, 0, 0], [0, share, 0]]).expand(len(batch), -1, -1)
    grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False)


def restore_map(heat: NDArray[np.float32], spec: InputSpec, rows: int, columns: int) -> NDArray[np.float32]:
    """Bring a map over the input, float32 of any (h, w), back to the original (rows, columns).

    What the input did not show (outside a centre crop) is 0.
    """
    top, left, height, width = placement(rows, columns, spec)
    full = _resize(heat.astype(np.float32), spec.height, spec.width)
    shown = np.zeros((height, width), dtype=np.float32)
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(height, spec.height - top), min(width, spec.width - left)
    shown[y0:y1, x0:x1] = full[y0 + top : y1 + top, x0 + left : x1 + left]
    return _resize(shown, rows, columns)
