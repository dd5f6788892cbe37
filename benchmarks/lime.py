"""LIME on six kinds of network side by side: does it repeat, does its line hold, does its order beat chance.

Every network learns the same films, with an output for each class. Test films are explained one after the other, each
for the class that the network names, until there are enough maps or enough films were tried; those refused are counted
with their reason. For each map: the same film with other seeds, out-of-sample R2, and AOPC, the mean drop of the
log-odds while superpixels are hidden best first (Samek et al., TNNLS 2017), beside random orders of the same
superpixels. The first films are explained the usual way too: probabilities, half of the superpixels hidden at a time,
numbered from 1 as scikit-image does; and where a map was refused as weak, it is judged as ``--accept-weak`` shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.kermany import dataset, progress
from wetread.datasets.manifest import Manifest
from wetread.errors import ExplanationFailed
from wetread.evaluation.intervals import Resampler, bootstrap
from wetread.explain.base import Options, RawMap
from wetread.explain.lime import Chosen, Hider, choose_fill, explained, jaccard, jaccard_by_chance, leading, lime
from wetread.explain.score import Score
from wetread.explain.superpixels import Superpixels, divide
from wetread.imaging import load_image
from wetread.models.bundle import load_reader
from wetread.models.predict import Reader
from wetread.runtime import prepare_torch
from wetread.training.config import make_config
from wetread.training.fit import train
from wetread.types import Estimate

SEEDS = (0, 1, 2)
RANDOM_ORDERS = 20
DELETED = 0.3
"""Share of the body hidden, best first, at most."""
FILMS = {"train": 1200, "val": 300}
"""Films of whole patients that every network learns from and is judged by."""
USUAL_SAMPLES = 1000
WEAK_SAMPLES = 6
"""Samples for each superpixel of a map that was refused and is judged all the same."""
REASONS = {
    "expected a fill": "no fill lowers the score of {label}",
    "expected a line": "the line explains too little",
    "expected two halves": "halves of the samples disagree",
}
KERNEL_WIDTH = 0.25


@dataclass(frozen=True)
class Plan:
    """How one network is trained. ``weights`` None: the embedded ImageNet weights."""

    model: str
    size: int
    epochs: int
    rate: float
    weights: str | None = "random"


NETWORKS = {
    "VGG16": Plan("vgg16", 64, 4, 2e-4),
    "ResNet101V2": Plan("resnetv2_101", 64, 3, 1e-3),
    "MobileNetV3": Plan("mobilenetv3_large_100", 96, 8, 2e-3),
    "EfficientNet-lite0": Plan("tf_efficientnet_lite0", 160, 3, 5e-4, None),
    "DenseNet201": Plan("densenet201", 64, 3, 1e-3),
    "custom CNN": Plan("cnn", 96, 6, 2e-3),
}


@dataclass(frozen=True)
class Measured:
    """One film. All lists have an entry for each seed; a refused film has a ``reason``, and the R2 where it was that.

    ``usual``: the same measures of the usual settings, for the first films alone; ``weak``: those of a map that was
    refused as weak, for the same films.
    """

    path: str
    patient: str
    label: str
    score: float
    reason: str = ""
    fill: str = ""
    r2: tuple[float, ...] = ()
    saturated: tuple[float, ...] = ()
    samples: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    segments: int = 0
    jaccard: float = 0.0
    jaccard_corrected: float = 0.0
    aopc: float = 0.0
    aopc_random: float = 0.0
    usual: dict[str, float] | None = None
    weak: dict[str, float] | None = None


def main() -> None:
    parser = arguments(__doc__, "results/lime.csv")
    parser.add_argument("--data", type=Path, required=True, help="Kermany folder with train/ and test/")
    parser.add_argument("--work", type=Path, default=Path("runs/lime"), help="what is finished here is not repeated")
    parser.add_argument("--images", type=int, default=20, help="films with a map, for each network")
    parser.add_argument("--most", type=int, default=20, help="films to try, for each network")
    parser.add_argument("--usual", type=int, default=4, help="films that are explained the usual way too")
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="rows of others stay"
    )
    asked = parser.parse_args()
    prepare_torch()
    manifest = subset(dataset(asked.data, asked.work / "dataset"))
    figures = []
    for name in asked.networks:
        reader = load_reader(trained(manifest, name, asked.work))
        films = list(measured(reader, manifest, asked.work / f"{slug(name)}.jsonl", asked))
        figures += figures_of(name, reader, films)
        write_figures(asked.out, figures, lambda what: not what.startswith(tuple(asked.networks)))
    for figure in figures:
        print(f"{figure.what:64} {figure.value:9.3f} ({figure.low or 0:.3f} to {figure.high or 0:.3f}) {figure.met}")


def slug(name: str) -> str:
    """A name that a reader may have."""
    return name.lower().replace(" ", "-")


def subset(manifest: Manifest) -> Manifest:
    """Whole patients drawn at random until there are enough films to train and to judge; the test stays whole."""
    import pandas as pd

    parts = [manifest.table[manifest.table["split"] == "test"]]
    for split, films in FILMS.items():
        table = manifest.table[manifest.table["split"] == split]
        patients = table["patient"].fillna(table["path"]).astype(str)
        names = np.random.default_rng(0).permutation(np.unique(patients.to_numpy(dtype=np.str_)))
        turn = patients.map({name: place for place, name in enumerate(names)})
        last = turn.sort_values().iloc[min(films, len(turn)) - 1]
        parts.append(table[turn <= last])
    # An output for each class, so that either can be explained; the recorded split is that of all films.
    meta = manifest.meta.model_copy(update={"split": None, "task": "multiclass"})
    return replace(manifest, table=pd.concat(parts), meta=meta)


def trained(manifest: Manifest, name: str, work: Path) -> Path:
    """The reader of one network, trained unless it is there."""
    plan, folder = NETWORKS[name], work / slug(name)
    if not (folder / "reader" / "card.json").is_file():
        settings: dict[str, object] = {
            "mode": "finetune",
            "model": plan.model,
            "weights": plan.weights,
            "image_size": plan.size,
            "epochs": plan.epochs,
            "learning_rate": plan.rate,
            "head_epochs": 0,
            "layer_decay": 1.0 if plan.weights else 0.9,
            "standardise": "fixed",
            "augment": "squeezed",
            "mixup": 0.3,
            "averaging": 0.0,
            "gate": False,
            "tensorboard": False,
            "name": slug(name),
        }
        resume = (folder / "config.toml").is_file()
        train(manifest, make_config(settings), folder, cache=work / "cache", resume=resume, progress=progress)
    return folder / "reader"


def measured(reader: Reader, manifest: Manifest, log: Path, asked: argparse.Namespace) -> Iterator[Measured]:
    """Yield one result for each film tried, until there are enough maps; what ``log`` holds is not repeated."""
    done = {}
    if log.is_file():
        done = {row["path"]: Measured(**row) for row in map(json.loads, log.read_text("utf-8").splitlines())}
    table = manifest.table[manifest.table["split"] == "test"].sample(frac=1, random_state=0)
    maps = looked = 0
    for tried, (path, patient) in enumerate(zip(table["path"][: asked.most], table["patient"], strict=False), start=1):
        film = done.get(path)
        if film is None:
            shown = load(reader, manifest, path)
            film = measure(named(reader, shown), shown, (path, str(patient)), usual=looked < asked.usual)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(film)) + "\n")
            print(f"{reader.card.name}: film {tried}, {maps} maps, {film.reason or 'explained'}", file=sys.stderr)
        yield film
        maps += not film.reason
        looked += film.usual is not None
        if maps >= asked.images:
            return


def named(reader: Reader, film: NDArray[np.float32]) -> Score:
    """The score of the class that the reader names."""
    import torch

    logits = reader.forward(torch.from_numpy(film)[None, None], views=1).logits[0]
    return Score(reader, reader.labels[int(logits.argmax())])


def load(reader: Reader, manifest: Manifest, path: str) -> NDArray[np.float32]:
    """The film as the network sees it, float32 (H, W)."""
    return np.asarray(reader.prepare([load_image(manifest.path_of(path))])[0, 0].numpy(), dtype=np.float32)


def measure(score: Score, film: NDArray[np.float32], who: tuple[str, str], *, usual: bool) -> Measured:
    """Explain one film with every seed and judge what comes out."""
    import torch

    batch = torch.from_numpy(film)[None, None]
    known = Measured(*who, label=score.label, score=float(score(batch)[0]))
    maps: list[RawMap] = []
    seconds = []
    for seed in SEEDS:
        begin = time.process_time()
        (found,) = lime(score, batch, Options(seed=seed))
        seconds.append(time.process_time() - begin)
        if isinstance(found, ExplanationFailed):
            return refused(replace(known, cpu_seconds=(seconds[-1],)), found, score, film, usual=usual)
        maps.append(found)
    pieces = divide(film)
    chosen = choose_fill(score, film, pieces)
    judged = judged_maps(score, chosen, maps)
    return replace(
        known,
        fill=chosen.fill,
        r2=tuple(one.details["r2"] for one in maps),
        saturated=tuple(one.details["saturated"] for one in maps),
        samples=tuple(one.details["samples"] for one in maps),
        cpu_seconds=tuple(seconds),
        segments=pieces.count,
        jaccard=judged["jaccard"],
        jaccard_corrected=judged["jaccard_corrected"],
        aopc=judged["aopc"],
        aopc_random=judged["aopc_random"],
        usual=the_usual_way(score, chosen) if usual else None,
    )


def refused(
    known: Measured, why: ExplanationFailed, score: Score, film: NDArray[np.float32], *, usual: bool
) -> Measured:
    """What is known of a film without a map; with ``usual``, of the maps that could be had all the same."""
    import torch

    known = replace(known, reason=reason_of(why, score.label))
    if not why.details:
        return known
    known = replace(known, r2=(why.details["r2"],), samples=(why.details["samples"],))
    if not usual:
        return known
    pieces = divide(film)
    chosen = choose_fill(score, film, pieces)
    maps: list[RawMap] = []
    for seed in SEEDS[:2]:
        options = Options(seed=seed, samples=WEAK_SAMPLES * pieces.count, accept_weak=True)
        (found,) = lime(score, torch.from_numpy(film)[None, None], options)
        maps += [found] if isinstance(found, RawMap) else []
    weak = judged_maps(score, chosen, maps) | {"r2": float(np.mean([one.details["r2"] for one in maps]))}
    return replace(known, usual=the_usual_way(score, chosen), weak=weak)


def judged_maps(score: Score, chosen: Chosen, maps: Sequence[RawMap]) -> dict[str, float]:
    """How well maps of one film with several seeds agree, and what hiding in their order takes from the score."""
    pieces = chosen.hider.pieces
    weights = [weights_of(pieces, one) for one in maps]
    agreed, corrected = agreement(weights)
    random = np.random.default_rng(0)
    return {
        "jaccard": agreed,
        "jaccard_corrected": corrected,
        "aopc": mean_aopc(score, chosen, [np.argsort(-one) for one in weights]),
        "aopc_random": mean_aopc(score, chosen, [random.permutation(pieces.count) for _ in range(RANDOM_ORDERS)]),
    }


def reason_of(failure: ExplanationFailed, label: str) -> str:
    """Which refusal it was, without its numbers."""
    text = str(failure)
    for start, reason in REASONS.items():
        if text.startswith(start):
            return reason.format(label=label)
    return text.split(",")[0]


def weights_of(pieces: Superpixels, found: RawMap) -> NDArray[np.float64]:
    """The weight of each superpixel (count,): the sum of its share of the map."""
    sums = np.bincount(pieces.labels[pieces.body], found.map[pieces.body].astype(np.float64), pieces.count)
    return np.asarray(sums, dtype=np.float64)


def agreement(weights: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Mean Jaccard index of the leading superpixels over pairs of seeds, as it is and corrected for chance."""
    sets = [leading(one) for one in weights]
    mean = float(np.mean([jaccard(first, second) for first, second in combinations(sets, 2)]))
    chance = jaccard_by_chance(len(weights[0]), len(sets[0]))
    return mean, (mean - chance) / (1 - chance)


