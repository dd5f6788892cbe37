"""Training speed: fine-tuning steps beside plain PyTorch, and ``--mode features`` with and without its cache.

Each way of training runs in a process of its own, because the allocator is set for a whole process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.common import Figure, arguments, run_child, write_figures

STEP_PROTOCOL = (
    "EfficientNet-lite0, forward, backward, AdamW on the same augmented batches; one process for each way and round, "
    "the two in turns; median and range of the rounds, the ratio taken within each; "
    "plain is PyTorch as it comes (contiguous tensors, default allocator and denormals)"
)
FEATURES_PROTOCOL = "one cold process as typed, from manifest to bundle, report included"
_WARM_UP = 3


def main() -> None:
    parser = arguments(__doc__, "results/training_speed.csv")
    parser.add_argument("--dataset", type=Path, help="imported and split data set for --mode features")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=("plain", "wetread"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(steps_per_second(asked.way, asked.sizes[0], asked.batch, asked.steps))
        return
    figures = [figure for size in asked.sizes for figure in step_figures(size, asked.batch, asked.steps, asked.rounds)]
    if asked.dataset:
        figures += feature_figures(asked.dataset)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:8.2f} {figure.unit:9} {figure.bar:8} {figure.met}")


def step_figures(size: int, batch: int, steps: int, rounds: int) -> list[Figure]:
    """Images per second of both ways and their ratio: a shared machine drifts, so the two take turns."""
    found = [
        (_child_speed("plain", size, batch, steps), _child_speed("wetread", size, batch, steps)) for _ in range(rounds)
    ]
    at = f"{size} px, batch {batch}"
    return [
        _spread(f"plain PyTorch, {at}", "images/s", [plain for plain, _ in found]),
        _spread(f"wetread, {at}", "images/s", [own for _, own in found]),
        _spread(f"wetread over plain, {at}", "ratio", [own / plain for plain, own in found], bar=">= 2.5"),
    ]


def _spread(what: str, unit: str, values: list[float], bar: str = "") -> Figure:
    return Figure(what, median(values), unit, STEP_PROTOCOL, len(values), min(values), max(values), bar)


def _child_speed(way: str, size: int, batch: int, steps: int) -> float:
    words = ["--way", way, "--sizes", str(size), "--batch", str(batch), "--steps", str(steps)]
    child = run_child([sys.executable, "-m", "benchmarks.training_speed", *words])
    if child.exit_code:
        sys.exit(child.stderr)
    return float(child.stdout.split()[-1])


def steps_per_second(way: str, size: int, batch: int, steps: int) -> float:
    """Images per second of one way in this process."""
    if way == "wetread":
        from wetread.runtime import prepare_torch

        prepare_torch()
    import torch

    from wetread.models.backbones import build_network
    from wetread.models.card import HeadSpec, InputSpec
    from wetread.models.inputs import normalise
    from wetread.training import augment
    from wetread.training.losses import classification_loss

    spec = InputSpec(height=size, width=size)
    network = build_network("tf_efficientnet_lite0", HeadSpec(), spec, 1, softmax=False).train()
    if way == "wetread":
        network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True if way == "wetread" else None)
    generator = torch.Generator().manual_seed(0)
    pixels, targets = torch.rand(batch, 1, size, size, generator=generator), torch.ones(batch, 1)
    begin = 0.0
    for step in range(steps + _WARM_UP):
        if step == _WARM_UP:
            begin = time.perf_counter()
        changed = augment.apply(pixels, augment.sample(augment.RECIPES["robust"], batch, generator))
        inputs = normalise(changed, spec)
        loss = classification_loss(network(inputs if way == "wetread" else inputs.contiguous()), targets, softmax=False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return steps * batch / (time.perf_counter() - begin)


def feature_figures(dataset: Path) -> list[Figure]:
    """Seconds of ``wetread train --mode features`` with an empty and then a filled cache."""
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, bar in (("not cached", "<= 180"), ("cached", "<= 20")):
            out = Path(scratch) / name.replace(" ", "-")
            code = "from wetread.cli.main import main; main()"
            words = ["train", str(dataset), "--mode", "features", "--out", str(out), "--name", out.name]
            child = run_child(
                [sys.executable, "-c", code, *words], {"WETREAD_PATHS__CACHE": str(Path(scratch) / "cache")}
            )
            if child.exit_code:
                sys.exit(child.stderr)
            what = f"--mode features, {dataset.name}, features {name}"
            figures.append(Figure(what, child.seconds, "s", FEATURES_PROTOCOL, bar=bar))
    return figures


if __name__ == "__main__":
    main()
