"""The edits themselves: each turns one film into one that carries a shortcut, or a signal in an organ.

Every edit is a pure function ``(pixels, strength, rng[, mask]) -> pixels``: float32 (rows, columns) in [0, 1],
bright is dense, never changed in place. Strength 0 gives the same pixels. All random numbers are drawn
whatever the strength is, so that a stronger edit of the same image is the same edit, only stronger. Lengths are shares
of the shorter side, so that a film looks alike at 128 and at 2000 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from wetread.datasets.plant_spec import ORGAN_KINDS, Kind
from wetread.errors import UsageError, expected
from wetread.imaging.budget import MIN_SIDE_PX

__all__ = [
    "WORDS",
    "border",
    "corner_marker",
    "edited",
    "exposure",
    "jpeg",
    "jpeg_quality",
    "noise",
    "organ_blob",
    "organ_texture",
    "resolution",
    "sharpness",
    "shrunk",
    "text",
]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Edit = Callable[[Pixels, float, Rng], Pixels]
OrganEdit = Callable[[Pixels, float, Rng, Mask], Pixels]

LEAD = 0.97
"""Grey value of lead and of burned-in letters: lighter than any tissue."""
SMALLEST_LETTER_PX = 6
"""Below it a letter is a smear."""
WORDS = (
    ("PORTABLE", "MOBILE", "BEDSIDE"),
    ("ERECT", "SEMI ERECT", "SUPINE", "SITTING"),
    ("CHEST AP", "CHEST PA", "CHEST"),
    ("INSP", "EXP", "GRID"),
    ("ROOM 1", "ROOM 2", "ROOM 3"),
    ("180 CM", "120 CM", "110 KV", "80 KV"),
)
"""Words that technicians burn into films, those that exclude each other together; none says who was imaged."""


def edited(
    kind: Kind, pixels: Pixels, strength: float, rng: Rng, *, mask: Mask | None = None, keep_size: bool = True
) -> Pixels:
    """Apply the edit of a kind.

    Args:
        kind: A key of ``KINDS``.
        pixels: float32 (rows, columns) in [0, 1].
        strength: 0 (the same pixels) to 1.
        rng: Decides place, words and noise.
        mask: bool (rows, columns), True inside the organ; only the organ kinds need it.
        keep_size: False: ``resolution`` gives the smaller image as it is.

    Raises:
        UsageError: Pixels of another kind, a strength out of range, no mask, an empty one, or one of another size.
    """
    if pixels.dtype != np.float32 or pixels.ndim != 2:
        got = f"{pixels.dtype} of {pixels.ndim} axes"
        raise UsageError(expected("pixels float32 (rows, columns)", got, "read them with load_image"))
    if not 0.0 <= strength <= 1.0:
        raise UsageError(expected("a strength from 0 to 1", strength, "choose a value in that range"))
    if kind in ORGAN_KINDS:
        return _ORGAN_EDITS[kind](pixels, strength, rng, _usable(mask, pixels))
    if kind == "resolution" and not keep_size:
        return shrunk(pixels, strength)
    return _EDITS[kind](pixels, strength, rng)


def corner_marker(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Lay a lead marker into an upper corner: R at the left, L at the right, letter, framed letter or disc.

    Height of the letter 3 % (strength 0) to 9 % (1) of the shorter side, opacity the square root of the strength;
    askew by up to 8 degrees, 2-8 % from both edges.
    """
    right_of_patient = rng.random() < 0.5
    style = ("plain", "plain", "framed", "disc")[int(rng.integers(4))]
    angle, x, y = rng.uniform(-8, 8), rng.uniform(0.02, 0.08), rng.uniform(0.02, 0.08)
    film = pixels.copy()
    if strength == 0:
        return film
    side = min(film.shape)
    height = max(SMALLEST_LETTER_PX, round((0.03 + 0.06 * strength) * side))
    shape = _marker("R" if right_of_patient else "L", height, style).rotate(angle, PilImage.Resampling.BICUBIC)
    opacity = np.asarray(shape, np.float32) / np.float32(255)
    column = round(x * side) if right_of_patient else film.shape[1] - round(x * side) - opacity.shape[1]
    opacity *= np.float32(np.sqrt(strength))
    _stamp(film, opacity, round(y * side), column)
    return film


