"""Occlusion and RISE: exact where the score is a sum, honest about noise, no gradients, a seed of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.explain.linear import SIDE, formula_reader, formula_score, linear_score, picture
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain.base import Options, RawMap
from wetread.explain.perturbation import FILLS, Fill, compare, filled, occlusion, rise
from wetread.explain.score import Score

WEIGHTS = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
CELL = (slice(4, 8), slice(10, 14))


def planted(x: Tensor) -> Tensor:
    """5 x the mean grey of one cell, and a little of everything."""
    return 5 * x[:, CELL[0], CELL[1]].mean((1, 2)) + 0.1 * x.mean((1, 2))


class Asked:
    """A score that notes how many images it was asked about."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.images = 0

    def __call__(self, batch: Tensor) -> Tensor:
        self.images += len(batch)
        return self.score(batch)


def only(found: list[RawMap | ExplanationFailed]) -> RawMap:
    (raw,) = found
    assert isinstance(raw, RawMap)
    assert raw.map.shape == (SIDE, SIDE)
    assert raw.map.dtype == np.float32
    return raw


def test_what_hidden_pixels_become() -> None:
    image = picture()
    assert not filled(image, "black").any()
    assert torch.allclose(filled(image, "mean"), image.mean())
    blurred = filled(image, "blur")
    assert blurred.shape == image.shape
    assert blurred.dtype == torch.float32
    assert blurred.mean() == pytest.approx(float(image.mean()), abs=0.02)
    assert blurred.std() < 0.4 * image.std()
    assert filled(image, "blur", 1 / 4).std() < blurred.std()
    with pytest.raises(UsageError, match="expected one of blur, mean, black, got 'white'"):
        filled(image, "white")  # type: ignore[arg-type]


def test_occlusion_of_a_sum_is_the_mean_of_what_the_windows_hold() -> None:
    """Brute force: each 2 x 2 window, moved by 1, holds sum(w x); a pixel has the mean over its windows."""
    image = picture()
    raw = only(occlusion(linear_score(WEIGHTS), image, Options(fill="black")))
    held = (WEIGHTS * image[0, 0]).numpy()
    total, count = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for top in range(SIDE - 1):
        for left in range(SIDE - 1):
            window = (slice(top, top + 2), slice(left, left + 2))
            total[window] += held[window].sum()
            count[window] += 1
    np.testing.assert_allclose(raw.map, total / count, atol=1e-5)
    assert raw.baseline == "black"
    assert "One window is 2 x 2 pixels" in raw.limits[0]


@pytest.mark.parametrize(("samples", "window"), [(None, 2), (9, 8), (49, 4), (60, 4), (225, 2)])
def test_occlusion_keeps_within_its_samples_and_counts_its_passes(samples: int | None, window: int) -> None:
    asked = Asked(formula_score(planted))
    raw = only(occlusion(asked, picture(), Options(samples=samples)))  # type: ignore[arg-type]
    assert raw.passes == asked.images
    windows = raw.passes - 1 - 4  # the image, and the image with its three fills
    assert windows <= (samples or 225)
    assert f"{window} x {window} pixels" in raw.limits[0]


@pytest.mark.parametrize("fill", FILLS)
def test_occlusion_finds_the_cell_that_counts(fill: Fill) -> None:
    image = picture() * 0.2
    image[0, 0][CELL] = 1.0
    raw = only(occlusion(formula_score(planted), image, Options(fill=fill)))
    inside = raw.map[CELL].mean()
    outside = np.abs(raw.map[:, :8]).max()
    assert inside > 20 * outside


def test_occlusion_is_that_of_captum_with_a_stride() -> None:
    from captum.attr import Occlusion

    image, score = picture(), formula_score(lambda x: torch.sin((x * WEIGHTS).sum((1, 2))))
    raw = only(occlusion(score, image, Options(samples=49)))
    wanted = Occlusion(score).attribute(image, (1, 4, 4), (1, 2, 2), baselines=filled(image, "blur"))
    np.testing.assert_allclose(raw.map, wanted[0, 0], atol=1e-6)


