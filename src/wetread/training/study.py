"""``train --level study``: from a manifest with studies to a run folder with a reader of studies in it.

The order of work is that of image readers: embed or fine-tune, judge validation (or out-of-fold) studies, calibrate
and choose operating points on those alone, save the bundle. The test split is never opened here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.evaluation.operating import choose_operating_points
from wetread.models.backbones import load_encoder_weights, make_encoder
from wetread.models.bundle import round_weights
from wetread.models.card import GateSpec, HeadSpec, InputSpec, StudySpec
from wetread.models.mil import StudyNetwork, ViewHead, build_study_network, position_numbers
from wetread.models.outlier import FeatureStatistics
from wetread.models.registry import EMBEDDED, resolve_architecture
from wetread.runtime import prepare_torch, seed_everything
from wetread.training.augment import recipe_named
from wetread.training.data import Progress, labels_of, refuse_missing_classes
from wetread.training.finish import Judged, make_card, make_gate
from wetread.training.outcome import Outcome, TrainingResult, conclude, history_of
from wetread.training.parts import Parts, fold_pairs, split_pair, used_rows
from wetread.training.run import RunFolder, open_run, undone_if_refused
from wetread.training.study_config import StudyConfig
from wetread.training.study_data import Bags, bags_of
from wetread.training.study_features import embed_images
from wetread.training.study_fit import BagFeatures, EpochLog, bag_logits, fit_head

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["train_study"]

Floats = NDArray[np.float32]
_GATE_IMAGES = 2000
"""Images whose features describe what the reader was built for."""


@dataclass(frozen=True)
class _Plan:
    """What stays the same for every network of a run."""

    config: StudyConfig
    manifest: Manifest
    input: InputSpec
    study: StudySpec
    run: RunFolder
    cache: Path | None
    resume: bool
    progress: Progress | None

    @property
    def softmax(self) -> bool:
        return self.manifest.meta.task == "multiclass"

    @property
    def architecture(self) -> str:
        return resolve_architecture(self.config.model)

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(dropout=self.config.dropout)


@dataclass(frozen=True)
class _Fitted:
    """One network, the logits (B, outputs) of the studies it did not see, and embeddings (N, D) for the gate."""

    network: StudyNetwork
    logits: Floats
    trained: Floats
    judged: Floats
    epoch: int


def train_study(
    manifest: Manifest,
    config: StudyConfig,
    out: Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a reader of studies into ``out`` (a new run folder); see :class:`StudyConfig` for every setting.

    ``cache``: folder for features, or None. ``resume``: go on from the last checkpoint in ``out``.

    Raises:
        SplitRefused: no train or validation images, or the split leaks.
        DatasetRefused: no studies, labels that contradict each other, unreadable images, or a class without studies.
        TrainingFailed: the loss diverged or the disk is full.
        Interrupted: stopped by the user, checkpoint saved.
    """
    started = time.perf_counter()
    assert_no_leak(manifest)
    labels = labels_of(manifest.meta)
    run, config = open_run(out, config, resume=resume)
    with undone_if_refused(run, resume=resume):
        prepare_torch(config.threads)
        seed_everything(config.seed)
        parts = fold_pairs(manifest, config.folds, config.seed) if config.folds else [split_pair(manifest.table)]
        table = used_rows(parts)
        bags = bags_of(table, manifest.meta, config.level, config.label_policy)
        pairs = [_divided(bags, table, pair) for pair in parts]
        for trained, judged in pairs:
            refuse_missing_classes(bags.targets[trained], labels, "training")
            refuse_missing_classes(bags.targets[judged], labels, "validation")
        spec = InputSpec(
            height=config.image_size, width=config.image_size, fit=config.fit, standardise=config.standardise
        )
        plan = _Plan(config, manifest, spec, _study_spec(config, manifest, table), run, cache, resume, progress)
        _refuse_contradictions(plan)
        fitted, begun = _fit_all(plan, table, bags, pairs)
        seconds = {"decoding": round(begun - started, 2), "training": round(time.perf_counter() - begun, 2)}
        return _finish(plan, fitted, bags, pairs, parts, seconds)


def _study_spec(config: StudyConfig, manifest: Manifest, table: pd.DataFrame) -> StudySpec:
    """The specification for the card; views with a layer of their own are those of the training images."""
    positions = tuple(sorted({str(view).upper() for view in table["view"].dropna()}))
    if config.view_encoder == "per-view" and not positions:
        raise DatasetRefused(
            expected("view positions for --view-encoder per-view", "none in the column view", "use shared")
        )
    if config.pooling == "noisy-or" and manifest.meta.task == "multiclass":
        raise UsageError(
            expected("labels that do not exclude each other, for noisy-or", "a multi-class task", "use attention")
        )
    return config.specification(positions)


def _refuse_contradictions(plan: _Plan) -> None:
    """Refuse now what would otherwise be found after hours."""
    recipe_named(plan.config.augment)
    choose_operating_points([0.25, 0.75], [0, 1], "any", plan.config.operating_points)
    learned = plan.architecture == EMBEDDED or plan.config.weights is not None
    if plan.config.mode == "features" and (not learned or plan.config.weights == "random"):
        raise UsageError(
            expected(
                f"learned weights for {plan.architecture} in --mode features",
                "random ones",
                f"give --weights FILE, use --model {EMBEDDED}, or --mode finetune",
            )
        )


