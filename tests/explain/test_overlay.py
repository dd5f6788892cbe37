"""The colour scale against matplotlib's, blending against floating point, and the PNGs that come out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PilImage

from wetread.explain.base import Explanation, RawMap, Target, made
from wetread.explain.overlay import colour_scale, heat_png, heat_rgba, overlay, overlay_png
from wetread.models.card import InputSpec
from wetread.types import Box


def explanation(rows: int, columns: int) -> Explanation:
    raw = np.full((8, 8), -1.0, dtype=np.float32)
    raw[1:3, 5:7] = 2.0
    return made(
        RawMap(raw, layer="layer4"), Target("nodule"), (rows, columns), InputSpec(height=64, width=64, fit="stretch")
    )


def opened(png: bytes) -> PilImage.Image:
    picture = PilImage.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    return picture


def test_the_scale_is_inferno_and_rises_in_lightness_and_opacity() -> None:
    import matplotlib

    scale = colour_scale()
    inferno = matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(scale[:, :3] - inferno).max() < 6  # straight lines between 18 points, in 255ths
    linear = (scale[:, :3] / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= 0).all()
    opacity = scale[:, 3].astype(int)
    assert (np.diff(opacity) >= 0).all()
    assert opacity[0] == 0
    assert 150 < opacity[-1] < 200  # the film is still seen


def test_no_heat_leaves_the_film_as_it_is() -> None:
    film = np.arange(256, dtype=np.uint8).reshape(16, 16)
    over = overlay(film, np.zeros((16, 16), dtype=np.float32))
    np.testing.assert_array_equal(over, np.repeat(film[..., None], 3, axis=2))


def test_blending_is_that_of_floating_point() -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    heat = rng.uniform(size=(40, 50)).astype(np.float32)
    rgba = heat_rgba(heat).astype(np.float64)
    opacity = rgba[..., 3:] / 255
    wanted = rgba[..., :3] * opacity + film[..., None] * (1 - opacity)
    assert np.abs(overlay(film, heat) - wanted).max() <= 1
    assert overlay(np.full((1, 1), 255, np.uint8), np.ones((1, 1), np.float32)).dtype == np.uint8


def test_heat_outside_its_range_is_clipped_and_not_wrapped() -> None:
    heat = np.array([[-1.0, 2.0]], dtype=np.float32)
    np.testing.assert_array_equal(heat_rgba(heat)[0], colour_scale()[[0, 255]])


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(300, 200, (200, 300)), (3000, 2000, (683, 1024)), (7, 5, (5, 7))]
)
def test_pictures_have_the_films_frame_but_at_most_1024_pixels(rows: int, columns: int, size: tuple[int, int]) -> None:
    film = np.random.default_rng(0).uniform(size=(rows, columns)).astype(np.float32)
    picture = opened(overlay_png(film, explanation(rows, columns)))
    assert (picture.mode, picture.size) == ("RGB", size)
    alone = opened(heat_png(explanation(rows, columns)))
    assert (alone.mode, alone.size) == ("RGBA", size)


def test_the_heat_lies_where_the_evidence_is() -> None:
    alone = np.asarray(opened(heat_png(explanation(160, 160))))
    assert alone[40, 120, 3] > 150  # rows 1/8 to 3/8, columns 5/8 to 7/8
    assert alone[120, 40, 3] == 0
    over = np.asarray(opened(overlay_png(np.full((160, 160), 0.5, np.float32), explanation(160, 160))))
    assert over[40, 120, 0] > 180
    np.testing.assert_array_equal(over[120, 40], [128, 128, 128])


def test_boxes_are_drawn_where_they_are_in_the_original() -> None:
    film = np.zeros((2048, 1024), dtype=np.float32)
    box = Box(x=100, y=1200, width=200, height=400)
    plain = np.asarray(opened(overlay_png(film, explanation(2048, 1024))))
    drawn = np.asarray(opened(overlay_png(film, explanation(2048, 1024), [box])))
    rows, columns = np.nonzero((plain != drawn).any(2))
    assert (rows.min(), rows.max()) == (600, 799)
    assert (columns.min(), columns.max()) == (50, 149)
    np.testing.assert_array_equal(drawn[700, 50], [86, 180, 233])
    np.testing.assert_array_equal(drawn[700, 100], plain[700, 100])  # only the outline


def test_a_failed_audit_is_written_below_the_picture() -> None:
    found = explanation(64, 128)
    film = np.full((64, 128), 0.5, dtype=np.float32)
    plain = np.asarray(PilImage.open(io.BytesIO(overlay_png(film, found))))
    marked = np.asarray(PilImage.open(io.BytesIO(overlay_png(film, found, watermark="DO NOT TRUST"))))
    assert np.array_equal(marked[: len(plain)], plain)
    band = marked[len(plain) :]
    assert len(band) >= 16
    assert (band == (140, 16, 36)).all(2).mean() > 0.5
    assert (band > 200).all(2).any()  # the letters
