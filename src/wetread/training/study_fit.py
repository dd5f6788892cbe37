"""Fitting head and pooling on embeddings that stay: seconds for thousands of studies of any size."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetread.errors import TrainingFailed, expected
from wetread.models.mil import StudyNetwork
from wetread.training.losses import classification_loss
from wetread.training.score import mean_auroc
from wetread.training.study_config import StudyConfig

__all__ = ["BagFeatures", "EpochLog", "averaged", "bag_logits", "fit_head", "left_in", "schedule"]

_RISE = 0.2
"""Share of the steps in which the one-cycle rate rises, from 1/25 of its peak."""
_JUDGED_IMAGES = 4096
"""Vectors pooled at once when studies are judged: 20 MB for 1280 features."""
Report = Callable[[int, int], None]
"""Called with (epochs done, epochs at most)."""


@dataclass(frozen=True)
class BagFeatures:
    """B studies as vectors: ``vectors`` (M, D) of all images in a row, ``lengths`` images for each study.

    ``positions``: (M,) number of the layer of each image, or None. ``targets``: (B, outputs), NaN unknown.
    """

    vectors: Tensor
    lengths: NDArray[np.intp]
    targets: Tensor
    positions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def rows_of(self, bags: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Rows of ``vectors`` that belong to each of ``bags``."""
        ends = np.cumsum(self.lengths)
        return [np.arange(ends[bag] - self.lengths[bag], ends[bag]) for bag in bags]


class EpochLog:
    """``logs/metrics.csv`` with a line for each epoch, as the reports read it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "logs" / "metrics.csv"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(("epoch", "step", "train_loss", "val_loss", "val_auroc"))

    def add(self, *values: float) -> None:
        """Write epoch, step, training loss, validation loss and validation AUROC."""
        with self.file.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(values)


def fit_head(
    network: StudyNetwork,
    train: BagFeatures,
    judged: BagFeatures,
    config: StudyConfig,
    *,
    softmax: bool,
    log: EpochLog,
    report: Report | None = None,
) -> int:
    """Train head and pooling of ``network`` in place; it ends with the averaged weights of its best epoch.

    The best epoch has the highest mean AUROC of the ``judged`` studies, and among equal ones the lowest loss. Returns
    its number. Each step leaves a share ``config.drop_views`` of the images out.

    Raises:
        TrainingFailed: the loss is no number.
    """
    trained = nn.ModuleDict({"head": network.head, "pool": network.pool})
    steps = -(-len(train) // config.batch_size)
    rates: list[float] = []
    optimiser = torch.optim.AdamW(trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rate = schedule(optimiser, config, steps)
    kept = copy.deepcopy(trained)
    best, best_state, best_epoch = (-np.inf, -np.inf), copy.deepcopy(kept.state_dict()), 0
    generator = np.random.default_rng(config.seed)
    for epoch in range(config.epochs):
        trained.train()
        rates.clear()
        for bags in np.array_split(generator.permutation(len(train)), steps):
            loss = _step(network, train, bags, config, generator, softmax=softmax)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimiser.step()
            rate.step()
            rates.append(float(loss.detach()))
            averaged(kept, trained, config.averaging, epoch * steps + len(rates))
        score, loss_value = _judge(network, kept, judged, softmax=softmax)
        log.add(epoch, (epoch + 1) * steps, float(np.mean(rates)), loss_value, score)
        found = (-np.inf if np.isnan(score) else round(score, 6), -loss_value)
        if found > best:
            best, best_state, best_epoch = found, copy.deepcopy(kept.state_dict()), epoch
        if report:
            report(epoch + 1, config.epochs)
        if epoch - best_epoch >= config.patience:
            break
    trained.load_state_dict(best_state)
    network.eval()
    return best_epoch


def schedule(optimiser: torch.optim.Optimizer, config: StudyConfig, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """One-cycle (rising over a fifth of the run) or cosine rates over all epochs of ``steps`` steps."""
    total = config.epochs * steps
    rise = total * _RISE if config.schedule == "onecycle" else 0.0

    def share(step: int) -> float:
        if step < rise:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, total - rise))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, share)


def averaged(kept: nn.Module, current: nn.Module, decay: float, updates: int) -> None:
    """Move the moving average ``kept`` towards ``current``; its decay rises from 0.2 to ``decay``."""
    share = 1 - min(decay, (1 + updates) / (10 + updates)) if decay else 1.0
    with torch.no_grad():
        for old, new in zip(kept.state_dict().values(), current.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:
                old.copy_(new)


def _step(
    network: StudyNetwork,
    train: BagFeatures,
    bags: NDArray[np.intp],
    config: StudyConfig,
    generator: np.random.Generator,
    *,
    softmax: bool,
) -> Tensor:
    rows = [left_in(one, config.drop_views, generator) for one in train.rows_of(bags)]
    chosen = torch.from_numpy(np.concatenate(rows))
    positions = None if train.positions is None else train.positions[chosen]
    pooled = network.study(train.vectors[chosen], [len(one) for one in rows], positions)
    loss = classification_loss(pooled.logits, train.targets[torch.from_numpy(bags)], softmax=softmax)
    if not bool(torch.isfinite(loss)):
        raise TrainingFailed(expected("a finite loss", f"{float(loss.detach())}", "lower --learning-rate"))
    return loss


def left_in(rows: NDArray[np.intp], dropped: float, generator: np.random.Generator) -> NDArray[np.intp]:
    """All but a share ``dropped`` of the images of a study; at least one stays."""
    if len(rows) == 1 or not dropped:
        return rows
    stays = generator.random(len(rows)) >= dropped
    stays[generator.integers(len(rows))] = True
    return rows[stays]


def bag_logits(network: StudyNetwork, bags: BagFeatures) -> NDArray[np.float32]:
    """Return the logits (B, outputs) of studies by a network in evaluation mode, a bounded number of images at once."""
    network.eval()
    found, start = [], 0
    while start < len(bags):
        taken = int(np.searchsorted(np.cumsum(bags.lengths[start:]), _JUDGED_IMAGES, side="right"))
        index = np.arange(start, start + max(1, taken))
        rows = torch.from_numpy(np.concatenate(bags.rows_of(index)))
        positions = None if bags.positions is None else bags.positions[rows]
        with torch.inference_mode():
            found.append(network.study(bags.vectors[rows], bags.lengths[index].tolist(), positions).logits.numpy())
        start = int(index[-1]) + 1
    return np.concatenate(found)


def _judge(network: StudyNetwork, kept: nn.Module, bags: BagFeatures, *, softmax: bool) -> tuple[float, float]:
    """AUROC and loss of the averaged weights."""
    own = nn.ModuleDict({"head": network.head, "pool": network.pool})
    current = copy.deepcopy(own.state_dict())
    own.load_state_dict(kept.state_dict())
    logits = bag_logits(network, bags)
    own.load_state_dict(current)
    loss = classification_loss(torch.from_numpy(logits), bags.targets, softmax=softmax)
    return mean_auroc(logits, bags.targets.numpy()), float(loss)
