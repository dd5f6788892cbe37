"""Reading of a DICOM header: tolerant, bounded, and silent about patients.

Decided here: only the elements that wetread uses are kept; a value that breaks the standard counts
as absent and is recorded; deflated data sets are inflated under the budget (a deflate stream can
grow a thousandfold); pydicom's own warnings are counted, never passed on, as they may quote values.
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
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_preamble
from pydicom.sequence import Sequence

from wetread.errors import ImageRefused, OverBudget, expected
from wetread.imaging.history import History

__all__ = ["DEFLATED", "Header", "quiet", "read_header"]

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Deflated Explicit VR Little Endian: everything after the file meta information is deflated."""

_HEADER_ALLOWANCE_BYTES = 64 << 20
"""What a deflated data set may hold beside its pixels."""

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
        OverBudget: If a deflated data set inflates beyond the budget.
        ImageRefused: If the bytes cannot be parsed.
    """
    with quiet() as caught:
        try:
            dataset = _parse(data, name, budget_bytes)
            _convert_values(dataset, history)
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


def _parse(data: bytes, name: str, budget_bytes: int) -> Dataset:
    if data[128:132] == b"DICM" and DEFLATED.encode() in data[132:4096]:
        return _parse_deflated(data, name, budget_bytes)
    return dcmread(BytesIO(data), force=True, specific_tags=_TAGS)


def _parse_deflated(data: bytes, name: str, budget_bytes: int) -> Dataset:
    """Inflate what follows the file meta information (PS3.5 A.5), at most to the budget."""
    stream = cast(BinaryIO, BytesIO(data))
    read_preamble(stream, force=False)
    meta = _read_file_meta_info(stream)
    if str(meta.get("TransferSyntaxUID", "")) != DEFLATED:
        return dcmread(BytesIO(data), force=True, specific_tags=_TAGS)
    limit = budget_bytes + _HEADER_ALLOWANCE_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data[stream.tell() :], limit)
    if inflater.unconsumed_tail:
        what = f"a deflated data set of at most {limit / 2**20:,.0f} MiB"
        raise OverBudget(expected(what, f"more in {name}", "raise the budget if you trust the file"))
    dataset = read_dataset(BytesIO(inflated), False, True, specific_tags=_TAGS)
    dataset.file_meta = meta
    dataset.set_original_encoding(False, True)
    return dataset


def _convert_values(dataset: Dataset, history: History) -> None:
    """Convert every value now, so that no later access can fail or warn; drop what cannot be."""
    for tag in list(dataset.keys()):
        try:
            value = dataset[tag].value
        except Exception:  # pydicom converts values on first access; each VR fails in its own way
            history.warn(f"header element {keyword_for_tag(tag) or tag} cannot be read and is taken as absent")
            del dataset[tag]
            continue
        if isinstance(value, Sequence):
            for item in value:
                _convert_values(item, history)


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
