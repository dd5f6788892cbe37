"""What the header of an upload says, read before anything is stored; no pixel is decoded.

Decided here: which patient data the worklist keeps (name, identifier, sex, age, title and date of the study), and
that two images are of one study only where the study's UID *and* the patient's identifier agree. What is known of a
file of several frames is what is known of its middle one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

from wetread.service.blobs import Quarantined
from wetread.service.frames import dicom_frame, frames_to_read, tiff_page, tiff_pages

__all__ = ["ImageHeader", "cut_frame", "group_key", "read_image_header"]

_STUDY_KEYWORDS = ("PatientName", "StudyDate", "StudyDescription", "InstanceNumber", "SpecificCharacterSet")
_LONGEST = 255
_NAME = "image"
"""Stands for the file's name everywhere: file names tell of patients."""


@dataclass(frozen=True)
class ImageHeader:
    """``rows`` and ``columns`` of the image and what is known of it.

    ``facts``: plain JSON by the names of :class:`~wetread.types.ImageFacts`, patient data left out; ``frames`` where
    the file holds several, ``frame`` and ``frame_of`` (a sha256) where the file was cut out of one. ``patient`` and
    ``study`` hold what their names say, by the columns of the table of studies.
    """

    sha256: str
    kind: str
    rows: int
    columns: int
    facts: dict[str, Any] = field(default_factory=dict)
    patient: dict[str, Any] = field(default_factory=dict)
    study: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def frames(self) -> int:
        """How many frames the file holds."""
        return int(self.facts.get("frames", 1))


def read_image_header(file: Quarantined, kind: str, budget_bytes: int) -> ImageHeader:
    """Read the header of an image in quarantine.

    Raises:
        ImageRefused: damaged, too small, over the budget; as :func:`wetread.imaging.load_image`.
    """
    from wetread.imaging.load import read_bytes

    data = read_bytes(file.path, budget_bytes)
    frames = _frames(data, kind, budget_bytes)
    if frames == 1:
        return _single(data, kind, file.sha256, budget_bytes)
    wanted = frames_to_read(frames)
    middle = _single(cut_frame(data, kind, wanted[len(wanted) // 2]), kind, file.sha256, budget_bytes)
    facts = {name: value for name, value in middle.facts.items() if name != "instance_uid"}
    return replace(middle, facts={**facts, "frames": frames})


def cut_frame(data: bytes, kind: str, frame: int) -> bytes:
    """One frame, counted from 1, of a DICOM or TIFF file as a file of its own. Raises as the module of frames says."""
    return dicom_frame(data, frame) if kind == "DICOM" else tiff_page(data, frame)


def _frames(data: bytes, kind: str, budget_bytes: int) -> int:
    """How many frames a file holds."""
    if kind == "DICOM":
        from wetread.imaging.header import read_header
        from wetread.imaging.history import History

        return max(1, read_header(data, _NAME, History(), budget_bytes).integer("NumberOfFrames") or 1)
    if kind == "TIFF":
        return max(1, len(tiff_pages(data)))
    return 1


def _single(data: bytes, kind: str, sha256: str, budget_bytes: int) -> ImageHeader:
    if kind == "DICOM":
        return _dicom(data, sha256, budget_bytes)
    from wetread.imaging.raster import raster_shape

    rows, columns = raster_shape(data, kind, _NAME, budget_bytes)
    return ImageHeader(sha256, kind, rows, columns, {"format": kind})


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
        hashes = sorted({header.sha256 for header in loose if "frame" not in header.facts})
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
