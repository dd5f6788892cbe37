"""Superpixels: numbered from 0 without gaps, connected, inside the body, 60 to 150 of them, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from wetread.datasets.phantoms import render, sample_spec
from wetread.errors import ExplanationFailed
from wetread.explain.superpixels import BACKGROUND, FEWEST, MOST, Superpixels, body_mask, divide
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.inputs import fit_pixels


def assert_sound(pieces: Superpixels) -> None:
    """Every label from 0 to count - 1 is there, connected or nearly so, and the bounds are kept."""
    assert FEWEST <= pieces.count <= MOST
    assert set(np.unique(pieces.labels)) - {BACKGROUND} == set(range(pieces.count))
    assert pieces.sizes.min() > 0
    assert pieces.sizes.sum() == pieces.body.sum()


def film_like(rows: int = 96, columns: int = 96) -> NDArray[np.float32]:
    """Smooth noise between 0.2 and 0.9."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(rows, columns)), 4)
    return np.asarray(0.2 + 0.7 * (noise - noise.min()) / np.ptp(noise), dtype=np.float32)


def test_labels_start_at_0_have_no_gaps_and_each_is_one_piece() -> None:
    pieces = divide(film_like())
    assert_sound(pieces)
    assert pieces.labels.dtype == np.int32
    for number in range(pieces.count):
        assert ndimage.label(pieces.labels == number)[1] == 1


def test_every_label_hides_its_own_pixels() -> None:
    """Labels that start at 1 would hide nothing with the first mask and never the last superpixel."""
    pieces = divide(film_like())
    hidden = pieces.hidden(np.eye(pieces.count, dtype=np.bool_))
    assert (hidden.sum((1, 2)) > 0).all()
    np.testing.assert_array_equal(hidden.sum(0), pieces.body)
    np.testing.assert_array_equal(hidden[-1], pieces.labels == pieces.count - 1)


def test_what_lies_outside_the_body_is_never_hidden() -> None:
    film = np.pad(film_like(80, 60), ((0, 0), (20, 16)))
    pieces = divide(film)
    assert_sound(pieces)
    everything = pieces.hidden(np.ones((1, pieces.count), dtype=np.bool_))[0]
    assert not everything[:, :20].any()
    assert not everything[:, -16:].any()
    assert everything[:, 20:-16].mean() > 0.99


def test_the_body_has_no_holes_where_lungs_are_black() -> None:
    film = np.zeros((64, 64), dtype=np.float32)
    film[4:60, 6:58] = 0.7
    film[20:40, 15:25] = film[20:40, 35:45] = 0
    np.testing.assert_array_equal(body_mask(film), np.pad(np.ones((56, 52), bool), ((4, 4), (6, 6))))


@pytest.mark.parametrize("film", [np.zeros((32, 32)), np.eye(64), np.full((40, 40), 0.5)])
def test_the_whole_image_where_no_body_is_found(film: NDArray[np.float64]) -> None:
    assert body_mask(film.astype(np.float32)).all()


def test_the_same_image_is_always_divided_alike() -> None:
    np.testing.assert_array_equal(divide(film_like()).labels, divide(film_like()).labels)


@pytest.mark.parametrize("wanted", [60, 80, 150])
def test_the_bounds_hold_where_another_number_is_wanted(wanted: int) -> None:
    pieces = divide(film_like(), wanted)
    assert_sound(pieces)
    assert pieces.count == pytest.approx(wanted, rel=0.25)


def test_an_image_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(ExplanationFailed, match=r"expected 60 to 150 superpixels, got \d+ in 6x6 pixels; use a reader"):
        divide(film_like(6, 6))


def test_a_flat_image_is_divided_too() -> None:
    assert_sound(divide(np.full((64, 64), 0.5, dtype=np.float32)))


def test_values_are_shared_evenly_and_their_sum_is_kept() -> None:
    pieces = Superpixels(np.array([[0, 0, 1], [-1, 1, 1]], dtype=np.int32))
    shared = pieces.spread(np.array([4.0, -3.0]))
    np.testing.assert_allclose(shared, [[2, 2, -1], [0, -1, -1]])


@pytest.mark.parametrize("seed", range(4))
def test_phantoms_are_divided_into_60_to_150(seed: int) -> None:
    phantom = render(sample_spec(np.random.default_rng(seed), size_px=256))
    for size in (64, 160):
        assert_sound(divide(fit_pixels(phantom.image, InputSpec(height=size, width=size))))


def test_films_are_divided_into_60_to_150(shared_data: Path) -> None:
    folder = shared_data / "kermany-cxr" / "test"
    for path in [*sorted(folder.glob("*/*.jpeg"))[::60]]:
        pixels = load_image(path).pixels
        for size in (64, 160):
            assert_sound(divide(fit_pixels(pixels, InputSpec(height=size, width=size))))
