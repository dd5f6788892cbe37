"""``train``: from a manifest with a patient-grouped split to a run folder with a reader in it.

The order of work: decode and cache pixels, fit the network(s), judge validation (or out-of-fold)
images, calibrate and choose operating points on those alone, save the bundle. The test split
is never opened here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.evaluation.operating import choose_operating_points
from wetread.models.backbones import build_network, load_encoder_weights
from wetread.models.bundle import find_reader, load_any_card, load_guide, round_weights
from wetread.models.card import GateSpec, GuideSpec, HeadSpec, InputSpec
from wetread.models.guide import Guide
from wetread.models.networks import KnnHead, Network
from wetread.models.outlier import FeatureStatistics
from wetread.models.registry import EMBEDDED, resolve_architecture
from wetread.runtime import prepare_torch, seed_everything
from wetread.training.augment import recipe_named
from wetread.training.baselines import fit_knn, fit_linear
from wetread.training.config import CLASSIC, TrainingConfig
from wetread.training.data import LabelledImages, Progress, gather, labels_of, refuse_missing_classes
from wetread.training.features import embed, logits_of
from wetread.training.finish import Judged, make_card, make_gate
from wetread.training.look import learn_look
from wetread.training.outcome import Outcome, TrainingResult, conclude, history_of
from wetread.training.parts import Parts, fold_pairs, split_pair, used_rows
from wetread.training.prior import restore_prior
from wetread.training.run import RunFolder, open_run, undone_if_refused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class _Plan:
    """What stays the same for every network of a run."""

    config: TrainingConfig
    manifest: Manifest
    spec: InputSpec
    run: RunFolder
    cache: Path | None
    resume: bool
    progress: Progress | None
    guide: Guide | None = None

    @property
    def softmax(self) -> bool:
        return self.manifest.meta.task == "multiclass"

    @property
    def architecture(self) -> str:
        """Encoder behind ``config.model``; classic baselines stand on the embedded one or on pixels."""
        if self.config.model not in CLASSIC:
            return resolve_architecture(self.config.model)
        return "pixels" if self.config.inputs == "pixels" else EMBEDDED

    @property
    def classic(self) -> str | None:
        """Which head is fitted without gradient descent; None for fine-tuning."""
        if self.config.model in CLASSIC:
            return self.config.model
        return "logistic" if self.config.mode == "features" else None


@dataclass(frozen=True)
class _Fitted:
    """One network and what it says of the images it did not see; embeddings are (N, D)."""

    network: Network
    head: HeadSpec
    logits: NDArray[np.float32]
    trained: NDArray[np.float32]
    judged: NDArray[np.float32]
    facts: dict[str, object]


def train(
    manifest: Manifest,
    config: TrainingConfig,
    out: Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    shelves: Sequence[Path] = (),
) -> TrainingResult:
    """Train a reader into ``out`` (a new run folder); see :class:`TrainingConfig` for every setting.

    ``cache``: folder for decoded pixels and features, or None for no cache. ``resume``: go on
    from the last checkpoint in ``out`` with the settings stored there. ``shelves``: folders in which
    the segmenter of a guided reader is looked for, before those that are shipped.

    Raises:
        SplitRefused: no train or validation images, or the split leaks.
        DatasetRefused: unreadable images, or a class without images.
        TrainingFailed: the loss diverged or the disk is full.
        Interrupted: stopped by the user, checkpoint saved.
    """
    started = time.perf_counter()
    assert_no_leak(manifest)
    labels_of(manifest.meta)
    run, config = open_run(out, config, resume=resume)
    with undone_if_refused(run, resume=resume):
        prepare_torch(config.threads)
        seed_everything(config.seed)
        guide = _guide(config, shelves)
        plan = _Plan(config, manifest, _input_spec(config), run, cache, resume, progress, guide)
        _refuse_contradictions(plan)
        parts = _parts(plan)
        images = gather(manifest, used_rows(parts), plan.spec, cache, progress, guide=guide)
        decoded = time.perf_counter()
        fitted, judged, gate = _fit_parts(plan, images, parts)
        trained = time.perf_counter()
        seconds = {"decoding": round(decoded - started, 2), "training": round(trained - decoded, 2)}
        return _finish(plan, fitted, judged, gate, parts, seconds)


def _input_spec(config: TrainingConfig) -> InputSpec:
    return InputSpec(height=config.image_size, width=config.image_size, fit=config.fit, standardise=config.standardise)


def _guide(config: TrainingConfig, shelves: Sequence[Path]) -> Guide | None:
    """The segmenter that shows the network its organ; None without ``--guide``."""
    if config.guide == "none":
        return None
    folder = find_reader(config.segmenter, shelves)
    card = load_any_card(folder)
    spec = GuideSpec(
        kind=config.guide,
        organ=config.organ,
        segmenter=config.segmenter,
        sha256=card.sha256,
        margin=config.margin,
        fill=config.fill,
    )
    return load_guide(spec, shelves)


def _refuse_contradictions(plan: _Plan) -> None:
    """Refuse now what would otherwise be found after hours: names, rules, settings that exclude each other."""
    architecture = plan.architecture
    recipe_named(plan.config.augment)
    choose_operating_points([0.25, 0.75], [0, 1], "any", plan.config.operating_points)
    if plan.config.inputs == "pixels" and plan.config.model not in CLASSIC:
        raise UsageError(
            expected("knn, svm or logistic with --inputs pixels", plan.config.model, "use --mode finetune --model cnn")
        )
    if plan.classic and plan.guide and not plan.guide.spec.when_reading:
        raise UsageError(
            expected(
                f"a network that learns for --guide {plan.guide.spec.kind}",
                f"--mode {plan.config.mode} --model {plan.config.model}",
                "use --mode finetune, or --guide mask",
            )
        )
    if plan.config.mode == "features" and architecture == "cnn":
        raise UsageError(expected("an encoder with learned weights for --mode features", "cnn", "use --mode finetune"))


def _parts(plan: _Plan) -> Parts:
    """(train, validation) tables, one pair per network."""
    if plan.config.folds:
        return fold_pairs(plan.manifest, plan.config.folds, plan.config.seed)
    return [split_pair(plan.manifest.table)]


def _fit_parts(
    plan: _Plan, images: LabelledImages, parts: Parts
) -> tuple[list[_Fitted], Judged, tuple[FeatureStatistics, GateSpec] | None]:
    """Fit a network per part; gather what each says of the images it did not see."""
    place = {path: i for i, path in enumerate(images.table["path"])}
    rows = [tuple(np.array([place[path] for path in table["path"]]) for table in pair) for pair in parts]
    seen = images.take(np.concatenate([judged for _, judged in rows]))
    labels = labels_of(plan.manifest.meta)
    refuse_missing_classes(seen.targets, labels, "validation")
    for trained, _ in rows:
        refuse_missing_classes(images.targets[trained], labels, "training")
    fitted, distances, gate = [], [], None
    for number, (trained, judged) in enumerate(rows):
        one = _fit_one(plan, images.take(trained), images.take(judged), number, len(parts))
        if plan.config.gate:
            statistics, spec, apart = make_gate(one.trained, one.judged, plan.config)
            if gate is None:
                look = learn_look(plan.manifest, *parts[0], plan.config.seed)
                gate = statistics, spec.model_copy(update={"look": look})
            distances.append(apart * gate[1].limit / spec.limit)  # each in units of its own network's limit
        fitted.append(one)
    logits = np.concatenate([one.logits for one in fitted])
    apart_all = np.concatenate(distances) if distances else None
    return fitted, Judged(seen.table, logits, seen.targets, seen.patients, apart_all), gate


def _fit_one(plan: _Plan, train_images: LabelledImages, judged: LabelledImages, number: int, count: int) -> _Fitted:
    if plan.classic:
        return _fit_classic(plan, plan.classic, train_images, judged)
    from wetread.training.finetune import FinetuneTask, finetune  # Lightning takes seconds to import

    pooling: Literal["mean", "attention"] = "attention" if plan.config.guide == "attention" else "mean"
    head = HeadSpec(kind=plan.config.head, pooling=pooling, dropout=plan.config.dropout)
    network = build_network(
        plan.architecture,
        head,
        plan.spec,
        judged.targets.shape[1],
        softmax=plan.softmax,
        drop_path=plan.config.drop_path,
    )
    origin = load_encoder_weights(network.encoder, plan.config.model, plan.config.weights)
    title = "training" if count == 1 else f"training fold {number + 1}/{count}"
    task = FinetuneTask(
        train=train_images,
        validation=judged,
        spec=plan.spec,
        config=plan.config,
        softmax=plan.softmax,
        folder=plan.run.path if count == 1 else plan.run.path / f"fold-{number + 1}",
        allowed_flips=plan.manifest.meta.allowed_flips,
        title=title,
    )
    network = finetune(network, task, resume=plan.resume, progress=plan.progress)
    if plan.config.balance != "none":
        restore_prior(network.head, train_images.targets, softmax=plan.softmax)
    round_weights(network)
    logits, embedded = logits_of(network, judged, plan.spec, plan.config.views)
    trained = embed(network, _some(train_images, plan.config.seed), plan.spec)
    return _Fitted(network, head, logits, trained, embedded, {"weights": origin})


def _some(images: LabelledImages, seed: int, most: int = 2000) -> LabelledImages:
    """At most ``most`` images drawn at random: enough for the feature statistics of the gate."""
    if len(images) <= most:
        return images
    return images.take(np.sort(np.random.default_rng(seed).choice(len(images), most, replace=False)))


def _fit_classic(plan: _Plan, kind: str, train_images: LabelledImages, judged: LabelledImages) -> _Fitted:
    outputs = judged.targets.shape[1]
    head = HeadSpec(kind="knn", references=len(train_images)) if kind == "knn" else HeadSpec(dropout=0.0)
    network = build_network(plan.architecture, head, plan.spec, outputs, softmax=plan.softmax)
    origin = load_encoder_weights(network.encoder, plan.architecture, plan.config.weights)
    if origin == "random" and plan.architecture != "pixels":
        raise DatasetRefused(
            expected(
                f"learned weights for {plan.architecture} in --mode features",
                "random ones",
                f"give --weights FILE, use --model {EMBEDDED}, or --mode finetune",
            )
        )
    cache = plan.cache if plan.architecture != "pixels" else None
    x = embed(network, train_images, plan.spec, cache, plan.progress)
    judged_x = embed(network, judged, plan.spec, cache, plan.progress)
    facts: dict[str, object] = {"weights": origin, "fit": kind}
    if isinstance(network.head, KnnHead):
        fit_knn(network.head, (x, train_images.targets))
    else:
        network.head, facts["strength"] = fit_linear(
            kind, (x, train_images.targets), (judged_x, judged.targets), seed=plan.config.seed
        )
    if kind == "logistic":  # fitted with balanced weights; an SVM has no probabilities to correct
        restore_prior(network.head, train_images.targets, softmax=plan.softmax)
    round_weights(network.eval())
    if plan.config.views > 1:
        logits, _ = logits_of(network, judged, plan.spec, plan.config.views)
    else:
        logits = _logits_of_embeddings(network, judged_x)
    return _Fitted(network, head, logits, x, judged_x, facts)


def _logits_of_embeddings(network: Network, embedded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits (N, outputs) without running the encoder again."""
    import torch

    with torch.inference_mode():
        logits: NDArray[np.float32] = network.head(torch.from_numpy(embedded)).numpy()
    return logits


def _finish(
    plan: _Plan,
    fitted: list[_Fitted],
    judged: Judged,
    gate: tuple[FeatureStatistics, GateSpec] | None,
    parts: Parts,
    seconds: dict[str, float],
) -> TrainingResult:
    """Calibrate, and save what the run folder holds."""
    first = fitted[0]
    history = history_of(plan.config, plan.manifest, first.network, seconds, start=first.facts)
    folded = len(parts) > 1
    trained_on = used_rows(parts) if folded else parts[0][0]
    card = make_card(
        plan.config,
        plan.manifest,
        (plan.architecture, first.head, plan.spec),
        judged,
        gate[1] if gate else None,
        trained_on,
        history,
    ).model_copy(update={"guide": plan.guide.spec if plan.guide else None})
    networks = [one.network for one in fitted]
    outcome = Outcome(card, networks, gate[0] if gate else None, judged, folded, seconds)
    return conclude(plan.run, plan.config, plan.manifest, outcome)
