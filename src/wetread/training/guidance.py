"""What a guide does while a network learns: new backgrounds around the organ, and attention held to it.

Both need the organ in training alone; the trained reader is shown whole images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attention_loss", "new_backgrounds"]

_COARSE_CELLS = 8
"""Cells along each side that are left of a blurred background: tones without any detail."""
_NOISE_STD = 0.15
_KINDS = 4


def new_backgrounds(batch: Tensor, organs: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Replace what lies outside the organ, so that it says nothing about the image any more.

    With probability ``chance`` an image gets the background of another image of the batch (its own organ filled with
    the mean of the rest), that background blurred, noise about a random grey, or a random grey: each as often. An
    image without a mask stays as it is. ``batch``: float32 (N, 1, H, W) in [0, 1]; ``organs``: bool, same shape.
    Source of the idea: backgrounds as noise or signal, Xiao et al., ICLR 2021 (arXiv 2006.09994).
    """
    count = len(batch)
    device = batch.device
    kind = torch.randint(_KINDS, (count,), generator=generator)
    chosen = (torch.rand(count, generator=generator) < chance).to(device) & organs.flatten(1).any(1)
    grey = torch.rand(count, 1, 1, 1, generator=generator).to(device)
    noise = torch.randn(batch.shape, generator=generator).to(device) * _NOISE_STD
    apart = int(torch.randint(1, max(2, count), (1,), generator=generator))
    other = _emptied(batch, organs).roll(apart, 0)
    coarse = F.interpolate(F.adaptive_avg_pool2d(other, _COARSE_CELLS), batch.shape[2:], mode="bilinear")
    grounds = torch.stack([other, coarse, (grey + noise).clamp(0, 1), grey.expand_as(batch)])
    ground = grounds[kind.to(device), torch.arange(count, device=device)]
    return torch.where(organs | ~chosen[:, None, None, None], batch, ground)


def _emptied(batch: Tensor, organs: Tensor) -> Tensor:
    """Fill the organ of each image with the mean grey of the rest."""
    outside = (~organs).float()
    mean = (batch * outside).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(organs, mean, batch)


def attention_loss(share: Tensor, organs: Tensor) -> Tensor:
    """Minus the logarithm of the attention that lies on the organ, mean over the images that have one; a scalar.

    ``share``: (N, 1, h, w), adds up to 1 in each image. ``organs``: float32 (N, 1, H, W) in [0, 1]. A place counts
    as organ as far as half of its cell is covered, because cells are coarse. 0 where no image has a mask.
    """
    cells = (share.shape[2], share.shape[3])
    covered = (2 * F.adaptive_avg_pool2d(organs, cells)).clamp(max=1)
    known = covered.flatten(1).amax(1) > 0
    inside = (share * covered).sum((1, 2, 3))
    terms = -torch.where(known, inside, torch.ones_like(inside)).clamp(min=1e-6).log()
    return terms.sum() / known.sum().clamp(min=1)
