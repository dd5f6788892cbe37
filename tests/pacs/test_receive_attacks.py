"""Peers that mean harm or break down: what they cost, and that others are still served."""

from __future__ import annotations

import random
import socket
import struct
import time
import zlib
from pathlib import Path

import psutil
import pydicom
import pytest

from tests.pacs.node_support import Node, RawPeer, data_set, echoscu, film, running, storescu
from wetread.errors import ImageRefused, OverBudget
from wetread.pacs import wire
from wetread.pacs.header import object_header

DEFLATED, EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def hung_up(connection: socket.socket) -> bool:
    """Whether the node has closed this connection, possibly after an A-ABORT."""
    connection.settimeout(60)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def resident_mib() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def test_malformed_openings_cost_nothing(tmp_path: Path) -> None:
    """Pynetdicom 3.0.4 grew by 420 MB and was deaf for 30 s after 300 of these."""
    chance = random.Random(4)
    with running(tmp_path / "node") as node:
        before = resident_mib()
        for _ in range(150):
            with node.connect() as connection:
                connection.sendall(chance.randbytes(chance.randrange(1, 300)))
        for body in (b"", bytes(68), b"\0\1" + bytes(2) + b"WETREAD ".ljust(32) + bytes(32) + b"\x20\0\xff\xff"):
            with node.connect() as connection:
                connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
                assert hung_up(connection)
        assert echoscu(node).returncode == 0
        assert resident_mib() - before < 20


@pytest.mark.parametrize("kind", [1, 4, 5, 7])
def test_a_pdu_that_claims_4_gib_is_not_read(tmp_path: Path, kind: int) -> None:
    """Pynetdicom takes all of it, dcmtk cuts at 3 MB (its leaks and crashes: CVE-2026-50254, 35505, 44628)."""
    with running(tmp_path / "node") as node, node.connect() as connection:
        connection.sendall(struct.pack(">BBI", kind, 0, 0xFFFFFFFE) + bytes(1000))
        assert hung_up(connection)


def test_a_data_pdu_above_what_was_agreed_is_not_read(tmp_path: Path) -> None:
    with running(tmp_path / "node", pdu_bytes=16384) as node:
        peer = RawPeer(node)
        peer.begin_store("1.2.3")
        peer.socket.sendall(struct.pack(">BBI", 4, 0, 16385))
        assert peer.receive()[0] == wire.ABORT
        assert hung_up(peer.socket)
        peer.close()
        assert node.files("incoming") == []


def test_silent_sockets_and_idle_associations_keep_nobody_out(tmp_path: Path) -> None:
    """Orthanc 1.10 lets an echo time out, pynetdicom 3.0.4 refuses it."""
    with running(tmp_path / "node") as node:
        before = resident_mib()
        silent = [node.connect() for _ in range(200)]
        idle = [RawPeer(node) for _ in range(60)]
        assert echoscu(node).returncode == 0
        assert resident_mib() - before < 50
        assert node.server.connections <= 4 * 16 + 60
        for peer in idle:
            peer.close()
        for connection in silent:
            connection.close()


def test_a_burst_of_openings_is_served_and_what_stays_silent_gives_way(tmp_path: Path) -> None:
    """A sender with 32 associations opens them at once; eight silent sockets are too many a moment later."""
    with running(tmp_path / "node", half_open_per_address=8) as node:
        burst = [node.connect() for _ in range(30)]
        time.sleep(0.3)
        assert node.server.connections == 30
        further = [node.connect() for _ in range(2)]
        deadline = time.monotonic() + 10
        while node.server.connections < 32 and time.monotonic() < deadline:
            time.sleep(0.01)
        one_too_many = node.connect()  # four times as many as may stay: even so soon the first one goes
        assert hung_up(burst[0])
        time.sleep(1.1)
        late = node.connect()
        assert hung_up(burst[1])
        assert echoscu(node).returncode == 0
        for connection in (*burst, *further, one_too_many, late):
            connection.close()


