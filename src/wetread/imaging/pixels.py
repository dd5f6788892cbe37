"""Stored values of one DICOM frame: from bytes in the file to integers in an array.

Decided here: byte order, bit extraction, sign, and which pixels are padding. PS3.5 section 8,
PS3.3 C.7.6.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragments

from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging.budget import require_budget, require_readable_size
from wetread.imaging.codecs import Layout, decode_frame
from wetread.imaging.header import DEFLATED, Header, quiet

__all__ = ["Stored", "read_layout", "stored_values"]

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
_NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})
_BITS_ALLOCATED = (1, 8, 16, 32)
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values of one frame.

    ``values``: integers, shape (rows, columns) or (rows, columns, 3), sign as declared.
    ``padding``: bool, shape (rows, columns), True where a pixel is padding; None if none is.
    """

    values: NDArray[Any]
    padding: NDArray[np.bool_] | None
    bits_stored: int


def read_layout(header: Header, budget_bytes: int) -> Layout:
    """Read and check the Image Pixel Module, before any pixel is touched.

    Raises:
        ImageRefused: No pixels, no size, or too small to read.
        UnsupportedImage: Several frames, or a depth or colour space that is not read.
        OverBudget: If the pixels would exceed ``budget_bytes``.
    """
    name = header.name
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    if "PixelData" not in header.dataset:
        raise _without_pixels(header)
    samples = header.integer("SamplesPerPixel")
    bits = header.integer("BitsAllocated")
    frames = _frames(header)
    if rows <= 0 or columns <= 0 or bits is None:
        missing = "no usable Rows, Columns or Bits Allocated"
        raise ImageRefused(expected("a DICOM image with its size", f"{missing} in {name}", "fetch it again"))
    photometric = _photometric(header, samples)
    samples = samples or (3 if photometric in _COLOUR[:-1] else 1)
    require_budget(name, (rows, columns), samples=samples, frames=frames, bits=bits, budget_bytes=budget_bytes)
    if frames > 1:
        got = f"{frames} frames in {name}"
        raise UnsupportedImage(expected("a single frame", got, "export the frame to read as one image"))
    require_readable_size(name, (rows, columns))
    if bits not in _BITS_ALLOCATED or samples not in (1, 3):
        got = f"{samples} samples of {bits} bits in {name}"
        cure = "convert it to a common depth"
        raise UnsupportedImage(expected("1 or 3 samples of 1, 8, 16 or 32 bits", got, cure))
    return Layout(name, rows, columns, samples, bits, photometric)


def stored_values(header: Header, layout: Layout) -> Stored:
    """Decode the frame and return its stored values.

    Raises:
        ImageRefused: Too few bytes, or compressed data that cannot be decoded.
        UnsupportedImage: An unknown transfer syntax.
    """
    syntax = _transfer_syntax(header)
    raw = header.value("PixelData")
    if not isinstance(raw, bytes) or not raw:
        raise ImageRefused(expected("pixel data", f"none in {layout.name}", "fetch the file again"))
    compressed = syntax not in _NATIVE
    if compressed:
        decoded = decode_frame(_single_frame(raw, layout), syntax, layout)
    else:
        decoded = _native(raw, layout, syntax, header)
    header.history.step("decode", transfer_syntax=syntax, compressed=compressed)
    words = _as_words(decoded, layout.bits_allocated)
    return _extract(words, decoded, header, layout, compressed=compressed)


def _without_pixels(header: Header) -> ImageRefused:
    if "FloatPixelData" in header.dataset or "DoubleFloatPixelData" in header.dataset:
        got, cure = f"floating point pixels in {header.name}", "convert it to integer pixels"
        return UnsupportedImage(expected("integer Pixel Data (7FE0,0010)", got, cure))
    modality = header.text("Modality")
    kind = f" of modality {modality}" if modality and len(modality) <= 16 else ""
    got = f"a DICOM object{kind} without Pixel Data (7FE0,0010) in {header.name}"
    return ImageRefused(expected("a DICOM image", got, "hand in an image object, complete to its end"))


def _frames(header: Header) -> int:
    frames = header.integer("NumberOfFrames")
    if frames is None and header.dataset.get("NumberOfFrames") not in (None, ""):
        header.history.ambiguous("Number of Frames is no whole number: read as one frame")
    return max(1, frames or 1)


