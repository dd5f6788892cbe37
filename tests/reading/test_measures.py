"""Sizes of rectangles by hand, what is withheld and why, phantoms against their own truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.phantoms import Finding, render, sample_spec
from wetread.errors import UsageError
from wetread.reading.measures import is_lateral, measure_organs, split_lungs
from wetread.types import Measure

Mask = NDArray[np.bool_]
SPACING_MM = (2.0, 0.5)
TOUCHING = "the mask of the lungs does not part into two: they touch, or one is missing"


def rectangle(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((100, 120), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


RIGHT = rectangle(10, 10, 60, 40)  # the patient's right: on the image's left
LEFT = rectangle(20, 70, 50, 40)
HEART = rectangle(40, 45, 30, 45)


def by_name(
    masks: Mapping[str, Mask], spacing_mm: tuple[float, float] | None, view: str | None = None
) -> dict[tuple[str, str], Measure]:
    found = measure_organs(masks, spacing_mm, view=view)
    named = {(one.organ, one.name): one for one in found}
    assert len(named) == len(found)
    return named


def test_rectangles_by_hand() -> None:
    """Pixels of 2 mm x 0.5 mm have 0.01 cm2; the lungs span columns 10 to 110, the heart 45 to 90."""
    found = by_name({"lungs": RIGHT | LEFT, "heart": HEART}, SPACING_MM)
    values = {key: one.value for key, one in found.items()}
    assert values == pytest.approx(
        {
            ("lungs", "area"): 44.0, ("lungs", "height"): 12.0, ("lungs", "width"): 5.0,
            ("lung_left", "area"): 20.0, ("lung_left", "height"): 10.0, ("lung_left", "width"): 2.0,
            ("lung_right", "area"): 24.0, ("lung_right", "height"): 12.0, ("lung_right", "width"): 2.0,
            ("heart", "area"): 13.5, ("heart", "width"): 2.25,
            ("lungs", "left to right area ratio"): 20 / 24,
            ("lungs", "symmetry index"): 1 - 4 / 44,
            ("heart", "cardiothoracic ratio"): 0.45,
        }
    )  # fmt: skip
    assert {one.unit for one in found.values() if one.name == "area"} == {"cm2"}
    assert {one.unit for one in found.values() if one.name in ("height", "width")} == {"cm"}
    assert all(one.reason == "" for one in found.values())


def test_sides_given_and_sides_split_agree() -> None:
    split = measure_organs({"lungs": RIGHT | LEFT, "heart": HEART}, SPACING_MM)
    assert measure_organs({"lung_left": LEFT, "lung_right": RIGHT, "heart": HEART}, SPACING_MM) == split


def test_without_spacing_only_ratios_have_values() -> None:
    found = measure_organs({"lungs": RIGHT | LEFT, "heart": HEART}, None)
    assert {one.name for one in found if one.value is not None} == {
        "left to right area ratio",
        "symmetry index",
        "cardiothoracic ratio",
    }
    assert {one.reason for one in found if one.value is None} == {"the file states no pixel spacing"}


def test_width_of_the_lungs_is_taken_in_one_row() -> None:
    """The upper lung ends at column 60, the lower one begins at 50: no row spans 10 to 110."""
    staircase = rectangle(0, 10, 10, 50) | rectangle(10, 40, 10, 70)
    assert by_name({"lungs": staircase}, (10.0, 10.0))["lungs", "width"].value == pytest.approx(70.0)


def test_the_images_left_is_the_patients_right() -> None:
    pair = split_lungs(RIGHT | LEFT)
    assert pair is not None
    np.testing.assert_array_equal(pair[0], RIGHT)
    np.testing.assert_array_equal(pair[1], LEFT)
    mirrored = split_lungs((RIGHT | LEFT)[:, ::-1])
    assert mirrored is not None
    np.testing.assert_array_equal(mirrored[0], LEFT[:, ::-1])


@pytest.mark.parametrize(
    ("lungs", "why"),
    [
        (RIGHT | LEFT | rectangle(30, 40, 5, 40), "they touch"),
        (RIGHT, "one is missing"),
        (RIGHT | rectangle(20, 70, 11, 40), "the second has 0.18 of the first"),
        (rectangle(10, 10, 30, 40) | rectangle(50, 12, 30, 40), "one lung cut in two"),
        (RIGHT & LEFT, "empty"),
    ],
)
def test_what_is_not_two_lungs_is_not_split(lungs: Mask, why: str) -> None:
    assert split_lungs(lungs) is None, why


def test_a_shared_corner_does_not_join_two_lungs() -> None:
    assert split_lungs(rectangle(0, 10, 50, 40) | rectangle(50, 50, 50, 40)) is not None


def test_smaller_regions_belong_to_neither_lung() -> None:
    pair = split_lungs(RIGHT | LEFT | rectangle(95, 0, 2, 2))
    assert pair is not None
    assert (pair[0] | pair[1]).sum() == RIGHT.sum() + LEFT.sum()


@pytest.mark.parametrize("view", ["LL", "rl", "Lateral", "LLO"])
def test_lateral_views_have_no_sides_and_no_ratio(view: str) -> None:
    found = by_name({"lungs": RIGHT | LEFT, "heart": HEART}, SPACING_MM, view)
    assert found["lungs", "area"].value == pytest.approx(44.0)
    for key in [("lung_left", "area"), ("lungs", "symmetry index"), ("heart", "cardiothoracic ratio")]:
        assert found[key].value is None
        assert found[key].reason == "not measured in a lateral or oblique view"


@pytest.mark.parametrize("view", [None, "", "PA", "AP", "AP Supine", "LLD", "left lateral decubitus"])
def test_frontal_views(view: str | None) -> None:
    assert not is_lateral(view)


def test_touching_lungs_keep_what_needs_no_sides() -> None:
    found = by_name({"lungs": RIGHT | LEFT | rectangle(30, 40, 5, 40), "heart": HEART}, SPACING_MM)
    assert found["lungs", "symmetry index"].reason == TOUCHING
    assert found["lung_left", "area"].reason == TOUCHING
    assert found["heart", "cardiothoracic ratio"].value == pytest.approx(0.45)


def test_empty_masks_have_no_sizes() -> None:
    nothing = np.zeros_like(LEFT)
    found = by_name({"lung_left": nothing, "lung_right": RIGHT, "heart": HEART}, SPACING_MM)
    assert found["lung_left", "area"].reason == "the mask of the left lung is empty"
    assert found["lungs", "symmetry index"].reason == "the mask of the left lung is empty"
    assert found["heart", "cardiothoracic ratio"].reason == "the mask of the left lung is empty"
    assert found["lung_right", "area"].value == pytest.approx(24.0)
    empty = by_name({"lungs": nothing, "heart": nothing}, SPACING_MM)
    assert all(one.value is None for one in empty.values())
    assert empty["heart", "cardiothoracic ratio"].reason == "the mask of the heart is empty"
    assert empty["lung_left", "area"].reason == "the mask of the lungs is empty"


def test_one_side_alone_gives_nothing_about_both() -> None:
    found = by_name({"lung_left": LEFT, "heart": HEART}, SPACING_MM)
    assert found["lung_left", "area"].value == pytest.approx(20.0)
    for key in [("lungs", "area"), ("lung_right", "area"), ("heart", "cardiothoracic ratio")]:
        assert found[key].value is None
        assert found[key].reason == "there is no mask of the right lung"


@pytest.mark.parametrize(
    ("lungs", "heart", "reason"),
    [
        (RIGHT, HEART, "the heart does not lie between the lungs"),
        (RIGHT | LEFT, rectangle(40, 5, 30, 110), "the heart is wider than the chest"),
    ],
)
def test_a_ratio_that_cannot_be_is_withheld(lungs: Mask, heart: Mask, reason: str) -> None:
    found = by_name({"lungs": lungs, "heart": heart}, SPACING_MM)["heart", "cardiothoracic ratio"]
    assert found.value is None
    assert found.reason == reason


def test_only_what_is_given_is_measured() -> None:
    assert [one.organ for one in measure_organs({"heart": HEART}, SPACING_MM)] == ["heart", "heart"]
    assert measure_organs({}, SPACING_MM) == ()


@pytest.mark.parametrize(
    ("masks", "spacing_mm", "message"),
    [
        ({"liver": LEFT}, None, "expected an organ among lungs, .*, got 'liver'; use one of them"),
        ({"heart": HEART.astype(np.uint8)}, None, "expected a bool mask of the heart, got uint8; compare"),
        ({"lungs": np.zeros((2, 3, 4), np.bool_)}, None, r"\(rows, columns\) of the lungs, got shape \(2, 3, 4\)"),
        ({"lungs": LEFT, "heart": HEART[1:]}, None, r"expected masks of one shape, got \[\(99, 120\), \(100, 120\)\]"),
        ({"heart": HEART}, (0.0, 1.0), r"expected a spacing \(row, column\) above 0 mm, got \(0.0, 1.0\); give None"),
        ({"heart": HEART}, (1.0, -0.2), "above 0 mm"),
        ({"heart": HEART}, (1.0, float("nan")), "above 0 mm"),
    ],
)
def test_bad_input_is_refused(masks: dict[str, Mask], spacing_mm: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure_organs(masks, spacing_mm)


@pytest.mark.parametrize("large", [False, True])
def test_phantoms_agree_with_their_specification(large: bool) -> None:
    """A phantom's ratio is drawn below 0.48 without cardiomegaly and above 0.53 with it."""
    rng = np.random.default_rng(7)
    findings = (Finding("cardiomegaly", 0.5),) if large else ()
    for _ in range(6):
        film = render(sample_spec(rng, findings=findings, size_px=256))
        masks = {"lung_left": film.lung_left, "lung_right": film.lung_right, "heart": film.heart}
        found = by_name(masks, (film.pixel_mm, film.pixel_mm))
        ratio = found["heart", "cardiothoracic ratio"].value
        assert ratio is not None
        # the phantom takes the chest's width from all rows, here it is the widest row
        assert ratio == pytest.approx(film.cardiothoracic_ratio, abs=0.01)
        assert (ratio > 0.5) is large
        assert (
            found["lung_left", "area"]
            == by_name({"lungs": film.lung_left | film.lung_right}, (film.pixel_mm,) * 2)["lung_left", "area"]
        )


def test_every_real_mask_has_two_sides(shared_data: Path) -> None:
    files = sorted((shared_data / "covid-cxr" / "lung_masks").glob("*.png"))[::8]
    for file in files:
        found = by_name({"lungs": np.asarray(PilImage.open(file)) > 127}, None)
        symmetry = found["lungs", "symmetry index"].value
        assert symmetry is not None, file.name
        assert 0.6 < symmetry <= 1