def test_the_limit_of_associations_is_told_and_ends_when_one_leaves(tmp_path: Path) -> None:
    with running(tmp_path / "node", per_address=2, evictable_s=300.0) as node:
        peers = [RawPeer(node), RawPeer(node)]
        assert "Local Limit Exceeded" in echoscu(node).stderr
        peers[0].send(wire.RELEASE_RQ, bytes(4))
        assert peers[0].receive()[0] == wire.RELEASE_RP
        deadline = time.monotonic() + 60
        while node.server.connections > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert echoscu(node).returncode == 0
        for peer in peers:
            peer.close()


def test_at_the_limit_the_association_idle_longest_gives_way(tmp_path: Path) -> None:
    with running(tmp_path / "node", associations=2, evictable_s=0.0) as node:
        peers = [RawPeer(node), RawPeer(node)]
        assert echoscu(node).returncode == 0
        assert hung_up(peers[0].socket)
        peers[1].send(wire.RELEASE_RQ, bytes(4))
        assert peers[1].receive()[0] == wire.RELEASE_RP
        for peer in peers:
            peer.close()


def test_a_peer_that_drips_is_cut_off(tmp_path: Path) -> None:
    """A slow loris: no single read is late, but the request never ends."""
    with running(tmp_path / "node", handshake_s=0.5) as node, node.connect() as connection:
        began = time.monotonic()
        connection.sendall(struct.pack(">BBI", 1, 0, 1000))
        with pytest.raises(OSError):  # noqa: PT012 - any of reset and broken pipe
            for _ in range(600):
                connection.sendall(b"\0")
                time.sleep(0.1)
        assert time.monotonic() - began < 50


def test_a_sender_that_dies_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """In dcmtk associations leaked (CVE-2026-50254, 35505, 44628)."""
    with running(tmp_path / "node") as node:
        data = data_set(film(tmp_path / "film.dcm"))
        for cut in (0, 1, 700, len(data) - 1):
            peer = RawPeer(node)
            peer.begin_store("1.2.3")
            peer.pdv(0, data[:cut])
            peer.close()
        wait_for_no_connection(node)
        assert node.files("incoming") == []
        assert node.rows() == []


def wait_for_no_connection(node: Node) -> None:
    deadline = time.monotonic() + 120
    while node.server.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert node.server.connections == 0


@pytest.mark.parametrize(
    "uid",
    [
        "../../../../tmp/evil",  # CVE-2022-2119, CVE-2022-2120, CVE-2026-50003
        "/etc/cron.d/evil",
        "..%2f..%2fevil",
        "1.2.3;touch evil",  # CVE-2026-5663: names that reached a shell
        "$(touch evil)",
        "1.2.\0.3",
        "A" * 64,
        "1" * 65,
        "",
        "1..2",
        "<script>alert(1)</script>",
    ],
)
def test_a_hostile_uid_is_refused_and_reaches_no_file_name(tmp_path: Path, uid: str) -> None:
    with running(tmp_path / "node") as node:
        peer = RawPeer(node)
        assert peer.store(uid, data_set(film(tmp_path / "film.dcm"))) == 0xA900
        peer.close()
        assert node.files("objects") + node.files("incoming") == []
        assert not list(tmp_path.rglob("*evil*"))


def test_a_data_set_of_another_instance_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "node") as node:
        peer = RawPeer(node)
        assert peer.store("1.2.3.4", data_set(film(tmp_path / "film.dcm"))) == 0xA900
        assert peer.store("1.2.3.4", b"no data set at all, but text of some length") in (0xC000, 0xA900)
        assert peer.store("1.2.3.4", b"") == 0xA900
        peer.close()
        assert node.files("objects") + node.files("incoming") == []


@pytest.mark.parametrize(
    "sent",
    [
        (4, struct.pack(">IBB", 2, 9, 3)),  # a context that was not accepted
        (4, struct.pack(">IBB", 0xFFFF, 1, 3)),  # a PDV longer than its PDU
        (4, struct.pack(">IBB", 0, 1, 3)),
        (4, struct.pack(">IBB", 2, 1, 2)),  # data without a command
        (4, struct.pack(">IBB", 3, 1, 3) + b"x"),  # a command that is none
        (4, struct.pack(">IBB", 10, 1, 3) + struct.pack("<HHI", 0, 0x100, 0xFFFFFFF0)),
        (1, bytes(68)),  # a second request
        (2, bytes(10)),
    ],
)
def test_a_broken_message_ends_its_association_only(tmp_path: Path, sent: tuple[int, bytes]) -> None:
    with running(tmp_path / "node") as node:
        peer, other = RawPeer(node), RawPeer(node)
        peer.send(*sent)
        assert peer.receive()[0] == wire.ABORT
        good = film(tmp_path / "film.dcm")
        assert other.store(str(pydicom.dcmread(good).SOPInstanceUID), data_set(good)) == 0
        peer.close()
        other.close()


