"""Registration against known changes; copies are found across splits, films of other people are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from wetread.audit.copies import SIDE, cut_copies, register

Floats = NDArray[np.float32]


def film(seed: int, side: int = 160) -> Image.Image:
    """Clouds of two sizes with a common shape, as radiographs have."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(np.random.default_rng(99).standard_normal((side, side)), 22) * 22
    own = gaussian_filter(rng.standard_normal((side, side)), 9) * 9
    fine = gaussian_filter(rng.standard_normal((side, side)), 1.5)
    grey = 120 + 30 * (common + 0.6 * own + 0.5 * fine)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def cut(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    return picture.crop((left, top, picture.width - right, picture.height - bottom))


def small(picture: Image.Image, side: int) -> Floats:
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.float32)


def found_in(pictures: list[Image.Image], parts: list[int]) -> dict[tuple[int, int], tuple[bool, float]]:
    thumbs = np.stack([small(p, 32) for p in pictures]).astype(np.uint8)
    pairs = cut_copies(thumbs, np.array(parts), lambda row: small(pictures[row], SIDE))
    return {(pair.first, pair.second): (pair.mirrored, pair.shown) for pair in pairs}


def test_scale_and_shift_of_a_cut_are_recovered() -> None:
    """4 of 160 columns cut at the left and 12 at the right: 90 % are left, their middle lies 4 px to the left."""
    whole = film(1)
    part = cut(whole, 4, 8, 12, 0)
    start = np.array([[1, 0, 1, 0]], np.float32)
    fit, place = register(small(whole, 64)[None], small(part, 64)[None], start, 10)
    assert fit[0] > 0.995
    rows, down, columns, across = place[0]
    assert rows == pytest.approx(152 / 160, abs=0.005)
    assert columns == pytest.approx(144 / 160, abs=0.005)
    assert down == pytest.approx(8 / 160, abs=0.005)
    assert across == pytest.approx(-8 / 160, abs=0.005)


def test_gain_and_offset_do_not_matter_and_what_is_not_common_counts_for_nothing() -> None:
    whole = small(film(2), 64)
    start = np.array([[1, 0, 1, 0]], np.float32)
    fit, place = register(whole[None], (0.5 * whole + 40)[None], start, 4)
    assert fit[0] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(place, start, atol=1e-3)
    fit, _ = register(whole[None], whole[None], np.array([[1, 0.39, 1, 0.39]], np.float32), 0)
    assert fit[0] != 0  # 80 % are common
    fit, _ = register(whole[None], whole[None], np.array([[1.4, 0.5, 1.4, 0.5]], np.float32), 0)
    assert fit[0] == 0


def test_changed_copies_in_another_part_are_found_and_nothing_else() -> None:
    originals = [film(i) for i in range(12)]
    copies = [
        originals[0].resize((80, 80)),
        originals[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        cut(originals[2], 3, 5, 5, 3),
        cut(originals[3], 8, 8, 8, 8),
        Image.fromarray((np.asarray(originals[4]) * 0.7 + 20).astype(np.uint8)),
    ]
    others = [film(100 + i) for i in range(10)]
    found = found_in([*originals, *copies, *others], [0] * 12 + [1] * 15)
    assert set(found) == {(i, 12 + i) for i in range(5)}
    assert [found[i, 12 + i][0] for i in range(5)] == [False, True, False, False, False]
    assert found[0, 12][1] == pytest.approx(1, abs=0.01)
    assert found[3, 15][1] == pytest.approx(0.81, abs=0.02)


def test_the_copy_may_be_in_either_part_and_not_in_the_same_or_in_none() -> None:
    first, other = film(1), film(2)
    part = cut(first, 4, 4, 4, 4)
    assert set(found_in([part, other, first], [0, 0, 1])) == {(0, 2)}
    assert found_in([part, first, other], [0, 0, 1]) == {}
    assert found_in([part, other, first], [0, 1, -1]) == {}


def test_blank_films_are_no_copies() -> None:
    blank = [Image.fromarray(np.full((64, 64), level, np.uint8)) for level in (10, 200)]
    assert found_in(blank, [0, 1]) == {}
