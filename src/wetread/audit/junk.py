"""Images that no reader of films should answer: drawn here, alike in every audit.

Each kind is a pure function of a generator: float32 (512, 512) in [0, 1]. None is a film of anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wetread.types import Image, ImageFacts

__all__ = ["ALTERED", "JUNK", "SIDE_PX", "altered", "junk_image"]

Pixels = NDArray[np.float32]
Rng = np.random.Generator

SIDE_PX = 512


def _grid() -> tuple[Pixels, Pixels]:
    """Heights and widths from -1 to 1, one for each pixel."""
    y, x = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j]
    return y.astype(np.float32), x.astype(np.float32)


def _white_noise(rng: Rng) -> Pixels:
    return rng.random((SIDE_PX, SIDE_PX), dtype=np.float32)


def _cloud(rng: Rng) -> Pixels:
    """Noise with the spectrum of natural scenes: amplitude falls as 1 / frequency (Field 1987)."""
    rows, columns = np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None, :]
    spread = np.maximum(np.hypot(rows, columns), 1 / SIDE_PX)
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE_PX, SIDE_PX))) / spread
    field = np.fft.irfft2(spectrum, (SIDE_PX, SIDE_PX))
    return _stretched(field)


def _blank(rng: Rng) -> Pixels:
    level = rng.choice([0.0, 0.5, 1.0]) + rng.normal(0, 0.01, (SIDE_PX, SIDE_PX))
    return np.asarray(np.clip(level, 0, 1), np.float32)


def _ramp(rng: Rng) -> Pixels:
    y, x = _grid()
    angle = rng.uniform(0, 2 * np.pi)
    return _stretched(y * np.sin(angle) + x * np.cos(angle))


def _disc(rng: Rng) -> Pixels:
    y, x = _grid()
    return _stretched(-np.hypot(y - rng.uniform(-0.3, 0.3), x - rng.uniform(-0.3, 0.3)))


def _checkerboard(rng: Rng) -> Pixels:
    square = int(rng.integers(8, 80))
    index = np.arange(SIDE_PX) // square
    return ((index[:, None] + index[None, :]) % 2).astype(np.float32)


def _stripes(rng: Rng) -> Pixels:
    y, x = _grid()
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 40)
    return _stretched(np.sin(2 * np.pi * waves * (y * np.sin(angle) + x * np.cos(angle))))


def _page(rng: Rng) -> Pixels:
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFont

    picture = PilImage.new("L", (SIDE_PX, SIDE_PX), 245)
    draw = ImageDraw.Draw(picture)
    size = int(rng.integers(11, 18))
    font = ImageFont.load_default(size=size)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    for top in range(30, SIDE_PX - 30, round(1.5 * size)):
        draw.text((30, top), "".join(rng.choice(letters, (SIDE_PX - 60) // (size // 2))), fill=20, font=font)
    return np.asarray(picture, np.float32) / np.float32(255)


def _shapes(rng: Rng) -> Pixels:
    from PIL import Image as PilImage
    from PIL import ImageDraw

    picture = PilImage.new("L", (SIDE_PX, SIDE_PX), int(rng.integers(0, 256)))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = rng.integers(0, SIDE_PX, 2)
        width, height = rng.integers(30, 250, 2)
        one = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        one((int(x), int(y), int(x + width), int(y + height)), fill=int(rng.integers(0, 256)))
    return np.asarray(picture, np.float32) / np.float32(255)


def _photograph(rng: Rng) -> Pixels:
    """A part of one of the two photographs that come with scikit-learn, in grey."""
    from sklearn.datasets import load_sample_image

    colour = load_sample_image(str(rng.choice(["china.jpg", "flower.jpg"]))).astype(np.float32)
    grey = colour @ np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
    side = int(rng.integers(250, min(grey.shape)))
    top, left = (int(rng.integers(0, length - side + 1)) for length in grey.shape)
    return _scaled(grey[top : top + side, left : left + side])


def _slice(rng: Rng) -> Pixels:
    """A slice through a head, as CT shows it: a ring of bone, brain, dark ventricles (Shepp & Logan 1974)."""
    y, x = _grid()
    picture = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    turn, wide, high = rng.uniform(-0.3, 0.3), rng.uniform(0.9, 1.05), rng.uniform(0.9, 1.05)
    for grey, a, b, x0, y0, angle in _HEAD:
        u = (x - x0) * np.cos(angle + turn) + (y - y0) * np.sin(angle + turn)
        v = -(x - x0) * np.sin(angle + turn) + (y - y0) * np.cos(angle + turn)
        picture[(u / (a * wide)) ** 2 + (v / (b * high)) ** 2 <= 1] += grey
    picture += rng.normal(0, 0.02, picture.shape)
    return np.clip(picture, 0, 1).astype(np.float32)


_HEAD = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.65, 0.66, 0.87, 0.0, 0.02, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -0.3),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 0.3),
    (0.15, 0.21, 0.25, 0.0, -0.35, 0.0),
    (0.1, 0.05, 0.05, 0.0, -0.1, 0.0),
)
"""Ellipses: grey added, half axes, centre, angle; units of half the side."""


def _hand(rng: Rng) -> Pixels:
    """A hand, as a radiograph shows it: bright bones in soft tissue on black."""
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFilter

    tissue, bone = (PilImage.new("L", (SIDE_PX, SIDE_PX), 0) for _ in range(2))
    soft, hard = ImageDraw.Draw(tissue), ImageDraw.Draw(bone)
    soft.ellipse((150, 270, 370, 480), fill=110)
    soft.rectangle((205, 420, 315, SIDE_PX), fill=110)
    for angle, length in zip(np.radians(_FINGERS) + rng.normal(0, 0.03), _LENGTHS, strict=True):
        along = np.array([np.sin(angle), -np.cos(angle)])
        knuckle = np.array([260.0, 360.0]) + np.array([75.0, 60.0]) * along
        joints = knuckle + np.outer(np.array(_JOINTS) * length * rng.uniform(0.95, 1.05), along)
        soft.line([tuple(joints[1]), tuple(joints[-1])], fill=110, width=44)
        for start, end in pairwise(joints):
            hard.line([tuple(start + 0.08 * (end - start)), tuple(end - 0.08 * (end - start))], fill=200, width=17)
    for _ in range(8):
        x, y = rng.uniform(215, 305), rng.uniform(400, 440)
        hard.ellipse((x - 14, y - 12, x + 14, y + 12), fill=185)
    hard.line((235, 450, 228, SIDE_PX), fill=200, width=34)
    hard.line((285, 450, 290, SIDE_PX), fill=200, width=24)
    layers = [np.asarray(one.filter(ImageFilter.GaussianBlur(3)), np.float32) / 255 for one in (tissue, bone)]
    return np.clip(np.maximum(*layers) + rng.normal(0, 0.01, (SIDE_PX, SIDE_PX)), 0, 1).astype(np.float32)


_FINGERS, _LENGTHS = (-52, -20, -4, 12, 28), (150, 200, 220, 205, 165)
"""Direction of each finger in degrees, and its length in pixels."""
_JOINTS = (-0.4, 0.0, 0.42, 0.72, 1.0)
"""Where the bones of a finger meet, share of its length."""


def _stretched(field: NDArray[np.floating]) -> Pixels:
    low, high = float(field.min()), float(field.max())
    return ((field - low) / (high - low)).astype(np.float32)


def _scaled(pixels: Pixels) -> Pixels:
    from PIL import Image as PilImage

    picture = PilImage.fromarray(pixels).resize((SIDE_PX, SIDE_PX), PilImage.Resampling.BILINEAR)
    return np.asarray(picture, np.float32)


JUNK: dict[str, Callable[[Rng], Pixels]] = {
    "white noise": _white_noise,
    "cloud": _cloud,
    "blank": _blank,
    "ramp": _ramp,
    "disc": _disc,
    "checkerboard": _checkerboard,
    "stripes": _stripes,
    "page": _page,
    "shapes": _shapes,
    "photograph": _photograph,
    "head slice": _slice,
    "hand": _hand,
}
"""What is drawn, by name."""


def junk_image(kind: str, rng: Rng) -> Image:
    """Draw one image of a kind, as if it had been read from a PNG that says nothing of itself."""
    facts = ImageFacts(name=f"{kind}.png", format="PNG", sha256="0" * 64, rows=SIDE_PX, columns=SIDE_PX, bits=8)
    return Image(JUNK[kind](rng), facts)


ALTERED: dict[str, Callable[[Pixels], Pixels]] = {
    "negative": lambda pixels: 1 - pixels,
    "on its side": lambda pixels: np.ascontiguousarray(np.rot90(pixels)),
    "upside down": lambda pixels: np.ascontiguousarray(pixels[::-1, ::-1]),
}
"""What a viewer or an importer can do to a film of its own."""


def altered(kind: str, image: Image) -> Image:
    """One of its own films, altered; the header says what it said."""
    pixels = ALTERED[kind](image.pixels)
    facts = image.facts.model_copy(update={"rows": pixels.shape[0], "columns": pixels.shape[1]})
    return Image(pixels, facts)
