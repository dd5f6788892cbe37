"""Many networks on one split: networks x guides x seeds from one configuration, trained, tested, and kept.

Decided here: each combination is an ordinary run folder, so that it can be read, explained and audited like any other;
what is finished is not trained again; the test split is read once for each finished reader, at its own operating point.
"""

from __future__ import annotations

import difflib
import itertools
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from wetread.datasets.manifest import Manifest
from wetread.errors import UsageError, expected
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationResult, EvaluationSpec
from wetread.models.bundle import load_card, load_reader
from wetread.provenance import atomic_file
from wetread.training.config import CLASSIC, TrainingConfig, make_config, plain_name
from wetread.training.data import Progress
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.types import Estimate, Record

__all__ = ["GridConfig", "GridRow", "grid_of", "load_grid", "run_one"]

PREDICTIONS = "test-predictions.parquet"
RESULTS = "test-results.json"
SPEED = "test-speed.txt"


class GridConfig(Record):
    """What to compare: every network with every guide and every seed.

    ``settings`` hold for all runs and ``of`` for one network by its name; both take what ``wetread train`` takes.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    guides: tuple[str, ...] = ("none",)
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = Field(default_factory=dict)
    of: dict[str, dict[str, Any]] = Field(default_factory=dict)


class GridRow(Record):
    """One reader of the table: its run, what it reached on the test split, and what it cost.

    ``parameters``: of its network. ``training_s``: decoding and training. ``images_per_s``: test images read after the
    first batch, as this machine was then; None for a test of one batch. ``accuracy``, ``balanced_accuracy`` and
    ``auroc`` (macro average of several labels) carry their intervals.
    """

    name: str
    network: str
    guide: str
    seed: int
    folder: str
    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate
    parameters: int
    training_s: float
    images_per_s: float | None
    audit_verdict: str
    result: EvaluationResult


def load_grid(path: Path) -> GridConfig:
    """Read the configuration of a comparison from TOML.

    Raises:
        UsageError: no such file, no TOML, an unknown key, or settings for a network that is not compared.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            expected(f"a comparison in TOML at {path.name}", type(error).__name__, "check path and syntax")
        ) from error
    for key in given:
        if key not in GridConfig.model_fields:
            near = difflib.get_close_matches(key, GridConfig.model_fields, n=1)
            cure = f"did you mean '{near[0]}'?" if near else "settings of training go below [settings]"
            raise UsageError(expected(f"keys of a comparison in {path.name}", repr(key), cure))
    try:
        config = GridConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            expected(f"a valid {key} in {path.name}", first["msg"], "see the how-to on comparing")
        ) from error
    foreign = [name for name in config.of if name not in config.networks]
    if foreign:
        raise UsageError(
            expected(f"settings of {', '.join(config.networks)}", f"[of.{foreign[0]}]", "name it in networks")
        )
    return config


def grid_of(config: GridConfig) -> list[TrainingConfig]:
    """Return one training configuration for each combination, networks first, each with a name of its own.

    Raises:
        UsageError: settings that training does not take, or a guide for a baseline without a network.
    """
    found = []
    for network, guide, seed in itertools.product(config.networks, config.guides, config.seeds):
        if network in CLASSIC and guide != "none":
            raise UsageError(expected(f"a network for the guide {guide}", f"the baseline {network}", "leave one out"))
        settings = {"mode": "features" if network in CLASSIC else "finetune"} | config.settings
        settings |= config.of.get(network, {})
        ending = ("" if guide == "none" else f"-{guide}") + f"-seed{seed}"
        own = {"model": network, "guide": guide, "seed": seed, "name": plain_name(network, ending)}
        unknown = [key for key in settings if key not in TrainingConfig.model_fields or key in own]
        if unknown:
            raise UsageError(
                expected(
                    "settings of `wetread train`", repr(unknown[0]), "networks, guides and seeds are keys of their own"
                )
            )
        found.append(make_config(settings | own))
    return found


def run_one(
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    cache: Path | None,
    shelves: Sequence[Path] = (),
    progress: Progress | None = None,
) -> GridRow:
    """Train one reader unless it is there, read the test split unless that was done, and return its row."""
    if not (folder / "reader" / "card.json").is_file():
        resume = (folder / "config.toml").is_file()
        train(manifest, config, folder, cache=cache, resume=resume, progress=progress, shelves=shelves)
    if not (folder / RESULTS).is_file():
        _test(manifest, folder, cache, shelves, progress)
    card = load_card(folder / "reader")
    result = EvaluationResult.model_validate_json((folder / RESULTS).read_text(encoding="utf-8"))
    seconds: Mapping[str, float] = card.training["seconds"]
    return GridRow(
        name=card.name,
        network=config.model,
        guide=config.guide,
        seed=config.seed,
        folder=folder.name,
        accuracy=_found(result, "accuracy"),
        balanced_accuracy=_found(result, "balanced_accuracy"),
        auroc=_found(result, "auroc"),
        parameters=card.training["parameters"],
        training_s=seconds["decoding"] + seconds["training"],
        images_per_s=float((folder / SPEED).read_text(encoding="utf-8") or 0) or None,
        audit_verdict=card.audit_verdict,
        result=result,
    )


def _test(
    manifest: Manifest, folder: Path, cache: Path | None, shelves: Sequence[Path], progress: Progress | None
) -> None:
    """Read the test split once; results are written last, so that a broken-off test is done again."""
    reader = load_reader(folder / "reader", shelves)
    clock = _Clock(progress)
    table = predict_manifest(reader, manifest, "test", cache=cache, progress=clock)
    spec = EvaluationSpec(
        task=reader.card.task,
        classes=reader.card.classes,
        operating_points=reader.card.operating_points,
        reader=reader.card.name,
        split="test",
    )
    result = evaluate(table, spec, manifest=manifest)
    with atomic_file(folder / PREDICTIONS) as part:
        table.to_parquet(part, index=False)
    speed = "" if clock.images_per_s is None else f"{clock.images_per_s:.2f}"
    for name, text in ((SPEED, speed), (RESULTS, result.model_dump_json(indent=1))):
        with atomic_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")


class _Clock:
    """Passes progress on, and takes the time of reading alone: decoding is the same for every network."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress: Callable[[str, int, int], None] = progress or (lambda *_: None)
        self._first: tuple[float, int] | None = None
        self.images_per_s: float | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._progress(stage, done, total)
        if stage != "reading images":
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = (now, done)  # the first batch warms up
        elif done > self._first[1]:
            self.images_per_s = (done - self._first[1]) / (now - self._first[0])


def _found(result: EvaluationResult, metric: str) -> Estimate:
    """The metric over all classes, else that of the one label at its first operating point or over all thresholds."""
    for name in (metric, f"macro_{metric}"):
        if name in result.overall:
            return result.overall[name]
    label = result.labels[0]
    points = label.operating_points[0].metrics if label.operating_points else {}
    return label.metrics.get(metric) or points.get(metric) or Estimate(value=None, note="not given for this task")
