"""A study whose every text is a canary, through every address and a worker: the canary is found nowhere else."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.service.test_api import CANARY, as_role, upload
from tests.service.workitem_support import WORKITEM, Requester
from wetread.service.context import Service
from wetread.service.tables import AuditEntry, Job, Result
from wetread.service.worker import Worker

MAY_NAME = re.compile(
    r"^/api/v1/(studies|studies/\w+|studies/\w+/(priors|report\.\w+)|images/\w+/(dicom|file)|results/\w+)$"
    r"|^/dicom-web/(workitems|workitems/[\d.]+|studies/[\d.]+/series/[\d.]+(/instances/[\d.]+)?)$"
)
"""Answers that are about the study itself."""
LEFT_OUT = ("/api/v1/events", "/api/v1/phantoms")
TEXTS = ("PatientComments", "StudyDescription", "SeriesDescription", "ReferringPhysicianName", "InstitutionName",
         "AccessionNumber", "StationName", "OperatorsName", "ImageComments", "RequestAttributesSequence")  # fmt: skip


def canary_film(tmp_path: Path) -> bytes:
    """A DICOM file with the canary in its names, numbers, comments, private elements and nested items."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    from wetread.datasets.phantoms import render, sample_spec, write_dicom

    write_dicom(render(sample_spec(np.random.default_rng(1), size_px=128)), tmp_path / "film.dcm")
    dataset = dcmread(tmp_path / "film.dcm")
    item = Dataset()
    item.ScheduledProcedureStepDescription = CANARY
    for name in TEXTS:
        setattr(dataset, name, Sequence([item]) if name.endswith("Sequence") else CANARY)
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = f"{CANARY}^NAME", f"{CANARY}1", CANARY
    dataset.add_new(0x00091010, "LO", CANARY)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("wetread.service.access").propagate = True
    return caplog


def workitem_of(client: TestClient, shown: dict[str, Any]) -> dict[str, str]:
    """A workitem for the study, with its patient; the names of its path parameters."""
    requester = Requester(client)
    made = requester.create(shown["study_uid"], PatientName=shown["patient_name"], PatientID=shown["patient_id"])
    assert made.status_code == 201
    (performed,) = requester.get().UnifiedProcedureStepPerformedProcedureSequence
    (series,) = performed.OutputInformationSequence
    instance = series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    return {
        "workitem": WORKITEM, "study": shown["study_uid"], "series": str(series.SeriesInstanceUID),
        "instance": str(instance),
    }  # fmt: skip


def flows(client: TestClient, ids: dict[str, str]) -> list[tuple[str, str, Any]]:
    """(method, address, answer) of every address: on the study, and with the canary for every name and value."""
    document = client.get("/api/v1/openapi.json").json()
    body = {"question": CANARY, "text": CANARY, "name": CANARY, "label": CANARY, "revision": CANARY, "reason": CANARY}
    found = []
    for path, item in document["paths"].items():
        for method in item:
            if path in LEFT_OUT or (method == "delete" and path.endswith(("{study_id}", "/session"))):
                continue
            for names in (ids, dict.fromkeys(ids, CANARY)):
                address = re.sub(r"\{(\w+)\}", lambda name, names=names: names.get(name[1], CANARY), path)  # type: ignore[misc]
                for sent in (None, body):
                    answer = client.request(method, address, json=sent, params={"zz": CANARY} if sent else None)
                    found.append((method, path, answer))
    return found


def test_a_patient_is_named_in_no_log_address_metric_error_or_title(
    service: Service, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = as_role(service, "admin")
    data = canary_film(tmp_path)
    got = upload(client, data).json()
    assert Worker(service).drain() == 1
    with service.database.read() as session:
        job = session.scalars(select(Job)).one()
        result = session.scalars(select(Result)).one()
    study = got["studies"][0]["id"]
    shown = client.get(f"/api/v1/studies/{study}").json()
    assert shown["patient_name"] == f"{CANARY}^NAME"
    client.get(f"/api/v1/studies/{study}/draft")
    ids = {"study_id": study, "image_id": shown["image_list"][0]["id"], "result_id": result.id, "job_id": job.id}
    ids |= workitem_of(client, shown)
    tried = flows(client, ids)
    tried += [("post", "cut", upload(client, data[:length])) for length in (200, 700, len(data) // 2)]
    statuses = {answer.status_code for _, _, answer in tried}
    assert len(tried) > 150
    assert {200, 404, 422} <= statuses
    assert 500 not in statuses
    named = []
    for method, path, answer in tried:
        address = str(answer.request.url).removeprefix("http://testserver")
        if CANARY in answer.text and answer.status_code < 400:
            assert MAY_NAME.match(address.partition("?")[0]), f"{method} {path}"
            assert answer.headers["Cache-Control"] == "no-store"
            named.append(path)
        elif CANARY in answer.text:
            pytest.fail(f"{method} {path} {answer.status_code} quotes what was sent")
        assert CANARY not in str(answer.headers.raw), f"{method} {path}"
    assert {"/api/v1/studies", "/api/v1/studies/{study_id}", "/api/v1/studies/{study_id}/report.html"} <= set(named)
    page = client.get(f"/api/v1/studies/{study}/report.html").text
    assert CANARY not in page[: page.index("</title>")]
    lines = [record for record in log.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    text = "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.args}" for record in lines)
    assert '"route": "/api/v1/studies/{study_id}"' in text
    assert CANARY not in text
    assert CANARY not in client.get("/metrics").text
    with service.database.read() as session:
        entries = session.scalars(select(AuditEntry)).all()
        assert CANARY not in json.dumps([[one.actor, one.action, one.object, one.detail] for one in entries])
        assert CANARY not in json.dumps([result.parameters, job.parameters, job.message])
    assert CANARY not in str([str(path) for path in service.root.rglob("*")])


def test_an_error_of_the_database_quotes_nothing(service: Service) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    with pytest.raises(DBAPIError) as told, service.database.engine.connect() as connection:
        connection.execute(text("INSERT INTO studies (id, patient_name) VALUES ('x', :name)"), {"name": CANARY})
    assert CANARY not in str(told.value)
