"""Every state, every request, with and without the right transaction UID: PS3.4 table CC.1.1-2 over the web."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.test_api import as_role, error_of
from tests.service.workitem_support import LOCK, WORKITEM, Requester, performed, warning
from wetread.service.context import Service
from wetread.service.workitem_states import STATES, TRANSITIONS

OTHER = "1.2.3.999"
INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
CURRENT = "The submitted request is inconsistent with the current state of the Workitem."
MISSING, INCORRECT = "The Transaction UID is missing.", "The Transaction UID is incorrect."
DONE = "The UPS is already in the requested state of COMPLETED."
GONE = "The UPS is already in the requested state of CANCELED."

RIGHT: dict[tuple[str, str], tuple[int, str, str]] = {
    ("SCHEDULED", "IN PROGRESS"): (200, "", "IN PROGRESS"),
    ("SCHEDULED", "COMPLETED"): (409, INCONSISTENT, "SCHEDULED"),
    ("SCHEDULED", "CANCELED"): (409, INCONSISTENT, "SCHEDULED"),
    ("IN PROGRESS", "IN PROGRESS"): (409, INCONSISTENT, "IN PROGRESS"),
    ("IN PROGRESS", "COMPLETED"): (200, "", "COMPLETED"),
    ("IN PROGRESS", "CANCELED"): (200, "", "CANCELED"),
    ("COMPLETED", "IN PROGRESS"): (409, INCONSISTENT, "COMPLETED"),
    ("COMPLETED", "COMPLETED"): (200, DONE, "COMPLETED"),
    ("COMPLETED", "CANCELED"): (409, INCONSISTENT, "COMPLETED"),
    ("CANCELED", "IN PROGRESS"): (409, INCONSISTENT, "CANCELED"),
    ("CANCELED", "COMPLETED"): (409, INCONSISTENT, "CANCELED"),
    ("CANCELED", "CANCELED"): (200, GONE, "CANCELED"),
}
"""(state, asked for) -> status, warning, state afterwards, for who knows the transaction UID; from the standard."""

CANCELLED = {
    "SCHEDULED": (202, "", "CANCELED"),
    "IN PROGRESS": (409, "The performer cannot be contacted.", "IN PROGRESS"),
    "COMPLETED": (409, "The UPS is already COMPLETED.", "COMPLETED"),
    "CANCELED": (202, GONE, "CANCELED"),
}
"""What a request for cancellation does (PS3.18 11.8), where the performer is elsewhere."""

UPDATED = {
    ("SCHEDULED", ""): (200, ""),
    ("SCHEDULED", LOCK): (409, "The target URI did not reference a claimed Workitem."),
    ("IN PROGRESS", LOCK): (200, ""),
    ("IN PROGRESS", ""): (400, CURRENT),
    ("IN PROGRESS", OTHER): (400, CURRENT),
    ("COMPLETED", LOCK): (400, CURRENT),
    ("CANCELED", LOCK): (400, CURRENT),
}
"""(state, transaction UID) -> what an update does (PS3.18 11.6)."""


@pytest.fixture
def requester(service: Service) -> Requester:
    return Requester(as_role(service, "reader"))


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, warning(answer) if "Warning" in answer.headers else ""


def test_who_knows_the_transaction_uid(requester: Requester) -> None:
    for number, ((state, asked), (status, words, after)) in enumerate(RIGHT.items()):
        uid = requester.bring(state, f"1.2.3.{number}")
        if (state, asked) == ("IN PROGRESS", "COMPLETED"):
            assert requester.send("POST", f"workitems/{uid}?{LOCK}", performed()).status_code == 200
        assert told(requester.change(asked, uid=uid)) == (status, words), f"{state} -> {asked}"
        assert requester.get(uid).ProcedureStepState == after


def test_who_knows_another_one_or_none(requester: Requester) -> None:
    for number, state in enumerate(STATES):
        uid = requester.bring(state, f"1.2.3.{number}")
        for asked in STATES[1:]:
            assert told(requester.change(asked, "", uid)) == (400, MISSING), f"{state} -> {asked}"
            if state != "SCHEDULED":
                answer = requester.change(asked, OTHER, uid)
                assert told(answer) == (400, INCORRECT), f"{state} -> {asked}"
                assert answer.json()["error"]["message"] == "The Transaction UID is incorrect (C301)."
        assert told(requester.change("IN PROGRESS", "no-uid", uid)) == (400, INCORRECT)
        assert requester.get(uid).ProcedureStepState == state


def test_nothing_becomes_scheduled_again(requester: Requester) -> None:
    for number, state in enumerate(STATES):
        uid = requester.bring(state, f"1.2.3.{number}")
        answer = requester.change("SCHEDULED", uid=uid)
        assert error_of(answer) == (400, "bad_request")
        assert answer.json()["error"]["message"] == "A workitem becomes scheduled by being created only (C303)."
        other = requester.change("DONE", uid=uid).json()["error"]["message"]
        assert other == "expected a Procedure Step State of IN PROGRESS, COMPLETED or CANCELED, got another"
        assert requester.get(uid).ProcedureStepState == state


def test_the_table_is_whole() -> None:
    assert {(asked, state) for asked in STATES[1:] for state in STATES} == set(TRANSITIONS)
    assert {(asked, state) for state, asked in RIGHT} == set(TRANSITIONS)


def test_a_workitem_that_is_not_there_is_unknown_in_every_way(requester: Requester) -> None:
    for answer in (
        requester.client.get("/dicom-web/workitems/1.2.3"),
        requester.client.get("/dicom-web/workitems/no-uid"),
        requester.change("IN PROGRESS", uid="1.2.3"),
        requester.cancel("1.2.3"),
        requester.send("POST", "workitems/1.2.3", performed()),
    ):
        assert error_of(answer) == (404, "not_found")


def test_a_cancellation_that_another_system_asks_for(requester: Requester) -> None:
    for number, (state, (status, words, after)) in enumerate(CANCELLED.items()):
        uid = requester.bring(state, f"1.2.3.{number}")
        assert told(requester.cancel(uid)) == (status, words), state
        assert requester.get(uid).ProcedureStepState == after


def test_an_update(requester: Requester) -> None:
    change = performed()
    change.ProcedureStepLabel = "Another"
    for number, ((state, lock), expected) in enumerate(UPDATED.items()):
        uid = requester.bring(state, f"1.2.3.{number}")
        answer = requester.send("POST", f"workitems/{uid}" + (f"?{lock}" if lock else ""), change)
        assert told(answer) == expected, (state, lock)
        assert (requester.get(uid).ProcedureStepLabel == "Another") is (answer.status_code == 200)


def test_the_lock_of_an_update_is_taken_as_each_edition_of_the_standard_writes_it(requester: Requester) -> None:
    requester.bring("IN PROGRESS")
    for lock in (LOCK, f"transaction-uid={LOCK}", f"transaction={LOCK}"):
        assert requester.send("POST", f"workitems/{WORKITEM}?{lock}", performed()).status_code == 200
    inside = performed()
    inside.TransactionUID = LOCK
    assert requester.send("POST", f"workitems/{WORKITEM}", inside).status_code == 200
    differ = requester.send("POST", f"workitems/{WORKITEM}?{OTHER}", inside)
    assert differ.json()["error"]["message"] == "expected one Transaction UID, got two that differ"
    named = requester.send("POST", f"workitems/{WORKITEM}?x={LOCK}", inside)
    assert named.json()["error"]["message"] == "expected a UID, alone or as transaction-uid, got something else"


def test_a_completion_without_what_the_final_state_requires_is_refused(requester: Requester) -> None:
    requester.bring("IN PROGRESS")
    answer = requester.change("COMPLETED")
    assert told(answer) == (409, INCONSISTENT)
    assert answer.json()["error"]["message"] == (
        "The final state requires PerformedStationNameCodeSequence, PerformedProcedureStepStartDateTime, "
        "PerformedWorkitemCodeSequence, PerformedProcedureStepEndDateTime, OutputInformationSequence "
        "in the performed procedure (C304)."
    )
    assert requester.get().ProcedureStepState == "IN PROGRESS"


def test_a_cancellation_by_the_performer_gets_its_moment_and_reason(requester: Requester) -> None:
    requester.bring("CANCELED")
    (progress,) = requester.get().ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
