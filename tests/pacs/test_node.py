"""The node as a whole: commitment, results that arrive at a real peer, retries, dead letters, queries, FHIR."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.pacs import results_support as support
from tests.pacs.node_support import film
from wetread.errors import PeerUnreachable, UsageError, WetreadError
from wetread.pacs import client, web
from wetread.pacs.answer import StudyAnswer, StudyTask
from wetread.pacs.derived import source_header
from wetread.pacs.fhir import fhir_bundle
from wetread.pacs.node import Node
from wetread.pacs.outbox import MAX_TRIES, Outbox, Result
from wetread.pacs.store import ObjectStore
from wetread.settings import NodeRemote, NodeRule, NodeSettings

LATER = 1e6
refused_connection = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""pynetdicom 3.0.4 leaves a socket that could not connect to the garbage collector, which closes it at once."""
COMMITMENT, STUDY_FIND = "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1"


def answer(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
    """What a reader would find in every image."""
    for task in tasks:
        yield StudyAnswer([(one, support.facts()) for one in task.images])


@contextlib.contextmanager
def started(folder: Path, read: Any = None, **changes: Any) -> Iterator[tuple[Node, NodeRemote]]:
    """A node that listens but works only when told; and itself as a remote."""
    settings = NodeSettings(folder=folder, reserve_bytes=0, **({"port": 0, "quiet_s": 600.0} | changes))
    node = Node(settings, read)
    try:
        port = node.start(work=False)
        yield node, NodeRemote(title=settings.title, host="127.0.0.1", port=port)
    finally:
        node.stop()


def events(node: Node) -> list[str]:
    return [row[0] for row in node.store.ledger.read("SELECT kind FROM events ORDER BY number")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_received_read_and_answered_in_the_same_study_at_another_node(tmp_path: Path) -> None:
    sent = film(tmp_path / "film.dcm")
    image = pydicom.dcmread(sent)
    with started(tmp_path / "peer") as (peer, remote):
        remotes = {"pacs": remote.model_copy(update={"results": ("sr", "heat", "gsps", "sc", "pdf")})}
        rules = (NodeRule(name="chest", reader="any", to=("pacs",), modalities=("CR",)),)
        with started(tmp_path / "node", answer, remotes=remotes, rules=rules) as (node, own):
            assert client.send_files(own, "CT1", [sent]) == {}
            now = time.time()
            assert node.work_once(now) == (0, 0)  # not quiet yet
            assert node.work_once(now + 6000) == (1, 5)
            assert node.work_once(now + LATER) == (0, 0)
            came = peer.store.study(str(image.StudyInstanceUID))
            kinds = {client._kind_of(one.path)[0] for one in came}  # type: ignore[index]
            assert len(came) == 5
            assert len(kinds) == 5
            assert {str(pydicom.dcmread(one.path).PatientID) for one in came} == {str(image.PatientID)}
            # a late image has the study read again: its own five results are new, the first five are not
            late = film(tmp_path / "late.dcm", 2, StudyInstanceUID=image.StudyInstanceUID)
            assert client.send_files(own, "CT1", [late]) == {}
            assert node.work_once(now + LATER) == (1, 5)
            assert len(peer.store.study(str(image.StudyInstanceUID))) == 10
            assert events(node) == ["node started", "study read", "sent", "study read", "sent"]


def test_a_study_that_no_rule_takes_is_kept_and_not_read(tmp_path: Path) -> None:
    rules = (NodeRule(name="ct", reader="any", modalities=("CT",)),)
    with started(tmp_path / "node", answer, rules=rules) as (node, own):
        client.send_files(own, "CT1", [film(tmp_path / "film.dcm")])
        assert node.work_once(time.time() + 6000) == (1, 0)
        assert node.work_once(time.time() + LATER) == (0, 0)
        assert node.check().objects == 1


def test_a_reader_that_fails_is_recorded_without_a_name(tmp_path: Path) -> None:
    def broken(_: object) -> Iterator[StudyAnswer]:
        raise ValueError("CANARY^NAME")

    def refusing(_: object) -> Iterator[StudyAnswer]:
        raise WetreadError("expected a reader, got none; install it")

    rules = (NodeRule(name="all", reader="any"),)
    for number, (read, words) in enumerate([(broken, "unexpected ValueError"), (refusing, "expected a reader")]):
        with started(tmp_path / str(number), read, rules=rules) as (node, own):
            client.send_files(own, "CT1", [film(tmp_path / "film.dcm")])
            node.work_once(time.time() + 6000)
            ((error,),) = node.store.ledger.read("SELECT error FROM studies")
            assert error.startswith(words)


@refused_connection
def test_a_peer_that_is_away_gets_everything_once_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    remotes = {"pacs": NodeRemote(title="PEER", host="127.0.0.1", port=port, results=("sr", "sc"))}
    rules = (NodeRule(name="all", reader="any", to=("pacs",)),)
    with started(tmp_path / "node", answer, remotes=remotes, rules=rules) as (node, own):
        client.send_files(own, "CT1", [film(tmp_path / "film.dcm")])
        now = time.time()
        assert node.work_once(now + 6000) == (1, 0)
        assert node.work_once(now + 6001) == (0, 0)  # backing off
        settings = NodeSettings(folder=tmp_path / "peer2", port=port, title="PEER", reserve_bytes=0)
        peer = Node(settings)
        peer.start(work=False)
        try:
            assert node.work_once(now + 6010) == (0, 2)
            assert peer.check().objects == 2
        finally:
            peer.stop()


def test_waits_double_up_to_an_hour_and_end_as_a_dead_letter_that_can_be_revived(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "store", reserve_bytes=0)
    outbox = Outbox(store.ledger, tmp_path / "results")
    result = Result("sr", "1.2", "1.2.3", b"bytes")
    assert outbox.add([result], ["a"]) == 1
    assert outbox.add([result], ["a"]) == 0  # known already
    now, waits = 0.0, []
    while jobs := outbox.due(now):
        outbox.failed(jobs[0], "no answer", now)
        ((at, state),) = store.ledger.read("SELECT next_at, state FROM jobs")
        waits.append(at - now)
        now = at
        if state == "dead":
            break
    assert waits[:4] == [5, 10, 20, 40]
    assert max(waits) == 3600
    assert len(waits) == MAX_TRIES
    assert outbox.dead() == [(1, "store", "a", "no answer")]
    assert outbox.revive() == 1
    seen: list[Path] = []
    assert outbox.deliver(lambda _, jobs: (seen.extend(path for _, path in jobs), {})[1], now) == 1  # type: ignore[func-returns-value]
    assert [path.read_bytes() for path in seen] == [b"bytes"]
    assert outbox.due(now + LATER) == []
    store.close()


def commitment_request(wanted: list[tuple[str, str]]) -> Dataset:
    request = Dataset()
    request.TransactionUID = "1.2.3.4.5"
    request.ReferencedSOPSequence = []
    for sop_class, instance in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        request.ReferencedSOPSequence.append(item)
    return request


def ask(node_port: int, wanted: list[tuple[str, str]]) -> tuple[int, list[tuple[int, Dataset]]]:
    """Send an N-ACTION and gather the events that come back on the same association."""
    got: list[tuple[int, Dataset]] = []
    came = threading.Event()

    def take(event: Any) -> tuple[int, None]:
        got.append((event.event_type, event.event_information))
        came.set()
        return 0, None

    entity = AE(ae_title="CT1")
    entity.add_requested_context(COMMITMENT)
    handlers: Any = [(evt.EVT_N_EVENT_REPORT, take)]
    association = entity.associate("127.0.0.1", node_port, ae_title="WETREAD", evt_handlers=handlers)
    assert association.is_established
    well_known = f"{COMMITMENT}.1"
    status, _ = association.send_n_action(commitment_request(wanted), 1, COMMITMENT, well_known)
    if status.Status == 0:
        assert came.wait(60)
    association.release()
    return int(status.Status), got


def test_commitment_is_given_for_what_is_on_the_disk_and_for_nothing_else(tmp_path: Path) -> None:
    paths = [film(tmp_path / f"{seed}.dcm", seed) for seed in (1, 2)]
    images = [pydicom.dcmread(path) for path in paths]
    kinds = [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in images]
    with started(tmp_path / "node") as (node, own):
        assert client.send_files(own, "CT1", paths) == {}
        status, [(event_type, event)] = ask(own.port, kinds)
        assert (status, event_type, event.TransactionUID) == (0, 1, "1.2.3.4.5")
        assert [item.ReferencedSOPInstanceUID for item in event.ReferencedSOPSequence] == [kind[1] for kind in kinds]
        (second,) = node.store.versions(kinds[1][1])
        with second.path.open("r+b") as file:  # one flipped bit, which no index would know of
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes((last[0] ^ 1,)))
        wanted = [*kinds, (kinds[0][0], "1.2.3"), ("1.2.840.10008.5.1.4.1.1.2", kinds[0][1])]
        status, [(event_type, event)] = ask(own.port, wanted)
        assert (status, event_type) == (0, 2)
        assert [item.FailureReason for item in event.FailedSOPSequence] == [0x0110, 0x0112, 0x0119]
        assert [item.ReferencedSOPInstanceUID for item in event.ReferencedSOPSequence] == [kinds[0][1]]
        assert ask(own.port, [])[0] == 0x0115
        assert node.check().broken == (kinds[1][1],)
        assert events(node) == ["node started", "commitment", "commitment"]


def test_commitment_is_reported_to_where_the_settings_say(tmp_path: Path) -> None:
    got: list[int] = []

    def take(event: Any) -> tuple[int, None]:
        got.append(event.event_type)
        return 0, None

    entity = AE(ae_title="CT1")
    entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    handlers: Any = [(evt.EVT_N_EVENT_REPORT, take)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        port = server.socket.getsockname()[1]  # type: ignore[union-attr]
        remotes = {"ct": NodeRemote(title="CT1", host="127.0.0.1", port=port)}
        with started(tmp_path / "node", remotes=remotes) as (node, own):
            entity2 = AE(ae_title="CT1")
            entity2.add_requested_context(COMMITMENT)
            association = entity2.associate("127.0.0.1", own.port, ae_title="WETREAD")
            request = commitment_request([("1.2.840.10008.5.1.4.1.1.1", "1.2.3")])
            well_known = f"{COMMITMENT}.1"
            status, _ = association.send_n_action(request, 1, COMMITMENT, well_known)
            assert status.Status == 0
            association.release()
            assert node.work_once()[1] == 1
            assert got == [2]
    finally:
        server.shutdown()  # type: ignore[union-attr]


def test_two_nodes_do_not_share_a_folder(tmp_path: Path) -> None:
    with started(tmp_path / "node"), pytest.raises(UsageError, match="expected a folder of this node alone"):
        ObjectStore(tmp_path / "node")


def test_settings_that_name_no_place_are_refused(tmp_path: Path) -> None:
    rule = NodeRule(name="r", reader="x", to=("nowhere",))
    with pytest.raises(UsageError, match="expected a remote for rule 'r', got 'nowhere'"):
        Node(NodeSettings(folder=tmp_path, rules=(rule,)))
    with pytest.raises(UsageError, match="expected where remote 'p' is, got nothing"):
        Node(NodeSettings(folder=tmp_path, remotes={"p": NodeRemote(title="P")}))


@refused_connection
def test_echo_and_a_peer_that_is_not_there(tmp_path: Path) -> None:
    with started(tmp_path / "node") as (_, own):
        assert client.echo(own, "CT1") > 0
    away = NodeRemote(title="AWAY", host="127.0.0.1", port=free_port())
    with pytest.raises(PeerUnreachable, match=r"expected an answer from AWAY at 127\.0\.0\.1:\d+, got no association"):
        client.echo(away, "CT1")


def test_files_that_are_no_dicom_are_named_and_the_others_arrive(tmp_path: Path) -> None:
    good, bad = film(tmp_path / "film.dcm"), tmp_path / "note.txt"
    bad.write_text("not DICOM")
    with started(tmp_path / "node") as (node, own):
        assert client.send_files(own, "CT1", [good, bad]) == {bad: "no DICOM file"}
        assert node.check().objects == 1


def test_studies_are_found_and_fetched_from_another_implementation(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm")
    image = pydicom.dcmread(source)

    def found(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        answer = Dataset()
        answer.QueryRetrieveLevel = "STUDY"
        answer.StudyInstanceUID = image.StudyInstanceUID
        answer.StudyDescription = f"asked for {event.identifier.PatientID}"
        yield 0xFF00, answer
        yield 0, None

    def fetched(_: Any) -> Iterator[Any]:
        yield 1
        yield 0xFF00, image

    entity = AE(ae_title="QR")
    entity.add_supported_context(STUDY_FIND)
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.3")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.1", scu_role=True, scp_role=True)
    handlers: Any = [(evt.EVT_C_FIND, found), (evt.EVT_C_GET, fetched)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        remote = NodeRemote(title="QR", host="127.0.0.1", port=server.socket.getsockname()[1])  # type: ignore[union-attr]
        rows = client.find(remote, "CT1", {"PatientID": "A*"})
        assert [row["StudyDescription"] for row in rows] == ["asked for A*"]
        with pytest.raises(UsageError, match="expected a DICOM keyword to search by, got 'PatientNme'"):
            client.find(remote, "CT1", {"PatientNme": "x"})
        (path,) = client.get_study(remote, "CT1", str(image.StudyInstanceUID), tmp_path / "got")
        assert pydicom.dcmread(path).PixelData == image.PixelData
    finally:
        server.shutdown()  # type: ignore[union-attr]


class _Web(BaseHTTPRequestHandler):
    """Takes FHIR at /fhir, refuses it at /full, redirects /moved."""

    posts: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append(body)  # type: ignore[attr-defined]
        code = {"/fhir": 200, "/moved": 302}.get(self.path, 507)
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/fhir")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_fhir_is_posted_and_no_redirect_is_followed() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Web)
    server.posts = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        assert web.post_fhir(f"{base}/fhir", b"{}") == ""
        assert web.post_fhir(f"{base}/full", b"{}") == "status 507"
        assert web.post_fhir(f"{base}/moved", b"{}") == "status 302"
        assert len(server.posts) == 3  # type: ignore[attr-defined]
        with pytest.raises(UsageError, match="expected a URL that begins with http"):
            web.post_fhir("file:///etc/passwd", b"{}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(PeerUnreachable, match="expected an answer from http://127"):
        web.post_fhir(base, b"{}")


def test_the_fhir_bundle_says_what_the_read_says(tmp_path: Path) -> None:
    image = source_header(film(tmp_path / "film.dcm"))
    at = datetime(2026, 1, 2, tzinfo=UTC)
    bundle = fhir_bundle(support.read(), image, at)
    resources = [entry["resource"] for entry in bundle["entry"]]
    kinds = [one["resourceType"] for one in resources]
    assert kinds == ["Device", "ImagingStudy", *["Observation"] * 4, "DiagnosticReport"]
    first = resources[2]
    assert first["valueQuantity"]["value"] == 87.31
    assert first["code"]["coding"][0]["code"] == "233604007"
    assert first["interpretation"][0]["coding"][0]["code"] == "POS"
    report = resources[-1]
    assert report["status"] == "preliminary"
    assert report["result"] == [{"reference": f"Observation/{one['id']}"} for one in resources[2:6]]
    assert "RESEARCH USE ONLY" in report["conclusion"]
    assert resources[1]["identifier"][0]["value"] == f"urn:oid:{image.StudyInstanceUID}"
    assert fhir_bundle(support.read(), image, at) == bundle
    refused = fhir_bundle(support.refused(), image, at)["entry"][2]["resource"]
    assert "valueQuantity" not in refused
    assert refused["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    failed = json.dumps(fhir_bundle(support.read(model=support.FAILED), image, at))
    assert "AUDIT FAIL: do not trust this reader" in failed


def test_the_fhir_bundle_is_valid_to_an_independent_model(tmp_path: Path) -> None:
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    image = source_header(film(tmp_path / "film.dcm"))
    for one in (support.read(), support.refused(), support.abstained()):
        models.Bundle.model_validate(fhir_bundle(one, image))
