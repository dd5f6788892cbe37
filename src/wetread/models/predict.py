"""The one predict: images in, calibrated probabilities out, for command line, service and cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import UsageError, WetreadError, expected
from wetread.models.card import InputSpec, ReaderCard
from wetread.models.inputs import normalise, to_batch
from wetread.models.networks import Network
from wetread.models.outlier import FeatureStatistics
from wetread.types import Image

__all__ = ["Forward", "Reader", "probabilities_of"]

_VIEW_SCALES = (1.0, 0.94, 1.06, 0.97, 1.03)
"""Zooms of the averaged views. No flips: sides mean something in a radiograph."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What the networks computed for a batch of N images.

    ``logits``: (N, outputs), mean over networks and views, before temperature. ``features``:
    one tensor per network, (N, D, h, w) maps or (N, T, D) tokens, of the unzoomed view.
    ``embeddings``: (N, D) of the first network.
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    embeddings: Tensor


def probabilities_of(logits: NDArray[np.floating], temperature: float, *, softmax: bool) -> NDArray[np.float64]:
    """Turn logits (N, outputs) into calibrated probabilities: softmax over classes, else sigmoids.

    Source: temperature scaling, Guo et al., ICML 2017.
    """
    scaled = logits.astype(np.float64) / temperature
    if softmax:
        shifted = np.exp(scaled - scaled.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-np.clip(scaled, -700, 700))))


def _zoom(batch: Tensor, scale: float) -> Tensor:
    """Zoom (N, 1, H, W) about its centre; black where nothing is shown."""
    if scale == 1.0:
        return batch
    matrix = torch.tensor([[1 / scale, 0, 0], [0, 1 / scale, 0]]).expand(len(batch), -1, -1)
    grid = torch.nn.functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return torch.nn.functional.grid_sample(batch, grid, align_corners=False)


class Reader:
    """A loaded reader: card, networks in evaluation mode, and feature statistics for the gate."""

    def __init__(
        self, card: ReaderCard, networks: Sequence[Network], statistics: FeatureStatistics | None = None
    ) -> None:
        self.card = card
        self.networks = tuple(network.eval() for network in networks)
        self.statistics = statistics

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.card.labels

    @property
    def input(self) -> InputSpec:
        """Geometry and normalisation of the input."""
        return self.card.input

    @property
    def softmax(self) -> bool:
        """Whether the outputs are exclusive classes."""
        return self.card.task == "multiclass"

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """Stack images into (N, 1, height, width), float32 in [0, 1]."""
        return to_batch([image.pixels for image in images], self.input)

    def forward(self, batch: Tensor, views: int = 1) -> Forward:
        """Run all networks on (N, 1, height, width); ``views`` > 1 averages that many zooms, no flips.

        Raises:
            UsageError: more views than there are zooms.
        """
        if not 1 <= views <= len(_VIEW_SCALES):
            raise UsageError(expected(f"1 to {len(_VIEW_SCALES)} views", views, "set --views in that range"))
        features: list[Tensor] = []
        logits: list[Tensor] = []
        embeddings: Tensor | None = None
        with torch.inference_mode():
            zooms = [normalise(_zoom(batch, scale), self.input) for scale in _VIEW_SCALES[:views]]
            for network in self.networks:
                maps = network.features(zooms[0])
                embedded = network.embed(maps)
                logits.append(network.head(embedded))
                logits += [network(zoom) for zoom in zooms[1:]]
                features.append(maps)
                embeddings = embedded if embeddings is None else embeddings
        if embeddings is None:
            raise UsageError(expected("a reader with networks", "none", "load it with load_reader"))
        return Forward(torch.stack(logits).mean(0), tuple(features), embeddings)

    def probabilities(self, forward: Forward) -> NDArray[np.float64]:
        """Return calibrated probabilities (N, outputs) in [0, 1].

        Raises:
            WetreadError: a score that is not finite, which weights or pixels out of range give.
        """
        if not bool(forward.logits.isfinite().all()):
            raise WetreadError(expected("finite scores", "NaN or infinity", f"check the weights of {self.card.name}"))
        return probabilities_of(forward.logits.numpy(), self.card.temperature, softmax=self.softmax)

    def distances(self, forward: Forward) -> NDArray[np.float64] | None:
        """Return how far each image lies from the training features (N,); None without statistics."""
        if self.statistics is None:
            return None
        return self.statistics.distances(forward.embeddings.numpy())
