"""From logits to masks: probabilities by hand, and masks in the geometry of the image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.models.support import Thresholds, image_of, segmenter_card, small_segmenter
from wetread.errors import WetreadError
from wetread.models.card import InputSpec
from wetread.models.organs import Segmenter, organ_probabilities
from wetread.types import Image

PLAIN = {"standardise": "fixed", "mean": 0.0, "std": 1.0}
"""The network sees the pixels as they are."""


def stub(fit: str, *levels: float, exclusive: bool = False) -> Segmenter:
    spec = InputSpec.model_validate({"height": 64, "width": 64, "fit": fit, "channels": 1, **PLAIN})
    organs = tuple(f"organ {number}" for number in range(len(levels)))
    return Segmenter(segmenter_card(organs, input=spec, exclusive=exclusive), [Thresholds(*levels)])


def film(rows: int, columns: int, box: tuple[slice, slice], inner: tuple[slice, slice] | None = None) -> Image:
    """Grey 0.1 with a box of 0.6, in it a box of 0.9."""
    image = image_of(rows, columns)
    pixels = np.full((rows, columns), 0.1, np.float32)
    pixels[box] = 0.6
    if inner is not None:
        pixels[inner] = 0.9
    return Image(pixels, image.facts)


def test_organs_alone_have_a_sigmoid_each() -> None:
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    found = organ_probabilities(logits, exclusive=False).flatten().tolist()
    assert found == pytest.approx([1 / 2, 3 / 4])


def test_exclusive_organs_share_with_a_background_of_logit_0() -> None:
    logits = torch.tensor([math.log(2), math.log(5)]).view(1, 2, 1, 1)
    found = organ_probabilities(logits, exclusive=True).flatten().tolist()
    assert found == pytest.approx([2 / 8, 5 / 8])  # weights 1, 2 and 5


def test_one_exclusive_organ_is_a_sigmoid() -> None:
    logits = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(organ_probabilities(logits, exclusive=True), logits.sigmoid())


@pytest.mark.parametrize(("rows", "columns"), [(128, 64), (64, 128)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_mask_lies_where_it_was_in_the_image(fit: str, rows: int, columns: int) -> None:
    """Edges on the coarse grid come back to the pixel."""
    box, inner = (slice(8, 40), slice(16, 48)), (slice(16, 24), slice(20, 40))
    masks = stub(fit, 0.3, 0.8).masks(film(rows, columns, box, inner))
    wanted = np.zeros((2, rows, columns), bool)
    wanted[0][box] = True
    wanted[1][inner] = True
    np.testing.assert_array_equal(np.stack(list(masks.values())), wanted)


@pytest.mark.parametrize(("rows", "columns"), [(128, 64), (64, 128)])
def test_what_a_crop_does_not_show_is_no_organ(rows: int, columns: int) -> None:
    everywhere = (slice(None), slice(None))
    image = film(rows, columns, everywhere)
    segmenter = stub("crop", 0.3)
    found = segmenter.maps(image)["organ 0"]
    shown = np.zeros((rows, columns), bool)
    middle = slice(32, 96)
    shown[middle if rows > columns else slice(None), middle if columns > rows else slice(None)] = True
    np.testing.assert_array_equal(segmenter.masks(image)["organ 0"], shown)
    assert found[~shown].max() == 0
    assert found[shown].min() == 1


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_probabilities_stay_in_their_range_at_any_size(fit: str) -> None:
    found = stub(fit, 0.3).maps(film(97, 143, (slice(11, 53), slice(20, 99))))["organ 0"]
    assert found.shape == (97, 143)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[30, 60] == 1


def test_exclusive_masks_never_overlap() -> None:
    box, inner = (slice(8, 40), slice(16, 48)), (slice(16, 24), slice(20, 40))
    image = film(64, 64, box, inner)
    alone = stub("pad", 0.3, 0.8).masks(image)
    assert (alone["organ 0"] & alone["organ 1"]).any()
    shared = stub("pad", 0.3, 0.8, exclusive=True).masks(image)
    assert not (shared["organ 0"] & shared["organ 1"]).any()


def test_several_networks_are_averaged() -> None:
    spec = InputSpec(height=64, width=64, channels=1, standardise="fixed", mean=0.0, std=1.0)
    segmenter = Segmenter(segmenter_card(input=spec, networks=2), [Thresholds(0.3), Thresholds(0.8)])
    found = segmenter.maps(film(64, 64, (slice(0, 32), slice(0, 64))))["lungs"]
    np.testing.assert_array_equal(np.unique(found), [0, 0.5])


def test_numbers_that_are_none_are_refused() -> None:
    segmenter = small_segmenter()
    for value in segmenter.networks[0].parameters():
        torch.nn.init.constant_(value, float("nan"))
    with pytest.raises(WetreadError, match="expected finite scores, got NaN or infinity; check the weights of organs"):
        segmenter.maps(image_of(64, 64))
