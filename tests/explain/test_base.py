"""What makes a map refusable, and the heat that a good one becomes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.errors import ExplanationFailed
from wetread.explain.base import RawMap, Target, fitted_size, made
from wetread.models.card import InputSpec
from wetread.types import Box

SQUARE = InputSpec(height=32, width=32, fit="stretch")
TARGET = Target("nodule")


def spot(rows: int, columns: int, row: int, column: int) -> NDArray[np.float32]:
    raw = np.full((rows, columns), -1.0, dtype=np.float32)
    raw[row, column] = 4.0
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.array([[np.nan, 1]]), "got values that are not finite; check the weights"),
        (np.array([[np.inf, 1]]), "got values that are not finite"),
        (np.zeros((2, 2)), "got zero everywhere; layer4 has no influence"),
        (np.full((2, 3), 0.3), "got the same value in all 6 cells; use a larger input"),
        (np.array([[-1.0, -2.0]]), "got no place that speaks for it; read the score as evidence against it"),
    ],
)
def test_a_map_that_shows_nothing_is_an_error(raw: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ExplanationFailed, match=message) as caught:
        made(RawMap(raw.astype(np.float32), layer="layer4"), TARGET, (64, 64), SQUARE)
    assert "expected a gradcam map for 'nodule'" in str(caught.value)


def test_magnitude_survives_normalisation() -> None:
    explanation = made(RawMap(spot(4, 4, 1, 2), layer="layer4"), TARGET, (64, 128), SQUARE)
    assert explanation.scale == 4
    assert explanation.map.min() == -1
    assert explanation.heat.shape == (64, 128)
    assert explanation.heat.max() <= 1
    row, column = np.unravel_index(explanation.heat.argmax(), explanation.heat.shape)
    assert 16 <= row < 32  # second quarter of 64 rows
    assert 64 <= column < 96  # third quarter of 128 columns


def test_heat_at_is_the_heat_made_smaller() -> None:
    explanation = made(RawMap(spot(4, 4, 3, 0), layer="layer4"), TARGET, (100, 60), SQUARE)
    small = explanation.heat_at(50)
    assert small.shape == (50, 30)
    np.testing.assert_allclose(small, explanation.heat.reshape(50, 2, 30, 2).mean((1, 3)), atol=0.06)
    assert explanation.heat is explanation.heat  # made once


def test_evidence_in_the_padding_alone_is_an_error() -> None:
    tall = InputSpec(height=64, width=64, fit="pad")  # an image of 100x20 fills columns 26 to 38 of 64
    with pytest.raises(ExplanationFailed, match="evidence outside the part of the image that is shown"):
        made(RawMap(spot(8, 8, 3, 0), layer="layer4"), TARGET, (100, 20), tall)


def test_evidence_partly_in_the_padding_is_said() -> None:
    tall = InputSpec(height=64, width=64, fit="pad")
    raw = np.zeros((8, 8), dtype=np.float32)
    raw[3, 3] = raw[3, 0] = 1.0
    explanation = made(RawMap(raw, limits=("first",), layer="layer4"), TARGET, (100, 20), tall)
    assert explanation.limits[0] == "first"
    share = int(explanation.limits[1].split("%")[0])
    assert 45 <= share <= 70  # one of two spots, and the rim of the other
    assert "lies in the padding" in explanation.limits[1]


def test_evidence_cropped_away_is_not_drawn() -> None:
    crop = InputSpec(height=32, width=32, fit="crop")
    explanation = made(RawMap(spot(4, 4, 0, 0), layer="layer4"), TARGET, (32, 64), crop)
    assert explanation.heat[:, :16].max() == 0
    assert explanation.heat[:, 48:].max() == 0
    assert explanation.heat[0, 17] > 0.9


def test_the_record_is_frozen_and_becomes_evidence() -> None:
    explanation = made(RawMap(spot(4, 4, 0, 0), limits=("coarse",), layer="layer4"), TARGET, (32, 64), SQUARE)
    with pytest.raises(dataclasses.FrozenInstanceError, match="label"):
        explanation.label = "other"  # type: ignore[misc]
    box = Box(x=1, y=2, width=3, height=4)
    evidence = explanation.evidence("a.png", (box,))
    assert evidence.model_dump() == {
        "method": "gradcam",
        "target": "nodule",
        "layer": "layer4",
        "status": "made",
        "heatmap": "a.png",
        "boxes": (box.model_dump(),),
        "limits": ("coarse",),
    }


@pytest.mark.parametrize(
    ("size", "longest", "fitted"),
    [((100, 50), 10, (10, 5)), ((100, 50), 200, (100, 50)), ((3, 1000), 100, (1, 100)), ((1, 1), 1, (1, 1))],
)
def test_fitted_size(size: tuple[int, int], longest: int, fitted: tuple[int, int]) -> None:
    assert fitted_size(size, longest) == fitted


def test_the_map_of_a_window_lies_in_the_window_at_every_size() -> None:
    """A window of 40 x 20 at (30, 50) of a 100 x 200 image, seen as 8 x 8 with its brightest cell at the top left."""
    spec = InputSpec(height=8, width=8, fit="stretch")
    whole = made(RawMap(spot(8, 8, 0, 0), layer="layer"), Target("pneumonia"), (40, 20), spec)
    placed = whole.seen_through((30, 50, 40, 20), (100, 200))
    assert placed.heat.shape == (100, 200)
    assert placed.heat.argmax() == 30 * 200 + 50
    outside = placed.heat.copy()
    outside[30:70, 50:70] = 0
    assert not outside.any()
    np.testing.assert_array_equal(placed.heat[30:70, 50:70], whole.heat)
    small = placed.heat_at(100)
    assert small.shape == (50, 100)
    assert small[15:35, 25:35].any()
    small[15:35, 25:35] = 0
    assert not small.any()


def test_a_window_of_one_pixel_is_seen_in_the_smallest_picture() -> None:
    spec = InputSpec(height=8, width=8, fit="stretch")
    placed = made(RawMap(spot(8, 8, 4, 4), layer="layer"), Target("pneumonia"), (1, 1), spec).seen_through(
        (99, 0, 1, 1), (100, 10)
    )
    small = placed.heat_at(10)
    assert small.shape == (10, 1)
    assert small[9, 0] > 0
    assert not small[:9].any()


def test_without_a_window_nothing_changes() -> None:
    spec = InputSpec(height=8, width=8, fit="stretch")
    whole = made(RawMap(spot(8, 8, 0, 0), layer="layer"), Target("pneumonia"), (40, 20), spec)
    assert whole.seen_through(None, (100, 200)) is whole