def _photometric(header: Header, samples: int | None) -> str:
    found = (header.text("PhotometricInterpretation") or "").upper()
    if found in ("MONOCHROME1", "MONOCHROME2") and samples in (None, 1):
        return found
    if found == "PALETTE COLOR" and samples in (None, 1):
        return found
    if found in _COLOUR[:-1] and samples in (None, 3):
        return found
    if found and found not in ("MONOCHROME1", "MONOCHROME2", *_COLOUR):
        shown = found if len(found) <= 16 else found[:16]
        raise UnsupportedImage(
            expected("a known photometric interpretation", f"{shown!r} in {header.name}", "convert the file")
        )
    fallback = "RGB" if samples == 3 else "MONOCHROME2"
    reason = f"{found} with {samples} samples per pixel" if found else "no Photometric Interpretation"
    header.history.ambiguous(f"{reason}: read as {fallback}")
    return fallback


def _transfer_syntax(header: Header) -> str:
    syntax = header.transfer_syntax
    if syntax is not None:
        return syntax
    implicit, little = header.dataset.original_encoding
    header.history.ambiguous("no Transfer Syntax UID: the encoding of the header was used for the pixels")
    if little is False:
        return EXPLICIT_BIG
    return IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE


def _single_frame(raw: bytes, layout: Layout) -> bytes:
    """Join the fragments of the one frame (PS3.5 A.4); the first item is the offset table."""
    try:
        with quiet():
            fragments = list(generate_fragments(raw))
    except Exception:  # pydicom: ValueError, EOFError, struct.error
        fragments = []
    frame = b"".join(fragments[1:])
    if not frame:
        got = f"no complete fragment in {layout.name}"
        raise ImageRefused(expected("encapsulated pixel data", got, "the file is damaged: fetch it again"))
    return frame


