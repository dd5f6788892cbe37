"""Small readers and segmenters, for tests of models and of what is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wetread.models.backbones import build_network
from wetread.models.card import DataCard, HeadSpec, InputSpec, ReaderCard, SegmenterCard
from wetread.models.networks import Network
from wetread.models.organs import Segmenter
from wetread.models.outlier import FeatureStatistics
from wetread.models.predict import Reader
from wetread.models.segmenters import build_segmenter
from wetread.types import Image, ImageFacts

__all__ = ["Thresholds", "card_for", "image_of", "reader_of", "segmenter_card", "small_reader", "small_segmenter"]

THIN = (8, 8, 8, 8, 8)
"""Channels of a decoder that tests can afford."""


def card_for(labels: Sequence[str] = ("finding",), **changes: Any) -> ReaderCard:
    """A complete card; one label is binary, more are classes unless ``task`` says otherwise."""
    binary = len(labels) == 1
    fields: dict[str, Any] = {
        "name": "small",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "task": "binary" if binary else "multiclass",
        "classes": ("normal", *labels) if binary else tuple(labels),
        "labels": tuple(labels),
        "architecture": "cnn",
        "head": HeadSpec(),
        "input": InputSpec(height=32, width=32),
        "weights": {},
        "data": DataCard(name="noise", images=1, patients=1, sha256="0" * 64),
    }
    return ReaderCard(**{**fields, **changes})


def reader_of(
    networks: Sequence[Network],
    labels: Sequence[str] = ("finding",),
    statistics: FeatureStatistics | None = None,
    **changes: Any,
) -> Reader:
    """A reader of given networks."""
    return Reader(card_for(labels, networks=len(networks), **changes), networks, statistics)


def small_reader(
    architecture: str = "cnn",
    size: int = 32,
    labels: Sequence[str] = ("finding",),
    networks: int = 1,
    **changes: Any,
) -> Reader:
    """A reader with random weights that are the same each time."""
    spec = changes.pop("input", None) or InputSpec(height=size, width=size)
    head = changes.pop("head", HeadSpec())
    softmax = len(labels) > 1 and changes.get("task") != "multilabel"
    built = []
    for seed in range(networks):
        torch.manual_seed(seed)
        built.append(build_network(architecture, head, spec, len(labels), softmax=softmax))
    return reader_of(built, labels, architecture=architecture, input=spec, head=head, **changes)


def image_of(rows: int, columns: int, seed: int = 0) -> Image:
    """A noise image with a bright patch."""
    pixels = np.random.default_rng(seed).uniform(0, 0.5, (rows, columns)).astype(np.float32)
    pixels[rows // 4 : rows // 2, columns // 4 : columns // 2] += 0.4
    facts = ImageFacts(name=f"noise-{seed}.png", format="PNG", sha256="0" * 64, rows=rows, columns=columns, bits=8)
    return Image(pixels, facts)


def segmenter_card(organs: Sequence[str] = ("lungs",), **changes: Any) -> SegmenterCard:
    """A complete card of a small U-Net on the embedded encoder."""
    fields: dict[str, Any] = {
        "kind": "segmenter",
        "name": "organs",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "architecture": "unet",
        "encoder": "tf_efficientnet_lite0",
        "decoder": THIN,
        "organs": tuple(organs),
        "input": InputSpec(height=64, width=64),
        "weights": {},
        "data": DataCard(name="noise", images=1, patients=1, sha256="0" * 64),
    }
    return SegmenterCard(**{**fields, **changes})


def small_segmenter(
    organs: Sequence[str] = ("lungs",), networks: int = 1, bias: float | None = None, **changes: Any
) -> Segmenter:
    """A segmenter with random weights that are the same each time.

    ``bias`` makes it constant: each pixel's logit is that number, so every mask is full or empty.
    """
    card = segmenter_card(organs, networks=networks, **changes)
    built = []
    for seed in range(networks):
        torch.manual_seed(seed)
        kind, encoder = card.architecture, card.encoder
        network: Any = build_segmenter(kind, len(organs), card.input, encoder=encoder, decoder=card.decoder)
        if bias is not None:
            head = network.segmentation_head[0]
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, bias)
        built.append(network)
    return Segmenter(card, built)


class Thresholds(nn.Module):
    """A network whose masks are known: organ k is where the first channel of the input is above level k."""

    def __init__(self, *levels: float) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, batch: Tensor) -> Tensor:
        """Map (N, C, H, W) to steep logits (N, levels, H, W)."""
        return torch.cat([1000 * (batch[:, :1] - level) for level in self.levels], 1)
