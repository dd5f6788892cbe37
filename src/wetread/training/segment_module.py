"""The Lightning module of a segmenter: images and masks moved alike, one loss, validation Dice."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.organs import organ_probabilities
from wetread.models.segmenters import encoder_parameters
from wetread.training import augment
from wetread.training.config import SegmentConfig
from wetread.training.data import to_float
from wetread.training.loop import scheduled
from wetread.training.segment_data import AnnotatedImages
from wetread.training.segment_losses import segment_loss

__all__ = ["SegmentModule", "batch_dice", "segment_loader"]

Batch = tuple[Tensor, Tensor, Tensor]


class _Rows(Dataset[Batch]):
    """Pixels float32 (1, H, W), masks float32 (organs, H, W) and which are known (organs,) of each image."""

    def __init__(self, images: AnnotatedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, index: list[int]) -> list[Batch]:
        rows = np.asarray(index)
        masks = torch.from_numpy(self.images.masks[rows].astype(np.float32))
        return [(to_float(self.images.pixels[rows]), masks, torch.from_numpy(self.images.known[rows]))]

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]


def _whole(batches: list[Batch]) -> Batch:
    """Batches come out of the data set whole."""
    return batches[0]


def segment_loader(images: AnnotatedImages, batch_size: int, seed: int | None = None) -> DataLoader[Batch]:
    """Batches shuffled by ``seed`` without the last incomplete one; without a seed all images in order."""
    return DataLoader(
        _Rows(images),
        batch_size=min(batch_size, len(images)),
        shuffle=seed is not None,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
        drop_last=seed is not None,
        collate_fn=_whole,
    )


def batch_dice(probabilities: Tensor, masks: Tensor, known: Tensor) -> list[float]:
    """Dice of each known, non-empty organ of each image, thresholded at one half."""
    found, wanted = probabilities >= 0.5, masks >= 0.5
    both = (found & wanted).sum((2, 3)).double()
    sizes = (found.sum((2, 3)) + wanted.sum((2, 3))).double()
    counted = known & (sizes > 0)
    return [float(value) for value in (2 * both / sizes)[counted]]


class SegmentModule(lightning.LightningModule):
    """Trains a segmenter; logs ``train_loss`` and ``val_dice`` (mean over images and organs, at the input size)."""

    def __init__(self, network: nn.Module, spec: InputSpec, config: SegmentConfig, recipe: augment.Recipe) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.config = config
        self.recipe = recipe
        self.dice: list[float] = []

    def forward(self, batch: Tensor) -> Tensor:
        """Map float32 (N, 1, H, W) in [0, 1] to logits (N, organs, H, W)."""
        return torch.as_tensor(self.network(normalise(batch, self.spec)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; image and masks are moved by the same parameters, and only the image changes its greys."""
        pixels, masks, known = batch
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.global_step)
        params = augment.sample(self.recipe, len(pixels), generator)
        logits = self(augment.apply(pixels, params))
        loss = self._loss(logits, augment.warp(masks, params.to(masks.device)), known)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(pixels))
        return loss

    def _loss(self, logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
        if not self.config.exclusive:
            return segment_loss(self.config.loss, logits, masks, softmax=False, known=known)
        background = 1 - masks.sum(1, keepdim=True).clamp(0, 1)
        return segment_loss(
            self.config.loss,
            torch.cat([torch.zeros_like(logits[:, :1]), logits], 1),
            torch.cat([background, masks], 1),
            softmax=True,
            known=known.all(1, keepdim=True).expand(-1, known.shape[1] + 1),
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the Dice of each image and organ until the epoch's end."""
        pixels, masks, known = batch
        probabilities = organ_probabilities(self(pixels), exclusive=self.config.exclusive)
        self.dice += batch_dice(probabilities, masks, known)

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice; 0 while there is none."""
        self.log("val_dice", float(np.mean(self.dice)) if self.dice else 0.0, prog_bar=True)
        self.dice.clear()

    def configure_optimizers(self) -> Any:
        """AdamW, the learned encoder slower than the new decoder; one-cycle or cosine over the whole run."""
        slow = {id(parameter) for parameter in encoder_parameters(self.network)}
        rate, config = self.config.learning_rate, self.config
        parts = [
            {"params": [p for p in self.network.parameters() if (id(p) in slow) == learned], "lr": rate * share}
            for learned, share in ((True, config.encoder_rate), (False, 1.0))
        ]
        groups = [part for part in parts if part["params"]]
        optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay, fused=True)
        return scheduled(optimiser, config, int(self.trainer.estimated_stepping_batches))
