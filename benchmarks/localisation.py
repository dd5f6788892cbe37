"""Whether heat maps lie on planted lesions: every method on phantoms whose truth is known to the pixel.

A reader of lesion against none is trained on phantoms, and its maps are measured on unseen ones with a nodule or a
consolidation. What was tried to find a good method was tried on phantoms of a third seed (``--choose``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import progress
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.phantoms import DatasetPlan, FindingKind, Phantom, make_dataset, planned, render
from wetread.evaluation.auroc import auroc_estimate
from wetread.explain.base import Explanation, Options, Target
from wetread.explain.dispatch import explain_images
from wetread.explain.localisation import Localisation, localisation_of, summarise_localisation
from wetread.models.bundle import load_reader
from wetread.models.inputs import to_batch
from wetread.models.predict import Reader
from wetread.runtime import in_order, prepare_torch
from wetread.training.config import make_config
from wetread.training.fit import train
from wetread.types import Estimate

KINDS: tuple[FindingKind, ...] = ("consolidation", "nodule")
SIDE_PX = 320
LEARNT, CHOSEN_ON, UNSEEN = 1600, 120, 320
LEARN_SEED, CHOOSE_SEED, UNSEEN_SEED = 71, 72, 73
SETTINGS: dict[str, object] = {
    "mode": "finetune",
    "image_size": 224,
    "epochs": 6,
    "head_epochs": 0,
    "batch_size": 16,
    "tensorboard": False,
    "threads": 1,
    "name": "lesions",
}
TOLERANCE_PX = 15.0
"""Of the original pointing game (Zhang et al., ECCV 2016)."""
BATCH = 16
METHODS: dict[str, tuple[str, str | None]] = {
    "gradcam (default)": ("gradcam", None),
    "gradcam, layer last": ("gradcam", "last"),
    "gradcam++": ("gradcam++", None),
    "hirescam, layer blocks.4": ("hirescam", "blocks.4"),
    "hirescam, layer blocks.2": ("hirescam", "blocks.2"),
    "gradient-x-input": ("gradient-x-input", None),
    "smoothgrad": ("smoothgrad", None),
    "integrated-gradients": ("integrated-gradients", None),
    "occlusion": ("occlusion", None),
}
"""Name -> method and layer."""
SLOW = ("smoothgrad", "integrated-gradients", "occlusion")
"""Tens to hundreds of passes for each film: measured where asked for."""


@dataclass(frozen=True)
class Films:
    """Phantoms with one lesion each: the reader's batch, masks at film size, kinds and patients."""

    pixels: list[NDArray[np.float32]]
    masks: list[NDArray[np.bool_]]
    kinds: list[str]
    patients: list[str]


def main() -> None:
    parser = arguments(__doc__, "results/localisation.csv")
    parser.add_argument("--work", type=Path, default=Path("runs/localisation"), help="what is here is not made again")
    parser.add_argument("--choose", action="store_true", help="measure the films on which a method may be chosen")
    usual = [name for name in METHODS if name not in SLOW]
    parser.add_argument("--only", nargs="*", choices=list(METHODS), default=usual, help="methods (default: quick ones)")
    asked = parser.parse_args()
    prepare_torch()
    reader = trained(asked.work)
    films = drawn(CHOSEN_ON, CHOOSE_SEED) if asked.choose else drawn(UNSEEN, UNSEEN_SEED)
    figures = measured(reader, films, asked.only)
    write_figures(asked.out, figures)
    for figure in figures:
        around = "" if figure.low is None else f"({figure.low:.3f} to {figure.high:.3f})"
        print(f"{figure.what:84} {figure.value:8.3f} {around:20} n={figure.n} {figure.met}")


def trained(work: Path, settings: dict[str, object] | None = None, count: int = LEARNT) -> Reader:
    """The reader of lesions, trained unless it is there."""
    run = work / "lesions"
    if not (run / "reader" / "card.json").is_file():
        resume = (run / "config.toml").is_file()
        config = make_config(settings or SETTINGS)
        train(learnt(work / "learn", count), config, run, cache=work / "cache", resume=resume, progress=progress)
    return load_reader(run / "reader")


def learnt(folder: Path, count: int) -> Manifest:
    """Phantoms on disk, once; six in ten patients have a lesion."""
    if (folder / "dataset.toml").is_file():
        return load_manifest(folder)
    plan = DatasetPlan(
        count,
        seed=LEARN_SEED,
        kinds=KINDS,
        prevalence=0.6,
        size_px=SIDE_PX,
        format="png",
        fractions={"train": 0.85, "val": 0.15},
    )
    return make_dataset(folder, plan)


def drawn(count: int, seed: int) -> Films:
    """Films of a seed, not written to disk; follow-ups on which the lesion has healed are films without one."""
    specs = [spec for spec, _ in planned(DatasetPlan(count, seed=seed, kinds=KINDS, prevalence=0.8, size_px=SIDE_PX))]
    phantoms: list[Phantom] = list(in_order(render, specs, workers=1))
    return Films(
        [one.image for one in phantoms],
        [one.findings[0].mask if one.findings else np.zeros(one.image.shape, np.bool_) for one in phantoms],
        [one.findings[0].finding.kind if one.findings else "" for one in phantoms],
        [str(one.spec.seed) for one in phantoms],
    )


