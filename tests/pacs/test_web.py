"""DICOMweb against a small server that speaks QIDO-RS, WADO-RS and STOW-RS as PS3.18 writes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from tests.pacs.node_support import film
from wetread.errors import PeerUnreachable, UsageError
from wetread.pacs import web


class _Server(ThreadingHTTPServer):
    """Knows one film; ``refuse`` answers a STOW with a failure reason, ``asked`` are the queries."""

    film: bytes
    refuse: int = 0
    asked: list[dict[str, list[str]]]
    accepted: list[str]
    stored: list[bytes]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/web/studies":
            self.server.asked.append(parse_qs(parts.query))
            row = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00081030": {"vr": "LO", "Value": ["CHEST"]}}
            self._answer(json.dumps([row]).encode(), "application/dicom+json")
        elif parts.path == "/web/studies/1.2.3":
            self.server.accepted.append(self.headers["Accept"])
            body = b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + self.server.film + b"\r\n--XX--"
            self._answer(body, 'multipart/related; type="application/dicom"; boundary=XX')
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.server.stored.append(self.rfile.read(int(self.headers["Content-Length"])))
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
        if self.server.refuse:
            item["00081197"] = {"vr": "US", "Value": [self.server.refuse]}
        sequence = "00081198" if self.server.refuse else "00081199"
        self._answer(json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode(), "application/dicom+json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    made = _Server(("127.0.0.1", 0), _Handler)
    made.film = film(tmp_path / "film.dcm").read_bytes()
    made.asked, made.accepted, made.stored = [], [], []
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def url_of(server: _Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/web"


def test_studies_are_searched_with_filters_and_a_limit(server: _Server) -> None:
    assert web.find(url_of(server), {"PatientID": "A*"}, limit=7) == [
        {"StudyDescription": "CHEST", "StudyInstanceUID": "1.2.3"}
    ]
    (asked,) = server.asked
    assert asked["PatientID"] == ["A*"]
    assert asked["limit"] == ["7"]


def test_a_study_is_fetched_as_it_is_stored(server: _Server, tmp_path: Path) -> None:
    (path,) = web.get_study(url_of(server), "1.2.3", tmp_path / "got")
    assert pydicom.dcmread(path).PixelData == pydicom.dcmread(tmp_path / "film.dcm").PixelData
    assert "transfer-syntax=*" in server.accepted[0]
    assert len(path.stem) == 64


def test_objects_are_sent_and_a_refusal_is_told_but_a_duplicate_is_none(server: _Server, tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    assert web.send_files(url_of(server), [path]) == {}
    assert b"DICM" in server.stored[0]
    server.refuse = 0x0111
    assert web.send_files(url_of(server), [path]) == {}
    server.refuse = 0xA700
    assert web.send_files(url_of(server), [path]) == {path: "failure reason A700"}


def test_a_wrong_address_is_a_peer_that_does_not_answer(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable, match=r"expected an answer from .*/none, got HTTP status 404"):
        web.find(f"http://127.0.0.1:{server.server_port}/none", {})
    with pytest.raises(UsageError, match="expected a URL that begins with http"):
        web.send_files("ftp://127.0.0.1", [tmp_path / "film.dcm"])
