"""Segmentation losses side by side: same network, data, seeds and steps; nothing but the loss differs.

A short protocol on small images: it shows which loss learns quickly and which trades overlap for distance, not
what each could reach with a recipe of its own.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.common import arguments, machine
from benchmarks.lungs import dataset, progress
from wetread.datasets.manifest import Manifest
from wetread.provenance import atomic_file
from wetread.runtime import prepare_torch
from wetread.training.config import SegmentConfig, config_of
from wetread.training.segment import train_segmenter
from wetread.training.segment_losses import SEGMENT_LOSSES

EPOCHS, SIDE_PX = 4, 96
PROTOCOL = (
    "lungs of covid-cxr, 85 % of the patients for training and 15 % for validation, U-Net on EfficientNet-lite0 at "
    f"{SIDE_PX} px, {EPOCHS} epochs, batch 8, weights of the best validation epoch; Dice and HD95 at the image's own "
    "size"
)
COLUMNS = ("loss", "seed", "dice", "hd95_px", "n", "protocol")


def main() -> None:
    parser = arguments(__doc__, "results/losses.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder of covid-cxr")
    parser.add_argument("--work", type=Path, default=Path("runs/lungs"), help="finished runs here are not repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=list(SEGMENT_LOSSES))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/segmentation-losses.svg"))
    asked = parser.parse_args()
    prepare_torch()
    manifest = dataset(asked.data, asked.work / "dataset")
    rows = [measure(manifest, loss, seed, asked.work / "losses") for seed in asked.seeds for loss in asked.losses]
    write(asked.out, rows)
    with atomic_file(asked.plot) as part:
        part.write_text(plot(rows), encoding="utf-8")
    for loss in asked.losses:
        dice = [float(str(row["dice"])) for row in rows if row["loss"] == loss]
        print(f"{loss:18} {statistics.mean(dice):.4f} ({min(dice):.4f} to {max(dice):.4f})")


def measure(manifest: Manifest, loss: str, seed: int, work: Path) -> dict[str, object]:
    """Train unless trained; the mean scores of the validation patients."""
    folder = work / f"{loss}-seed{seed}"
    config = config_of(
        SegmentConfig,
        {
            "loss": loss,
            "seed": seed,
            "name": f"{loss}-seed{seed}",
            "image_size": SIDE_PX,
            "epochs": EPOCHS,
            "batch_size": 8,
            "learning_rate": 1.5e-3,
            "averaging": 0.95,
            "tensorboard": False,
        },
    )
    if not (folder / "reader" / "card.json").is_file():
        train_segmenter(manifest, config, folder, resume=(folder / "config.toml").is_file(), progress=progress)
    scores = pd.read_parquet(folder / "scores.parquet")
    return {
        "loss": loss,
        "seed": seed,
        "dice": float(scores["dice"].mean()),
        "hd95_px": float(scores["hd95"].mean()),
        "n": len(scores),
        "protocol": PROTOCOL,
    }


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write one line for each run, with the machine in every line."""
    facts = machine()
    with atomic_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, *facts], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shown = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow({**shown, **facts})


def plot(rows: Sequence[dict[str, object]]) -> str:
    """Dice of each loss: one dot for each seed, a bar for their mean; best on top."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(str(row["loss"]), []).append(float(str(row["dice"])))
    order = sorted(values, key=lambda loss: statistics.mean(values[loss]))
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "wetread"}):
        figure = Figure(figsize=(7, 0.42 * len(order) + 1), layout="constrained")
        axes = figure.add_subplot()
        for place, loss in enumerate(order):
            mean = statistics.mean(values[loss])
            axes.plot(values[loss], [place] * len(values[loss]), "o", color="#0a5a78", alpha=0.55)
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color="#15202a")
            axes.annotate(f"{mean:.3f}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.set_yticks(range(len(order)), order)
        axes.set_xlabel("mean Dice on validation patients (dots: seeds, bar: their mean)")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()


if __name__ == "__main__":
    main()
