"""The API as a client meets it, without a worker: log in, upload, worklist, feedback, drafts, questions."""

from __future__ import annotations

import base64
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import select, update

from wetread.service import jobs
from wetread.service.access import CSRF_HEADER, PUBLIC, needs
from wetread.service.accounts import FREE_TRIES, add_user, csrf_of, make_login_token, make_token, start_session
from wetread.service.app import ROUTERS, build_app
from wetread.service.context import Service
from wetread.service.jobs import Found, Lease
from wetread.service.tables import Job, Study, User

PASSWORD = "correct horse battery"
CANARY = "ZZCANARY"


def film(seed: int = 0, side: int = 64) -> bytes:
    """A PNG of noise."""
    target = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    Image.fromarray(noise).save(target, "PNG")
    return target.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def as_role(service: Service, role: str, trays: tuple[str, ...] = ("*",)) -> TestClient:
    """A client that is logged in as a new user of that role."""
    client = TestClient(build_app(service))
    with service.database.write() as session:
        user = add_user(session, f"{role} {len(session.scalars(select(User)).all())}", role, None, trays)
        cookie = start_session(session, user, 3600)
    client.cookies.set("wetread_session", cookie)
    client.headers[CSRF_HEADER] = csrf_of(cookie)
    return client


@pytest.fixture
def client(service: Service) -> TestClient:
    return as_role(service, "admin")


def upload(client: TestClient, *files: bytes, **fields: str) -> Any:
    parts = [("files", (f"{CANARY}.dcm", data, "application/octet-stream")) for data in files]
    return client.post("/api/v1/uploads", files=parts, data=fields)


def error_of(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "hint", "request_id"}
    assert body["error"]["request_id"] == answer.headers["X-Request-ID"]
    assert CANARY not in answer.text
    return answer.status_code, body["error"]["code"]


def read_record(label: str = "pneumonia", probability: float = 0.9) -> dict[str, Any]:
    """A read as a worker writes it."""
    image = {"name": "image 1", "format": "PNG", "sha256": "0" * 64, "rows": 64, "columns": 64, "bits": 8}
    answer = {"label": label, "probability": probability, "decision": "positive"}
    evidence = {
        "method": "gradcam",
        "target": label,
        "layer": "x",
        "boxes": [{"x": 1, "y": 2, "width": 3, "height": 4}],
    }
    return {
        "image": image,
        "applied": [],
        "gate": {"passed": True},
        "labels": [{**answer, "evidence": evidence}],
        "model": {"name": "chest-pneumonia", "version": "1", "sha256": "1" * 64},
        "timings_ms": {},
    }


def do_jobs(service: Service) -> list[str]:
    """Finish all jobs as a worker would; return the results."""
    from wetread.service.urgency import note_read

    lease, done = Lease("test", 60.0, 3), []
    with service.database.write() as session:
        picture = service.blobs.put(film(99)).sha256
        from wetread.service.tables import Blob
        from wetread.service.upsert import insert_new

        insert_new(session, Blob, {"sha256": picture, "size": 1, "kind": "PNG"}, ["sha256"])
        while batch := jobs.claim(session, lease, 8):
            for job in batch:
                result = jobs.finish(session, lease, job.id, Found(read_record(), {"heat:pneumonia": picture}))
                assert result is not None
                note_read(session, result)
                done.append(result.id)
    return done


def test_every_answer_has_the_headers_of_a_service_with_patient_data(client: TestClient) -> None:
    answer = client.get("/api/v1/studies")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert "default-src 'none'" in policy
    assert error_of(client.get("/api/v1/nothing")) == (404, "not_found")
    assert error_of(client.get("/api/v1/studies", headers={"Host": "evil.example"})) == (400, "bad_request")


