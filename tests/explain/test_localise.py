"""Boxes on hand-made heat, and Otsu's rule against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wetread.errors import UsageError
from wetread.explain.base import RawMap, Target, made
from wetread.explain.localise import boxes_from_heat, boxes_of, otsu_threshold
from wetread.models.card import InputSpec
from wetread.types import Box


def heat_with(*areas: tuple[int, int, int, int, float]) -> NDArray[np.float32]:
    """100 x 200 of background 0.05 with rectangles (x, y, width, height, heat)."""
    heat = np.full((100, 200), 0.05, dtype=np.float32)
    for x, y, width, height, value in areas:
        heat[y : y + height, x : x + width] = value
    return heat


def test_two_areas_give_two_boxes_strongest_first() -> None:
    boxes = boxes_from_heat(heat_with((10, 20, 30, 15, 0.7), (120, 50, 40, 25, 1.0)))
    assert boxes == (
        Box(x=120, y=50, width=40, height=25, score=1.0),
        Box(x=10, y=20, width=30, height=15, score=float(np.float32(0.7))),
    )


def test_a_threshold_is_a_share_of_the_maximum() -> None:
    heat = heat_with((10, 20, 30, 15, 0.3), (120, 50, 40, 25, 0.5))
    assert len(boxes_from_heat(heat, 0.5)) == 2  # 0.25 of heat
    assert len(boxes_from_heat(heat, 0.7)) == 1  # 0.35 of heat
    for threshold in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="expected a threshold between 0 and 1"):
            boxes_from_heat(heat, threshold)


def test_specks_are_left_out_and_corners_join() -> None:
    speck = heat_with((5, 5, 2, 2, 1.0), (50, 50, 10, 10, 0.9), (60, 60, 10, 10, 0.9))
    (box,) = boxes_from_heat(speck)
    assert (box.x, box.y, box.width, box.height) == (50, 50, 20, 20)
    assert len(boxes_from_heat(speck, min_area=0.0001)) == 2


def test_boxes_are_limited_in_number() -> None:
    heat = heat_with(*[(x, 10, 10, 10, 0.5 + x / 1000) for x in range(0, 200, 20)])
    boxes = boxes_from_heat(heat, max_boxes=3)
    assert [box.x for box in boxes] == [180, 160, 140]


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_otsu_parts_where_the_variance_between_classes_is_largest(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    bright = rng.uniform(size=500) < share
    heat = np.where(bright, rng.beta(8, 2, 500), rng.beta(2, 8, 500)).astype(np.float32)
    centres = (np.floor(np.minimum(heat, 1 - 1e-7) * 256) + 0.5) / 256  # what a histogram keeps

    def between(threshold: float) -> float:
        high, low = centres[centres > threshold], centres[centres <= threshold]
        return 0.0 if not len(high) or not len(low) else float(len(high) * len(low) * (high.mean() - low.mean()) ** 2)

    best = max(between(edge / 256) for edge in range(1, 256))
    assert between(otsu_threshold(heat)) == pytest.approx(best, rel=1e-9)


def test_boxes_of_an_explanation_are_in_pixels_of_the_original() -> None:
    raw = np.full((8, 8), -0.5, dtype=np.float32)
    raw[2:4, 5:7] = 3.0  # rows 1/4 to 1/2, columns 5/8 to 7/8
    for size in ((2000, 1600), (80, 64)):
        explanation = made(
            RawMap(raw, layer="layer4"), Target("nodule"), size, InputSpec(height=64, width=64, fit="stretch")
        )
        (box,) = boxes_of(explanation)
        assert box.y / size[0] == pytest.approx(0.25, abs=0.05)
        assert (box.y + box.height) / size[0] == pytest.approx(0.5, abs=0.05)
        assert box.x / size[1] == pytest.approx(0.625, abs=0.05)
        assert (box.x + box.width) / size[1] == pytest.approx(0.875, abs=0.05)
        assert box.score == pytest.approx(1.0)


def test_a_padded_input_is_undone() -> None:
    raw = np.zeros((8, 8), dtype=np.float32)
    raw[0:2, 3:5] = 1.0  # top of an image of 200 x 100, which fills columns 2 to 6 of the 8
    explanation = made(
        RawMap(raw, layer="layer4"), Target("nodule"), (200, 100), InputSpec(height=64, width=64, fit="pad")
    )
    (box,) = boxes_of(explanation)
    assert box.y == 0
    assert box.height / 200 == pytest.approx(0.25, abs=0.05)
    assert box.x / 100 == pytest.approx(0.25, abs=0.06)
    assert (box.x + box.width) / 100 == pytest.approx(0.75, abs=0.06)
