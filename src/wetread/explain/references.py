"""Maps whose worth is known beforehand, to test the tests of heat maps: gradient, guided backpropagation, edges.

The gradient depends on every weight. Guided backpropagation mostly redraws the edges of the image, and a Sobel
filter knows no network at all (Adebayo et al., NeurIPS 2018): a sanity check that accepts either is broken. None is
offered as an explanation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from wetread.errors import ExplanationFailed, expected
from wetread.explain.gradients import gradients_of
from wetread.explain.score import Score

__all__ = ["REFERENCES", "Reference", "gradient", "guided_backpropagation", "reference_maps", "sobel"]

Reference = Literal["gradient", "guided-backpropagation", "sobel"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)

Maps = NDArray[np.float32]

_RECTIFIERS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu, F.relu_, F.relu6, F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.silu, F.gelu, F.hardswish,
        F.hardtanh, F.hardtanh_, F.mish, F.softplus, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
    }
)  # fmt: skip
"""Activations that let positive values through and hold negative ones back, as modules and functions call them."""


def gradient(score: Score, batch: Tensor) -> Maps:
    """Return the gradient of the log-odds at each pixel: float32 (N, height, width), signed.

    ``batch``: (N, 1, height, width) in [0, 1]. Source: Simonyan et al., ICLR workshop 2014.

    Raises:
        ExplanationFailed: the reader gives no gradients.
    """
    with torch.inference_mode(False):
        found: Maps = gradients_of(score, batch.clone())[0][:, 0].numpy()
    return found


class _Positive(torch.autograd.Function):
    """The identity forwards; backwards only what is positive passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope.clamp(min=0)


class _Guided(TorchFunctionMode):
    """Clips the gradient that enters each rectifier from above, whether a module or a function calls it.

    Module hooks, which captum uses, miss networks that call ``functional.relu6`` themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _RECTIFIERS:
            return result
        self.met += 1
        return _Positive.apply(result)


def guided_backpropagation(score: Score, batch: Tensor) -> Maps:
    """Return guided backpropagation: float32 (N, height, width), signed.

    For ReLU exactly Springenberg et al., ICLR workshop 2015: back through each rectifier passes only what is positive
    above it where its input was positive. For smooth relatives (SiLU, GELU, Hardswish) the derivative takes the place
    of the second condition. ``batch`` as for :func:`gradient`.

    Raises:
        ExplanationFailed: a network without rectifiers, or without gradients.
    """
    with _Guided() as guide:
        found = gradient(score, batch)
    if not guide.met:
        raise ExplanationFailed(
            expected("a network with rectifiers", score.reader.card.architecture, "leave this reference out")
        )
    return found


def sobel(batch: Tensor) -> Maps:
    """Return the steepness of the grey values: float32 (N, height, width), at least 0; no network is asked."""
    from scipy import ndimage

    down, across = (
        np.stack([ndimage.sobel(image[0].numpy(), axis=axis) for image in batch])  # one by one: it smooths other axes
        for axis in (0, 1)
    )
    steepness: Maps = np.hypot(down, across).astype(np.float32)
    return steepness


def reference_maps(name: Reference, score: Score, batch: Tensor) -> Maps:
    """Return the maps of one reference by name, as :func:`gradient` does."""
    if name == "sobel":
        return sobel(batch)
    return gradient(score, batch) if name == "gradient" else guided_backpropagation(score, batch)