def _divided(
    bags: Bags, table: pd.DataFrame, pair: tuple[pd.DataFrame, pd.DataFrame]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the studies to train on and to judge; a study is never in both, as it keeps its patient."""
    place = {path: number for number, path in enumerate(table["path"])}
    held = np.zeros(len(table), dtype=np.int8)
    for value, part in zip((1, 2), pair, strict=True):
        held[[place[path] for path in part["path"]]] = value
    side = np.array([held[rows[0]] for rows in bags.rows])
    return np.flatnonzero(side == 1), np.flatnonzero(side == 2)


def _network(plan: _Plan) -> tuple[StudyNetwork, str]:
    encoder = make_encoder(plan.architecture, plan.input, lean=plan.config.mode == "features")
    origin = load_encoder_weights(encoder, plan.config.model, plan.config.weights)
    outputs = len(labels_of(plan.manifest.meta))
    return build_study_network((plan.architecture, plan.study), encoder, outputs, plan.config.dropout), origin


def _fit_all(
    plan: _Plan, table: pd.DataFrame, bags: Bags, pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
) -> tuple[list[_Fitted], float]:
    """Fit a network for each pair; return them and when the fitting itself began."""
    if plan.config.mode == "finetune":
        from wetread.training.study_finetune import StudyTask, finetune_study

        fitted = []
        begun = time.perf_counter()
        for number, (trained, judged) in enumerate(pairs):
            network, _ = _network(plan)
            folder = plan.run.path if len(pairs) == 1 else plan.run.path / f"fold-{number + 1}"
            task = StudyTask(
                plan.manifest,
                table,
                bags.take(trained),
                bags.take(judged),
                plan.input,
                plan.config,
                plan.softmax,
                folder,
            )
            done = finetune_study(network, task, resume=plan.resume, progress=plan.progress)
            fitted.append(_Fitted(network, done.logits, done.trained, done.judged, done.epoch))
        return fitted, begun
    network, _ = _network(plan)
    round_weights(network)  # so that the features are those of the stored encoder, to the last bit
    vectors = embed_images(
        [network],
        plan.manifest,
        table,
        plan.input,
        held=plan.config.images_held,
        cache=plan.cache,
        progress=plan.progress,
    )[:, 0]
    begun = time.perf_counter()
    return [_fit_features(plan, number, (table, bags, vectors), pair) for number, pair in enumerate(pairs)], begun


def _fit_features(
    plan: _Plan,
    number: int,
    data: tuple[pd.DataFrame, Bags, Floats],
    pair: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> _Fitted:
    table, bags, vectors = data
    positions = position_numbers(table["view"].tolist(), plan.study.positions) if plan.study.positions else None
    torch.manual_seed(plan.config.seed + number)
    network, _ = _network(plan)
    train, judged = (_features(bags.take(index), vectors, positions) for index in pair)
    cast(ViewHead, network.head).standardise(train.vectors.numpy())
    folder = plan.run.path if plan.config.folds == 0 else plan.run.path / f"fold-{number + 1}"
    networks = max(1, plan.config.folds)

    def report(done: int, total: int) -> None:
        if plan.progress:
            plan.progress("fitting head and pooling", number * total + done, networks * total)

    log = EpochLog(folder)
    epoch = fit_head(network, train, judged, plan.config, softmax=plan.softmax, log=log, report=report)
    round_weights(network.eval())
    return _Fitted(network, bag_logits(network, judged), train.vectors.numpy(), judged.vectors.numpy(), epoch)


def _features(bags: Bags, vectors: Floats, positions: NDArray[np.int64] | None) -> BagFeatures:
    rows = np.concatenate(bags.rows)
    return BagFeatures(
        torch.from_numpy(vectors[rows]),
        np.array(bags.lengths),
        torch.from_numpy(bags.targets),
        None if positions is None else torch.from_numpy(positions[rows]),
    )


def _gate(plan: _Plan, fitted: _Fitted) -> tuple[FeatureStatistics, GateSpec] | None:
    """Which images the first network was built for; its limit holds single images, not studies."""
    if not plan.config.gate:
        return None
    rng = np.random.default_rng(plan.config.seed)
    trained = fitted.trained
    if len(trained) > _GATE_IMAGES:
        trained = trained[np.sort(rng.choice(len(trained), _GATE_IMAGES, replace=False))]
    statistics, spec, _ = make_gate(trained, fitted.judged, plan.config.for_card())
    return statistics, spec


def _finish(
    plan: _Plan,
    fitted: list[_Fitted],
    bags: Bags,
    pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    parts: Parts,
    seconds: dict[str, float],
) -> TrainingResult:
    """Calibrate on the judged studies, save the bundle and everything that the run folder holds."""
    order = np.concatenate([judged for _, judged in pairs])
    seen = bags.take(order)
    judged = Judged(seen.table, np.concatenate([one.logits for one in fitted]), seen.targets, seen.patients)
    gate = _gate(plan, fitted[0])
    trained_on = used_rows(parts) if len(parts) > 1 else parts[0][0]
    learned = plan.config.weights or ("ImageNet (embedded)" if plan.architecture == EMBEDDED else "random")
    history = history_of(
        plan.config,
        plan.manifest,
        fitted[0].network,
        seconds,
        start={"weights": learned},
        studies=len(bags) if len(parts) > 1 else len(pairs[0][0]),
        epochs=[one.epoch + 1 for one in fitted],
    )
    parts_of_card = (plan.architecture, plan.head, plan.input)
    card = make_card(
        plan.config.for_card(), plan.manifest, parts_of_card, judged, gate[1] if gate else None, trained_on, history
    ).model_copy(update={"study": plan.study})
    networks = [one.network for one in fitted]
    outcome = Outcome(card, networks, gate[0] if gate else None, judged, len(parts) > 1, seconds)
    return conclude(plan.run, plan.config, plan.manifest, outcome)
