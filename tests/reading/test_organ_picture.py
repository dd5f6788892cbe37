"""Masks on film: tints, outlines, sizes and sheets, pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.reading.organ_picture import ORGAN_COLOURS, contact_sheet, organ_picture


def box(rows: int, columns: int, *where: slice) -> NDArray[np.bool_]:
    mask = np.zeros((rows, columns), bool)
    mask[where] = True
    return mask


def drawn(pixels: NDArray[np.float32], masks: dict[str, NDArray[np.bool_]], longest: int = 1024) -> NDArray[np.uint8]:
    return np.asarray(organ_picture(pixels, masks, longest))


def test_without_masks_the_film_is_grey() -> None:
    pixels = np.linspace(-0.2, 1.2, 80, dtype=np.float32).reshape(8, 10)
    found = drawn(pixels, {})
    np.testing.assert_array_equal(found, np.repeat((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)[..., None], 3, 2))


def test_an_organ_is_tinted_and_outlined_in_its_colour() -> None:
    found = drawn(np.full((20, 30), 0.4, np.float32), {"lungs": box(20, 30, slice(5, 15), slice(8, 22))})
    blue = np.array(ORGAN_COLOURS[0])
    np.testing.assert_array_equal(found[5, 8:22], np.tile(blue, (14, 1)))
    np.testing.assert_array_equal(found[5:15, 21], np.tile(blue, (10, 1)))
    np.testing.assert_array_equal(found[6, 9], np.rint(0.78 * 102 + 0.22 * blue))
    assert (found[4] == 102).all()
    assert (found[:, 22] == 102).all()


def test_organs_have_colours_of_their_own() -> None:
    masks = {f"organ {k}": box(12, 60, slice(2, 10), slice(10 * k + 1, 10 * k + 9)) for k in range(6)}
    found = drawn(np.zeros((12, 60), np.float32), masks)
    colours = [tuple(int(part) for part in found[2, 10 * k + 1]) for k in range(6)]
    assert colours[:5] == list(ORGAN_COLOURS)
    assert colours[5] == colours[0]
    assert all(np.abs(np.subtract(a, b)).max() > 60 for a, b in itertools.combinations(ORGAN_COLOURS, 2))


def test_the_edge_of_the_image_is_no_outline() -> None:
    found = drawn(np.full((20, 20), 0.4, np.float32), {"lungs": np.ones((20, 20), bool)})
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 1
    assert tuple(found[0, 0]) != ORGAN_COLOURS[0]


def test_an_empty_mask_changes_nothing() -> None:
    pixels = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    np.testing.assert_array_equal(drawn(pixels, {"lungs": np.zeros((16, 16), bool)}), drawn(pixels, {}))


@pytest.mark.parametrize(
    ("shape", "size"), [((300, 200), (67, 100)), ((200, 300), (100, 67)), ((90, 40), (40, 90)), ((1000, 2), (1, 100))]
)
def test_a_large_film_is_made_smaller_and_a_small_one_stays(shape: tuple[int, int], size: tuple[int, int]) -> None:
    mask = box(*shape, slice(0, shape[0] // 2))
    picture = organ_picture(np.full(shape, 0.4, np.float32), {"lungs": mask}, 100)
    assert (picture.mode, picture.size) == ("RGB", size)
    if min(size) > 1:
        found = np.asarray(picture)
        assert tuple(found[-1, 0]) == (102, 102, 102)
        assert tuple(found[0, 0]) != (102, 102, 102)


def test_pictures_lie_in_rows_within_their_squares() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [PilImage.new("RGB", (40, 20), colour) for colour in colours]
    sheet = np.asarray(contact_sheet(pictures, columns=2, side_px=10))
    assert sheet.shape == (2 * 14 + 4, 2 * 14 + 4, 3)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        square = sheet[4 + 14 * row : 14 + 14 * row, 4 + 14 * column : 14 + 14 * column]
        assert {tuple(map(int, one)) for one in square.reshape(-1, 3)} == {colour, (0, 0, 0)}
        assert (square[0] == 0).all()  # a flat picture is centred
        assert (square.sum(2) > 0).sum() == 10 * 5
    assert (sheet[18:, 18:] == 0).all()
    assert pictures[0].size == (40, 20)
