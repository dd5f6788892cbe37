"""Reading of a DICOM header: tolerant, bounded, and silent about patients.

Decided here: only the elements that wetread uses are kept; a value that breaks the standard counts
as absent and is recorded; deflated data sets are inflated under the budget (a deflate stream can
grow a thousandfold); how often the parser reads and how long a value may be is bounded, because a file of
a few megabytes can hold millions of elements, items or numbers; pydicom's own warnings are counted, never
passed on, as they may quote values.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_preamble, read_sequence
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from wetread.errors import ImageRefused, OverBudget, expected
from wetread.imaging.history import History

__all__ = ["DEFLATED", "Header", "quiet", "read_bounded", "read_header"]

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Deflated Explicit VR Little Endian: everything after the file meta information is deflated."""

_HEADER_ALLOWANCE_BYTES = 64 << 20
"""What a deflated data set may hold beside its pixels."""

_PLAIN_BYTES, _RATIO = 64 << 20, 200
"""Above the former, how often its own size a deflated data set may fill: films shrink to a half, empty ones to a
hundredth."""
_INFLATE_BYTES = 1 << 20
_MAX_READS = 200_000
"""Calls of ``read`` for all elements, two for each: five times what an enhanced object of 1,000 frames needs."""
_ITEM = b"\xfe\xff\x00\xe0"
_BULK = ("OB", "OW", "OF", "OD", "OL", "OV", "UN")
_MAX_TEXT_BYTES, _MAX_NUMBERS_BYTES = 64 << 10, 256 << 10
"""Values that become objects, one for each number: a table of 65,536 entries is the largest that is known."""

_KEYWORD_TEXT = """
    SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality Manufacturer
    PatientID PatientSex PatientAge BodyPartExamined AnatomicRegionSequence ViewPosition ViewCodeSequence
    ImageLaterality Laterality BurnedInAnnotation PixelSpacing ImagerPixelSpacing
    Rows Columns SamplesPerPixel NumberOfFrames PlanarConfiguration PhotometricInterpretation BitsAllocated
    BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    ModalityLUTSequence RescaleSlope RescaleIntercept RescaleType VOILUTSequence WindowCenter WindowWidth
    WindowCenterWidthExplanation VOILUTFunction PresentationLUTShape
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    PixelData FloatPixelData DoubleFloatPixelData
"""

_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_OVERLAY_BIT_POSITION, _OVERLAY_DATA, _OVERLAY_ROWS = 0x0102, 0x3000, 0x0010

_TAGS: list[Any] = [tag_for_keyword(keyword) for keyword in _KEYWORD_TEXT.split()] + [
    group << 16 | element
    for group in _OVERLAY_GROUPS
    for element in (_OVERLAY_ROWS, _OVERLAY_BIT_POSITION, _OVERLAY_DATA)
]

_FUNCTIONAL_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")

_quiet_lock = threading.RLock()