def mean_aopc(score: Score, chosen: Chosen, orders: Sequence[NDArray[np.intp]]) -> float:
    """Mean over ``orders`` of the area over the perturbation curve, down to 30 % of the body hidden.

    AOPC = 1 / (L + 1) sum over k = 0 to L of the drop with the first k superpixels hidden.
    """
    return float(np.mean([aopc(lambda off: chosen.score - chosen.hider.scores(score, off), chosen, o) for o in orders]))


def aopc(drops: Callable[[NDArray[np.bool_]], NDArray[np.float64]], chosen: Chosen, order: NDArray[np.intp]) -> float:
    """The same for one order and any function from masks (N, count) to drops (N,)."""
    sizes = chosen.hider.pieces.sizes[order]
    steps = int((np.cumsum(sizes) <= DELETED * sizes.sum()).sum())
    off = np.zeros((steps, len(order)), dtype=np.bool_)
    for step in range(steps):
        off[step:, order[step]] = True
    return float(drops(off).sum() / (steps + 1))


def the_usual_way(score: Score, chosen: Chosen) -> dict[str, float]:
    """LIME as it is usually run on radiographs: R2, Jaccard and AOPC by the same measures.

    SLIC numbered from 1 while masks count from 0, half of the superpixels off, each filled with its mean, 1000
    samples, probabilities, cosine kernel of width 0.25, ridge of strength 1. R2 is out of sample: a fifth is held out.
    """
    pieces = chosen.hider.pieces
    means = np.bincount(pieces.labels[pieces.body], chosen.hider.image[pieces.body], pieces.count) / pieces.sizes
    hider = Hider(chosen.hider.image, pieces, np.append(means, 0)[pieces.labels].astype(np.float32))
    found = [_usual_weights(score, hider, seed) for seed in SEEDS[:2]]
    weights = [one[0] for one in found]
    agreed, corrected = agreement(weights)
    return {
        "r2": float(np.mean([one[1] for one in found])),
        "saturated": float(np.mean([one[2] for one in found])),
        "jaccard": agreed,
        "jaccard_corrected": corrected,
        "aopc": mean_aopc(score, chosen, [np.argsort(-one) for one in weights]),
    }


