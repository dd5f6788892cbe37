"""Readers whose score is a formula of the pixels, so that attributions are known on paper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.explain.toys import Formula
from tests.models.support import reader_of
from wetread.explain.score import Score
from wetread.models.card import InputSpec
from wetread.models.networks import Network
from wetread.models.predict import Reader

__all__ = ["SIDE", "formula_reader", "formula_score", "linear_score", "picture"]

SIDE = 16


class Flat(nn.Module):
    """An encoder that hands on the pixels."""

    num_features = SIDE * SIDE
    head_hidden_size = SIDE * SIDE

    def forward_features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x


def formula_reader(formula: Callable[[Tensor], Tensor], *, gradients: bool = True) -> Reader:
    """A reader whose logit is ``formula`` of pixels (N, side, side) -> (N,); it sees them as they are.

    Without ``gradients`` it gives scores alone, as an exported network does.
    """
    spec = InputSpec(height=SIDE, width=SIDE, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
    network = Network(Flat(), Formula(lambda x: formula(x.unflatten(1, (SIDE, SIDE)))[:, None]), spatial=False)
    network.differentiable = gradients
    return reader_of([network], input=spec, architecture="formula")


def formula_score(formula: Callable[[Tensor], Tensor]) -> Score:
    """The log-odds of such a reader."""
    return Score(formula_reader(formula), "finding")


def linear_score(weights: Tensor) -> Score:
    """Log-odds = sum of weights (side, side) times pixels, plus 1."""
    return formula_score(lambda x: (x * weights).sum((1, 2)) + 1)


def picture(seed: int = 0, count: int = 1) -> Tensor:
    """Noise in [0, 1], (count, 1, side, side)."""
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
