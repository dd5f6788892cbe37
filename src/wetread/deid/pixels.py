"""Pixels: every frame decoded under the budget, searched for text, blacked out, and written without loss.

Decided here: where nothing was blacked out, a compressed stream stays as it is; where something was, all frames are
written as Explicit VR Little Endian, whatever they came in, because a second lossy pass would change the rest of the
image too. A box is blacked out in every frame, since overlays stand still. Bits above Bits Stored, where old
overlays hide, and bytes behind the last frame are zeroed or cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from wetread.deid.text import TextBox, find_text
from wetread.deid.words import word_set
from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging.budget import require_budget
from wetread.imaging.codecs import Layout, decode_frame
from wetread.imaging.colour import ybr_to_rgb
from wetread.imaging.header import quiet

__all__ = ["EXPLICIT_LITTLE", "Frames", "Patch", "black_out", "decode", "encode", "frames_text", "needs_search"]

EXPLICIT_LITTLE, _BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_NATIVE = frozenset({"1.2.840.10008.1.2", EXPLICIT_LITTLE, _BIG, "1.2.840.10008.1.2.1.99"})
_GIVES_RGB = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
_DRAWN = word_set("CR DX MG RF XA US IVUS ES XC GM SM OP OT SC DOC IO PX RG BI TG")
"""Modalities whose images often carry text, whatever Burned In Annotation (0028,0301) says."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_BITS = (1, 8, 16, 32)
_THIS = "this file"


@dataclass(frozen=True)
class Patch:
    """One rectangle that was blacked out, in every frame; rows and columns with their ends excluded."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass
class Frames:
    """All frames of an image as stored values.

    ``values``: unsigned or signed integers, shape (frames, rows, columns) or (frames, rows, columns, 3).
    ``photometric``: of ``values``, which after JPEG is RGB. ``syntax``: of the source. ``tidied``: hidden bits or bytes
    behind the pixels were removed. ``before``: the pixels below each patch, for who may undo it.
    """

    values: NDArray[Any]
    photometric: str
    syntax: str
    bits_allocated: int
    tidied: bool = False
    patches: list[Patch] = field(default_factory=list)
    before: list[NDArray[Any]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether they must be written anew."""
        return self.tidied or bool(self.patches) or self.syntax == _BIG


def needs_search(dataset: Dataset) -> bool:
    """Whether the frames have to be searched for text: only a NO of a CT, MR, PET or the like is believed."""
    drawn = str(dataset.get("Modality") or "").upper() in _DRAWN
    captured = str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    return drawn or captured or str(dataset.get("BurnedInAnnotation") or "").upper() != "NO"


def decode(dataset: Dataset, syntax: str, budget_bytes: int) -> Frames:
    """Decode all frames.

    Args:
        dataset: With Pixel Data.
        syntax: Transfer Syntax UID of the file.
        budget_bytes: Limit on the decoded pixels.

    Raises:
        ImageRefused: damaged or contradictory (and its subclasses OverBudget, UnsupportedImage).
    """
    layout, frames = _layout(dataset, budget_bytes)
    if syntax in _NATIVE:
        values, tidied = _native(dataset, layout, frames, syntax)
        photometric = layout.photometric
    else:
        values, tidied = _compressed(dataset, layout, frames, syntax), False
        photometric = "RGB" if layout.samples == 3 and syntax.startswith(_GIVES_RGB) else layout.photometric
    if photometric == "YBR_FULL_422":
        photometric = "YBR_FULL"
    if layout.bits_allocated in (8, 16, 32) and int(dataset.get("PixelRepresentation") or 0) == 1:
        values = values.view(f"i{values.dtype.itemsize}")
    values, hidden = _without_hidden_bits(values, dataset, native=syntax in _NATIVE)
    return Frames(values, photometric, syntax, layout.bits_allocated, tidied or hidden)


def frames_text(frames: Frames, dataset: Dataset) -> list[TextBox]:
    """Search every frame for text; frames with the same content are searched once."""
    found: dict[bytes, list[TextBox]] = {}
    for number in range(len(frames.values)):
        frame = frames.values[number]
        digest = hashlib.sha256(frame.tobytes()).digest()
        if digest not in found:
            found[digest] = find_text(_shown(frame, frames.photometric, dataset))
    return [box for boxes in found.values() for box in boxes]


