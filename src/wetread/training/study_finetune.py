"""End-to-end learning on studies: exact gradients of studies of any size, in the memory of a few images.

A step first embeds all images of its studies without gradients, a few at a time; the loss of the pooled answers gives
the gradient of each embedding; then the same few images are seen again, each with its gradient (gradient caching,
Gao et al., RepL4NLP 2021). The encoder stays in evaluation mode: batch statistics are those it came with, so that both
passes agree and an answer does not depend on which studies share a step.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetread.datasets.manifest import Manifest
from wetread.errors import Interrupted, TrainingFailed, expected
from wetread.models.bundle import round_weights
from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.mil import StudyNetwork, ViewHead, position_numbers
from wetread.provenance import disk_errors
from wetread.training import augment
from wetread.training.data import Progress, gather, to_float
from wetread.training.losses import classification_loss
from wetread.training.score import mean_auroc
from wetread.training.study_config import StudyConfig
from wetread.training.study_data import Bags
from wetread.training.study_features import embed_images
from wetread.training.study_fit import BagFeatures, EpochLog, averaged, bag_logits, left_in, schedule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FinetunedStudies", "StudyTask", "finetune_study", "study_step"]

_SCALE_IMAGES = 512
"""Training images whose embeddings scale the input of the head before the first step."""
_GATE_IMAGES = 2000


@dataclass(frozen=True)
class StudyTask:
    """One network to train: the image table, the studies to train on and to judge, and where checkpoints go."""

    manifest: Manifest
    table: pd.DataFrame
    train: Bags
    judged: Bags
    spec: InputSpec
    config: StudyConfig
    softmax: bool
    folder: Path

    @property
    def recipe(self) -> augment.Recipe:
        """How training images are varied."""
        return augment.recipe_named(self.config.augment, self.manifest.meta.allowed_flips)

    def positions(self, network: StudyNetwork, views: list[object]) -> Tensor | None:
        """Number of the layer of each image, or None where all views share one."""
        names = self.view_names
        if len(cast(ViewHead, network.head).layers) == 1:
            return None
        return torch.from_numpy(position_numbers(views, names))

    @property
    def view_names(self) -> tuple[str, ...]:
        """Views with a layer of their own, as the card lists them."""
        return tuple(sorted({str(view).upper() for view in self.table["view"].dropna()}))


@dataclass(frozen=True)
class FinetunedStudies:
    """Logits (B, outputs) of the judged studies, embeddings (N, D) of some training and of the judged images."""

    logits: NDArray[np.float32]
    trained: NDArray[np.float32]
    judged: NDArray[np.float32]
    epoch: int


@dataclass
class _State:
    """What a checkpoint holds beside the network: the averaged weights, the best so far, and where the run is."""

    kept: StudyNetwork
    optimiser: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    best: dict[str, Tensor]
    best_score: float = -np.inf
    best_epoch: int = 0
    epoch: int = 0


def finetune_study(
    network: StudyNetwork, task: StudyTask, *, resume: bool = False, progress: Progress | None = None
) -> FinetunedStudies:
    """Train ``network`` in place; it ends with the averaged weights of its best epoch, rounded as a bundle stores them.

    Raises:
        Interrupted: stopped by the user; ``checkpoints/last.ckpt`` holds the last whole epoch.
        TrainingFailed: the loss is no number, or the disk is full.
    """
    some = task.table.iloc[_sample(np.concatenate(task.train.rows), _SCALE_IMAGES, task.config.seed)]
    cast(ViewHead, network.head).standardise(_embed(network, task, some), learning=True)
    state = _begin(network, task)
    log = EpochLog(task.folder)
    if resume:
        _load(network, state, task.folder)
    steps = -(-len(task.train) // task.config.batch_size)
    try:
        while state.epoch < task.config.epochs and state.epoch - state.best_epoch < task.config.patience:
            loss = _epoch(network, state, task, steps, progress)
            score, judged_loss = _judge(state.kept, task)
            log.add(state.epoch, (state.epoch + 1) * steps, loss, judged_loss, score)
            if not score <= state.best_score:  # NaN, where a class is missing, counts as better than nothing
                state.best, state.best_score = copy.deepcopy(state.kept.state_dict()), score
                state.best_epoch = state.epoch
            state.epoch += 1
            _save(network, state, task.folder)
    except KeyboardInterrupt as stopped:
        place = task.folder / "checkpoints"
        raise Interrupted(f"stopped; the last whole epoch is saved in {place}; go on with --resume") from stopped
    network.load_state_dict(state.best)
    round_weights(network.eval())
    judged = _features(network, task, task.judged)
    rows = _sample(np.concatenate(task.train.rows), _GATE_IMAGES, task.config.seed)
    trained = _embed(network, task, task.table.iloc[rows])
    return FinetunedStudies(bag_logits(network, judged), trained, judged.vectors.numpy(), state.best_epoch)


def _begin(network: StudyNetwork, task: StudyTask) -> _State:
    config = task.config
    groups = [
        {"params": list(network.encoder.parameters()), "lr": config.learning_rate * config.encoder_rate},
        {"params": [*network.head.parameters(), *network.pool.parameters()], "lr": config.learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    rate = schedule(optimiser, config, -(-len(task.train) // config.batch_size))
    kept = copy.deepcopy(network)
    return _State(kept, optimiser, rate, copy.deepcopy(kept.state_dict()))


def _epoch(network: StudyNetwork, state: _State, task: StudyTask, steps: int, progress: Progress | None) -> float:
    """One pass over the training studies; return the mean loss."""
    rng = np.random.default_rng([task.config.seed, state.epoch])
    network.head.train()
    network.pool.train()
    network.encoder.eval()
    losses = []
    for number, bags in enumerate(np.array_split(rng.permutation(len(task.train)), steps), 1):
        state.optimiser.zero_grad()
        torch.manual_seed(int(rng.integers(2**31)))
        losses.append(study_step(network, task, bags, rng, whole=state.epoch >= task.config.head_epochs))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        state.optimiser.step()
        state.rate.step()
        averaged(state.kept, network, task.config.averaging, state.epoch * steps + number)
        if progress:
            progress("training", state.epoch * steps + number, task.config.epochs * steps)
    return float(np.mean(losses))


def study_step(
    network: StudyNetwork, task: StudyTask, bags: NDArray[np.intp], rng: np.random.Generator, *, whole: bool = True
) -> float:
    """Add the gradients of the mean loss of ``bags`` and return that loss; at most ``images_held`` images are held.

    ``whole`` False: those of head and pooling alone.

    Raises:
        TrainingFailed: the loss is no number.
    """
    held = task.config.images_held
    chosen = [left_in(task.train.rows[bag], task.config.drop_views, rng) for bag in bags]
    rows, lengths = np.concatenate(chosen), [len(part) for part in chosen]
    seed = int(rng.integers(2**31))
    chunks = list(_chunks(task, rows, held, seed))
    positions = task.positions(network, task.table["view"].iloc[rows].tolist())
    targets = torch.from_numpy(task.train.targets[bags])
    at_once = whole and len(rows) <= held
    with torch.set_grad_enabled(at_once):
        vectors = torch.cat([network.embed(network.features(part())) for part in chunks])
    if not at_once:
        vectors = vectors.detach().requires_grad_(whole)
    loss = classification_loss(network.study(vectors, lengths, positions).logits, targets, softmax=task.softmax)
    if not bool(torch.isfinite(loss)):
        raise TrainingFailed(expected("a finite loss", f"{float(loss.detach())}", "lower --learning-rate"))
    loss.backward()
    if whole and not at_once:
        assert vectors.grad is not None  # noqa: S101  backward has just filled it
        for part, gradient in zip(chunks, vectors.grad.split(held), strict=True):
            torch.autograd.backward(network.embed(network.features(part())), gradient)
    return float(loss.detach())


@dataclass(frozen=True)
class _Chunk:
    """A few images that are decoded and varied anew, in the same way, each time they are asked for."""

    task: StudyTask
    rows: NDArray[np.intp]
    seed: int

    def __call__(self) -> Tensor:
        task = self.task
        pixels = to_float(gather(task.manifest, task.table.iloc[self.rows], task.spec, None).pixels)
        moves = augment.sample(task.recipe, len(pixels), torch.Generator().manual_seed(self.seed))
        return normalise(augment.apply(pixels, moves), task.spec)


def _chunks(task: StudyTask, rows: NDArray[np.intp], held: int, seed: int) -> Iterator[_Chunk]:
    for start in range(0, len(rows), held):
        yield _Chunk(task, rows[start : start + held], seed + start)


def _sample(rows: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _embed(network: StudyNetwork, task: StudyTask, table: pd.DataFrame) -> NDArray[np.float32]:
    return embed_images([network], task.manifest, table, task.spec, held=task.config.images_held)[:, 0]


def _features(network: StudyNetwork, task: StudyTask, bags: Bags) -> BagFeatures:
    rows = np.concatenate(bags.rows)
    table = task.table.iloc[rows]
    vectors = torch.from_numpy(_embed(network, task, table))
    positions = task.positions(network, table["view"].tolist())
    return BagFeatures(vectors, np.array(bags.lengths), torch.from_numpy(bags.targets), positions)


def _judge(network: StudyNetwork, task: StudyTask) -> tuple[float, float]:
    """AUROC and loss of the judged studies."""
    bags = _features(network.eval(), task, task.judged)
    logits = bag_logits(network, bags)
    loss = classification_loss(torch.from_numpy(logits), bags.targets, softmax=task.softmax)
    return mean_auroc(logits, bags.targets.numpy()), float(loss)


def _save(network: StudyNetwork, state: _State, folder: Path) -> None:
    """Write ``checkpoints/last.ckpt`` whole or not at all."""
    place = folder / "checkpoints"
    content = {
        "network": network.state_dict(),
        "kept": state.kept.state_dict(),
        "best": state.best,
        "optimiser": state.optimiser.state_dict(),
        "rate": state.rate.state_dict(),
        "numbers": [float(state.best_score), state.best_epoch, state.epoch],
    }
    with disk_errors(place, TrainingFailed):
        place.mkdir(parents=True, exist_ok=True)
        torch.save(content, place / "last.partial")
        (place / "last.partial").replace(place / "last.ckpt")


def _load(network: StudyNetwork, state: _State, folder: Path) -> None:
    """Go on from the last whole epoch, or begin where there is none."""
    file = folder / "checkpoints" / "last.ckpt"
    if not file.is_file():
        return
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        cure = "remove it to begin anew, or start a new run"
        raise TrainingFailed(expected(f"a whole checkpoint in {file}", "a damaged one", cure)) from error
    network.load_state_dict(content["network"])
    state.kept.load_state_dict(content["kept"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.rate.load_state_dict(content["rate"])
    state.best = content["best"]
    state.best_score, state.best_epoch, state.epoch = content["numbers"]
