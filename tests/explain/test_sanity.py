"""The tester tested: an edge map must fail, the gradient of a linear model must pass, and nothing may be touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.models.support import reader_of, small_reader
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain.randomise import layers_from_head, randomised
from wetread.explain.references import gradient, guided_backpropagation, sobel
from wetread.explain.sanity import (
    JUDGED,
    TOLERANCE,
    DestroyedCopies,
    MapMaker,
    SanitySettings,
    check_sanity,
    map_maker,
)
from wetread.explain.score import Score
from wetread.explain.similarity import as_shown, rank_correlation, structural_similarity
from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.models.predict import Reader

SIDE = 16
FEW = SanitySettings(seeds=3, pairs=60)


class Flat(nn.Module):
    """Pixels as they are: with a linear head, a linear model."""

    num_features = SIDE * SIDE
    head_hidden_size = SIDE * SIDE

    def forward_features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x


def linear_reader() -> Reader:
    torch.manual_seed(0)
    spec = InputSpec(height=SIDE, width=SIDE, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
    return reader_of([Network(Flat(), nn.Linear(SIDE * SIDE, 1), spatial=False)], input=spec)


def pictures(n: int = 24, side: int = SIDE) -> Tensor:
    """Smooth random pictures: unlike each other, with edges."""
    coarse = torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(0, 1)


def test_the_gradient_of_a_linear_model_passes() -> None:
    found = check_sanity(linear_reader(), pictures(), "gradient", map_maker("gradient", "finding"), "finding", FEW)
    assert found.verdict == "passes", found.sentence
    assert "Depends on what the reader has learnt" in found.sentence
    assert found.n == 24
    assert {one.chance.value for one in found.retentions} == {1.0}  # one gradient for all images


def test_an_edge_map_fails() -> None:
    found = check_sanity(linear_reader(), pictures(), "sobel", map_maker("sobel", "finding"), "finding", FEW)
    assert found.verdict == "fails"
    assert "do not use it" in found.sentence
    assert [one.retention.value for one in found.retentions] == pytest.approx([1.0] * 4)


def test_a_map_that_is_always_the_same_fails() -> None:
    """Its random pairs are as alike as can be, so that chance alone would excuse it."""

    def blob(reader: Reader, batch: Tensor) -> list[NDArray[np.float32]]:
        return [np.outer(np.hanning(8), np.hanning(8)).astype(np.float32)] * len(batch)

    assert check_sanity(linear_reader(), pictures(), "blob", blob, "finding", FEW).verdict == "fails"


def half_edges(share: float) -> MapMaker:
    """Edges, mixed with a gradient so that ``share`` of the map does not know the network."""

    def make(reader: Reader, batch: Tensor) -> list[NDArray[np.float32]]:
        learnt = gradient(Score(reader, "finding"), batch)
        edges = sobel(batch)
        return [
            (share * one / one.std() + (1 - share) * other / other.std()).astype(np.float32)
            for one, other in zip(edges, learnt, strict=True)
        ]

    return make


def test_edges_mixed_in_are_found() -> None:
    reader = linear_reader()
    mixed = check_sanity(reader, pictures(), "mixed", half_edges(0.8), "finding", FEW)
    assert mixed.verdict == "fails"
    assert check_sanity(reader, pictures(), "mixed", half_edges(0.0), "finding", FEW).verdict == "passes"


def test_too_few_maps_give_no_verdict() -> None:
    make = map_maker("gradient", "finding")
    few = check_sanity(linear_reader(), pictures(19), "gradient", make, "finding", FEW)
    assert (few.verdict, few.n, few.retentions) == ("not assessable", 19, ())
    assert "19 maps, at least 20 are needed" in few.sentence

    def mostly_empty(reader: Reader, batch: Tensor) -> list[NDArray[np.float32]]:
        return [one * (i < 5) for i, one in enumerate(sobel(batch))]

    empty = check_sanity(linear_reader(), pictures(), "mostly empty", mostly_empty, "finding", FEW)
    assert (empty.verdict, empty.n, empty.unmade) == ("not assessable", 5, 19)


def test_few_patients_give_no_verdict() -> None:
    names = [f"p{i % 3}" for i in range(24)]
    make = map_maker("sobel", "finding")
    found = check_sanity(linear_reader(), pictures(), "sobel", make, "finding", FEW, names)
    assert found.verdict == "not assessable"
    assert "3 patients" in found.sentence
    with pytest.raises(UsageError, match="expected 24 patients"):
        check_sanity(linear_reader(), pictures(), "sobel", make, "finding", FEW, ["p1"])


def test_settings_and_names_are_checked() -> None:
    with pytest.raises(UsageError, match=r"expected shares with \(0.5, 1.0\) among them, got \(1.0,\)"):
        SanitySettings(shares=(1.0,))
    with pytest.raises(UsageError, match="expected at least 2 seeds and 1 pair, got 1 and 200"):
        SanitySettings(seeds=1)
    wrong: Any = "edges"
    with pytest.raises(UsageError, match=r"expected one of cam, .*sobel, got 'edges'"):
        map_maker(wrong, "finding")


def test_the_whole_cascade_is_reported() -> None:
    settings = SanitySettings(shares=(0.0, *JUDGED), seeds=2, pairs=30)
    reader, batch = small_reader("cnn", 32), pictures(20, 32)
    found = check_sanity(reader, batch, "gradcam", map_maker("gradcam", "finding"), "finding", settings)
    assert [(one.share, one.measure) for one in found.retentions] == [
        (share, measure) for share in (0.0, 0.5, 1.0) for measure in ("rank", "structure")
    ]
    for one in found.retentions:
        assert one.retention.value is not None
        assert one.similarity.value is not None
        assert one.chance.value is not None
        chance = min(one.chance.value, 0.9)
        assert one.retention.value == pytest.approx((one.similarity.value - chance) / (1 - chance))
    assert TOLERANCE < 1


ARCHITECTURES = {
    "cnn": ("head.1", "encoder.blocks.0"),
    "resnet18": ("head.1", "encoder.conv1"),
    "tf_efficientnet_lite0": ("head.1", "encoder.conv_stem"),
    "vit_tiny_patch16_224": ("head.1", "encoder"),  # the position embedding belongs to no layer
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_go_from_the_head_to_the_stem(architecture: str) -> None:
    reader = small_reader(architecture, 32)
    network = reader.networks[0]
    layers = layers_from_head(network, normalise(pictures(2, 32), reader.input))
    assert (layers[0], layers[-1]) == ARCHITECTURES[architecture]
    assert set(layers) == {name for name, m in network.named_modules() if list(m.parameters(recurse=False))}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_destroyed_copy_keeps_values_and_loses_their_order(architecture: str) -> None:
    reader, batch = small_reader(architecture, 32), pictures(6, 32)
    before = {key: value.clone() for key, value in reader.networks[0].state_dict().items()}
    copy = randomised(reader, batch, seed=1)
    for (name, own), other in zip(reader.networks[0].named_parameters(), copy.networks[0].parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, other.flatten().sort().values), name
        assert own.numel() < 100 or own.unique().numel() == 1 or not torch.equal(own, other), name
    logits = copy.forward(batch).logits
    assert logits.isfinite().all()
    assert float(logits.std()) > 1e-4  # the statistics fit the new weights: images still differ
    assert torch.equal(logits, randomised(reader, batch, seed=1).forward(batch).logits)
    assert not torch.equal(logits, randomised(reader, batch, seed=2).forward(batch).logits)
    assert all(torch.equal(value, before[key]) for key, value in reader.networks[0].state_dict().items())
    assert not any(module.training for module in copy.networks[0].modules())


def test_the_head_goes_first() -> None:
    reader, batch = small_reader("resnet18", 32), pictures(4, 32)
    copy = randomised(reader, batch, seed=0, share=0.0)
    torch.testing.assert_close(copy.forward(batch).features[0], reader.forward(batch).features[0])
    assert not torch.allclose(copy.forward(batch).logits, reader.forward(batch).logits)
    with pytest.raises(UsageError, match="expected at least 2 images for batch statistics, got 1"):
        randomised(reader, batch[:1], seed=0)
    with pytest.raises(UsageError, match=r"a share of the layers from 0 to 1, got 1\.5"):
        randomised(reader, batch, seed=0, share=1.5)


def test_batch_statistics_are_those_of_the_images() -> None:
    reader, batch = small_reader("cnn", 32), pictures(40, 32)  # two batches
    copy = randomised(reader, batch, seed=0).networks[0]
    blocks: Any = copy.encoder.get_submodule("blocks")
    with torch.inference_mode():
        first = blocks[0](normalise(batch, reader.input))
    torch.testing.assert_close(blocks[1].running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(blocks[1].running_var, first.var((0, 2, 3)), rtol=2e-2, atol=1e-5)


def test_the_gradient_of_a_linear_model_is_its_weights() -> None:
    reader = linear_reader()
    weights = reader.networks[0].get_parameter("head.weight").detach().view(SIDE, SIDE).numpy()
    np.testing.assert_allclose(gradient(Score(reader, "finding"), pictures(3)), np.stack([weights] * 3), rtol=1e-6)


def test_guided_backpropagation_agrees_with_captum_where_captum_works() -> None:
    captum: Any = pytest.importorskip("captum.attr")
    plain = InputSpec(height=32, width=32, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
    reader, batch = small_reader("cnn", input=plain), pictures(3, 32)
    network = reader.networks[0]
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum's hooks do not bear the other
    ours = guided_backpropagation(Score(reader, "finding"), batch)
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU activations"):
        theirs = captum.GuidedBackprop(network).attribute(batch.clone().requires_grad_())
    np.testing.assert_allclose(ours, theirs[:, 0].detach().numpy(), rtol=1e-4, atol=1e-6 * np.abs(ours).max())


def test_guided_backpropagation_reaches_functions_too() -> None:
    """EfficientNet-lite0 calls functional.relu6, which hooks on modules would miss without a word."""
    reader, batch = small_reader("tf_efficientnet_lite0", 32), pictures(2, 32)
    score = Score(reader, "finding")
    assert not np.allclose(guided_backpropagation(score, batch), gradient(score, batch))
    with pytest.raises(ExplanationFailed, match="expected a network with rectifiers"):
        guided_backpropagation(Score(linear_reader(), "finding"), pictures(2))


def test_sobel_is_steep_at_an_edge_alone() -> None:
    batch = torch.zeros(2, 1, SIDE, SIDE)
    batch[0, ..., 8:] = 1
    steep, flat = sobel(batch)
    assert np.flatnonzero(steep.sum(0)).tolist() == [7, 8]
    assert steep.max() == 4.0
    assert not flat.any()  # images do not run into each other


def test_similarity_of_maps_as_shown() -> None:
    rng = np.random.default_rng(0)
    a, b = (as_shown(rng.normal(size=(8, 8)).astype(np.float32), 32, 32) for _ in range(2))
    assert a.min() == 0
    assert a.max() == 1
    for measure in (rank_correlation, structural_similarity):
        assert measure(a, a) == pytest.approx(1)
        assert measure(a, b) < 0.6
        assert measure(a, np.zeros_like(a)) == 0.0
    assert not as_shown(-np.ones((4, 4), np.float32), 8, 8).any()
    from scipy.stats import spearmanr

    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)


def test_copies_that_several_methods_share_say_what_those_of_one_method_say() -> None:
    shared = DestroyedCopies(linear_reader(), pictures(), FEW)
    for method in ("gradient", "sobel", "gradient"):
        alone = check_sanity(linear_reader(), pictures(), method, map_maker(method, "finding"), "finding", FEW)
        assert shared.check(method, map_maker(method, "finding"), "finding") == alone
