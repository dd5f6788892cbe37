"""A report as a page and as PDF: what is in it on every page, what is not, and that handing it out is noted."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.service.test_api import as_role, client, do_jobs, error_of, film, upload
from wetread.service.context import Service
from wetread.service.export import DISCLAIMER, FAILED
from wetread.service.tables import Result, Study

__all__ = ["client"]

SCRIPT = "<script>alert(1)</script>"
NAME = "Ada^Ünïcode"


@pytest.fixture
def study(client: TestClient, service: Service) -> str:
    """A study of a named patient, read, its draft opened."""
    made = str(upload(client, film(1)).json()["studies"][0]["id"])
    do_jobs(service)
    name_reader(service, name="a-reader-that-has-gone")
    with service.database.write() as session:
        row = session.get_one(Study, made)
        row.patient_name, row.patient_id, row.title, row.patient_age = NAME, "4711", SCRIPT, 52.0
    assert client.get(f"/api/v1/studies/{made}/draft").status_code == 200
    return made


def write(client: TestClient, study: str, text: str, *, sign: bool = False) -> None:
    revision = client.get(f"/api/v1/studies/{study}/draft").json()["revision"]
    body = {"text": text, "revision": revision}
    answer = (
        client.post(f"/api/v1/studies/{study}/draft/sign", json=body)
        if sign
        else client.put(f"/api/v1/studies/{study}/draft", json=body)
    )
    assert answer.status_code == 200


def name_reader(service: Service, **changes: str) -> None:
    """Change what the reads say of their reader."""
    with service.database.write() as session:
        for row in session.scalars(select(Result)):
            row.record = {**row.record, "model": {**row.record["model"], **changes}}


def pdf_pages(data: bytes, tmp_path: Path) -> list[str]:
    """The text of each page, by poppler."""
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext: apt install poppler-utils")
    (tmp_path / "report.pdf").write_bytes(data)
    command = ["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return text.rstrip("\f").split("\f")


def test_the_page_holds_the_text_the_facts_and_the_banner_and_runs_nothing(client: TestClient, study: str) -> None:
    write(client, study, f"No focal opacity. {SCRIPT}")
    answer = client.get(f"/api/v1/studies/{study}/report.html")
    page = answer.text
    assert DISCLAIMER in page
    assert "Not signed." in page
    assert FAILED not in page
    assert NAME in page
    assert "52 years" in page
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2  # the title of the study and the person's text
    assert "pneumonia positive, probability 0.90" in page
    assert "[f2]" in page
    assert re.search(r"<title>(.*)</title>", page).group(1) == "Report, research use only"  # type: ignore[union-attr]
    style = re.search(r"<style>(.*)</style>", page, re.S).group(1)  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r"""(src|href|url)\s*[=(]""", page)


def test_a_signed_report_says_who_signed_and_when(client: TestClient, study: str) -> None:
    write(client, study, "Signed words.", sign=True)
    page = client.get(f"/api/v1/studies/{study}/report.html").text
    assert re.search(r"Signed by admin 0 on \d{4}-\d\d-\d\d \d\d:\d\d UTC, revision 2\.", page)
    assert "Not signed" not in page


def test_the_pdf_has_banner_and_watermark_on_every_page(
    client: TestClient, service: Service, study: str, tmp_path: Path
) -> None:
    pytest.importorskip("plutoprint", reason="uv pip install plutoprint")
    write(client, study, "\n".join(f"Line {number} of a long report." for number in range(120)), sign=True)
    name_reader(service, audit_verdict="FAIL T4 on x")
    answer = client.get(f"/api/v1/studies/{study}/report.pdf")
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="report-{study}.pdf"'
    assert answer.content.startswith(b"%PDF-")
    assert b"4711" not in answer.content  # neither title nor other plain metadata
    pages = pdf_pages(answer.content, tmp_path)
    assert len(pages) >= 2
    for number, page in enumerate(pages, 1):
        assert f"{DISCLAIMER} {FAILED}" in page
        assert f"Page {number} of {len(pages)}" in page
    whole = "\n".join(pages)
    assert "Line 119 of a long report." in whole
    assert "Signed by" in whole
    assert "Ada^Ünïcode" in whole
    assert SCRIPT in whole  # as words
    info = subprocess.run(["pdfinfo", str(tmp_path / "report.pdf")], capture_output=True, check=True, text=True).stdout
    assert "Report, research use only" in info
    assert "Ada" not in info


def test_a_failed_audit_marks_the_page_too(client: TestClient, service: Service, study: str) -> None:
    name_reader(service, audit_verdict="FAIL T4 on x")
    page = client.get(f"/api/v1/studies/{study}/report.html").text
    assert f'<p class="watermark">{FAILED}</p>' in page
    assert f'content: "{DISCLAIMER} {FAILED}"' in page
    assert "audit when it read: FAIL T4 on x" in page


def test_an_audit_that_failed_after_the_reading_counts(client: TestClient, service: Service, study: str) -> None:
    now_failed = bool(service.catalog.reader("chest-pneumonia").card.watermark)
    name_reader(service, name="chest-pneumonia", audit_verdict="PASS")
    assert (FAILED in client.get(f"/api/v1/studies/{study}/report.html").text) == now_failed


@pytest.mark.parametrize("kind", ["html", "pdf"])
def test_each_export_is_a_line_of_the_audit_log(client: TestClient, study: str, kind: str) -> None:
    if kind == "pdf":
        pytest.importorskip("plutoprint", reason="uv pip install plutoprint")
    client.get(f"/api/v1/studies/{study}/report.{kind}")
    lines: list[Any] = client.get("/api/v1/audit-log").json()["lines"]
    (line,) = [line for line in lines if line["action"] == "export report"]
    assert line["detail"] == {"format": kind, "revision": 1, "signed": False}


def test_there_is_no_report_of_somebody_else(client: TestClient, service: Service, study: str) -> None:
    other = as_role(service, "annotator")
    assert error_of(other.get(f"/api/v1/studies/{study}/report.html")) == (404, "not_found")
    assert error_of(as_role(service, "reader").get(f"/api/v1/studies/{study}/report.pdf")) == (403, "forbidden")
