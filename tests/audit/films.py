"""Small invented films with an organ in the middle, for the lines about data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.audit.material import Material, material_of_arrays

SIDE = 96
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


def films(n: int, seed: int = 0, radius: float = 0.26) -> tuple[list[Pixels], list[Mask]]:
    """Cloudy grey films, float32 (SIDE, SIDE), and a disc of an organ near the middle of each."""
    rng = np.random.default_rng(seed)
    y, x = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    images, masks = [], []
    for _ in range(n):
        slope, level = rng.normal(0, 0.08, 2), rng.uniform(0.4, 0.5)
        film = level + slope[0] * (y - 0.5) + slope[1] * (x - 0.5) + rng.normal(0, 0.03, (SIDE, SIDE))
        middle = 0.5 + rng.uniform(-0.03, 0.03, 2)
        mask = np.hypot(y - middle[0], x - middle[1]) < radius * rng.uniform(0.95, 1.05)
        images.append(np.clip(film - 0.2 * mask, 0, 1).astype(np.float32))
        masks.append(mask)
    return images, masks


def with_sign(images: list[Pixels], masks: list[Mask], positive: NDArray[np.bool_]) -> list[Pixels]:
    """A lighter patch inside the organ of the positives: the true sign."""
    y, x = np.indices((SIDE, SIDE)) / SIDE
    patch = np.hypot(y - 0.5, x - 0.5) < 0.08
    return [
        (image + np.float32(0.1) * (patch & mask)).astype(np.float32) if yes else image
        for image, mask, yes in zip(images, masks, positive, strict=True)
    ]


def with_marker(images: list[Pixels], carries: NDArray[np.bool_]) -> list[Pixels]:
    """A small light square in the upper left corner of those that carry it."""
    marked = []
    for image, yes in zip(images, carries, strict=True):
        film = image.copy()
        if yes:
            film[5:11, 6:10] = 0.95
        marked.append(film)
    return marked


def half(n: int, seed: int = 1) -> NDArray[np.bool_]:
    """As many True as False, shuffled."""
    return np.random.default_rng(seed).permutation(np.arange(n) % 2 == 0)


def material(
    n: int = 120, *, marker: float = 0.5, sign: bool = True, seed: int = 0, masks: bool = True
) -> tuple[Material, NDArray[np.bool_]]:
    """Films of which half are positive; a positive carries the marker with probability ``marker``."""
    images, drawn = films(n, seed)
    positive = half(n)
    chance = np.random.default_rng(seed + 50).random(n)
    images = with_sign(images, drawn, positive) if sign else images
    if marker != 0.5:
        images = with_marker(images, chance < np.where(positive, marker, 1 - marker))
    targets = positive[:, None].astype(np.float32)
    return material_of_arrays(images, targets, masks=drawn if masks else None), positive
