"""Flags on drawn shapes, few on truth masks; the confidence by hand; cleaning that keeps to its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.phantoms import Finding, render, sample_spec
from wetread.errors import UsageError
from wetread.reading.mask_quality import FLAGS, clean_mask, confidence, quality_flags

Mask = NDArray[np.bool_]
SIDE = 200


def ellipse(row: float, column: float, height: float, width: float) -> Mask:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return np.asarray(((rows - row) / (height / 2)) ** 2 + ((columns - column) / (width / 2)) ** 2 <= 1)


def bar(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


RIGHT, LEFT = ellipse(100, 55, 150, 70), ellipse(100, 145, 150, 70)
LUNGS = RIGHT | LEFT
HEART = ellipse(120, 105, 70, 80)
NOTHING = np.zeros((SIDE, SIDE), np.bool_)


@pytest.mark.parametrize(
    ("organ", "mask", "flags"),
    [
        ("lungs", LUNGS, ()),
        ("lung_left", LEFT, ()),
        ("heart", HEART, ()),
        ("lungs", NOTHING, ("empty",)),
        ("lungs", ellipse(100, 80, 50, 22) | ellipse(100, 120, 50, 22), ("too small",)),
        ("heart", ellipse(100, 100, 150, 160), ("too large",)),
        ("lungs", np.roll(LUNGS, -25, axis=0), ("touches border",)),
        ("lungs", LUNGS | bar(190, 80, 8, 50), ("more than two components",)),
        ("lungs", LUNGS | bar(190, 80, 4, 4), ()),
        ("heart", HEART | bar(20, 20, 10, 10), ("more than one component",)),
        ("lungs", LUNGS | bar(90, 80, 20, 40), ()),
        ("lungs", ellipse(100, 60, 170, 90), ("fewer than two lungs", "implausible shape")),
        ("lungs", bar(20, 20, 160, 160), ("fewer than two lungs", "implausible shape")),
        ("lungs", RIGHT | ellipse(100, 145, 60, 50), ("implausible shape",)),
        ("lung_right", ellipse(100, 100, 50, 120), ("implausible shape",)),
        ("heart", ellipse(100, 100, 160, 50), ("implausible shape",)),
        ("heart", HEART & ~ellipse(120, 130, 50, 50), ("implausible shape",)),
    ],
)
def test_flags_of_drawn_shapes(organ: str, mask: Mask, flags: tuple[str, ...]) -> None:
    assert quality_flags(organ, mask) == flags
    assert set(flags) <= set(FLAGS)


def test_lateral_lungs_are_judged_as_one() -> None:
    shadow = ellipse(100, 100, 160, 110)
    assert "fewer than two lungs" in quality_flags("lungs", shadow)
    assert quality_flags("lungs", shadow, expected_components=1) == ()
    assert "more than 3 components" in quality_flags(
        "lungs", LUNGS | bar(190, 20, 8, 30) | bar(190, 150, 8, 30), expected_components=3
    )


def test_confidence_by_hand() -> None:
    """Inside 0.9 and 0.7, outside 0.2 and 0: 2 * 1.6 / (1.8 + 2)."""
    probability = np.array([[0.9, 0.7], [0.2, 0.0]], np.float32)
    mask = probability > 0.5
    assert confidence(probability, mask) == pytest.approx(3.2 / 3.8, abs=1e-6)
    assert confidence(mask.astype(np.float32), mask) == 1.0
    assert confidence(probability, np.zeros_like(mask)) == 0.0
    assert confidence(np.zeros_like(probability), mask) == 0.0


def test_blurred_borders_lower_the_confidence() -> None:
    columns = np.linspace(-1, 1, SIDE, dtype=np.float32)[None, :].repeat(SIDE, axis=0)
    mask = np.asarray(columns > 0)
    sharp, soft = (1 / (1 + np.exp(-steep * columns)) for steep in (50, 5))
    assert 0.5 < confidence(soft, mask) < confidence(sharp, mask) < 1


def test_cleaning_removes_strays_and_small_holes() -> None:
    hole = ellipse(100, 55, 12, 12)
    given = (LUNGS & ~hole) | bar(190, 80, 8, 50)
    before = given.copy()
    np.testing.assert_array_equal(clean_mask("lungs", given), LUNGS)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(clean_mask("lungs", LUNGS), LUNGS)


def test_cleaning_keeps_one_region_of_a_heart_and_of_one_lung() -> None:
    np.testing.assert_array_equal(clean_mask("heart", HEART | ellipse(30, 30, 40, 40)), HEART)
    np.testing.assert_array_equal(clean_mask("lung_left", LEFT | ellipse(100, 55, 100, 50)), LEFT)


def test_cleaning_does_not_fill_the_mediastinum() -> None:
    ring = LUNGS | bar(45, 60, 10, 80) | bar(145, 60, 10, 80)
    np.testing.assert_array_equal(clean_mask("lungs", ring), ring)


def test_cleaning_of_nothing_is_nothing() -> None:
    found = clean_mask("lungs", NOTHING)
    assert not found.any()
    assert found is not NOTHING


def test_a_stray_is_no_second_lung() -> None:
    np.testing.assert_array_equal(clean_mask("lungs", RIGHT | bar(190, 80, 8, 50)), RIGHT)


@pytest.mark.parametrize(
    ("organ", "mask", "message"),
    [
        ("spleen", LUNGS, "expected an organ among lungs, .*, got 'spleen'"),
        ("lungs", LUNGS.astype(np.float32), "expected a bool mask of the lungs, got float32"),
        ("heart", LUNGS[None], r"a mask \(rows, columns\) of the heart, got shape \(1, 200, 200\); give one image"),
    ],
)
def test_bad_masks_are_refused(organ: str, mask: Mask, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quality_flags(organ, mask)
    with pytest.raises(UsageError, match=message):
        clean_mask(organ, mask)


def test_no_expected_component_is_refused() -> None:
    with pytest.raises(UsageError, match="expected at least 1 expected component, got 0; give None"):
        quality_flags("lungs", LUNGS, expected_components=0)


@pytest.mark.parametrize(
    ("probability", "mask", "message"),
    [
        (np.zeros((2, 2), np.float32), np.ones((2, 3), np.bool_), r"probabilities of shape \(2, 3\), got \(2, 2\)"),
        (np.full((2, 2), 1.5, np.float32), np.ones((2, 2), np.bool_), "probabilities from 0 to 1, .*sigmoid"),
        (np.full((2, 2), np.nan, np.float32), np.ones((2, 2), np.bool_), "probabilities from 0 to 1"),
        (np.zeros((2, 2), np.float32), np.ones((2, 2), np.uint8), r"a bool mask \(rows, columns\), got uint8 \(2, 2\)"),
    ],
)
def test_bad_probabilities_are_refused(probability: NDArray[np.float32], mask: Mask, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        confidence(probability, mask)


def test_phantoms_pass() -> None:
    rng = np.random.default_rng(3)
    for turn in range(12):
        findings = (Finding("cardiomegaly", float(rng.random())),) if turn % 3 == 0 else ()
        film = render(sample_spec(rng, findings=findings, size_px=256))
        assert quality_flags("lungs", film.lung_left | film.lung_right) == ()
        assert quality_flags("lung_left", film.lung_left) == ()
        assert quality_flags("lung_right", film.lung_right) == ()
        assert quality_flags("heart", film.heart) == ()


def test_few_real_truth_masks_are_flagged(shared_data: Path) -> None:
    """The flagged ones have bars or lines drawn into the mask."""
    files = sorted((shared_data / "covid-cxr" / "lung_masks").glob("*.png"))
    assert len(files) > 300
    flagged = 0
    for file in files:
        mask = np.asarray(PilImage.open(file)) > 127
        flagged += bool(set(quality_flags("lungs", mask)) - {"touches border"})
    assert 0 < flagged / len(files) <= 0.05
