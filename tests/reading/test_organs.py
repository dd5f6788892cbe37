"""From an image to organs: masks, cleaning, flags, confidence, sizes, and files that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.support import Thresholds, segmenter_card
from tests.reading.support import grey_png, image_from, phantom
from wetread.datasets.phantoms import write_dicom
from wetread.errors import ImageRefused
from wetread.models.card import InputSpec
from wetread.models.organs import Segmenter
from wetread.reading.feed import ReadFailure, find_sources
from wetread.reading.organs import Segmented, segment_image, segment_images
from wetread.types import Box, Step

SIDE = 128
SPEC = InputSpec(height=SIDE, width=SIDE, channels=1, standardise="fixed", mean=0.0, std=1.0)


def bright(*organs: str, levels: tuple[float, ...] = (0.5,)) -> Segmenter:
    """Each organ is where the image is brighter than its level."""
    card = segmenter_card(organs, input=SPEC, weights={"model.safetensors": "a" * 64})
    return Segmenter(card, [Thresholds(*levels)])


def two_lungs() -> NDArray[np.float32]:
    """Two tall boxes of a lung's proportions, on black."""
    pixels = np.zeros((SIDE, SIDE), np.float32)
    pixels[20:110, 15:55] = 0.8
    pixels[20:110, 73:113] = 0.8
    return pixels


def test_two_plain_lungs_have_no_flag_and_their_sizes() -> None:
    image = image_from(two_lungs(), spacing_mm=(2.0, 1.0))
    reading, masks = segment_image(bright("lungs"), image)
    np.testing.assert_array_equal(masks["lungs"], two_lungs() > 0.5)
    (lungs,) = reading.organs
    assert (lungs.organ, lungs.area_px, lungs.flags, lungs.changed_px) == ("lungs", 2 * 90 * 40, (), 0)
    assert lungs.image_share == pytest.approx(7200 / SIDE**2, abs=1e-4)
    assert lungs.confidence == pytest.approx(1, abs=1e-3)
    assert lungs.box == Box(x=15, y=20, width=98, height=90)
    sizes = {(one.name, one.organ): one.value for one in reading.measures}
    assert sizes["area", "lungs"] == pytest.approx(7200 * 0.2 * 0.1)
    assert sizes["height", "lungs"] == pytest.approx(90 * 0.2)
    assert sizes["symmetry index", "lungs"] == 1
    assert reading.flags == ()
    assert reading.image == image.facts
    assert reading.model.sha256 == "a" * 64
    assert set(reading.timings_ms) == {"find", "measure"}
    assert reading.disclaimer == "Research use only. Not a diagnosis."


def test_without_a_spacing_lengths_have_a_reason_and_ratios_a_value() -> None:
    reading, _ = segment_image(bright("lungs"), image_from(two_lungs()))
    found = {(one.name, one.organ): one for one in reading.measures}
    area = found["area", "lungs"]
    assert (area.value, area.reason) == (None, "the file states no pixel spacing")
    assert found["left to right area ratio", "lungs"].value == 1


def test_cleaning_removes_strays_fills_holes_and_is_counted() -> None:
    pixels = two_lungs()
    pixels[2:6, 60:66] = 0.9  # 24 px beside the lungs
    pixels[60:63, 30:33] = 0.1  # 9 px within one
    image = image_from(pixels)
    reading, masks = segment_image(bright("lungs"), image)
    np.testing.assert_array_equal(masks["lungs"], two_lungs() > 0.5)
    assert reading.organs[0].changed_px == 24 + 9
    raw, kept = segment_image(bright("lungs"), image, clean=False)
    np.testing.assert_array_equal(kept["lungs"], pixels > 0.5)
    assert raw.organs[0].changed_px == 0


def test_flags_are_of_the_mask_as_the_network_drew_it() -> None:
    pixels = two_lungs()
    pixels[2:12, 58:70] = 0.9  # a third region of 120 px, which cleaning takes away
    reading, masks = segment_image(bright("lungs"), image_from(pixels))
    assert reading.organs[0].flags == ("more than two components",)
    assert reading.flags == ("lungs: more than two components",)
    assert not masks["lungs"][2:12, 58:70].any()


