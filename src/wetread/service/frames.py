"""Files that hold several frames: which of them are read, and one frame as a file of its own.

Decided here: a frame is taken out without being decoded, so that its pixels are those of the file: the bytes of a
DICOM frame with the header of the file and its own functional groups (PS3.3 C.7.6.16.2), the page of a TIFF as the only
one of its chain. The file made of a frame says which one it was, has a UID that follows from both, and is the same each
time. Of few frames each is read, of many :data:`READ_AT_MOST` that lie evenly; a person may ask for any other.
"""

from __future__ import annotations

import hashlib
import io
import struct
from typing import TYPE_CHECKING, Any

from wetread.errors import ImageRefused, UnsupportedImage, expected

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = ["MOST_FRAMES", "READ_AT_MOST", "dicom_frame", "frames_to_read", "tiff_page", "tiff_pages"]

READ_AT_MOST = 3
MOST_FRAMES = 4096
"""More are refused: a minute of fluoroscopy at 30 frames a second has 1800."""

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_OF_ALL_FRAMES = (
    "FrameIncrementPointer", "FrameTimeVector", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "NumberOfFrames",
)  # fmt: skip
_NEW_SUBFILE_TYPE, _SHORT, _CLASSIC_ENTRY = 254, 3, 12
_CURE = "the file is damaged or cut short: fetch it again"


