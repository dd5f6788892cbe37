"""The answer as a Comprehensive 3D SR of template TID 1500 (PS3.16), as IHE AI Results wants it.

Decided here: there is a report for every image, also where nothing was found, where the reader abstained and where
the image was refused; each label is a measurement group with its calibrated probability (certainty of finding,
per cent), its decision and its limits; each box is a planar region on the image; each size of an organ has a UCUM
unit. The document is complete, preliminary and unverified: nobody has signed it. highdicom makes the tree; the data
set around it is written here, because highdicom copies the tree three times, for half of the time of a report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wetread.pacs import facts as f
from wetread.pacs.facts import ResultFacts
from wetread.types import Box, LabelReading, Measure

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["FINDING_CODES", "structured_report"]

FINDING_CODES: dict[str, tuple[str, str]] = {
    "pneumonia": ("233604007", "Pneumonia"),
    "cardiomegaly": ("8186001", "Cardiomegaly"),
    "pleural effusion": ("60046008", "Pleural effusion"),
    "effusion": ("60046008", "Pleural effusion"),
    "pneumothorax": ("36118008", "Pneumothorax"),
    "covid-19": ("840539006", "Disease caused by severe acute respiratory syndrome coronavirus 2"),
    "covid": ("840539006", "Disease caused by severe acute respiratory syndrome coronavirus 2"),
    "tuberculosis": ("56717001", "Tuberculosis"),
    "atelectasis": ("46621007", "Atelectasis"),
}
"""Label, in lower case, to its code and meaning in SNOMED CT; others get a code of our own scheme."""

_COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
_ORGANS = {"lungs": ("39607008", "Lung"), "lung": ("39607008", "Lung"), "heart": ("80891009", "Heart")}
_DECISIONS = {
    "positive": ("52101004", "Present"),
    "negative": ("2667000", "Absent"),
    "withheld": ("82334004", "Indeterminate"),
}
_UNITS = {"cm2": "square centimeter", "cm": "centimeter", "mm": "millimeter", "1": "no units", "%": "percent"}
_MAX_MEANING = 64


def structured_report(facts: ResultFacts, image: Dataset) -> Dataset:
    """Make the report of one image.

    Args:
        facts: What was read.
        image: Header of the image, from :func:`wetread.pacs.derived.source_header`.
    """
    report = f.shell(facts, image, "sr", sop_class=_COMPREHENSIVE_3D, modality="SR")
    report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    report.PerformedProcedureCodeSequence, report.ReferencedPerformedProcedureStepSequence = [], []
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence(image)]
    report.CodingSchemeIdentificationSequence = [_scheme()]
    for keyword in ("BodyPartExamined", "Laterality"):  # the series of a document has neither (C.17.1)
        if keyword in report:
            del report[keyword]
    for element in _content(facts, image)[0]:
        if element.keyword != "RelationshipType":  # of the root, which has no parent
            report[element.tag] = element
    return report


def _evidence(image: Dataset) -> Dataset:
    """The image under its series and study (C.17.2, table C.17-3)."""
    from pydicom.dataset import Dataset

    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = image.StudyInstanceUID, [series]
    return study


def _scheme() -> Dataset:
    from pydicom.dataset import Dataset

    scheme = Dataset()
    scheme.CodingSchemeDesignator = f.PRIVATE_SCHEME
    scheme.CodingSchemeName = scheme.CodingSchemeResponsibleOrganization = "wetread"
    return scheme


def _content(facts: ResultFacts, image: Dataset) -> Any:
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        LanguageOfContentItemAndDescendants,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    device = f.device()
    observer = DeviceObserverIdentifyingAttributes(
        uid=f.DEVICE_UID,
        name=facts.read.model.name,
        manufacturer_name=device["manufacturer"],
        model_name=device["manufacturer_model_name"],
        serial_number=device["device_serial_number"],
    )
    groups = [group for label in facts.read.labels for group in _label_groups(facts, image, label)]
    groups += _measure_groups(facts, image)
    return MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, observer),
        ),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
        referenced_images=[image],
    )


def _label_groups(facts: ResultFacts, image: Dataset, label: LabelReading) -> list[Any]:
    """The group of a label, and one planar region for each box of its evidence."""
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    measured = []
    if label.probability is not None:
        percent = round(100 * label.probability, 2)
        measured = [Measurement(codes.DCM.CertaintyOfFinding, percent, codes.UCUM.Percent)]
    code, meaning = _DECISIONS[label.decision]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(f.tracking_uid(facts, image, label.label), label.label),
        finding_type=_finding(label.label),
        algorithm_id=_algorithm(facts, label),
        measurements=measured,
        qualitative_evaluations=[QualitativeEvaluation(_own("decision", "Decision"), _sct(code, meaning))],
        source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
    )
    _say(group, "Answer", f.answer_line(label))
    for line in _comments(facts):
        _say(group, "Comment", line)
    boxes = label.evidence.boxes if label.evidence is not None else ()
    return [group, *(_region(facts, image, label, (number, box)) for number, box in enumerate(boxes, start=1))]


def _region(facts: ResultFacts, image: Dataset, label: LabelReading, numbered: tuple[int, Box]) -> Any:
    """A box as a closed polyline: column and row from the upper left corner of the upper left pixel (C.18.6.1.1)."""
    from highdicom.sr import (
        ImageRegion,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
        TrackingIdentifier,
    )

    number, box = numbered
    right = min(box.x + box.width, float(image.Columns))
    bottom = min(box.y + box.height, float(image.Rows))
    left, top = max(0.0, box.x), max(0.0, box.y)
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], dtype=np.float64)
    identity = TrackingIdentifier(f.tracking_uid(facts, image, label.label, number), f"{label.label} {number}")
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=identity,
        referenced_region=ImageRegion("POLYLINE", corners, SourceImageForRegion.from_source_image(image)),
        finding_type=_finding(label.label),
        algorithm_id=_algorithm(facts, label),
    )


def _measure_groups(facts: ResultFacts, image: Dataset) -> list[Any]:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, SourceImageForMeasurementGroup, TrackingIdentifier

    by_organ: dict[str, list[Measure]] = {}
    for measure in facts.read.measures:
        if measure.value is not None:
            by_organ.setdefault(measure.organ, []).append(measure)
    return [
        MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(f.tracking_uid(facts, image, "organ", organ), organ),
            finding_type=_organ(organ),
            algorithm_id=_algorithm(facts),
            measurements=[_measurement(measure) for measure in measures],
            source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
        )
        for organ, measures in by_organ.items()
    ]


def _measurement(measure: Measure) -> Any:
    from highdicom.sr import Measurement
    from pydicom.sr.coding import Code

    unit = Code(measure.unit, "UCUM", _UNITS.get(measure.unit, measure.unit))
    return Measurement(_own(measure.name, measure.name), round(float(measure.value or 0), 6), unit)


def _algorithm(facts: ResultFacts, label: LabelReading | None = None) -> Any:
    from highdicom.sr import AlgorithmIdentification

    model = facts.read.model
    parameters = [f"sha256={model.sha256}", f"audit={model.audit_verdict}"]
    if label is not None and label.operating_point is not None:
        point = label.operating_point
        parameters.append(f"operating point {point.name}, positive from {point.threshold:.6f}")
    return AlgorithmIdentification(name=model.name, version=model.version, parameters=parameters)


def _comments(facts: ResultFacts) -> list[str]:
    read = facts.read
    refused = [f"Not applicable: {reason}" for reason in read.gate.reasons]
    abstains = read.prediction_set is not None and read.prediction_set.abstains
    said = [f"Abstained: {read.prediction_set.reason}"] if abstains and read.prediction_set is not None else []
    return [*f.warning_lines(read), f.reader_line(read), *refused, *said, *read.warnings]


def _say(group: Any, name: str, text: str) -> None:
    """Add a text to a measurement group (TID 1501 row 10: qualitative evaluations may be text)."""
    from highdicom.sr import CodedConcept, RelationshipTypeValues, TextContentItem

    concept = CodedConcept("121106", "DCM", "Comment") if name == "Comment" else _own(name.lower(), name)
    item = TextContentItem(concept, text, RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(item)


def _finding(label: str) -> Any:
    known = FINDING_CODES.get(label.lower())
    return _sct(*known) if known else _own(label, label)


def _organ(organ: str) -> Any:
    known = _ORGANS.get(organ)
    return _sct(*known) if known else _own(organ, organ)


def _sct(code: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code, "SCT", meaning[:_MAX_MEANING])


def _own(code: str, meaning: str) -> Any:
    """A concept of our own scheme; a code value (VR SH) holds 16 characters."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code[:16].strip(), f.PRIVATE_SCHEME, meaning[:_MAX_MEANING])
