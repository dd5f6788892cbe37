"""Overlap and border distances on paper and against MONAI; the mean over patients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_distance import compute_average_surface_distance
from numpy.typing import NDArray
from scipy import ndimage

from wetread.errors import UsageError
from wetread.evaluation.overlap import dice, iou, summarise, surface_distances

Mask = NDArray[np.bool_]
NOTHING = np.zeros((40, 50), np.bool_)


def square(top: int, left: int, height: int = 10, width: int = 10) -> Mask:
    mask = NOTHING.copy()
    mask[top : top + height, left : left + width] = True
    return mask


def blobs(seed: int) -> tuple[Mask, Mask]:
    """Two ragged masks of several parts that overlap in part; some touch the border."""
    noise = np.random.default_rng(seed).normal(size=(2, 60, 70))
    one, other = (ndimage.gaussian_filter(part, 4) for part in noise)
    return np.asarray(one > 0.02), np.asarray(0.7 * one + 0.3 * other > 0.02)


def batch(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask[None, None].astype(np.float32))


def test_shifted_squares_by_hand() -> None:
    """Shifted by 5 of 10 columns: half of each is shared."""
    a, b = square(10, 10), square(10, 15)
    assert dice(a, b) == 0.5
    assert iou(a, b) == pytest.approx(1 / 3)
    assert dice(a, a) == iou(a, a) == 1.0
    assert dice(a, NOTHING) == iou(a, NOTHING) == 0.0


def test_two_empty_masks_are_undefined() -> None:
    assert dice(NOTHING, NOTHING) is None
    assert iou(NOTHING, NOTHING) is None
    assert surface_distances(NOTHING, NOTHING, None) is None
    assert surface_distances(square(1, 1), NOTHING, None) is None
    assert surface_distances(NOTHING, square(1, 1), (1.0, 1.0)) is None


def test_distance_of_two_columns_by_hand() -> None:
    """Two columns of one pixel, 7 columns apart: every border pixel is 7 pixels from the other."""
    a, b = square(10, 10, 20, 1), square(10, 17, 20, 1)
    found = surface_distances(a, b, None)
    assert found is not None
    assert (found.hd95, found.average, found.unit) == (7.0, 7.0, "px")
    across = surface_distances(a, b, (3.0, 0.5))
    assert across is not None
    assert (across.hd95, across.average, across.unit) == (3.5, 3.5, "mm")


def test_spacing_is_row_then_column() -> None:
    found = surface_distances(square(10, 10, 1, 20), square(14, 10, 1, 20), (3.0, 0.5))
    assert found is not None
    assert found.hd95 == 12.0


def test_hd95_is_the_larger_of_two_directions() -> None:
    """A line of 20 has a spur of 5 pixels: 2 of the 25 lie 4 and more away, so the percentile is in the spur.

    The distances are 0 (20 times), 1, 2, 3, 4, 5: rank 0.95 * 24 = 22.8 lies between 3 and 4.
    """
    line = square(20, 10, 1, 20)
    spur = line | square(15, 10, 5, 1)
    for pair in ((line, spur), (spur, line)):
        found = surface_distances(*pair, None)
        assert found is not None
        assert found.hd95 == pytest.approx(3.8)
        assert found.average == pytest.approx(15 / 45)


def test_the_same_border_is_at_distance_zero() -> None:
    a = square(0, 0, 12, 8)  # touches the image's border
    found = surface_distances(a, a, (0.2, 0.2))
    assert found is not None
    assert found.hd95 == found.average == 0.0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns of its own call
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0), (0.7, 0.143)])
def test_border_distances_agree_with_monai(seed: int, spacing_mm: tuple[float, float] | None) -> None:
    """Same border, percentile and average; MONAI keeps distances as float32, hence the relative 1e-6."""
    a, b = blobs(seed)
    found = surface_distances(a, b, spacing_mm)
    assert found is not None
    pair = (batch(a), batch(b), True)  # one channel, and it is not background
    hd95 = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing_mm).item()
    average = compute_average_surface_distance(*pair, symmetric=True, spacing=spacing_mm).item()
    assert found.hd95 == pytest.approx(hd95, rel=1e-6)
    assert found.average == pytest.approx(average, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_overlap_agrees_with_monai(seed: int) -> None:
    a, b = blobs(seed)
    assert dice(a, b) == pytest.approx(compute_dice(batch(a), batch(b)).item(), abs=1e-6)
    assert iou(a, b) == pytest.approx(compute_iou(batch(a), batch(b)).item(), abs=1e-6)


def test_where_monai_differs() -> None:
    """MONAI calls Dice undefined whenever the truth is empty; here a false mask then scores 0."""
    assert np.isnan(compute_dice(batch(square(1, 1)), batch(NOTHING)).item())
    assert dice(square(1, 1), NOTHING) == 0.0


def test_dice_and_iou_belong_together() -> None:
    a, b = blobs(9)
    d, j = dice(a, b), iou(a, b)
    assert d is not None
    assert j is not None
    assert d == pytest.approx(2 * j / (1 + j))


def test_summary_is_the_mean_with_an_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    per_patient = rng.normal(0.9, 0.03, 50)
    values: list[float | None] = [float(v) for v in np.repeat(per_patient, 4)]
    patients = [f"p{i}" for i in np.repeat(np.arange(50), 4)]
    found = summarise(values, patients, seed=1)
    half = 1.96 * per_patient.std() / 50**0.5
    assert found.value == pytest.approx(per_patient.mean())
    assert found.low == pytest.approx(per_patient.mean() - half, abs=0.002)
    assert found.high == pytest.approx(per_patient.mean() + half, abs=0.002)
    assert (found.n, found.note) == (200, "mean over 50 patients")
    assert found.method == "bootstrap over patients, 1000 resamples, percentile"
    assert summarise(values, patients, seed=1) == found
    assert summarise(values, patients, seed=2).low != found.low


def test_undefined_values_are_counted_apart() -> None:
    values = [None if i % 4 == 0 else 0.5 + 0.01 * i for i in range(40)]
    found = summarise(values, [f"p{i}" for i in range(40)], seed=0)
    assert found.value == pytest.approx(np.mean([v for v in values if v is not None]))
    assert found.n == 30
    assert found.low is not None
    assert found.note == "mean over 30 patients; 10 of 40 not defined and left out"


def test_intervals_that_mislead_are_refused() -> None:
    few = summarise([0.5, 0.6, None], ["a", "b", "c"], seed=0)
    assert few.value == pytest.approx(0.55)
    assert few.low is None
    assert "1 of 3 not defined and left out; no interval: 2 patients, fewer than 10" in few.note
    none = summarise([None, None], ["a", "b"], seed=0)
    assert (none.value, none.n, none.note) == (None, 0, "2 of 2 not defined and left out")
    assert summarise([], [], seed=0).note == "no cases"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (NOTHING, NOTHING[1:], r"expected two masks of one shape, got \(40, 50\) and \(39, 50\); resize one"),
        (NOTHING, NOTHING.astype(np.uint8), "expected a bool mask, got uint8; compare with a threshold first"),
        (NOTHING[None], NOTHING[None], r"expected a mask \(rows, columns\), got shape \(1, 40, 50\); give one image"),
    ],
)
def test_bad_masks_are_refused(a: Mask, b: Mask, message: str) -> None:
    for score in (dice, iou):
        with pytest.raises(UsageError, match=message):
            score(a, b)
    with pytest.raises(UsageError, match=message):
        surface_distances(a, b, None)


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_bad_spacing_is_refused(spacing_mm: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"expected a spacing \(row, column\) above 0 mm, got .*; give None"):
        surface_distances(square(1, 1), square(2, 2), spacing_mm)


def test_bad_values_are_refused() -> None:
    with pytest.raises(UsageError, match="expected 2 patients, one for each value, got 1; name all"):
        summarise([0.1, 0.2], ["a"], seed=0)
    with pytest.raises(UsageError, match="expected finite values, got NaN or infinity; give None"):
        summarise([0.1, float("nan")], ["a", "b"], seed=0)
