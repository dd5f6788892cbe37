"""A search for workitems: what matches, what is shown, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.test_api import CANARY, as_role, error_of
from tests.service.workitem_support import Requester, warning
from wetread.service.context import Service


@pytest.fixture
def requester(service: Service) -> Requester:
    return Requester(as_role(service, "reader"))


SEARCHES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"ProcedureStepState": "SCHEDULED"}, [0, 1, 2]),
    ({"00741000": "SCHEDULED,CANCELED"}, [0, 1, 2, 3]),
    ({"StudyInstanceUID": "1.2.0"}, [0]),
    ({"InputInformationSequence.StudyInstanceUID": "1.2.0,1.2.2"}, [0, 2]),
    ({"00404021.0020000D": "1.2.1"}, [1]),
    ({"PatientID": "P1"}, [1]),
    ({"PatientID": "p1"}, []),
    ({"PatientID": "P?"}, [0, 1, 2, 3]),
    ({"PatientID": "P%"}, []),
    ({"PatientName": "roe^*"}, [1, 3]),
    ({"ProcedureStepLabel": "Read 2"}, [2]),
    ({"ProcedureStepLabel": "*2"}, [2]),
    ({"WorklistLabel": "main", "ScheduledProcedureStepPriority": "HIGH"}, [0]),
    ({"ScheduledProcedureStepStartDateTime": "20260103"}, [2]),
    ({"ScheduledProcedureStepStartDateTime": "20260101120000+0000"}, [0]),
    ({"ScheduledProcedureStepStartDateTime": "20260102-20260103"}, [1, 2]),
    ({"ScheduledProcedureStepStartDateTime": "20260103000000+0000-"}, [2, 3]),
    ({"ScheduledProcedureStepStartDateTime": "-202601021200-0100"}, [0, 1]),
    ({"ScheduledProcedureStepStartDateTime": "2025"}, []),
    ({"PatientID": ""}, [0, 1, 2, 3]),
    ({"SOPInstanceUID": "1.2.9.3,1.2.9.1"}, [1, 3]),
]


@pytest.fixture
def listed(requester: Requester) -> Requester:
    """Four workitems: of three patients' studies, two names, four days, one cancelled."""
    for number in range(4):
        requester.create(
            f"1.2.{number}", f"1.2.9.{number}", PatientID=f"P{number}", PatientName=("Doe^A", "Roe^B")[number % 2],
            ProcedureStepLabel=f"Read {number}", ScheduledProcedureStepPriority="MEDIUM" if number else "HIGH",
            ScheduledProcedureStepStartDateTime=f"2026010{number + 1}120000+0000",
        )  # fmt: skip
    requester.cancel("1.2.9.3")
    return requester


def test_a_search_matches_as_the_standard_says(listed: Requester) -> None:
    for parameters, numbers in SEARCHES:
        found = [int(str(one.SOPInstanceUID)[-1]) for one in listed.search(parameters)]
        assert found == numbers, parameters


def test_a_search_is_divided_and_shows_what_is_asked_for(listed: Requester) -> None:
    first = listed.client.get("/dicom-web/workitems", params={"limit": 3})
    assert (first.status_code, len(first.json())) == (206, 3)
    assert warning(first) == "There are 1 additional results that can be requested"
    last = listed.client.get("/dicom-web/workitems", params={"limit": 3, "offset": 3})
    assert (last.status_code, len(last.json())) == (200, 1)
    none = listed.client.get("/dicom-web/workitems", params={"offset": 4})
    assert (none.status_code, none.content) == (204, b"")
    fuzzy = listed.client.get("/dicom-web/workitems", params={"fuzzymatching": "true", "PatientName": "Roe"})
    assert (fuzzy.status_code, warning(fuzzy)) == (
        204, "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
    )  # fmt: skip
    (usual,) = listed.search({"PatientID": "P0"})
    assert "ProcedureStepLabel" in usual
    assert "TransactionUID" not in usual
    (more,) = listed.search({"PatientID": "P3", "includefield": "all"})
    assert more.to_json_dict() == listed.get("1.2.9.3").to_json_dict()
    (chosen,) = listed.search({"PatientID": "P3", "includefield": "TransactionUID,ExpectedCompletionDateTime"})
    assert "TransactionUID" not in chosen


BAD_SEARCHES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown attribute": (
        {"Modality": "CR"},
        "expected limit, offset, includefield or an attribute of SOPInstanceUID,",
    ),
    "no attribute": ({"zz": CANARY}, "expected limit, offset, includefield or an attribute of SOPInstanceUID,"),
    "limit": ({"limit": "0"}, "expected limit up to 200, got something else"),
    "large limit": ({"limit": "201"}, "expected limit up to 200, got something else"),
    "offset": ({"offset": "-1"}, "expected offset up to 2147483648, got something else"),
    "uid": ({"StudyInstanceUID": CANARY}, "expected UIDs, got something else"),
    "date": ({"ScheduledProcedureStepStartDateTime": CANARY}, "expected a date and time or a range of them"),
    "range": ({"ScheduledProcedureStepStartDateTime": "-"}, "expected a date and time or a range of them"),
    "field": ({"includefield": CANARY}, "expected 'all', tags or keywords in includefield, got another"),
    "nul": ({"PatientID": f"{CANARY}\0"}, "expected values without NUL, got one with it"),
    "asterisks": ({"PatientName": "*a*b*c*"}, "expected at most 3 asterisks, got more"),
}


def test_a_search_that_cannot_be_made_is_refused(requester: Requester) -> None:
    for name, (parameters, message) in BAD_SEARCHES.items():
        answer = requester.client.get("/dicom-web/workitems", params=parameters)
        assert error_of(answer) == (400, "bad_request"), name
        assert message in answer.json()["error"]["message"], name
