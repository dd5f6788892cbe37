"""New backgrounds around the organ, and attention held to it."""

from __future__ import annotations

import math

import pytest
import torch

from wetread.training.guidance import attention_loss, new_backgrounds


def halves(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose left half is the organ and shows the image's number, on a background of its own grey."""
    batch = torch.linspace(0.2, 0.8, count)[:, None, None, None].expand(-1, 1, 16, 16).clone()
    batch[..., 8:] = 1 - batch[..., 8:]
    organs = torch.zeros(count, 1, 16, 16, dtype=torch.bool)
    organs[..., :8] = True
    return batch, organs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_organ_stays_and_every_chosen_background_is_another() -> None:
    batch, organs = halves(24)
    changed = new_backgrounds(batch, organs, 1.0, generator())
    assert torch.equal(changed[..., :8], batch[..., :8])
    assert all((a != b).any() for a, b in zip(changed[..., 8:], batch[..., 8:], strict=True))
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_the_background_of_another_image_does_not_bring_its_organ_along() -> None:
    batch, _ = halves(8)
    batch[..., 8:] = 0.95
    organs = torch.zeros(8, 1, 16, 16, dtype=torch.bool)
    organs[0, ..., :4] = True  # a small organ, so that where the others have theirs lies outside of it
    organs[1:, ..., :8] = True
    for seed in range(20):
        first = new_backgrounds(batch, organs, 1.0, generator(seed))[0]
        greys = {round(float(value), 4) for value in first[:, :, 4:8].unique()}
        assert greys.isdisjoint({round(float(value), 4) for value in batch[1:, 0, 0, 0]})


def test_the_chance_is_that_of_images_and_the_same_seed_gives_the_same_batch() -> None:
    batch, organs = halves(400)
    changed = new_backgrounds(batch, organs, 0.25, generator())
    share = (changed != batch).flatten(1).any(1).float().mean()
    assert 0.18 < share < 0.32
    assert torch.equal(changed, new_backgrounds(batch, organs, 0.25, generator()))


def test_an_image_without_a_mask_stays_as_it_is() -> None:
    batch, organs = halves(6)
    organs[2] = False
    assert torch.equal(new_backgrounds(batch, organs, 1.0, generator())[2], batch[2])


def test_the_loss_is_minus_the_logarithm_of_the_attention_on_the_organ() -> None:
    share = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]], [[[0.25, 0.25], [0.25, 0.25]]]])
    organs = torch.zeros(2, 1, 8, 8)
    organs[0, :, :4, 4:] = 1  # one cell of four: .2 of the attention
    organs[1, :, 4:] = 1  # two of four: .5
    expected = -(math.log(0.2) + math.log(0.5)) / 2
    assert float(attention_loss(share, organs)) == pytest.approx(expected, abs=1e-6)


def test_a_cell_that_is_half_covered_counts_whole_and_a_quarter_counts_half() -> None:
    share = torch.full((1, 1, 2, 2), 0.25)
    organs = torch.zeros(1, 1, 8, 8)
    organs[0, 0, :4, :2] = 1
    assert float(attention_loss(share, organs)) == pytest.approx(-math.log(0.25), abs=1e-6)
    organs[0, 0, :4, 1] = 0
    assert float(attention_loss(share, organs)) == pytest.approx(-math.log(0.125), abs=1e-6)


def test_images_without_a_mask_say_nothing_about_attention() -> None:
    share = torch.full((2, 1, 2, 2), 0.25)
    organs = torch.zeros(2, 1, 8, 8)
    assert float(attention_loss(share, organs)) == 0
    organs[0, :, 4:] = 1
    assert float(attention_loss(share, organs)) == pytest.approx(-math.log(0.5), abs=1e-6)
