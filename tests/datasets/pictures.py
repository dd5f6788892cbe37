"""Small pictures that differ from each other like radiographs do, and trees of them on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """Blobs and rectangles at random places, uint8 (side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    field = np.zeros((side, side))
    for _ in range(14):
        centre, width = rng.random(2), 0.05 + 0.15 * rng.random()
        field += rng.normal() * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    for left, top, width, height in rng.random((30, 4)):  # edges: smooth pictures count as blurred
        inside = (abs(x - left) < width / 4) & (abs(y - top) < height / 4)
        field += rng.normal() * inside
    field += 0.03 * rng.normal(size=field.shape)
    low, high = field.min(), field.max()
    return np.asarray(np.rint((field - low) / (high - low) * 255), np.uint8)


def write(path: Path, seed: int, side: int = 96) -> Path:
    """Write one picture; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, side)).save(path)
    return path


def class_tree(root: Path, per_class: int = 6, classes: tuple[str, ...] = ("normal", "sick")) -> Path:
    """``root/class/pN_i.png``: two images of each patient N."""
    for c, name in enumerate(classes):
        for i in range(per_class):
            write(root / name / f"p{c}{i // 2}_{i}.png", seed=100 * c + i)
    return root
