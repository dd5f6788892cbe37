"""What a result object is made from, and the words that every one of them carries.

Decided here: an object that says other things is another object. Its instance UID follows from the image, the
reader's weights and all that the read says (not from names of files and timings), so that a re-run with the same
answer makes the same UID. Every object names the reader, the hash of its weights and the audit's verdict.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.pacs.derived import stable_uid
from wetread.reporting.words import is_failed
from wetread.types import LabelReading, ModelIdentity, Read

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "DEVICE_UID",
    "PRIVATE_SCHEME",
    "ResultFacts",
    "answer_line",
    "copy_series_elements",
    "device",
    "dimension_uid",
    "instance_uid",
    "reader_line",
    "series_description",
    "series_number",
    "series_uid",
    "shell",
    "tracking_uid",
    "warning_lines",
]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "wetread results")
PRIVATE_SCHEME = "99WETREAD"
"""Coding scheme of what no public one has a code for."""
DEVICE_UID = f"2.25.{uuid.uuid5(_NAMESPACE, 'device').int}"
"""Of the observer: this software, whatever machine it runs on."""

_COPIED = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *(
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
    ),
)
_SERIES = {"sr": 901, "heat": 902, "gsps": 903, "sc": 904, "pdf": 905}
"""Series numbers, past what a device numbers by itself; organ masks have 900."""
_WITH_HEAT = ("heat", "sc", "pdf")
"""Kinds that show the heat map; a report says the same with or without one, and is then the same object."""
_LONG_STRING = 64


@dataclass(frozen=True)
class ResultFacts:
    """One image read.

    ``film``: uint8 (h, w), the image as it is shown, at any size; None where no picture is wanted. ``heat``: label ->
    float32 (h, w) in [0, 1] on the same field of view. ``overlays``: label -> uint8 (h, w, 3), heat and boxes on the
    film. ``masks``: organ -> bool (rows, columns) of the original image, drawn by ``segmenter`` (None: by the reader).
    """

    read: Read
    film: NDArray[np.uint8] | None = None
    heat: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    overlays: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    segmenter: ModelIdentity | None = None


def answer_line(label: LabelReading) -> str:
    """One label in a few words."""
    if label.probability is None or label.decision == "withheld":
        return f"{label.label}: withheld. {label.reason}".strip()
    line = f"{label.label}: {label.decision}, probability {label.probability:.3f}"
    point = label.operating_point
    return f"{line} (positive from {point.threshold:.3f}, {point.name})" if point is not None else line


def reader_line(read: Read) -> str:
    """Which reader answered, with twelve digits of the hash of its weights."""
    return f"Reader {read.model.name} {read.model.version}, {read.model.sha256[:12]}, audit: {read.model.audit_verdict}"


def warning_lines(read: Read) -> list[str]:
    """What must stand on every object: the disclaimer, and the watermark of a failed audit."""
    failed = ["AUDIT FAIL: do not trust this reader"] if is_failed(read.model.audit_verdict) else []
    return [read.disclaimer.upper(), *failed]


def instance_uid(facts: ResultFacts, image: Dataset, kind: str) -> str:
    """The instance UID of the object of ``kind``."""
    said = facts.read.model_dump(mode="json", exclude={"timings_ms": True, "image": {"name"}})
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    shown = facts.heat if kind in _WITH_HEAT else {}
    for label, heat in shown.items():
        digest.update(label.encode() + (np.clip(heat, 0, 1) * 255).astype(np.uint8).tobytes())
    words = (kind, image.SOPInstanceUID, facts.read.model.sha256, _version(), digest.hexdigest())
    return str(stable_uid(_NAMESPACE, *words))


def series_uid(facts: ResultFacts, image: Dataset, kind: str) -> str:
    """The series UID: one series for each kind, study and reader."""
    words = (image.StudyInstanceUID, facts.read.model.name, facts.read.model.version, facts.read.model.sha256)
    return str(stable_uid(_NAMESPACE, "series", kind, *words))


def tracking_uid(facts: ResultFacts, image: Dataset, *what: object) -> str:
    """The tracking UID of a finding: the same for every re-run of this reader on this image."""
    return str(stable_uid(_NAMESPACE, "tracking", image.SOPInstanceUID, facts.read.model.sha256, *what))


def dimension_uid(instance: str) -> str:
    """The UID of the dimension organisation of a multi-frame object."""
    return str(stable_uid(_NAMESPACE, "dimensions", instance))


def device() -> dict[str, Any]:
    """Manufacturer and software, as keyword arguments of highdicom."""
    version = _version()
    names: dict[str, Any] = {"manufacturer": "wetread", "manufacturer_model_name": "wetread"}
    return names | {"software_versions": version, "device_serial_number": version}


def shell(facts: ResultFacts, image: Dataset, kind: str, *, sop_class: str, modality: str) -> Dataset:
    """A data set with patient, study, series, equipment and SOP common modules, and file meta information."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    data, now = Dataset(), datetime.now()
    for keyword in _COPIED:
        if keyword in image:
            data[keyword] = image[keyword]
    copy_series_elements(image, data)
    data.SOPClassUID, data.SOPInstanceUID = UID(sop_class), UID(instance_uid(facts, image, kind))
    data.SeriesInstanceUID, data.SeriesNumber = UID(series_uid(facts, image, kind)), _SERIES[kind]
    data.Modality, data.InstanceNumber = modality, max(1, int(image.get("InstanceNumber") or 1))
    data.SeriesDescription = series_description(facts, kind)
    data.Manufacturer = data.ManufacturerModelName = "wetread"
    data.SoftwareVersions = data.DeviceSerialNumber = _version()
    for part in ("Content", "InstanceCreation", "Series"):
        setattr(data, f"{part}Date", now.strftime("%Y%m%d"))
        setattr(data, f"{part}Time", now.strftime("%H%M%S"))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def copy_series_elements(image: Dataset, result: Dataset) -> None:
    """Copy the character set, the body part, and the side where one is due (type 2C of General Series, C.7.3.1).

    A body part that has no sides may not have a Laterality; where neither is known it is present and empty.
    """
    for keyword in ("SpecificCharacterSet", "BodyPartExamined"):
        if image.get(keyword):
            result[keyword] = image[keyword]
    if image.get("Laterality") or not image.get("BodyPartExamined"):
        result.Laterality = image.get("Laterality") or ""


def series_number(kind: str) -> int:
    """The number of the series of ``kind``."""
    return _SERIES[kind]


def series_description(facts: ResultFacts, kind: str) -> str:
    """A description that says what it is and that it is no diagnosis, at most 64 characters."""
    names = {"sr": "AI report", "heat": "AI heat map", "gsps": "AI marks", "sc": "AI picture", "pdf": "AI page"}
    failed = "AUDIT FAIL " if is_failed(facts.read.model.audit_verdict) else ""
    return f"{failed}{names[kind]}, research use only, {facts.read.model.name}"[:_LONG_STRING]


def _version() -> str:
    from wetread import __version__

    return __version__