def measured(reader: Reader, films: Films, names: Sequence[str]) -> list[Figure]:
    """How good the reader is, and where its maps lie by every method."""
    batch = to_batch(films.pixels, reader.input)
    forwards = [reader.forward(part) for part in batch.split(BATCH)]
    scores = np.concatenate([reader.probabilities(one)[:, 0] for one in forwards])
    ill = np.array([bool(kind) for kind in films.kinds])
    point = reader.card.operating_points[0]
    called = scores >= point.threshold
    how = protocol(reader, len(films.pixels), int(ill.sum()), int((ill & called).sum()))
    patients = np.array(films.patients, dtype=np.str_)
    figures = [figure("the reader itself: AUROC", auroc_estimate(scores, ill.astype(float), groups=patients), how)]
    rows = np.flatnonzero(ill)
    for name in names:
        found = placed(reader, films, rows, called, *METHODS[name])
        figures += summary(name, films, rows, called, found, how)
    return figures


def protocol(reader: Reader, films: int, ill: int, called: int) -> str:
    """How every row was measured."""
    side = reader.input.height
    return (
        f"{films} unseen phantoms of {SIDE_PX} px, {ill} with one nodule (0.1 to 0.6 % of the film) or consolidation "
        f"(2 to 6 %) of severity 0.25 or more, {called} of them called by the reader; {reader.card.architecture} at "
        f"{side} px trained on {reader.card.data.images} other phantoms; all positive films unless it says called; "
        "a film without a map is a miss, and is left out of mass, lift and rank; overlap: Otsu, 0 where not called; "
        "95 % intervals over patients; phantoms are no patients"
    )


def placed(
    reader: Reader,
    films: Films,
    rows: NDArray[np.intp],
    called: NDArray[np.bool_],
    method: str,
    layer: str | None,
) -> list[Localisation | None]:
    """Where the maps of one method lie on the films at ``rows``; None without a map."""
    found: list[Localisation | None] = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        heats = heats_of(reader, [films.pixels[i] for i in some], method, layer)
        for row, heat in zip(some, heats, strict=True):
            found.append(
                localisation_of(heat, films.masks[row], tolerance_px=TOLERANCE_PX, called=bool(called[row]))
                if heat.any()
                else None
            )
    return found


def heats_of(
    reader: Reader, pixels: Sequence[NDArray[np.float32]], method: str, layer: str | None
) -> list[NDArray[np.float32]]:
    """The heat over each film, as shown; zero everywhere without a map."""
    batch = to_batch(pixels, reader.input)
    sizes = [(one.shape[0], one.shape[1]) for one in pixels]
    target = Target(reader.labels[0], method, layer)  # type: ignore[arg-type]
    made = explain_images(reader, reader.forward(batch, 1), target, sizes, batch, None, Options(seed=0))
    return [
        one.heat if isinstance(one, Explanation) else np.zeros(size, dtype=np.float32)
        for one, size in zip(made, sizes, strict=True)
    ]


def summary(
    name: str,
    films: Films,
    rows: NDArray[np.intp],
    called: NDArray[np.bool_],
    found: Sequence[Localisation | None],
    how: str,
) -> list[Figure]:
    """The rows of one method: over all positive films, over those called, and the hits of each kind."""
    default = "default" in name

    def part(keep: NDArray[np.bool_]) -> tuple[list[Localisation | None], list[str]]:
        places = np.flatnonzero(keep)
        return [found[int(i)] for i in places], [films.patients[rows[i]] for i in places]

    everything = summarise_localisation(*part(np.ones(len(rows), np.bool_)))
    seen = summarise_localisation(*part(called[rows]))
    figures = [
        figure(f"{name}: hit rate", everything.hit, how, ">= 0.95" if default else ""),
        figure(f"{name}: hit rate, called", seen.hit, how, ">= 0.95" if default else ""),
        figure(f"{name}: hit rate within {TOLERANCE_PX:.0f} px, called", seen.tolerant_hit, how),
        figure(f"{name}: lift, called", seen.lift, how, ">= 5" if default else ""),
        figure(f"{name}: lift", everything.lift, how, ">= 5" if default else ""),
        figure(f"{name}: mass in the lesion, called", seen.mass, how),
        figure(f"{name}: rank accuracy, called", seen.rank, how),
        figure(f"{name}: mIoU", everything.overlap, how),
    ]
    for kind in KINDS:
        of_kind = np.array([films.kinds[row] == kind for row in rows]) & called[rows]
        one = summarise_localisation(*part(of_kind))
        figures += [
            figure(f"{name}: hit rate, called, {kind}", one.hit, how),
            figure(f"{name}: lift, called, {kind}", one.lift, how),
        ]
    return figures


def figure(what: str, estimate: Estimate, how: str, bar: str = "") -> Figure:
    """One row with its interval; the note says why there is none."""
    value = float("nan") if estimate.value is None else estimate.value
    noted = "; ".join(filter(None, (how, estimate.method, estimate.note)))
    unit = "times" if "lift" in what else "AUROC" if "AUROC" in what else "share"
    return Figure(what, value, unit, noted, estimate.n, estimate.low, estimate.high, bar)


if __name__ == "__main__":
    main()
