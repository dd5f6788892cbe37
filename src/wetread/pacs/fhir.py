"""The answer as FHIR R4B: DiagnosticReport, an Observation for each label, the Device, a reference to the study.

Decided here: the report is ``preliminary``, as nobody has signed it; the patient is a logical reference by
identifier, because only the server knows its own ids; resources are PUT under ids that follow from image and reader,
so that a second run replaces its own answer and adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wetread.pacs.facts import DEVICE_UID, answer_line, reader_line, warning_lines
from wetread.pacs.structured_report import FINDING_CODES
from wetread.types import LabelReading, Measure, Read

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["fhir_bundle", "fhir_json"]

_SNOMED, _UCUM, _OURS = "http://snomed.info/sct", "http://unitsofmeasure.org", "urn:wetread:codes"
_DCM_UID = "urn:dicom:uid"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_MEANT = {"positive": ("POS", "Positive"), "negative": ("NEG", "Negative"), "withheld": ("IND", "Indeterminate")}


def fhir_json(read: Read, image: Dataset, issued: datetime | None = None) -> bytes:
    """:func:`fhir_bundle` as UTF-8 JSON."""
    return json.dumps(fhir_bundle(read, image, issued), indent=1, ensure_ascii=False).encode()


def fhir_bundle(read: Read, image: Dataset, issued: datetime | None = None) -> dict[str, Any]:
    """A transaction bundle for one image; ``image``: its header (:func:`wetread.pacs.derived.source_header`)."""
    key = f"{image.SOPInstanceUID} {read.model.sha256}"
    device = _device(read)
    study = _study(image)
    shared = {"subject": _subject(image), "device": {"reference": f"Device/{device['id']}"}}
    observations = [_label(read, label, key) | shared for label in read.labels]
    observations += [_measure(measure, key) | shared for measure in read.measures if measure.value is not None]
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": _id(key, "report"),
        "status": "preliminary",
        "category": [{"coding": [_coding("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")]}],
        "code": {"coding": [_coding("http://loinc.org", "18748-4", "Diagnostic imaging study")]},
        "subject": shared["subject"],
        "issued": (issued or datetime.now(UTC)).isoformat(timespec="seconds"),
        "performer": [{"display": reader_line(read)}],
        "imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}],
        "result": [{"reference": f"Observation/{one['id']}"} for one in observations],
        "conclusion": " ".join([*warning_lines(read), *(f"Not applicable: {text}" for text in read.gate.reasons)]),
    }
    resources = [device, study, *observations, report]
    entries = [
        {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
        for one in resources
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _device(read: Read) -> dict[str, Any]:
    model = read.model
    return {
        "resourceType": "Device",
        "id": _id(model.sha256, "device"),
        "identifier": [{"system": _DCM_UID, "value": f"urn:oid:{DEVICE_UID}"}],
        "manufacturer": "wetread",
        "deviceName": [{"name": model.name[:250], "type": "model-name"}],
        "version": [{"value": model.version}, {"value": f"sha256:{model.sha256}"}],
        "note": [{"text": f"audit: {model.audit_verdict}"}],
    }


def _study(image: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "id": _id(str(image.StudyInstanceUID), "study"),
        "identifier": [{"system": _DCM_UID, "value": f"urn:oid:{image.StudyInstanceUID}"}],
        "status": "available",
        "subject": _subject(image),
    }
    if image.get("AccessionNumber"):
        code = {"coding": [_coding("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN", "Accession ID")]}
        found["identifier"].append({"type": code, "value": str(image.AccessionNumber)})
    return found


def _subject(image: Dataset) -> dict[str, Any]:
    known = str(image.get("PatientID") or "").strip()
    return {"type": "Patient", "identifier": {"value": known}} if known else {"type": "Patient", "display": "unknown"}


def _label(read: Read, label: LabelReading, key: str) -> dict[str, Any]:
    code, meaning = _MEANT[label.decision]
    known = FINDING_CODES.get(label.label.lower())
    coding = _coding(_SNOMED, *known) if known else _coding(_OURS, label.label, label.label)
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "id": _id(key, f"label {label.label}"),
        "status": "preliminary",
        "category": [{"coding": [_coding(_CATEGORY, "imaging", "Imaging")]}],
        "code": {"coding": [coding], "text": label.label},
        "interpretation": [{"coding": [_coding(_INTERPRETATION, code, meaning)]}],
        "note": [{"text": line} for line in [answer_line(label), *warning_lines(read), reader_line(read)]],
    }
    if label.probability is None:
        found["dataAbsentReason"] = {"coding": [_coding(_ABSENT, "not-performed", "Not Performed")]}
    else:
        percent = round(100 * label.probability, 2)
        found["valueQuantity"] = {"value": percent, "unit": "%", "system": _UCUM, "code": "%"}
    return found


def _measure(measure: Measure, key: str) -> dict[str, Any]:
    name = f"{measure.organ} {measure.name}"
    return {
        "resourceType": "Observation",
        "id": _id(key, f"measure {name}"),
        "status": "preliminary",
        "category": [{"coding": [_coding(_CATEGORY, "imaging", "Imaging")]}],
        "code": {"coding": [_coding(_OURS, name.replace(" ", "-"), name)], "text": name},
        "valueQuantity": {"value": measure.value, "unit": measure.unit, "system": _UCUM, "code": measure.unit},
    }


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code.replace(" ", "-") if system == _OURS else code, "display": display}


def _id(key: str, kind: str) -> str:
    """A FHIR id: at most 64 of letters, digits, minus and point."""
    return hashlib.sha256(f"{kind} {key}".encode()).hexdigest()[:40]
