"""Small readers with random weights, for tests of models and of what is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wetread.models.backbones import build_network
from wetread.models.card import DataCard, HeadSpec, InputSpec, ReaderCard
from wetread.models.networks import Network
from wetread.models.outlier import FeatureStatistics
from wetread.models.predict import Reader
from wetread.types import Image, ImageFacts

__all__ = ["card_for", "image_of", "reader_of", "small_reader"]


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
