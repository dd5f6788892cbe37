"""PNG, JPEG, TIFF, GIF and BMP to an Image.

Decided here: 8 and 16 bit pictures are scaled by the full range of their type; a 16 bit picture
whose content fills less than a quarter of that range (12 or 14 bit values in 16 bit files) and
floating point outside [0, 1] get a percentile window instead; both are recorded. Pillow's classes
are called directly: its own limit on pixels is global, ours is the budget of the call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging import transforms
from wetread.imaging.budget import require_budget, require_readable_size
from wetread.imaging.codestream import jpeg_header
from wetread.imaging.colour import composite_over_black, luminance
from wetread.imaging.history import History
from wetread.imaging.samples import Raster
from wetread.types import Image, ImageFacts

__all__ = ["load_raster", "raster_shape", "stored_raster"]

_NARROW_SHARE = 0.25
"""14 of 16 bits: below it the range of the type says nothing about the range of the detector."""
_FIRST_TURNED = 5
"""EXIF orientations 5 to 8 swap rows and columns."""


def load_raster(data: bytes, kind: str, name: str, budget_bytes: int) -> Image:
    """Read a picture held in memory.

    Args:
        data: The whole file.
        kind: "PNG", "JPEG", "TIFF", "GIF" or "BMP", as sniffed.
        name: File name for facts and messages.
        budget_bytes: Limit on the decoded pixels.

    Raises:
        ImageRefused: Damaged, too small, or pixels that are no numbers (and its subclasses
            UnsupportedImage: animation, several pages, odd depth; OverBudget).
    """
    history = History()
    raster = stored_raster(data, kind, name, budget_bytes)
    history.step("decode", format=kind, mode=raster.mode, bits=raster.bits)
    pixels, colour = _to_gray(raster, name, history)
    pixels = _upright(pixels, raster.orientation, history)
    if np.ptp(pixels) == 0:
        history.warn("constant image: every pixel has the same value")
    facts = ImageFacts(
        name=name,
        format=kind,
        sha256=hashlib.sha256(data).hexdigest(),
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        bits=raster.bits,
        colour=colour,
        warnings=history.warnings,
    )
    return Image(pixels, facts, history.steps)


def stored_raster(data: bytes, kind: str, name: str, budget_bytes: int) -> Raster:
    """Decode without touching grey values or orientation. Raises as :func:`load_raster`."""
    with _codec_errors(kind, name):
        if kind == "TIFF":
            from wetread.imaging.tiff import decode_tiff  # tifffile costs 0.3 s that a PNG need not pay

            return decode_tiff(data, name, budget_bytes)
        return _decode(data, kind, name, budget_bytes)


def raster_shape(data: bytes, kind: str, name: str, budget_bytes: int) -> tuple[int, int]:
    """Return (rows, columns) of the upright picture from its header. Raises as :func:`load_raster`."""
    with _codec_errors(kind, name):
        if kind == "TIFF":
            from wetread.imaging.tiff import tiff_header

            rows, columns, orientation = tiff_header(data, name, budget_bytes)
        else:
            picture = _checked(data, kind, name, budget_bytes)
            (columns, rows), orientation = picture.size, _orientation(picture)
    return (columns, rows) if orientation >= _FIRST_TURNED else (rows, columns)


@contextmanager
def _codec_errors(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except (ImageRefused, MemoryError):
        raise
    except Exception:  # codecs raise OSError, SyntaxError, ValueError, struct.error and their own
        cure = "the file is damaged or cut short: fetch it again"
        raise ImageRefused(expected(f"a {kind} image", f"data that cannot be decoded in {name}", cure)) from None


def _decode(data: bytes, kind: str, name: str, budget_bytes: int) -> Raster:
    picture = _checked(data, kind, name, budget_bytes)
    bits, orientation = _bits(data, kind, picture.mode), _orientation(picture)  # decoding changes what it says
    return Raster(_samples(data, kind, picture), bits, picture.mode, orientation)


def _checked(data: bytes, kind: str, name: str, budget_bytes: int) -> Any:
    """The picture opened by Pillow and found to be one that is read; no pixel is decoded."""
    picture = _open(data, kind)
    columns, rows = picture.size
    samples = len(picture.getbands())
    bits = _bits(data, kind, picture.mode)
    require_budget(name, (rows, columns), samples=samples, frames=1, bits=bits, budget_bytes=budget_bytes)
    require_readable_size(name, (rows, columns))
    if getattr(picture, "is_animated", False):
        got = f"an animated {kind}: {name}"
        raise UnsupportedImage(expected("a single picture", got, "save the frame to read on its own"))
    return picture


def _open(data: bytes, kind: str) -> Any:
    """Read a picture's header with Pillow's class for its kind: no other parser sees the bytes."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin

    classes: dict[str, Any] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
    }
    return classes[kind](BytesIO(data))


