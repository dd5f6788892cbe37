"""From end to end with Orthanc: a film goes in by storescu, is routed to the node, read, and the results come back.

Orthanc routes by a script of its own, as at a site; the reader and the segmenter are the shipped ones. Nothing of
ours looks at the results but Orthanc: it finds them by QIDO-RS, parses them and renders those that are images.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.web import DICOMwebClient

from tests.pacs.node_support import dcmtk
from tests.pacs.orthanc_support import PROOF, Orthanc, free_port, orthanc
from wetread.cli.node import study_reader
from wetread.datasets.phantoms import PhantomSpec, render, write_dicom
from wetread.errors import PeerUnreachable
from wetread.pacs import client, web
from wetread.pacs.node import Node
from wetread.settings import NodeRemote, NodeRule, NodeSettings

LATER = 6000.0
MODALITIES = {"sr": "SR", "seg": "SEG", "heat": "SEG", "gsps": "PR", "sc": "OT", "pdf": "DOC"}
IMAGES = ("sc", "seg", "heat")
SENT = ("sr", "seg", "gsps", "sc", "pdf")


class Site:
    """Orthanc, a node with the shipped reader, and one film."""

    def __init__(self, folder: Path, peer: Orthanc, port: int) -> None:
        self.peer = peer
        self.film = write_dicom(render(PhantomSpec(seed=4, age_years=4.0, size_px=512)), folder / "film.dcm")
        self.image = pydicom.dcmread(self.film, stop_before_pixels=True)
        self.study = str(self.image.StudyInstanceUID)
        proof = folder / "proof"
        proof.write_text(PROOF + "\n")
        self.archive = NodeRemote(web=peer.web, authorization=proof, results=("sr", "heat"))
        self.pacs = NodeRemote(title=peer.title, host="127.0.0.1", port=peer.port, results=SENT)
        rule = NodeRule(name="films", reader="chest-pneumonia", segmenter="lungs", to=("pacs", "archive"))
        settings = NodeSettings(
            folder=folder / "node",
            port=port,
            reserve_bytes=0,
            quiet_s=600,
            remotes={"pacs": self.pacs, "archive": self.archive},
            rules=(rule,),
        )
        self.node = Node(settings, study_reader())
        self.node.start(work=False)

    def wait_for_the_film(self, arrivals: int) -> None:
        """Until the film has come from Orthanc so many times; a later one has the same bytes."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.node.store.study(self.study) and self.jobs_done() >= arrivals:
                return
            time.sleep(0.1)
        raise AssertionError(f"the film did not come: {self.peer.ask('/jobs?expand')}")

    def jobs_done(self) -> int:
        return sum(job["State"] == "Success" for job in self.peer.ask("/jobs?expand"))

    def found(self) -> list[dict[str, str]]:
        """What QIDO-RS knows of the study but for the film."""
        asked = DICOMwebClient(self.peer.web, headers={"Authorization": PROOF})
        rows = [
            pydicom.Dataset.from_json(row)
            for row in asked.search_for_instances(self.study, fields=["PatientID", "SeriesDescription"])
        ]
        keys = ("SOPInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "SeriesInstanceUID", "SOPClassUID")
        return [
            {key: str(row.get(key, "")) for key in keys}
            for row in rows
            if row.SOPInstanceUID != self.image.SOPInstanceUID
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    with orthanc(folder / "orthanc", "WETREAD", port) as peer:
        running = Site(folder, peer, port)
        try:
            yield running
        finally:
            running.node.stop()


@pytest.fixture(scope="module")
def answered(site: Site) -> Site:
    """After one film went round."""
    sent = dcmtk("storescu", "-v", "-aec", site.peer.title, "127.0.0.1", site.peer.port, site.film)
    assert sent.returncode == 0, sent.stderr
    site.wait_for_the_film(1)
    assert site.node.work_once(time.time() + LATER) == (1, len(SENT) + 2)  # the report goes both ways
    return site


def test_results_lie_in_the_study_of_the_film_and_of_its_patient(answered: Site) -> None:
    rows = answered.found()
    assert sorted(row["Modality"] for row in rows) == sorted(MODALITIES.values())
    assert {row["StudyInstanceUID"] for row in rows} == {answered.study}
    assert {row["PatientID"] for row in rows} == {str(answered.image.PatientID)}
    assert len({row["SeriesInstanceUID"] for row in rows}) == len(rows)
    assert len(answered.peer.ask("/patients")) == 1


def test_orthanc_opens_every_object(answered: Site) -> None:
    seen: list[str] = []
    for name in answered.peer.instances():
        tags: dict[str, Any] = answered.peer.ask(f"/instances/{name}/simplified-tags")
        modality = tags["Modality"]
        seen.append(modality)
        full = answered.peer.ask(f"/instances/{name}/tags")
        assert full["0020,000d"]["Value"] == answered.study
        if modality in ("OT", "SEG", "DX", "CR"):
            preview = answered.peer.ask(f"/instances/{name}/preview")
            assert preview.startswith(b"\x89PNG")
        if modality == "SR":
            assert tags["VerificationFlag"] == "UNVERIFIED"
            assert tags["ContentTemplateSequence"][0]["TemplateIdentifier"] == "1500"
        if modality == "PR":
            assert tags["ReferencedSeriesSequence"][0]["SeriesInstanceUID"] == answered.image.SeriesInstanceUID
        if modality == "DOC":
            assert answered.peer.ask(f"/instances/{name}/pdf").startswith(b"%PDF-")
    assert len(seen) == 1 + len(MODALITIES)


def test_the_organs_are_named_after_the_segmenter_and_measured_in_the_report(answered: Site) -> None:
    texts: dict[str, list[Any]] = {}
    for name in answered.peer.instances():
        tags = answered.peer.ask(f"/instances/{name}/simplified-tags")
        texts.setdefault(tags["Modality"], []).append(tags)
    organs = next(one for one in texts["SEG"] if one["SegmentationType"] == "BINARY")
    assert {one["SegmentAlgorithmName"] for one in organs["SegmentSequence"]} == {"lungs"}
    assert "cardiothoracic_ratio" in str(texts["SR"]) or "area" in str(texts["SR"])


def test_the_film_that_comes_again_sends_nothing_new(answered: Site) -> None:
    before = sorted(row["SOPInstanceUID"] for row in answered.found())
    done = answered.jobs_done()
    (name,) = _ids(answered)
    answered.peer.ask("/modalities/node/store", {"Resources": [name], "Synchronous": True})
    answered.wait_for_the_film(done + 1)
    assert answered.node.work_once(time.time() + LATER) == (0, 0)  # the same bytes: nothing arrived
    answered.node.store.ledger.write(lambda change: change.execute("UPDATE studies SET done = 0"))  # read it anyway
    assert answered.node.work_once(time.time() + 2 * LATER) == (1, 0)
    assert sorted(row["SOPInstanceUID"] for row in answered.found()) == before


def _ids(site: Site) -> list[str]:
    """Orthanc's own name of the film."""
    query = {"Level": "Instance", "Query": {"SOPInstanceUID": str(site.image.SOPInstanceUID)}}
    found: list[str] = site.peer.ask("/tools/find", query)
    return found


def test_the_same_is_found_and_fetched_by_c_find_c_get_and_wado(answered: Site, tmp_path: Path) -> None:
    pacs = answered.pacs
    assert client.echo(pacs, "WETREAD") > 0
    (row,) = client.find(pacs, "WETREAD", {"StudyInstanceUID": answered.study})
    assert row["NumberOfStudyRelatedInstances"] == str(1 + len(MODALITIES))
    by_dimse = client.get_study(pacs, "WETREAD", answered.study, tmp_path / "dimse")
    proof = web.authorization(answered.archive.authorization)
    by_web = web.get_study(answered.archive.web, answered.study, tmp_path / "web", proof=proof)
    assert {path.name for path in by_dimse} == {path.name for path in by_web}
    assert len(by_dimse) == 1 + len(MODALITIES)
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    for path in by_dimse:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=120, check=False)
        assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


def test_a_web_remote_without_its_authorization_is_told(answered: Site) -> None:
    with pytest.raises(PeerUnreachable, match=r"expected an answer from http://127.*, got HTTP status 401"):
        web.find(answered.archive.web, {})


def test_orthanc_moves_a_study_to_a_node_that_it_knows(answered: Site) -> None:
    assert client.move_study(answered.pacs, "WETREAD", answered.study, "WETREAD") == (1 + len(MODALITIES), 0)
    with pytest.raises(PeerUnreachable):
        client.move_study(answered.pacs, "WETREAD", answered.study, "ELSEWHERE")
