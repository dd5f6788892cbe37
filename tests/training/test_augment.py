"""Augmentation: replayed exactly, within [0, 1], and never mirrored unless the data set allows it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from wetread.errors import UsageError
from wetread.training.augment import RECIPES, AugmentParameters, Recipe, apply, recipe_named, sample

REPLAY = 1e-6
"""A batch of one may add in another order than a batch of many: float32 rounding, no more."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, side, side, generator=seeded(seed))


def tensors(params: AugmentParameters) -> dict[str, Tensor]:
    return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}


def test_none_is_the_identity() -> None:
    batch = pictures()
    batch[0, 0, :4] = 0.0
    assert torch.equal(apply(batch, sample(RECIPES["none"], len(batch), seeded())), batch)


@pytest.mark.parametrize("name", list(RECIPES))
def test_each_image_can_be_replayed_alone(name: str) -> None:
    batch = pictures(12)
    params = sample(recipe_named(name, ("horizontal",)), len(batch), seeded(3))
    together = apply(batch, params)
    for row in range(len(batch)):
        alone = apply(batch[row : row + 1], params.row(row))
        torch.testing.assert_close(alone, together[row : row + 1], atol=REPLAY, rtol=0)


def test_the_same_seed_gives_the_same_parameters() -> None:
    recipe = RECIPES["robust"]
    first, again, other = (tensors(sample(recipe, 5, seeded(seed))) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["angle"], other["angle"])


def test_the_input_is_left_as_it_was() -> None:
    batch = pictures()
    kept = batch.clone()
    apply(batch, sample(RECIPES["robust"].model_copy(update={"frame_chance": 1.0}), len(batch), seeded()))
    assert torch.equal(batch, kept)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("kind", ["noise", "black", "white"])
def test_pixels_stay_between_0_and_1(name: str, kind: str) -> None:
    batch = {"noise": pictures(40), "black": torch.zeros(40, 1, 32, 32), "white": torch.ones(40, 1, 32, 32)}[kind]
    out = apply(batch, sample(RECIPES[name], len(batch), seeded(1)))
    assert out.shape == batch.shape
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


def test_parameters_stay_within_the_recipe_and_fill_it() -> None:
    recipe = RECIPES["robust"]
    params = sample(recipe, 4000, seeded(5))
    degrees = params.angle.rad2deg()
    bounds = {
        "angle": (degrees, -recipe.rotation_degrees, recipe.rotation_degrees),
        "scale": (params.scale, *recipe.zoom),
        "log_aspect": (params.log_aspect, -recipe.log_aspect, recipe.log_aspect),
        "shift": (params.shift, -recipe.shift, recipe.shift),
        "log_gamma": (params.log_gamma, -recipe.log_gamma, recipe.log_gamma),
        "log_contrast": (params.log_contrast, -recipe.log_contrast, recipe.log_contrast),
        "brightness": (params.brightness, -recipe.brightness, recipe.brightness),
        "noise": (params.noise, 0, recipe.noise),
    }
    for name, (values, low, high) in bounds.items():
        span = high - low
        assert float(values.min()) >= low - 1e-6, name
        assert float(values.max()) <= high + 1e-6, name
        assert float(values.min()) < low + 0.01 * span, name
        assert float(values.max()) > high - 0.01 * span, name
    changed = float((params.resolution < 1).float().mean())
    assert changed == pytest.approx(recipe.resolution_chance, abs=0.03)
    assert float(params.resolution.min()) >= recipe.smallest_resolution
    assert float((params.frame.sum(1) > 0).float().mean()) == pytest.approx(recipe.frame_chance, abs=0.03)
    assert float((params.erase[:, 2] > 0).float().mean()) == pytest.approx(recipe.erase_chance, abs=0.03)


def with_marker(count: int, side: int = 48) -> Tensor:
    """Films with a bright marker at the left edge, as a technologist's letter lies."""
    batch = torch.full((count, 1, side, side), 0.2)
    batch[:, :, 4:16, 2:14] = 1.0
    return batch


def left_minus_right(batch: Tensor) -> np.ndarray:
    half = batch.shape[3] // 2
    difference: np.ndarray = (batch[..., :half].sum((1, 2, 3)) - batch[..., half:].sum((1, 2, 3))).numpy()
    return difference


