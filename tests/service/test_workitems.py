"""Other systems ask for reads: from the request to the report; every refusal; who may; nothing leaks."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from sqlalchemy import select, update

from tests.service.test_api import CANARY, as_role, do_jobs, error_of, upload
from tests.service.workitem_support import (
    KIND,
    LOCK,
    WORKITEM,
    Requester,
    code,
    order,
    parameter,
    performed,
    study,
    warning,
)
from wetread.service import jobs
from wetread.service.accounts import Principal, make_token
from wetread.service.app import build_app
from wetread.service.claims import begin_due
from wetread.service.context import Service
from wetread.service.jobs import Failure, Lease
from wetread.service.tables import AuditEntry, Job, ReportObject, Result, User, Workitem
from wetread.service.worker import Worker


@pytest.fixture
def requester(service: Service) -> Requester:
    return Requester(as_role(service, "reader"))


def lines(service: Service) -> list[tuple[str, str]]:
    """(action, who) of the audit log."""
    with service.database.read() as session:
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.seq)).all()
    return [(entry.action, entry.actor) for entry in entries]


def fail_jobs(service: Service, state: str, code_: str = "image_refused") -> None:
    """End the next job without a result, as a worker would."""
    lease = Lease("test", 60.0, 1)
    with service.database.write() as session:
        (job,) = jobs.claim(session, lease, 1)
        assert jobs.fail(session, lease, job.id, Failure(code_, "x", again=state == "dead")) == state


def test_a_study_that_comes_later_is_read_and_told(service: Service, requester: Requester) -> None:
    """The whole path with the real reader, and each answer held against the standard."""
    film, uid = study()
    made = requester.create(uid)
    assert made.status_code == 201
    assert made.content == b""
    assert "Warning" not in made.headers
    assert made.headers["Location"] == f"http://testserver/dicom-web/workitems/{WORKITEM}"
    assert requester.get().ProcedureStepState == "SCHEDULED"
    assert upload(requester.client, film).status_code == 201
    assert requester.get().ProcedureStepState == "IN PROGRESS"
    assert Worker(service).drain() == 1
    found = requester.get()
    assert found.ProcedureStepState == "COMPLETED"
    (done,) = found.UnifiedProcedureStepPerformedProcedureSequence
    assert done.PerformedProcedureStepDescription == f"Read by {service.settings.service.reader}"
    (series,) = done.OutputInformationSequence
    assert (series.TypeOfInstances, series.StudyInstanceUID) == ("DICOM", uid)
    (reference,) = series.ReferencedSOPSequence
    answer = requester.client.get(
        series.WADORSRetrievalSequence[0].RetrieveURL, headers={"Accept": "application/dicom"}
    )  # fmt: skip
    report = dcmread(io.BytesIO(answer.content))
    assert report.SOPClassUID == reference.ReferencedSOPClassUID
    assert report.SOPInstanceUID == reference.ReferencedSOPInstanceUID
    assert (report.StudyInstanceUID, report.SeriesInstanceUID) == (uid, series.SeriesInstanceUID)
    assert [action for action, who in lines(service) if who == "service"] == ["claim workitem", "end workitem"]
    assert ("create workitem", "reader 0") in lines(service)
    with service.database.read() as session:
        from wetread.service import audit_log

        assert audit_log.verify(session).broken is None


def test_a_study_that_is_here_is_begun_at_once_and_one_that_is_read_is_completed_at_once(
    service: Service, requester: Requester
) -> None:
    film, uid = study()
    upload(requester.client, film)
    requester.create(uid)
    assert requester.get().ProcedureStepState == "IN PROGRESS"
    assert len(do_jobs(service)) == 1  # asked for twice, read once
    assert requester.get().ProcedureStepState == "COMPLETED"
    requester.create(uid, "1.2.3.4")
    assert requester.get("1.2.3.4").ProcedureStepState == "COMPLETED"
    with service.database.read() as session:
        assert len(session.scalars(select(ReportObject)).all()) == 1


def test_another_reader_is_asked_for_by_a_processing_parameter(service: Service, requester: Requester) -> None:
    film, uid = study()
    upload(requester.client, film)
    do_jobs(service)
    asked = [parameter("reader", "chest-pneumonia"), parameter("operating_point", "youden")]
    with service.database.read():
        points = {
            point.name for point in service.catalog.card_of(service.catalog.reader("chest-pneumonia")).operating_points
        }
    asked[1].TextValue = min(points)
    assert requester.create(uid, ScheduledProcessingParametersSequence=asked).status_code == 201
    with service.database.read() as session:
        job = session.scalars(select(Job).where(Job.state == "queued")).one()
    assert job.parameters["reader"] == "chest-pneumonia"
    assert job.parameters["operating_point"] == min(points)
    do_jobs(service)
    (done,) = requester.get().UnifiedProcedureStepPerformedProcedureSequence
    assert done.PerformedProcedureStepDescription == "Read by chest-pneumonia"


@pytest.mark.parametrize(("state", "code_"), [("failed", "image_refused"), ("dead", "worker_lost")])
def test_a_study_whose_reads_all_fail_is_cancelled_with_the_reason(
    service: Service, requester: Requester, state: str, code_: str
) -> None:
    film, uid = study()
    requester.create(uid)
    upload(requester.client, film)
    fail_jobs(service, state, code_)
    found = requester.get()
    assert found.ProcedureStepState == "CANCELED"
    (progress,) = found.ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == f"1 of 1 images were not read ({code_} 1)."


def test_a_study_that_is_read_in_part_is_completed_and_says_so(service: Service, requester: Requester) -> None:
    film, uid = study()
    second = dcmread(io.BytesIO(film))
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
    target = io.BytesIO()
    second.save_as(target)
    requester.create(uid)
    upload(requester.client, film, target.getvalue())
    fail_jobs(service, "failed")
    assert requester.get().ProcedureStepState == "IN PROGRESS"
    do_jobs(service)
    found = requester.get()
    assert found.ProcedureStepState == "COMPLETED"
    (done,) = found.UnifiedProcedureStepPerformedProcedureSequence
    assert done.CommentsOnThePerformedProcedureStep == "1 of 2 images were not read (image_refused 1)."
    assert len(done.OutputInformationSequence[0].ReferencedSOPSequence) == 1


def test_a_read_of_another_form_is_completed_without_a_report_and_says_so(
    service: Service, requester: Requester
) -> None:
    film, uid = study()
    upload(requester.client, film)
    do_jobs(service)
    with service.database.write() as session:
        session.execute(update(Result).values(record={"schema": "of another version"}))
    requester.create(uid)
    (done,) = requester.get().UnifiedProcedureStepPerformedProcedureSequence
    assert done.CommentsOnThePerformedProcedureStep == "1 of 1 reads have no DICOM report."
    assert not done.OutputInformationSequence


def test_images_that_come_while_it_is_read_are_waited_for(service: Service, requester: Requester) -> None:
    film, uid = study()
    asked = [parameter("reader", "chest-pneumonia")]
    requester.create(uid, ScheduledProcessingParametersSequence=asked)
    upload(requester.client, film)
    later = dcmread(io.BytesIO(film))
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
    target = io.BytesIO()
    later.save_as(target)
    upload(requester.client, target.getvalue())
    do_jobs(service)
    (done,) = requester.get().UnifiedProcedureStepPerformedProcedureSequence
    assert len(done.OutputInformationSequence[0].ReferencedSOPSequence) == 2


def test_a_worker_that_dies_leaves_the_workitem_to_the_next(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid)
    upload(requester.client, film)
    for _ in range(2):
        with service.database.write() as session:
            assert len(jobs.claim(session, Lease("dies", 0.0, 2), 1)) == 1
        assert requester.get().ProcedureStepState == "IN PROGRESS"
    with service.database.write() as session:
        assert jobs.claim(session, Lease("next", 60.0, 2), 1) == []  # after two tries it is a dead letter
    (progress,) = requester.get().ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "1 of 1 images were not read (worker_lost 1)."


def test_input_that_is_incomplete_and_a_start_that_lies_ahead_are_waited_for(
    service: Service, requester: Requester
) -> None:
    film, uid = study()
    upload(requester.client, film)
    requester.create(uid, InputReadinessState="INCOMPLETE")
    requester.create(uid, "1.2.3.4", ScheduledProcedureStepStartDateTime="29990101000000+0000")
    requester.create(uid, "1.2.3.5", InputReadinessState="UNAVAILABLE")
    states = [requester.get(one).ProcedureStepState for one in (WORKITEM, "1.2.3.4", "1.2.3.5")]
    assert states == ["SCHEDULED", "SCHEDULED", "IN PROGRESS"]
    ready = Dataset()
    ready.InputReadinessState = "READY"
    assert requester.send("POST", f"workitems/{WORKITEM}", ready).status_code == 200
    assert requester.get().ProcedureStepState == "IN PROGRESS"
    assert begin_due(service) == 0
    with service.database.write() as session:
        session.execute(update(Workitem).where(Workitem.uid == "1.2.3.4").values(start=0.0))
    Worker(service).sweep()  # what a worker does once a minute
    assert requester.get("1.2.3.4").ProcedureStepState == "IN PROGRESS"


def test_a_study_of_another_patient_or_worklist_is_not_taken(service: Service, requester: Requester) -> None:
    film, uid = study()
    patient = str(dcmread(io.BytesIO(film)).PatientID)
    upload(requester.client, film, tray="ward")
    requester.create(uid, PatientID="SOMEBODY ELSE", WorklistLabel="ward")
    requester.create(uid, "1.2.3.4", PatientID=patient)
    assert [requester.get(one).ProcedureStepState for one in (WORKITEM, "1.2.3.4")] == ["SCHEDULED"] * 2
    requester.create(uid, "1.2.3.5", PatientID=patient, WorklistLabel="ward")
    assert requester.get("1.2.3.5").ProcedureStepState == "IN PROGRESS"


def test_two_patients_with_one_study_uid_are_never_mixed_up(service: Service, requester: Requester) -> None:
    film, uid = study()
    other = dcmread(io.BytesIO(film))
    other.PatientID = "ANOTHER"
    target = io.BytesIO()
    other.save_as(target)
    upload(requester.client, film)
    upload(requester.client, target.getvalue())
    requester.create(uid)
    (progress,) = requester.get().ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "2 studies of several patients have this UID; name the patient."
    requester.create(uid, "1.2.3.4", PatientID="ANOTHER")
    assert requester.get("1.2.3.4").ProcedureStepState == "IN PROGRESS"


def test_a_workitem_for_another_station_is_left_to_it(service: Service, requester: Requester) -> None:
    film, uid = study()
    upload(requester.client, film)
    requester.create(uid, ScheduledStationNameCodeSequence=[code("ELSEWHERE")])
    assert requester.get().ProcedureStepState == "SCHEDULED"
    assert requester.change("IN PROGRESS").status_code == 200
    assert requester.send("POST", f"workitems/{WORKITEM}?{LOCK}", performed()).status_code == 200
    assert requester.change("COMPLETED").status_code == 200
    requester.create(uid, "1.2.3.4", ScheduledStationNameCodeSequence=[code("ELSEWHERE"), code("wetread")])
    assert requester.get("1.2.3.4").ProcedureStepState == "IN PROGRESS"
    assert [action for action, who in lines(service) if who != "service" and "workitem" in action] == [
        "create workitem", "claim workitem", "update workitem", "complete workitem", "create workitem",
    ]  # fmt: skip


def test_of_two_that_claim_at_once_one_wins(service: Service, requester: Requester) -> None:
    for number in range(5):
        uid = f"1.2.3.{number}"
        requester.create(study()[1], uid)
        found: list[tuple[int, str]] = []

        def run(lock: str, uid: str = uid, found: list[tuple[int, str]] = found) -> None:
            found.append((requester.change("IN PROGRESS", lock, uid).status_code, lock))

        threads = [threading.Thread(target=run, args=(f"1.2.9.{one}",)) for one in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _ in found) == [200, 400, 400, 400]
        (winner,) = [lock for status, lock in found if status == 200]
        assert requester.change("CANCELED", winner, uid).status_code == 200


def test_a_cancellation_stops_reads_that_nobody_else_waits_for(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid)
    requester.create(uid, "1.2.3.4")
    upload(requester.client, film)
    said = {"ReasonForCancellation": "Sent twice", "ContactDisplayName": "PACS team", "ContactURI": "tel:+1-555-0100"}
    assert requester.cancel("1.2.3.4", **said).status_code == 202
    found = requester.get("1.2.3.4")
    assert found.ProcedureStepState == "CANCELED"
    (progress,) = found.ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "Sent twice"
    assert progress.ProcedureStepCommunicationsURISequence[0].ContactURI == "tel:+1-555-0100"
    with service.database.read() as session:
        assert session.scalars(select(Job.state)).all() == ["queued"]  # the first still waits for it
    assert requester.cancel().status_code == 202
    with service.database.read() as session:
        assert session.scalars(select(Job.state)).all() == ["cancelled"]
    again = requester.cancel()
    assert (again.status_code, warning(again)) == (202, "The UPS is already in the requested state of CANCELED.")


def test_a_cancellation_leaves_the_reads_that_somebody_else_asked_for(service: Service, requester: Requester) -> None:
    film, uid = study()
    upload(as_role(service, "reader"), film)
    requester.create(uid)
    assert requester.cancel().status_code == 202
    with service.database.read() as session:
        assert session.scalars(select(Job.state)).all() == ["queued"]
    do_jobs(service)
    assert requester.get().ProcedureStepState == "CANCELED"


def test_a_job_that_is_cancelled_by_hand_cancels_its_workitem(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid)
    (job,) = upload(requester.client, film).json()["jobs"]
    assert requester.client.post(f"/api/v1/jobs/{job}/cancel").status_code == 200
    (progress,) = requester.get().ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "1 of 1 images were not read (cancelled 1)."


def test_a_workitem_goes_with_its_study(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid, PatientName=f"{CANARY}^A", ProcedureStepLabel=CANARY)
    found = upload(requester.client, film).json()["studies"][0]["id"]
    Worker(service).drain()
    series = requester.get().UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence[0]
    address = series.WADORSRetrievalSequence[0].RetrieveURL
    assert requester.client.get(address).status_code == 200
    admin = as_role(service, "admin")
    assert admin.delete(f"/api/v1/studies/{found}").status_code == 204
    for answer in (requester.client.get(f"/dicom-web/workitems/{WORKITEM}"), requester.change("IN PROGRESS"),
                   requester.cancel(), requester.send("POST", f"workitems/{WORKITEM}", performed())):  # fmt: skip
        assert error_of(answer) == (410, "gone")
    assert error_of(requester.client.get(address)) == (404, "not_found")
    assert requester.search({}) == []
    assert error_of(requester.create(uid)) == (409, "conflict")
    assert [path for path in (service.root / "blobs").rglob("*") if path.is_file()] == []
    with service.database.read() as session:
        row = session.scalars(select(Workitem)).one()
    assert CANARY not in str([getattr(row, column.key) for column in row.__table__.columns])


def test_workitems_survive_a_restart(service: Service, requester: Requester) -> None:
    from wetread.service.context import open_service

    film, uid = study()
    requester.create(uid)
    again = open_service(service.settings)
    client = TestClient(build_app(again), cookies=requester.client.cookies, headers=requester.client.headers)
    assert Requester(client).get().ProcedureStepState == "SCHEDULED"
    upload(client, film)
    assert Requester(client).get().ProcedureStepState == "IN PROGRESS"
    again.close()


def test_several_studies_need_one_that_is_named(requester: Requester) -> None:
    inputs = [Dataset(), Dataset()]
    inputs[0].StudyInstanceUID, inputs[1].StudyInstanceUID = "1.2.3", "1.2.4"
    answer = requester.create("", InputInformationSequence=inputs)
    assert answer.json()["error"]["message"] == (
        "expected one study to read, in Study Instance UID (0020,000D), got several inputs and none named"
    )
    assert requester.create("", InputInformationSequence=inputs[:1]).status_code == 201
    assert requester.create("1.2.4", "1.2.3.4", InputInformationSequence=inputs).status_code == 201
    assert len(requester.search({"InputInformationSequence.StudyInstanceUID": "1.2.4"})) == 1


def test_what_the_manager_adds_is_told(requester: Requester) -> None:
    answer = requester.create(study()[1], WorklistLabel="", PatientName=None, AdmissionID=None)
    assert (answer.status_code, warning(answer)) == (201, "The Workitem was created with modifications.")
    assert requester.get().WorklistLabel == "main"


def test_the_uid_is_taken_from_each_place_that_an_edition_of_the_standard_names(requester: Requester) -> None:
    uid = study()[1]
    for place in ("1.2.3.1", "workitem=1.2.3.2", "AffectedSOPInstanceUID=1.2.3.3"):
        assert requester.create(uid, place).status_code == 201
    inside = requester.send("POST", "workitems", order(uid, SOPInstanceUID="1.2.3.4"))
    assert inside.headers["Location"].endswith("/workitems/1.2.3.4")
    assert [one.SOPInstanceUID for one in requester.search({})] == [f"1.2.3.{number}" for number in range(1, 5)]
    for place in ("", "?1.2.3&1.2.4", "?nothing", "?other=1.2.3", "?1.02.3"):
        assert error_of(requester.send("POST", f"workitems{place}", order(uid))) == (400, "bad_request")
    again = requester.create(uid, "1.2.3.1")
    assert error_of(again) == (409, "conflict")
    assert again.json()["error"]["message"] == "The Target Workitem already exists."


def test_an_update_cannot_make_it_a_workitem_of_another_patient(requester: Requester) -> None:
    requester.create(study()[1])
    for keyword, value in (("PatientID", "x"), ("ProcedureStepState", "CANCELED"), ("ReferencedRequestSequence", [])):
        change = Dataset()
        setattr(change, keyword, value)
        answer = requester.send("POST", f"workitems/{WORKITEM}", change)
        assert error_of(answer) == (400, "bad_request")
        assert answer.json()["error"]["message"] == f"expected an update of what may change, got {keyword}"
    empty = Dataset()
    empty.ProcedureStepLabel = ""
    assert error_of(requester.send("POST", f"workitems/{WORKITEM}", empty)) == (400, "bad_request")
    assert requester.get().ProcedureStepLabel == "Read the chest"


def test_subscriptions_are_refused_by_name(requester: Requester) -> None:
    for method, address in (
        ("POST", "workitems/1.2.840.10008.5.1.4.34.5/subscribers/AE"),
        ("POST", "workitems/1.2.840.10008.5.1.4.34.5.1/subscribers/AE"),
        ("POST", "workitems/1.2.840.10008.5.1.4.34.5/subscribers/AE/suspend"),
        ("DELETE", f"workitems/{WORKITEM}/subscribers/AE"),
        ("GET", "subscribers/AE"),
    ):
        answer = requester.send(method, address)
        assert error_of(answer) == (501, "not_offered")
        assert answer.json()["error"]["message"] == "Subscriptions and notifications are not offered."


def test_a_worklist_that_is_not_yours_has_no_workitems_for_you(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid, WorklistLabel="ward")
    upload(requester.client, film, tray="ward")
    Worker(service).drain()
    series = requester.get().UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence[0]
    stranger = Requester(as_role(service, "admin", trays=("main",)))
    for answer in (
        stranger.client.get(f"/dicom-web/workitems/{WORKITEM}"), stranger.change("IN PROGRESS"), stranger.cancel(),
        stranger.send("POST", f"workitems/{WORKITEM}", performed()),
        stranger.client.get(series.WADORSRetrievalSequence[0].RetrieveURL),
    ):  # fmt: skip
        assert error_of(answer) == (404, "not_found")
    assert stranger.search({}) == []
    refused = stranger.create(uid, "1.2.3.4", WorklistLabel="ward")
    assert error_of(refused) == (403, "forbidden")
    assert refused.json()["error"]["message"] == "This worklist is not one of yours."
    moved = Dataset()
    moved.WorklistLabel = "ward"
    stranger.create(uid, "1.2.3.5")
    assert error_of(stranger.send("POST", "workitems/1.2.3.5", moved)) == (403, "forbidden")
    ward = Requester(as_role(service, "reader", trays=("ward",)))
    assert ward.create(uid, "1.2.3.6", WorklistLabel="").status_code == 201
    assert ward.get("1.2.3.6").WorklistLabel == "ward"


def test_before_it_is_claimed_only_its_requester_and_admins_change_it(service: Service, requester: Requester) -> None:
    requester.create(study()[1])
    change = Dataset()
    change.ProcedureStepLabel = "Other"
    other, admin = Requester(as_role(service, "reader")), Requester(as_role(service, "admin"))
    for answer in (other.send("POST", f"workitems/{WORKITEM}", change), other.cancel()):
        assert error_of(answer) == (403, "forbidden")
        assert answer.json()["error"]["message"] == "This workitem was asked for by somebody else."
    assert admin.send("POST", f"workitems/{WORKITEM}", change).status_code == 200
    assert other.change("IN PROGRESS").status_code == 200  # anybody of the worklist may perform it


def test_a_token_that_may_only_look_asks_for_nothing(service: Service) -> None:
    client = TestClient(build_app(service))
    as_role(service, "annotator")
    with service.database.write() as session:
        user = session.scalars(select(User)).one()
        _, look = make_token(session, user, "look", ["read"], 3600)
        _, write = make_token(session, user, "write", ["write"], 3600)
    requester = Requester(client)
    client.headers["Authorization"] = f"Bearer {look}"
    assert client.get("/dicom-web/workitems").status_code == 204
    for answer in (requester.create("1.2.3"), requester.change("IN PROGRESS"), requester.cancel()):
        assert error_of(answer) == (403, "forbidden")
    client.headers["Authorization"] = f"Bearer {write}"
    assert requester.create("1.2.3").status_code == 201
    assert error_of(client.get("/dicom-web/workitems")) == (403, "forbidden")


def test_a_page_elsewhere_cannot_create_one(service: Service, requester: Requester) -> None:
    del requester.client.headers["X-CSRF-Token"]
    assert error_of(requester.create("1.2.3")) == (403, "csrf")


def test_a_patient_of_a_workitem_is_named_in_no_log_address_metric_or_error(
    service: Service, requester: Requester, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("wetread.service.access").propagate = True
    _, uid = study()
    said: dict[str, Any] = {
        keyword: CANARY
        for keyword in ("PatientID", "PatientSex", "ProcedureStepLabel", "CommentsOnTheScheduledProcedureStep",
                        "AdmissionID", "AdmittingDiagnosesDescription")
    }  # fmt: skip
    made = requester.create(uid, PatientName=f"{CANARY}^A", **said)
    assert made.status_code == 201
    assert CANARY in requester.client.get(f"/dicom-web/workitems/{WORKITEM}").text
    assert len(requester.search({"PatientID": CANARY})) == 1
    answers = [
        made, requester.create(uid, PatientName=CANARY, PatientBirthDate=CANARY), requester.cancel(CANARY),
        requester.client.get(f"/dicom-web/workitems/{CANARY}"),
        requester.client.get(f"/dicom-web/studies/{CANARY}/series/{CANARY}"),
        requester.create(uid, "1.2.3.4", InputReadinessState=CANARY), requester.change(CANARY),
        requester.create(uid, "1.2.3.5", ScheduledProcessingParametersSequence=[parameter("reader", CANARY)]),
        requester.cancel(ReasonForCancellation=CANARY),
    ]  # fmt: skip
    for answer in answers:
        assert CANARY not in answer.text
        assert CANARY not in str(answer.headers.raw)
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert CANARY not in "\n".join(f"{one.getMessage()} {one.args} {one.exc_text}" for one in ours)
    assert any('"route": "/dicom-web/workitems/{workitem}"' in one.getMessage() for one in ours)
    assert CANARY not in requester.client.get("/metrics").text
    with service.database.read() as session:
        entries = session.scalars(select(AuditEntry)).all()
    assert CANARY not in json.dumps([[one.actor, one.action, one.object, one.detail] for one in entries])


def test_an_uploader_is_not_asked_anything_more(service: Service, someone: Principal) -> None:
    """Reads that people ask for make no workitems: nobody elsewhere waits for them."""
    client = as_role(service, "reader")
    upload(client, study()[0])
    assert Requester(client).search({}) == []


def test_a_report_is_one_file_for_ever(service: Service, requester: Requester) -> None:
    film, uid = study()
    requester.create(uid)
    upload(requester.client, film)
    Worker(service).drain()
    series = requester.get().UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence[0]
    instance = series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    address = f"/dicom-web/studies/{uid}/series/{series.SeriesInstanceUID}/instances/{instance}"
    get: Callable[[], bytes] = lambda: requester.client.get(address, headers={"Accept": "application/dicom"}).content  # noqa: E731
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found, get()}) == 1
    assert dcmread(io.BytesIO(found[0])).SOPInstanceUID == instance
    wrong = f"/dicom-web/studies/1.2.3/series/{series.SeriesInstanceUID}/instances/{instance}"
    assert error_of(requester.client.get(wrong)) == (404, "not_found")


def test_the_conformance_statement_says_what_is_done() -> None:
    from wetread.pacs.conformance import MATCHING, conformance_statement
    from wetread.service.dicom_json import MEDIA_TYPES
    from wetread.service.workitem_rules import DISCONTINUED, PARAMETERS, STATION
    from wetread.service.workitem_search import MATCHED, MOST, USUAL_LIMIT

    assert tuple(MATCHED) == MATCHING
    text = conformance_statement()
    for said in (
        ", ".join(MATCHED), f"| offset and limit | {USUAL_LIMIT} at once, at most {MOST};",
        f"the code value {STATION},",
        f"{MEDIA_TYPES[0]}, also as {MEDIA_TYPES[1]}", f"({DISCONTINUED['CodeValue']}, DCM,",
        *(f"({name}, 99WETREAD)" for name in PARAMETERS),
    ):  # fmt: skip
        assert said in text


def test_the_examples_of_the_manual_are_taken(requester: Requester, repository: Path) -> None:
    text = (repository / "docs" / "how-to" / "run-the-service.md").read_text(encoding="utf-8")
    section = text[text.index("## Let other systems ask for reads") :]
    least, another = (json.loads(one) for one in re.findall(r"```json\n(.*?)```", section, re.DOTALL)[:2])
    for number, body in enumerate((least, {**least, **another})):
        data = json.dumps(body)
        made = requester.client.post(f"/dicom-web/workitems?1.2.3.{number}", content=data, headers=KIND)
        assert made.status_code == 201, made.text
    change = re.search(r"--data '(.*?)' \"\$BASE/workitems/\$ITEM\"\n", section)
    assert change is not None
    updated = requester.client.post("/dicom-web/workitems/1.2.3.0", content=change[1], headers=KIND)
    assert updated.status_code == 200
