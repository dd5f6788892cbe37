"""How a film looks: the sources (hospitals) with their detectors, and the chain from ray to grey value.

Scatter, display window and background equalisation are taken from the anatomy *without* findings,
so that a planted finding changes pixels only where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from wetread.datasets.phantom_sampling import haze, smooth, spread
from wetread.errors import UsageError, expected

__all__ = ["SOURCES", "Exposure", "Source", "develop", "expose", "finish", "quanta", "source_of"]

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Source:
    """One hospital. All names are invented.

    ``noise``: sd of the quantum noise at unit exposure behind air; ``scatter``: share of the signal;
    ``blur_px``: detector blur (sd) in pixels at 512; ``bend``, ``contrast``, ``equalise``,
    ``sharpen``: display; ``border``: what lies outside the collimated field; ``ages``: whom it sees;
    ``portable``: share of AP films.
    """

    name: str
    institution: str
    manufacturer: str
    model: str
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    bits: int
    noise: float
    scatter: float
    blur_px: float
    bend: float
    contrast: float
    equalise: float
    sharpen: float
    border: Literal["none", "black", "white"]
    marker: Literal["plain", "boxed", "small", "large"]
    marker_side: Literal["right", "left"]
    ages: tuple[float, float]
    portable: float


SOURCES: dict[str, Source] = {
    s.name: s
    for s in (
        Source(
            name="northgate",
            institution="Northgate General (synthetic)",
            manufacturer="Phantom Imaging",
            model="Flat One",
            photometric="MONOCHROME2",
            bits=12,
            noise=0.0035,
            scatter=0.22,
            blur_px=0.35,
            bend=0.0,
            contrast=1.0,
            equalise=0.35,
            sharpen=0.5,
            border="none",
            marker="plain",
            marker_side="right",
            ages=(18, 90),
            portable=0.1,
        ),
        Source(
            name="riverside",
            institution="Riverside Clinic (synthetic)",
            manufacturer="Umbra Radiography",
            model="Plate 2",
            photometric="MONOCHROME1",
            bits=10,
            noise=0.0065,
            scatter=0.34,
            blur_px=0.75,
            bend=0.16,
            contrast=0.92,
            equalise=0.15,
            sharpen=0.25,
            border="black",
            marker="large",
            marker_side="left",
            ages=(18, 90),
            portable=0.25,
        ),
        Source(
            name="oakchildren",
            institution="Oak Children's (synthetic)",
            manufacturer="Phantom Imaging",
            model="Flat Mini",
            photometric="MONOCHROME2",
            bits=12,
            noise=0.0045,
            scatter=0.16,
            blur_px=0.45,
            bend=-0.07,
            contrast=1.05,
            equalise=0.25,
            sharpen=0.4,
            border="black",
            marker="boxed",
            marker_side="right",
            ages=(1, 12),
            portable=0.5,
        ),
        Source(
            name="harbour",
            institution="Harbour Acute Care (synthetic)",
            manufacturer="Penumbra Mobile",
            model="Rover",
            photometric="MONOCHROME1",
            bits=12,
            noise=0.0075,
            scatter=0.46,
            blur_px=0.6,
            bend=-0.14,
            contrast=0.85,
            equalise=0.3,
            sharpen=0.35,
            border="white",
            marker="small",
            marker_side="left",
            ages=(30, 95),
            portable=0.9,
        ),
        Source(
            name="hillside",
            institution="Hillside Chest Centre (synthetic)",
            manufacturer="Umbra Radiography",
            model="Panel X",
            photometric="MONOCHROME2",
            bits=14,
            noise=0.003,
            scatter=0.14,
            blur_px=0.3,
            bend=0.07,
            contrast=1.15,
            equalise=0.5,
            sharpen=1.1,
            border="none",
            marker="small",
            marker_side="right",
            ages=(16, 85),
            portable=0.0,
        ),
    )
}
"""Five invented hospitals, by name."""


@dataclass(frozen=True)
class Exposure:
    """What the anatomy alone fixes before a film is developed.

    ``scatter`` and ``background``: float32 maps of the exposure and of the blurred logarithm on
    a coarse grid; ``low`` and ``high``: logarithms that become black and white.
    """

    scatter: Array
    background: Array
    low: float
    high: float


def source_of(name: str) -> Source:
    """The source of that name; raises :class:`UsageError` with the known names."""
    if name not in SOURCES:
        raise UsageError(expected(f"a source among {', '.join(SOURCES)}", f"'{name}'", "use one of them"))
    return SOURCES[name]


def expose(log_clean: Array, lung: NDArray[np.bool_], source: Source) -> Exposure:
    """Fix scatter, background and window from the finding-free attenuation on a coarse grid.

    ``lung`` marks the pixels of both lung fields there.
    """
    primary = np.exp(-log_clean)
    scatter = haze(primary, 0.07)
    seen = -np.log(primary * (1 - source.scatter) + scatter * source.scatter)
    background = haze(seen, 0.09)
    flat = seen - source.equalise * (background - background.mean())
    inside = flat[lung]
    centre = len(flat) // 4
    low = float(np.quantile(inside, 0.15))
    high = float(np.quantile(flat[centre : 3 * centre, centre : 3 * centre], 0.99))
    high += 0.24 * (high - low)
    return Exposure(scatter.astype(np.float32), background.astype(np.float32), low, high)


def develop(log_primary: Array, fixed: Exposure, source: Source, noise: float, rng: np.random.Generator) -> Array:
    """Attenuation (natural logarithm, float32 (n, n)) to a film in [0, 1], bright is dense.

    Beer-Lambert primary signal, scatter, blur of the detector, quantum noise (variance in
    proportion to the signal), logarithm, equalisation, unsharp mask, sigmoid curve.
    """
    n = len(log_primary)
    signal = np.subtract(np.float32(np.log(1 - source.scatter)), log_primary)
    np.exp(signal, out=signal)
    signal += np.float32(source.scatter) * spread(fixed.scatter, n)
    grain = quanta(n, rng)
    grain *= np.sqrt(signal)
    grain *= np.float32(noise)
    signal += grain
    np.maximum(signal, np.float32(1e-4), out=signal)
    film = np.log(signal, out=signal)
    np.negative(film, out=film)
    film = smooth(film, _net_variance(source, n))
    mean = float(fixed.background.mean())
    scale = 1.0 / (fixed.high - fixed.low)
    level = (fixed.background - np.float32(mean)) * np.float32(source.equalise) + np.float32(fixed.low)
    film -= spread(level, n)
    return _curve(film, np.float32(scale), source)


def quanta(n: int, rng: np.random.Generator) -> Array:
    """Noise of mean 0 and variance 1, float32 (n, n), n even: bits set among 32 fair ones, less the mean.

    Binomial like the counting of photons, near normal, and five times faster than normal numbers.
    """
    raw = rng.bit_generator.random_raw(n * n // 2)
    counts = np.bitwise_count(raw.view(np.uint32)).astype(np.float32).reshape(n, n)
    counts -= np.float32(16.0)
    counts *= np.float32(8**-0.5)
    return counts


def _net_variance(source: Source, n: int) -> float:
    """Blur of the detector less what the display's unsharp mask takes away (pixels^2; negative: sharper)."""
    return source.blur_px**2 * max(1.0, n / 512) ** 2 - 0.49 * source.sharpen


