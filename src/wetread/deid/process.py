"""One file: from its bytes to a de-identified data set, or to the reason why there is none.

Decided here: what cannot be shown to be clean is quarantined. That is every object without pixels but structured
reports, video, pixels that cannot be decoded, text that is still read after three rounds of blacking out, and any
string of the patient that the written file still holds.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from wetread.deid.header import HeaderWork, clean_header, patient_of, state_methods
from wetread.deid.identity import Identity, identity_of
from wetread.deid.key import Key
from wetread.deid.options import Options
from wetread.deid.pixels import EXPLICIT_LITTLE, Frames, black_out, decode, encode, frames_text, needs_search
from wetread.deid.records import FileResult, Region
from wetread.errors import ImageRefused
from wetread.imaging.header import DEFLATED, quiet
from wetread.imaging.sniff import kind_of

__all__ = ["Cleaned", "Quarantined", "Setup", "Skipped", "clean", "parse"]

_STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88."
_DIRECTORY = "1.2.840.10008.1.3.10"
_VIDEO = tuple(f"1.2.840.10008.1.2.4.10{digit}" for digit in range(10))
_LOSSY = {f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "51", "81", "91", "203", "110", "112")}
_BIG = "1.2.840.10008.1.2.2"
_BULK_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_ROUNDS = 3
_HEADER_BYTES = 64 << 20
_IMPLEMENTATION = UID("2.25.302498158263105127352217409413517420921")


class Quarantined(Exception):
    """A file that is not claimed to be clean; the text says why and names no patient."""


class Skipped(Exception):
    """A file that is no DICOM object to de-identify; the text says what it is."""


@dataclass(frozen=True)
class Setup:
    """What holds for all files of a run; ``budget_bytes`` limits the decoded pixels of one."""

    key: Key
    options: Options = field(default_factory=Options)
    budget_bytes: int = 512 << 20


@dataclass
class Cleaned:
    """A de-identified data set with what is needed to write, check and report it.

    ``original``: the header as it came, without pixels. ``frames`` is None where the pixels were not decoded.
    """

    dataset: Dataset
    original: Dataset
    identity: Identity
    work: HeaderWork
    frames: Frames | None
    place: Path
    methods: tuple[str, ...]
    searched: bool
    lossy: bool

    def result(self, number: int, source: str) -> FileResult:
        """The facts for the report."""
        data, frames = self.dataset, self.frames
        patches = frames.patches if frames is not None else []
        return FileResult(
            number=number,
            source=source,
            status="written",
            output=self.place.as_posix(),
            kind=UID(data.SOPClassUID).name,
            modality=str(data.get("Modality") or ""),
            rows=data.get("Rows"),
            columns=data.get("Columns"),
            frames=len(frames.values) if frames is not None else int(data.get("NumberOfFrames") or 0),
            searched=self.searched,
            regions=tuple(Region(left=p.left, top=p.top, right=p.right, bottom=p.bottom) for p in patches),
            pixels_rewritten=frames is not None and frames.changed,
            lossy_source=self.lossy,
            removed=self.work.removed,
            replaced=self.work.replaced,
            scrubbed=self.work.scrubbed,
            private_kept=self.work.private,
            methods=self.methods,
        )


def parse(data: bytes, budget_bytes: int) -> tuple[Dataset, str]:
    """A data set with all its values converted, and its transfer syntax.

    Raises:
        Skipped: no DICOM file, or a DICOMDIR.
        Quarantined: damaged, or inflating beyond the budget.
    """
    kind = kind_of(data[:4096])
    if kind != "DICOM":
        raise Skipped(f"{kind}, not DICOM")
    with quiet():
        try:
            dataset = dcmread(BytesIO(_inflatable(data, budget_bytes)), force=True)
            _convert(dataset)
        except Quarantined:
            raise
        except Exception:  # pydicom lets struct, zlib, Unicode and nine more classes escape
            raise Quarantined("the file is damaged") from None
    syntax = str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID") or "")
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = "1.2.840.10008.1.2.2" if little is False else ("1.2.840.10008.1.2" if implicit else EXPLICIT_LITTLE)
    meta = getattr(dataset, "file_meta", Dataset())
    if _DIRECTORY in (str(dataset.get("SOPClassUID")), str(meta.get("MediaStorageSOPClassUID"))):
        raise Skipped("a DICOMDIR, whose table names patients")
    if not dataset.get("SOPClassUID") or not dataset.get("SOPInstanceUID"):
        raise Quarantined("no SOP Class UID or SOP Instance UID")
    plain = Dataset()  # without memory of its encoding, so that it can be written in another
    plain.update({element.tag: element for element in dataset})
    if syntax == _BIG:
        _swap(plain)
    return plain, syntax


def clean(data: bytes, setup: Setup) -> Cleaned:
    """De-identify one file held in memory.

    Raises:
        Skipped: no DICOM object to de-identify.
        Quarantined: it cannot be shown to be clean.
    """
    dataset, syntax = parse(data, setup.budget_bytes)
    options = setup.options
    _require_kind(dataset, syntax)
    identity = identity_of(dataset, keep_uids=options.retain_uids, keep_device=options.retain_device)
    work = HeaderWork(setup.key, options, identity, patient_of(dataset))
    searched = "PixelData" in dataset and needs_search(dataset)
    place = _place(dataset, work)
    original = _without_pixels(dataset)
    with quiet():
        frames = _clean_pixels(dataset, syntax, identity, searched, setup) if "PixelData" in dataset else None
        lossy = syntax in _LOSSY or str(dataset.get("LossyImageCompression") or "") == "01"
        clean_header(dataset, work)
        methods = state_methods(dataset, work, pixels=searched)
        written = EXPLICIT_LITTLE
        if frames is not None and (frames.changed or syntax == DEFLATED):
            encode(dataset, frames)
        elif "PixelData" in dataset and UID(syntax).is_encapsulated:
            written = syntax
        if lossy and "PixelData" in dataset:
            dataset.LossyImageCompression = "01"  # once lossy, always lossy: PS3.3 C.7.6.1.1.5
        _restate_meta(dataset, written)
    return Cleaned(dataset, original, identity, work, frames, place, methods, searched, lossy)


def _require_kind(dataset: Dataset, syntax: str) -> None:
    sop_class = str(dataset.SOPClassUID)
    if sop_class.startswith(_STRUCTURED_REPORT):
        return
    if syntax.startswith(_VIDEO):
        raise Quarantined("video, whose frames are not searched for text")
    if "PixelData" not in dataset or "EncapsulatedDocument" in dataset:
        name = UID(sop_class).name if UID(sop_class).is_private is False else "a private class"
        raise Quarantined(f"an object without pixels ({name[:64]}) cannot be shown to be clean")


def _clean_pixels(dataset: Dataset, syntax: str, identity: Identity, searched: bool, setup: Setup) -> Frames:
    """Decode, search, black out and search again, until nothing is read any more."""
    try:
        frames = decode(dataset, syntax, setup.budget_bytes)
        frames.tidied |= identity.found_in_bytes(dataset.PixelData)  # a comment in a JPEG, say
        if not searched:
            return frames
        for _ in range(_ROUNDS):
            boxes = frames_text(frames, dataset)
            if not boxes:
                return frames
            black_out(frames, boxes, dataset)
        boxes = frames_text(frames, dataset)
    except ImageRefused as error:
        raise Quarantined(f"its pixels cannot be searched for text: {error}") from None
    if boxes:
        named = any(identity.near(box.text) for box in boxes)
        raise Quarantined(f"text is still read in the pixels after {_ROUNDS} rounds{', the name among it' * named}")
    return frames


def _place(dataset: Dataset, work: HeaderWork) -> Path:
    """Folder of the patient, of the study, and the file: tokens that the key gives, so that no name is left in them."""
    key = work.key
    study = key.token("study", str(dataset.get("StudyInstanceUID") or ""))
    series = key.token("series", str(dataset.get("SeriesInstanceUID") or ""))
    return Path(key.patient(work.patient), study, series, f"{key.token('instance', str(dataset.SOPInstanceUID))}.dcm")


def _restate_meta(dataset: Dataset, syntax: str) -> None:
    """File meta information made anew: titles of applications and private information do not pass."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "WETREAD"
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128


