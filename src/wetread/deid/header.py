"""The header: every element of a data set and of its sequences, by the table, by the options, or by its kind of value.

Decided here, beyond the table: private elements go except the numbers of PS3.15 E.3.10; elements that the dictionary
does not know, curves and overlays go; every UID that is not DICOM's own changes, so references stay intact; every
remaining name of a person goes, and so does every remaining long text. Where a text that stays holds a string of the
patient, the whole value becomes a dummy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from wetread import __version__
from wetread.deid.identity import Identity, bytes_of, is_class_uid, looks_personal, texts_of
from wetread.deid.key import Key
from wetread.deid.options import METHODS, Options, method_codes
from wetread.deid.profile import DESCRIPTORS, DEVICE, PATIENT, SAFE_PRIVATE, basic_profile
from wetread.deid.words import word_set

__all__ = ["DUMMY", "HeaderWork", "clean_header", "is_own_word", "patient_of", "state_methods"]

DUMMY = "REMOVED"
_GONE = object()
"""What an element that goes is replaced with; None is the value of an empty number."""

_DUMMY_DATE, _DUMMY_TIME = "19000101", "000000"
_OLDEST_YEARS = 89
_LONG_TEXT = ("LT", "ST", "UC", "UR", "UT")
_TEXT = ("AE", "CS", "LO", "SH", *_LONG_TEXT)
_NUMBERS = ("FD", "FL", "OD", "OF", "OL", "OV", "SL", "SS", "SV", "UL", "US", "UV")
_PRIVATE_KINDS = frozenset({"DS", "IS", "CS", "UN", *_NUMBERS})
_RECURSED = frozenset({"ContentSequence", "VerifyingObserverSequence"})
"""Sequences that the table replaces, and that are cleaned item by item instead (Clean Structured Content Option)."""
_CODED_WORDS = word_set(
    """
    ABDOMEN ANKLE ARM BRAIN BREAST CHEST CLAVICLE CSPINE ELBOW EXTREMITY EYE FEMUR FINGER FOOT FOREARM HAND HEAD
    HEART HIP HUMERUS JAW KNEE LEG LSPINE LUNG NECK PELVIS PROSTATE RIB SHOULDER SKULL SPINE STERNUM THIGH
    THORAX THUMB TOE TSPINE WRIST WHOLEBODY ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER OTHER NORMAL
    PORTABLE LEFT RIGHT
    """
)


@dataclass
class HeaderWork:
    """What one header needs, and what was done to it.

    ``patient``: the identifier that pseudonym and shift come from. ``removed``, ``replaced``, ``scrubbed``: counts.
    ``private``: private attributes that stayed. ``content``: a content tree was cleaned.
    """

    key: Key
    options: Options
    identity: Identity
    patient: str
    removed: int = 0
    replaced: int = 0
    scrubbed: int = 0
    private: int = 0
    content: bool = False
    actions: dict[int, Any] = field(default_factory=basic_profile)

    @property
    def shift(self) -> timedelta:
        """What is added to the dates of this patient."""
        return timedelta(days=self.key.shift_days(self.patient))


def patient_of(dataset: Dataset) -> str:
    """The identifier of the patient: Patient ID, else name and day of birth, else the study."""
    if identifier := str(dataset.get("PatientID") or "").strip():
        return identifier
    name, born = str(dataset.get("PatientName") or ""), str(dataset.get("PatientBirthDate") or "")
    return f"{name}\0{born}" if name.strip("^ ") else f"study\0{dataset.get('StudyInstanceUID', '')}"


def clean_header(dataset: Dataset, work: HeaderWork) -> None:
    """De-identify a data set in place; counts go into ``work``."""
    blocks = _private_blocks(dataset)
    for tag in list(dataset.keys()):
        element = dataset[tag]
        before = element.value
        kept = _cleaned(element, work, blocks)
        if kept is _GONE:
            del dataset[tag]
            work.removed += 1
        elif kept != before and element.VR != "SQ":
            element.value = kept
            work.replaced += 1
    _drop_empty_blocks(dataset)
    if "PatientID" in dataset or "PatientName" in dataset:
        dataset.PatientID = dataset.PatientName = work.key.patient(work.patient)


def state_methods(dataset: Dataset, work: HeaderWork, *, pixels: bool) -> tuple[str, ...]:
    """Write PS3.15's statement of what was done into the data set; return the codes of CID 7050."""
    codes = method_codes(work.options, pixels=pixels, content=work.content, private=work.private > 0)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"wetread {__version__}, PS3.15 2026c"[:64]
    dataset.DeidentificationMethodCodeSequence = [_code(code) for code in codes]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if work.options.retain_dates else "REMOVED"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    if pixels:
        dataset.BurnedInAnnotation = "NO"
    return codes


