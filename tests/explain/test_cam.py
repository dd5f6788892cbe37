"""Class activation maps against paper and pencil, against each other, and against higher derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.explain.toys import Formula, toy_reader
from tests.models.support import small_reader
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain import CAM_METHODS, Explanation, Target, explain, explain_batch
from wetread.explain.cam import gradcam, gradcam_plus_plus, hirescam
from wetread.explain.layers import finer_layers
from wetread.models.card import HeadSpec
from wetread.models.networks import KnnHead

MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
GRADIENTS = torch.tensor([[[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 0.0]]]])


def quarters(*values: float) -> Tensor:
    """An 8x8 image whose four quarters have these values."""
    return torch.tensor(values).reshape(1, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)


def linear(*weights: float, bias: float = 0.0) -> nn.Linear:
    layer = nn.Linear(len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
        layer.bias.fill_(bias)
    return layer


def test_gradcam_weighs_each_map_by_its_mean_gradient() -> None:
    # weights 0.5 and 1/4
    expected = [[0.5, 1 + 0.25], [1.5, 2 - 0.25]]
    np.testing.assert_allclose(gradcam(MAPS, GRADIENTS)[0], expected, rtol=1e-6)


def test_hirescam_multiplies_place_by_place() -> None:
    np.testing.assert_allclose(hirescam(MAPS, GRADIENTS)[0], [[0.5, 1.0], [1.5, 2.0]], rtol=1e-6)


def test_gradcam_plus_plus_on_paper() -> None:
    # map 1: sum 10, alpha = 1 / (2 + 5), weight 4 * 0.5 / 7; map 2: positive sum 1, weight 1 / 3
    first, second = 2 / 7, 1 / 3
    expected = [[first, 2 * first + second], [3 * first, 4 * first - second]]
    np.testing.assert_allclose(gradcam_plus_plus(MAPS, GRADIENTS)[0], expected, rtol=1e-6)


def test_gradcam_plus_plus_equals_the_article_with_its_three_derivatives() -> None:
    """Eq. 19 by automatic differentiation of Y = exp(S), S linear in the maps; exp(S) divided out."""
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(1, 4, 3, 3, generator=generator, dtype=torch.float64)
    slopes = torch.randn(1, 4, 3, 3, generator=generator, dtype=torch.float64)
    weights = torch.zeros(4, dtype=torch.float64)
    for k, i, j in np.ndindex(4, 3, 3):
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        score = (maps * slopes).sum() + step * slopes[0, k, i, j]
        value = torch.exp(score)
        (one,) = torch.autograd.grad(value, step, create_graph=True)
        (two,) = torch.autograd.grad(one, step, create_graph=True)
        (three,) = torch.autograd.grad(two, step)
        alpha = two / (2 * two + maps[0, k].sum() * three)
        if one > 0:  # where the gradient falls, relu is 0 and alpha may be anything
            weights[k] += (alpha * one / torch.exp(score)).detach()
    expected = (weights[None, :, None, None] * maps).sum(1)
    torch.testing.assert_close(gradcam_plus_plus(maps, slopes), expected)


def test_gradcam_plus_plus_stays_finite_where_activations_are_negative() -> None:
    maps = torch.full((1, 1, 2, 2), -1.0)
    assert torch.isfinite(gradcam_plus_plus(maps, torch.full((1, 1, 2, 2), 0.5))).all()  # 2 + g sum A = 0


def test_a_linear_head_gives_the_known_map_and_adds_up_to_the_logit() -> None:
    reader = toy_reader((1.0, 2.0), linear(3.0, -1.0, bias=0.25))
    batch = quarters(0.0, 0.2, 0.4, 0.8)
    forward = reader.forward(batch)
    # maps A and 2A, weights 3 and -1: CAM = A, and the logit is mean(A) + bias = 0.35 + 0.25
    cam = explain(reader, forward, 0, Target("finding", "cam"), (8, 8))
    np.testing.assert_allclose(cam.map, [[0.0, 0.2], [0.4, 0.8]], atol=1e-6)
    assert cam.scale == pytest.approx(0.8)
    assert float(forward.logits[0, 0]) == pytest.approx(0.60)
    for method in ("gradcam", "hirescam"):
        other = explain(reader, forward, 0, Target("finding", method), (8, 8))
        np.testing.assert_allclose(other.map, cam.map / 4, atol=1e-6)  # 4 cells
        assert other.map.sum() + 0.25 == pytest.approx(float(forward.logits[0, 0]), abs=1e-6)
        assert other.error == pytest.approx(0, abs=1e-6)
    assert cam.error == pytest.approx(0, abs=1e-6)


def test_a_quadratic_head_gives_the_gradient_known_on_paper() -> None:
    reader = toy_reader((1.0,), Formula(lambda x: x**2))
    forward = reader.forward(quarters(0.0, 0.2, 0.4, 0.8))
    # y = m^2 with m = 0.35, so dy/dA = 2 m / 4 = 0.175 in every cell
    result = explain(reader, forward, 0, Target("finding"), (8, 8))
    np.testing.assert_allclose(result.map, [[0.0, 0.035], [0.07, 0.14]], atol=1e-6)
    assert result.error is None  # no promise to add up


def test_the_map_is_signed_and_the_heat_is_not() -> None:
    reader = toy_reader((1.0,), linear(1.0))
    batch = quarters(-1.0, 0.0, 0.0, 0.5)  # beyond [0, 1] on purpose
    result = explain(reader, reader.forward(batch), 0, Target("finding", "cam"), (8, 8))
    assert result.map[0, 0] == pytest.approx(-1)
    assert result.heat[:4, :4].max() < 0.3  # interpolation reaches over from the other quarters
    assert result.heat[-1, -1] == pytest.approx(1)


def test_an_ensemble_averages_raw_maps_and_adds_up_to_its_logit() -> None:
    reader = toy_reader((1.0,), linear(1.0, bias=0.5), linear(3.0, bias=-0.1))
    forward = reader.forward(quarters(0.0, 0.2, 0.4, 0.8))
    result = explain(reader, forward, 0, Target("finding", "hirescam"), (8, 8))
    np.testing.assert_allclose(result.map, [[0.0, 0.1], [0.2, 0.4]], atol=1e-6)  # mean weight 2, over 4 cells
    assert result.map.sum() + 0.2 == pytest.approx(float(forward.logits[0, 0]), abs=1e-6)
    assert "Mean of 2 networks" in " ".join(result.limits)


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "resnet18", "densenet121", "cnn"])
def test_on_pooled_linear_networks_three_methods_agree(architecture: str) -> None:
    reader = small_reader(architecture, 64, ("a", "b", "c", "d"))
    forward = reader.forward(torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    compared = 0
    for label in reader.labels:
        maps = [
            explain_batch(reader, forward, Target(label, method), [(64, 64)] * 2)
            for method in ("cam", "gradcam", "hirescam")
        ]
        for cam, *others in zip(*maps, strict=True):
            for other in others:
                assert isinstance(cam, Explanation) == isinstance(other, Explanation)
                if isinstance(cam, Explanation) and isinstance(other, Explanation):
                    np.testing.assert_allclose(other.map * other.map.size, cam.map, rtol=1e-4, atol=1e-5)
                    assert other.error is not None
                    assert other.error < 1e-5
                    compared += 1
    assert compared >= 2  # both comparisons of at least one image


def test_cam_refuses_other_heads_and_names_the_way_out() -> None:
    for reader in (
        small_reader("mobilenetv3_small_050", 64),  # a convolution after the pooling
        small_reader("cnn", head=HeadSpec(kind="mlp", hidden=8)),
        small_reader("cnn", head=HeadSpec(kind="knn", references=20, neighbours=3)),
    ):
        size = reader.input.height
        forward = reader.forward(torch.rand(1, 1, size, size))
        with pytest.raises(ExplanationFailed, match=r"expected a linear head .* use --method gradcam"):
            explain(reader, forward, 0, Target("finding", "cam"), (size, size))


def test_a_neighbour_head_is_explained_by_its_gradient() -> None:
    reader = small_reader("cnn", head=HeadSpec(kind="knn", references=20, neighbours=5))
    head = reader.networks[0].head
    assert isinstance(head, KnnHead)
    generator = torch.Generator().manual_seed(0)
    head.references.copy_(nn.functional.normalize(torch.randn(20, 256, generator=generator), dim=1))
    head.targets.copy_((torch.arange(20) % 2)[:, None])
    forward = reader.forward(torch.rand(4, 1, 32, 32, generator=generator))
    results = explain_batch(reader, forward, Target("finding"), [(32, 32)] * 4)
    assert any(isinstance(result, Explanation) for result in results)


def test_a_pixel_baseline_has_no_map() -> None:
    reader = small_reader("pixels")
    reader.networks[0].spatial = False
    forward = reader.forward(torch.rand(1, 1, 32, 32))
    with pytest.raises(ExplanationFailed, match="expected a network with feature maps, got pixels"):
        explain(reader, forward, 0, Target("finding"), (32, 32))


def test_one_bad_image_does_not_cost_the_others_their_maps() -> None:
    reader = toy_reader((1.0,), linear(1.0))
    batch = torch.cat([quarters(0.0, 0.2, 0.4, 0.8), quarters(0.5, 0.5, 0.5, 0.5), quarters(-1, -2, -1, -3)])
    good, flat, against = explain_batch(reader, reader.forward(batch), Target("finding"), [(8, 8)] * 3)
    assert isinstance(good, Explanation)
    assert isinstance(flat, ExplanationFailed)
    assert "the same value in all 4 cells" in str(flat)
    assert isinstance(against, ExplanationFailed)
    assert "no place that speaks for it" in str(against)
    with pytest.raises(ExplanationFailed, match="the same value"):
        explain(reader, reader.forward(batch), 1, Target("finding"), (8, 8))


def test_weights_that_are_not_finite_are_an_error() -> None:
    reader = toy_reader((1.0,), linear(float("nan")))
    (result,) = explain_batch(reader, reader.forward(quarters(0, 0.2, 0.4, 0.8)), Target("finding"), [(8, 8)])
    assert "not finite" in str(result)


def test_an_image_alone_and_in_a_batch_has_the_same_map() -> None:
    reader = small_reader("cnn", 64, ("a", "b", "c"))
    batch = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    together = explain_batch(reader, reader.forward(batch), Target("a", "gradcam++"), [(64, 64)] * 5)
    alone = explain(reader, reader.forward(batch[3:4]), 0, Target("a", "gradcam++"), (64, 64))
    picked = explain(reader, reader.forward(batch), 3, Target("a", "gradcam++"), (64, 64))
    assert isinstance(together[3], Explanation)
    np.testing.assert_allclose(together[3].map, alone.map, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(together[3].map, picked.map, rtol=1e-5, atol=1e-8)


def test_it_works_inside_inference_mode_and_leaves_the_mode_alone() -> None:
    reader = toy_reader((1.0,), linear(1.0))
    with torch.inference_mode():
        forward = reader.forward(quarters(0.0, 0.2, 0.4, 0.8))
        inside = explain(reader, forward, 0, Target("finding"), (8, 8))
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        outside = explain(reader, forward, 0, Target("finding"), (8, 8))
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(inside.map, outside.map)


def test_wrong_questions_are_refused_with_a_hint() -> None:
    reader = small_reader("cnn", labels=("pneumonia", "effusion"))
    forward = reader.forward(torch.rand(2, 1, 32, 32))
    with pytest.raises(UsageError, match=r"labels pneumonia, effusion, got 'pneumnia'; try --label pneumonia"):
        explain(reader, forward, 0, Target("pneumnia"), (32, 32))
    with pytest.raises(UsageError, match="expected an index below 2, got 2"):
        explain(reader, forward, 2, Target("effusion"), (32, 32))
    with pytest.raises(UsageError, match="expected one size for each image, got 1 for 2"):
        explain_batch(reader, forward, Target("effusion"), [(32, 32)])
    with pytest.raises(UsageError, match=r"expected one of cam, gradcam, .*, rise, lime, got 'lemon'"):
        Target("effusion", "lemon")  # type: ignore[arg-type]


def test_every_map_says_what_it_cannot_show() -> None:
    reader = small_reader("resnet18", 64, ("a", "b", "c", "d"))
    forward = reader.forward(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    seen: set[str] = set()
    for method in CAM_METHODS:
        for label in reader.labels:
            (result,) = explain_batch(reader, forward, Target(label, method), [(64, 64)])
            if isinstance(result, Explanation):
                assert result.limits[0] == "Shows where the score came from, not where disease is."
                assert "2x2 cells" in " ".join(result.limits)
                seen.add(result.limits[1])
    assert len(seen) == len(CAM_METHODS)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_fine_is_the_usual_map_times_the_heat_of_finer_layers(name: str) -> None:
    reader = small_reader(name, 64)
    batch = torch.rand(6, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    forward = reader.forward(batch)
    sizes = [(64, 64)] * 6
    label = reader.labels[0]
    fine = explain_batch(reader, forward, Target(label, layer="fine"), sizes, batch)
    usual = explain_batch(reader, forward, Target(label, layer="last"), sizes, batch)
    names = finer_layers(reader.networks[0], reader.input)
    finer = [explain_batch(reader, forward, Target(label, "hirescam", layer), sizes, batch) for layer in names]
    seen = 0
    for made, whole, *parts in zip(fine, usual, *finer, strict=True):
        if isinstance(made, ExplanationFailed):
            continue
        seen += 1
        assert isinstance(whole, Explanation)
        product = np.maximum(whole.map, 0)
        for part in parts:
            assert isinstance(part, Explanation)
            heat = torch.from_numpy(product)[None, None]
            size = part.map.shape
            heat = torch.nn.functional.interpolate(heat, size, mode="bilinear", align_corners=False)
            product = heat[0, 0].numpy() * np.maximum(part.map, 0) / part.map.max()
        np.testing.assert_allclose(made.map, product, rtol=1e-4, atol=1e-6 * made.scale)  # sums in other order
        assert made.map.shape == parts[-1].map.shape
        assert made.layer == " x ".join((whole.layer, *names))
        assert any("Sharpened" in limit for limit in made.limits)
    assert seen >= 2


def test_fine_needs_the_batch_and_feature_maps_of_several_sizes() -> None:
    reader = small_reader("resnet18", 64)
    batch = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with pytest.raises(UsageError, match="pass batch="):
        explain(reader, reader.forward(batch), 0, Target(reader.labels[0], layer="fine"), (64, 64))
    vit = small_reader("vit_tiny_patch16_224", 64)
    with pytest.raises(ExplanationFailed, match="several sizes for --layer fine"):
        explain(vit, vit.forward(batch), 0, Target(vit.labels[0], layer="fine"), (64, 64), batch)