def frames_to_read(count: int) -> tuple[int, ...]:
    """Which of ``count`` frames, counted from 1, are read without being asked for: all, or some that lie evenly."""
    wanted = min(count, READ_AT_MOST)
    return tuple((2 * number + 1) * count // (2 * wanted) + 1 for number in range(wanted))


def dicom_frame(data: bytes, frame: int) -> bytes:
    """Frame ``frame``, counted from 1, of a DICOM file as a file of one frame.

    Raises:
        ImageRefused: there is no such frame, or the file is damaged.
        UnsupportedImage: frames of one bit, whose bytes are shared, or more than :data:`MOST_FRAMES`.
    """
    from pydicom import dcmread

    from wetread.imaging.header import quiet

    with quiet():
        try:
            dataset = dcmread(io.BytesIO(data), force=True)
            made = _single(dataset, frame)
            target = io.BytesIO()
            made.save_as(target, enforce_file_format=True)
        except (ImageRefused, MemoryError):
            raise
        except Exception:  # pydicom's readers and writers raise of all kinds
            raise ImageRefused(
                expected(f"a DICOM file with a frame {frame}", "none that can be cut out", _CURE)
            ) from None
    return target.getvalue()


def tiff_pages(data: bytes) -> tuple[int, ...]:
    """Where the pages of a TIFF begin, thumbnails left out: offsets in bytes (TIFF 6.0, section 2; BigTIFF).

    Raises:
        ImageRefused: a chain that leads out of the file or back to itself.
        UnsupportedImage: more than :data:`MOST_FRAMES`.
    """
    return tuple(page for page, thumbnail, _ in _chain(data) if not thumbnail)


def tiff_page(data: bytes, page: int) -> bytes:
    """Page ``page``, counted from 1, of a TIFF as the only one: the first link of the chain leads to it, its own ends.

    Raises:
        ImageRefused: there is no such page, or the file is damaged.
    """
    whole = [(offset, link) for offset, thumbnail, link in _chain(data) if not thumbnail]
    if not 1 <= page <= len(whole):
        raise ImageRefused(expected(f"a page from 1 to {len(whole)}", str(page), "ask for one of them"))
    offset, link = whole[page - 1]
    order, width, _, first = _tiff_layout(data)
    changed = bytearray(data)
    struct.pack_into(f"{order}{width}", changed, first, offset)
    struct.pack_into(f"{order}{width}", changed, link, 0)
    return bytes(changed)


def _tiff_layout(data: bytes) -> tuple[str, str, str, int]:
    """Byte order, letters of struct for an offset and for a count of entries, and where the first offset stands."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")  # BigTIFF has offsets of 8 bytes
    return (order, "Q", "Q", 8) if big else (order, "I", "H", 4)


def _chain(data: bytes) -> list[tuple[int, bool, int]]:
    """For each directory of a TIFF: its offset, whether it is a thumbnail, where the offset of the next one stands."""
    order, width, count, at = _tiff_layout(data)
    entry = 20 if width == "Q" else 12
    found: list[tuple[int, bool, int]] = []
    try:
        while offset := struct.unpack_from(f"{order}{width}", data, at)[0]:
            (entries,) = struct.unpack_from(f"{order}{count}", data, offset)
            begin = offset + struct.calcsize(f"={count}")
            at = begin + entries * entry
            found.append((offset, _is_thumbnail(data, order, range(begin, at, entry)), at))
            if len(found) > MOST_FRAMES:
                raise _too_many("more, or a chain without an end")
    except struct.error:
        raise ImageRefused(expected("a TIFF whose directories lie within it", "one beyond its end", _CURE)) from None
    return found


def _is_thumbnail(data: bytes, order: str, entries: range) -> bool:
    """NewSubfileType (tag 254), bit 0: a version of another image at lower resolution."""
    for entry in entries:
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag == _NEW_SUBFILE_TYPE:
            value = entry + (entries.step - struct.calcsize("=I" if entries.step == _CLASSIC_ENTRY else "=Q"))
            return bool(struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", data, value)[0] & 1)
    return False


def _single(dataset: FileDataset, frame: int) -> FileDataset:
    from pydicom.dataset import Dataset

    count = int(dataset.NumberOfFrames)
    if count > MOST_FRAMES:
        raise _too_many(str(count))
    pixels, compressed = _bytes_of(dataset, count, frame)
    source = Dataset()
    source.ReferencedSOPClassUID = dataset.get("SOPClassUID", "")
    source.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    source.ReferencedFrameNumber = frame
    for keyword in _OF_ALL_FRAMES:
        if keyword in dataset:
            delattr(dataset, keyword)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups:
        dataset.PerFrameFunctionalGroupsSequence = [groups[frame - 1]]
        dataset.NumberOfFrames = 1  # an enhanced object has the element in any case
    dataset.SourceImageSequence = [source]
    dataset.SOPInstanceUID = _uid(f"{source.ReferencedSOPInstanceUID} {frame}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = compressed
    return dataset


def _bytes_of(dataset: FileDataset, count: int, frame: int) -> tuple[bytes, bool]:
    """The stored bytes of one frame, ready to be Pixel Data, and whether they are compressed (PS3.5 A.4)."""
    from pydicom.encaps import encapsulate, get_frame

    if not 1 <= frame <= count:
        raise ImageRefused(expected(f"a frame from 1 to {count}", str(frame), "ask for one of them"))
    raw = dataset.PixelData
    if str(dataset.file_meta.TransferSyntaxUID) not in _NATIVE:
        return encapsulate([get_frame(raw, frame - 1, number_of_frames=count)]), True
    bits = int(dataset.BitsAllocated)
    if bits % 8:
        got = f"frames of {bits} bit"
        raise UnsupportedImage(expected("frames of whole bytes", got, "export the frame to read as one image"))
    samples = (
        2 if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else int(dataset.get("SamplesPerPixel", 1))
    )
    size = int(dataset.Rows) * int(dataset.Columns) * samples * bits // 8
    if size <= 0 or len(raw) < count * size:
        got = f"{len(raw):,} of {count * size:,} bytes"
        raise ImageRefused(expected("complete pixel data", got, _CURE))
    cut = raw[(frame - 1) * size : frame * size]
    return cut + b"\0" * (len(cut) % 2), False


def _too_many(got: str) -> UnsupportedImage:
    return UnsupportedImage(expected(f"at most {MOST_FRAMES} frames", got, "divide the file"))


def _uid(text: str) -> Any:
    """A UID under 2.25 (PS3.5 B.2) that follows from ``text``."""
    from pydicom.uid import UID

    return UID(f"2.25.{int(hashlib.sha256(text.encode()).hexdigest()[:32], 16)}")
