"""One decoder for each transfer syntax of compressed pixel data.

Decided here: which library decodes what. libjpeg-turbo does all of JPEG (baseline, extended
12 bit, lossless), CharLS JPEG-LS, OpenJPEG JPEG 2000, OpenJPH HTJ2K. All come with imagecodecs
and none is under the GPL. GDCM is left out for its open vulnerabilities (CVE-2026-3650).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ImageRefused, OverBudget, UnsupportedImage, expected
from wetread.imaging.codestream import Codestream, jpeg2000_header, jpeg_header

__all__ = ["Layout", "compressed_syntaxes", "decode_frame"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The Image Pixel Module of one frame (PS3.3 C.7.6.3), as far as decoding needs it."""

    name: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return -(-self.rows * self.columns * self.samples * self.bits_allocated // 8)


Decoder = Callable[[bytes, Layout], NDArray[Any]]


def decode_frame(data: bytes, transfer_syntax: str, layout: Layout) -> NDArray[Any]:
    """Decode one compressed frame.

    Args:
        data: The fragments of the frame, joined.
        transfer_syntax: Transfer Syntax UID (0002,0010).
        layout: What the header declares; the codestream must agree.

    Returns:
        Integers, shape (rows, columns) or (rows, columns, samples). Colour JPEG and JPEG 2000 come
        back as RGB, RLE in the file's own colour space.

    Raises:
        UnsupportedImage: If no decoder is known for the transfer syntax.
        ImageRefused: If the codestream is damaged or contradicts the header.
    """
    entry = _DECODERS.get(transfer_syntax)
    if entry is None:
        raise UnsupportedImage(
            expected(
                "a transfer syntax that wetread decodes (uncompressed, deflated, RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K)",
                f"{_safe_uid(transfer_syntax)} in {layout.name}",
                "convert it, for instance with dcmconv or dcmdjpeg",
            )
        )
    read_header, decoder = entry
    if read_header is not None:
        _require_agreement(read_header(data), layout)
    try:
        frame = decoder(data, layout)
    except (ImageRefused, MemoryError):
        raise
    except Exception:  # every codec has its own exception classes
        raise _damaged(layout, "compressed data that cannot be decoded") from None
    shape = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
    if frame.shape != shape:
        raise _damaged(layout, f"a decoded frame of shape {frame.shape} instead of {shape}")
    return frame


def compressed_syntaxes() -> tuple[str, ...]:
    """Return the UIDs of the compressed transfer syntaxes that can be decoded."""
    return tuple(_DECODERS)


def _require_agreement(header: Codestream | None, layout: Layout) -> None:
    if header is None:
        raise _damaged(layout, "compressed data without a frame header")
    stated = (header.rows, header.columns, header.components)
    declared = (layout.rows, layout.columns, layout.samples)
    if stated != declared:
        raise _damaged(
            layout,
            f"compressed data of {header.columns} x {header.rows} x {header.components} where the header says "
            f"{layout.columns} x {layout.rows} x {layout.samples}",
        )

    if not header.complete:
        raise _damaged(layout, "compressed data that is cut short")


def _damaged(layout: Layout, got: str) -> ImageRefused:
    cure = "the file is damaged: fetch it again"
    return ImageRefused(expected("a complete compressed frame", f"{got} in {layout.name}", cure))


def _safe_uid(uid: str) -> str:
    return uid if uid and len(uid) <= 64 and set(uid) <= set("0123456789.") else "no valid transfer syntax UID"


def _jpeg(data: bytes, layout: Layout) -> NDArray[Any]:
    """Baseline, extended (8 and 12 bit) and lossless JPEG by libjpeg-turbo 3.

    Fastest of the three lossless decoders in imagecodecs (2048 x 2048, 12 bit: 33 ms against 56 and
    97) and the only one that resamples chroma.
    """
    import imagecodecs

    if layout.samples == 1:
        frame = imagecodecs.jpeg8_decode(data)
    elif layout.photometric == "RGB":
        # Many RGB streams carry no Adobe marker, and libjpeg would take them for YCbCr.
        frame = imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    else:
        frame = imagecodecs.jpeg8_decode(data, colorspace="YCBCR", outcolorspace="RGB")
    return np.asarray(frame)


def _jpeg_lossless(data: bytes, layout: Layout) -> NDArray[Any]:
    """Lossless JPEG has no colour transform of its own: samples come back as stored."""
    import imagecodecs

    if layout.samples == 1:
        return np.asarray(imagecodecs.jpeg8_decode(data))
    return np.asarray(imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB"))


def _jpeg_ls(data: bytes, layout: Layout) -> NDArray[Any]:
    import imagecodecs

    frame = np.asarray(imagecodecs.jpegls_decode(data))
    if frame.ndim == 3 and frame.shape[0] == layout.samples != frame.shape[2]:
        frame = np.moveaxis(frame, 0, -1)  # interleave mode "none": (samples, rows, columns)
    return frame


def _jpeg_2000(data: bytes, layout: Layout) -> NDArray[Any]:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(data))


def _htj2k(data: bytes, layout: Layout) -> NDArray[Any]:
    import imagecodecs

    return np.asarray(imagecodecs.htj2k_decode(data))


def _rle(data: bytes, layout: Layout) -> NDArray[Any]:
    """RLE of PS3.5 annex G by imagecodecs, into a buffer of the frame's size and no larger.

    pylibjpeg-rle is as fast, but damaged segments make it panic past every ``except Exception``.
    """
    import imagecodecs

    width = layout.bits_allocated // 8
    segments = int.from_bytes(data[:4], "little")
    if width == 0 or segments != layout.samples * width:  # a segment for each byte of each sample, G.2
        raise _damaged(layout, f"{segments} RLE segments for {layout.samples} samples of {width} bytes")
    raw = imagecodecs.dicomrle_decode(data, f"<u{width}", out=bytearray(layout.frame_bytes))
    planes = np.frombuffer(raw, f"<u{width}").reshape(layout.samples, layout.rows, layout.columns)
    return planes[0] if layout.samples == 1 else np.moveaxis(planes, 0, -1)


def _deflated_frame(data: bytes, layout: Layout) -> NDArray[Any]:
    """Deflated Image Frame Compression, PS3.5 A.4.12: one raw deflate stream for a frame."""
    # One byte more than a frame shows that there is more; an odd frame is padded by one.
    raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, layout.frame_bytes + 2)
    if len(raw) > layout.frame_bytes + 1:
        what = f"{layout.frame_bytes} bytes of deflated pixels"
        raise OverBudget(expected(what, f"more in {layout.name}", "the file is not to be trusted: discard it"))
    if layout.samples != 1 or layout.bits_allocated == 1:
        got = f"{layout.samples} samples of {layout.bits_allocated} bits in {layout.name}"
        raise UnsupportedImage(expected("deflated frames of grayscale bytes", got, "convert it to uncompressed"))
    dtype = f"<u{layout.bits_allocated // 8}"
    return np.frombuffer(raw, dtype, layout.rows * layout.columns).reshape(layout.rows, layout.columns)


_JPEG_2000_ENTRY = (jpeg2000_header, _jpeg_2000)
_DECODERS: dict[str, tuple[Callable[[bytes], Codestream | None] | None, Decoder]] = {
    "1.2.840.10008.1.2.4.50": (jpeg_header, _jpeg),  # JPEG baseline, process 1
    "1.2.840.10008.1.2.4.51": (jpeg_header, _jpeg),  # JPEG extended, processes 2 and 4
    "1.2.840.10008.1.2.4.57": (jpeg_header, _jpeg_lossless),  # JPEG lossless, process 14
    "1.2.840.10008.1.2.4.70": (jpeg_header, _jpeg_lossless),  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": (jpeg_header, _jpeg_ls),  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": (jpeg_header, _jpeg_ls),  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": _JPEG_2000_ENTRY,  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": _JPEG_2000_ENTRY,  # JPEG 2000
    "1.2.840.10008.1.2.4.201": (jpeg2000_header, _htj2k),  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": (jpeg2000_header, _htj2k),  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203": (jpeg2000_header, _htj2k),  # HTJ2K
    "1.2.840.10008.1.2.5": (None, _rle),
    "1.2.840.10008.1.2.8.1": (None, _deflated_frame),
}
