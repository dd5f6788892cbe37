"""One contract for every encoder family and every method."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.models.support import small_reader
from wetread.errors import ExplanationFailed
from wetread.explain import CAM_METHODS, Explanation, Method, Target, explain_batch
from wetread.explain.layers import default_layer, finer_layers
from wetread.models.predict import Reader

CONVOLUTIONAL = {
    "tf_efficientnet_lite0": "bn2",
    "resnet18": "layer4",
    "densenet121": "features",
    "mobilenetv3_small_050": "blocks",
    "convnext_atto": "stages",
    "regnetx_002": "s4",
    "repvgg_a0": "stages",
    "nfnet_l0": "final_act",
    "maxvit_pico_rw_256": "norm",
    "cnn": "blocks",
}
WITHOUT_POOLED_LINEAR = {"mobilenetv3_small_050", "convnext_atto"}
TRANSFORMERS = {
    "vit_tiny_patch16_224": "blocks.11.norm1",
    "deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "swin_tiny_patch4_window7_224": "norm",
    "mvitv2_tiny": "norm",
}
SIZE = 64
LABELS = ("a", "b", "c", "d", "e", "f")
SIZES = [(90, 70), (64, 64)]


@cache
def reader_for(architecture: str) -> Reader:
    return small_reader(architecture, SIZE, LABELS)


def noise() -> torch.Tensor:
    return torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


def all_maps(reader: Reader, batch: torch.Tensor, method: Method, layer: str | None = None) -> list[Explanation]:
    """Every map that can be made over all labels; what cannot must speak against its label."""
    forward = reader.forward(batch)
    maps = []
    for label in LABELS:
        for result in explain_batch(reader, forward, Target(label, method, layer), SIZES, batch):
            if isinstance(result, Explanation):
                maps.append(result)
            else:
                assert "no place that speaks for it" in str(result)
    return maps


def assert_sound(maps: list[Explanation], layer: str) -> None:
    assert maps
    for explanation in maps:
        assert explanation.layer == layer
        assert explanation.map.dtype == np.float32
        assert min(explanation.map.shape) >= 2
        assert np.isfinite(explanation.map).all()
        assert np.ptp(explanation.map) > 0
        assert explanation.scale == explanation.map.max() > 0
        assert explanation.heat.shape == explanation.size
        assert explanation.heat.dtype == np.float32
        assert explanation.heat.min() >= 0
        assert 0.02 <= explanation.heat.max() <= 1


def assert_same(ones: list[Explanation], others: list[Explanation], relative: float) -> None:
    assert [one.label for one in ones] == [other.label for other in others]
    for one, other in zip(ones, others, strict=True):
        # A cell is a sum of many terms: its rounding error follows the largest of them, not what is left of them.
        np.testing.assert_allclose(one.map, other.map, rtol=relative, atol=relative * np.abs(other.map).max())


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
def test_convolutional_networks(architecture: str, method: Method) -> None:
    reader, batch = reader_for(architecture), noise()
    if method == "cam" and architecture in WITHOUT_POOLED_LINEAR:
        with pytest.raises(ExplanationFailed, match="use --method gradcam"):
            all_maps(reader, batch, method)
        return
    maps = all_maps(reader, batch, method, "last")
    assert_sound(maps, CONVOLUTIONAL[architecture])
    assert_same(maps, all_maps(reader, batch, method, "last"), 0)  # twice the same
    assert_same(maps, all_maps(reader, batch, method, CONVOLUTIONAL[architecture]), 1e-5)  # through the encoder


@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
def test_gradcam_of_convolutions_is_fine_unless_a_layer_is_named(architecture: str) -> None:
    reader, batch = reader_for(architecture), noise()
    maps = all_maps(reader, batch, "gradcam")
    assert_sound(maps, " x ".join((CONVOLUTIONAL[architecture], *finer_layers(reader.networks[0], reader.input))))
    assert_same(maps, all_maps(reader, batch, "gradcam", "fine"), 0)
    assert all(explanation.passes == 4 for explanation in maps)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("architecture", TRANSFORMERS)
def test_transformers(architecture: str, method: Method) -> None:
    reader, batch = reader_for(architecture), noise()
    maps = all_maps(reader, batch, method)
    assert_sound(maps, TRANSFORMERS[architecture])
    assert_same(maps, all_maps(reader, batch, method), 0)
    assert all("Attention mixes tokens" in " ".join(explanation.limits) for explanation in maps)


@pytest.mark.parametrize("architecture", TRANSFORMERS)
def test_gradcam_plus_plus_is_for_convolutions(architecture: str) -> None:
    with pytest.raises(ExplanationFailed, match="got tokens of a transformer; use --method gradcam"):
        all_maps(reader_for(architecture), noise(), "gradcam++")


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("through_encoder", [False, True])
def test_nothing_of_the_callers_is_touched(architecture: str, through_encoder: bool) -> None:
    reader, batch = reader_for(architecture), noise()
    network = reader.networks[0]
    forward = reader.forward(batch)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    features, pixels, logits = forward.features[0].clone(), batch.clone(), forward.logits.clone()
    hooks = [len(module._forward_hooks) for module in network.modules()]
    layer = default_layer(network, reader.input) if through_encoder else None
    explain_batch(reader, forward, Target("a", "gradcam", layer), SIZES, batch)
    assert torch.equal(batch, pixels)
    assert torch.equal(forward.features[0], features)
    assert torch.equal(forward.logits, logits)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert [len(module._forward_hooks) for module in network.modules()] == hooks
    assert not network.training
    assert not batch.requires_grad
