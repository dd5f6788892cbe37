"""Localisation measures on maps drawn by hand, and against formulas written out a second time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetread.errors import ExplanationFailed, UsageError
from wetread.evaluation.intervals import wilson
from wetread.explain.localisation import (
    Localisation,
    heat_overlap,
    lift,
    localisation_of,
    mass_accuracy,
    pointing_hit,
    rank_accuracy,
    summarise_localisation,
)

ROWS, COLUMNS = 20, 30
Mask = NDArray[np.bool_]


def mask_of(top: int = 5, left: int = 10, height: int = 4, width: int = 6) -> Mask:
    mask = np.zeros((ROWS, COLUMNS), dtype=np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def delta(row: int, column: int, value: float = 1.0) -> NDArray[np.float32]:
    heat = np.zeros((ROWS, COLUMNS), dtype=np.float32)
    heat[row, column] = value
    return heat


def test_all_heat_on_one_pixel_of_the_finding() -> None:
    found = localisation_of(delta(6, 12), mask_of())
    assert (found.hit, found.mass) == (1.0, 1.0)
    assert found.lift == pytest.approx(600 / 24)  # the whole image over the mask: the most there can be
    assert found.overlap == pytest.approx(1 / 24)
    # 23 places are left for the 599 cold pixels, of which 23 lie in the mask
    assert found.rank == pytest.approx((1 + 23 * 23 / 599) / 24)


def test_all_heat_beside_the_finding() -> None:
    found = localisation_of(delta(0, 0), mask_of())
    assert (found.hit, found.mass, found.lift, found.overlap) == (0.0, 0.0, 0.0, 0.0)
    assert found.rank == pytest.approx(23 * 24 / 599 / 24)


def test_even_heat_is_chance_in_every_measure() -> None:
    heat, mask = np.full((ROWS, COLUMNS), 0.3, dtype=np.float32), mask_of()
    found = localisation_of(heat, mask)
    assert found.area == pytest.approx(24 / 600)
    for value in (found.hit, found.mass, found.rank):
        assert value == pytest.approx(found.area)
    assert found.lift == pytest.approx(1.0)


def test_tied_maxima_share_the_hit_wherever_they_are_stored() -> None:
    for outside in ((0, 0), (19, 29)):  # before and after the mask in memory
        heat = delta(6, 12) + delta(*outside)
        assert pointing_hit(heat, mask_of()) == 0.5


def test_tolerance_is_a_distance_in_pixels() -> None:
    mask = mask_of()  # rows 5 to 8, columns 10 to 15
    assert pointing_hit(delta(5, 7), mask, 2.9) == 0.0
    assert pointing_hit(delta(5, 7), mask, 3.0) == 1.0
    assert pointing_hit(delta(2, 6), mask, 4.9) == 0.0
    assert pointing_hit(delta(2, 6), mask, 5.0) == 1.0  # 3 up, 4 to the left
    with pytest.raises(UsageError, match="expected a tolerance of at least 0 px, got -1"):
        pointing_hit(delta(2, 6), mask, -1)


def test_negative_evidence_is_no_heat() -> None:
    heat = delta(6, 12) - 5 * delta(6, 13) - 5 * delta(0, 0)
    assert mass_accuracy(heat, mask_of()) == 1.0
    assert lift(heat, mask_of()) == pytest.approx(25)


def test_half_the_mass() -> None:
    heat = delta(6, 12, 3.0) + delta(0, 0, 1.0)
    assert mass_accuracy(heat, mask_of()) == pytest.approx(0.75)
    assert lift(heat, mask_of()) == pytest.approx(0.75 * 25)


@given(st.integers(0, 2**32 - 1))
def test_the_same_numbers_as_the_definitions_written_out(seed: int) -> None:
    """Quantus 0.6 (PointingGame, RelevanceMassAccuracy, RelevanceRankAccuracy) without ties, on one image."""
    rng = np.random.default_rng(seed)
    heat = rng.permutation(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(np.float64) + 1  # no two alike
    mask = mask_of(*rng.integers(0, 10, 2), *rng.integers(1, 10, 2))
    flat, inside = heat.ravel(), np.flatnonzero(mask.ravel())
    assert pointing_hit(heat, mask) == float(np.argmax(flat) in inside)
    assert mass_accuracy(heat, mask) == pytest.approx(flat[inside].sum() / flat.sum(), abs=1e-12)
    hottest = np.argsort(flat)[::-1][: len(inside)]
    assert rank_accuracy(heat, mask) == pytest.approx(len(np.intersect1d(hottest, inside)) / len(inside), abs=1e-12)


def test_overlap_is_that_of_the_hot_area() -> None:
    heat = np.full((ROWS, COLUMNS), 0.1, dtype=np.float32)
    heat[5:9, 13:19] = 0.9  # 3 of its 6 columns lie in the mask
    assert heat_overlap(heat, mask_of()) == pytest.approx(12 / 36)
    assert heat_overlap(heat, mask_of(), called=False) == 0.0


@pytest.mark.parametrize(
    ("heat", "mask", "error", "message"),
    [
        (delta(1, 1), np.zeros((ROWS, COLUMNS), np.bool_), UsageError, "a mask with the finding in it, got an empty"),
        (delta(1, 1), mask_of().astype(np.uint8), UsageError, r"a bool mask \(rows, columns\), got uint8"),
        (delta(1, 1)[:-1], mask_of(), UsageError, r"heat of the mask's shape \(20, 30\), got \(19, 30\)"),
        (-delta(1, 1), mask_of(), ExplanationFailed, "heat with positive evidence, got none"),
        (delta(1, 1, np.nan), mask_of(), ExplanationFailed, "finite heat, got NaN"),
    ],
)
def test_what_is_refused(heat: NDArray[np.float32], mask: Mask, error: type[Exception], message: str) -> None:
    for measure in (pointing_hit, mass_accuracy, rank_accuracy, lift, heat_overlap):
        with pytest.raises(error, match=message):
            measure(heat, mask)


def found(hit: float, overlap: float = 0.5, mass: float = 0.3) -> Localisation:
    return Localisation(
        hit=hit,
        tolerant_hit=1.0,
        tolerance_px=3,
        mass=mass,
        rank=0.4,
        area=0.1,
        lift=10 * mass,
        overlap=overlap,
    )


def test_a_set_counts_findings_without_a_map_as_missed() -> None:
    every = [*[found(1.0)] * 18, found(0.0), None]
    names = [f"p{i}" for i in range(20)]
    summary = summarise_localisation(every, names)
    assert summary.hit == wilson(18, 20)
    assert summary.overlap.value == pytest.approx(19 * 0.5 / 20)
    assert summary.mass.value == pytest.approx(0.3)
    assert summary.mass.n == 19
    assert "1 of 20 not defined" in summary.lift.note


def test_films_of_one_patient_are_not_counted_as_many() -> None:
    every = [found(float(i < 10), mass=i / 20) for i in range(20)]
    alone = summarise_localisation(every, [f"p{i}" for i in range(20)])
    paired = summarise_localisation(every, [f"p{i // 2}" for i in range(20)])
    for one, other in ((alone.hit, paired.hit), (alone.mass, paired.mass)):
        assert one.value == other.value
        assert None not in (one.low, one.high, other.low, other.high)
        assert (other.high or 0) - (other.low or 0) > 1.2 * ((one.high or 0) - (one.low or 0))
    with pytest.raises(UsageError, match="expected 20 patients"):
        summarise_localisation(every, ["p1"])


def test_fractional_hits_have_an_interval_too() -> None:
    every = [found(0.5 if i % 2 else 1.0) for i in range(30)]
    hit = summarise_localisation(every, [f"p{i}" for i in range(30)]).hit
    assert hit.value == pytest.approx(0.75)
    assert hit.low is not None
    assert hit.low < 0.75
