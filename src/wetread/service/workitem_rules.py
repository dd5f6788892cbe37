"""What a workitem must say, and what is made of it: PS3.4 table CC.2.5-3 for a service that reads studies.

Decided here: what is of type 2 and left out is added empty, of type 1 and left out refused; a workitem names one
study; which of them are for this service (those that name no station, or it), and how one asks for a certain reader.
"""

from __future__ import annotations

from dataclasses import dataclass

from wetread.pacs.facts import PRIVATE_SCHEME
from wetread.service.dicom_json import Json, first, is_uid, items, tag, text
from wetread.service.dicom_time import moment, now_text
from wetread.service.problems import Problem
from wetread.service.workitem_states import COMPLETED, SCHEDULED, inconsistent

__all__ = [
    "DISCONTINUED",
    "INCOMPLETE",
    "PARAMETERS",
    "PUSH",
    "STATION",
    "TYPE_2",
    "Wanted",
    "as_created",
    "as_ended",
    "as_updated",
    "wanted",
]

PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""Unified Procedure Step - Push: the SOP Class of every workitem (PS3.4 CC.3.1)."""
STATION = "WETREAD"
"""What a workitem for this service has in its Scheduled Station Name Code Sequence, unless that is empty."""
INCOMPLETE = "INCOMPLETE"
"""Input Readiness State of a workitem that waits for more to be listed."""
DISCONTINUED = {"CodeValue": "110513", "CodingSchemeDesignator": "DCM"}
"""Discontinued for unspecified reason (PS3.16 CID 9300)."""

PRIORITIES, READINESS = ("HIGH", "MEDIUM", "LOW"), ("READY", "UNAVAILABLE", INCOMPLETE)
TYPE_2 = (
    *("TransactionUID", "WorklistLabel", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence"),
    *("ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence"),
    *("ScheduledWorkitemCodeSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence"),
    *("StudyInstanceUID", "PatientName", "PatientID", "OtherPatientIDsSequence", "PatientBirthDate", "PatientSex"),
    *("AdmissionID", "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence"),
    *("ReferencedRequestSequence", "ProcedureStepProgressInformationSequence"),
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""Present at creation, but maybe empty."""
_TYPE_1 = (
    *("ScheduledProcedureStepPriority", "ProcedureStepLabel", "ScheduledProcedureStepStartDateTime"),
    *("InputReadinessState", "ProcedureStepState"),
)
_EMPTY_AT_FIRST = TYPE_2[-2:]
_NEVER_SET = (
    *("SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "PatientName", "PatientID", "PatientBirthDate"),
    *("PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription"),
    *("AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence"),
)
"""Not allowed in an update: a workitem for another patient is another workitem."""
_COLUMNS = ("TransactionUID", "SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "SpecificCharacterSet")
"""Not part of the stored data set."""
_MODIFIED = "ScheduledProcedureStepModificationDateTime"
_PERFORMED = (
    *("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence"),
    "PerformedProcedureStepEndDateTime",
)
PARAMETERS = ("reader", "operating_point")
"""Concepts of processing parameters, of our own scheme."""
_CURE = "See PS3.4 table CC.2.5-3."


@dataclass(frozen=True)
class Wanted:
    """What a workitem asks for. ``start``: seconds since 1970; ``ours``: whether this service is to do it."""

    study_uid: str
    patient_id: str
    patient_name: str
    label: str
    tray: str
    priority: str
    readiness: str
    start: float
    ours: bool
    reader: str
    operating_point: str


def as_created(data: Json, default_tray: str) -> tuple[Json, bool]:
    """The data set to keep, and whether it differs from what was sent.

    Raises:
        Problem: ``bad_request``: an attribute that must be there is not, or one that must not be is.
    """
    missing = [keyword for keyword in _TYPE_1 if not items(data, keyword)]
    if missing:
        raise _refused(f"a value of {', '.join(missing)}", "none")
    if text(data, "ProcedureStepState") != SCHEDULED:
        raise _refused("a new workitem in the state SCHEDULED", "another (C309)")
    if text(data, "SOPClassUID") not in ("", PUSH):
        raise _refused(f"the SOP Class {PUSH}, or none", "another")
    early = [keyword for keyword in ("TransactionUID", *_EMPTY_AT_FIRST) if items(data, keyword)]
    if early:
        raise _refused(f"{', '.join(early)} empty in a new workitem", "a value")
    kept = _without_columns(data)
    added = [keyword for keyword in TYPE_2 if tag(keyword) not in data and keyword not in _COLUMNS]
    kept |= {tag(keyword): {"vr": _vr(keyword)} for keyword in added}
    named = bool(text(kept, "WorklistLabel"))
    if not named:
        kept[tag("WorklistLabel")] = {"vr": "LO", "Value": [default_tray]}
    return _stamped(kept), bool(added) or not named


def as_updated(old: Json, change: Json) -> Json:
    """The data set after an update.

    Raises:
        Problem: ``bad_request``: an attribute that an update cannot set, or a value that is due and was taken away.
    """
    wrong = [keyword for keyword in _NEVER_SET if tag(keyword) in change]
    if wrong:
        raise _refused("an update of what may change", ", ".join(wrong))
    return _stamped({**old, **_without_columns(change)})


def as_ended(data: Json, state: str) -> Json:
    """The data set of a workitem in a final state, by another performer's hand (PS3.4 CC.2.5.1.1).

    The moment of a cancellation and its reason are added where they were not given (code 110513, unspecified).

    Raises:
        Problem: ``conflict``: what the final state requires is not there.
    """
    if state == COMPLETED:
        done = first(data, "UnifiedProcedureStepPerformedProcedureSequence")
        missing = [keyword for keyword in _PERFORMED if not items(done, keyword)]
        if tag("OutputInformationSequence") not in done:
            missing.append("OutputInformationSequence")
        if missing:
            message = f"The final state requires {', '.join(missing)} in the performed procedure (C304)."
            raise inconsistent(message, "Update the workitem, then complete it.")
        return _stamped(data)
    progress = dict(first(data, "ProcedureStepProgressInformationSequence"))
    if not items(progress, "ProcedureStepCancellationDateTime"):
        progress[tag("ProcedureStepCancellationDateTime")] = {"vr": "DT", "Value": [now_text()]}
    if not items(progress, "ProcedureStepDiscontinuationReasonCodeSequence"):
        reason = {tag(name): {"vr": "SH", "Value": [value]} for name, value in DISCONTINUED.items()}
        reason[tag("CodeMeaning")] = {"vr": "LO", "Value": ["Discontinued for unspecified reason"]}
        progress[tag("ProcedureStepDiscontinuationReasonCodeSequence")] = {"vr": "SQ", "Value": [reason]}
    sequence = {"vr": "SQ", "Value": [progress]}
    return _stamped({**data, tag("ProcedureStepProgressInformationSequence"): sequence})


def wanted(data: Json) -> Wanted:
    """What a workitem asks for.

    Raises:
        Problem: ``bad_request``: values that mean nothing here, no study, several studies.
    """
    missing = [keyword for keyword in _TYPE_1[:-1] if not items(data, keyword)]
    if missing:
        raise _refused(f"a value of {', '.join(missing)}", "none")
    ours = _for_us(data)
    parameters = _parameters(data) if ours else {}
    texts = {
        "study_uid": _study(data),
        "patient_id": _short(data, "PatientID"),
        "label": _short(data, "ProcedureStepLabel"),
        "tray": _short(data, "WorklistLabel"),
        "priority": _one_of(data, "ScheduledProcedureStepPriority", PRIORITIES),
        "readiness": _one_of(data, "InputReadinessState", READINESS),
        "reader": parameters.get("reader", ""),
        "operating_point": parameters.get("operating_point", ""),
        "patient_name": text(data, "PatientName")[:400],
    }
    return Wanted(start=_start(data), ours=ours, **texts)


def _without_columns(data: Json) -> Json:
    gone = {tag(keyword) for keyword in (*_COLUMNS, _MODIFIED)}
    return {key: element for key, element in data.items() if key not in gone}


def _stamped(data: Json) -> Json:
    return {**data, tag(_MODIFIED): {"vr": "DT", "Value": [now_text()]}}


def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(int(tag(keyword), 16))


def _study(data: Json) -> str:
    named = text(data, "StudyInstanceUID")
    listed = {text(one, "StudyInstanceUID") for one in items(data, "InputInformationSequence")} - {""}
    if not named and len(listed) > 1:
        raise _refused("one study to read, in Study Instance UID (0020,000D)", "several inputs and none named")
    study = named or next(iter(listed), "")
    if not is_uid(study):
        raise _refused("the UID of the study to read in Study Instance UID or Input Information Sequence", "none")
    return study


def _start(data: Json) -> float:
    try:
        return moment(text(data, "ScheduledProcedureStepStartDateTime"), text(data, "TimezoneOffsetFromUTC"))
    except ValueError:
        raise _refused("a Scheduled Procedure Step Start DateTime", "another text") from None


def _one_of(data: Json, keyword: str, values: tuple[str, ...]) -> str:
    value = text(data, keyword)
    if value not in values:
        raise _refused(f"{keyword} of {', '.join(values)}", "another value")
    return value


def _short(data: Json, keyword: str) -> str:
    value = text(data, keyword)
    if len(value) > 64:
        raise _refused(f"at most 64 characters of {keyword}", "more")
    return value


def _for_us(data: Json) -> bool:
    stations = items(data, "ScheduledStationNameCodeSequence")
    return not stations or any(text(one, "CodeValue").upper() == STATION for one in stations)


def _parameters(data: Json) -> dict[str, str]:
    """Processing parameters by the value of their concept: texts of our own scheme."""
    found: dict[str, str] = {}
    for one in items(data, "ScheduledProcessingParametersSequence"):
        concept, value = first(one, "ConceptNameCodeSequence"), text(one, "TextValue")
        name = text(concept, "CodeValue").lower() if text(concept, "CodingSchemeDesignator") == PRIVATE_SCHEME else ""
        if name not in PARAMETERS or not value or name in found or len(value) > 64:
            names = " and ".join(PARAMETERS)
            raise _refused(f"processing parameters {names}, each once and as a text", "others")
        found[name] = value
    return found


def _refused(wanted: str, got: str) -> Problem:
    return Problem("bad_request", f"expected {wanted}, got {got}", _CURE)
