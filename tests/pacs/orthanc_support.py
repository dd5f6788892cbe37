"""A real Orthanc in a folder of its own, with a route to our node, and its REST API."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "tester", "of the node"
PROOF = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ROUTE = """
function OnStoredInstance(instanceId, tags, metadata)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then
    SendToModality(instanceId, 'node')
  end
end
"""
"""What a site writes to have its films read: images go to the node, results do not come round again."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A running Orthanc: ``title`` at ``port`` for DICOM, ``url`` for REST, ``web`` for DICOMweb."""

    title = "ORTHANC"

    def __init__(self, folder: Path, port: int, http: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{http}"
        self.web = f"{self.url}/dicom-web"

    def ask(self, path: str, body: object = None) -> Any:
        """GET, or POST ``body`` as JSON; the answer as JSON, or as bytes where it is none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": PROOF})
        with urllib.request.urlopen(request, timeout=60) as answer:
            raw = answer.read()
        return json.loads(raw) if "json" in answer.headers["Content-Type"] else raw

    def instances(self) -> list[str]:
        found: list[str] = self.ask("/instances")
        return found


@contextlib.contextmanager
def orthanc(folder: Path, node_title: str, node_port: int) -> Iterator[Orthanc]:
    """Start Orthanc, or skip where it is not installed."""
    program = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None or not DICOMWEB.exists():
        pytest.skip("Orthanc is not installed (Debian: apt-get install orthanc orthanc-dicomweb)")
    folder.mkdir()
    running = Orthanc(folder, free_port(), free_port())
    (folder / "route.lua").write_text(ROUTE)
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(DICOMWEB)],
        "LuaScripts": [str(folder / "route.lua")],
        "DicomAet": running.title,
        "DicomPort": running.port,
        "DicomCheckCalledAet": True,
        "HttpPort": int(running.url.rsplit(":", 1)[1]),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {"node": [node_title, "127.0.0.1", node_port]},
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomAlwaysAllowGet": True,
        "DicomThreadsCount": 2,
        "HttpThreadsCount": 4,
        "KeepAlive": False,
        "ConcurrentJobs": 1,
        "SaveJobs": False,
        "StableAge": 1,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        words = [program, str(folder / "orthanc.json")]
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
        try:
            _wait_until_it_answers(running, process)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_it_answers(running: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            running.ask("/system")
            return
        time.sleep(0.1)
    raise AssertionError(f"Orthanc did not start: {(running.folder / 'log.txt').read_text()[-2000:]}")
