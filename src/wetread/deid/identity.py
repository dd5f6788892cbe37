"""What identifies the patient of one file: the strings to look for, and the looking.

Decided here: names are split into parts; a part of three or four letters counts as a whole word only, a longer one
anywhere; numbers count from four digits, as a whole number; the day of birth and, where dates are moved, the dates of
the file count in every usual spelling. Accents and case do not matter. What a value holds is never shown in a message.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from wetread.deid.words import word_set

__all__ = ["Identity", "bytes_of", "elements", "identity_of", "is_class_uid", "looks_personal", "texts_of"]

_TEXT_KEYWORDS = word_set(
    """
    PatientID OtherPatientIDs AccessionNumber PatientAddress PatientTelephoneNumbers PatientBirthName
    PatientMotherBirthName OtherPatientNames MedicalRecordLocator AdmissionID ServiceEpisodeID InstitutionName
    InstitutionAddress InstitutionalDepartmentName CurrentPatientLocation PatientInstitutionResidence
    ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers OrderCallbackPhoneNumber PersonAddress
    PersonTelephoneNumbers PatientInsurancePlanCodeSequence InsurancePlanIdentification ResponsiblePerson
    ResponsibleOrganization FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest
    RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID SpecimenAccessionNumber
    CountryOfResidence RegionOfResidence CameraOwnerName VerifyingOrganization StudyID
    """
)
_DEVICE_KEYWORDS = frozenset({"StationName", "DeviceSerialNumber"})
_PARTICLES = word_set(
    """
    von van der den dos das del della des and the und herr frau mrs prof phd med geb street str strasse road
    avenue ave city hospital clinic klinik hopital medical center centre department dept radiology university
    general saint main north south east west unknown none anonymous patient test name doctor institute health
    """
)
_SHORTEST_WORD, _SHORTEST_INSIDE, _SHORTEST_NUMBER, _SHORTEST_BYTES = 3, 5, 4, 5
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(r"(?<!\d)(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{2,4})(?!\d)")
_PERSONAL = re.compile(
    rf"{_DATE.pattern}|\d(?:[\d\s()/-]{{4,}})\d|[\w.]+@[\w.]+|\b(?:mr|mrs|ms|dr|prof|herr|frau|geb|dob|born|name|mrn)\b|\^",
    re.IGNORECASE,
)
_CLASS_UID = re.compile("SOPClass|TransferSyntax|CodingSchemeUID|ContextUID|MappingResourceUID|ImplementationClass")
_PACKED = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_TEXT_VR = word_set("AE AS CS DA DT LO LT PN SH ST TM UC UI UR UT DS IS")


@dataclass(frozen=True)
class Identity:
    """Strings that identify the patient of one file, normalised.

    ``words``: whole words; ``inside``: found anywhere; ``numbers``: whole numbers; ``dates``: spellings of days;
    ``uids``: UIDs of the source, word for word.
    """

    words: frozenset[str] = frozenset()
    inside: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    dates: frozenset[str] = frozenset()
    uids: frozenset[str] = field(default_factory=frozenset, repr=False)

    def __repr__(self) -> str:
        count = sum(map(len, (self.words, self.inside, self.numbers, self.dates, self.uids)))
        return f"<Identity of {count} strings>"  # a traceback shows no name

    def found_in(self, text: str) -> bool:
        """Whether a text holds one of the strings."""
        if any(uid in text for uid in self.uids):
            return True
        plain = _plain(text)
        tokens = re.findall(r"[^\W_]+", plain)
        joined = "".join(tokens)
        if not self.words.isdisjoint(tokens) or any(part in joined for part in self.inside):
            return True
        if not self.numbers.isdisjoint(re.findall(r"\d+", plain)):
            return True
        if any(number in joined for number in self.numbers if len(number) > 6):
            return True
        return any(_mentions(spelled, plain) for spelled in self.dates)

    def near(self, text: str) -> bool:
        """Like :meth:`found_in` for text that was read from pixels: one wrong letter in six may be forgiven."""
        if self.found_in(text):
            return True
        joined = "".join(re.findall(r"[^\W_]+", _plain(text)))
        return any(_almost_in(part, joined) for part in (*self.inside, *self.numbers) if len(part) >= 6)

    def found_in_bytes(self, data: bytes) -> bool:
        """Whether bytes hold one of the longer strings as Latin-1, UTF-8 or UTF-16."""
        low = data.lower()
        return any(pattern in low for pattern in self._patterns())

    def found_as_number(self, text: str) -> bool:
        """Whether a decimal or integer string is one of the longer numbers; short ones come by chance."""
        return text.strip() in {number for number in self.numbers if len(number) > 6}

    def _patterns(self) -> Iterator[bytes]:
        for text in (*self.inside, *self.uids, *(n for n in self.numbers if len(n) > 8)):
            if len(text) >= _SHORTEST_BYTES:
                yield text.encode("utf-8")
                yield text.encode("utf-16-le")


def identity_of(dataset: Dataset, *, keep_uids: bool = False, keep_device: bool = False) -> Identity:
    """Collect what identifies the patient of a data set, its sequences included.

    Args:
        dataset: The source, all values converted.
        keep_uids: UIDs stay, so they are not looked for.
        keep_device: Names and numbers of devices stay.
    """
    words: set[str] = set()
    numbers: set[str] = set()
    days: set[date] = set()
    uids: set[str] = set()
    wanted = _TEXT_KEYWORDS if keep_device else _TEXT_KEYWORDS | _DEVICE_KEYWORDS
    for element in elements(dataset):
        if element.VR == "PN" or element.keyword in wanted:
            for text in texts_of(element):
                _split(text, words, numbers)
        elif element.VR in ("DA", "DT"):
            days |= {day for text in texts_of(element) if (day := _day(text)) is not None}
        elif element.VR == "UI" and not keep_uids:
            uids |= {text for text in texts_of(element) if _own_uid(element, text)}
    inside = frozenset(word for word in words if len(word) >= _SHORTEST_INSIDE)
    spelled = frozenset(form for day in days for form in _spellings(day))
    return Identity(frozenset(words), inside, frozenset(numbers), spelled, frozenset(uids))


def elements(dataset: Dataset) -> Iterator[DataElement]:
    """Every element of a data set and of the items below it."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value or ():
                yield from elements(item)