def text(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Burn a line of two or three of :data:`WORDS` in at the upper or lower edge, light with a dark rim.

    Height of a line 2.5 % (strength 0) to 5.5 % (1) of the shorter side, opacity the square root of the strength.
    """
    groups = rng.permutation(len(WORDS))[: rng.integers(2, 4)]
    line = "  ".join(WORDS[group][rng.integers(len(WORDS[group]))] for group in sorted(groups))
    at_top, x, y = rng.random() < 0.5, rng.random(), rng.uniform(0.01, 0.05)
    film = pixels.copy()
    if strength == 0:
        return film
    rows, columns = film.shape
    height = max(SMALLEST_LETTER_PX, round((0.025 + 0.03 * strength) * min(rows, columns)))
    ink, rim = (_line(line, height, round(0.96 * columns), rim_px) for rim_px in (0, max(1, height // 12)))
    row = round(y * rows) if at_top else rows - round(y * rows) - ink.shape[0]
    column = round((0.02 + 0.96 * x) * columns - x * ink.shape[1])
    opacity = np.float32(np.sqrt(strength))
    _stamp(film, rim * (opacity * np.float32(0.6)), row, column, shade=0.0)
    _stamp(film, ink * opacity, row, column)
    return film


def border(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Blacken what a collimator hides: left and right always, top and bottom each on half of the films.

    Mean width 8 % of that side of the film times strength; each edge 0.5 to 1.5 times that, with a soft rim.
    """
    shares = 0.08 * strength * rng.uniform(0.5, 1.5, 4)
    shares[:2] *= rng.random(2) < 0.5
    shade = np.float32(rng.uniform(0.0, 0.03))
    film = pixels.copy()
    if strength == 0:
        return film
    rows, columns = film.shape
    open_rows = _open(rows, shares[0] * rows, shares[1] * rows)
    open_columns = _open(columns, shares[2] * columns, shares[3] * columns)
    film -= shade
    film *= open_rows[:, None]
    film *= open_columns
    film += shade
    return film


def exposure(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Darken the whole film: gamma 2 to the power of 0.8-1.2 times the strength (at 1: 1.7 to 2.3)."""
    gamma = np.float32(2.0 ** (strength * rng.uniform(0.8, 1.2)))
    return pixels.copy() if strength == 0 else np.asarray(np.power(pixels, gamma), np.float32)


def sharpness(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Blur the whole film: a Gaussian with sigma 1/128 of the shorter side times the strength."""
    if strength == 0:
        return pixels.copy()
    from scipy import ndimage

    sigma = strength * min(pixels.shape) / 128
    blurred: Pixels = ndimage.gaussian_filter(pixels, sigma, mode="nearest", truncate=3.0)
    return np.clip(blurred, 0, 1, out=blurred)


def noise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Add grain of a low dose: standard deviation 0.06 times strength times the square root of the grey value.

    Dense parts let fewer photons through and are grainier; what is black stays black.
    """
    if strength == 0:
        return pixels.copy()
    grain = rng.standard_normal(pixels.shape, dtype=np.float32)
    grain *= np.sqrt(pixels)
    grain *= np.float32(0.06 * strength)
    grain += pixels
    return np.clip(grain, 0, 1, out=grain)


def jpeg_quality(strength: float) -> int:
    """Quality factor of libjpeg: 95 at strength 0, 54, 31 and 18 at its quarters, 10 at 1."""
    return round(95 * math.pow(10 / 95, strength))


def jpeg(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Compress the whole film with :func:`jpeg_quality`, as 8-bit grey, and decode it again."""
    if strength == 0:
        return pixels.copy()
    stored = BytesIO()
    gray = np.rint(pixels * np.float32(255)).astype(np.uint8)
    PilImage.fromarray(gray).save(stored, "JPEG", quality=jpeg_quality(strength))
    with PilImage.open(stored) as picture:
        decoded: Pixels = np.asarray(picture, np.float32) / np.float32(255)
    return decoded


def shrunk(pixels: Pixels, strength: float) -> Pixels:
    """Scale the film down to 1 / 4**strength of its rows and columns, each to no fewer than 16 pixels."""
    rows, columns = (max(min(MIN_SIDE_PX, n), round(n / 4.0**strength)) for n in pixels.shape)
    if (rows, columns) == pixels.shape:
        return pixels.copy()
    small: Pixels = np.array(PilImage.fromarray(pixels).resize((columns, rows), PilImage.Resampling.HAMMING))
    return np.clip(small, 0, 1, out=small)


def resolution(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Scale the film down as :func:`shrunk` does and back to its size: details are lost, the shape stays."""
    small = shrunk(pixels, strength)
    if small.shape == pixels.shape:
        return small
    size = (pixels.shape[1], pixels.shape[0])
    large: Pixels = np.array(PilImage.fromarray(small).resize(size, PilImage.Resampling.BICUBIC))
    return np.clip(large, 0, 1, out=large)


def organ_blob(pixels: Pixels, strength: float, rng: Rng, mask: Mask) -> Pixels:
    """Put one soft, lobed density into the organ; pixels outside ``mask`` stay exactly as they are.

    Radius 10 % (strength 0) to 18 % (1) of the square root of the organ's area; at its densest it takes the grey
    value by 0.6 times the strength of the way to white. It fades towards the edge of the organ.
    """
    candidates = np.flatnonzero(mask)[rng.integers(np.count_nonzero(mask), size=12)]
    lobes = rng.uniform((-0.4, -0.4, 0.6), (0.4, 0.4, 0.9), (5, 3))
    film = pixels.copy()
    if strength == 0:
        return film
    area = float(np.count_nonzero(mask))
    radius = max(2.0, (0.10 + 0.08 * strength) * np.sqrt(area))
    row, column = _roomiest(mask, candidates, area)
    reach = int(np.ceil(1.3 * radius))
    window = _window(film.shape, row - reach, row + reach + 1, column - reach, column + reach + 1)
    y = (np.arange(window[0].start, window[0].stop, dtype=np.float32) - row) / np.float32(radius)
    x = (np.arange(window[1].start, window[1].stop, dtype=np.float32) - column) / np.float32(radius)
    clear = np.ones((len(y), len(x)), np.float32)
    for dy, dx, size in lobes.astype(np.float32):
        square = ((y - dy) ** 2)[:, None] + (x - dx) ** 2
        clear *= 1 - np.float32(0.55) * np.clip(1 - square / size**2, 0, None) ** 2
    weight = (1 - clear) * _fading(mask, window)
    weight *= np.float32(0.6 * strength) / max(np.float32(1e-6), weight.max())
    part = film[window]
    part += weight * (1 - part)
    return film


def organ_texture(pixels: Pixels, strength: float, rng: Rng, mask: Mask) -> Pixels:
    """Lay a net of fine lines over the organ; pixels outside ``mask`` stay exactly as they are.

    Lines are 0.12 times strength lighter than the meshes; the mean grey value stays (where nothing is clipped). Meshes
    are about 3 % of the shorter side wide. The lines are where smooth noise crosses zero.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = _window(mask.shape, rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    cell = max(3.0, min(pixels.shape) / 64)
    grid = (2, int(np.ceil(shape[0] / cell)) + 1, int(np.ceil(shape[1] / cell)) + 1)
    coarse = rng.standard_normal(grid, dtype=np.float32)
    film = pixels.copy()
    if strength == 0:
        return film
    net = np.maximum(*(_lines(layer, shape) for layer in coarse))
    inside = _fading(mask, window)
    net -= np.average(net, weights=inside)
    net *= inside
    part = film[window]
    part += np.float32(0.12 * strength) * net
    np.clip(part, 0, 1, out=part)
    return film


_EDITS: dict[Kind, Edit] = {
    "corner-marker": corner_marker,
    "border": border,
    "text": text,
    "exposure": exposure,
    "sharpness": sharpness,
    "noise": noise,
    "jpeg": jpeg,
    "resolution": resolution,
}
_ORGAN_EDITS: dict[Kind, OrganEdit] = {"organ-blob": organ_blob, "organ-texture": organ_texture}


def _usable(mask: Mask | None, pixels: Pixels) -> Mask:
    if mask is None or mask.shape != pixels.shape:
        got = "none" if mask is None else f"one of {mask.shape}"
        raise UsageError(expected(f"a mask of {pixels.shape} pixels", got, "hand in the mask of this image"))
    if not mask.any():
        raise UsageError(expected("a mask with the organ in it", "an empty one", "leave that image out"))
    return np.asarray(mask, np.bool_)


def _stamp(film: Pixels, opacity: Pixels, row: int, column: int, shade: float = LEAD) -> None:
    """Draw ``film`` in place towards ``shade`` by ``opacity``; what sticks out is moved in, then cut.

    What is lighter than lead already stays so.
    """
    row = max(0, min(row, film.shape[0] - opacity.shape[0]))
    column = max(0, min(column, film.shape[1] - opacity.shape[1]))
    part = film[row : row + opacity.shape[0], column : column + opacity.shape[1]]
    part += opacity[: part.shape[0], : part.shape[1]] * (np.float32(shade) - np.minimum(part, np.float32(LEAD)))


@lru_cache(maxsize=256)
def _marker(letter: str, height_px: int, style: str) -> PilImage.Image:
    """A marker as opacity (mode L), on a canvas wide enough to be turned a little."""
    font = _font(round(1.35 * height_px))  # capitals are about 0.73 of the size of the font
    left, top, right, bottom = font.getbbox(letter)
    pad = round(0.45 * height_px) + 1
    width, height = round(right - left) + 2 * pad, round(bottom - top) + 2 * pad
    picture = PilImage.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    if style == "disc":
        x, y, r = (width - 1) / 2, (height - 1) / 2, 0.32 * height_px
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return picture
    draw.text((pad - left, pad - top), letter, fill=255, font=font, stroke_width=height_px // 24)
    if style == "framed":
        rim = max(1, height_px // 12)
        draw.rectangle((rim, rim, width - 1 - rim, height - 1 - rim), outline=235, width=rim)
    return picture


def _line(words: str, height_px: int, widest_px: int, rim_px: int) -> Pixels:
    """A line of text as opacity in [0, 1], smaller where it would be wider than ``widest_px``.

    ``rim_px``: how much thicker the letters are; the size of the picture does not depend on it.
    """
    font = _font(height_px)
    left, top, right, bottom = font.getbbox(words)
    if right - left + 4 > widest_px:
        font = _font(int(height_px * (widest_px - 4) / (right - left)))
        left, top, right, bottom = font.getbbox(words)
    pad = 2 + height_px // 12
    picture = PilImage.new("L", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), 0)
    draw = ImageDraw.Draw(picture)
    draw.text((pad - left, pad - top), words, fill=255, font=font, stroke_width=rim_px)
    opacity: Pixels = np.asarray(picture, np.float32) / np.float32(255)
    return opacity


@lru_cache(maxsize=128)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=max(4, size_px))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UsageError(expected("Pillow with FreeType", "one without", "install the wheel from the registry"))
    return font


def _open(n: int, first: float, last: float) -> Pixels:
    """How open the collimator is along an axis, 0-1 (n,): shut for ``first`` and ``last`` pixels, with a soft rim."""
    rim = max(1.0, n / 256)
    at = np.arange(n, dtype=np.float32) + np.float32(0.5)
    low = (at - first) / rim + 0.5 if first else np.ones(n)
    high = (n - at - last) / rim + 0.5 if last else np.ones(n)
    return np.clip(np.minimum(low, high), 0, 1).astype(np.float32)


def _window(shape: tuple[int, ...], top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return (
        slice(max(0, int(top)), min(shape[0], int(bottom))),
        slice(max(0, int(left)), min(shape[1], int(right))),
    )


def _fading(mask: Mask, window: tuple[slice, slice]) -> Pixels:
    """Weight in the window: 1 deep inside the organ, falling to 0 at its edge, exactly 0 outside."""
    from scipy import ndimage

    inside = mask[window].astype(np.float32)
    wide = max(3, round(min(mask.shape) / 40))
    weight = ndimage.uniform_filter(inside, wide, mode="nearest")
    weight += weight - 1
    np.clip(weight, 0, 1, out=weight)
    weight *= inside
    return weight if weight.any() else inside  # an organ as thin as the rim


def _roomiest(mask: Mask, candidates: NDArray[np.intp], area: float) -> tuple[int, int]:
    """The first candidate (flat indices) where the largest blob would lie four fifths in the organ, else the best."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int32), axis=1, out=sums[1:, 1:])
    rows, columns = np.unravel_index(candidates, mask.shape)
    reach = int(np.ceil(0.18 * np.sqrt(area)))
    top, bottom = np.clip(rows - reach, 0, None), np.clip(rows + reach + 1, None, mask.shape[0])
    left, right = np.clip(columns - reach, 0, None), np.clip(columns + reach + 1, None, mask.shape[1])
    held = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    share = held / (2 * reach + 1) ** 2
    best = int(np.argmax(np.minimum(share, 0.8)))
    return int(rows[best]), int(columns[best])


def _lines(coarse: Pixels, shape: tuple[int, int]) -> Pixels:
    """Thin lines (1) on nothing (0): where noise that was enlarged to ``shape`` crosses zero."""
    size = (shape[1], shape[0])
    smooth = np.array(PilImage.fromarray(coarse).resize(size, PilImage.Resampling.BICUBIC))
    smooth *= np.float32(1.8)
    np.square(smooth, out=smooth)
    np.negative(smooth, out=smooth)
    return np.asarray(np.exp(smooth, out=smooth), np.float32)