def _usual_weights(score: Score, hider: Hider, seed: int) -> tuple[NDArray[np.float64], float, float]:
    """Weights (count,), out-of-sample R2 and the share of saturated samples of one run."""
    from sklearn.linear_model import Ridge

    on = np.random.default_rng(seed).integers(0, 2, (USUAL_SAMPLES, hider.pieces.count)).astype(np.bool_)
    on[0] = True
    hidden = np.zeros_like(on)
    hidden[:, :-1] = ~on[:, 1:]  # mask i hides label i, which is superpixel i - 1: 0 hides nothing, the last stays
    p = 1 / (1 + np.exp(-hider.scores(score, hidden)))
    distance = 1 - np.sqrt(on.mean(1))  # cosine distance from all ones
    nearness = np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))
    out = np.arange(USUAL_SAMPLES) % 5 == 4
    x = on.astype(np.float64)
    line = Ridge(alpha=1).fit(x[~out], p[~out], sample_weight=nearness[~out])
    weights = Ridge(alpha=1).fit(x, p, sample_weight=nearness).coef_
    return weights, explained(p[out], line.predict(x[out])), float(((p > 0.99) | (p < 0.01)).mean())


def figures_of(name: str, reader: Reader, films: Sequence[Measured]) -> list[Figure]:
    """One row for each measure of one network."""
    plan = NETWORKS[name]
    start = "random weights" if plan.weights else "ImageNet weights"
    protocol = (
        f"{reader.card.architecture} at {plan.size} px from {start}, {reader.card.data.images} Kermany training films; "
        "test films in random order, each explained for the class that is named; intervals: bootstrap over patients"
    )
    maps, refused = [film for film in films if not film.reason], [film for film in films if film.reason]
    judged = next(row.estimate for row in reader.card.metrics if row.name.startswith("AUROC"))
    rows = [
        _figure(f"{name}: AUROC on validation films", judged, "AUROC", protocol, ">= 0.9"),
        Figure(f"{name}: maps", len(maps), "films", protocol, len(films)),
    ]
    rows.append(
        Figure(f"{name}: maps or refusals with a reason", len(films), "films", protocol, len(films), bar=">= 20")
    )
    for reason in sorted({film.reason for film in refused}) or ["any reason"]:
        count = sum(film.reason == reason for film in refused)
        rows.append(Figure(f"{name}: refused, {reason}", count, "films", protocol, len(films)))
    for label in sorted({film.label for film in maps}):
        count = sum(film.label == label for film in maps)
        rows.append(Figure(f"{name}: maps for {label}", count, "films", protocol, len(maps)))
    rows += _figures_of_maps(name, maps, protocol) if maps else []
    return rows + _figures_of_refusals(name, refused, protocol) + _figures_of_the_first(name, films, protocol)


