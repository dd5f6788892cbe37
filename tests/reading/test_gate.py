"""Each reason of the gate, one at a time, and that absent facts pass."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.models.support import card_for
from tests.reading.support import colour_photograph, image_from, phantom
from wetread.imaging import load_image
from wetread.models.card import GateSpec, ReaderCard
from wetread.models.look import fit_look, layout
from wetread.reading.gate import MAX_COLOUR, MIN_SIDE_PX, judge

GATE = GateSpec(limit=2.0, quantile=0.99, n=100, components=8, modalities=("CR", "DX"), body_parts=("CHEST",))


@pytest.fixture
def card() -> ReaderCard:
    return card_for(gate=GATE)


def test_a_film_passes_and_keeps_distance_and_limit(card: ReaderCard) -> None:
    gate = judge(card, image_from(phantom(1).image), 1.25)
    assert gate.passed
    assert (gate.reasons, gate.distance, gate.limit) == ((), 1.25, 2.0)


@pytest.mark.parametrize("modality", ["CR", "DX", "dx", " CR ", None, ""])
def test_modalities_that_fit_or_are_absent_pass(card: ReaderCard, modality: str | None) -> None:
    assert judge(card, image_from(phantom(1).image, modality=modality)).passed


def test_another_modality_is_refused(card: ReaderCard) -> None:
    gate = judge(card, image_from(phantom(1).image, modality="MG"))
    assert gate.reasons == ("The header says modality 'MG'; the reader was built for CR or DX.",)


@pytest.mark.parametrize("part", ["CHEST", "chest", "THORAX", "CHEST PA", "CHEST_LAT", None])
def test_body_parts_that_fit_or_are_absent_pass(card: ReaderCard, part: str | None) -> None:
    assert judge(card, image_from(phantom(1).image, body_part=part)).passed


def test_another_body_part_is_refused(card: ReaderCard) -> None:
    gate = judge(card, image_from(phantom(1).image, body_part="HAND"))
    assert gate.reasons == ("The header says body part 'HAND'; the reader was built for CHEST.",)


def test_header_values_are_cut_and_cleaned_before_they_are_shown(card: ReaderCard) -> None:
    gate = judge(card, image_from(phantom(1).image, body_part="KNEE\x1b[31m\n" + "x" * 500))
    assert len(gate.reasons[0]) < 110
    assert gate.reasons[0].isprintable()


def test_a_reader_without_gate_looks_at_the_pixels_only() -> None:
    assert judge(card_for(gate=None), image_from(phantom(1).image, modality="MG"), 99.0).passed
    assert not judge(card_for(gate=None), image_from(np.zeros((100, 100)))).passed


def test_a_negative_and_a_film_on_its_side_are_refused_by_their_layout() -> None:
    film = phantom(1).image
    look = fit_look([layout(phantom(seed).image) for seed in range(8)], [layout(film)])
    card = card_for(gate=GATE.model_copy(update={"look": look}))
    assert judge(card, image_from(film)).passed
    (reason,) = judge(card, image_from(1 - film)).reasons
    assert reason.startswith(
        "It looks like a negative of the images the reader learned from: likeness of its layout -0."
    )
    assert reason.endswith("at least 0.00 is needed; check its grey values.")
    strict = card_for(gate=GATE.model_copy(update={"look": look.model_copy(update={"layout": _turned(look.layout)})}))
    (reason,) = judge(strict, image_from(film)).reasons
    assert reason.startswith("It is laid out unlike the images the reader learned from")


def _turned(look: str) -> str:
    """The layout of the same films on their side, less a little of the upright one."""
    greys = np.frombuffer(bytes.fromhex(look), dtype=np.int8).reshape(16, 16).astype(float)
    mixed = np.rot90(greys) - (float((np.rot90(greys) * greys).sum()) / float((greys**2).sum()) + 0.2) * greys
    return bytes(np.rint(mixed / np.abs(mixed).max() * 127).astype(np.int8)).hex()


def test_small_images_are_refused_below_the_limit_only(card: ReaderCard) -> None:
    gate = judge(card, image_from(phantom(1).image[::5, ::5]))  # 52 x 52
    assert gate.reasons[0].startswith("It is too small: 52 x 52 pixels")
    assert judge(card, image_from(phantom(1).image[::4, ::4])).passed  # exactly 64 x 64
    assert phantom(1).image[::4, ::4].shape == (MIN_SIDE_PX, MIN_SIDE_PX)


def test_colour_is_refused_above_the_limit_only(card: ReaderCard) -> None:
    assert judge(card, image_from(phantom(1).image, colour=MAX_COLOUR)).passed
    gate = judge(card, image_from(phantom(1).image, colour=0.73))
    assert gate.reasons[0].startswith("It is a colour picture (73% of the pixels are coloured)")


def test_a_colour_photograph_from_a_file_is_refused(card: ReaderCard, tmp_path: Path) -> None:
    gate = judge(card, load_image(colour_photograph(tmp_path / "holiday.png")))
    assert "colour picture" in gate.reasons[0]


@pytest.mark.parametrize(("distance", "passed"), [(1.99, True), (2.0, True), (2.01, False), (math.nan, False)])
def test_distance_decides_at_the_limit(card: ReaderCard, distance: float, passed: bool) -> None:
    gate = judge(card, image_from(phantom(1).image), distance)
    assert gate.passed is passed
    assert passed or "unlike the images the reader learned from" in gate.reasons[0]


def test_every_reason_is_given_as_one_sentence(card: ReaderCard) -> None:
    image = image_from(np.zeros((40, 40)), modality="US", body_part="ABDOMEN", colour=0.5)
    gate = judge(card, image, 5.0)
    assert len(gate.reasons) == 6
    assert all(reason[0].isupper() and reason.endswith(".") for reason in gate.reasons)
    assert gate.distance == 5.0