def _without_pixels(dataset: Dataset) -> Dataset:
    copy = Dataset()
    for element in dataset:
        if element.keyword != "PixelData":
            copy.add(element)
    return _deep(copy)


def _deep(dataset: Dataset) -> Dataset:
    import copy

    return copy.deepcopy(dataset)


def _inflatable(data: bytes, budget_bytes: int) -> bytes:
    """The bytes as they are; a deflated data set is first inflated with a limit, since pydicom has none."""
    if DEFLATED.encode() not in data[:4096] or data[128:132] != b"DICM":
        return data
    start = 132 + 12 + int.from_bytes(data[140:144], "little")  # group length (0002,0000) counts from its own end
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[start:], budget_bytes + _HEADER_BYTES)
    if inflater.unconsumed_tail:
        raise Quarantined("a deflated data set that inflates beyond the budget")
    return data


def _swap(dataset: Dataset) -> None:
    """Bulk values of a big endian file in little endian order; pixels are swapped where they are decoded."""
    for element in dataset:
        width = _BULK_BYTES.get(element.VR)
        if element.VR == "SQ":
            for item in element.value or ():
                _swap(item)
        elif width and element.keyword != "PixelData" and isinstance(element.value, bytes):
            whole = len(element.value) // width * width
            element.value = np.frombuffer(element.value[:whole], f">u{width}").astype(f"<u{width}").tobytes()


def _convert(dataset: Dataset) -> None:
    """Convert every value now; one that cannot be converted is removed, for it cannot be judged."""
    for tag in list(dataset.keys()):
        try:
            value: Any = dataset[tag].value
        except Exception:  # each VR fails in its own way
            del dataset[tag]
            continue
        for item in value if dataset[tag].VR == "SQ" else ():
            _convert(item)
