"""What the pages beside the study ask for: ways to log in, one-time addresses, jobs, ages of studies, intervals."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.service.test_api import as_role, do_jobs, error_of, film, upload
from wetread.service.app import build_app
from wetread.service.context import Service
from wetread.service.openid import OpenIdConnect
from wetread.service.study_facts import days_between
from wetread.service.tables import Study


@pytest.fixture
def client(service: Service) -> TestClient:
    return as_role(service, "admin")


def test_anybody_is_told_how_to_log_in(service: Service) -> None:
    assert TestClient(build_app(service)).get("/api/v1/session/ways").json() == {"openid": None}
    with_provider = replace(service, openid=OpenIdConnect("https://id.example/realms/x", "wetread", "secret"))
    answer = TestClient(build_app(with_provider)).get("/api/v1/session/ways")
    assert answer.json() == {"openid": "id.example"}


def test_an_admin_makes_an_address_that_logs_a_user_in_once(client: TestClient, service: Service) -> None:
    user = client.post("/api/v1/users", json={"name": "hopper", "role": "reader"}).json()
    assert user["openid"] is False
    made = client.post(f"/api/v1/users/{user['id']}/one-time").json()
    stranger = TestClient(build_app(service), follow_redirects=False)
    assert stranger.get(made["address"]).status_code == 303
    assert stranger.get("/api/v1/session").json()["name"] == "hopper"
    assert error_of(TestClient(build_app(service)).get(made["address"])) == (401, "not_logged_in")
    client.patch(f"/api/v1/users/{user['id']}", json={"disabled": True})
    assert error_of(client.post(f"/api/v1/users/{user['id']}/one-time")) == (404, "not_found")


def test_jobs_say_of_which_study_they_are_and_how_many_there_are(client: TestClient, service: Service) -> None:
    study = upload(client, film(1)).json()["studies"][0]["id"]
    page = client.get("/api/v1/jobs").json()
    (job,) = page["jobs"]
    assert (job["study_id"], job["image_number"], job["by"], job["state"]) == (study, 1, "admin 0", "queued")
    assert page["counts"] == {"queued": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 0, "dead": 0}
    do_jobs(service)
    assert client.get("/api/v1/jobs", params={"state": "queued"}).json()["jobs"] == []
    assert client.get("/api/v1/jobs").json()["counts"]["done"] == 1
    assert as_role(service, "reader").get("/api/v1/jobs").json()["counts"]["done"] == 0  # somebody else's


def test_studies_are_filtered_by_age(client: TestClient, service: Service) -> None:
    for seed in range(3):
        upload(client, film(seed))
    today = datetime.now(UTC)
    dates = [(today - timedelta(days=age)).strftime("%Y%m%d") for age in (3, 20)]
    with service.database.write() as session:
        for row, date in zip(session.scalars(select(Study).order_by(Study.created)), [*dates, None], strict=True):
            row.study_date = date
            row.created = 0.0 if date is not None else row.created  # an undated study counts from when it came
    found = {days: client.get("/api/v1/studies", params={"days": days}).json()["total"] for days in (0, 1, 7, 30)}
    assert found == {0: 3, 1: 1, 7: 2, 30: 3}
    assert error_of(client.get("/api/v1/studies", params={"days": -1})) == (422, "invalid")


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [("20000101", "20000131", 30), ("20000301", "20000228", -2), ("", "20000101", None), ("2000", None, None)],
)
def test_days_between_dates_of_headers(first: str | None, second: str | None, days: int | None) -> None:
    assert days_between(first, second) == days


def test_a_prior_is_told_by_its_interval_and_findings_and_never_by_its_date(
    client: TestClient, service: Service
) -> None:
    new, old = (upload(client, film(seed)).json()["studies"][0]["id"] for seed in (1, 2))
    do_jobs(service)
    with service.database.write() as session:
        for study, date in ((new, "20000131"), (old, "20000101")):
            row = session.get_one(Study, study)
            row.patient_id, row.study_date = "P1", date
    facts = client.get(f"/api/v1/studies/{new}/facts").json()
    (prior,) = [fact["text"] for fact in facts if fact["kind"] == "prior"]
    assert prior == "Another study of this patient, 30 days earlier: pneumonia positive, probability 0.90."
    assert not re.search(r"2000|P1", prior)
    answer = client.post(f"/api/v1/studies/{new}/ask", json={"question": "Compare with the prior"}).json()
    assert answer["intent"] == "compare"
    assert answer["actions"] == [{"do": "open_beside", "study": old}]
    assert [phrase["text"] for phrase in answer["phrases"]] == ["pneumonia positive, probability 0.90.", prior]
    back = client.post(f"/api/v1/studies/{old}/ask", json={"question": "¿Ha cambiado?"}).json()
    assert "30 days later" in back["text"]
