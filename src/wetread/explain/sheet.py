"""Comparison sheets: a film beside its maps, or beside similar cases, as one PNG with words under each picture.

Decided here: a map that could not be made has a tile with the reason, so that no method is missing without a word; maps
of single pixels are drawn with a little blur and a scale that ends at their 99.5th percentile, or nothing but the
strongest pixel would be seen. The tile says so, and the raw map on disk is not touched.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from wetread.explain.base import Explanation, fitted_size
from wetread.explain.overlay import colour_scale, overlay

__all__ = ["COLUMNS", "PICTURE_PX", "Tile", "film_tile", "map_tile", "notes_of", "refused_tile", "sheet_png"]

PICTURE_PX = 320
"""Side of the square that holds one picture: the input of most readers is smaller."""

COLUMNS = 4
"""Tiles in one row at most: four are read without scrolling on a screen of 1400 pixels."""

_GAP, _LINE, _TITLE, _HEADING = 16, 19, 26, 34
_LINES = 6
"""Lines of text under a picture; what is longer ends in three dots."""

_TEXT_PX, _TITLE_PX, _HEADING_PX = 14, 17, 22
_PAPER, _PANEL, _INK, _FAINT, _REFUSED = (18, 18, 20), (34, 34, 38), (240, 240, 240), (170, 170, 178), (240, 180, 90)

_FINE_SHARE = 0.25
"""A map with more cells along a side than this share of the picture shows single pixels."""

_BLUR_PX = 1.5
_TOP_PERCENTILE = 99.5

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet: uint8 (H, W, 3) or None, a title, and what stands below; ``refused`` draws a warning.

    ``limits``: sentences to show with it, for the foot of the sheet.
    """

    title: str
    picture: Pixels | None = None
    lines: tuple[str, ...] = ()
    refused: bool = False
    limits: tuple[str, ...] = ()


def film_tile(title: str, pixels: NDArray[np.float32], lines: Sequence[str] = ()) -> Tile:
    """A tile of a film, float32 (H, W) in [0, 1]."""
    return Tile(title, np.repeat(_film(pixels)[..., None], 3, axis=2), tuple(lines))


def map_tile(pixels: NDArray[np.float32], explanation: Explanation, milliseconds: float) -> Tile:
    """A tile of a map over its film, float32 (H, W) in [0, 1], with its cost and its error in words."""
    heat = explanation.heat_at(PICTURE_PX)
    fine = max(explanation.map.shape) > _FINE_SHARE * PICTURE_PX and _is_rough(explanation)
    picture = overlay(_film(pixels), _softened(heat) if fine else heat)
    words = _words(explanation, milliseconds, fine)
    return Tile(explanation.method, picture, words, limits=explanation.limits)


def refused_tile(title: str, reason: str) -> Tile:
    """A tile for a map that could not be made."""
    return Tile(title, None, (reason,), refused=True)


def sheet_png(heading: str, notes: Sequence[str], tiles: Sequence[Tile], *, scale: bool = True) -> bytes:
    """Return tiles in a grid of at most :data:`COLUMNS`, below a heading and above notes; RGB PNG.

    ``scale``: draw the colour scale of heat above the notes.

    All tiles have the same size, so that methods are compared and not their frames.
    """
    across = max(1, min(COLUMNS, len(tiles)))
    rows = [tiles[i : i + across] for i in range(0, len(tiles), across)]
    heights = [_TITLE + PICTURE_PX + _GAP + _LINE * max(len(_below(tile)) for tile in row) + _GAP for row in rows]
    width = across * (PICTURE_PX + _GAP) + _GAP
    below = [line for note in notes for line in _wrapped(note, width - 2 * _GAP, _TEXT_PX, most=3)]
    total = _GAP + _HEADING + sum(heights) + (len(below) + scale) * _LINE + 2 * _GAP
    sheet = PilImage.new("RGB", (width, total), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (_GAP, _GAP), _shortened(heading, width - 2 * _GAP, _HEADING_PX), _INK, _HEADING_PX)
    top = _GAP + _HEADING
    for row, height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            _draw_tile(sheet, tile, (_GAP + i * (PICTURE_PX + _GAP), top))
        top += height
    if scale:
        _draw_scale(sheet, (_GAP, top))
    for i, line in enumerate(below, int(scale)):
        _text(draw, (_GAP, top + i * _LINE + 6), line, _FAINT, _TEXT_PX)
    target = io.BytesIO()
    sheet.save(target, "PNG", compress_level=6)
    return target.getvalue()


def notes_of(tiles: Sequence[Tile]) -> list[str]:
    """The limits of the tiles, each sentence once, after the titles that it holds for; those of all maps have none."""
    drawn = [tile for tile in tiles if tile.limits]
    titles_of: dict[str, list[str]] = {}
    for tile in drawn:
        for limit in tile.limits:
            titles_of.setdefault(limit, []).append(tile.title)
    said: dict[tuple[str, ...], list[str]] = {}
    for limit, titles in titles_of.items():
        said.setdefault(tuple(titles), []).append(limit)
    return [
        " ".join(limits) if len(titles) == len(drawn) else f"{', '.join(titles)}: {' '.join(limits)}"
        for titles, limits in said.items()
    ]


