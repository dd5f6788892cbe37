"""Cardiomegaly by the ruler, by a classifier that sees the heart alone, and by one that sees the whole film.

Phantoms of sources that neither segmenter nor classifiers saw. A film is called by the same functions that
``wetread read`` calls; the test films choose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.lungs import progress
from benchmarks.phantom_organs import ORGANS, RECIPE, ratio
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.phantoms import SOURCES, DatasetPlan, make_dataset
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import Resampler, bootstrap, proportion
from wetread.evaluation.labels import rate_estimates
from wetread.models.bundle import load_reader
from wetread.models.predict import Reader
from wetread.reading.agreement import LABEL, LIMIT
from wetread.reading.feed import Source
from wetread.reading.measures import CARDIOTHORACIC_RATIO
from wetread.reading.read import ReadOptions, ReadResult, read_images
from wetread.runtime import prepare_torch
from wetread.training.config import SegmentConfig, TrainingConfig, config_of, load_recipe, make_config
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.training.segment import train_segmenter
from wetread.training.segment_data import load_annotated
from wetread.types import Estimate, Read

SIDE_PX = 320
ANNOTATED, LABELLED, UNSEEN = 200, 480, 360
SEGMENTER: dict[str, object] = {"name": "heart-and-lungs", "image_size": 160}
"""The recipe of ``make phantom-organs``, made small enough for a few minutes."""
READERS: dict[str, dict[str, object]] = {"guided": {"guide": "mask", "organ": "heart"}, "unguided": {}}
SEEN, NEW = list(SOURCES)[:-2], list(SOURCES)[-2:]
PROTOCOL = (
    f"{UNSEEN} phantoms of {SIDE_PX} px, sources {' and '.join(NEW)}, most patients with one or more of cardiomegaly, "
    f"effusion and consolidation of any severity; segmenter trained on {ANNOTATED} and classifiers (frozen features, "
    f"three labels) on {LABELLED} other films of the other sources, 15 % of their patients for validation, where "
    "thresholds were chosen; 95 % intervals over patients"
)
SCORED = f"{PROTOCOL}; films that the gate refuses are counted with their score"
PAIRS = (
    f"{PROTOCOL}; only films on which both speak: PA films of adults that the gate passes; ratio above {LIMIT} is "
    "positive; phantoms have no ratio between 0.48 and 0.53, so the ruler has it easier than with people"
)


@dataclass(frozen=True)
class Films:
    """The test films: reads, truth (N,), ratio of the true masks (N,) with NaN where there is none, patients (N,)."""

    reads: Sequence[Read]
    truth: NDArray[np.bool_]
    true_ratio: NDArray[np.float64]
    patients: NDArray[np.str_]


def main() -> None:
    parser = arguments(__doc__, "results/cardiac.csv")
    parser.add_argument("--work", type=Path, default=Path("runs/cardiac"), help="what is here is not made again")
    asked = parser.parse_args()
    prepare_torch()
    figures = measured(asked.work)
    write_figures(asked.out, figures)
    for figure in figures:
        around = "" if figure.low is None else f"({figure.low:.4f} to {figure.high:.4f})"
        print(f"{figure.what:66} {figure.value:9.4f} {around:20} n={figure.n} {figure.met}")


def measured(work: Path, counts: tuple[int, int, int] = (ANNOTATED, LABELLED, UNSEEN)) -> list[Figure]:
    """Make the films and networks that are not in ``work`` yet, and measure."""
    halves = {"train": 0.85, "val": 0.15}
    annotated = made(work / "annotated", counts[0], SEEN, seed=51, fractions=halves)
    labelled = made(work / "labelled", counts[1], SEEN, seed=52, fractions=halves)
    unseen = made(work / "unseen", counts[2], NEW, seed=53, fractions={})
    segmenter = found_segmenter(annotated, work / "segmenter")
    readers = {name: trained(labelled, name, segmenter, work) for name in READERS}
    figures = []
    for name, reader in readers.items():
        figures += alone(name, reader, predict_manifest(reader, unseen, None, progress=progress))
    return figures + beside(films_of(readers["guided"], unseen))


def made(folder: Path, count: int, sources: list[str], *, seed: int, fractions: dict[str, float]) -> Manifest:
    """Phantoms on disk, once; seven in ten patients have at least one of three findings."""
    if (folder / "dataset.toml").is_file():
        return load_manifest(folder)
    plan = DatasetPlan(
        count,
        seed=seed,
        kinds=("cardiomegaly", "effusion", "consolidation"),
        task="multilabel",
        prevalence=0.7,
        mildest=0.0,
        sources=tuple(sources),
        size_px=SIDE_PX,
        fractions=fractions,
    )
    return make_dataset(folder, plan)


def found_segmenter(manifest: Manifest, run: Path) -> Path:
    """The folder of the segmenter of lungs and heart, trained unless it is there."""
    if not (run / "reader" / "card.json").is_file():
        config = config_of(SegmentConfig, load_recipe(RECIPE, SegmentConfig) | SEGMENTER)
        train_segmenter(manifest, config, run, resume=(run / "config.toml").is_file(), progress=progress)
    return run / "reader"


def trained(manifest: Manifest, name: str, segmenter: Path, work: Path) -> Reader:
    """One of :data:`READERS`, trained unless it is there; they differ in nothing but the guide."""
    run = work / name
    if not (run / "reader" / "card.json").is_file():
        train(manifest, settings(name, segmenter), run, cache=work / "cache", progress=progress)
    return load_reader(run / "reader")


def settings(name: str, segmenter: Path) -> TrainingConfig:
    """Settings of one of :data:`READERS`."""
    guide = READERS[name]
    return make_config({"name": name, "tensorboard": False} | guide | ({"segmenter": str(segmenter)} if guide else {}))


def films_of(reader: Reader, manifest: Manifest) -> Films:
    """Read every film as ``wetread read`` does."""
    table = manifest.table.reset_index(drop=True)
    sources = [Source(manifest.path_of(path), path) for path in table["path"]]
    results = list(read_images(reader, sources, ReadOptions(heatmaps=False)))
    reads = [result.read for result in results if isinstance(result, ReadResult)]
    if len(reads) < len(sources):
        raise SystemExit(f"expected {len(sources)} films, got {len(reads)} that can be read; make them again")
    return Films(
        reads,
        table[f"label_{LABEL}"].to_numpy() == 1,
        np.array([true_ratio(manifest, row) for _, row in table.iterrows()]),
        table["patient"].to_numpy(dtype=np.str_),
    )


def true_ratio(manifest: Manifest, row: pd.Series) -> float:
    """The ratio of the true masks; NaN where it cannot be measured."""
    _, masks = load_annotated(manifest, row, ORGANS)
    value = ratio({organ: mask for organ, mask in masks.items() if mask is not None})
    return float("nan") if value is None else value


def alone(name: str, reader: Reader, predictions: pd.DataFrame) -> list[Figure]:
    """AUROC and accuracy of one classifier on every film, at the default operating point of its card."""
    point = reader.card.operating_point(LABEL)
    if point is None:
        raise SystemExit(f"expected an operating point for {LABEL}, got none; train on more films")
    score, truth = predictions[f"probability_{LABEL}"].to_numpy(), predictions[f"target_{LABEL}"].to_numpy() == 1
    patients = predictions["patient"].to_numpy(dtype=np.str_)
    accuracy = proportion((score >= point.threshold) == truth, patients)
    return [
        figure(f"{name} classifier: AUROC", auroc_estimate(score, truth, groups=patients), SCORED, "AUROC"),
        figure(f"{name} classifier: accuracy", accuracy, SCORED),
    ]


def beside(films: Films) -> list[Figure]:
    """The ruler alone, and ruler and guided classifier beside each other."""
    both = np.array([read.agreement is not None and read.agreement.agree is not None for read in films.reads])
    pairs = [read.agreement for read in films.reads if read.agreement is not None and read.agreement.agree is not None]
    ruler = np.array([one.measure_says == "positive" for one in pairs])
    classifier = np.array([one.classifier_says == "positive" for one in pairs])
    truth, patients, same = films.truth[both], films.patients[both], ruler == classifier
    together = rate_estimates(ruler, classifier, patients, Resampler(len(pairs), patients))
    gated = proportion([not read.gate.passed for read in films.reads], films.patients)
    return [
        ratio_error(films),
        figure("ratio rule alone: accuracy", proportion(ruler == truth, patients), PAIRS),
        figure("guided classifier, same films: accuracy", proportion(classifier == truth, patients), PAIRS),
        figure("ratio rule and guided classifier: share that agrees", together["accuracy"], PAIRS),
        figure("ratio rule and guided classifier: Cohen's kappa", together["kappa"], PAIRS, "kappa"),
        figure("where they agree: accuracy", proportion((ruler == truth)[same], patients[same]), PAIRS),
        figure(
            "where they disagree: accuracy of the ratio rule",
            proportion((ruler == truth)[~same], patients[~same]),
            PAIRS,
        ),
        figure("films that are not compared (AP, refused)", proportion(~both, films.patients), PROTOCOL),
        figure("films that the gate of the guided reader refuses", gated, PROTOCOL),
    ]


def ratio_error(films: Films) -> Figure:
    """Mean absolute difference between the ratios of found and of true masks, on the films that were read."""
    found = np.array([measured_ratio(read) for read in films.reads])
    known = np.isfinite(found) & np.isfinite(films.true_ratio)
    errors = np.abs(found - films.true_ratio)[known]
    estimate = bootstrap(
        lambda weights: {"mean": weights @ errors / weights.sum(axis=1)}, Resampler(len(errors), films.patients[known])
    )["mean"]
    protocol = f"{PROTOCOL}; against the ratio of the true masks, in every view, films that the gate refuses left out"
    return figure("mean absolute error of the cardiothoracic ratio", estimate, protocol, "ratio", "<= 0.02")


def measured_ratio(read: Read) -> float:
    """The ratio among the measures of a read; NaN where there is none."""
    values = [one.value for one in read.measures if one.name == CARDIOTHORACIC_RATIO]
    return float("nan") if not values or values[0] is None else values[0]


def figure(what: str, estimate: Estimate, protocol: str, unit: str = "share", bar: str = "") -> Figure:
    """One row with its interval; the note says why there is none."""
    value = float("nan") if estimate.value is None else estimate.value
    noted = "; ".join(filter(None, (protocol, estimate.method, estimate.note)))
    return Figure(what, value, unit, noted, estimate.n, estimate.low, estimate.high, bar)


if __name__ == "__main__":
    main()
