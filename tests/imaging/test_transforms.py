from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from tests.imaging.dicoms import lut_item
from wetread.imaging import transforms

_AGREEMENT = 1e-6
"""Largest difference allowed from pydicom's implementation, on a scale of 0 to 1."""


def _dataset(**elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 12, 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _values() -> NDArray[np.int16]:
    return np.arange(-3000, 7000, dtype=np.int16)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048.0, 4096.0), (40.5, 1.0), (-100.0, 333.3), (1000.0, 2.0)])
def test_windows_agree_with_pydicom(function: str, centre: float, width: float) -> None:
    dataset = _dataset(WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    ours = getattr(transforms, f"window_{function.lower()}")(_values(), centre, width)
    with np.errstate(over="ignore"):  # pydicom lets exp() overflow far below a sigmoid
        theirs = apply_windowing(_values(), dataset) / 4095
    np.testing.assert_allclose(ours, theirs, atol=_AGREEMENT)


def test_linear_window_on_paper() -> None:
    # PS3.3 C.11.2.1.2.1, note 4: centre 2048, width 4096 maps 0..4095 to the full range.
    found = transforms.window_linear(np.array([-5, 0, 2047.5, 4095, 5000]), 2048, 4096)
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1], atol=1e-12)
    # The same note: centre 0, width 1 is a threshold below which all is black.
    np.testing.assert_array_equal(transforms.window_linear(np.array([-1, -0.5, 0]), 0, 1), [0, 0, 1])


def test_linear_exact_window_on_paper() -> None:
    found = transforms.window_linear_exact(np.array([0, 25, 50, 100, 101]), 50, 100)
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 1, 1])


def test_sigmoid_window_on_paper() -> None:
    found = transforms.window_sigmoid(np.array([0, 25, -1e9, 1e9]), 0, 100)
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-1)), 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("function", "width", "message"),
    [
        ("window_linear", 0.5, "expected a window width of 1 or more for LINEAR, got 0.5"),
        ("window_linear", float("nan"), "expected a window width of 1 or more"),
        ("window_linear_exact", 0.0, "expected a window width above 0, got 0.0"),
        ("window_sigmoid", -1.0, "expected a window width above 0, got -1.0"),
    ],
)
def test_impossible_widths_are_refused(function: str, width: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(transforms, function)(_values(), 0.0, width)


def test_rescale_agrees_with_pydicom() -> None:
    theirs = apply_modality_lut(_values(), _dataset(RescaleSlope="1.5", RescaleIntercept="-1024"))
    np.testing.assert_allclose(transforms.rescale(_values(), 1.5, -1024), theirs, atol=_AGREEMENT)


@pytest.mark.parametrize("first", [-100, 0, 200])
def test_modality_lut_agrees_with_pydicom(first: int) -> None:
    table = [int(v) for v in np.random.default_rng(3).integers(0, 4096, 300)]
    theirs = apply_modality_lut(_values(), _dataset(ModalityLUTSequence=[lut_item(table, first, 16)]))
    np.testing.assert_array_equal(transforms.apply_lut(_values(), np.array(table), first), theirs)


def test_voi_lut_agrees_with_pydicom() -> None:
    table = [int(v) for v in np.linspace(0, 65535, 500) ** 0.9]
    dataset = _dataset(VOILUTSequence=[lut_item(table, 10, 16)])
    values = np.arange(0, 3000, dtype=np.uint16)
    np.testing.assert_array_equal(transforms.apply_lut(values, np.array(table), 10), apply_voi(values, dataset))


def test_lut_on_paper() -> None:
    found = transforms.apply_lut(np.array([3, 4, 5, 6, 7, 8, 5.9]), np.array([10, 20, 30]), 5)
    np.testing.assert_array_equal(found, [10, 10, 10, 20, 30, 30, 10])


def test_inversion_turns_black_white() -> None:
    np.testing.assert_array_equal(transforms.invert(np.array([0.0, 0.25, 1.0])), [1.0, 0.75, 0.0])


def test_ramp_clips_and_survives_equal_limits() -> None:
    np.testing.assert_allclose(transforms.ramp(np.array([0, 10, 15, 20, 99]), 10, 20), [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(transforms.ramp(np.array([5, 5]), 5, 5), [0, 0])
    with pytest.raises(ValueError, match="expected low <= high, got 2 and 1"):
        transforms.ramp(np.array([1]), 2, 1)


def test_percentiles_on_paper() -> None:
    # 1000 pixels: 4 black, 2 at 10, 988 at 50, 6 at 99. Rank 5 is a 10; rank 995 is a 99.
    counts, values = np.array([4, 2, 988, 6]), np.array([0.0, 10.0, 50.0, 99.0])
    assert transforms.percentile_limits(counts, values) == (10.0, 99.0)


@given(st.lists(st.integers(-500, 500), min_size=1, max_size=300))
def test_percentiles_agree_with_numpy(pixels: list[int]) -> None:
    values, counts = np.unique(np.array(pixels), return_counts=True)
    theirs = np.percentile(pixels, transforms.PERCENTILES, method="inverted_cdf")
    # Order of the table must not matter: signed 16 bit tables start with the positive half.
    ours = transforms.percentile_limits(counts[::-1], values[::-1].astype(np.float64))
    assert ours == tuple(theirs)


def test_percentiles_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one pixel"):
        transforms.percentile_limits(np.array([0, 0]), np.array([1.0, 2.0]))
