"""The input geometry and its inverse, on exact cases and on random sizes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetread.models.card import InputSpec
from wetread.models.inputs import fit_pixels, normalise, placement, restore_map, to_batch

Fit = Literal["stretch", "pad", "crop"]
FITS: tuple[Fit, ...] = ("stretch", "pad", "crop")


def ramp(rows: int, columns: int) -> NDArray[np.float32]:
    """A plane: resizing keeps planes, so that positions can be checked by value."""
    down = (np.arange(rows) + 0.5) / rows
    across = (np.arange(columns) + 0.5) / columns
    return (0.2 + 0.4 * down[:, None] + 0.3 * across[None]).astype(np.float32)


@pytest.mark.parametrize(
    ("fit", "placed"),
    [("stretch", (0, 0, 64, 64)), ("pad", (0, 16, 64, 32)), ("crop", (-32, 0, 128, 64))],
)
def test_placement_of_an_image_twice_as_high_as_wide(fit: Fit, placed: tuple[int, int, int, int]) -> None:
    assert placement(200, 100, InputSpec(height=64, width=64, fit=fit)) == placed


def test_padding_is_black_and_the_image_is_whole() -> None:
    spec = InputSpec(height=64, width=64, fit="pad")
    fitted = fit_pixels(np.ones((200, 100), dtype=np.float32), spec)
    np.testing.assert_array_equal(fitted[:, 16:48], 1)
    assert fitted[:, :16].max() == fitted[:, 48:].max() == 0


def test_a_crop_keeps_the_centre() -> None:
    spec = InputSpec(height=64, width=64, fit="crop")
    image = np.repeat(np.arange(128, dtype=np.float32)[:, None], 64, axis=1)
    np.testing.assert_allclose(fit_pixels(image, spec)[:, 0], np.arange(32, 96), atol=1e-4)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).uniform(size=(48, 32)).astype(np.float32)
    for fit in FITS:
        np.testing.assert_array_equal(fit_pixels(image, InputSpec(height=48, width=32, fit=fit)), image)


@given(
    st.sampled_from(FITS),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(8, 97),
    st.integers(8, 97),
)
def test_any_size_fits_and_comes_back(fit: Fit, rows: int, columns: int, height: int, width: int) -> None:
    spec = InputSpec(height=height, width=width, fit=fit)
    fitted = fit_pixels(ramp(rows, columns), spec)
    assert fitted.shape == (height, width)
    assert fitted.dtype == np.float32
    assert fitted.min() >= 0
    assert fitted.max() <= 1
    restored = restore_map(fitted, spec, rows, columns)
    assert restored.shape == (rows, columns)
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("rows", "columns"), [(201, 133), (64, 64), (77, 301), (128, 64), (40, 39)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 65), (96, 48)])
def test_restoring_undoes_fitting(fit: Fit, rows: int, columns: int, height: int, width: int) -> None:
    spec = InputSpec(height=height, width=width, fit=fit)
    image = ramp(rows, columns)
    restored = restore_map(fit_pixels(image, spec), spec, rows, columns)
    seen = restore_map(np.ones((height, width), dtype=np.float32), spec, rows, columns) > 0.999
    top, left, full_height, full_width = placement(rows, columns, spec)
    share = min(1, height / full_height) * min(1, width / full_width)
    assert seen.mean() == pytest.approx(share, abs=0.05)
    inner = np.zeros_like(seen)
    inner[3:-3, 3:-3] = seen[3:-3, 3:-3]
    away = 3 + int(np.ceil(max(rows / full_height, columns / full_width)))  # rims are smoothed
    inner[:away] = inner[-away:] = inner[:, :away] = inner[:, -away:] = False
    assert inner.any()
    assert np.abs(restored - image)[inner].max() < 0.03
    assert abs(top) + abs(left) == 0 or fit != "stretch"


@pytest.mark.parametrize("fit", FITS)
def test_a_spot_comes_back_to_its_place(fit: Fit) -> None:
    image = np.zeros((301, 203), dtype=np.float32)
    image[150:162, 90:102] = 1
    spec = InputSpec(height=112, width=96, fit=fit)
    restored = restore_map(fit_pixels(image, spec), spec, 301, 203)
    rows, columns = np.nonzero(restored > 0.5 * restored.max())
    assert rows.mean() == pytest.approx(155.5, abs=2)
    assert columns.mean() == pytest.approx(95.5, abs=2)


def test_what_a_crop_left_out_is_zero() -> None:
    spec = InputSpec(height=32, width=32, fit="crop")
    restored = restore_map(np.ones((4, 4), dtype=np.float32), spec, 32, 128)
    assert restored[:, :48].max() == restored[:, 80:].max() == 0
    np.testing.assert_allclose(restored[:, 48:80], 1)


def test_a_coarse_map_covers_equal_cells() -> None:
    coarse = np.array([[0, 1], [2, 3]], dtype=np.float32)
    restored = restore_map(coarse, InputSpec(height=64, width=64, fit="stretch"), 128, 256)
    assert restored[0, 0] == 0
    assert restored[0, -1] == 1
    assert restored[-1, 0] == 2
    assert restored[-1, -1] == 3
    assert restored[64, 128] == pytest.approx(1.5, abs=0.05)


def test_a_batch_stacks_images_of_any_size() -> None:
    batch = to_batch([ramp(50, 60), ramp(31, 17)], InputSpec(height=32, width=40))
    assert batch.shape == (2, 1, 32, 40)
    assert batch.dtype == torch.float32


def test_zscore_gives_each_image_mean_zero_and_deviation_one() -> None:
    batch = torch.rand(3, 1, 32, 32) * torch.tensor([1.0, 0.5, 0.1])[:, None, None, None]
    done = normalise(batch, InputSpec(height=32, width=32))
    assert done.shape == (3, 3, 32, 32)
    assert done.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(done.mean((2, 3)), torch.zeros(3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.std((2, 3), correction=0), torch.ones(3, 3), atol=0.04, rtol=0)
    torch.testing.assert_close(done[:, 0], done[:, 2])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_image_becomes_zeros_and_not_nan(value: float) -> None:
    done = normalise(torch.full((1, 1, 32, 32), value), InputSpec(height=32, width=32))
    assert done.abs().max() < 1e-2


def test_fixed_standardisation_is_the_same_for_every_image() -> None:
    spec = InputSpec(height=8, width=8, channels=1, standardise="fixed", mean=0.4, std=0.2)
    done = normalise(torch.full((1, 1, 8, 8), 0.6), spec)
    assert done.shape == (1, 1, 8, 8)
    torch.testing.assert_close(done, torch.ones(1, 1, 8, 8))
