"""A network is an encoder with a head: ``features -> embed -> head``, for every architecture alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from wetread.models.card import HeadSpec

__all__ = ["ChannelScale", "Encoder", "KnnHead", "Network", "PixelEncoder", "PlaceWeights", "SmallCnn", "make_head"]


class Encoder(Protocol):
    """What a timm network offers, and what wetread's own encoders offer too."""

    num_features: int
    head_hidden_size: int

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to feature maps or tokens."""
        ...

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool features to an embedding (N, D) when ``pre_logits`` is True."""
        ...


class SmallCnn(nn.Module):
    """A custom convolutional baseline: five blocks of conv, batch norm, ReLU, max-pool (about 1 M parameters)."""

    num_features = 256
    head_hidden_size = 256

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        widths = (32, 64, 128, 192, 256)
        blocks: list[nn.Module] = []
        for width in widths:
            blocks += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.blocks = nn.Sequential(*blocks[:-1])  # the last map stays at 1/16 for heat maps

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 256, H/16, W/16)."""
        return cast(Tensor, self.blocks(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Average over space: (N, 256, h, w) to (N, 256)."""
        return x.mean((2, 3))


class PixelEncoder(nn.Module):
    """No encoder: the image averaged to 32 x 32 grey values, for baselines on raw pixels."""

    num_features = 1024
    head_hidden_size = 1024

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 1024); there is no map to explain."""
        grey = x.mean(1, keepdim=True)
        return nn.functional.adaptive_avg_pool2d(grey, 32).flatten(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the pixels themselves."""
        return x


class KnnHead(nn.Module):
    """k nearest stored cases by cosine similarity; logits are log-odds of their weighted vote.

    ``references``: (R, D) unit vectors; ``targets``: (R, outputs) in [0, 1], NaN unknown.
    A Laplace count of one half keeps the vote away from 0 and 1.
    """

    references: Tensor
    targets: Tensor

    def __init__(self, spec: HeadSpec, width: int, outputs: int, softmax: bool) -> None:
        super().__init__()
        self.neighbours = spec.neighbours
        self.softmax = softmax
        self.register_buffer("references", torch.zeros(spec.references, width))
        self.register_buffer("targets", torch.zeros(spec.references, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D) to logits (N, outputs)."""
        similarity = nn.functional.normalize(x, dim=1) @ self.references.T  # (N, R)
        k = min(self.neighbours, self.references.shape[0])
        weights, index = similarity.topk(k, dim=1)
        votes = self.targets[index]  # (N, k, outputs)
        known = ~votes.isnan()
        weight = weights.clamp(min=0)[..., None] * known
        prior = 0.5
        share = ((weight * votes.nan_to_num()).sum(1) + prior) / (weight.sum(1) + 2 * prior)
        return share.log() if self.softmax else torch.logit(share)


def make_head(spec: HeadSpec, width: int, outputs: int, softmax: bool) -> nn.Module:
    """Build the head that maps embeddings (N, width) to logits (N, outputs)."""
    if spec.kind == "knn":
        return KnnHead(spec, width, outputs, softmax)
    if spec.kind == "mlp":
        return nn.Sequential(
            nn.Dropout(spec.dropout),
            nn.Linear(width, spec.hidden, bias=False),
            nn.BatchNorm1d(spec.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, outputs),
        )
    linear = nn.Linear(width, outputs)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(width) / 4)  # near-even odds at the start
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout(spec.dropout), linear)


class PlaceWeights(nn.Module):
    """Learned attention over the places of the feature maps; it starts with all places alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, 1, bias=False)  # a bias would not change a softmax
        nn.init.zeros_(self.score.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, D, h, w) to the share of attention at each place, (N, 1, h, w), which adds up to 1."""
        scores: Tensor = self.score(maps)
        return scores.flatten(1).softmax(1).view_as(scores)


class ChannelScale(nn.Module):
    """Standardise each channel by its own mean and standard deviation, which are the card's and no weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[None, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        return (x - self.mean) / self.std


class Network(nn.Module):
    """An encoder and a head, with learned attention between them or not.

    ``spatial`` tells whether there is a map to explain, ``differentiable`` whether there are gradients. ``scale``
    comes before the encoder where the channels of the input differ.
    """

    differentiable = True

    def __init__(
        self, encoder: nn.Module, head: nn.Module, spatial: bool = True, attention: PlaceWeights | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.spatial = spatial
        self.attention = attention
        self.scale: ChannelScale | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that hold the network, by their name in a bundle; none where it has weights to store."""
        return {}

    def attended(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (N, C, H, W) to what :meth:`features` gives, and the share of attention (N, 1, h, w) if there is any."""
        maps = cast(Encoder, self.encoder).forward_features(x if self.scale is None else self.scale(x))
        if self.attention is None:
            return maps, None
        share: Tensor = self.attention(maps)
        return maps * (share * (share.shape[2] * share.shape[3])), share

    def features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the encoder's last feature maps or tokens, weighted by the attention if there is any.

        The mean of weighted maps is what an attention pooling gives, so heads and heat maps need not know.
        """
        return self.attended(x)[0]

    def embed(self, features: Tensor) -> Tensor:
        """Pool features to embeddings (N, D)."""
        return cast(Encoder, self.encoder).forward_head(features, pre_logits=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, outputs)."""
        return cast(Tensor, self.head(self.embed(self.features(x))))