def test_touching_the_border_is_told_but_not_odd() -> None:
    pixels = np.zeros((SIDE, SIDE), np.float32)
    pixels[0:90, 15:55] = pixels[0:90, 73:113] = 0.8
    reading, _ = segment_image(bright("lungs"), image_from(pixels))
    assert reading.organs[0].flags == ("touches border",)
    assert reading.flags == ()


def test_an_organ_that_is_not_there() -> None:
    reading, masks = segment_image(bright("lungs", "heart", levels=(0.5, 0.95)), image_from(two_lungs()))
    heart = reading.organs[1]
    assert (heart.organ, heart.area_px, heart.confidence, heart.flags, heart.box) == ("heart", 0, 0.0, ("empty",), None)
    assert not masks["heart"].any()
    ratio = next(one for one in reading.measures if one.name == "cardiothoracic ratio")
    assert (ratio.value, ratio.reason) == (None, "the mask of the heart is empty")


@pytest.mark.parametrize(("view", "flags"), [("PA", ("fewer than two lungs", "implausible shape")), ("LATERAL", ())])
def test_a_lateral_view_shows_one_lung(view: str, flags: tuple[str, ...]) -> None:
    pixels = np.zeros((SIDE, SIDE), np.float32)
    pixels[20:110, 40:90] = 0.8
    reading, _ = segment_image(bright("lungs"), image_from(pixels, view=view))
    assert reading.organs[0].flags == flags


def test_an_organ_without_rules_is_neither_cleaned_nor_measured() -> None:
    pixels = two_lungs()
    pixels[2:6, 60:66] = 0.9
    reading, masks = segment_image(bright("hand"), image_from(pixels))
    np.testing.assert_array_equal(masks["hand"], pixels > 0.5)
    assert reading.measures == ()
    assert reading.organs[0].flags == ()
    empty, _ = segment_image(bright("hand"), image_from(np.zeros((SIDE, SIDE), np.float32)))
    assert empty.organs[0].flags == ("empty",)


def test_confidence_falls_where_the_network_wavers() -> None:
    """A faint rim: probabilities of one half and more count into the mask, but not as much."""
    sharp, faint = two_lungs(), two_lungs()
    faint[20:110, 15:35] = 0.5005  # the logit is 0.5 there, the probability 0.62
    found = [segment_image(bright("lungs"), image_from(pixels))[0].organs[0] for pixels in (sharp, faint)]
    assert found[0].area_px == found[1].area_px
    assert found[1].confidence < found[0].confidence - 0.02


def test_files_come_back_in_order_and_a_bad_one_in_its_place(tmp_path: Path) -> None:
    grey_png(tmp_path / "a.png", two_lungs())
    (tmp_path / "b.png").write_bytes(b"no picture")
    write_dicom(phantom(100), tmp_path / "c.dcm")
    found = list(segment_images(bright("lungs"), find_sources([tmp_path])))
    assert [type(one) for one in found] == [Segmented, ReadFailure, Segmented]
    first, failed, last = found
    assert isinstance(first, Segmented)
    assert isinstance(failed, ReadFailure)
    assert isinstance(last, Segmented)
    assert (failed.name, failed.error) == ("b.png", ImageRefused.__name__)
    assert set(first.reading.timings_ms) == {"load", "find", "measure"}
    np.testing.assert_array_equal(first.masks["lungs"], two_lungs() > 0.5)
    assert last.reading.image.spacing_mm is not None
    assert last.masks["lungs"].shape == last.image.pixels.shape
    (raw,) = segment_images(bright("lungs"), find_sources([tmp_path / "c.dcm"]), clean=False)
    assert isinstance(raw, Segmented)
    assert last.reading.organs[0].changed_px > 0  # bones and borders are bright too
    assert raw.reading.organs[0].changed_px == 0


def test_what_was_done_to_the_pixels_is_part_of_the_answer() -> None:
    steps = (Step(name="voi window", detail={"centre": 0.5}),)
    reading, _ = segment_image(bright("lungs"), replace(image_from(two_lungs()), applied=steps))
    assert reading.applied == steps
