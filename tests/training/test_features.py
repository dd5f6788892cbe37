"""Embeddings: cached by image, weights and input, and the same from the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.support import blobs
from wetread.models.backbones import build_network
from wetread.models.card import HeadSpec, InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.training import features as module
from wetread.training.data import to_float
from wetread.training.features import embed, encoder_sha256, logits_of

SPEC = InputSpec(height=32, width=32)


def network_of(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build_network("cnn", HeadSpec(), SPEC, 2, softmax=False).eval()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many embeddings each call computed."""
    asked: list[int] = []
    compute = module._compute

    def counted(*arguments: object) -> object:
        asked.append(len(arguments[3]))  # type: ignore[arg-type]
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_compute", counted)
    return asked


def test_embeddings_and_logits_are_those_of_the_network() -> None:
    network, images = network_of(), blobs(40)
    with torch.inference_mode():
        batch = normalise(to_float(images.pixels), SPEC)
        wanted = network.embed(network.features(batch)).numpy()
        logits, embedded = logits_of(network.train(), images, SPEC)
        np.testing.assert_allclose(embedded, wanted, atol=1e-5)
        np.testing.assert_allclose(logits, network.eval()(batch).numpy(), atol=1e-5)


def test_only_what_is_new_is_computed(tmp_path: Path, computed: list[int]) -> None:
    network, images = network_of(), blobs(40)
    first = embed(network, images.take(np.arange(30)), SPEC, tmp_path)
    whole = embed(network, images, SPEC, tmp_path)
    again = embed(network, images.take(np.arange(39, -1, -1)), SPEC, tmp_path)
    assert computed == [30, 10]
    np.testing.assert_array_equal(whole[:30], first)
    np.testing.assert_array_equal(again, whole[::-1])


def test_other_weights_and_other_inputs_are_other_features(tmp_path: Path, computed: list[int]) -> None:
    images = blobs(8)
    embed(network_of(), images, SPEC, tmp_path)
    embed(network_of(1), images, SPEC, tmp_path)
    embed(network_of(), images, SPEC.model_copy(update={"standardise": "fixed"}), tmp_path)
    embed(network_of(), images, SPEC, tmp_path)
    assert computed == [8, 8, 8]


def test_the_hash_is_of_the_encoder_alone() -> None:
    network = network_of()
    before = encoder_sha256(network)
    with torch.no_grad():
        network.head[1].bias.add_(1)  # type: ignore[index]
    assert encoder_sha256(network) == before
    with torch.no_grad():
        next(network.encoder.parameters()).view(-1)[0].add_(1e-3)
    assert encoder_sha256(network) != before
    assert len(before) == 64
