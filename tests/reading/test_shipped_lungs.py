"""The shipped segmenter: its size, its card, and that it finds two lungs on films it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reading.support import facts_of, phantom
from wetread.evaluation.overlap import dice
from wetread.models.bundle import ZOO, find_reader, load_any_card, load_segmenter
from wetread.models.card import SegmenterCard
from wetread.models.organs import Segmenter
from wetread.reading.organs import segment_image
from wetread.types import Image

LARGEST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def lungs() -> Segmenter:
    return load_segmenter("lungs")


def test_it_is_small_and_its_card_says_how_good_it_is_on_unseen_patients() -> None:
    card = load_any_card(find_reader("lungs"))
    assert isinstance(card, SegmenterCard)
    assert (ZOO / "lungs" / "model.safetensors").stat().st_size <= LARGEST_BYTES
    found = {row.name: row.estimate for row in card.metrics if row.split == "out-of-fold"}
    estimate = found["dice lungs"]
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.n == 322
    assert card.limits
    assert "adults" in card.data.population


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_both_lungs_of_a_phantom(lungs: Segmenter, seed: int) -> None:
    film = phantom(seed)
    rows, columns = film.image.shape
    reading, masks = segment_image(lungs, Image(film.image, facts_of(rows=rows, columns=columns)))
    assert reading.flags == ()
    # It draws the part behind the heart too, which the phantom's truth leaves out.
    overlap = dice(masks["lungs"], np.asarray(film.lung_left | film.lung_right))
    assert overlap is not None
    assert overlap > 0.85