def _curve(film: Array, scale: np.float32, source: Source) -> Array:
    """Film response, in place: lungs near 0.2, mediastinum near 0.85, soft toe and shoulder."""
    steep = 4.1 * source.contrast
    film *= np.float32(-steep) * scale
    film += np.float32(steep * 0.45)
    np.exp(film, out=film)
    film += np.float32(1.0)
    np.reciprocal(film, out=film)
    low, high = 1 / (1 + np.exp(steep * 1.0)), 1 / (1 + np.exp(-steep * 0.72))
    film -= np.float32(low)
    film *= np.float32(1 / (high - low))
    np.clip(film, 0.0, 1.0, out=film)
    film += np.float32(source.bend) * film * (film - 1)  # as a gamma does, without its power
    return film


def finish(film: Array, source: Source, view: str, rng: np.random.Generator) -> Array:
    """Add the border of the collimator and the side marker; ``film`` is changed and returned."""
    n = len(film)
    edge = _border(film, source, rng)
    text = "R" if source.marker_side == "right" else "L"
    height = {"plain": 0.055, "boxed": 0.06, "small": 0.035, "large": 0.085}[source.marker]
    glyph = _glyph(text, max(6, int(height * n)), source.marker == "boxed")
    x = edge + rng.uniform(0.02, 0.06)
    column = int(x * n) if source.marker_side == "right" else n - int(x * n) - glyph.shape[1]
    row = int((edge + rng.uniform(0.03, 0.13)) * n)
    _stamp(film, glyph, row, column)
    if view == "AP":
        note = _glyph("AP", max(6, int(0.032 * n)), False)
        _stamp(film, note, row + glyph.shape[0] + int(0.01 * n), column)
    return film


def _border(film: Array, source: Source, rng: np.random.Generator) -> float:
    """Paint what lies outside the field; return the width of the widest edge as a share of the side."""
    if source.border == "none":
        return 0.0
    n = len(film)
    shade = np.float32(0.015 if source.border == "black" else 0.94)
    edges = np.maximum(1, (rng.uniform(0.008, 0.035, 4) * n).astype(int))
    top, bottom, left, right = (int(e) for e in edges)
    film[:top] = shade
    film[n - bottom :] = shade
    film[:, :left] = shade
    film[:, n - right :] = shade
    return float(max(edges)) / n


@lru_cache(maxsize=64)
def _glyph(text: str, height: int, boxed: bool) -> Array:
    """Letters as opacity (0-1); boxed letters stand in a thin frame."""
    font = ImageFont.load_default(size=height)
    left, top, right, bottom = font.getbbox(text)
    pad = height // 3
    size = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    picture = PilImage.new("L", size, 0)
    draw = ImageDraw.Draw(picture)
    draw.text((pad - left, pad - top), text, fill=255, font=font)
    if boxed:
        draw.rectangle((1, 1, size[0] - 2, size[1] - 2), outline=230, width=max(1, height // 12))
    opacity = np.asarray(picture, np.float32) / 255
    opacity.flags.writeable = False
    return opacity


def _stamp(film: Array, glyph: Array, row: int, column: int) -> None:
    row = min(max(row, 0), film.shape[0] - glyph.shape[0])
    column = min(max(column, 0), film.shape[1] - glyph.shape[1])
    part = film[row : row + glyph.shape[0], column : column + glyph.shape[1]]
    part += glyph * (np.float32(0.97) - part)
