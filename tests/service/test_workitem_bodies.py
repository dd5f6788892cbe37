"""Requests that are no workitems: each refused with one clear message, and nothing kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.service.test_api import CANARY, as_role, error_of
from tests.service.workitem_support import KIND, WORKITEM, Requester, code, order, parameter, study
from wetread.service.context import Service
from wetread.service.dicom_json import DEEPEST, MOST_ELEMENTS


@pytest.fixture
def requester(service: Service) -> Requester:
    return Requester(as_role(service, "reader"))


def foreign_parameter() -> Dataset:
    made = parameter("reader", "chest-pneumonia")
    made.ConceptNameCodeSequence = [code("reader", "99OTHER")]
    return made


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no priority": (
        {"ScheduledProcedureStepPriority": None},
        "expected a value of ScheduledProcedureStepPriority, got none",
    ),
    "odd priority": (
        {"ScheduledProcedureStepPriority": "SOON"},
        "expected ScheduledProcedureStepPriority of HIGH, MEDIUM, LOW, got another value",
    ),
    "no label": ({"ProcedureStepLabel": ""}, "expected a value of ProcedureStepLabel, got none"),
    "no start": (
        {"ScheduledProcedureStepStartDateTime": None},
        "expected a value of ScheduledProcedureStepStartDateTime, got none",
    ),
    "odd start": (
        {"ScheduledProcedureStepStartDateTime": "20261399"},
        "expected a Scheduled Procedure Step Start DateTime, got another text",
    ),
    "odd readiness": (
        {"InputReadinessState": "MAYBE"},
        "expected InputReadinessState of READY, UNAVAILABLE, INCOMPLETE, got another value",
    ),
    "begun": (
        {"ProcedureStepState": "IN PROGRESS"},
        "expected a new workitem in the state SCHEDULED, got another (C309)",
    ),
    "locked": ({"TransactionUID": "1.2.3"}, "expected TransactionUID empty in a new workitem, got a value"),
    "done": (
        {"UnifiedProcedureStepPerformedProcedureSequence": [code("x")]},
        "expected UnifiedProcedureStepPerformedProcedureSequence empty in a new workitem, got a value",
    ),
    "another class": (
        {"SOPClassUID": "1.2.3"},
        "expected the SOP Class 1.2.840.10008.5.1.4.34.6.1, or none, got another",
    ),
    "another UID": (
        {"SOPInstanceUID": "1.2.3"},
        "expected one UID for the workitem, in the address or in SOP Instance UID",
    ),
    "no study": (
        {"StudyInstanceUID": None},
        "expected the UID of the study to read in Study Instance UID or Input Information Sequence, got none",
    ),
    "odd parameter": (
        {"ScheduledProcessingParametersSequence": [parameter("sigma", "3")]},
        "expected processing parameters reader and operating_point, each once and as a text, got others",
    ),
    "parameter of another scheme": (
        {"ScheduledProcessingParametersSequence": [foreign_parameter()]},
        "expected processing parameters reader and operating_point, each once and as a text, got others",
    ),
    "unknown reader": (
        {"ScheduledProcessingParametersSequence": [parameter("reader", "nobody")]},
        "expected a reader of this service: No reader of that name.",
    ),
    "long label": ({"ProcedureStepLabel": "x" * 65}, "expected at most 64 characters of ProcedureStepLabel, got more"),
}


def test_a_workitem_that_is_not_one_is_refused_and_not_kept(requester: Requester) -> None:
    for name, (changes, message) in REFUSED.items():
        answer = requester.create(study()[1], **changes)
        assert error_of(answer) == (400, "bad_request"), name
        assert answer.json()["error"]["message"] == message, name
    assert requester.search({}) == []


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(depth):
        made = {"00404021": {"vr": "SQ", "Value": [made]}}
    return made


BODIES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "expected JSON, got a body that is none"),
    "nothing": (b"", "expected JSON, got a body that is none"),
    "not a number": (b'{"00101030": {"vr": "DS", "Value": [NaN]}}', "expected JSON, got a body that is none"),
    "too large a number": (
        b'{"00101030": {"vr": "DS", "Value": [1e999]}}',
        "expected values of (0010,1030) that fit its value representation, got others",
    ),
    "deep lists": (b"[" * 100_000, "expected JSON, got a body that is none"),
    "two": (b"[{}, {}]", "expected one data set, alone or in an array, got something else"),
    "text": (b'"x"', "expected one data set, alone or in an array, got something else"),
    "keywords": ({"PatientName": {"vr": "PN"}}, "keys that are tags of a data set, eight hexadecimal digits"),
    "file meta": ({"00020010": {"vr": "UI"}}, "keys that are tags of a data set, eight hexadecimal digits"),
    "no vr": ({"00100010": {}}, "expected the value representation of (0010,0010), got another"),
    "another vr": ({"00741000": {"vr": "SQ", "Value": [{}]}}, "expected the value representation of (0074,1000)"),
    "bulk data": ({"00100020": {"vr": "LO", "BulkDataURI": "http://x"}}, "expected 'vr' and 'Value' in (0010,0020)"),
    "binary": ({"7FE00010": {"vr": "OW", "Value": [1]}}, "expected the value representation of (7FE0,0010)"),
    "no array": ({"00100020": {"vr": "LO", "Value": CANARY}}, "expected an array as value of (0010,0020)"),
    "a number": ({"00100020": {"vr": "LO", "Value": [1]}}, "expected values of (0010,0020) that fit"),
    "truth": ({"00280010": {"vr": "US", "Value": [True]}}, "expected values of (0028,0010) that fit"),
    "a name as text": ({"00100010": {"vr": "PN", "Value": [CANARY]}}, "expected values of (0010,0010) that fit"),
    "nul": ({"00100020": {"vr": "LO", "Value": ["a\0b"]}}, "expected values of (0010,0020) that fit"),
    "half a pair": ({"00100020": {"vr": "LO", "Value": ["\ud800"]}}, "expected values of (0010,0020) that fit"),
    "long": ({"00404000": {"vr": "UT", "Value": ["x" * 10_241]}}, "expected values of (0040,4000) that fit"),
    "item": ({"00404021": {"vr": "SQ", "Value": ["x"]}}, "expected items that are data sets, got others"),
    "deep": (nested(DEEPEST + 1), f"expected at most {DEEPEST} sequences within one another, got more"),
    "wide": (
        {"00404021": {"vr": "SQ", "Value": [{"00100020": {"vr": "LO"}}] * (MOST_ELEMENTS + 1)}},
        f"expected at most {MOST_ELEMENTS} elements and values, got more",
    ),
    "empty items": (
        {"00404021": {"vr": "SQ", "Value": [{}] * (MOST_ELEMENTS + 1)}},
        f"expected at most {MOST_ELEMENTS} elements and values, got more",
    ),
    "date": ({"00100030": {"vr": "IS", "Value": [1]}}, "expected the value representation of (0010,0030)"),
}


ADDRESSES = {
    f"workitems?{WORKITEM}": "POST",
    f"workitems/{WORKITEM}": "POST",
    f"workitems/{WORKITEM}/state": "PUT",
    f"workitems/{WORKITEM}/cancelrequest": "POST",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_body_that_is_no_dicom_json_is_refused_before_anything_is_looked_up(
    requester: Requester, address: str
) -> None:
    for name, (body, message) in BODIES.items():
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if address.endswith("cancelrequest") and not data:
            continue  # its body may be left out
        answer = requester.client.request(ADDRESSES[address], f"/dicom-web/{address}", content=data, headers=KIND)
        assert error_of(answer) == (400, "bad_request"), name
        assert message in answer.json()["error"]["message"], name


def test_other_media_types_are_refused_and_bodies_have_a_limit(requester: Requester) -> None:
    xml = requester.send("POST", "workitems?1.2.3", order("1.2"), **{"Content-Type": "application/dicom+xml"})
    assert error_of(xml) == (415, "unsupported")
    assert xml.json()["error"]["message"] == "expected a body of application/dicom+json"
    large = requester.client.post("/dicom-web/workitems?1.2.3", content=b" " * ((1 << 20) + 1), headers=KIND)
    assert error_of(large) == (413, "too_large")
    requester.create(study()[1])
    for accept, status in (
        ("application/dicom+xml", 406), ("text/html, application/dicom+json;q=0", 406), ("*/*", 200),
        ("application/json", 200), ('multipart/related; type="application/dicom+xml", application/*;q=0.1', 200),
    ):  # fmt: skip
        answer = requester.client.get(f"/dicom-web/workitems/{WORKITEM}", headers={"Accept": accept})
        assert answer.status_code == status, accept
    answer = requester.client.get("/dicom-web/workitems?accept=application/dicom%2Bxml")
    assert error_of(answer) == (406, "not_acceptable")