def test_an_upload_becomes_a_study_once(client: TestClient, service: Service) -> None:
    first = upload(client, film(1))
    assert first.status_code == 201, first.text
    (study,) = first.json()["studies"]
    assert (study["added"], study["known"]) == (1, 0)
    again = upload(client, film(1)).json()
    assert again["studies"] == [{"id": study["id"], "added": 0, "known": 1}]
    assert again["jobs"] == first.json()["jobs"]
    packed_too = upload(client, packed({f"{CANARY}/a.png": film(2), "b.png": film(3), "README.txt": b"x"})).json()
    assert [one["added"] for one in packed_too["studies"]] == [2]
    assert client.get("/api/v1/studies").json()["total"] == 2
    with service.database.read() as session:
        assert {job.state for job in session.scalars(select(Job))} == {"queued"}


BAD = {
    "empty": (b"", 422),
    "text": (b"Dear colleague,", 422),
    "html": (b"<html><script>alert(1)</script></html>", 422),
    "half a png": (film(4)[:40], 422),
    "slip": (packed({"../../etc/cron.d/x": film(5)}), 422),
    "absolute": (packed({"/etc/x.png": film(5)}), 422),
    "nested": (packed({"inner.zip": packed({"a.png": film(5)})}), 422),
    "bomb": (packed({"a.png": b"\0" * (70 << 20)}), 413),
    "many": (packed({f"{number}.png": b"x" for number in range(2001)}), 413),
    "cut zip": (packed({"a.png": film(5)})[:-30], 422),
    "program": (b"MZ" + b"\0" * 126 + b"DICM" + b"\0" * 64, 422),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(client: TestClient, service: Service, name: str) -> None:
    data, status = BAD[name]
    got, _ = error_of(upload(client, data))
    assert got == status
    assert client.get("/api/v1/studies").json()["total"] == 0
    assert [path for path in (service.root / "blobs").rglob("*") if path.is_file()] == []
    assert list((service.root / "quarantine").iterdir()) == []


def test_other_bodies_are_refused(client: TestClient) -> None:
    assert error_of(client.post("/api/v1/uploads", content=film(1))) == (400, "bad_request")
    cut = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + film(1)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert error_of(client.post("/api/v1/uploads", content=cut, headers=kind)) == (400, "bad_request")
    large = client.post("/api/v1/session", content=b"x" * (1 << 20) + b"x")
    assert error_of(large) == (413, "too_large")
    assert error_of(upload(client, film(1), reader="no such")) == (404, "not_found")


def encoded(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


NASTY: dict[str, tuple[str, dict[str, Any]]] = {
    "large number": ("audit-log", {"before": 10**30}),
    "large cursor": ("studies", {"cursor": encoded([10**400, 1, "x"])}),
    "large whole cursor": ("studies", {"cursor": encoded([10**30, 10**30, "x"])}),
    "object as cursor": ("studies", {"cursor": encoded([{}, [], "x"])}),
    "number as cursor": ("studies", {"cursor": base64.urlsafe_b64encode(b"7").decode()}),
    "nul": ("studies", {"q": "a\0b"}),
    "nul as filter": ("studies", {"tray": "a\0b"}),
    "wild cards": ("studies", {"q": "%_\\"}),
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_questions_get_an_answer_or_one_clear_error(client: TestClient, name: str) -> None:
    address, parameters = NASTY[name]
    answer = client.get(f"/api/v1/{address}", params=parameters)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code != 200:
        error_of(answer)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\N{SNOWMAN} \N{FACE WITH TEARS OF JOY}", "\u202e"])
def test_any_text_is_kept_or_refused(client: TestClient, service: Service, text: str) -> None:
    study = upload(client, film(1)).json()["studies"][0]["id"]
    do_jobs(service)
    revision = client.get(f"/api/v1/studies/{study}/draft").json()["revision"]
    body = json.dumps({"text": text, "revision": revision})
    kind = {"Content-Type": "application/json"}
    answer = client.put(f"/api/v1/studies/{study}/draft", content=body, headers=kind)
    if answer.status_code == 200:
        assert client.get(f"/api/v1/studies/{study}/draft").json()["text"] == text
    else:
        assert error_of(answer) == (422, "invalid")
    error_of(client.post("/api/v1/session", json={"name": "a\0b", "password": "x"}))


def test_the_worklist_is_ordered_filtered_and_paged(client: TestClient, service: Service) -> None:
    for seed in range(5):
        upload(client, film(seed))
    with service.database.write() as session:
        for number, study in enumerate(session.scalars(select(Study).order_by(Study.created))):
            study.urgency, study.modality, study.search = number / 10, "CR" if number % 2 else "DX", f"name{number} cr"
    first = client.get("/api/v1/studies", params={"limit": 2}).json()
    second = client.get("/api/v1/studies", params={"limit": 2, "cursor": first["next"]}).json()
    third = client.get("/api/v1/studies", params={"limit": 2, "cursor": second["next"]}).json()
    order = [study["urgency"] for page in (first, second, third) for study in page["studies"]]
    assert order == [0.4, 0.3, 0.2, 0.1, 0.0]
    assert third["next"] is None
    assert client.get("/api/v1/studies", params={"modality": "CR"}).json()["total"] == 2
    assert client.get("/api/v1/studies", params={"q": "NAME3 cr"}).json()["total"] == 1
    assert client.get("/api/v1/studies", params={"q": "%"}).json()["total"] == 0
    assert error_of(client.get("/api/v1/studies", params={"cursor": "x"})) == (400, "bad_request")
    assert error_of(client.get("/api/v1/studies", params={"modailty": "CR"})) == (422, "invalid")


def test_a_read_study_can_be_looked_at_judged_and_reported(client: TestClient, service: Service) -> None:
    study = upload(client, film(1)).json()["studies"][0]["id"]
    (result,) = do_jobs(service)
    shown = client.get(f"/api/v1/studies/{study}").json()
    assert (shown["status"], shown["finding"], shown["decision"]) == ("read", "pneumonia", "positive")
    (image,) = shown["image_list"]
    assert image["results"][0]["pictures"] == ["heat:pneumonia"]
    assert client.get(f"/api/v1/results/{result}/pictures/heat:pneumonia").content == film(99)
    assert client.get(f"/api/v1/images/{image['id']}/file").content == film(1)
    assert client.get(f"/api/v1/images/{image['id']}/dicom").content[128:132] == b"DICM"

    judged = client.put(
        f"/api/v1/results/{result}/feedback/pneumonia", json={"action": "edit", "corrected": "negative", "reason": "no"}
    )
    assert judged.json()["corrected"] == "negative"
    assert client.get("/api/v1/feedback").json() == {
        service.settings.service.reader: {"accept": 0, "edit": 1, "reject": 0}
    }
    table = client.get("/api/v1/feedback/manifest").text.splitlines()
    assert table[0] == "path,patient,study,sha256,label_pneumonia"
    assert table[1].endswith(",0")
    bad = client.put(f"/api/v1/results/{result}/feedback/pneumonia", json={"action": "edit"})
    assert error_of(bad) == (422, "invalid")

    draft = client.get(f"/api/v1/studies/{study}/draft").json()
    known = {fact["id"] for fact in draft["facts"]}
    assert draft["phrases"]
    assert all(phrase["facts"] and set(phrase["facts"]) <= known for phrase in draft["phrases"])
    assert "pneumonia positive, probability 0.90" in draft["text"]
    mine = {"text": "My own words.", "revision": draft["revision"]}
    saved = client.put(f"/api/v1/studies/{study}/draft", json=mine).json()
    assert saved["text"] == "My own words."
    assert error_of(client.put(f"/api/v1/studies/{study}/draft", json=mine)) == (409, "conflict")
    signed = client.post(f"/api/v1/studies/{study}/draft/sign", json={**mine, "revision": saved["revision"]}).json()
    assert signed["signed"] is not None
    assert error_of(client.put(f"/api/v1/studies/{study}/draft", json=mine)) == (409, "conflict")

    sure = client.post(f"/api/v1/studies/{study}/ask", json={"question": "How sure are you?"}).json()
    assert sure["intent"] == "sure"
    assert "0.90" in sure["text"]
    where = client.post(f"/api/v1/studies/{study}/ask", json={"question": "¿Dónde miraste?"}).json()
    assert where["actions"] == [{"do": "show_heat_map", "result": result, "label": "pneumonia"}]
    limits = client.post(f"/api/v1/studies/{study}/ask", json={"question": "What is this reader bad at?"}).json()
    assert limits["intent"] == "limits"
    assert limits["phrases"]

    actions = [line["action"] for line in client.get("/api/v1/audit-log").json()["lines"]]
    assert {"upload", "view study", "view image", "export image", "feedback", "edit draft", "sign draft", "ask"} <= set(
        actions
    )
    assert client.get("/api/v1/audit-log/check").json()["broken"] is None


def test_a_deleted_study_takes_its_files_along_but_no_others(client: TestClient, service: Service) -> None:
    study = upload(client, film(1)).json()["studies"][0]["id"]
    upload(client, film(1), tray="ward")
    other = upload(client, film(2)).json()["studies"][0]["id"]
    do_jobs(service)
    assert client.delete(f"/api/v1/studies/{study}").status_code == 204
    assert client.get("/api/v1/studies").json()["total"] == 2
    files = {path.name for path in (service.root / "blobs").rglob("*") if path.is_file()}
    assert len(files) == 3  # both films and the picture that all three results share
    assert client.delete(f"/api/v1/studies/{other}").status_code == 204
    assert len({path.name for path in (service.root / "blobs").rglob("*") if path.is_file()}) == 2
    assert error_of(client.get(f"/api/v1/studies/{study}")) == (404, "not_found")


def test_jobs_are_asked_for_once_followed_and_cancelled(client: TestClient, service: Service) -> None:
    got = upload(client, film(1)).json()
    study = client.get(f"/api/v1/studies/{got['studies'][0]['id']}").json()
    image = study["image_list"][0]["id"]
    body = {"label": "PNEUMONIA", "method": "occlusion"}
    asked = [client.post(f"/api/v1/images/{image}/explanations", json=body) for _ in range(2)]
    assert {answer.status_code for answer in asked} == {202}
    assert len({answer.json()["id"] for answer in asked}) == 1
    assert error_of(client.post(f"/api/v1/images/{image}/explanations", json={"label": "x"})) == (422, "invalid")
    assert error_of(client.post(f"/api/v1/images/{image}/similar", json={})) == (503, "unavailable")
    job = asked[0].json()["id"]
    assert client.post(f"/api/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert error_of(client.post(f"/api/v1/jobs/{job}/cancel")) == (409, "conflict")
    stream = client.get(f"/api/v1/jobs/{job}/events")
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert '"state": "cancelled"' in stream.text
    assert stream.text.rstrip().endswith("event: end\ndata: {}")
    assert client.post(f"/api/v1/jobs/{job}/retry").json()["state"] == "queued"
    do_jobs(service)
    events = client.get(f"/api/v1/studies/{study['id']}/events").text
    assert '"done": 2, "total": 2' in events


def test_measurements_are_computed_from_the_spacing(client: TestClient, service: Service) -> None:
    study = upload(client, film(1)).json()["studies"][0]["id"]
    image = client.get(f"/api/v1/studies/{study}").json()["image_list"][0]["id"]
    line = {"kind": "length", "points": [[0, 0], [3, 4]]}
    made = client.post(f"/api/v1/images/{image}/annotations", json=line).json()
    assert (made["value"], made["unit"]) == (5.0, "px")
    angle = {"kind": "angle", "points": [[1, 0], [0, 0], [0, 2]]}
    assert client.post(f"/api/v1/images/{image}/annotations", json=angle).json()["value"] == 90.0
    assert error_of(client.post(f"/api/v1/images/{image}/annotations", json={"kind": "angle", "points": [[1, 0]]})) == (
        422,
        "invalid",
    )
    assert client.delete(f"/api/v1/annotations/{made['id']}").status_code == 204
    assert len(client.get(f"/api/v1/images/{image}/annotations").json()) == 1


def test_logging_in_by_password_locks_out_who_guesses(service: Service) -> None:
    client = TestClient(build_app(service))
    with service.database.write() as session:
        add_user(session, "ada", "reader", PASSWORD)
    wrong = {"name": "ada", "password": "wrong horse battery"}
    for _ in range(FREE_TRIES):
        assert error_of(client.post("/api/v1/session", json=wrong)) == (401, "not_logged_in")
    locked = client.post("/api/v1/session", json={"name": "ada", "password": PASSWORD})
    assert error_of(locked) == (429, "locked_out")
    assert int(locked.headers["Retry-After"]) <= 31
    with service.database.write() as session:
        session.execute(update(User).values(locked_until=0.0))
    good = client.post("/api/v1/session", json={"name": "Ada", "password": PASSWORD})
    assert good.json()["role"] == "reader"
    cookie = good.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert error_of(client.delete("/api/v1/session")) == (403, "csrf")
    assert client.delete("/api/v1/session", headers={CSRF_HEADER: good.json()["csrf"]}).status_code == 204
    assert error_of(client.get("/api/v1/session")) == (401, "not_logged_in")


def test_a_one_time_address_works_once(service: Service) -> None:
    client = TestClient(build_app(service), follow_redirects=False)
    with service.database.write() as session:
        token = make_login_token(session, add_user(session, "ada", "admin", None), 60)
        late = make_login_token(session, add_user(session, "bob", "admin", None), -1)
    assert client.get("/login", params={"token": token}).status_code == 303
    assert client.get("/api/v1/session").json()["name"] == "ada"
    client.cookies.clear()
    for used in (token, late, "nonsense"):
        assert error_of(client.get("/login", params={"token": used})) == (401, "not_logged_in")


def test_tokens_have_scopes_and_end(service: Service) -> None:
    client = TestClient(build_app(service))
    with service.database.write() as session:
        user = add_user(session, "robot", "admin", None)
        token, secret = make_token(session, user, "look", ["read"], 3600)
    client.headers["Authorization"] = f"Bearer {secret}"
    assert client.get("/api/v1/studies").status_code == 200
    assert error_of(upload(client, film(1))) == (403, "forbidden")
    assert error_of(client.get("/api/v1/users")) == (403, "forbidden")
    with service.database.write() as session:
        session.get_one(type(token), token.id).expires = 0.0
    assert error_of(client.get("/api/v1/studies")) == (401, "not_logged_in")


ROLE_ORDER = ("nobody", "reader", "annotator", "admin")


def test_every_route_says_who_may_use_it_and_nobody_else_can(service: Service) -> None:
    """The role x route matrix: an unknown object is 404 for who may, 401 or 403 for who may not."""
    clients = {role: as_role(service, role) for role in ROLE_ORDER[1:]}
    clients["nobody"] = TestClient(build_app(service))
    document = clients["nobody"].get("/api/v1/openapi.json").json()
    declared = {
        (method, route.path): needs(route)
        for router in ROUTERS
        for route in cast("list[APIRoute]", router.routes)
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert listed <= set(declared)
    checked = 0
    for (method, path), access in declared.items():
        if access is None:
            assert path in PUBLIC, f"{method} {path} says nothing about who may use it"
            continue
        address = path.replace("{label}", "x").replace("{name}", "x")
        for name in ("study_id", "image_id", "result_id", "job_id", "user_id", "token_id", "annotation_id"):
            address = address.replace("{" + name + "}", "0" * 32)
        if address.endswith("/events") and "0" * 32 not in address:
            continue  # without an end
        for role in ROLE_ORDER:
            status = clients[role].request(method, address).status_code
            may = role != "nobody" and ROLE_ORDER.index(role) >= ROLE_ORDER.index(access.role)
            expected = status not in (401, 403) if may else status == (401 if role == "nobody" else 403)
            assert expected, f"{role} {method} {path}: {status}"
            if role == "admin" and (method, address) == ("DELETE", "/api/v1/session"):
                clients["admin"] = as_role(service, "admin")
            if (method, address) == ("DELETE", "/api/v1/session") and role in ("reader", "annotator"):
                clients[role] = as_role(service, role)
            checked += 1
    assert checked > 100


def test_a_worklist_that_is_not_yours_does_not_exist(service: Service, client: TestClient) -> None:
    study = upload(client, film(1), tray="ward").json()["studies"][0]["id"]
    (result,) = do_jobs(service)
    image = client.get(f"/api/v1/studies/{study}").json()["image_list"][0]["id"]
    job = client.get("/api/v1/jobs").json()["jobs"][0]["id"]
    stranger = as_role(service, "admin", trays=("main",))
    assert stranger.get("/api/v1/studies").json()["total"] == 0
    for address in (
        f"studies/{study}", f"studies/{study}/facts", f"studies/{study}/draft", f"studies/{study}/events",
        f"images/{image}/dicom", f"images/{image}/annotations", f"results/{result}",
        f"results/{result}/pictures/heat:pneumonia", f"jobs/{job}",
    ):  # fmt: skip
        assert error_of(stranger.get(f"/api/v1/{address}")) == (404, "not_found"), address
    assert error_of(upload(stranger, film(2), tray="ward")) == (403, "forbidden")


def test_a_patient_is_named_nowhere_but_in_the_answers_about_the_study(
    client: TestClient, service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from pydicom import dcmread

    from wetread.datasets.phantoms import render, sample_spec, write_dicom

    write_dicom(render(sample_spec(np.random.default_rng(1), size_px=128)), tmp_path / "film.dcm")
    dataset = dcmread(tmp_path / "film.dcm")
    dataset.PatientName, dataset.PatientID = f"{CANARY}^NAME", f"{CANARY}1"
    dataset.StudyDescription, dataset.PatientComments = f"<b>{CANARY}</b>", CANARY
    dataset.add_new(0x00091010, "LO", CANARY)
    dataset.save_as(tmp_path / f"{CANARY}.dcm")
    data = (tmp_path / f"{CANARY}.dcm").read_bytes()
    caplog.set_level(logging.DEBUG)
    logging.getLogger("wetread.service.access").propagate = True
    got = upload(client, data)
    assert CANARY not in got.text
    study = got.json()["studies"][0]["id"]
    shown = client.get(f"/api/v1/studies/{study}")
    assert shown.json()["patient_name"] == f"{CANARY}^NAME"
    assert shown.headers["Cache-Control"] == "no-store"
    assert client.get("/api/v1/studies", params={"q": f"{CANARY}^name".lower()}).json()["total"] == 1
    do_jobs(service)
    for address in (f"studies/{study}/facts", f"studies/{study}/draft", "audit-log", f"studies/{study}/events"):
        assert CANARY not in client.get(f"/api/v1/{address}").text
    error_of(upload(client, data[:700]))
    error_of(client.get(f"/api/v1/studies/{CANARY}"))
    error_of(client.get("/api/v1/studies", params={"status": CANARY}))
    error_of(client.post(f"/api/v1/{CANARY}"))
    client.post("/api/v1/session", json={"name": CANARY, "password": CANARY})
    ours = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))
    )
    assert '"route": "/api/v1/uploads"' in ours
    assert CANARY not in ours
    assert CANARY.encode() not in client.get("/metrics").content
    with service.database.read() as session:
        from wetread.service.tables import AuditEntry

        lines = [[line.actor, line.object, str(line.detail)] for line in session.scalars(select(AuditEntry))]
    assert CANARY not in str(lines)
    names = [str(path) for path in service.root.rglob("*")]
    assert CANARY not in str(names)


def test_health_and_readiness(service: Service) -> None:
    client = TestClient(build_app(service))
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["checks"] == {"database": True, "disk": True}
    assert 'wetread_jobs{state="queued"} 0.0' in client.get("/metrics").text
