"""The edits: graded, pure, where they belong, of the sizes that their docstrings state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.datasets.phantoms import PhantomSpec, render
from wetread.datasets.plant import (
    KINDS,
    Kind,
)
from wetread.datasets.plant_edits import edited, jpeg_quality, shrunk
from wetread.datasets.plant_spec import ORGAN_KINDS
from wetread.errors import UsageError

Pixels = NDArray[np.float32]
ALL: tuple[Kind, ...] = tuple(KINDS)
GLOBAL: tuple[Kind, ...] = ("exposure", "sharpness", "noise", "jpeg")


@pytest.fixture(scope="module")
def film() -> tuple[Pixels, NDArray[np.bool_]]:
    made = render(PhantomSpec(seed=5, size_px=128))
    return made.image, made.lung_left | made.lung_right


def flat(value: float = 0.25, side: int = 128) -> Pixels:
    return np.full((side, side), value, np.float32)


def at(kind: Kind, pixels: Pixels, strength: float, seed: int = 0, **more: Any) -> Pixels:
    return edited(kind, pixels, strength, np.random.default_rng(seed), **more)


class TestEdits:
    @pytest.mark.parametrize("kind", ALL)
    def test_strength_0_gives_the_same_pixels_and_no_edit_changes_its_input(
        self, kind: Kind, film: tuple[Pixels, NDArray[np.bool_]]
    ) -> None:
        pixels, mask = film
        before = pixels.copy()
        for keep_size in (True, False):
            same = at(kind, pixels, 0.0, mask=mask, keep_size=keep_size)
            np.testing.assert_array_equal(same, pixels)
            assert not np.shares_memory(same, pixels)
        at(kind, pixels, 1.0, mask=mask)
        np.testing.assert_array_equal(pixels, before)

    @pytest.mark.parametrize("kind", ALL)
    def test_stronger_changes_more(self, kind: Kind, film: tuple[Pixels, NDArray[np.bool_]]) -> None:
        pixels, mask = film
        changes = []
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
            made = [at(kind, pixels, strength, seed, mask=mask) for seed in range(8)]
            assert {(m.dtype, m.shape) for m in made} == {(np.dtype(np.float32), pixels.shape)}
            assert all(0 <= m.min() <= m.max() <= 1 for m in made)
            changes.append(np.mean([np.abs(m - pixels).mean() for m in made]))
        assert np.all(np.diff(changes) > 0), changes

    @pytest.mark.parametrize("kind", ALL)
    def test_the_generator_alone_decides_the_rest(self, kind: Kind, film: tuple[Pixels, NDArray[np.bool_]]) -> None:
        pixels, mask = film
        first, again, other = (at(kind, pixels, 0.6, seed, mask=mask) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) == (kind in ("sharpness", "jpeg", "resolution"))

    @pytest.mark.parametrize("kind", ORGAN_KINDS)
    @pytest.mark.parametrize("strength", [0.25, 1.0])
    def test_organ_kinds_touch_nothing_outside(
        self, kind: Kind, strength: float, film: tuple[Pixels, NDArray[np.bool_]]
    ) -> None:
        pixels, mask = film
        thin = np.zeros_like(mask)
        thin[60, 30:50] = True
        for organ in (mask, thin):
            for seed in range(5):
                made = at(kind, pixels, strength, seed, mask=organ)
                np.testing.assert_array_equal(made[~organ], pixels[~organ])
                assert np.abs(made[organ] - pixels[organ]).max() > 0.02 * strength

    def test_global_kinds_reach_the_whole_film_and_markers_a_corner(
        self, film: tuple[Pixels, NDArray[np.bool_]]
    ) -> None:
        pixels, _ = film
        for kind in GLOBAL:
            assert (at(kind, pixels, 1.0) != pixels).mean() > 0.9, kind
        for seed in range(20):
            made = at("corner-marker", pixels, 1.0, seed)
            rows, columns = np.nonzero(made != pixels)
            assert rows.max() < 40
            assert columns.max() < 40 or columns.min() > 87
            assert (made >= pixels).all()

    def test_a_stronger_marker_is_the_same_marker_larger(self) -> None:
        for seed in range(10):
            weak, strong = (np.argwhere(at("corner-marker", flat(), s, seed) != flat()) for s in (0.1, 1.0))
            assert len(weak) < len(strong)
            assert np.abs(weak.min(axis=0) - strong.min(axis=0)).max() <= 8 or weak[:, 1].min() > 64

    def test_exposure_is_a_gamma_from_1_7_to_2_3(self) -> None:
        gammas = [np.log(at("exposure", flat(), 1.0, seed)[0, 0]) / np.log(0.25) for seed in range(50)]
        assert 2**0.8 <= min(gammas) < 1.85
        assert 2.15 < max(gammas) <= 2**1.2
        ends = np.tile(np.array([0, 1], np.float32), (16, 8))
        np.testing.assert_array_equal(at("exposure", ends, 1.0), ends)

    def test_noise_follows_the_square_root_of_the_grey_value(self) -> None:
        for value in (0.04, 0.25, 0.64):
            sd = at("noise", flat(value), 0.5).std()
            assert sd == pytest.approx(0.5 * 0.06 * np.sqrt(value), rel=0.03)
        assert not at("noise", flat(0.0), 1.0).any()

    def test_sharpness_spreads_a_point_by_its_sigma(self) -> None:
        point = flat(0.0, 385)
        point[192, 192] = 1
        for strength in (0.5, 1.0):
            seen = at("sharpness", point, strength).sum(axis=0, dtype=np.float64)
            variance = (seen * (np.arange(385) - 192) ** 2).sum() / seen.sum()
            assert variance == pytest.approx((strength * 385 / 128) ** 2, rel=0.06)  # cut at 3 sigma

    def test_border_is_4_to_12_percent_at_full_strength(self) -> None:
        widths = []
        for seed in range(40):
            line = at("border", flat(0.8, 200), 1.0, seed)[100]
            shut = np.flatnonzero(line > 0.4)
            widths += [shut[0], 199 - shut[-1]]
        assert 0.04 * 200 - 1 <= min(widths) < 12
        assert 20 < max(widths) <= 0.12 * 200 + 1

    def test_jpeg_is_that_of_pillow_and_quality_falls(self) -> None:
        assert [jpeg_quality(s) for s in (0.0, 0.25, 0.5, 0.75, 1.0)] == [95, 54, 31, 18, 10]
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
        assert len(np.unique(at("jpeg", ramp, 1.0))) < len(np.unique(at("jpeg", ramp, 0.1)))
        np.testing.assert_allclose(at("jpeg", flat(0.2), 1.0) * 255, 51, atol=8)

    def test_resolution_shrinks_to_a_quarter_but_never_below_16_pixels(self) -> None:
        ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (128, 1))
        assert shrunk(ramp, 1.0).shape == (32, 64)
        assert shrunk(ramp, 0.5).shape == (64, 128)
        assert shrunk(ramp[:, :64], 1.0).shape == (32, 16)
        assert shrunk(ramp[:40, :40], 1.0).shape == (16, 16)
        assert shrunk(ramp[:9, :9], 1.0).shape == (9, 9)
        np.testing.assert_allclose(shrunk(ramp, 1.0).mean(), ramp.mean(), atol=1e-6)
        assert at("resolution", ramp, 1.0).shape == ramp.shape
        assert at("resolution", ramp, 1.0, keep_size=False).shape == (32, 64)

    def test_blob_takes_the_grey_value_a_share_of_the_way_to_white(self) -> None:
        organ = np.zeros((128, 128), np.bool_)
        organ[20:100, 20:100] = True
        for strength in (0.25, 1.0):
            made = at("organ-blob", flat(0.2), strength, mask=organ)
            assert made.max() == pytest.approx(0.2 + 0.6 * strength * 0.8, abs=1e-5)
            assert made.min() == np.float32(0.2)

    def test_texture_keeps_the_mean_and_adds_lines(self) -> None:
        organ = np.zeros((128, 128), np.bool_)
        organ[20:100, 20:100] = True
        made = at("organ-texture", flat(0.4), 1.0, mask=organ)
        assert made[organ].mean() == pytest.approx(0.4, abs=1e-3)
        assert made[organ].std() > 0.02

    @pytest.mark.parametrize(
        ("kind", "pixels", "strength", "mask", "message"),
        [
            (
                "noise",
                np.zeros((20, 20)),
                0.5,
                None,
                r"pixels float32 \(rows, columns\), got float64 of 2 axes",
            ),
            ("noise", np.zeros((20, 20, 3), np.float32), 0.5, None, "got float32 of 3 axes"),
            ("noise", flat(), 1.1, None, "expected a strength from 0 to 1, got 1.1"),
            ("organ-blob", flat(), 0.5, None, r"expected a mask of \(128, 128\) pixels, got none"),
            ("organ-blob", flat(), 0.5, np.ones((9, 9), np.bool_), r"got one of \(9, 9\)"),
            ("organ-texture", flat(), 0.5, np.zeros((128, 128), np.bool_), "expected a mask with the organ in it"),
        ],
    )
    def test_refusals(self, kind: Kind, pixels: Any, strength: float, mask: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            at(kind, pixels, strength, mask=mask)
