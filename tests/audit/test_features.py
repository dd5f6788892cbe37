"""Textures of images whose textures are known on paper."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.audit.features import CELLS, GRID, TEXTURES, cell_share, on_grid, texture_of


def of(name: str, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """One texture of all cells."""
    return texture_of(pixels)[:, :, TEXTURES.index(name)]


def test_a_flat_film_has_its_grey_value_and_no_texture() -> None:
    flat = np.full((224, 160), 0.25, np.float32)
    assert texture_of(flat).shape == (CELLS, CELLS, len(TEXTURES))
    for name in ("mean", "lightest", "darkest"):
        np.testing.assert_allclose(of(name, flat), 0.25, atol=1e-6)
    for name in ("spread", "sharpness", "blocks", "strokes"):
        np.testing.assert_allclose(of(name, flat), 0, atol=1e-6)
    np.testing.assert_allclose(of("edges", flat), np.log(1e-4), atol=1e-3)


def test_grain_is_the_logarithm_of_the_standard_deviation_of_noise_whatever_lies_under_it() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.6, 512)[:, None] + np.zeros((1, 512))
    noisy = (ramp + rng.normal(0, 0.02, (512, 512))).astype(np.float32)
    assert float(np.exp(of("grain", noisy)).mean()) == pytest.approx(0.02, rel=0.03)


def test_a_ramp_has_differences_of_its_slope_and_twice_that_two_pixels_apart() -> None:
    ramp = np.tile(np.arange(256, dtype=np.float32) / np.float32(512), (256, 1)).astype(np.float32)
    slope = np.exp(of("edges", ramp)).astype(np.float64)
    ratio = of("sharpness", ramp).astype(np.float64)
    np.testing.assert_allclose(slope, 1 / 512 + 1e-4, rtol=1e-4)
    np.testing.assert_allclose(ratio, np.log((1 / 512 + 1e-4) / (2 / 512 + 1e-4)), rtol=1e-3)


def test_blocks_are_seen_on_the_grid_of_eight_pixels_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.random((32, 32)), np.ones((8, 8))) * 0.2 + rng.normal(0, 0.01, (256, 256)) + 0.4
    on = of("blocks", blocks.astype(np.float32)).mean()
    off = of("blocks", np.roll(blocks, (3, 5), (0, 1)).astype(np.float32)).mean()
    assert on > 2
    assert off < 0


def test_strokes_find_a_thin_line_and_not_the_edge_of_a_bright_area() -> None:
    film = np.full((256, 256), 0.3, np.float32)
    film[:, 128:] = 0.6
    film[40:44, 20:60] = 0.9
    strokes = of("strokes", film)
    assert strokes[40 // 16, 40 // 16] == pytest.approx(0.6, abs=1e-6)
    assert strokes[8, 7:9].max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (40, 300), (1500, 900)])
def test_every_size_of_film_gives_finite_numbers(shape: tuple[int, int]) -> None:
    film = np.random.default_rng(1).random(shape, dtype=np.float32)
    assert np.isfinite(texture_of(film)).all()
    assert on_grid(film).shape == (GRID, GRID)


def test_the_grid_averages_where_it_shrinks() -> None:
    checks = (np.indices((512, 512)).sum(0) % 2).astype(np.float32)
    grid = on_grid(checks)
    assert grid.dtype == np.uint8
    assert abs(int(grid[64, 64]) - 127) <= 1


def test_the_share_of_a_cell_counts_its_pixels() -> None:
    mask = np.zeros((2, GRID, GRID), np.bool_)
    mask[1, :8, :4] = True
    share = cell_share(mask)
    assert share.shape == (2, CELLS, CELLS)
    assert share[1, 0, 0] == 0.5
    assert share.sum() == 0.5
