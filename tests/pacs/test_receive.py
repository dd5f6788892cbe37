"""The storage SCP against dcmtk's own clients, and what is on the disk afterwards."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pynetdicom import AE

from tests.pacs.node_support import TITLE, dcmtk, echoscu, film, running, storescu
from wetread.errors import UsageError
from wetread.pacs.association import Policy
from wetread.pacs.classes import STORAGE_CLASSES, TRANSFER_SYNTAXES
from wetread.pacs.server import StorageServer, server_tls
from wetread.pacs.store import ObjectStore, data_digest


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path).SOPInstanceUID)


def test_an_object_arrives_whole_under_a_name_that_is_a_hash(tmp_path: Path) -> None:
    sent = film(tmp_path / "film.dcm")
    with running(tmp_path / "node") as node:
        assert echoscu(node).returncode == 0
        assert storescu(node, sent).returncode == 0
        (kept,) = node.store.versions(uid_of(sent))
        again = pydicom.dcmread(kept.path)
        assert np.array_equal(again.pixel_array, pydicom.dcmread(sent).pixel_array)
        assert (again.SOPInstanceUID, again.StudyInstanceUID) == (kept.sop_instance, kept.study)
        assert kept.sop_instance not in str(kept.path)
        assert len(kept.path.stem) == 64
        assert data_digest(kept) == kept.digest
        assert node.files("incoming") == []
        assert kept.path.stat().st_mode & 0o077 == 0


def test_a_program_in_the_preamble_does_not_arrive(tmp_path: Path) -> None:
    """CVE-2019-11687: 128 bytes before the prefix can make a DICOM file a program too."""
    sent = film(tmp_path / "film.dcm")
    sent.write_bytes(b"MZ" + b"\x90" * 126 + sent.read_bytes()[128:])
    with running(tmp_path / "node") as node:
        assert storescu(node, sent).returncode == 0
        (kept,) = node.files("objects")
        assert kept.read_bytes()[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize(
    ("tool", "switch", "propose", "syntax"),
    [
        ("dcmconv", "+ti", "-xi", "1.2.840.10008.1.2"),
        ("dcmconv", "+tb", "-xb", "1.2.840.10008.1.2.2"),
        ("dcmconv", "+td", "-xd", "1.2.840.10008.1.2.1.99"),
        ("dcmcrle", "", "-xr", "1.2.840.10008.1.2.5"),
        ("dcmcjpeg", "+e1", "-xs", "1.2.840.10008.1.2.4.70"),
    ],
)
def test_every_transfer_syntax_is_kept_as_it_came(
    tmp_path: Path, tool: str, switch: str, propose: str, syntax: str
) -> None:
    plain, coded = film(tmp_path / "film.dcm"), tmp_path / "coded.dcm"
    # +un: dcmcjpeg would else give a compressed copy a new instance UID
    words = [word for word in (switch, "+un" if tool == "dcmcjpeg" else "") if word]
    made = dcmtk(tool, *words, plain, coded)
    assert made.returncode == 0, made.stderr
    with running(tmp_path / "node") as node:
        sent = storescu(node, coded, options=(propose,))
        assert sent.returncode == 0, sent.stderr
        (kept,) = node.store.versions(uid_of(coded))
        assert kept.transfer_syntax == syntax
        back = kept.path
        if tool == "dcmcjpeg":  # for which pydicom has no decoder here
            back = tmp_path / "back.dcm"
            assert dcmtk("dcmdjpeg", kept.path, back).returncode == 0
        assert np.array_equal(pydicom.dcmread(back).pixel_array, pydicom.dcmread(plain).pixel_array)


def test_all_storage_classes_and_transfer_syntaxes_are_accepted(tmp_path: Path) -> None:
    classes = sorted(STORAGE_CLASSES)
    assert len(classes) > 150
    assert len(TRANSFER_SYNTAXES) > 30
    with running(tmp_path / "node") as node:
        for start in range(0, len(classes), 128):
            part = classes[start : start + 128]
            client = AE()
            for number, uid in enumerate(part):
                client.add_requested_context(uid, sorted(TRANSFER_SYNTAXES)[number % len(TRANSFER_SYNTAXES)])
            association = client.associate("127.0.0.1", node.port, ae_title=TITLE)
            assert association.is_established
            assert [str(context.abstract_syntax) for context in association.accepted_contexts] == part
            association.release()


def test_a_class_that_is_not_storage_is_rejected_beside_one_that_is(tmp_path: Path) -> None:
    with running(tmp_path / "node") as node:
        client = AE()
        client.add_requested_context("1.2.840.10008.1.1")
        client.add_requested_context("1.2.840.10008.5.1.4.1.2.2.1")  # Study Root FIND
        association = client.associate("127.0.0.1", node.port, ae_title=TITLE)
        assert [context.result for context in association.accepted_contexts] == [0]
        assert [context.result for context in association.rejected_contexts] == [3]
        assert association.send_c_echo().Status == 0
        association.release()


def test_the_same_object_again_is_a_success_without_a_second_copy(tmp_path: Path) -> None:
    sent = film(tmp_path / "film.dcm")
    with running(tmp_path / "node") as node:
        assert storescu(node, sent).returncode == 0
        (first,) = node.files("objects")
        written = first.stat().st_mtime_ns, first.stat().st_ino
        assert "Success" in storescu(node, sent).stderr
        assert [(path.stat().st_mtime_ns, path.stat().st_ino) for path in node.files("objects")] == [written]
        assert len(node.rows()) == 1


def test_an_object_that_vanished_from_the_disk_is_taken_again(tmp_path: Path) -> None:
    sent = film(tmp_path / "film.dcm")
    with running(tmp_path / "node") as node:
        assert storescu(node, sent).returncode == 0
        node.files("objects")[0].unlink()
        assert storescu(node, sent).returncode == 0
        (kept,) = node.store.versions(uid_of(sent))
        assert data_digest(kept) == kept.digest
        assert node.events() == ["object replaced"]


def test_other_bytes_under_a_known_uid_are_kept_as_a_second_version(tmp_path: Path) -> None:
    """dcm4chee #4754, and what storescp, Orthanc and qrscp do: one of the two is lost."""
    first, second = film(tmp_path / "1.dcm"), tmp_path / "2.dcm"
    changed = pydicom.dcmread(first)
    changed.PixelData = changed.pixel_array[::-1].tobytes()
    changed.save_as(second)
    with running(tmp_path / "node") as node:
        assert storescu(node, first).returncode == 0
        assert "0xb000" in storescu(node, second, options=("-d",)).stderr.lower()
        kept = node.store.versions(uid_of(first))
        assert [version.version for version in kept] == [1, 2]
        for version, path in zip(kept, (first, second), strict=True):
            assert pydicom.dcmread(version.path).PixelData == pydicom.dcmread(path).PixelData
        assert node.events() == ["other bytes kept"]
        assert [row.version for row in node.store.study(str(changed.StudyInstanceUID))] == [2]


