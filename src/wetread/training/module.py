"""The Lightning module: one step, one validation AUROC, one optimiser with slower early blocks."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.training import augment
from wetread.training.config import TrainingConfig
from wetread.training.data import LabelledImages, to_float
from wetread.training.guidance import attention_loss, new_backgrounds
from wetread.training.loop import scheduled
from wetread.training.losses import classification_loss
from wetread.training.score import mean_auroc

__all__ = ["FinetuneModule", "parameter_groups", "train_loader", "validation_loader"]

_HEAD_RATE = 3.0
"""The new head learns this much faster than the last block of the encoder."""
_VALIDATION_BATCH = 64

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Pixels float32 (N, 1, H, W) in [0, 1], targets (N, outputs), and organs bool like the pixels where guided."""

    pixels: Tensor
    targets: Tensor
    organs: Tensor | None = None


class _Rows(Dataset[Batch]):
    """What the network sees of each image and is to say of it."""

    def __init__(self, images: LabelledImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, index: list[int]) -> list[Batch]:
        rows = np.asarray(index)
        organs = None if self.images.organs is None else torch.from_numpy(self.images.organs[rows])[:, None]
        return [Batch(to_float(self.images.pixels[rows]), torch.from_numpy(self.images.targets[rows]), organs)]

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]


def _whole(batches: list[Batch]) -> Batch:
    """Batches come out of the data set whole."""
    return batches[0]


def train_loader(images: LabelledImages, config: TrainingConfig, seed: int) -> DataLoader[Batch]:
    """Shuffled (or class-balanced) batches; the last incomplete one is left out."""
    generator = torch.Generator().manual_seed(seed)
    sampler = None
    if config.balance == "sampling":
        positive = np.nan_to_num(images.targets)
        rarity = 1 / np.maximum(positive.mean(0), 1e-6)
        common = 1 / max(1e-6, float(1 - np.clip(positive.sum(1), 0, 1).mean()))
        weights = np.where(positive.any(1), (positive * rarity).max(1), common)
        sampler = WeightedRandomSampler(weights.tolist(), len(images), generator=generator)
    return DataLoader(
        _Rows(images),
        batch_size=min(config.batch_size, len(images)),
        sampler=sampler,
        shuffle=sampler is None,
        generator=generator,
        drop_last=True,
        collate_fn=_whole,
    )


def validation_loader(images: LabelledImages) -> DataLoader[Batch]:
    """All images in order."""
    return DataLoader(_Rows(images), batch_size=_VALIDATION_BATCH, collate_fn=_whole)


class FinetuneModule(lightning.LightningModule):
    """Trains a :class:`Network`; logs ``train_loss``, ``val_loss`` and ``val_auroc``."""

    def __init__(
        self,
        network: Network,
        spec: InputSpec,
        config: TrainingConfig,
        recipe: augment.Recipe,
        *,
        softmax: bool,
        weights: Tensor | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.config = config
        self.recipe = recipe
        self.softmax = softmax
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)  # goes to the device with the network
        self.validation: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Tensor) -> Tensor:
        """Map float32 (N, 1, H, W) in [0, 1] to logits (N, outputs)."""
        return torch.as_tensor(self.network(normalise(batch, self.spec)))

    def _loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        gamma = self.config.focal_gamma if self.config.loss == "focal" else 0.0
        return classification_loss(
            logits,
            targets,
            softmax=self.softmax,
            weights=self.class_weights,
            smoothing=smoothing,
            focal_gamma=gamma,
        )

    def on_train_epoch_start(self) -> None:
        """In the first epochs the head alone learns; the encoder's statistics stay still too."""
        frozen = self.current_epoch < self.config.head_epochs
        self.network.encoder.requires_grad_(not frozen)
        self.network.encoder.train(not frozen)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step, augmented with parameters of its own seed."""
        pixels, targets, organs = batch
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.global_step)
        if organs is not None and config.guide == "background":
            pixels = new_backgrounds(pixels, organs, config.background_chance, generator)
        moves = augment.sample(self.recipe, len(pixels), generator)
        pixels = augment.apply(pixels, moves)
        if config.guide == "attention":
            organs = None if organs is None else augment.warp(organs.float(), moves.to(pixels.device))
        if config.mixup:
            share = float(np.random.default_rng(self.global_step).beta(config.mixup, config.mixup))
            order = torch.randperm(len(pixels), generator=generator)
            pixels, targets = _blend(pixels, order, share), _blend(targets, order, share)
            organs = None if organs is None else _blend(organs.float(), order, share)
        maps, attention = self.network.attended(normalise(pixels, self.spec))
        loss = self._loss(self.network.head(self.network.embed(maps)), targets, smoothing=config.label_smoothing)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(pixels))
        if attention is not None and organs is not None:
            astray = attention_loss(attention, organs)
            self.log("train_attention", astray, on_epoch=True, on_step=False, batch_size=len(pixels))
            loss = loss + config.attention_weight * astray
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep logits and targets until the epoch's end."""
        self.validation.append((self(batch.pixels), batch.targets))

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss and AUROC (NaN while a class is missing)."""
        logits = torch.cat([pair[0] for pair in self.validation])
        targets = torch.cat([pair[1] for pair in self.validation])
        self.validation.clear()
        self.log("val_loss", self._loss(logits, targets))
        self.log("val_auroc", mean_auroc(logits.cpu().numpy(), targets.cpu().numpy()), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with discriminative rates, one-cycle or cosine over the whole run."""
        groups = parameter_groups(self.network, self.config)
        optimiser = torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)
        return scheduled(optimiser, self.config, int(self.trainer.estimated_stepping_batches))


def _blend(values: Tensor, order: Tensor, share: float) -> Tensor:
    return share * values + (1 - share) * values[order]


def parameter_groups(network: Network, config: TrainingConfig) -> list[dict[str, Any]]:
    """Optimiser groups: the head fastest, each earlier encoder block ``layer_decay`` slower.

    Norms and biases are not decayed. Source: layer-wise rate decay as in timm.
    """
    from timm.optim._param_groups import param_groups_layer_decay

    encoder: nn.Module = network.encoder
    if hasattr(encoder, "group_matcher"):
        scaled = param_groups_layer_decay(encoder, config.weight_decay, layer_decay=config.layer_decay)
    else:
        scaled = [{"params": list(encoder.parameters()), "weight_decay": config.weight_decay, "lr_scale": 1.0}]
    groups = [
        {
            "params": group["params"],
            "weight_decay": group["weight_decay"],
            "lr": config.learning_rate * group["lr_scale"],
        }
        for group in scaled
    ]
    new = [network.head] if network.attention is None else [network.head, network.attention]
    head = [parameter for part in new for parameter in part.parameters() if parameter.requires_grad]
    groups.append({"params": head, "weight_decay": config.weight_decay, "lr": config.learning_rate * _HEAD_RATE})
    return [group for group in groups if group["params"]]
