"""Size of a compressed frame as its own header states it, read before a decoder sees it.

A decoder allocates what the codestream claims, not what the DICOM header claims; so the two are
compared first.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Codestream", "jpeg2000_header", "jpeg_header"]


@dataclass(frozen=True, slots=True)
class Codestream:
    """What the header of a codestream declares; ``precision`` in bits for a sample.

    ``complete``: False if the end marker is missing. libjpeg fills what is missing with gray.
    """

    rows: int
    columns: int
    components: int
    precision: int
    complete: bool


_JPEG_LS = 0xF7
_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})
"""DHT, JPG and DAC share the range of the frame headers (ITU-T T.81 table B.1)."""
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def jpeg_header(data: bytes) -> Codestream | None:
    """Read the frame header of a JPEG or JPEG-LS stream: ITU-T T.81 B.2.2, T.87 C.2.2.

    Returns:
        None if there is no frame header.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte, T.81 B.1.1.2
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker == _JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES):
            # In coded data 0xFF is never followed by 0xD9; thumbnails end before the frame header.
            return _frame(data[at + 4 : at + 10], complete=data.rfind(b"\xff\xd9") > at)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _frame(body: bytes, *, complete: bool) -> Codestream | None:
    if len(body) < 6:
        return None
    rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    return Codestream(rows, columns, components=body[5], precision=body[0], complete=complete)


def jpeg2000_header(data: bytes) -> Codestream | None:
    """Read the SIZ segment of a JPEG 2000 or HTJ2K stream: ITU-T T.800 A.5.1.

    Returns:
        None if there is no SIZ segment.
    """
    at = _codestream_start(data)
    body = data[at + 8 : at + 43]
    if data[at : at + 4] != b"\xff\x4f\xff\x51" or len(body) < 35:
        return None
    width, height, left, top = (int.from_bytes(body[i : i + 4], "big") for i in range(0, 16, 4))
    components = int.from_bytes(body[32:34], "big")
    precision = (body[34] & 0x7F) + 1
    return Codestream(height - top, width - left, components, precision, complete=True)


def _codestream_start(data: bytes) -> int:
    """Return where the codestream starts: 0, or behind the boxes of a JP2 file (T.800 I.4).

    DICOM wants bare codestreams (PS3.5 A.4.4) but JP2 files occur. The boxes are walked, not
    searched: a decoder would find the same start, whatever the boxes before it contain.
    """
    at = 0
    while data[:8] == b"\x00\x00\x00\x0cjP  " and at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"jp2c":
            return at + (16 if length == 1 else 8)
        if length < 8:
            return len(data)
        at += length
    return at
