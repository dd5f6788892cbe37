"""Films whose truth is known, on disk, and readers that look at one place of them and at nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor, nn

from tests.models.support import reader_of
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.models.card import InputSpec
from wetread.models.networks import Network
from wetread.models.predict import Reader

SIDE_PX = 64
SPEC = InputSpec(height=SIDE_PX, width=SIDE_PX, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
ORGAN = (slice(18, 46), slice(16, 48))
CORNER = (slice(0, 14), slice(0, 14))
MIDDLE = (slice(26, 38), slice(24, 40))
STEEPNESS = 40.0


class Window(nn.Module):
    """Sees the mean grey of one window; its feature is how far that lies above a level."""

    num_features = head_hidden_size = 1

    def __init__(self, window: tuple[slice, slice], level: float) -> None:
        super().__init__()
        self.window, self.level = window, level

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, 1)."""
        return STEEPNESS * (x[:, :, self.window[0], self.window[1]].mean((2, 3)) - self.level)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x


class Grain(Window):
    """Sees how much neighbouring pixels of a window differ, and nothing coarser."""

    def forward_features(self, x: Tensor) -> Tensor:
        part = x[:, :, self.window[0], self.window[1]]
        return 10 * STEEPNESS * (part.diff(dim=3).abs().mean((2, 3)) - self.level)


def looking_at(window: tuple[slice, slice], level: float, kind: type[Window] = Window, **changes: Any) -> Reader:
    """A reader of the label ``ill`` that calls it where the mean grey of the window is above the level."""
    network = Network(kind(window, level), nn.Identity(), spatial=False)
    return reader_of([network], ("ill",), classes=("normal", "ill"), input=SPEC, **changes)


def films(
    folder: Path,
    count: int = 80,
    *,
    signal: tuple[slice, slice] | None = ORGAN,
    step: float = 0.2,
    images_per_patient: int = 1,
    masks: bool = True,
    marked: float | None = None,
) -> Manifest:
    """Noise with a lighter organ of .5; every second patient is ill, and ``signal`` is lighter by ``step`` in these.

    ``marked``: probability that an ill film has a mark in the corner; a healthy one has it with 1 - ``marked``.
    """
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        patient = number // images_per_patient
        pixels = rng.normal(0.25, 0.03, (SIDE_PX, SIDE_PX))
        pixels[ORGAN] += 0.25
        if signal is not None and patient % 2:
            pixels[signal] += step
        if marked is not None and (rng.random() < marked) == bool(patient % 2):
            pixels[CORNER] += 0.2
        write(folder / f"{number:03d}.png", pixels)
        rows.append({"path": f"{number:03d}.png", "patient": f"p{patient}", "label": ("normal", "ill")[patient % 2]})
    table = pd.DataFrame(rows).assign(split="test")
    if masks:
        organ = np.zeros((SIDE_PX, SIDE_PX))
        organ[ORGAN] = 1
        write(folder / "organ.png", organ)
        table["mask_lungs"] = "organ.png"
    return Manifest(table, DatasetMeta(name="films", classes=("normal", "ill")), folder)


def write(path: Path, pixels: NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path)