def _bits(data: bytes, kind: str, mode: str) -> int:
    if kind == "PNG":
        return data[24]  # bit depth in IHDR, PNG specification 11.2.2
    return 1 if mode == "1" else 8


def _orientation(picture: Any) -> int:
    if "exif" not in picture.info:
        return 1
    try:
        found = picture.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1
    return found if found in range(1, 9) else 1


def _samples(data: bytes, kind: str, picture: Any) -> NDArray[Any]:
    import imagecodecs

    header = jpeg_header(data) if kind == "JPEG" else None
    if header is not None and (header.columns, header.rows) != picture.size:
        raise ValueError("two frame headers that contradict each other")
    if header is not None and not header.complete:
        raise ValueError("no end marker")  # libjpeg would fill the missing rows with gray
    if header is not None and header.components in (1, 3):
        # Same libjpeg-turbo as Pillow, half the time.
        found = np.asarray(imagecodecs.jpeg8_decode(data))
    elif kind == "PNG":
        found = np.asarray(imagecodecs.png_decode(data))  # Pillow cuts 16 bit colour down to 8
    else:
        wanted = "RGBA" if picture.mode in ("P", "PA") else "L" if picture.mode in ("1", "L") else "RGB"
        found = np.asarray(picture.convert(wanted))
    found = found if found.ndim == 3 else found[..., None]
    rows, columns = picture.size[::-1]
    if found.shape[:2] != (rows, columns):
        raise ValueError("the decoder's size contradicts the header")
    return found


def _to_gray(raster: Raster, name: str, history: History) -> tuple[NDArray[np.float32], float]:
    samples = raster.samples
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        got = f"{bad:,} that are NaN or infinite in {name}"
        raise ImageRefused(expected("pixels that are numbers", got, "replace them before reading"))
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * np.uint8(255)
    if samples.shape[2] in (2, 4):
        samples = _without_alpha(samples, history)
    low, high = _limits(samples, raster.samples.dtype, history)
    scaled = _scaled(samples, low, high)
    if scaled.shape[2] == 1:
        gray, share = scaled[..., 0], 0.0
    else:
        gray, share = luminance(scaled, 1.0)
        history.step("luminance", of=raster.mode, weights="ITU-R BT.601", coloured_share=round(share, 6))
    if raster.white_is_zero:
        history.step("inversion", reason="TIFF photometric MINISWHITE")
        gray = transforms.invert(gray)
    return np.ascontiguousarray(gray, np.float32), share


def _without_alpha(samples: NDArray[Any], history: History) -> NDArray[Any]:
    alpha = samples[..., -1]
    peak = float(np.iinfo(samples.dtype).max) if samples.dtype.kind in "iu" else 1.0
    if (alpha == alpha.dtype.type(peak)).all():
        return samples[..., :-1]
    history.step("alpha", composited_over="black", transparent_share=round(float((alpha < peak).mean()), 6))
    return composite_over_black(samples[..., :-1], alpha, peak)


def _limits(samples: NDArray[Any], dtype: np.dtype[Any], history: History) -> tuple[float, float]:
    """Choose the values that become 0 and 1, and record the choice."""
    if dtype.kind == "b" or dtype.itemsize == 1:
        peak = 255.0
        history.step("scale", low=0.0, high=peak, reason="full range of the type")
        return 0.0, peak
    lowest, highest = float(samples.min()), float(samples.max())
    if dtype.kind == "f" and lowest >= 0 and highest <= 1:
        history.step("scale", low=0.0, high=1.0, reason="floating point within [0, 1]")
        return 0.0, 1.0
    low, high = (float(found) for found in np.percentile(samples, transforms.PERCENTILES))
    if dtype == np.uint16 and high - low >= _NARROW_SHARE * 65535:
        history.step("scale", low=0.0, high=65535.0, reason="full range of the type")
        return 0.0, 65535.0
    if low == high:  # 99 % of the pixels are alike: keep the rest
        low, high = lowest, highest
    reason = "content fills less than a quarter of 16 bits" if dtype == np.uint16 else f"{dtype} has no white"
    percentiles = list(transforms.PERCENTILES)
    history.step("percentile window", low=low, high=high, percentiles=percentiles, reason=reason)
    return low, high


def _scaled(samples: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    if low == high:
        return np.zeros(samples.shape, np.float32)
    factor = np.float32(1.0 / (high - low))
    if low == 0:
        scaled = np.multiply(samples, factor, dtype=np.float32)
    else:
        scaled = np.subtract(samples, np.float32(low), dtype=np.float32)
        scaled *= factor
    return np.asarray(np.clip(scaled, 0, 1, out=scaled), np.float32)


def _upright(pixels: NDArray[np.float32], orientation: int, history: History) -> NDArray[np.float32]:
    """Apply the EXIF or TIFF orientation tag 274 (TIFF 6.0, page 36): rows and columns to upright."""
    if orientation == 1:
        return pixels
    history.step("orientation", tag=orientation)
    if orientation >= _FIRST_TURNED:
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