def _film(pixels: NDArray[np.float32]) -> Pixels:
    """Bring float32 (H, W) to uint8 with the longer side at most :data:`PICTURE_PX`, as heat is."""
    rows, columns = fitted_size((pixels.shape[0], pixels.shape[1]), PICTURE_PX)
    film = PilImage.fromarray((np.clip(pixels, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    return np.asarray(film.resize((columns, rows), PilImage.Resampling.BOX if film.width > 2 * columns else None))


def _is_rough(explanation: Explanation) -> bool:
    """Whether neighbouring cells have little to do with each other: the steps are as large as the values."""
    values = explanation.map.astype(np.float64)
    steps = np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()
    return bool(steps > 0.5 * np.abs(values - values.mean()).mean())


def _softened(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(heat, _BLUR_PX)
    top = float(np.percentile(soft, _TOP_PERCENTILE)) or float(soft.max())
    return np.asarray(np.clip(soft / top, 0, 1), dtype=np.float32)


def _words(explanation: Explanation, milliseconds: float, fine: bool) -> tuple[str, ...]:
    """What stands below a map: cost, size, error, baseline, and how it was drawn."""
    passes = f"{explanation.passes} passes" if explanation.passes > 1 else "the reader's own pass"
    error = "no promise to add up" if explanation.error is None else f"error {explanation.error:.2g}"
    noise = explanation.details.get("monte_carlo_error")
    if noise is not None:
        error = f"standard error {noise:.2g}"
    rows, columns = explanation.map.shape
    lines = [
        f"{_time(milliseconds)} · {passes}",
        f"maximum {explanation.scale:.2g} · {error}",
        f"{rows} x {columns} cells, {explanation.layer}",
    ]
    if explanation.baseline:
        lines.append(f"against {explanation.baseline}")
    if fine:
        lines.append(f"drawn blurred, up to its {_TOP_PERCENTILE:g}th percentile")
    return tuple(lines)


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


def _below(tile: Tile) -> list[str]:
    """The lines under a picture, broken to its width; none where the reason takes the picture's place."""
    if tile.picture is None:
        return []
    return [part for line in tile.lines for part in _wrapped(line, PICTURE_PX, _TEXT_PX, _LINES)][:_LINES]


def _draw_tile(sheet: PilImage.Image, tile: Tile, at: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    left, top = at
    _text(draw, at, _shortened(tile.title, PICTURE_PX, _TITLE_PX), _REFUSED if tile.refused else _INK, _TITLE_PX)
    top += _TITLE
    draw.rectangle([left, top, left + PICTURE_PX - 1, top + PICTURE_PX - 1], fill=_PANEL)
    if tile.picture is None:
        _draw_reason(draw, tile, (left + _GAP, top + _GAP))
        return
    picture = PilImage.fromarray(tile.picture)
    grow = PICTURE_PX / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * grow)), max(1, round(picture.height * grow))))
    sheet.paste(picture, (left + (PICTURE_PX - picture.width) // 2, top + (PICTURE_PX - picture.height) // 2))
    for i, line in enumerate(_below(tile)):
        _text(draw, (left, top + PICTURE_PX + 4 + i * _LINE), line, _FAINT, _TEXT_PX)


def _draw_reason(draw: ImageDraw.ImageDraw, tile: Tile, at: tuple[int, int]) -> None:
    """Why there is no picture, in its place."""
    _text(draw, at, "no map", _REFUSED, _TITLE_PX)
    width, most = PICTURE_PX - 2 * _GAP, (PICTURE_PX - 2 * _GAP - _TITLE) // _LINE
    lines = [part for line in tile.lines for part in _wrapped(line, width, _TEXT_PX, most)][:most]
    for i, line in enumerate(lines):
        _text(draw, (at[0], at[1] + _TITLE + i * _LINE), line, _INK, _TEXT_PX)


def _draw_scale(sheet: PilImage.Image, at: tuple[int, int]) -> None:
    """The colour scale over a mid grey, and what it means."""
    draw = ImageDraw.Draw(sheet)
    scale = colour_scale().astype(np.float32)
    share = scale[:, 3:] / 255
    band = (scale[:, :3] * share + 128 * (1 - share)).astype(np.uint8)
    strip = PilImage.fromarray(np.repeat(band[None], _TEXT_PX, axis=0)).resize((PICTURE_PX, _TEXT_PX))
    sheet.paste(strip, (at[0], at[1] + 3))
    says = "evidence for the label: none to the maximum of each map"
    _text(draw, (at[0] + PICTURE_PX + _GAP, at[1]), says, _FAINT, _TEXT_PX)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: Colour, size: int) -> None:
    draw.text(at, text, fill=colour, font=_font(size))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans where matplotlib's files are (labels may be in any alphabet), else the font inside Pillow."""
    spec = importlib.util.find_spec("matplotlib")  # finds the folder, imports nothing
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> float:
    return float(_font(size).getlength(text))


def _shortened(text: str, width: int, size: int) -> str:
    """Cut a line so that it fits, with three dots."""
    if _width(text, size) <= width:
        return text
    kept = text
    while kept and _width(kept + "...", size) > width:
        kept = kept[:-1]
    return kept + "..."


def _wrapped(text: str, width: int, size: int, most: int) -> list[str]:
    """Break a sentence at spaces into at most ``most`` lines that fit; the last one is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    kept, rest = lines[: most - 1], lines[most - 1 :]
    return [_shortened(line, width, size) for line in (*kept, " ".join(rest)) if line]
