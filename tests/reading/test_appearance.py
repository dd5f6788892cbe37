"""Blank, noise and pages of text are told from films, and real films are never taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reading.support import image_from, phantom, text_page
from wetread.imaging import load_image
from wetread.reading.appearance import look_at
from wetread.reading.gate import image_reasons


def reasons(pixels: NDArray[np.floating]) -> str:
    return " ".join(image_reasons(None, image_from(pixels)))


def test_constant_image_has_no_spread_no_structure_and_no_strokes() -> None:
    seen = look_at(np.full((100, 80), 0.4, np.float32))
    assert (seen.spread, seen.structure, seen.paper, seen.strokes) == (0.0, 0.0, 1.0, 0.0)


def test_half_black_half_white_by_hand() -> None:
    pixels = np.zeros((64, 64), np.float32)
    pixels[:, 32:] = 1.0
    seen = look_at(pixels)
    assert seen.spread == 1.0
    assert seen.paper == 0.5
    assert seen.strokes == 0.0  # 32 pixels wide: nothing thin
    assert seen.structure == pytest.approx(1.0)  # the tiles (4 x 4 pixels) lose nothing


def test_a_thin_line_is_a_stroke_and_a_thick_bar_is_not() -> None:
    pixels = np.ones((200, 200), np.float32)
    pixels[20:24, 20:180] = 0.0  # 4 x 160 pixels
    assert look_at(pixels).strokes == 1.0
    pixels[100:140, 20:180] = 0.0  # 40 x 160 pixels
    assert look_at(pixels).strokes == pytest.approx(640 / (640 + 6400))


def test_spread_leaves_out_three_per_cent_at_both_ends() -> None:
    pixels = np.full((100, 100), 0.5, np.float32)
    pixels[0, :] = 1.0  # 1 %: a marker
    assert look_at(pixels).spread == 0.0
    pixels[:5, :] = 1.0  # 5 %
    assert look_at(pixels).spread > 0.4


def test_result_does_not_depend_on_size() -> None:
    small = phantom(3).image
    large = np.kron(small, np.ones((6, 6), np.float32))
    assert look_at(large).structure == pytest.approx(look_at(small).structure, abs=0.05)
    assert look_at(large).paper == pytest.approx(look_at(small).paper, abs=0.05)


@pytest.mark.parametrize(
    "page",
    [
        text_page(),
        text_page(1240, 1754, 24),
        text_page(1240, 1754, 48),
        text_page(1280, 720, 36),
        text_page(shade=215, ink=60),
        1 - text_page(),
        np.ascontiguousarray(text_page().T),
    ],
    ids=["small", "A4 150 dpi", "large type", "slide", "grey paper", "white on black", "sideways"],
)
def test_pages_of_text_are_recognised(page: NDArray[np.float32]) -> None:
    assert "page of text" in reasons(page)


def test_a_bad_scan_of_a_page_is_recognised() -> None:
    page = text_page(1240, 1754, 24)
    uneven = page + np.linspace(-0.05, 0.05, page.shape[1]) + np.random.default_rng(0).normal(0, 0.02, page.shape)
    assert "page of text" in reasons(np.clip(uneven, 0, 1))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank_images_are_recognised(level: float) -> None:
    assert "blank" in reasons(np.full((256, 256), level))


def test_nearly_blank_images_are_recognised() -> None:
    pixels = np.zeros((256, 256))
    pixels[100:120, 100:140] = 1.0  # 1.2 % of the pixels
    assert "blank" in reasons(pixels)


@pytest.mark.parametrize("grain", [1, 3, 6])
def test_noise_has_no_anatomy(grain: int) -> None:
    noise = np.random.default_rng(1).uniform(0, 1, (256, 256)).astype(np.float32)
    coarse = np.kron(noise[: 256 // grain, : 256 // grain], np.ones((grain, grain), np.float32))
    assert "no anatomy" in reasons(coarse)


@pytest.mark.parametrize("seed", range(40))
def test_phantoms_pass(seed: int) -> None:
    assert reasons(phantom(seed % 40).image) == ""


def test_inverted_phantom_passes_the_look() -> None:
    assert reasons(1 - phantom(0).image) == ""


def test_real_radiographs_are_never_refused_for_their_looks(shared_data: Path) -> None:
    """968 films in development; here a fixed tenth of the training and open images, none from a test split."""
    films = sorted((shared_data / "kermany-cxr" / "train").glob("*/*.jpeg"))[::100]
    films += sorted((shared_data / "covid-cxr" / "images").glob("*"))[::9]
    assert len(films) > 90
    refused = [film.name for film in films if image_reasons(None, load_image(film))]
    assert refused == []
