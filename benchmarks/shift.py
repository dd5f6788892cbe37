"""How far AUROC falls when only the normals change their look, as another hospital's would.

A reader that judges disease does not care how tall an image was before it was squeezed into a square, how
sharp or how bright it is. One that learned those from its training images loses AUROC as soon as
the normals alone are changed. Validation images inside the training split; the test split is not touched.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import Figure, arguments, write_figures
from wetread.datasets.manifest import load_manifest
from wetread.evaluation.auroc import auroc_estimate
from wetread.models.bundle import load_reader, network_file
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.data import LabelledImages, gather, to_float

BATCH = 64
PROTOCOL = (
    "validation images inside the training split; the negatives alone are changed, the positives stay; "
    "interval: logit-DeLong 95 %, by patient where patients repeat"
)
Change = tuple[float, float, float, float]
"""Shares of the width and height shown, share of the resolution kept, and exponent of the grey values."""
CHANGES: dict[str, Change] = {
    "as they are": (1, 1, 1, 1),
    "stretched upwards by 1.11": (1, 0.9, 1, 1),
    "stretched upwards by 1.25": (1, 0.8, 1, 1),
    "stretched upwards by 1.43": (1, 0.7, 1, 1),
    "stretched sideways by 1.25": (0.8, 1, 1, 1),
    "half the resolution": (1, 1, 0.5, 1),
    "brighter (gamma 0.7)": (1, 1, 1, 0.7),
    "darker (gamma 1.4)": (1, 1, 1, 1.4),
}


def main() -> None:
    parser = arguments(__doc__, "results/shift.csv")
    parser.add_argument("--dataset", type=Path, required=True, help="imported and split binary data set")
    parser.add_argument("readers", nargs="*", default=["chest-pneumonia"], help="names or folders")
    asked = parser.parse_args()
    prepare_torch()
    figures = []
    for name in asked.readers:
        figures += measure(load_reader(name), asked.dataset)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:64} {figure.value:.4f} ({figure.low or 0:.4f} to {figure.high or 0:.4f})")


def measure(reader: Reader, dataset: Path) -> list[Figure]:
    """One figure for each change; n is the number of images."""
    manifest = load_manifest(dataset)
    table = manifest.table[manifest.table["split"] == "val"].reset_index(drop=True)
    images = gather(manifest, table, reader.input, None)
    negative = images.targets[:, 0] == 0
    unchanged = scores(reader, images, CHANGES["as they are"])
    figures = []
    for what, change in CHANGES.items():
        mixed = unchanged.copy()
        mixed[negative] = scores(reader, images.take(np.flatnonzero(negative)), change)
        found = auroc_estimate(mixed, images.targets[:, 0], groups=images.patients)
        title = f"{reader.card.name} {reader.card.weights.get(network_file(0), '')[:8]}, normals {what}"
        value = float("nan") if found.value is None else found.value
        figures.append(Figure(title, value, "AUROC", PROTOCOL, len(mixed), found.low, found.high))
    return figures


def scores(reader: Reader, images: LabelledImages, change: Change) -> NDArray[np.float64]:
    """Logits (N,) of the first output for images changed alike."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = changed(to_float(images.pixels[start : start + BATCH]), change)
        found.append(reader.forward(batch).logits[:, 0].double().numpy())
    return np.concatenate(found)


def changed(batch: Tensor, change: Change) -> Tensor:
    """Apply one change to float32 (N, 1, H, W) in [0, 1]."""
    width, height, resolution, gamma = change
    if (width, height) != (1, 1):
        matrix = torch.tensor([[width, 0.0, 0.0], [0.0, height, 0.0]]).expand(len(batch), -1, -1)
        grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
        batch = F.grid_sample(batch, grid, align_corners=False)
    if resolution < 1:
        small = [int(side * resolution) for side in batch.shape[2:]]
        coarse = F.interpolate(batch, size=small, mode="bilinear", antialias=True, align_corners=False)
        batch = F.interpolate(coarse, size=batch.shape[2:], mode="bilinear", align_corners=False)
    return batch**gamma


if __name__ == "__main__":
    main()