def test_too_few_windows_or_masks_are_refused() -> None:
    with pytest.raises(UsageError, match="expected at least 9 samples for occlusion, got 8; raise --samples"):
        occlusion(linear_score(WEIGHTS), picture(), Options(samples=8))
    with pytest.raises(UsageError, match="expected at least 2 samples for rise, got 1"):
        rise(linear_score(WEIGHTS), picture(), Options(samples=1))
    (failure,) = rise(linear_score(WEIGHTS), picture(), Options(samples=2))
    assert isinstance(failure, ExplanationFailed)
    assert "expected masks that show every pixel, got 2 that do not; raise --samples" in str(failure)


@pytest.mark.parametrize("fill", FILLS)
def test_rise_finds_the_cell_that_counts(fill: Fill) -> None:
    image = picture() * 0.2
    image[0, 0][CELL] = 1.0
    raw = only(rise(formula_score(planted), image, Options(samples=400, fill=fill)))
    row, column = np.unravel_index(raw.map.argmax(), raw.map.shape)
    assert CELL[0].start <= row < CELL[0].stop
    assert CELL[1].start <= column < CELL[1].stop
    assert raw.map.max() > 5 * raw.details["monte_carlo_error"]


def test_rise_is_the_mean_score_where_a_pixel_is_shown_less_the_mean_of_all() -> None:
    """Brute force over the same masks, found by a score that notes what it is shown: black fill on a white image."""
    shown: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        shown.append(x.detach().clone())
        return (x * WEIGHTS).sum((1, 2))

    image = torch.ones(1, 1, SIDE, SIDE)
    raw = only(rise(formula_score(note), image, Options(samples=70, fill="black")))
    masks = torch.cat(shown)[4:].double()  # after the image and its fills
    assert len(masks) == 70
    assert -1e-6 <= masks.min() <= masks.max() <= 1 + 1e-6
    assert masks.mean() == pytest.approx(0.5, abs=0.05)
    scores = (masks * WEIGHTS).sum((1, 2))
    wanted = (scores[:, None, None] * masks).sum(0) / masks.sum(0) - scores.mean()
    np.testing.assert_allclose(raw.map, wanted, atol=1e-4)
    assert raw.passes == 70 + 4


def test_the_monte_carlo_error_of_rise_is_the_spread_over_seeds() -> None:
    image, score = picture(), formula_score(planted)
    raws = [only(rise(score, image, Options(seed=seed, samples=100))) for seed in range(12)]
    spread = float(np.sqrt(np.stack([raw.map for raw in raws]).var(axis=0, ddof=1).mean()))
    told = float(np.sqrt(np.mean([raw.details["monte_carlo_error"] ** 2 for raw in raws])))
    assert told == pytest.approx(spread, rel=0.35)
    more = only(rise(score, image, Options(samples=1600)))
    assert more.details["monte_carlo_error"] < 0.5 * told


def test_too_noisy_a_map_is_said_to_be_so() -> None:
    flat = formula_score(lambda x: x.flatten(1).std(1) * 100)
    noisy = only(rise(flat, picture(), Options(samples=20)))
    assert "From 20 random masks: standard error" in noisy.limits[0]
    assert "too noisy, raise --samples" in noisy.limits[0]


def test_readers_without_gradients_are_explained() -> None:
    score = Score(formula_reader(planted, gradients=False), "finding")
    for found in (occlusion(score, picture(), Options()), rise(score, picture(), Options(samples=60))):
        assert np.isfinite(only(found).map).all()


def test_the_score_of_every_fill_is_looked_at() -> None:
    dark = formula_score(lambda x: -x.mean((1, 2)))
    compared = compare(dark, picture(), Options())
    assert set(compared.scores) == {"blur", "mean", "black"}
    assert compared.fill_score == compared.scores["blur"]
    assert compared.passes == 4
    (sentence,) = compare(dark, picture(), Options(fill="black")).limits
    assert "Replacing all of the image (black) does not lower the score (-0.5 to 0.0" in sentence
    assert compare(formula_score(lambda x: x.mean((1, 2))), picture(), Options(fill="black")).limits == ()


def test_rise_has_a_seed_of_its_own_and_the_same_map_alone_and_in_a_batch() -> None:
    score, batch = formula_score(planted), picture(count=2)
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        first = rise(score, batch.clone(), Options(seed=3, samples=60))
    alone = rise(score, batch[1:], Options(seed=3, samples=60))
    other = rise(score, batch[1:], Options(seed=4, samples=60))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first[1].map, alone[0].map)  # type: ignore[union-attr]
    assert not np.array_equal(alone[0].map, other[0].map)  # type: ignore[union-attr]
