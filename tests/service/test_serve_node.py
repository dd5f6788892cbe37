"""`wetread serve --node` as processes: dcmtk sends a study, it is in the worklist and read, its report is at dcmtk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pydicom
import pytest

from tests.pacs.node_support import dcmtk
from tests.pacs.test_node import free_port
from tests.service.test_server import PROGRAM, wait_for
from wetread.datasets.phantoms import render, sample_spec, write_dicom

SETTINGS = """
[node]
folder = "node"
port = {port}
reserve_bytes = 0
quiet_s = 1

[node.remotes.pacs]
title = "PACS"
host = "127.0.0.1"
port = {pacs}
results = ["sr"]

[[node.rules]]
name = "films of CT1"
reader = "chest-pneumonia"
heat_maps = false
to = ["pacs"]
senders = ["CT1"]
"""


class Site:
    """A service with its receiver in a folder, and a receiver of dcmtk for what it sends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.web, self.pacs = folder, free_port(), free_port(), free_port()
        (folder / "wetread.toml").write_text(SETTINGS.format(port=self.port, pacs=self.pacs))
        (folder / "pacs").mkdir()
        self.process: subprocess.Popen[str] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.web}", timeout=30)

    def start(self) -> None:
        """Start the service and log in."""
        words = [*PROGRAM, "serve", "--node", "--root", "service", "--port", str(self.web)]
        self.process = subprocess.Popen(
            words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        assert address.startswith("http://"), address
        wait_for(lambda: self.client.get("/healthz").status_code == 200)
        self.client.cookies.clear()
        assert self.client.get(address).status_code == 303
        wait_for(self.is_receiving)

    def is_receiving(self) -> bool:
        return bool(self.client.get("/readyz").json()["checks"]["receiver"])

    def kill(self) -> None:
        """As a loss of power would end it; its processes go with it."""
        assert self.process is not None
        assert self.process.stdout is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
        self.process.stdout.close()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.client.close()

    def send(self, path: Path, title: str) -> None:
        sent = dcmtk("storescu", "-R", "-aet", title, "-aec", "WETREAD", "127.0.0.1", self.port, path)
        assert sent.returncode == 0, sent.stderr

    def worklist(self) -> dict[str, dict[str, Any]]:
        """Studies by their UID."""
        listed = self.client.get("/api/v1/studies").json()["studies"]
        found = [self.client.get(f"/api/v1/studies/{one['id']}").json() for one in listed]
        return {one["study_uid"]: one for one in found}

    def reports(self) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in (self.folder / "pacs").iterdir() if path.suffix != ".part"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    places = [one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != Path(sys.executable).parent]
    storescp = shutil.which("storescp", path=os.pathsep.join(places))
    if storescp is None:
        pytest.skip("storescp is not installed (Debian: dcmtk)")
    made = Site(tmp_path)
    with subprocess.Popen([storescp, "-aet", "PACS", "-od", str(tmp_path / "pacs"), str(made.pacs)]) as receiver:
        try:
            yield made
        finally:
            made.stop()
            receiver.terminate()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    drawn = [render(sample_spec(np.random.default_rng(seed), size_px=128)) for seed in (1, 2, 3)]
    return [write_dicom(one, folder / f"{number}.dcm") for number, one in enumerate(drawn)]


def test_a_study_that_is_sent_is_seen_read_and_answered_also_over_a_kill(site: Site, films: list[Path]) -> None:
    ruled, unruled, late = (str(pydicom.dcmread(path).StudyInstanceUID) for path in films)
    site.start()
    site.send(films[0], "CT1")
    site.send(films[1], "ELSEWHERE")
    site.kill()  # acknowledged, and maybe not in the worklist yet
    site.start()
    wait_for(lambda: site.worklist().get(ruled, {}).get("status") == "read" and unruled in site.worklist())
    found = site.worklist()
    assert {uid: one["image_list"][0]["facts"]["received_from"] for uid, one in found.items()} == {
        ruled: "CT1",
        unruled: "ELSEWHERE",
    }
    assert (found[unruled]["status"], found[unruled]["jobs"], found[unruled]["image_list"][0]["results"]) == (
        "open",
        [],
        [],
    )
    (result,) = found[ruled]["image_list"][0]["results"]
    assert (result["kind"], result["reader"]) == ("read", "chest-pneumonia")
    wait_for(site.reports)
    time.sleep(1)  # for a second one, which must not come
    (report,) = site.reports()
    assert (report.StudyInstanceUID, report.Modality) == (ruled, "SR")

    assert site.process is not None
    receiver = next(one for one in psutil.Process(site.process.pid).children() if "node" in one.cmdline())
    receiver.kill()
    wait_for(lambda: not site.is_receiving())
    wait_for(site.is_receiving)
    site.send(films[2], "CT1")
    wait_for(lambda: late in {str(one.StudyInstanceUID) for one in site.reports()})
    assert site.worklist()[late]["status"] == "read"
    shown = dict(
        line.split() for line in site.client.get("/metrics").text.splitlines() if line.startswith("wetread_receiver_")
    )
    assert {name: float(value) for name, value in shown.items()} == {
        "wetread_receiver_listening": 1.0,
        "wetread_receiver_received": 3.0,
        "wetread_receiver_due": 0.0,
        "wetread_receiver_waiting": 0.0,
        "wetread_receiver_dead": 0.0,
    }
    actions = {line["action"] for line in site.client.get("/api/v1/audit-log").json()["lines"]}
    assert {"receive", "read done"} <= actions


def test_a_rule_with_a_reader_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    text = SETTINGS.format(port=0, pacs=9).replace("chest-pneumonia", "chest-pnuemonia")
    (tmp_path / "wetread.toml").write_text(text)
    words = [*PROGRAM, "serve", "--node", "--no-worker", "--root", "service", "--port", str(free_port())]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode != 0
    assert "chest-pnuemonia" in ended.stderr


def test_without_the_flag_nothing_is_received(tmp_path: Path) -> None:
    web, port = free_port(), free_port()
    (tmp_path / "wetread.toml").write_text(SETTINGS.format(port=port, pacs=9))
    words = [*PROGRAM, "serve", "--no-worker", "--root", "service", "--port", str(web)]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{web}", timeout=30) as client:
                wait_for(lambda: client.get("/healthz").status_code == 200)
                assert set(client.get("/readyz").json()["checks"]) == {"database", "disk"}
                assert "wetread_receiver" not in client.get("/metrics").text
        finally:
            process.send_signal(signal.SIGINT)
    assert not (tmp_path / "node").exists()
