"""More of what hostile or broken systems send: as callers, as systems that we ask, and as headers of films."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.pacs import results_support as support
from tests.pacs.node_support import TITLE, Node, RawPeer, data_set, echoscu, film, item, running
from tests.pacs.test_node import answer, commitment_request, events, free_port, started
from tests.pacs.test_receive_attacks import hung_up
from wetread.errors import ImageRefused, OverBudget, PeerUnreachable, UsageError
from wetread.pacs import client, web, wire
from wetread.pacs.association import COMMITMENT
from wetread.pacs.commitment import CommitmentDesk, read_data_set
from wetread.pacs.header import object_header
from wetread.pacs.results import RESULT_KINDS, build_results
from wetread.settings import NodeRemote, NodeRule, NodeSettings

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CR, GET = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.2.2.3"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


# --- callers: what a request for an association may hold


def request_of(*items: bytes, called: bytes = TITLE.encode(), calling: bytes = b"RAW") -> bytes:
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    return body + item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(items)


def context(number: int = 1, abstract: bytes = b"1.2.840.10008.1.1", syntax: bytes = IMPLICIT.encode()) -> bytes:
    return item(0x20, bytes((number, 0, 0, 0)) + item(0x30, abstract) + item(0x40, syntax))


REQUESTS = {
    "129 contexts": request_of(*(context(2 * (n % 128) + 1) for n in range(129))),
    "an even context id": request_of(context(2)),
    "a UID of 200 characters": request_of(context(abstract=b"1" * 200)),
    "a UID that is not ASCII": request_of(context(abstract=b"1.2.\xff\xfe")),
    "a role that ends too early": request_of(context(), item(0x50, item(0x54, b"\0\x40\1"))),
    "an item longer than its request": request_of(context())[:-4] + b"\xff\xff\xff\xff",
    "an item inside a context that overlaps it": request_of(item(0x20, b"\1\0\0\0" + b"\x30\0\xff\xff")),
    "a title with a line break": request_of(context(), calling=b"CT1\nERROR all"),
    "a title with an escape": request_of(context(), calling=b"\x1b[2J"),
    "a title with a backslash": request_of(context(), calling=b"A\\B"),
    "a title that is not ASCII": request_of(context(), calling=b"\xff\xfe\xfd"),
    "no title": request_of(context(), calling=b""),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_for_an_association_ends_at_once(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "node") as node:
        with node.connect() as connection:
            body = REQUESTS[name]
            connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
            assert hung_up(connection)
        assert echoscu(node).returncode == 0
    assert "\x1b" not in caplog.text
    assert "ERROR all" not in caplog.text


@pytest.mark.parametrize(
    "abstract",
    [
        "1.2.840.10008.5.1.4.1.2.1.1",  # Patient Root FIND
        "1.2.840.10008.5.1.4.1.2.2.2",  # Study Root MOVE: to where the caller says
        GET,
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.5.1.4.34.6.1",  # UPS Push
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.5.1.1.9",  # Basic Grayscale Print
        "1.2.3.4.5",
    ],
)
def test_nobody_can_ask_the_node_for_what_it_holds(tmp_path: Path, abstract: str) -> None:
    """3,800 servers on the internet gave 16 million patients away to whoever asked (Aplite 2023)."""
    with running(tmp_path / "node") as node:
        entity = AE()
        entity.add_requested_context("1.2.840.10008.1.1")
        entity.add_requested_context(abstract)
        association = entity.associate("127.0.0.1", node.port, ae_title=TITLE)
        assert [str(one.abstract_syntax) for one in association.rejected_contexts] == [abstract]
        association.release()


@pytest.mark.parametrize("field", [0x0010, 0x0020, 0x0021, 0x0110, 0x0120, 0x0140, 0x0150, 0x0FFF])
def test_a_command_that_is_not_served_ends_the_association(tmp_path: Path, field: int) -> None:
    with running(tmp_path / "node") as node:
        peer = RawPeer(node)
        values: dict[int, int | str] = {0x0002: CR, 0x0100: field, 0x0110: 1, 0x0800: 0x0101}
        peer.pdv(3, wire.command_bytes(values))
        assert peer.receive()[0] == wire.ABORT
        peer.close()
        assert echoscu(node).returncode == 0


def test_an_object_in_a_context_that_is_not_for_storage_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "node") as node:
        peer = RawPeer(node, sop_class="1.2.840.10008.1.1", syntax=IMPLICIT)
        peer.sop_class = CR
        assert peer.store("1.2.3", data_set(film(tmp_path / "film.dcm"))) == 0xA900
        peer.close()
        assert node.files("objects") + node.files("incoming") == []


def test_a_peer_that_drips_an_object_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "node", pdu_s=0.5, handshake_s=0.5) as node:
        peer = RawPeer(node)
        peer.begin_store("1.2.3")
        peer.socket.sendall(struct.pack(">BBI", 4, 0, 10_000))
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012 - any of reset and broken pipe
            for _ in range(600):
                peer.socket.sendall(b"\0")
                time.sleep(0.1)
        assert time.monotonic() - began < 50
        peer.close()
        assert node.files("incoming") == []


def test_an_association_that_says_nothing_is_closed(tmp_path: Path) -> None:
    with running(tmp_path / "node", idle_s=0.3) as node:
        peer = RawPeer(node)
        assert hung_up(peer.socket)
        peer.close()


def test_a_peer_that_takes_one_byte_at_a_time_gets_its_answer(tmp_path: Path) -> None:
    with running(tmp_path / "node") as node, node.connect() as connection:
        user = item(0x50, item(0x51, struct.pack(">I", 7)))  # a PDV of one byte in each PDU
        body = request_of(context(), user)
        connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
        echo: dict[int, int | str] = {0x0002: "1.2.840.10008.1.1", 0x0100: 0x30, 0x0110: 1, 0x0800: 0x0101}
        for pdu in wire.data_pdus(1, wire.command_bytes(echo), 0, command=True):
            connection.sendall(pdu)
        connection.settimeout(60)
        got = b""
        while got.count(b"\4\0\0\0\0\7") < 60:
            got += connection.recv(65536)


# --- callers: storage commitment


COMMITMENT_ATTACKS = {
    "text": b"no data set at all",
    "nothing": b"",
    "sequences 5,000 deep": struct.pack("<HHIHHI", 8, 0x1199, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 5000,
    "a million empty elements": struct.pack("<HHI", 9, 0x1010, 0) * 1_000_000,
    "a million empty items": struct.pack("<HHI", 8, 0x1199, 8_000_000)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("name", COMMITMENT_ATTACKS)
def test_a_request_for_commitment_that_is_none_costs_little(tmp_path: Path, name: str) -> None:
    began = time.process_time()
    with started(tmp_path / "node") as (node, _):
        desk = CommitmentDesk(node.store)
        assert desk.request("CT1", COMMITMENT_ATTACKS[name], IMPLICIT) == (0x0115, None)
        assert events(node) == ["node started"]
    assert time.process_time() - began < 4


def test_a_request_without_end_is_cut_off(tmp_path: Path) -> None:
    with started(tmp_path / "node") as (node, own):
        assert node.server is not None
        peer = RawPeer(_listening(own.port), sop_class=COMMITMENT, syntax=IMPLICIT)
        values: dict[int, int | str] = {0x0003: COMMITMENT, 0x0100: 0x0130, 0x0110: 1, 0x0800: 0, 0x1008: 1}
        peer.pdv(3, wire.command_bytes(values))
        with contextlib.suppress(OSError):
            for _ in range(100):
                peer.pdv(0, bytes(100_000))
        assert peer.receive()[0] in (wire.ABORT, 0)
        peer.close()


class _listening(Node):  # noqa: N801 - what RawPeer needs of a node
    def __init__(self, port: int) -> None:
        self.port = port


def test_a_report_goes_to_a_system_of_the_settings_and_never_to_where_a_caller_says(tmp_path: Path) -> None:
    """A caller chooses its title, so a title must not become an address."""
    with started(tmp_path / "node", remotes={"ct": NodeRemote(title="CT1", host="127.0.0.1", port=1)}) as (node, _):
        request = commitment_request([(CR, "1.2.3")])
        from wetread.pacs.commitment import write_data_set

        desk = CommitmentDesk(node.store, node._defer_commitment)
        status, event = desk.request("127.0.0.1:99", write_data_set(request, IMPLICIT), IMPLICIT)
        assert (status, event is not None) == (0, True)  # answered on the association that asked
        assert desk.request("CT1", write_data_set(request, IMPLICIT), IMPLICIT) == (0, None)
        assert node.store.ledger.read("SELECT target FROM jobs") == [("ct",)]


# --- systems that we ask


@contextlib.contextmanager
def asked(handlers: Any) -> Iterator[NodeRemote]:
    """A hostile archive."""
    entity = AE(ae_title="QR")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    entity.add_supported_context(GET)
    entity.add_supported_context(CR, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield NodeRemote(title="QR", host="127.0.0.1", port=server.socket.getsockname()[1])  # type: ignore[union-attr]
    finally:
        server.shutdown()  # type: ignore[union-attr]


def named(path: Path, uid: str) -> bytes:
    """A film with another instance UID, which pydicom itself would not write."""
    raw = path.read_bytes()
    old = str(pydicom.dcmread(path).SOPInstanceUID).encode()
    assert raw.count(old) == 2
    return raw.replace(old, uid.encode().ljust(len(old), b"x"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("uid", ["../../../evil", "/tmp/evil", "..\\..\\evil", "evil.dcm"])
def test_an_archive_cannot_choose_a_file_name(tmp_path: Path, uid: str) -> None:
    """DCMTK CVE-2026-50003, pydicom CVE-2026-32711: a UID that became a path."""
    image = pydicom.dcmread(io.BytesIO(named(film(tmp_path / "film.dcm"), uid)))

    def fetched(_: Any) -> Iterator[Any]:
        yield 1
        yield 0xFF00, image

    with asked([(evt.EVT_C_GET, fetched)]) as remote, contextlib.suppress(PeerUnreachable):
        client.get_study(remote, "CT1", "1.2.3", tmp_path / "got")
    assert not list(tmp_path.rglob("*evil*"))
    assert all(len(path.stem) == 64 for path in (tmp_path / "got").glob("*"))


def test_an_answer_of_an_archive_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    def found(_: Any) -> Iterator[tuple[int, Dataset | None]]:
        row = Dataset()
        row.QueryRetrieveLevel, row.StudyInstanceUID = "STUDY", "1.2.3"
        row.add_new(0x00081030, "UN", ESCAPE.encode())
        row.AccessionNumber = "\x1b[31mred"
        yield 0xFF00, row
        yield 0, None

    with asked([(evt.EVT_C_FIND, found)]) as remote:
        (row,) = client.find(remote, "CT1", {})
    assert all(text.isprintable() for text in row.values())


def test_a_header_cannot_write_to_the_terminal_or_the_log(tmp_path: Path) -> None:
    path = film(tmp_path / "film.dcm")
    raw = path.read_bytes().replace(b"CHEST PA", b"\x1b[2J\nERR")  # of the same length
    path.write_bytes(raw)
    start = 144 + int.from_bytes(raw[140:144], "little")
    header = object_header(path, start, EXPLICIT)
    assert header.study_description == "?[2J?ERR"


class _Web(BaseHTTPRequestHandler):
    """A hostile DICOMweb service: ``/moved`` redirects, ``/evil`` answers with a film that is a program too."""

    film: bytes
    seen: list[tuple[str, str]]

    def _answer(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/moved"):
            return self._say(302, "text/plain", b"", Location=f"http://{self.headers['Host']}/stolen")
        if "studies/" in self.path:
            part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + self.film + b"\r\n--x--\r\n"
            return self._say(200, 'multipart/related; type="application/dicom"; boundary=x', part)
        rows: list[Any] = [{"0020000D": "1.2.3"}]
        return self._say(200, "application/dicom+json", json.dumps(rows).encode())

    do_GET = do_POST = _answer  # noqa: N815 - names of http.server

    def _say(self, code: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    raw = named(film(tmp_path / "film.dcm"), "../../evil")
    seen: list[tuple[str, str]] = []
    served = type("Served", (_Web,), {"film": b"MZ" + b"\x90" * 126 + raw[128:], "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_film_that_is_a_program_too_is_a_film_only_after_it_was_fetched(
    tmp_path: Path, hostile: tuple[str, list[tuple[str, str]]]
) -> None:
    """CVE-2019-11687, and a UID that would be a path."""
    (path,) = web.get_study(f"{hostile[0]}/evil", "1.2.3", tmp_path / "got")
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"
    assert path.parent == tmp_path / "got"
    assert not list(tmp_path.rglob("*evil*"))


def test_no_redirect_takes_data_or_a_token_elsewhere(
    tmp_path: Path, hostile: tuple[str, list[tuple[str, str]]]
) -> None:
    url, seen = hostile
    sent = film(tmp_path / "film.dcm")
    for ask in (
        lambda: web.find(f"{url}/moved", {}, proof="Bearer secret"),
        lambda: web.send_files(f"{url}/moved", [sent], proof="Bearer secret"),
        lambda: web.get_study(f"{url}/moved", "1.2.3", tmp_path, proof="Bearer secret"),
    ):
        with pytest.raises(PeerUnreachable, match=r"expected an answer from http://127.*, got (HTTP|TooMany)"):
            ask()
    assert seen
    assert not [path for path, _ in seen if path.startswith("/stolen")]


def test_an_answer_that_is_no_dicom_json_is_one_error(hostile: tuple[str, list[tuple[str, str]]]) -> None:
    with pytest.raises(PeerUnreachable, match="got an answer that is no DICOM JSON"):
        web.find(f"{hostile[0]}/plain", {})


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "gopher://x", "//host", "http://u:p@host/x"])
def test_a_url_that_is_no_service_or_holds_a_password_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL"):
        web.require_url(url)
    with pytest.raises(ValidationError):
        NodeRemote(web=url)


def test_a_token_comes_from_a_file_and_is_one_line(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer abc\n")
    assert web.authorization(token) == "Bearer abc"
    for text in ("", "Bearer a\r\nX-Evil: 1", "Bearer \x1b[2J"):
        token.write_text(text)
        with pytest.raises(UsageError, match="expected one line in the file of 'authorization'"):
            web.authorization(token)
    with pytest.raises(UsageError, match="expected a file with an Authorization header, got FileNotFoundError"):
        web.authorization(tmp_path / "none")


@pytest.mark.parametrize("title", ["A\\B", "\x1b[2J", "A" * 17, "\u00c4"])
def test_a_title_that_dicom_cannot_hold_is_refused_in_the_settings(title: str) -> None:
    for make in (
        lambda: NodeRemote(title=title),
        lambda: NodeSettings(title=title),
        lambda: NodeSettings(callers={title: ()}),
    ):
        with pytest.raises(ValidationError):
            make()


# --- headers of films that results are derived from


HEADERS: dict[str, dict[str, Any]] = {
    "a description of 10,000 characters": {"StudyDescription": "x" * 10_000},
    "a page in the name": {"PatientName": "<script>alert(1)</script>^CANARY"},
    "dates that are none": {"StudyDate": "2026-13-45", "PatientBirthDate": "CANARY"},
    "escapes in the description": {"StudyDescription": ESCAPE},
    "a character set that is none": {"SpecificCharacterSet": "ISO_IR 999"},
    "a sex that is none": {"PatientSex": "CANARY"},
    "a formula in the identifier": {"PatientID": '=cmd|"/c calc"!A1'},
    "a body part that is none": {"BodyPartExamined": "../../CHEST"},
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_results_of_a_hostile_header_are_sound_or_refused(tmp_path: Path, name: str) -> None:
    """Orthanc had three stored XSS by tags; mercure one by PatientID (PR #90)."""
    source = film(tmp_path / "film.dcm", **HEADERS[name])
    try:
        results = build_results(source, support.facts(), RESULT_KINDS)
    except ImageRefused as error:
        refused = str(error)
        results = []
    else:
        refused = ""
    assert "CANARY" not in refused
    for result in results:
        data = pydicom.dcmread(io.BytesIO(result.data))
        assert data.file_meta.MediaStorageSOPInstanceUID == result.sop_instance
        if result.kind == "pdf":
            assert b"script" not in data.EncapsulatedDocument
            assert b"CANARY" not in data.EncapsulatedDocument


def test_results_that_come_round_again_do_not_go_round_for_ever(tmp_path: Path) -> None:
    """An archive that routes all it gets sends our own results back to us."""
    rules = (NodeRule(name="all", reader="any", to=("loop",)),)
    port = free_port()
    remotes = {"loop": NodeRemote(title=TITLE, host="127.0.0.1", port=port, results=("sr", "gsps", "sc", "pdf"))}
    with started(tmp_path / "node", answer, remotes=remotes, rules=rules, port=port) as (node, own):
        assert client.send_files(own, "CT1", [film(tmp_path / "film.dcm")]) == {}
        later = time.time()
        assert node.work_once(later + 6_000) == (1, 4)
        assert node.work_once(later + 12_000) == (1, 0)  # it looks once more, and has nothing new to say
        assert node.work_once(later + 18_000) == (0, 0)
        assert len(node.store.ledger.read("SELECT id FROM objects")) == 5


def test_a_data_set_of_a_peer_is_bounded() -> None:
    with pytest.raises(OverBudget, match="expected a header of at most 200,000 parts, got more"):
        read_data_set(struct.pack("<HHI", 9, 0x1010, 0) * 200_000, IMPLICIT)
    with pytest.raises(ImageRefused, match="expected a DICOM data set, got bytes that are none"):
        read_data_set(struct.pack("<HHI", 8, 0x1199, 0xFFFFFFFF) + b"no item", IMPLICIT)


def test_meta_information_of_a_file_to_send_is_all_that_is_trusted(tmp_path: Path) -> None:
    """A file that claims to be DICOM and is not goes nowhere."""
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\xff\xff\xff\xff" + bytes(64))
    with running(tmp_path / "node") as node:
        remote = NodeRemote(title=TITLE, host="127.0.0.1", port=node.port)
        assert client.send_files(remote, "CT1", [bad]) == {bad: "no DICOM file"}