def is_own_word(element: DataElement) -> bool:
    """Whether a value is a term of the standard, which may happen to be somebody's name too."""
    if element.VR != "CS":
        return False
    return all(text.strip() in _CODED_WORDS for text in texts_of(element))


def _cleaned(element: DataElement, work: HeaderWork, blocks: dict[int, str]) -> Any:
    """The new value of an element, or :data:`_GONE`."""
    tag = element.tag
    if tag.is_private:
        return _private(element, work, blocks)
    if element.keyword == "SpecificCharacterSet" or not dictionary_has_tag(tag) or _is_repeating(tag):
        return _GONE  # the character set is stated anew, once
    if element.VR == "SQ":
        return _sequence(element, work)
    value = _by_profile(element, work)
    if value is _GONE or element.VR not in _TEXT or not _identifies(value, element, work):
        return value
    work.scrubbed += 1
    return DUMMY


def _by_profile(element: DataElement, work: HeaderWork) -> Any:
    tag, options = int(element.tag), work.options
    if options.retain_device and tag in DEVICE:
        return _dated(element, work) if element.VR in ("DA", "DT", "TM") else element.value
    if options.retain_patient_characteristics and tag in PATIENT:
        return _capped(element.value) if element.keyword == "PatientAge" else element.value
    if options.clean_descriptors and tag in DESCRIPTORS:
        return _described(element, work)
    if element.keyword == "AccessionNumber":
        return work.key.token("accession", str(element.value).strip()) if element.value else ""
    action = work.actions.get(tag)
    if element.VR in ("DA", "DT", "TM") and element.keyword not in ("PatientBirthDate", "PatientBirthTime"):
        return _dated(element, work)
    if action is None:
        return _by_kind(element, work)
    return _ACTIONS[action](element, work)


def _by_kind(element: DataElement, work: HeaderWork) -> Any:
    """What becomes of an element that the table does not name."""
    if element.VR == "UI":
        return _mapped(element, work)
    if element.VR == "PN":
        return ""
    if element.keyword == "TextValue":
        return _described(element, work) if work.options.clean_descriptors else DUMMY
    if element.VR in _LONG_TEXT or element.VR == "UN":
        return _GONE
    return element.value


def _sequence(element: DataElement, work: HeaderWork) -> Any:
    kept = element.keyword in _RECURSED or (work.options.retain_device and int(element.tag) in DEVICE)
    action = None if kept else work.actions.get(int(element.tag))
    work.content |= element.keyword == "ContentSequence"
    if action in ("remove", "dummy"):
        return _GONE
    if action == "empty":
        element.value = []
        return element.value
    for item in element.value or ():
        clean_header(item, work)
    return element.value


def _private(element: DataElement, work: HeaderWork, blocks: dict[int, str]) -> Any:
    if element.tag.is_private_creator:
        return element.value  # goes below where its block is left empty
    creator = blocks.get(element.tag.group << 16 | element.tag.element >> 8, "")
    listed = SAFE_PRIVATE.get((creator, element.tag.group), frozenset())
    if not work.options.retain_private or element.tag.element & 0xFF not in listed or element.VR not in _PRIVATE_KINDS:
        return _GONE
    if element.VR == "UN" and len(element.value or b"") > 64:
        return _GONE
    if _identifies(element.value, element, work):
        return _GONE
    work.private += 1
    return element.value


def _private_blocks(dataset: Dataset) -> dict[int, str]:
    """Group and block of each private creator -> its name."""
    return {
        tag.group << 16 | tag.element: str(dataset[tag].value or "").strip()
        for tag in list(dataset.keys())
        if tag.is_private_creator
    }