def test_other_bytes_may_be_refused_and_are_still_not_lost(tmp_path: Path) -> None:
    first, second = film(tmp_path / "1.dcm"), tmp_path / "2.dcm"
    changed = pydicom.dcmread(first)
    changed.PatientName = "Other"
    changed.save_as(second)
    with running(tmp_path / "node", on_other="refuse") as node:
        assert storescu(node, first).returncode == 0
        for _ in range(2):  # refused again when sent again
            assert "0x0111" in storescu(node, second, options=("-d",)).stderr.lower()
        assert [(state, version) for _, state, version, _ in node.rows()] == [("stored", 1), ("refused", 2)]
        assert len(node.store.versions(uid_of(first))) == 1
        assert len(node.files("objects")) == 2
        assert node.events() == ["other bytes refused"]


def test_many_associations_at_once(tmp_path: Path) -> None:
    films = [film(tmp_path / f"{seed}.dcm", seed) for seed in range(12)]
    codes: list[int] = []
    with running(tmp_path / "node") as node:
        threads = [
            threading.Thread(target=lambda part=films[i::4]: codes.append(storescu(node, *part).returncode))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [0] * 4
        assert {row[0] for row in node.rows()} == {uid_of(path) for path in films}
        assert node.files("incoming") == []


def test_only_listed_callers_come_in_and_the_others_are_noted(tmp_path: Path) -> None:
    callers: dict[str, tuple[str, ...]] = {"CT1": (), "FAR": ("192.0.2.1",)}
    with running(tmp_path / "node", callers=callers) as node:
        assert echoscu(node, "-aet", "CT1").returncode == 0
        assert "Calling AE Title Not Recognized" in echoscu(node, "-aet", "OTHER").stderr
        assert echoscu(node, "-aet", "FAR").returncode != 0
        wrong = dcmtk("echoscu", "-aet", "CT1", "-aec", "NOBODY", "127.0.0.1", node.port)
        assert "Called AE Title Not Recognized" in wrong.stderr
        assert node.events() == ["association rejected"] * 3


def test_tls_admits_clients_with_a_certificate_and_no_plain_ones(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with running(tmp_path / "node", tls=server_tls(certificate, key, certificate), handshake_s=2.0) as node:
        trusted = ("+tls", str(key), str(certificate), "+cf", str(certificate))
        assert echoscu(node, *trusted).returncode == 0
        assert echoscu(node, "+tla", "+cf", str(certificate)).returncode != 0  # no certificate of its own
        assert echoscu(node, "-to", "2", "-ta", "2").returncode != 0


def test_beyond_loopback_needs_tls_or_a_word(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path, reserve_bytes=0)
    with pytest.raises(UsageError, match=r"expected TLS for a node that others can reach, got none on 0\.0\.0\.0"):
        StorageServer(store, Policy(TITLE), host="0.0.0.0")
    server = StorageServer(store, Policy(TITLE))
    with pytest.raises(UsageError, match=f"expected a free port on 127.0.0.1, got {server.port}"):
        StorageServer(store, Policy(TITLE), port=server.port)
    server._listener.close()
    store.close()
    with pytest.raises(UsageError, match="expected a certificate and its key in PEM"):
        server_tls(tmp_path / "none.pem", tmp_path / "none.pem", None)
