"""What the header of an upload says, read before anything is stored; no pixel is decoded.

Decided here: which patient data the worklist keeps (name, identifier, sex, age, title and date of the study), and
that two images are of one study only where the study's UID *and* the patient's identifier agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from wetread.service.blobs import Quarantined

__all__ = ["ImageHeader", "group_key", "read_image_header"]

_STUDY_KEYWORDS = ("PatientName", "StudyDate", "StudyDescription", "InstanceNumber", "SpecificCharacterSet")
_LONGEST = 255
_NAME = "image"
"""Stands for the file's name everywhere: file names tell of patients."""


@dataclass(frozen=True)
class ImageHeader:
    """``rows`` and ``columns`` of the image and what is known of it.

    ``facts``: plain JSON by the names of :class:`~wetread.types.ImageFacts`, patient data left out; ``patient`` and
    ``study`` hold those, by the columns of the table of studies.
    """

    sha256: str
    kind: str
    rows: int
    columns: int
    facts: dict[str, Any] = field(default_factory=dict)
    patient: dict[str, Any] = field(default_factory=dict)
    study: dict[str, Any] = field(default_factory=dict)
    number: int = 0


def read_image_header(file: Quarantined, kind: str, budget_bytes: int) -> ImageHeader:
    """Read the header of an image in quarantine.

    Raises:
        ImageRefused: damaged, too small, several frames, over the budget; as :func:`wetread.imaging.load_image`.
    """
    from wetread.imaging.load import read_bytes

    data = read_bytes(file.path, budget_bytes)
    if kind == "DICOM":
        return _dicom(data, file.sha256, budget_bytes)
    from wetread.imaging.raster import raster_shape

    rows, columns = raster_shape(data, kind, _NAME, budget_bytes)
    return ImageHeader(file.sha256, kind, rows, columns, {"format": kind})


def group_key(headers: Sequence[ImageHeader]) -> list[tuple[str, list[ImageHeader]]]:
    """Divide the images of one upload into studies: (key, images).

    Images with a study's UID belong to that study, all others of one upload to one study of their own.
    """
    groups: dict[str, list[ImageHeader]] = {}
    for header in headers:
        uid, patient = header.study.get("study_uid"), header.patient.get("patient_id")
        key = "" if not uid else "uid:" + hashlib.sha256(f"{uid}\n{patient or ''}".encode()).hexdigest()
        groups.setdefault(key, []).append(header)
    loose = groups.pop("", [])
    if loose:
        hashes = sorted({header.sha256 for header in loose})
        groups["images:" + hashlib.sha256("\n".join(hashes).encode()).hexdigest()] = loose
    return list(groups.items())


def _dicom(data: bytes, sha256: str, budget_bytes: int) -> ImageHeader:
    from wetread.imaging.facts import dicom_facts
    from wetread.imaging.header import read_header
    from wetread.imaging.history import History
    from wetread.imaging.pixels import read_layout

    header = read_header(data, _NAME, History(), budget_bytes)
    layout = read_layout(header, budget_bytes)
    found = dicom_facts(header, layout, sha256=sha256, bits=layout.bits_allocated, colour=0.0)
    more = _study_elements(data)
    kept = ("format", "photometric_interpretation", "spacing_mm", "modality", "body_part", "view", "laterality",
            "series_uid", "instance_uid", "transfer_syntax_uid")  # fmt: skip
    facts = {name: value for name, value in found.model_dump(mode="json", include=set(kept)).items() if value}
    patient = {
        "patient_id": _cut(found.patient),
        "patient_name": more.get("PatientName"),
        "patient_sex": _cut(found.sex, 16),
        "patient_age": found.age_years,
    }
    study = {
        "study_uid": _cut(found.study_uid, 128),
        "title": more.get("StudyDescription"),
        "study_date": _cut(more.get("StudyDate"), 16),
        "modality": _cut(found.modality, 16),
        "body_part": _cut(found.body_part, 64),
    }
    number = more.get("InstanceNumber") or ""
    whole = int(number) if number.isdigit() and len(number) < 9 else 0
    return ImageHeader(sha256, "DICOM", layout.rows, layout.columns, facts, patient, study, whole)


def _study_elements(data: bytes) -> dict[str, str]:
    """Text elements that the imaging layer does not keep; a value that cannot be read counts as absent."""
    from pydicom import dcmread

    from wetread.imaging.header import quiet

    found: dict[str, str] = {}
    with quiet():
        try:
            dataset = dcmread(BytesIO(data), force=True, stop_before_pixels=True, specific_tags=list(_STUDY_KEYWORDS))
            for keyword in _STUDY_KEYWORDS[:-1]:
                text = _cut(str(dataset.get(keyword, "") or ""))
                found |= {keyword: text} if text else {}
        except Exception:  # pydicom's converters raise of all kinds; the image itself was read
            return found
    return found


def _cut(value: str | None, longest: int = _LONGEST) -> str | None:
    """Text without control characters, of at most ``longest`` characters; None for none."""
    text = "".join(letter for letter in value or "" if letter.isprintable()).strip()
    return text[:longest] or None
