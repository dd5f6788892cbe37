"""Fine-tuning one network for classification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from wetread.models.card import InputSpec
from wetread.models.networks import Network
from wetread.training.augment import recipe_named
from wetread.training.config import TrainingConfig
from wetread.training.data import LabelledImages, Progress
from wetread.training.loop import Loop, run_loop
from wetread.training.losses import class_weights
from wetread.training.module import FinetuneModule, train_loader, validation_loader

__all__ = ["FinetuneTask", "finetune"]


@dataclass(frozen=True)
class FinetuneTask:
    """One network to train: on what, judged by what, and where its checkpoints and logs go."""

    train: LabelledImages
    validation: LabelledImages
    spec: InputSpec
    config: TrainingConfig
    softmax: bool
    folder: Path
    allowed_flips: tuple[str, ...] = ()
    title: str = "training"


def finetune(
    network: Network, task: FinetuneTask, *, resume: bool = False, progress: Progress | None = None
) -> Network:
    """Train ``network`` and return it with the (averaged) weights of the best validation epoch.

    Raises:
        Interrupted: stopped by the user; ``checkpoints/last.ckpt`` holds the last whole epoch.
        TrainingFailed: the loss is no number, or the disk is full.
    """
    config = task.config
    weights = class_weights(task.train.targets, softmax=task.softmax)  # also refuses a single class
    module = FinetuneModule(
        network.to(memory_format=torch.channels_last),
        task.spec,
        config,
        recipe_named(config.augment, task.allowed_flips),
        softmax=task.softmax,
        weights=weights if config.balance == "weights" else None,
    )
    loop = Loop(config, task.folder, "val_auroc", len(task.train), task.title)
    loaders = (train_loader(task.train, config, config.seed), validation_loader(task.validation))
    run_loop(module, loop, loaders, resume=resume, progress=progress)
    return network.eval()