def _drop_empty_blocks(dataset: Dataset) -> None:
    tags = list(dataset.keys())
    used = {tag.group << 16 | tag.element >> 8 for tag in tags if tag.is_private and tag.element > 0xFF}
    for tag in [tag for tag in tags if tag.is_private and tag.element <= 0xFF]:
        if tag.group << 16 | tag.element not in used:
            del dataset[tag]


def _identifies(value: Any, element: DataElement, work: HeaderWork) -> bool:
    shown = DataElement(element.tag, element.VR, value)
    if work.identity.found_in_bytes(bytes_of(shown)):
        return True
    return not is_own_word(shown) and any(work.identity.found_in(text) for text in texts_of(shown))


def _described(element: DataElement, work: HeaderWork) -> Any:
    personal = any(work.identity.found_in(text) or looks_personal(text) for text in texts_of(element))
    return DUMMY if personal else element.value


def _remove(element: DataElement, work: HeaderWork) -> Any:
    return _GONE


def _empty(element: DataElement, work: HeaderWork) -> Any:
    return b"" if element.VR in ("OB", "OW", "UN") else (None if element.VR in _NUMBERS else "")


def _dummy(element: DataElement, work: HeaderWork) -> Any:
    if element.VR in ("PN", *_TEXT):
        return DUMMY
    if element.VR == "UI":
        return _mapped(element, work)
    if element.VR in ("DS", "IS"):
        return "0"
    if element.VR == "AS":
        return "000Y"
    return 0 if element.VR in _NUMBERS else _GONE


def _mapped(element: DataElement, work: HeaderWork) -> Any:
    if work.options.retain_uids:
        return element.value

    def new(value: Any) -> str:
        text = str(value)
        return text if not text or is_class_uid(element.keyword, text) else work.key.uid(text)

    return _each(element.value, new)


_ACTIONS: dict[str, Callable[[DataElement, HeaderWork], Any]] = {
    "remove": _remove,
    "empty": _empty,
    "dummy": _dummy,
    "uid": _mapped,
}


def _dated(element: DataElement, work: HeaderWork) -> Any:
    """A date moved, a time kept; without the option what the table says, with dummies for what must not be empty."""
    if work.options.retain_dates:
        if element.VR == "TM":
            return element.value
        return _each(element.value, lambda value: _moved(str(value), work.shift))
    action = work.actions.get(int(element.tag))
    if action == "dummy":
        return {"DA": _DUMMY_DATE, "TM": _DUMMY_TIME, "DT": _DUMMY_DATE + _DUMMY_TIME}[element.VR]
    return "" if action == "empty" else _GONE


def _moved(text: str, shift: timedelta) -> str:
    """A DA or DT with its day moved; one without a whole day says nothing afterwards."""
    digits = text.strip().replace(".", "", 2) if re.match(r"\d{4}\.\d{2}\.\d{2}$", text.strip()) else text.strip()
    found = re.match(r"(\d{4})(\d{2})(\d{2})", digits)
    if found is None:
        return ""
    try:
        day = date(int(found[1]), int(found[2]), int(found[3])) + shift
    except (ValueError, OverflowError):
        return ""
    return f"{day.year:04}{day.month:02}{day.day:02}{digits[8:]}"


def _capped(value: Any) -> Any:
    """Ages above 89 years are one group, as in the HIPAA rule of 45 CFR 164.514(b)(2)."""
    found = re.fullmatch(r"(\d{3})Y", str(value or "").strip())
    return "090Y" if found and int(found[1]) > _OLDEST_YEARS else value


def _each(value: Any, change: Callable[[Any], str]) -> Any:
    if value is None or value == "":
        return value
    if isinstance(value, (MultiValue, list, tuple)):
        return [change(one) for one in value]
    return change(value)


def _is_repeating(tag: BaseTag) -> bool:
    """Curves (50xx) and overlays (60xx), which may draw text, and padding behind the data set."""
    return tag.group & 0xFF00 in (0x5000, 0x6000) or tag.group == 0xFFFC


def _code(code: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", METHODS[code]
    return item