class Header:
    """One data set, read by keyword. A value that is absent, empty or unreadable is None."""

    def __init__(self, dataset: Dataset, name: str, history: History) -> None:
        self.dataset = dataset
        self.name = name
        self.history = history

    def value(self, keyword: str) -> Any:
        """Return the raw value of an element."""
        value = self.dataset.get(keyword)
        return None if value is None or value == "" else value

    def text(self, keyword: str) -> str | None:
        """Return a text value (the first one of several), stripped."""
        values = _as_list(self.value(keyword))
        return (str(values[0]).strip() or None) if values else None

    def numbers(self, keyword: str) -> list[float]:
        """Return the finite numbers of an element, in order."""
        try:
            found = [float(value) for value in _as_list(self.value(keyword))]
        except (TypeError, ValueError):
            self.history.warn(f"header element {keyword} is no number and is taken as absent")
            return []
        return found if all(math.isfinite(value) for value in found) else []

    def number(self, keyword: str) -> float | None:
        """Return the first number of an element."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str) -> int | None:
        """Return the first number of an element if it is whole."""
        number = self.number(keyword)
        return int(number) if number is not None and number == int(number) else None

    def items(self, keyword: str) -> list[Header]:
        """Return the items of a sequence."""
        value = self.value(keyword)
        found = _as_list(value)
        return [Header(item, self.name, self.history) for item in found if isinstance(item, Dataset)]

    @property
    def transfer_syntax(self) -> str | None:
        """Transfer Syntax UID (0002,0010)."""
        meta = getattr(self.dataset, "file_meta", None)
        return None if meta is None else Header(meta, self.name, self.history).text("TransferSyntaxUID")

    @property
    def overlays(self) -> tuple[int, int]:
        """Number of overlay planes (PS3.3 C.9.2) and how many lie in unused pixel bits."""
        present = [group for group in _OVERLAY_GROUPS if (group, _OVERLAY_ROWS) in self.dataset]
        embedded = [group for group in present if (group, _OVERLAY_DATA) not in self.dataset]
        return len(present), len(embedded)


def read_header(data: bytes, name: str, history: History, budget_bytes: int) -> Header:
    """Parse a DICOM file held in memory.

    Args:
        data: The whole file.
        name: File name for messages.
        history: Takes the warnings.
        budget_bytes: Limit for the pixels; bounds the inflation of a deflated data set.

    Raises:
        OverBudget: If a deflated data set inflates beyond the budget, or the header has too many parts.
        ImageRefused: If the bytes cannot be parsed.
    """
    with quiet() as caught:
        try:
            left = [_MAX_READS]
            dataset = _parse(data, name, budget_bytes, left)
            _convert_values(dataset, history, left)
            _flatten_functional_groups(dataset)
        except (ImageRefused, MemoryError):
            raise
        except Exception:  # pydicom lets struct, zlib, Unicode and nine more classes escape
            cure = "the file is damaged or cut short: fetch it again"
            raise ImageRefused(expected("a DICOM file", f"an unreadable header in {name}", cure)) from None
    if caught:
        history.warn(f"the header breaks the standard in {len(caught)} places; read as far as possible")
    return Header(dataset, name, history)


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Catch pydicom's warnings and log lines, which may quote patient data.

    The lock keeps two threads from restoring each other's warning filters.
    """
    logger = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, logger.disabled = logger.disabled, True
        try:
            yield caught
        finally:
            logger.disabled = before


def read_bounded(data: bytes, *, implicit: bool) -> Dataset:
    """Parse an uncompressed little endian data set in memory, all of it converted, under the count of reads.

    Raises:
        OverBudget: It has too many parts.
        ImageRefused: It cannot be parsed.
    """
    left = [_MAX_READS]
    with quiet():
        try:
            dataset = read_dataset(_Counted(data, left), implicit, True)
            _convert_values(dataset, History(), left)
        except OverBudget:
            raise
        except Exception:  # pydicom lets struct, RecursionError and more escape
            raise ImageRefused(expected("a DICOM data set", "bytes that are none", "send it again")) from None
    return dataset


class _Counted(BytesIO):
    """A stream that pydicom may read only so often; ``left`` is shared with the sequences that come out of it."""

    def __init__(self, data: bytes, left: list[int]) -> None:
        super().__init__(data)
        self.left = left

    def read(self, size: int | None = -1, /) -> bytes:
        """Read; one call too many is an error, and an item of a sequence counts as four."""
        data = super().read(size)
        self.left[0] -= 4 if data[:4] == _ITEM else 1
        if self.left[0] < 0:
            cure = "look at where it comes from: no real header holds so much"
            raise OverBudget(expected(f"a header of at most {_MAX_READS:,} parts", "more", cure))
        return data


def _parse(data: bytes, name: str, budget_bytes: int, left: list[int]) -> Dataset:
    if data[128:132] == b"DICM" and DEFLATED.encode() in data[132:4096]:
        return _parse_deflated(data, name, budget_bytes, left)
    return dcmread(_Counted(data, left), force=True, specific_tags=_TAGS)