MILD = Recipe(rotation_degrees=10, zoom=(0.9, 1.1), log_aspect=0.05, shift=0.05, log_gamma=0.2, noise=0.01)


def test_no_recipe_mirrors_unless_the_card_allows_it() -> None:
    for name in RECIPES:
        assert not bool(sample(recipe_named(name), 500, seeded()).mirror.any()), name
        assert not bool(sample(recipe_named(name, ("vertical",)), 500, seeded()).mirror.any()), name
    batch = with_marker(300)
    assert (left_minus_right(apply(batch, sample(MILD, 300, seeded()))) > 0).all()


def test_mirroring_happens_to_half_of_the_images_where_it_is_allowed() -> None:
    assert not recipe_named("none", ("horizontal",)).mirror
    assert recipe_named("robust", ("horizontal",)).mirror
    params = sample(MILD.model_copy(update={"mirror": True}), 300, seeded())
    side = left_minus_right(apply(with_marker(300), params))
    assert ((side < 0) == params.mirror.numpy()).all()
    assert float(params.mirror.float().mean()) == pytest.approx(0.5, abs=0.1)


def test_a_mirror_alone_is_torchs_flip() -> None:
    batch = pictures(4)
    params = sample(Recipe(mirror=True), 4, seeded())
    forced = dataclasses.replace(params, mirror=torch.tensor([True, False, True, False]))
    out = apply(batch, forced)
    torch.testing.assert_close(out[::2], batch[::2].flip(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[1::2], batch[1::2], atol=1e-4, rtol=0)


def test_a_quarter_turn_and_a_shift_are_what_they_say() -> None:
    """90 degrees turns the picture; a shift of 1 is half the width, black comes in."""
    batch = pictures(1)
    still = sample(Recipe(), 1, seeded())
    turned = apply(batch, dataclasses.replace(still, angle=torch.tensor([torch.pi / 2])))
    distances = [float((turned - batch.rot90(k, (2, 3))).abs().max()) for k in (1, 3)]
    assert min(distances) < 1e-3
    moved = apply(batch, dataclasses.replace(still, shift=torch.tensor([[1.0, 0.0]])))
    torch.testing.assert_close(moved[..., :16], batch[..., 16:], atol=1e-3, rtol=0)
    assert float(moved[..., 16:].max()) < 1e-3


def test_frame_and_patch_are_painted_in_one_grey() -> None:
    still = sample(Recipe(), 1, seeded())
    framed = dataclasses.replace(still, frame=torch.tensor([[0.25, 0.0, 0.125, 0.0]]), frame_value=torch.tensor([0.5]))
    out = apply(torch.zeros(1, 1, 16, 16), framed)[0, 0]
    wanted = torch.zeros(16, 16)
    wanted[:4] = 0.5
    wanted[:, :2] = 0.5
    torch.testing.assert_close(out, wanted)
    patched = dataclasses.replace(still, erase=torch.tensor([[0.5, 0.0, 0.25, 0.5, 0.75]]))
    out = apply(torch.zeros(1, 1, 16, 16), patched)[0, 0]
    wanted = torch.zeros(16, 16)
    wanted[6:10, :8] = 0.75
    torch.testing.assert_close(out, wanted)


def test_gamma_and_contrast_by_hand() -> None:
    """.25 ^ 2 = .0625. Pixels .25 and .75 about their mean .5 with contrast 2: 0 and 1."""
    still = sample(Recipe(), 1, seeded())
    two = torch.tensor([2.0]).log()
    darker = apply(torch.full((1, 1, 8, 8), 0.25), dataclasses.replace(still, log_gamma=two))
    torch.testing.assert_close(darker, torch.full((1, 1, 8, 8), 0.0625))
    halves = torch.cat([torch.full((1, 1, 8, 4), 0.25), torch.full((1, 1, 8, 4), 0.75)], 3)
    spread = apply(halves, dataclasses.replace(still, log_contrast=two))
    torch.testing.assert_close(spread, halves.round(), atol=1e-6, rtol=0)


def test_an_unknown_recipe_names_those_there_are() -> None:
    known = "none, light, robust, squeezed, organs, s6"
    with pytest.raises(UsageError, match=f"expected one of the recipes {known}, got 'strong'"):
        recipe_named("strong")
