"""The layout of films, by hand and on phantoms."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reading.support import phantom
from wetread.models.card import LookSpec
from wetread.models.look import fit_look, layout, likeness


def test_layout_is_the_greys_of_tiles_without_their_mean() -> None:
    halves = np.zeros((32, 64), dtype=np.float32)
    halves[:, 32:] = 1
    found = layout(halves).reshape(16, 16)
    np.testing.assert_allclose(found[:, :8], -1 / 16)
    np.testing.assert_allclose(found[:, 8:], 1 / 16)
    assert not layout(np.full((40, 40), 0.7, dtype=np.float32)).any()


def test_a_negative_is_the_opposite_and_a_brighter_film_the_same() -> None:
    film = phantom(1).image
    look = fit_look([layout(film)], [layout(film)])
    assert likeness(look, film) == pytest.approx(1, abs=1e-3)  # signed bytes
    assert likeness(look, 1 - film) == pytest.approx(-1, abs=1e-3)
    assert likeness(look, film * np.float32(0.5)) == pytest.approx(likeness(look, film))
    assert likeness(look, np.zeros_like(film)) == 0


def test_the_limit_lets_all_validation_films_through_and_is_never_above_0() -> None:
    one, other = layout(phantom(1).image), layout(1 - phantom(2).image)
    assert fit_look([one], [one]).least == 0
    apart = float(one @ other)
    assert apart < -0.5
    assert fit_look([one], [one, other]).least == pytest.approx(apart - 0.1, abs=5e-3)


def test_films_without_a_layout_refuse_nothing() -> None:
    noise = [layout(np.random.default_rng(i).random((64, 64), dtype=np.float32)) for i in range(20)]
    look = fit_look(noise, [-one for one in noise])
    assert look.least <= -0.2
    blank = fit_look([np.zeros(256)], [np.zeros(256)])
    assert blank == LookSpec(layout="00" * 256, least=-0.1)
