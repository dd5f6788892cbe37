"""Choosing layers by name, and the refusals of layers that cannot be explained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.explain.toys import SPEC, Pick
from tests.models.support import reader_of, small_reader
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain import Explanation, Target, explain, explain_batch
from wetread.explain.layers import default_layer, finer_layers, from_layer, needs_encoder
from wetread.models.card import InputSpec
from wetread.models.networks import Network

SIZE = 64


def noise(size: int = SIZE) -> Tensor:
    return torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(5))


def test_an_earlier_layer_gives_a_finer_map_by_ordinary_backpropagation() -> None:
    reader, batch = small_reader("resnet18", SIZE), noise()
    found = from_layer(reader.networks[0], batch, "layer2", 0, reader.input)
    assert found.maps.shape == (1, 128, 8, 8)
    # the plain way: keep the graph of the whole network and ask for the layer's gradient
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, result: Tensor) -> Tensor:
        kept.append(result)
        return result.clone()

    handle = reader.networks[0].encoder.get_submodule("layer2").register_forward_hook(keep)
    pixels = (batch - batch.mean()) / (batch.std(correction=0) + 1e-3)
    logit = reader.networks[0](pixels.repeat(1, 3, 1, 1))[0, 0]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    torch.testing.assert_close(found.gradients, gradient, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.maps, kept[0].detach(), rtol=1e-4, atol=1e-5)
    assert float(found.logits[0]) == pytest.approx(logit.item(), abs=1e-5)


def test_the_layer_is_named_in_the_explanation() -> None:
    reader, batch = small_reader("resnet18", SIZE, ("a", "b", "c", "d")), noise()
    forward = reader.forward(batch)
    made = [
        result
        for label in reader.labels
        for result in explain_batch(reader, forward, Target(label, layer="layer3.1"), [(64, 64)], batch)
    ]
    assert {result.layer for result in made if isinstance(result, Explanation)} == {"layer3.1"}


def test_an_inner_layer_needs_the_batch() -> None:
    for reader, layer in (
        (small_reader("resnet18", SIZE), "layer2"),
        (small_reader("vit_tiny_patch16_224", SIZE), None),
    ):
        with pytest.raises(UsageError, match=r"expected the batch, to explain the inner layer .*; pass batch="):
            explain(reader, reader.forward(noise()), 0, Target("finding", layer=layer), (64, 64))


def test_an_unknown_layer_suggests_near_ones() -> None:
    reader, batch = small_reader("resnet18", SIZE), noise()
    with pytest.raises(UsageError, match=r"got 'layr4'; try .*layer4"):
        explain(reader, reader.forward(batch), 0, Target("finding", layer="layr4"), (64, 64), batch)


def test_one_cell_shows_no_place() -> None:
    reader, batch = small_reader("resnet18", 32), noise(32)
    with pytest.raises(ExplanationFailed, match="got 1x1 at layer4; use a larger input or an earlier --layer"):
        explain(reader, reader.forward(batch), 0, Target("finding"), (32, 32))


def test_a_pooled_layer_shows_no_place() -> None:
    reader, batch = small_reader("resnet18", SIZE), noise()
    with pytest.raises(ExplanationFailed, match=r"grid of tokens to explain, got shape \(1, 512\)"):
        explain(reader, reader.forward(batch), 0, Target("finding", layer="global_pool"), (64, 64), batch)


class Odd(Pick):
    """An encoder with layers that cannot be explained."""

    def __init__(self) -> None:
        super().__init__((1.0,))
        self.unused = nn.Conv2d(1, 1, 1)
        self.twice = nn.ReLU()
        self.beside = nn.Conv2d(1, 1, 1)
        self.pair = Pair()

    def forward_features(self, x: Tensor) -> Tensor:
        self.beside(x)
        x, _ = self.pair(self.twice(self.twice(x)))
        return super().forward_features(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unused", "unused, never called"),
        ("twice", "twice with several calls"),
        ("pair", "pair with several outputs"),
        ("beside", "expected a layer that the score depends on, got beside"),
    ],
)
def test_layers_that_cannot_be_explained_say_why(layer: str, message: str) -> None:
    reader, batch = reader_of([Network(Odd(), nn.Linear(1, 1))], input=SPEC), noise(8)
    before = torch.is_grad_enabled()
    with pytest.raises(ExplanationFailed, match=message):
        explain(reader, reader.forward(batch), 0, Target("finding", layer=layer), (8, 8), batch)
    assert torch.is_grad_enabled() == before
    assert not any(module._forward_hooks for module in reader.networks[0].modules())


def test_class_tokens_are_dropped_and_patches_keep_their_rows() -> None:
    """A ViT of 64x32 pixels has 4x2 patches: the token of row r and column c is at [r, c]."""
    spec = InputSpec(height=64, width=32)
    reader = small_reader("vit_tiny_patch16_224", input=spec)
    network = reader.networks[0]
    batch = torch.rand(1, 1, 64, 32, generator=torch.Generator().manual_seed(1))
    assert needs_encoder(network)
    name = default_layer(network, spec)
    found = from_layer(network, batch, name, 0, spec)
    assert found.maps.shape == (1, 192, 4, 2)
    tokens: list[Tensor] = []
    handle = network.encoder.get_submodule(name).register_forward_hook(lambda _m, _i, out: tokens.append(out))
    reader.forward(batch)
    handle.remove()
    assert tokens[0].shape == (1, 9, 192)
    for row in range(4):
        for column in range(2):
            np.testing.assert_allclose(
                found.maps[0, :, row, column], tokens[0][0, 1 + 2 * row + column], rtol=1e-4, atol=1e-5
            )


def test_swin_maps_keep_channels_last_and_its_convolution_does_not() -> None:
    reader, batch = small_reader("swin_tiny_patch4_window7_224", SIZE), noise()
    network = reader.networks[0]
    inner = from_layer(network, batch, "layers.2.blocks.5.norm1", 0, reader.input)
    assert inner.maps.shape == (1, 384, 4, 4)
    assert inner.tokens
    first = from_layer(network, batch, "patch_embed.proj", 0, reader.input)
    assert first.maps.shape == (1, 96, 16, 16)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tf_efficientnet_lite0", ("blocks.4", "blocks.2")),  # 14x14 and 28x28 above 7x7 for an input of 224
        ("resnet18", ("layer3", "layer2")),
        ("cnn", ("blocks.14", "blocks.10")),  # the last ReLU before each pooling
    ],
)
def test_finer_layers_end_the_sizes_above_the_last(name: str, wanted: tuple[str, ...]) -> None:
    reader = small_reader(name, SIZE)
    found = finer_layers(reader.networks[0], reader.input)
    assert found == wanted
    last = reader.forward(noise()).features[0].shape[2]
    shapes = [from_layer(reader.networks[0], noise(), layer, 0, reader.input).maps.shape[2:] for layer in found]
    assert shapes == [(2 * last, 2 * last), (4 * last, 4 * last)]


def test_tokens_and_a_single_size_have_no_finer_layers() -> None:
    reader = small_reader("vit_tiny_patch16_224", SIZE)
    with pytest.raises(ExplanationFailed, match=r"several sizes for --layer fine, got tokens .*; leave --layer out"):
        finer_layers(reader.networks[0], reader.input)
    with pytest.raises(ExplanationFailed, match="got one size"):
        finer_layers(Network(Pick(), nn.Linear(1, 1)), SPEC)