def _figures_of_refusals(name: str, refused: Sequence[Measured], protocol: str) -> list[Figure]:
    """How far the lines that explain too little were off, and what finding that out cost."""
    weak = [film for film in refused if film.r2]
    if not weak:
        return []
    who = np.array([film.patient for film in weak])
    r2, seconds = (np.array([getattr(film, key)[0] for film in weak]) for key in ("r2", "cpu_seconds"))
    return [
        _figure(f"{name}: R2 of refused lines", mean_of(r2, who), "R2", protocol, ""),
        _figure(f"{name}: CPU time of a refusal", mean_of(seconds, who), "s", protocol, ""),
    ]


def _figures_of_the_first(name: str, films: Sequence[Measured], protocol: str) -> list[Figure]:
    """The first films with the usual settings, and those of them that were refused with ``--accept-weak``."""
    rows = []
    for key, words in (("usual", "usual settings"), ("weak", "refused maps, accepted all the same")):
        found = [getattr(film, key) for film in films if getattr(film, key)]
        for measure in found[0] if found else ():
            mean = float(np.mean([one[measure] for one in found]))  # of too few for an interval
            rows.append(Figure(f"{name}, {words}: {measure}", mean, "", protocol, len(found)))
    return rows


def _figures_of_maps(name: str, maps: Sequence[Measured], protocol: str) -> list[Figure]:
    patients = np.array([film.patient for film in maps])
    columns = {
        "seed Jaccard": ([film.jaccard for film in maps], "Jaccard", ">= 0.85"),
        "seed Jaccard, corrected for chance": ([film.jaccard_corrected for film in maps], "Jaccard", ""),
        "R2, out of sample": ([np.mean(film.r2) for film in maps], "R2", ">= 0.85"),
        "samples with p above .99 or below .01": ([np.mean(film.saturated) for film in maps], "share", ""),
        "samples": ([np.mean(film.samples) for film in maps], "samples", ""),
        "AOPC": ([film.aopc for film in maps], "log-odds", ""),
        "AOPC of random orders": ([film.aopc_random for film in maps], "log-odds", ""),
        "AOPC less three times that of random orders": (
            [film.aopc - 3 * film.aopc_random for film in maps],
            "log-odds",
            ">= 0",
        ),
        "CPU time": ([np.mean(film.cpu_seconds) for film in maps], "s", "<= 6" if name.startswith("Eff") else ""),
    }
    rows = [
        _figure(f"{name}: {what}", mean_of(np.array(values), patients), unit, protocol, bar)
        for what, (values, unit, bar) in columns.items()
    ]
    rows.append(_figure(f"{name}: AOPC over random", ratio_of(maps, patients), "ratio", protocol, ">= 3"))
    return rows


def mean_of(values: NDArray[np.float64], patients: NDArray[np.str_]) -> Estimate:
    """Mean over films with its interval."""
    means = bootstrap(lambda w: {"mean": w @ values / w.sum(1)}, Resampler(len(values), patients))
    return means["mean"]


def ratio_of(maps: Sequence[Measured], patients: NDArray[np.str_]) -> Estimate:
    """Mean AOPC over that of random orders; not defined where hiding at random does not lower the score."""
    own, random = (np.array([getattr(film, key) for film in maps]) for key in ("aopc", "aopc_random"))

    def ratio(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        below = weights @ random
        return {"ratio": np.where(below > 0, weights @ own / np.where(below > 0, below, 1), np.nan)}

    return bootstrap(ratio, Resampler(len(maps), patients))["ratio"]


def _figure(what: str, estimate: Estimate, unit: str, protocol: str, bar: str) -> Figure:
    value = float("nan") if estimate.value is None else estimate.value
    return Figure(what, value, unit, protocol, estimate.n, estimate.low, estimate.high, bar)


if __name__ == "__main__":
    main()