def black_out(frames: Frames, boxes: Sequence[TextBox], dataset: Dataset) -> None:
    """Black out boxes in every frame, in place: the darkest value of the image, or black where it has colour."""
    if not boxes:
        return
    if not frames.values.flags.writeable:
        frames.values = frames.values.copy()
    fill = _black(frames, dataset)
    for patch in _merged(boxes):
        area = frames.values[:, patch.top : patch.bottom, patch.left : patch.right]
        frames.before.append(area.copy())
        area[...] = fill
        frames.patches.append(patch)


def encode(dataset: Dataset, frames: Frames) -> None:
    """Put the frames into the data set as Explicit VR Little Endian, with the attributes that describe them."""
    if frames.bits_allocated == 1:
        raw = np.packbits(frames.values.reshape(-1), bitorder="little").tobytes()
    else:
        raw = frames.values.astype(frames.values.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OW" if frames.bits_allocated > 8 else "OB"
    dataset.PhotometricInterpretation = frames.photometric
    if frames.values.ndim == 4:
        dataset.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        dataset.pop(keyword, None)
    if frames.patches:
        kinds = list(dataset.get("ImageType") or ["ORIGINAL", "PRIMARY"])
        dataset.ImageType = ["DERIVED", *kinds[1:]]  # PS3.3 C.7.6.1.1.2
        dataset.DerivationDescription = "Text blacked out; stored without loss"


def _layout(dataset: Dataset, budget_bytes: int) -> tuple[Layout, int]:
    """The Image Pixel Module and the number of frames, checked before anything is decoded."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.BitsAllocated)
        frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    except (AttributeError, TypeError, ValueError):
        cure = "fetch the file again"
        raise ImageRefused(expected("an image with its size", "no usable Rows, Columns or bits", cure)) from None
    require_budget(_THIS, (rows, columns), samples=samples, frames=frames, bits=bits, budget_bytes=budget_bytes)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    if min(rows, columns) < 1 or bits not in _BITS or samples not in (1, 3) or (bits == 1 and samples == 3):
        got = f"{rows} x {columns} pixels of {samples} samples with {bits} bits"
        raise UnsupportedImage(expected("1 or 3 samples of 1, 8, 16 or 32 bits", got, "convert the file"))
    return Layout(_THIS, rows, columns, samples, bits, photometric), frames


def _compressed(dataset: Dataset, layout: Layout, frames: int, syntax: str) -> NDArray[Any]:
    try:
        with quiet():
            streams = list(generate_frames(dataset.PixelData, number_of_frames=frames))
    except Exception:  # pydicom: ValueError, EOFError, struct.error
        streams = []
    if len(streams) != frames:
        got = f"{len(streams)} of {frames} frames"
        raise ImageRefused(expected("encapsulated frames", got, "the file is damaged: fetch it again"))
    decoded = [decode_frame(stream, syntax, layout) for stream in streams]
    size = max(1, layout.bits_allocated // 8)
    values = np.stack(decoded)
    if values.dtype.itemsize > size:
        got = f"{8 * values.dtype.itemsize} bits where the header says {layout.bits_allocated}"
        raise ImageRefused(expected("samples as the header declares", got, "convert the file"))
    signed = values.dtype.kind == "i"
    return values.astype(f"{'i' if signed else 'u'}{size}").view(f"u{size}")


def _native(dataset: Dataset, layout: Layout, frames: int, syntax: str) -> tuple[NDArray[Any], bool]:
    """Frames of uncompressed pixels, and whether there were bytes behind them."""
    raw = bytes(dataset.PixelData)
    pixels = frames * layout.rows * layout.columns
    half = layout.photometric == "YBR_FULL_422" and layout.samples == 3
    need = -(-pixels // 8) if layout.bits_allocated == 1 else pixels * layout.samples * layout.bits_allocated // 8
    need = pixels * 2 if half else need
    if len(raw) < need:
        got = f"{len(raw):,} of {need:,} bytes"
        raise ImageRefused(expected("complete pixel data", got, "the file is cut short: fetch it again"))
    behind = any(raw[need:])
    shape: tuple[int, ...] = (frames, layout.rows, layout.columns)
    if layout.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8, need), count=pixels, bitorder="little")
        return bits.reshape(shape), behind
    big = syntax == _BIG
    if big and layout.bits_allocated == 8 and dataset["PixelData"].VR == "OW":
        raw = np.frombuffer(raw[: len(raw) // 2 * 2], ">u2").astype("<u2").tobytes()  # PS3.5 8.1.1
    dtype = np.dtype(f"{'>' if big else '<'}u{layout.bits_allocated // 8}")
    flat = np.frombuffer(raw, dtype, need // dtype.itemsize).astype(dtype.newbyteorder("="))
    if half:
        return _upsampled(flat, shape), True
    if layout.samples == 1:
        return flat.reshape(shape), behind
    if int(dataset.get("PlanarConfiguration") or 0) == 1:
        return np.ascontiguousarray(np.moveaxis(flat.reshape(frames, 3, *shape[1:]), 1, -1)), behind
    return flat.reshape(*shape, 3), behind


def _upsampled(flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Two pixels are stored as Y1 Y2 Cb Cr: PS3.3 C.7.6.3.1.2, YBR_FULL_422."""
    quads = flat.reshape(-1, 4)
    full = np.empty((len(quads), 2, 3), flat.dtype)
    full[:, :, 0] = quads[:, :2]
    full[:, :, 1:] = quads[:, None, 2:]
    return full.reshape(*shape, 3)


def _without_hidden_bits(values: NDArray[Any], dataset: Dataset, *, native: bool) -> tuple[NDArray[Any], bool]:
    """Values with nothing outside Bits Stored but the sign, and whether anything else lay there."""
    size = values.dtype.itemsize
    stored = int(dataset.get("BitsStored") or 8 * size)
    high = int(dataset.get("HighBit") or stored - 1)
    if not native or not 1 <= stored < 8 * size or not stored - 1 <= high < 8 * size:
        return values, False
    words = values.view(f"u{size}")
    mask = words.dtype.type(((1 << stored) - 1) << (high + 1 - stored))
    cut = words & mask
    if values.dtype.kind == "i" and high < 8 * size - 1:
        negative = (words >> words.dtype.type(high)) & words.dtype.type(1) == 1
        extended = np.where(negative, cut | ~words.dtype.type((1 << (high + 1)) - 1), cut)
        if bool(((words == cut) | (words == extended)).all()):
            return values, False
        return extended.view(values.dtype), True
    return (values, False) if np.array_equal(cut, words) else (cut.view(values.dtype), True)


def _shown(frame: NDArray[Any], photometric: str, dataset: Dataset) -> NDArray[Any]:
    """A frame as a person sees it: grey values as stored, colour as 8-bit RGB."""
    if frame.ndim == 3:
        peak = float((1 << int(dataset.get("BitsStored") or 8 * frame.dtype.itemsize)) - 1)
        rgb = ybr_to_rgb(frame, peak) if photometric.startswith("YBR") and photometric != "YBR_RCT" else frame
        return np.asarray(np.clip(rgb.astype(np.float32) * (255 / peak), 0, 255), np.uint8)
    if photometric != "PALETTE COLOR":
        return frame
    return _through_palette(frame, dataset)


def _through_palette(frame: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    try:
        with quiet():
            rgb = apply_color_lut(frame, dataset)[..., :3]
    except Exception:  # missing or short tables
        cure = "convert it to RGB"
        raise UnsupportedImage(expected("a complete palette", "an unusable one in this file", cure)) from None
    return (rgb >> (8 * (rgb.dtype.itemsize - 1))).astype(np.uint8)


def _black(frames: Frames, dataset: Dataset) -> Any:
    """What black is: the darkest value that the image has, so that a display window does not change."""
    values = frames.values
    if frames.photometric == "PALETTE COLOR":
        used = np.unique(values)
        return used[np.argmin(_through_palette(used[None, :], dataset).astype(int).sum(axis=-1))]
    if values.ndim == 4:
        centre = 1 << (8 * values.dtype.itemsize - 1)
        return np.array([0, centre, centre] if frames.photometric.startswith("YBR") else [0, 0, 0], values.dtype)
    return values.max() if frames.photometric == "MONOCHROME1" else values.min()


def _merged(boxes: Sequence[TextBox]) -> Iterator[Patch]:
    """One patch for each place: a box that lies in another, or is found again in the next frame, is left out."""
    kept: list[Patch] = []
    for box in sorted(boxes, key=lambda box: -(box.right - box.left) * (box.bottom - box.top)):
        inside = any(
            p.left <= box.left and p.top <= box.top and p.right >= box.right and p.bottom >= box.bottom for p in kept
        )
        if not inside:
            kept.append(Patch(box.left, box.top, box.right, box.bottom))
    yield from sorted(kept, key=lambda patch: (patch.top, patch.left))
