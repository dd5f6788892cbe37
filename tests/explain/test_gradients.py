"""Gradient methods: exact on paper, in agreement with captum, honest about their error, with a seed of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.explain.linear import SIDE, formula_reader, formula_score, linear_score, picture
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain.base import Method, Options, RawMap
from wetread.explain.dispatch import GRADIENT_METHODS, Maker, maker_of
from wetread.explain.gradients import gradient_shap, gradient_x_input, integrated_gradients, smoothgrad
from wetread.explain.perturbation import Fill, filled
from wetread.explain.score import Score

WEIGHTS = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
BLACK = Options(fill="black")


def bent(x: Tensor) -> Tensor:
    """A smooth score that is not linear."""
    return torch.sin(3 * (x * WEIGHTS).mean((1, 2))) * 5 + (x**3 * WEIGHTS.abs()).sum((1, 2)) / 20


def only(maker: Maker, score: Score, image: Tensor, options: Options) -> RawMap:
    (raw,) = maker(score, image, options)
    assert isinstance(raw, RawMap)
    assert raw.map.shape == (SIDE, SIDE)
    assert raw.map.dtype == np.float32
    return raw


def test_a_linear_score_is_taken_apart_exactly() -> None:
    """The map is w (x - x') for each method that promises it, and it adds up to f(x) - f(x')."""
    image, score = picture(), linear_score(WEIGHTS)
    fills: tuple[Fill, ...] = ("blur", "mean", "black")
    for fill in fills:
        wanted = WEIGHTS * (image - filled(image, fill))[0, 0]
        for maker in (gradient_x_input, integrated_gradients):
            raw = only(maker, score, image, Options(fill=fill))
            np.testing.assert_allclose(raw.map, wanted, atol=1e-6)


def test_the_baseline_of_gradient_x_input_is_black_unless_asked_otherwise() -> None:
    from captum.attr import InputXGradient

    image, score = picture(), formula_score(bent)
    raw = only(gradient_x_input, score, image, Options())
    wanted = InputXGradient(score.differentiable).attribute(image.clone().requires_grad_())
    np.testing.assert_allclose(raw.map, wanted[0, 0].detach(), atol=1e-6)
    assert (raw.baseline, raw.passes) == ("black", 3)
    assert any("not smoothed" in limit for limit in raw.limits)


def test_smoothgrad_of_a_linear_score_is_the_gradient() -> None:
    raw = only(smoothgrad, linear_score(WEIGHTS), picture(), Options(samples=7))
    np.testing.assert_allclose(raw.map, WEIGHTS, atol=1e-6)
    assert raw.passes == 3 * 7 + 1


def test_smoothgrad_is_that_of_captum_for_the_same_noise() -> None:
    from captum.attr import NoiseTunnel, Saliency

    image, score = picture(), formula_score(bent)
    raw = only(smoothgrad, score, image, Options(seed=5, samples=25))
    noise = 0.15 * float(image.max() - image.min())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        wanted = NoiseTunnel(Saliency(score.differentiable)).attribute(
            image.clone().requires_grad_(), nt_samples=25, stdevs=noise, abs=False
        )
    np.testing.assert_allclose(raw.map, wanted[0, 0].detach(), atol=1e-6)


def test_smoothgrad_tells_when_the_noise_itself_moves_the_score() -> None:
    """Let f = 100 x the variance within the image: noise of .15 adds 100 * .0225 to it."""
    score = formula_score(lambda x: 100 * x.flatten(1).var(1))
    raw = only(smoothgrad, score, picture(), Options())
    assert raw.details["noisy_score"] - raw.details["score"] == pytest.approx(2.25, rel=0.1)
    assert any("noise alone moves the score" in limit for limit in raw.limits)
    quiet = only(smoothgrad, linear_score(WEIGHTS / 100), picture(), Options())
    assert not any("noise alone" in limit for limit in quiet.limits)


def test_integrated_gradients_add_up_and_say_so() -> None:
    raw = only(integrated_gradients, formula_score(bent), picture(), BLACK)
    change = raw.details["score"] - raw.details["fill_score"]
    assert raw.error is not None
    assert raw.error <= 0.01 * abs(change)
    assert raw.map.sum() == pytest.approx(change, abs=raw.error + 1e-5)
    assert raw.details["steps"] == 20  # a smooth path needs no more
    assert raw.passes == 3 * (20 + 1) + 4
    assert not any("Adds up" in limit for limit in raw.limits)


def test_integrated_gradients_are_those_of_captum() -> None:
    from captum.attr import IntegratedGradients

    image, score = picture(), formula_score(bent)
    raw = only(integrated_gradients, score, image, Options())
    wanted, delta = IntegratedGradients(score.differentiable).attribute(
        image, filled(image, "blur"), n_steps=20, return_convergence_delta=True
    )
    np.testing.assert_allclose(raw.map, wanted[0, 0].detach(), atol=1e-6)
    assert raw.error == pytest.approx(abs(float(delta)), abs=1e-5)


def test_the_error_of_integrated_gradients_shrinks_with_steps() -> None:
    score = formula_score(lambda x: torch.exp(6 * x.mean((1, 2))))
    errors = [only(integrated_gradients, score, picture(), Options(samples=n, fill="black")).error for n in (1, 2, 4)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]  # type: ignore[operator]


def test_a_path_with_a_step_does_not_add_up_and_the_map_says_so() -> None:
    """A staircase has no slope: gradients see nothing of a rise by 10."""
    score = formula_score(lambda x: x.mean((1, 2)) + 10 * (x.mean((1, 2)) > 0.3).float())
    image = picture()
    raw = only(integrated_gradients, score, image, BLACK)
    assert raw.error == pytest.approx(10, abs=1e-3)
    assert raw.details["steps"] == 200
    assert raw.passes == 3 * (20 + 60 + 200 + 1) + 4
    assert any("only within 10.00 after 200 steps" in limit for limit in raw.limits)


def test_a_baseline_that_scores_higher_is_said() -> None:
    raw = only(integrated_gradients, linear_score(-torch.ones(SIDE, SIDE)), picture(), BLACK)
    assert any("does not lower the score" in limit and "no fill does" in limit for limit in raw.limits)
    better = only(integrated_gradients, linear_score(torch.ones(SIDE, SIDE)), picture(), Options(fill="mean"))
    assert any("--fill black gives 1.0" in limit for limit in better.limits)


def test_expected_gradients_of_a_sum_of_squares_are_those_on_paper() -> None:
    """phi_i = x_i^2 - mean over the baselines of b_i^2, the Shapley value of an additive score."""
    image, score = picture(), formula_score(lambda x: (x**2).sum((1, 2)))
    raw = only(gradient_shap, score, image, Options(samples=500, fill="black"))
    np.testing.assert_allclose(raw.map, (image**2)[0, 0], atol=0.03)
    assert raw.details["baselines"] == 1
    assert raw.error is not None
    assert raw.error < 0.01 * (raw.details["score"] - raw.details["fill_score"])
    five = only(gradient_shap, score, image, Options(samples=500))
    squares = torch.cat([filled(image, "blur", share) for share in (1 / 32, 1 / 16, 1 / 8)] + [filled(image, "mean")])
    wanted = (image**2)[0, 0] - (squares**2).sum((0, 1)) / 5
    np.testing.assert_allclose(five.map, wanted, atol=0.06)
    assert five.passes == 3 * 500 + 6


def test_expected_gradients_agree_with_captum_within_their_noise() -> None:
    from captum.attr import GradientShap

    image, score = picture(), formula_score(bent)
    ours = only(gradient_shap, score, image, Options(samples=1000, fill="black")).map
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        theirs = GradientShap(score.differentiable).attribute(
            image.clone().requires_grad_(), torch.zeros_like(image), n_samples=4000, stdevs=0.02
        )
    np.random.set_state(state)
    spread = float(theirs.std())
    np.testing.assert_allclose(ours, theirs[0, 0].detach(), atol=0.1 * spread)


def test_too_few_draws_for_the_baselines_are_refused() -> None:
    with pytest.raises(UsageError, match="expected at least 5 samples, got 4; raise --samples"):
        gradient_shap(linear_score(WEIGHTS), picture(), Options(samples=4))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_a_reader_without_gradients_is_refused_in_words(method: Method) -> None:
    maker = maker_of(method)
    exported = Score(formula_reader(bent, gradients=False), "finding")
    with pytest.raises(ExplanationFailed, match="which gives scores alone; use --method occlusion, rise or lime"):
        maker(exported, picture(), Options())
    cut = formula_score(lambda x: bent(x.detach()))
    with pytest.raises(ExplanationFailed, match="whose score does not follow the pixels; use --method occlusion"):
        maker(cut, picture(), Options())


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_equal_seeds_equal_maps_and_the_global_generators_are_left_alone(method: Method) -> None:
    maker, score, batch = maker_of(method), formula_score(bent), picture(count=2)
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    with torch.inference_mode():
        first = maker(score, batch.clone(), Options(seed=3, samples=10))  # tensors of inference mode are taken too
    again = maker(score, batch, Options(seed=3, samples=10))
    alone = maker(score, batch[1:], Options(seed=3, samples=10))
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.map, other.map)  # type: ignore[union-attr]
    np.testing.assert_array_equal(alone[0].map, first[1].map)  # type: ignore[union-attr]
    if method in ("smoothgrad", "gradient-shap"):
        changed = maker(score, batch, Options(seed=4, samples=10))
        assert not np.array_equal(changed[0].map, first[0].map)  # type: ignore[union-attr]


def test_the_weights_keep_no_gradient() -> None:
    score = formula_score(bent)
    batch = picture()
    only(integrated_gradients, score, batch, Options())
    assert not batch.requires_grad
    assert all(parameter.grad is None for network in score.reader.networks for parameter in network.parameters())
