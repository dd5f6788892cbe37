"""DICOM JSON (PS3.18 annex F) over the wire: what is taken, how much of it, and what is given.

Decided here: a body is checked for its shape and its size before pydicom sees it, because pydicom believes what it is
told; what the dictionary of the standard knows must have the standard's value representation; bulk data is refused,
which a workitem has none of (PS3.18 11.1.3). No error quotes what was sent: it may name a patient.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from wetread.imaging.header import quiet
from wetread.service.problems import Problem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["MEDIA_TYPES", "Json", "accepted", "first", "is_uid", "items", "parse", "tag", "text", "write"]

Json = dict[str, Any]
"""A data set in JSON: tag -> ``{"vr": …, "Value": […]}``."""

MEDIA_TYPES: Final = ("application/dicom+json", "application/json")
MOST_ELEMENTS, DEEPEST, LONGEST_TEXT = 20_000, 8, 10_240
"""Elements and values of one body together; sequences within sequences; characters of a text (VR LT, PS3.5 6.2)."""

_TAG = re.compile(r"[0-9A-F]{8}")
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXTS = frozenset({"AE", "AS", "AT", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
_NAME_PARTS = frozenset({"Alphabetic", "Ideographic", "Phonetic"})


def parse(body: bytes, content_type: str) -> Json:
    """One data set from a request: an object, or an array that holds one.

    Raises:
        Problem: ``unsupported``: another media type. ``bad_request``: no DICOM JSON, or more than is taken.
    """
    if content_type.partition(";")[0].strip().lower() not in MEDIA_TYPES:
        raise Problem("unsupported", f"expected a body of {MEDIA_TYPES[0]}", "Send DICOM JSON (PS3.18 annex F).")
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _bad("JSON", "a body that is none") from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise _bad("one data set, alone or in an array", "something else")
    checked = _Checker().dataset(found, 1)
    with quiet():
        try:
            return _without_empty(_dataset(checked).to_json_dict())
        except Exception:  # pydicom's converters raise of all kinds, and their texts quote values
            raise _bad("values that fit their value representation", "others") from None


def write(dataset: Dataset) -> Json:
    """A data set of our own as JSON."""
    with quiet():
        return _without_empty(dataset.to_json_dict())


def tag(keyword: str) -> str:
    """The key of an attribute."""
    from pydicom.datadict import tag_for_keyword

    number = tag_for_keyword(keyword)
    assert number is not None, keyword  # noqa: S101  keywords are those of this code
    return f"{number:08X}"


def items(data: Mapping[str, Any], keyword: str) -> list[Any]:
    """The values of an attribute; none where it is absent or empty."""
    return [one for one in data.get(tag(keyword), {}).get("Value", []) if one not in (None, "", {})]


def first(data: Mapping[str, Any], keyword: str) -> Json:
    """The first item of a sequence; empty where there is none."""
    found = items(data, keyword)
    return found[0] if found else {}


def text(data: Mapping[str, Any], keyword: str) -> str:
    """The first value of an attribute as text, stripped; of a person's name the alphabetic part."""
    found = items(data, keyword)
    value = found[0] if found else ""
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else value).strip()


def is_uid(value: str) -> bool:
    """Whether a text is a UID (PS3.5 9.1)."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def accepted(accept: str) -> str:
    """The media type to answer with, for the header ``Accept``; empty where none of ours is acceptable."""
    if not accept.strip():
        return MEDIA_TYPES[0]
    wanted = []
    for part in accept.lower().split(","):
        kind, *parameters = (one.strip() for one in part.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", one) for one in parameters):
            wanted.append(kind)
    if any(kind in ("*/*", "application/*", MEDIA_TYPES[0]) for kind in wanted):
        return MEDIA_TYPES[0]
    return MEDIA_TYPES[1] if MEDIA_TYPES[1] in wanted else ""


def _dataset(data: Json) -> Dataset:
    from pydicom.dataset import Dataset

    return Dataset.from_json(data)


def _without_empty(data: Json) -> Json:
    """Leave out ``Value`` where there is none (PS3.18 F.2.5); pydicom writes an empty array for a sequence."""
    kept: Json = {}
    for key, element in data.items():
        values = element.get("Value")
        if element["vr"] == "SQ" and values:
            kept[key] = {"vr": "SQ", "Value": [_without_empty(one) for one in values]}
        else:
            kept[key] = {"vr": element["vr"]} if values in (None, []) else element
    return kept


class _Checker:
    """Counts elements and values, and knows what each may be."""

    def __init__(self) -> None:
        self._left = MOST_ELEMENTS

    def dataset(self, data: Any, depth: int) -> Json:
        """A data set whose every part has the right shape, with its keys in upper case."""
        if not isinstance(data, dict):
            raise _bad("items that are data sets", "others")
        if depth > DEEPEST:
            raise _bad(f"at most {DEEPEST} sequences within one another", "more")
        self._count(data)
        return {self._key(key): self._element(self._key(key), element, depth) for key, element in data.items()}

    def _count(self, parts: Iterable[Any]) -> None:
        self._left -= sum(1 for _ in parts)
        if self._left < 0:
            raise _bad(f"at most {MOST_ELEMENTS} elements and values", "more")

    def _key(self, key: str) -> str:
        if not _TAG.fullmatch(key.upper()) or key[:4] in ("0000", "0002") or key.upper().startswith("FFFE"):
            raise _bad("keys that are tags of a data set, eight hexadecimal digits", "others")
        return key.upper()

    def _element(self, key: str, element: Any, depth: int) -> Json:
        if not isinstance(element, dict) or not set(element) <= {"vr", "Value"}:
            raise _bad(f"'vr' and 'Value' in ({key[:4]},{key[4:]})", "others; bulk data is not taken")
        vr, values = element.get("vr"), element.get("Value", [])
        if not isinstance(vr, str) or vr not in _known_vrs(key) or vr in _BINARY:
            raise _bad(f"the value representation of ({key[:4]},{key[4:]})", "another")
        if not isinstance(values, list):
            raise _bad(f"an array as value of ({key[:4]},{key[4:]})", "something else")
        self._count(values)
        if vr == "SQ":
            return {"vr": vr, "Value": [self.dataset(one, depth + 1) for one in values]} if values else {"vr": vr}
        if not all(one is None or _fits(vr, one) for one in values):
            raise _bad(f"values of ({key[:4]},{key[4:]}) that fit its value representation", "others")
        return {"vr": vr, "Value": values} if values else {"vr": vr}


def _known_vrs(key: str) -> Iterable[str]:
    """The value representations that a tag may have: of a private or unknown one, any."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    number = int(key, 16)
    return dictionary_VR(number).split(" or ") if dictionary_has_tag(number) else _NUMBERS | _TEXTS | {"PN", "SQ"}


def _fits(vr: str, value: Any) -> bool:
    if vr in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value)
    if vr == "PN" and isinstance(value, dict):
        return set(value) <= _NAME_PARTS and all(_is_text(part) for part in value.values())
    return vr in _TEXTS | {"DS", "IS", "SV", "UV"} and _is_text(value)


def _is_text(value: Any) -> bool:
    """Text that every database and every answer can hold: no NUL, no half of a pair of surrogates."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _bad(wanted: str, got: str) -> Problem:
    return Problem("bad_request", f"expected {wanted}, got {got}", "Send DICOM JSON (PS3.18 annex F).")
