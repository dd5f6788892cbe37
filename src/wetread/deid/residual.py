"""What is left: the written file is read anew and searched for every string of its patient.

Decided here: the search reads the bytes on disk, not the data set that was written, so that a fault of the writer is
found too; it covers text, private and binary values, the file meta information, the preamble and the names of file
and folders. What is found is named by its attribute, never by its value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from wetread.deid.header import is_own_word
from wetread.deid.identity import Identity, bytes_of, texts_of
from wetread.deid.words import word_set
from wetread.imaging.header import quiet

__all__ = ["left_in_file", "left_in_header"]

_OURS = word_set(
    """
    DeidentificationMethod DeidentificationMethodCodeSequence SpecificCharacterSet PatientIdentityRemoved
    LongitudinalTemporalInformationModified
    """
)
_PREAMBLE_BYTES = 128


def left_in_file(path: Path, place: Path, identity: Identity) -> list[str]:
    """Where strings of the patient are left in a written file: keywords, tags, ``preamble``, ``file name``.

    Args:
        path: The file.
        place: Its future path relative to the result.
        identity: What to look for.
    """
    with path.open("rb") as stream:
        preamble = stream.read(_PREAMBLE_BYTES)
    with quiet():
        dataset = dcmread(path)
        found = left_in_header(dataset.file_meta, identity) + left_in_header(dataset, identity)
    if any(preamble):
        found.append("preamble")
    if any(identity.found_in(part) for part in place.with_suffix("").parts):
        found.append("file name")
    return found


def left_in_header(dataset: Dataset, identity: Identity) -> list[str]:
    """Names of the attributes in which a string of the patient is left; empty where none is."""
    return sorted({_name(element) for element in _walk(dataset) if _holds(element, identity)})


def _walk(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        if element.keyword in _OURS:
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _walk(item)


def _holds(element: DataElement, identity: Identity) -> bool:
    if element.VR in ("DA", "DT", "TM", "SQ") or is_own_word(element):
        return False  # dates were moved or removed by rule; a moved one may meet another by chance
    if identity.found_in_bytes(bytes_of(element)):
        return True
    texts = texts_of(element)
    if element.VR in ("DS", "IS"):
        return any(identity.found_as_number(text) for text in texts)
    if element.VR == "UI":
        return any(text in identity.uids for text in texts)
    return any(identity.found_in(text) for text in texts)


def _name(element: DataElement) -> str:
    return keyword_for_tag(element.tag) or f"({element.tag.group:04X},{element.tag.element:04X})"
