"""Networks whose gradients are known on paper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.models.support import reader_of
from wetread.models.card import InputSpec
from wetread.models.networks import Network
from wetread.models.predict import Reader

__all__ = ["SPEC", "Formula", "Pick", "toy_reader"]

SPEC = InputSpec(height=8, width=8, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
"""Pixels reach the network as they are."""


class Formula(nn.Module):
    """A head that is any function of the embedding (N, D) -> (N, 1)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Pick(nn.Module):
    """Encoder: 2x2 maps (the mean of each quarter of the image) times fixed factors; embeds by the mean."""

    def __init__(self, factors: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.num_features = len(factors)
        self.head_hidden_size = len(factors)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.last = nn.Conv2d(1, len(factors), 1, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor(factors)[:, None, None, None])

    def forward_features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.last(self.pool(x))
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))


def toy_reader(factors: tuple[float, ...], *heads: nn.Module) -> Reader:
    """A reader of one network for each head."""
    return reader_of([Network(Pick(factors), head) for head in heads], input=SPEC)