def texts_of(element: DataElement) -> list[str]:
    """The values of a text element as they read; other elements have none."""
    if element.VR not in _TEXT_VR or element.value is None:
        return []
    values: Any = element.value
    many = values if isinstance(values, (MultiValue, list, tuple)) else [values]
    return [str(value) for value in many if str(value)]


def bytes_of(element: DataElement) -> bytes:
    """The bytes of a binary value, or of a row of numbers: in Implicit VR a dictionary may take text for numbers."""
    if isinstance(element.value, bytes):
        return element.value
    code = _PACKED.get(element.VR)
    if code is None or not isinstance(element.value, (MultiValue, list, tuple)):
        return b""
    return struct.pack(f"<{len(element.value)}{code}", *element.value)


def is_class_uid(keyword: str, text: str) -> bool:
    """Whether a UID names a class, a syntax or a code, and so no patient, study or object."""
    return text.startswith("1.2.840.10008.") or _CLASS_UID.search(keyword) is not None


def looks_personal(text: str) -> bool:
    """Whether a free text looks as if it named somebody: a date, a long number, an address of mail, a title."""
    return _PERSONAL.search(text) is not None


def _own_uid(element: DataElement, text: str) -> bool:
    return len(text) >= 10 and not is_class_uid(element.keyword, text)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in folded if not unicodedata.combining(letter))


def _split(text: str, words: set[str], numbers: set[str]) -> None:
    for token in re.findall(r"[^\W_]+", _plain(text)):
        if token.isdigit():
            if len(token) >= _SHORTEST_NUMBER:
                numbers.add(token)
        elif _is_word(token):
            words.add(token)
    digits = re.sub(r"\D", "", text)
    if len(digits) >= 2 * _SHORTEST_NUMBER:
        numbers.add(digits)  # a telephone number or an ID whose groups are joined


def _is_word(token: str) -> bool:
    if not token.isascii():
        return len(token) >= 2  # two ideographs or Hangul syllables are a whole name
    return len(token) >= _SHORTEST_WORD and token not in _PARTICLES


def _day(text: str) -> date | None:
    digits = text.replace(".", "").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _spellings(day: date) -> Iterator[str]:
    year, month, number = day.year, day.month, day.day
    yield f"{year:04}{month:02}{number:02}"
    for mark in "-./ ":
        yield f"{year:04}{mark}{month:02}{mark}{number:02}"
        for first, second in ((number, month), (month, number)):
            yield f"{first:02}{mark}{second:02}{mark}{year:04}"
            yield f"{first}{mark}{second}{mark}{year:04}"
            yield f"{first:02}{mark}{second:02}{mark}{year % 100:02}"
    yield f"{number} {_MONTHS[month - 1]} {year:04}"
    yield f"{number:02} {_MONTHS[month - 1]} {year:04}"
    yield f"{number:02}-{_MONTHS[month - 1]}-{year:04}"
    yield f"{_MONTHS[month - 1]} {number}, {year:04}"


def _mentions(spelled: str, text: str) -> bool:
    return spelled in text and re.search(rf"(?<!\d){re.escape(spelled)}(?!\d)", text) is not None


def _almost_in(part: str, text: str) -> bool:
    """Whether a piece of ``text`` differs from ``part`` in one letter of six at most; same length pieces alone."""
    allowed = len(part) // 6
    return any(
        sum(a != b for a, b in zip(part, text[start : start + len(part)], strict=True)) <= allowed
        for start in range(len(text) - len(part) + 1)
    )