def test_a_command_set_without_end_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "node") as node:
        peer = RawPeer(node)
        for _ in range(20):
            peer.pdv(1, bytes(1000))
        assert peer.receive()[0] in (wire.ABORT, 0)
        peer.close()


def test_an_object_above_the_limit_is_refused_and_one_without_end_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "node", object_bytes=5000) as node:
        peer = RawPeer(node)
        assert peer.store("1.2.3.4", bytes(8000)) == 0xA700
        assert node.files("incoming") == []
        peer.begin_store("1.2.3.4")
        for _ in range(3):
            peer.pdv(0, bytes(5000))
        assert peer.receive()[0] == wire.ABORT
        peer.close()


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind, len(value)) + value


IDENTITY = element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0") + element(0x00080018, b"UI", b"1.2.3\0")
ENDLESS = 0xFFFFFFFF
BOMBS = {
    "57,000 empty elements": IDENTITY + b"".join(element(0x00090000 + n, b"LO", b"") for n in range(0x1010, 0xF010)),
    "sequences 20,000 deep": IDENTITY
    + (struct.pack("<HH2sHI", 8, 0x1111, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF))
    * 20_000,
    "an endless value": IDENTITY + struct.pack("<HH2sHI", 9, 0x1010, b"UN", 0, ENDLESS) + bytes(6 << 20),
    "a UID of 8 MB": struct.pack("<HH2sHI", 8, 0x18, b"UT", 0, 8 << 20) + b"1" * (8 << 20),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_the_header_costs_little(tmp_path: Path, bomb: str) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(BOMBS[bomb])
    before, began = resident_mib(), time.process_time()
    with pytest.raises((OverBudget, ImageRefused), match=r"expected a (header of at most 4 MiB|DICOM data set)"):
        object_header(file, 0, EXPLICIT)
    assert time.process_time() - began < 2
    assert resident_mib() - before < 64


def test_a_deflated_data_set_is_inflated_only_at_its_beginning(tmp_path: Path) -> None:
    """Orthanc CVE-2026-5438 to 5440: what a stream inflates to was not bounded."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    study = element(0x0020000D, b"UI", b"1.2\0") + element(0x0020000E, b"UI", b"1.3\0")
    zeros = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 100 << 20)
    file = tmp_path / "bomb"
    file.write_bytes(packer.compress(IDENTITY + study + zeros) + packer.compress(bytes(100 << 20)) + packer.flush())
    before = resident_mib()
    header = object_header(file, 0, DEFLATED)
    assert (header.sop_instance, header.study, header.series) == ("1.2.3", "1.2", "1.3")
    assert resident_mib() - before < 64


def test_no_name_of_a_patient_reaches_log_index_or_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path / "node") as node:
        sent = film(tmp_path / "film.dcm")
        storescu(node, sent)
        peer = RawPeer(node)
        peer.store("1.2.3.4", data_set(sent))
        peer.pdv(2, b"CANARY")
        peer.receive()
        peer.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "node").glob("index.db*"))
    assert b"CANARY" not in kept
    assert "CANARY" not in caplog.text


def test_no_handle_and_no_thread_stays_behind(tmp_path: Path) -> None:
    """Pynetdicom #328 and #669: both once leaked."""
    with running(tmp_path / "node") as node:
        RawPeer(node).close()
        wait_for_no_connection(node)
        process = psutil.Process()
        before = process.num_fds(), process.num_threads()
        for _ in range(30):
            RawPeer(node).close()
        wait_for_no_connection(node)
        assert process.num_fds() <= before[0] + 1
        assert process.num_threads() <= before[1] + 1
