"""Pictures are what their captions say."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from wetread.audit.pictures import beside, difference_png, film_rgb, png


def test_the_scale_runs_from_blue_over_white_to_orange_and_ends_at_one() -> None:
    effect = np.array([[-3.0, -1.0, 0.0, 1.0, 2.0, 0.5]])
    hidden = np.array([[False, False, False, False, False, True]])
    shown = np.asarray(Image.open(BytesIO(difference_png(effect, hidden))))[::2, ::2][0]
    assert shown.tolist() == [[0, 114, 178], [0, 114, 178], [255, 255, 255], [213, 94, 0], [213, 94, 0], [120] * 3]


def test_a_film_is_grey_and_what_is_hidden_cannot_be_seen() -> None:
    grey = np.random.default_rng(0).integers(0, 90, (16, 16)).astype(np.uint8)
    hidden = np.zeros((16, 16), np.bool_)
    hidden[4:12, 4:12] = True
    shown = film_rgb(grey, hidden)[::2, ::2]
    np.testing.assert_array_equal(shown[~hidden], np.repeat(grey[~hidden][:, None], 3, 1))
    assert shown[hidden].min() >= 96
    other = film_rgb(np.where(hidden, 200, grey).astype(np.uint8), hidden)[::2, ::2]
    np.testing.assert_array_equal(other, shown)


def test_films_stand_side_by_side_with_a_gap() -> None:
    films = [np.zeros((8, 8, 3), np.uint8), np.full((8, 6, 3), 9, np.uint8)]
    row = beside(films)
    assert row.shape == (8, 18, 3)
    assert (row[:, 8:12] == 255).all()
    assert Image.open(BytesIO(png(row))).size == (18, 8)
