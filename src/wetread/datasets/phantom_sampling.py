"""Resampling and blurring of small float maps with numpy: linear, edges repeated, no randomness."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

__all__ = ["cloud", "doubled", "haze", "resize", "smooth", "spread"]

Array = NDArray[np.floating[Any]]


def resize(field: Array, n: int) -> Array:
    """``field`` (float32) resampled to (n, n); to twice the size linearly, else bicubic."""
    if field.shape == (n, n):
        return field
    if 2 * len(field) == n:
        return _double(_double(field, 0), 1)
    return np.array(PilImage.fromarray(field).resize((n, n), PilImage.Resampling.BICUBIC))


def _double(field: Array, axis: int) -> Array:
    """Twice as many samples along one axis: each new one is 3/4 the nearest and 1/4 the next."""
    a = field if axis == 0 else field.T
    out = np.empty((2 * a.shape[0], a.shape[1]), np.float32, order="C" if axis == 0 else "F")
    near, far = np.float32(0.75) * a, np.float32(0.25) * a
    np.add(near[1:], far[:-1], out=out[2::2])
    np.add(near[:-1], far[1:], out=out[1:-1:2])
    out[0], out[-1] = a[0], a[-1]
    return out if axis == 0 else out.T


def doubled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask at twice its size: each pixel becomes four."""
    pairs = mask.astype(np.uint16) * np.uint16(0x0101)  # two bytes, both 0 or both 1
    return pairs.view(np.bool_).repeat(2, axis=0)


def spread(field: Array, n: int) -> Array:
    """A small smooth map enlarged to (n, n) by cubic B-splines, as two matrix products."""
    rows = _stretch(len(field), n)
    enlarged: Array = rows @ field @ rows.T
    return enlarged


@lru_cache(maxsize=64)
def _stretch(few: int, n: int) -> Array:
    """(n, few): weights of ``few`` points at n places, uniform cubic B-spline, edges repeated."""
    at = (np.arange(n) + 0.5) * few / n - 0.5
    low = np.floor(at).astype(int)
    t = at - low
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((n, few))
    for shift, weight in zip((-1, 0, 1, 2), weights, strict=True):
        np.add.at(matrix, (np.arange(n), np.clip(low + shift, 0, few - 1)), weight / 6)
    return matrix.astype(np.float32)


def cloud(n: int, rng: np.random.Generator, octaves: tuple[tuple[int, float], ...]) -> Array:
    """Smooth noise (n, n), zero mean: octaves of (cells across, weight)."""
    total = np.zeros((n, n), np.float32)
    for cells, weight in octaves:
        total += spread(np.float32(weight) * rng.standard_normal((cells, cells), dtype=np.float32), n)
    return total


def haze(field: Array, share: float) -> Array:
    """Gaussian blur of a small map with a standard deviation of ``share`` of its side."""
    kernel = _wide_kernel(len(field), share)
    blurred: Array = kernel @ field @ kernel.T
    return blurred


@lru_cache(maxsize=32)
def _wide_kernel(n: int, share: float) -> Array:
    at = np.arange(n)
    weight = np.exp(-0.5 * ((at[:, None] - at[None, :]) / (share * n)) ** 2)
    kernel: Array = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel


def smooth(field: Array, variance: float) -> Array:
    """Blur by ``variance`` (pixels^2), edges repeated; a negative one sharpens. float32.

    Kernels of three weights, repeated until their variances add up: for a few pixels.
    """
    left = max(variance, -0.5)
    while abs(left) > 1e-3:
        part = min(left, 0.5)
        weight = np.float32(part / 2)
        for axis in (0, 1):
            field = _three(field, weight, axis)
        left -= part
    return field


def _three(field: Array, weight: np.float32, axis: int) -> Array:
    side = field * weight
    out = field * (np.float32(1) - 2 * weight)
    a, b = (out, side) if axis == 0 else (out.T, side.T)
    a[1:] += b[:-1]
    a[:-1] += b[1:]
    a[0] += b[0]
    a[-1] += b[-1]
    return out
