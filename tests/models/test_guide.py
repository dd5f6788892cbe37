"""Showing one organ alone: what is filled, how far the mask is widened, and whose weights are trusted."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from wetread.errors import UsageError
from wetread.models.card import DataCard, GuideSpec, InputSpec, SegmenterCard
from wetread.models.guide import Guide, organ_alone, organ_removed, widened
from wetread.models.organs import Segmenter
from wetread.types import Image, ImageFacts

SIDE = 32


class _Bright(nn.Module):
    """Finds what is brighter than one half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :1] - 0.5) * 100


def segmenter(organ: str = "lungs") -> Segmenter:
    spec = InputSpec(height=SIDE, width=SIDE, fit="stretch", standardise="fixed", mean=0.0, std=1.0)
    card = SegmenterCard(
        kind="segmenter",
        name="bright",
        version="1",
        created="",
        architecture="unet",
        input=spec,
        organs=(organ,),
        weights={"model.safetensors": "0" * 64},
        data=DataCard(name="none", images=1, patients=1, sha256=""),
    )
    return Segmenter(card, [_Bright()])


def guide(**changes: object) -> Guide:
    facts = {"organ": "lungs", "segmenter": "bright", "sha256": "0" * 64, "margin": 0.0, **changes}
    return Guide(GuideSpec.model_validate(facts), segmenter())


def film() -> Image:
    """A bright square of .8 and .6 on .2."""
    pixels = np.full((SIDE, SIDE), 0.2, np.float32)
    pixels[8:16, 8:24] = 0.8
    pixels[16:24, 8:24] = 0.6
    return Image(pixels, ImageFacts(name="film", format="PNG", sha256="", rows=SIDE, columns=SIDE, bits=8))


def test_the_organ_stays_as_it_is_and_the_rest_takes_its_mean_grey() -> None:
    image = film()
    shown = guide().pixels(image)
    inside = image.pixels > 0.5
    np.testing.assert_array_equal(shown[inside], image.pixels[inside])
    np.testing.assert_allclose(shown[~inside], 0.7, atol=1e-6)  # half of .8, half of .6


def test_black_outside() -> None:
    assert guide(fill="black").pixels(film())[0, 0] == 0


def test_what_lies_outside_makes_no_difference() -> None:
    other = film()
    changed = np.where(other.pixels > 0.5, other.pixels, 0.45).astype(np.float32)
    np.testing.assert_array_equal(guide().pixels(other), guide().pixels(Image(changed, other.facts)))


def test_removing_the_organ_is_the_opposite() -> None:
    image = film()
    inside = image.pixels > 0.5
    left = organ_removed(image.pixels, inside)
    np.testing.assert_array_equal(left[~inside], image.pixels[~inside])
    np.testing.assert_allclose(left[inside], 0.2, atol=1e-6)


def test_an_empty_mask_leaves_nothing() -> None:
    assert not organ_alone(film().pixels, np.zeros((SIDE, SIDE), np.bool_), "mean").any()


@pytest.mark.parametrize(("margin", "grown"), [(0.0, 0), (1 / 32, 1), (3 / 32, 3), (0.5, 16)])
def test_widened_by_a_share_of_the_shorter_side(margin: float, grown: int) -> None:
    mask = np.zeros((32, 48), np.bool_)
    mask[10:12, 20:30] = True
    expected = np.zeros_like(mask)
    expected[max(0, 10 - grown) : 12 + grown, max(0, 20 - grown) : 30 + grown] = True
    np.testing.assert_array_equal(widened(mask, margin), expected)


def test_widened_agrees_with_scipy_on_any_shape() -> None:
    from scipy import ndimage

    mask = np.random.default_rng(0).random((40, 56)) > 0.97
    expected = ndimage.binary_dilation(mask, np.ones((9, 9)))
    np.testing.assert_array_equal(widened(mask, 0.1), expected)


def test_an_unknown_fill_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a fill among black, mean, got 'noise'; set --fill to one"):
        organ_alone(film().pixels, film().pixels > 0.5, "noise")


def test_a_segmenter_of_another_organ_is_refused() -> None:
    spec = GuideSpec(organ="heart", segmenter="bright", sha256="0" * 64)
    with pytest.raises(UsageError, match="expected a segmenter that finds heart, got one for lungs; name another"):
        Guide(spec, segmenter())


def test_the_key_tells_guides_apart() -> None:
    keys = {guide().key, guide(margin=0.1).key, guide(fill="black").key}
    assert len(keys) == 3
