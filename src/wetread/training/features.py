"""Embeddings of a frozen encoder, cached by image and by the encoder's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.models.card import InputSpec
from wetread.models.inputs import normalise, views_of
from wetread.models.networks import Network
from wetread.training.data import LabelledImages, Progress, to_float
from wetread.training.store import Array, ArrayStore

__all__ = ["embed", "encoder_sha256", "logits_of"]

_BATCH = 32


def encoder_sha256(network: Network) -> str:
    """Hash of the encoder's tensors and their names."""
    digest = hashlib.sha256()
    for key, value in network.encoder.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def embed(
    network: Network,
    images: LabelledImages,
    spec: InputSpec,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return embeddings float32 (N, D) of the network's encoder, from the cache where stored."""
    folder = None
    if cache:
        key = f"features-1 {encoder_sha256(network)} {spec.model_dump_json()}"
        folder = cache / "features" / hashlib.sha256(key.encode()).hexdigest()[:16]
    store = ArrayStore(folder)
    return store.rows(images.names, lambda wanted: _compute(network, images, spec, wanted, progress)).astype(np.float32)


def _compute(
    network: Network, images: LabelledImages, spec: InputSpec, wanted: list[int], progress: Progress | None
) -> Iterator[Array]:
    network.eval()
    for start in range(0, len(wanted), _BATCH):
        index = np.array(wanted[start : start + _BATCH])
        with torch.inference_mode():
            batch = normalise(to_float(images.pixels[index]), spec)
            embedded = network.embed(network.features(batch)).numpy()
        if progress:
            progress("computing features", min(start + _BATCH, len(wanted)), len(wanted))
        yield from embedded


def logits_of(
    network: Network, images: LabelledImages, spec: InputSpec, views: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (logits (N, outputs), embeddings (N, D)) of the network in evaluation mode.

    The logits are the mean over ``views`` zooms, as the reader will answer; the embeddings are of the whole image.
    """
    network.eval()
    logits, embeddings = [], []
    for start in range(0, len(images), _BATCH):
        with torch.inference_mode():
            first, *others = views_of(to_float(images.pixels[start : start + _BATCH]), views)
            embedded = network.embed(network.features(normalise(first, spec)))
            answers = [network.head(embedded), *(network(normalise(view, spec)) for view in others)]
        logits.append(torch.stack(answers).mean(0).numpy())
        embeddings.append(embedded.numpy())
    return np.concatenate(logits), np.concatenate(embeddings)
