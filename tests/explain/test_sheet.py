"""Comparison sheets: a tile for each method, also where there is no map, and words that fit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.explain.base import Explanation
from wetread.explain.overlay import overlay
from wetread.explain.sheet import (
    COLUMNS,
    PICTURE_PX,
    Tile,
    _font,
    _shortened,
    _wrapped,
    film_tile,
    map_tile,
    notes_of,
    refused_tile,
    sheet_png,
)
from wetread.models.card import InputSpec

SPEC = InputSpec(height=64, width=64, fit="stretch")
FILM = np.full((200, 100), 0.5, dtype=np.float32)
GAP, HEADING, TITLE = 16, 34, 26


def opened(png: bytes) -> NDArray[np.uint8]:
    picture = PilImage.open(io.BytesIO(png))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return np.asarray(picture)


def explanation(raw: NDArray[Any], **changes: object) -> Explanation:
    fields: dict[str, object] = {
        "map": raw.astype(np.float32),
        "method": "occlusion",
        "label": "finding",
        "layer": "input",
        "size": FILM.shape,
        "input": SPEC,
        "scale": float(raw.max()),
    }
    return Explanation(**{**fields, **changes})  # type: ignore[arg-type]


def corner(side: int = 4) -> NDArray[np.float64]:
    raw = np.zeros((side, side))
    raw[: side // 4, : side // 4] = 2.0
    return raw


def panel(sheet: NDArray[np.uint8], index: int, top: int = GAP + HEADING + TITLE) -> NDArray[np.uint8]:
    """The square of one picture in the first row."""
    left = GAP + index * (PICTURE_PX + GAP)
    return sheet[top : top + PICTURE_PX, left : left + PICTURE_PX]


def test_a_sheet_has_a_square_for_each_tile_in_rows_of_four() -> None:
    for count, across, down in ((1, 1, 1), (3, 3, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3)):
        sheet = opened(sheet_png("image", (), [film_tile("film", FILM)] * count, scale=False))
        assert across <= COLUMNS
        assert sheet.shape[1] == across * (PICTURE_PX + GAP) + GAP
        rows = TITLE + PICTURE_PX + 2 * GAP
        assert sheet.shape[0] == GAP + HEADING + down * rows + 2 * GAP
        films = (sheet == 128).all(2).sum()
        assert films == count * PICTURE_PX * PICTURE_PX // 2  # each film is half as wide as high


def test_the_map_lies_on_the_film_at_the_same_place_and_size() -> None:
    tiles = [film_tile("film", FILM), map_tile(FILM, explanation(corner()), 1234)]
    sheet = opened(sheet_png("image", (), tiles))
    film, heat = panel(sheet, 0), panel(sheet, 1)
    differs = (film != heat).any(2)
    rows, columns = np.nonzero(differs)
    assert rows.max() < PICTURE_PX // 2  # heat of the upper left quarter of a film of 160 x 320
    assert columns.max() < PICTURE_PX // 2
    np.testing.assert_array_equal(film[-1], heat[-1])


def test_words_under_a_map_give_time_passes_scale_error_and_baseline() -> None:
    raw = explanation(corner(), passes=230, baseline="black", error=0.25)
    assert map_tile(FILM, raw, 1234.0).lines == (
        "1.2 s · 230 passes",
        "maximum 2 · error 0.25",
        "4 x 4 cells, input",
        "against black",
    )
    cam = explanation(corner(), method="gradcam", layer="layer4")
    assert map_tile(FILM, cam, 8.4).lines[:2] == ("8 ms · the reader's own pass", "maximum 2 · no promise to add up")
    noisy = explanation(corner(), passes=804, details={"monte_carlo_error": 0.0123})
    assert map_tile(FILM, noisy, 90.0).lines[1] == "maximum 2 · standard error 0.012"


def test_single_pixels_are_drawn_blurred_and_the_tile_says_so_but_smooth_maps_are_not() -> None:
    rng = np.random.default_rng(0)
    rough = explanation(rng.normal(size=(160, 160)), size=(320, 320))
    film = np.full((320, 320), 0.5, dtype=np.float32)
    drawn = map_tile(film, rough, 1.0)
    assert drawn.lines[-1] == "drawn blurred, up to its 99.5th percentile"
    grey = np.full((320, 320), 128, dtype=np.uint8)
    assert drawn.picture is not None
    assert not np.array_equal(drawn.picture, overlay(grey, rough.heat_at(PICTURE_PX)))
    blocks = explanation(np.kron(rng.normal(size=(8, 8)), np.ones((20, 20))), size=(320, 320))
    plain = map_tile(film, blocks, 1.0)
    assert not any("blurred" in line for line in plain.lines)
    assert plain.picture is not None
    np.testing.assert_array_equal(plain.picture, overlay(grey, blocks.heat_at(PICTURE_PX)))


def test_a_map_that_could_not_be_made_has_a_tile_with_the_reason() -> None:
    reason = "expected a network with gradients, got formula, which gives scores alone; use --method occlusion"
    tile = refused_tile("smoothgrad", reason)
    assert (tile.picture, tile.refused, tile.lines) == (None, True, (reason,))
    sheet = opened(sheet_png("image", (), [film_tile("film", FILM), tile]))
    empty = opened(sheet_png("image", (), [film_tile("film", FILM), refused_tile("smoothgrad", "")]))
    written = (panel(sheet, 1) != panel(empty, 1)).any(2)
    lines = np.flatnonzero(written.any(1))
    assert written.sum() > 500
    assert lines.max() - lines.min() > 2 * 19  # over several lines
    assert np.flatnonzero(written.any(0)).max() < PICTURE_PX - GAP  # and none leaves the square


def test_limits_are_said_once_after_the_methods_that_they_hold_for() -> None:
    tiles = [
        film_tile("film", FILM),
        map_tile(FILM, explanation(corner(), limits=("All.", "Some.", "First.", "Last.")), 1.0),
        map_tile(FILM, explanation(corner(), method="rise", limits=("All.", "Some.")), 1.0),
        map_tile(FILM, explanation(corner(), method="lime", limits=("All.",)), 1.0),
        refused_tile("cam", "no"),
    ]
    assert notes_of(tiles) == ["All.", "occlusion, rise: Some.", "occlusion: First. Last."]
    assert notes_of([film_tile("film", FILM)]) == []


def test_notes_make_the_sheet_longer_and_are_written_there() -> None:
    tiles = [film_tile("film", FILM)]
    plain = opened(sheet_png("image", (), tiles))
    noted = opened(sheet_png("image", ("A sentence.", "Another."), tiles))
    assert noted.shape[0] == plain.shape[0] + 2 * 19
    assert (noted[plain.shape[0] - GAP :] > 100).any()


def test_lines_are_broken_at_spaces_and_cut_with_dots() -> None:
    lines = _wrapped("one two three four five six seven eight nine ten", 120, 14, most=2)
    assert len(lines) == 2
    assert lines[0].startswith("one two")
    assert lines[1].endswith("...")
    for line in (*lines, _shortened("a" * 500, 300, 14)):
        assert _font(14).getlength(line) <= 300
    assert _shortened("short", 300, 14) == "short"
    assert _wrapped("", 100, 14, most=3) == []


def test_labels_in_other_alphabets_are_drawn_as_letters_and_not_as_boxes() -> None:
    def drawn(title: str) -> NDArray[np.uint8]:
        return opened(sheet_png(title, (), [Tile("x")]))[:50]

    assert not np.array_equal(drawn("Ж"), drawn("Ω"))  # a missing letter is the same box for both
    assert not np.array_equal(drawn("ü"), drawn("é"))


def test_a_small_film_fills_its_square() -> None:
    small = np.full((20, 10), 0.5, dtype=np.float32)
    sheet = opened(sheet_png("image", (), [film_tile("film", small)], scale=False))
    assert (sheet == 128).all(2).sum() == PICTURE_PX * PICTURE_PX // 2