def _parse_deflated(data: bytes, name: str, budget_bytes: int, left: list[int]) -> Dataset:
    """Inflate what follows the file meta information (PS3.5 A.5), at most to the budget."""
    stream = cast(BinaryIO, BytesIO(data))
    read_preamble(stream, force=False)
    meta = _read_file_meta_info(stream)
    if str(meta.get("TransferSyntaxUID", "")) != DEFLATED:
        return dcmread(_Counted(data, left), force=True, specific_tags=_TAGS)
    packed = data[stream.tell() :]
    pixels = min(budget_bytes, max(_PLAIN_BYTES, _RATIO * len(packed)))
    limit = pixels + _HEADER_ALLOWANCE_BYTES
    if not _inflates_within(packed, limit):
        what = f"a deflated data set of at most {limit / 2**20:,.0f} MiB"
        raise OverBudget(expected(what, f"more in {name}", "inflate it with dcmconv if you trust the file"))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed)
    dataset = read_dataset(_Counted(inflated, left), False, True, specific_tags=_TAGS)
    dataset.file_meta = meta
    dataset.set_original_encoding(False, True)
    return dataset


def _inflates_within(packed: bytes, limit: int) -> bool:
    """Whether a stream gives no more than ``limit`` bytes; they are counted and thrown away."""
    inflater, left = zlib.decompressobj(-zlib.MAX_WBITS), limit
    while packed and left >= 0 and not inflater.eof:
        left -= len(inflater.decompress(packed, _INFLATE_BYTES))
        packed = inflater.unconsumed_tail
    return left >= 0


def _convert_values(dataset: Dataset, history: History, left: list[int]) -> None:
    """Convert every value now, so that no later access can fail or warn; drop what cannot be."""
    for tag in list(dataset.keys()):
        try:
            _bound(dataset, tag, left)
            value = dataset[tag].value
        except OverBudget:
            raise
        except Exception:  # pydicom converts values on first access; each VR fails in its own way
            history.warn(f"header element {keyword_for_tag(tag) or tag} cannot be read and is taken as absent")
            del dataset[tag]
            continue
        if isinstance(value, Sequence):
            for item in value:
                _convert_values(item, history, left)


def _bound(dataset: Dataset, tag: BaseTag, left: list[int]) -> None:
    """Make a sequence under the count of reads, and refuse a value that would become too many objects.

    Raises:
        ValueError: the value is longer than any real one.
    """
    raw: Any = dataset.get_item(tag)
    if not isinstance(raw, RawDataElement) or raw.value is None:
        return
    kind = raw.VR if raw.VR not in (None, "UN") else dictionary_VR(tag)
    if kind == "SQ":
        stream = cast(BinaryIO, _Counted(raw.value, left))
        implicit = raw.is_implicit_VR or raw.VR == "UN"  # PS3.5 6.2.2
        encoding = dataset.original_character_set
        items = read_sequence(stream, implicit, raw.is_little_endian, len(raw.value), encoding)
        dataset[tag] = DataElement(tag, "SQ", items)
    elif not any(bulk in kind for bulk in _BULK) or kind == "US or SS or OW":
        most = _MAX_NUMBERS_BYTES if kind.startswith(("US", "SS", "UL", "SL", "FL", "FD")) else _MAX_TEXT_BYTES
        if len(raw.value) > most:
            raise ValueError("too long")


def _flatten_functional_groups(dataset: Dataset) -> None:
    """Lift the macros of an enhanced object with one frame to where classic objects hold them.

    PS3.3 C.7.6.16: what differs between frames comes before what all share.
    """
    for keyword, macro in itertools.product(_FUNCTIONAL_GROUPS, _MACROS):
        group = _first_item(dataset, keyword)
        for element in _first_item(group, macro):
            if element.tag not in dataset:
                dataset.add(element)


def _first_item(dataset: Dataset, keyword: str) -> Dataset:
    items = [item for item in _as_list(dataset.get(keyword)) if isinstance(item, Dataset)]
    return items[0] if items else Dataset()


def _as_list(value: Any) -> list[Any]:
    """A value of multiplicity one comes bare from pydicom, others as a sequence."""
    if value is None:
        return []
    if isinstance(value, str | bytes):
        return [value]
    try:
        return list(value)
    except TypeError:
        return [value]
