"""The one predict: images in, calibrated probabilities out, for command line, service and cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, WetreadError, expected
from wetread.models.card import InputSpec, ReaderCard
from wetread.models.folding import folded
from wetread.models.guide import Guide, Window
from wetread.models.inputs import normalise, to_batch, views_of
from wetread.models.networks import Network
from wetread.models.outlier import FeatureStatistics
from wetread.types import Image

__all__ = ["Forward", "OrganMasks", "Reader", "probabilities_of"]


OrganMasks = Mapping[str, NDArray[np.bool_]]
"""Organ -> mask, bool (rows, columns) of the image."""


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


class Reader:
    """A loaded reader: card, networks in evaluation mode, feature statistics for the gate, and its guide if any."""

    def __init__(
        self,
        card: ReaderCard,
        networks: Sequence[Network],
        statistics: FeatureStatistics | None = None,
        guide: Guide | None = None,
    ) -> None:
        self.guide = guide
        self.card = card
        self.networks = tuple(network.eval() for network in networks)
        self.statistics = statistics

    @cached_property
    def folded(self) -> tuple[Network, ...]:
        """The networks as they are run: the same functions, batch normalisation folded in."""
        return tuple(folded(network, self.input.channels) for network in self.networks)

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

    @property
    def differentiable(self) -> bool:
        """Whether all networks give gradients; an ONNX graph gives scores alone."""
        return all(network.differentiable for network in self.networks)

    def require_gradients(self, method: str) -> None:
        """Refuse a ``method`` that needs gradients where there are none.

        Raises:
            ExplanationFailed: names the methods that do without.
        """
        if not self.differentiable:
            raise ExplanationFailed(
                expected(
                    f"a network with gradients for {method}",
                    "an ONNX graph, which gives scores alone",
                    "use --method occlusion, rise or lime",
                )
            )

    def organ_masks(self, images: Sequence[Image]) -> list[OrganMasks] | None:
        """Return all organs, bool (rows, columns), of each image that a guided reader is shown; None for others."""
        return [self.guide.masks(image) for image in images] if self.guide else None

    def prepare(self, images: Sequence[Image], masks: Sequence[OrganMasks] | None = None) -> Tensor:
        """Stack images into (N, 1, height, width), float32 in [0, 1]; a guided reader is shown its organ.

        ``masks``: what :meth:`organ_masks` gave, found again where it is None.
        """
        shown = [image.pixels for image in images]
        if self.guide:
            organ, found = self.guide.spec.organ, masks or [self.guide.masks(image) for image in images]
            shown = [self.guide.apply(image.pixels, one[organ]) for image, one in zip(images, found, strict=True)]
        return to_batch(shown, self.input)

    def windows(self, masks: Sequence[OrganMasks] | None) -> list[Window | None] | None:
        """Return the part of each image that a cropping guide shows, given its organs; None for other readers."""
        if masks is None or self.guide is None:
            return None
        return [self.guide.window(one[self.guide.spec.organ]) for one in masks]

    def forward(self, batch: Tensor, views: int | None = None) -> Forward:
        """Run all networks on (N, 1, height, width) and average ``views`` zooms; None: as many as the card says.

        Raises:
            UsageError: more views than there are zooms.
        """
        features: list[Tensor] = []
        logits: list[Tensor] = []
        embeddings: Tensor | None = None
        with torch.inference_mode():
            first, *others = views_of(batch, self.card.views if views is None else views)
            shown = normalise(first, self.input)
            zoomed = normalise(torch.cat(others), self.input) if others else None
            for network in self.folded:
                maps = network.features(shown)
                embedded = network.embed(maps)
                logits.append(network.head(embedded))
                if zoomed is not None:
                    logits += network(zoomed).split(len(batch))
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