def _native(raw: bytes, layout: Layout, syntax: str, header: Header) -> NDArray[Any]:
    pixels = layout.rows * layout.columns
    subsampled = layout.photometric == "YBR_FULL_422"
    need = pixels * 2 if subsampled else layout.frame_bytes
    if len(raw) < need:
        got = f"{len(raw):,} of {need:,} bytes in {layout.name}"
        raise ImageRefused(expected("complete pixel data", got, "the file is cut short: fetch it again"))
    if len(raw) >= 2 * need:
        header.history.ambiguous("the pixel data holds several frames, the header says one: first one read")
    elif len(raw) > need + 1:
        header.history.warn(f"{len(raw) - need} bytes behind the pixels were ignored")
    if layout.bits_allocated == 1:
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=pixels, bitorder="little").reshape(
            layout.rows, layout.columns
        )
    big = syntax == EXPLICIT_BIG
    if big and layout.bits_allocated == 8 and header.dataset["PixelData"].VR == "OW":
        raw = _swapped_words(raw)  # bytes in a big endian OW are swapped in pairs, PS3.5 8.1.1
    dtype = np.dtype(f"{'>' if big else '<'}u{layout.bits_allocated // 8}")
    flat = np.frombuffer(raw, dtype, need // dtype.itemsize).astype(dtype.newbyteorder("="), copy=False)
    if subsampled:
        return _upsample_422(flat, layout)
    if layout.samples == 1:
        return flat.reshape(layout.rows, layout.columns)
    if header.integer("PlanarConfiguration") == 1:
        return np.moveaxis(flat.reshape(layout.samples, layout.rows, layout.columns), 0, -1)
    return flat.reshape(layout.rows, layout.columns, layout.samples)


def _swapped_words(raw: bytes) -> bytes:
    return np.frombuffer(raw[: len(raw) // 2 * 2], ">u2").astype("<u2").tobytes()


def _upsample_422(flat: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Two pixels are stored as Y1 Y2 Cb Cr: PS3.3 C.7.6.3.1.2, YBR_FULL_422."""
    quads = flat[: flat.size // 4 * 4].reshape(-1, 4)
    full = np.empty((quads.shape[0], 2, 3), flat.dtype)
    full[:, :, 0] = quads[:, :2]
    full[:, :, 1:] = quads[:, None, 2:]
    if full.size != layout.rows * layout.columns * 3:
        got = f"an odd number of columns in {layout.name}"
        raise ImageRefused(expected("YBR_FULL_422 with an even number of columns", got, "convert the file"))
    return full.reshape(layout.rows, layout.columns, 3)


def _as_words(decoded: NDArray[Any], bits_allocated: int) -> NDArray[Any]:
    """Return the decoded samples as unsigned words of at least ``bits_allocated``; signs extended."""
    size = max(1, bits_allocated // 8, decoded.dtype.itemsize)
    if decoded.dtype.kind == "i":
        return decoded.astype(f"i{size}", copy=False).view(f"u{size}")
    return decoded.astype(f"u{size}", copy=False)


def _extract(words: NDArray[Any], decoded: NDArray[Any], header: Header, layout: Layout, *, compressed: bool) -> Stored:
    """Take Bits Stored out of each word and extend the sign: PS3.5 8.1.1, PS3.3 C.7.6.3.1."""
    allocated = 8 * words.dtype.itemsize
    stored, high = _bit_range(header, layout)
    signed = header.integer("PixelRepresentation") == 1
    values = _cut_bits(words, stored, high, signed=signed)
    padding = _padding(words, values, header, layout)
    if stored == allocated or layout.bits_allocated == 1:
        return Stored(values, padding, stored)
    lost = _differs(words, values, (stored, high), padding)
    if lost and compressed:
        header.history.ambiguous(
            f"the compressed data holds values beyond the {stored} bits that Bits Stored declares: kept as decoded"
        )
        return Stored(decoded, padding, 8 * decoded.dtype.itemsize)
    if lost and header.overlays[1] == 0:
        header.history.ambiguous(
            f"pixels have bits set outside Bits Stored {stored}, High Bit {high}: those bits were cut off"
        )
    if lost or high != stored - 1:
        header.history.step("bits", allocated=layout.bits_allocated, stored=stored, high=high, signed=signed)
    return Stored(values, padding, stored)


def _bit_range(header: Header, layout: Layout) -> tuple[int, int]:
    """Return (Bits Stored, High Bit) as they will be used, noting contradictions."""
    allocated = layout.bits_allocated
    stored, high = header.integer("BitsStored"), header.integer("HighBit")
    if stored is None or not 1 <= stored <= allocated:
        header.history.ambiguous(f"Bits Stored is {stored} with Bits Allocated {allocated}: all bits were used")
        return allocated, allocated - 1
    if high is None or not stored - 1 <= high < allocated:
        header.history.ambiguous(f"High Bit is {high} with Bits Stored {stored}: the lowest bits were used")
        return stored, stored - 1
    if high != stored - 1:
        # PS3.3 C.7.6.3 wants High Bit = Bits Stored - 1; older objects are left-aligned.
        header.history.ambiguous(f"High Bit is {high} with Bits Stored {stored}: taken at its word")
    return stored, high


def _cut_bits(words: NDArray[Any], stored: int, high: int, *, signed: bool) -> NDArray[Any]:
    size = words.dtype.itemsize
    allocated = 8 * size
    if stored == allocated or (not signed and high == stored - 1 and int(words.max()) >> stored == 0):
        return words.view(f"i{size}") if signed else words
    # Shifting left drops what lies above High Bit; shifting right drops the rest, with the sign if any.
    lifted = np.left_shift(words, allocated - 1 - high) if high < allocated - 1 else words
    taken = lifted.view(f"i{size}") if signed else lifted
    return np.asarray(np.right_shift(taken, allocated - stored))


def _differs(
    words: NDArray[Any], values: NDArray[Any], bit_range: tuple[int, int], padding: NDArray[np.bool_] | None
) -> bool:
    """Whether cutting changed a value other than padding; zeros above a negative number are fine."""
    if values is words:
        return False
    stored, high = bit_range
    kind = words.dtype.type
    mask, shift = kind((1 << stored) - 1), kind(high + 1 - stored)
    as_read = values.view(words.dtype)
    changed = ((as_read << shift) != words) & (((as_read & mask) << shift) != words)
    if padding is not None:
        changed &= ~padding if changed.ndim == 2 else ~padding[..., None]
    return bool(changed.any())


def _padding(words: NDArray[Any], values: NDArray[Any], header: Header, layout: Layout) -> NDArray[np.bool_] | None:
    """Find padding: Pixel Padding Value (0028,0120) up to Pixel Padding Range Limit, PS3.3 C.7.5.1.1.2."""
    first, limit = header.integer("PixelPaddingValue"), header.integer("PixelPaddingRangeLimit")
    if first is None or layout.samples != 1:
        return None
    low, high = sorted(_wrapped(value, values.dtype) for value in (first, first if limit is None else limit))
    # Padding often lies outside Bits Stored, so that no real value can equal it.
    outside = words == words.dtype.type(first % (1 << layout.bits_allocated))
    found: NDArray[np.bool_] = ((values >= low) & (values <= high)) | outside
    share = float(found.mean())
    if share == 0:
        return None
    header.history.step("pixel padding", low=low, high=high, share=round(share, 6), shown_as=0.0)
    return found


def _wrapped(value: int, dtype: np.dtype[Any]) -> int:
    """Read a padding value in the sign of the pixels: it is often written in the other one."""
    bits = 8 * dtype.itemsize
    word = value % (1 << bits)
    return word - (1 << bits) if dtype.kind == "i" and word >> (bits - 1) else word
