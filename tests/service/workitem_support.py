"""Workitems as a task requester writes them, films of known studies, and what the standard requires of answers."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from wetread.datasets.phantoms import Identity, render, sample_spec, to_dicom
from wetread.imaging.header import quiet

KIND = {"Content-Type": "application/dicom+json"}
WORKITEM, LOCK = "1.2.826.0.1.3680043.8.498.7", "1.2.826.0.1.3680043.8.498.8"

REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "ScheduledProcedureStepPriority", "ProcedureStepLabel"),
    *("ScheduledProcedureStepModificationDateTime", "WorklistLabel", "ScheduledProcedureStepStartDateTime"),
    "InputReadinessState",
)
"""Type 1 of PS3.4 table CC.2.5-3 (N-CREATE, by requester or manager), written down from the standard, not the code."""
PRESENT = (
    *("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"),
    *("ScheduledStationGeographicLocationCodeSequence", "ScheduledWorkitemCodeSequence", "InputInformationSequence"),
    *("CommentsOnTheScheduledProcedureStep", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("AdmissionID", "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence"),
    *("ReferencedRequestSequence", "ProcedureStepProgressInformationSequence", "OtherPatientIDsSequence"),
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""Type 2 of the same table."""
FINAL = {
    "COMPLETED": (
        "UnifiedProcedureStepPerformedProcedureSequence",
        *("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence"),
        *("PerformedProcedureStepEndDateTime", "OutputInformationSequence"),
    ),
    "CANCELED": (
        "ProcedureStepProgressInformationSequence",
        *("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence"),
    ),
}
"""State -> the sequence, and what its item must have (final state codes P and X of the same table)."""


@functools.cache
def study(number: int = 1) -> tuple[bytes, str]:
    """A film and the UID of its study; another number is another patient."""
    rng = np.random.default_rng(number)
    made = to_dicom(render(sample_spec(rng, size_px=128)), Identity(f"{number:02}"))
    target = io.BytesIO()
    made.save_as(target, enforce_file_format=True)
    return target.getvalue(), str(made.StudyInstanceUID)


def order(study_uid: str, **changes: Any) -> Dataset:
    """What a requester sends, with all that the standard asks of one; ``changes``: keyword -> value, None: left out."""
    made = Dataset()
    made.ProcedureStepState, made.ScheduledProcedureStepPriority = "SCHEDULED", "MEDIUM"
    made.ProcedureStepLabel, made.WorklistLabel, made.InputReadinessState = "Read the chest", "main", "READY"
    made.ScheduledProcedureStepStartDateTime, made.StudyInstanceUID = "20260102030405+0000", study_uid
    for keyword in (*PRESENT, "TransactionUID"):
        setattr(made, keyword, [] if keyword.endswith("Sequence") else "")
    with quiet():  # values that fit nothing are sent, too
        for keyword, value in changes.items():
            if value is None:
                delattr(made, keyword)
            else:
                setattr(made, keyword, value)
    return made


def claim(lock: str = LOCK, state: str = "IN PROGRESS") -> Dataset:
    made = Dataset()
    with quiet():
        made.TransactionUID, made.ProcedureStepState = lock, state
    return made


def code(value: str, scheme: str = "99TEST") -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, value
    return made


def parameter(name: str, value: str) -> Dataset:
    made = Dataset()
    made.ValueType, made.ConceptNameCodeSequence, made.TextValue = "TEXT", [code(name, "99WETREAD")], value
    return made


def performed() -> Dataset:
    """An update that meets the final state requirements of COMPLETED, without output objects."""
    made, done = Dataset(), Dataset()
    done.PerformedStationNameCodeSequence, done.PerformedWorkitemCodeSequence = [code("ELSEWHERE")], [code("read")]
    done.PerformedProcedureStepStartDateTime = done.PerformedProcedureStepEndDateTime = "20260102030405"
    done.OutputInformationSequence = []
    made.UnifiedProcedureStepPerformedProcedureSequence = [done]
    return made


class Requester:
    """A client of ``/dicom-web``."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def send(self, method: str, address: str, data: Dataset | None = None, **headers: str) -> Any:
        body = b"" if data is None else json.dumps(data.to_json_dict()).encode()
        return self.client.request(method, f"/dicom-web/{address}", content=body, headers={**KIND, **headers})

    def create(self, study_uid: str, uid: str = WORKITEM, **changes: Any) -> Any:
        return self.send("POST", f"workitems?{uid}", order(study_uid, **changes))

    def change(self, state: str, lock: str = LOCK, uid: str = WORKITEM) -> Any:
        return self.send("PUT", f"workitems/{uid}/state", claim(lock, state))

    def bring(self, state: str, uid: str = WORKITEM) -> str:
        """A new workitem in a state, by a performer elsewhere: its study never comes. Returns its UID."""
        assert self.create(study()[1], uid).status_code == 201
        if state != "SCHEDULED":
            assert self.change("IN PROGRESS", uid=uid).status_code == 200
        if state == "COMPLETED":
            assert self.send("POST", f"workitems/{uid}?{LOCK}", performed()).status_code == 200
        if state in ("COMPLETED", "CANCELED"):
            assert self.change(state, uid=uid).status_code == 200
        return uid

    def cancel(self, uid: str = WORKITEM, **said: Any) -> Any:
        data = Dataset()
        for keyword, value in said.items():
            setattr(data, keyword, value)
        return self.send("POST", f"workitems/{uid}/cancelrequest", data)

    def get(self, uid: str = WORKITEM) -> Dataset:
        """A workitem, parsed by pydicom and checked against the table of the standard."""
        answer = self.client.get(f"/dicom-web/workitems/{uid}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/dicom+json"
        (found,) = answer.json()
        return checked(found)

    def search(self, parameters: Mapping[str, Any]) -> list[Dataset]:
        answer = self.client.get("/dicom-web/workitems", params=parameters)
        assert answer.status_code in (200, 204, 206), answer.text
        return [Dataset.from_json(one) for one in answer.json()] if answer.content else []


def checked(data: dict[str, Any]) -> Dataset:
    """A workitem that has what PS3.4 table CC.2.5-3 requires of its state; fails otherwise."""
    found = Dataset.from_json(data)
    assert Dataset.from_json(found.to_json_dict()) == found
    assert '"Value": []' not in json.dumps(data)  # PS3.18 F.2.5
    assert "TransactionUID" not in found
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.34.6.1"
    assert [keyword for keyword in REQUIRED if not found.get(keyword)] == []
    assert [keyword for keyword in PRESENT if keyword not in found] == []
    if found.ProcedureStepState in FINAL:
        sequence, *needed = FINAL[found.ProcedureStepState]
        (item,) = found[sequence].value
        assert [keyword for keyword in needed if keyword not in item] == []
        empty = [keyword for keyword in needed if item[keyword].is_empty and keyword != "OutputInformationSequence"]
        assert empty == []
    return found


def warning(answer: Any) -> str:
    """The text of the header ``Warning``; its form is checked."""
    code_and_service, _, words = answer.headers["Warning"].partition(": ")
    assert code_and_service == "299 http://testserver/dicom-web"
    return str(words)
