"""Who an object is: the identifying elements of a stored data set, read under a budget.

Decided here: the parser sees the bytes through :class:`_Bounded`, which counts what it reads and how often,
so that a bomb (a million empty elements, nested sequences, a deflate stream) costs bounded work; it stops after
the last identifying element (0020,0010) and never converts a value that is not wanted.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from wetread.errors import ImageRefused, OverBudget, expected
from wetread.imaging.header import DEFLATED, quiet

__all__ = ["IMPLICIT", "ObjectHeader", "object_header", "printable"]

IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_MAX_READ_BYTES = 4 << 20
_MAX_READS = 40_000
"""Calls of ``read``: two or three for each element. A third of a second in pure Python."""
_MAX_DEFLATED_BYTES = 8 << 20

_WANTED = {
    0x00080005: "charset",
    0x00080016: "sop_class",
    0x00080018: "sop_instance",
    0x00080020: "study_date",
    0x00080050: "accession",
    0x00080060: "modality",
    0x00081030: "study_description",
    0x0008103E: "series_description",
    0x00100020: "patient",
    0x00101010: "age",
    0x00180015: "body_part",
    0x0020000D: "study",
    0x0020000E: "series",
}
_LAST_TAG = 0x0020000E


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """Identifying elements, stripped; an absent one is empty. ``age`` is as stored, e.g. ``045Y``."""

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    series: str = ""
    patient: str = ""
    modality: str = ""
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    study_date: str = ""
    accession: str = ""
    age: str = ""

    @property
    def age_years(self) -> float | None:
        """Patient's Age (0010,1010) in years, None where absent or malformed."""
        per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}.get(self.age[-1:])
        return int(self.age[:3]) / per_year if per_year and len(self.age) == 4 and self.age[:3].isdigit() else None


def object_header(path: Path, offset: int, transfer_syntax: str) -> ObjectHeader:
    """Read the identifying elements of the data set that begins at ``offset`` of ``path``.

    Raises:
        OverBudget: the header is larger than any real one.
        ImageRefused: it cannot be parsed.
    """
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return _parse(_inflated(file) if transfer_syntax == DEFLATED else file, transfer_syntax)
        except OverBudget:
            raise
        except Exception:  # pydicom lets struct, zlib, Unicode, RecursionError and more escape
            cure = "the object is damaged: send it again"
            raise ImageRefused(expected("a DICOM data set", "an unreadable header", cure)) from None


class _Bounded:
    """The part of a binary file that pydicom's reader uses, with a limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = _MAX_READ_BYTES
        self._reads = _MAX_READS
        self.name = ""

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes; more than the budget is an error before they are read."""
        self._reads -= 1
        self._bytes -= size
        if size < 0 or self._bytes < 0 or self._reads < 0:
            cure = "look at its sender: no real header needs so much"
            raise OverBudget(expected(f"a header of at most {_MAX_READ_BYTES >> 20} MiB", "more", cure))
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; counts as a read, so that skipped elements are counted too."""
        self._reads -= 1
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where we are."""
        return self._file.tell()


def _inflated(file: BinaryIO) -> BinaryIO:
    """The beginning of a deflated data set (PS3.5 A.5): its identifying elements come first."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    return io.BytesIO(inflater.decompress(file.read(_MAX_READ_BYTES), _MAX_DEFLATED_BYTES))


def _parse(file: BinaryIO, transfer_syntax: str) -> ObjectHeader:
    from pydicom.charset import convert_encodings, decode_bytes
    from pydicom.filereader import data_element_generator

    elements = data_element_generator(
        cast(BinaryIO, _Bounded(file)),
        transfer_syntax == IMPLICIT,
        transfer_syntax != _BIG_ENDIAN,
        stop_when=lambda tag, _vr, _length: tag > _LAST_TAG,
        specific_tags=cast(Any, list(_WANTED)),
    )
    found: dict[str, bytes] = {}
    for element in elements:
        raw = element.value
        if isinstance(raw, bytes) and int(element.tag) in _WANTED:
            found[_WANTED[int(element.tag)]] = raw[:4096]
    charsets = found.pop("charset", b"").decode("ascii", "replace").strip().split("\\")
    plain = all(raw.isascii() and b"\x1b" not in raw for raw in found.values())
    if plain:
        texts = {name: raw.decode("ascii") for name, raw in found.items()}
    else:
        with quiet():  # what pydicom says of characters that are none would quote them
            encodings = convert_encodings([name.strip() for name in charsets])
            texts = {name: decode_bytes(raw, encodings, set()) for name, raw in found.items()}
    return ObjectHeader(**{name: printable(text.strip("\0 ").split("\\")[0]) for name, text in texts.items()})


def printable(text: str) -> str:
    """``text`` with a question mark for whatever a terminal or a log would obey rather than show."""
    return "".join(character if character.isprintable() else "?" for character in text)
