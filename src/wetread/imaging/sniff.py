"""What a file is, decided from its first bytes and never from its name."""

from __future__ import annotations

__all__ = ["READABLE", "kind_of"]

READABLE = ("DICOM", "PNG", "JPEG", "TIFF", "GIF", "BMP")
"""Kinds that :func:`wetread.imaging.load_image` reads."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"%PDF-", "a PDF document"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file outside DICOM"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream outside DICOM"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"NRRD", "an NRRD volume"),
    (b"8BPS", "a Photoshop document"),
    (b"{\\rtf", "an RTF document"),
)

_PDF_SEARCH_BYTES = 1024
"""PDF readers accept the header anywhere in the first kilobyte (ISO 32000-1, annex H, note 13)."""

_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT".split()
)


def kind_of(data: bytes) -> str:
    """Return a name of :data:`READABLE`, or words for what else the file is.

    DICOM comes first: a TIFF preamble in front of the ``DICM`` prefix is allowed by PS3.10 7.1.

    Args:
        data: The file's bytes; the first 4 KiB decide.
    """
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP image"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "a HEIF or AVIF image"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if b"%PDF-" in data[:_PDF_SEARCH_BYTES]:
        return "a PDF document"
    if data[344:347] in (b"n+1", b"ni1"):
        return "a NIfTI volume"
    return "DICOM" if _starts_like_dicom(data) else _text_or_unknown(data[:4096])


def _starts_like_dicom(data: bytes) -> bool:
    """Whether a data set starts at once, without the preamble and prefix of PS3.10 7.1."""
    if len(data) < 8 or data[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02"):
        return False
    little = data[1] == 0
    if data[4:6] in _VALUE_REPRESENTATIONS:
        return True
    length = int.from_bytes(data[4:8], "little" if little else "big")
    return length < min(len(data), 1 << 16)


def _text_or_unknown(head: bytes) -> str:
    # Latin-1 text has bytes above 127 as well, so only control characters speak against text.
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if control:
        return "a file of unknown kind"
    start = head.lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "a text file"
