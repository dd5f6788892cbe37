"""Receivers and senders for the benchmarks of the node: ours, Orthanc, dcmtk's storescp; and a caller of our own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from wetread.pacs import wire

__all__ = ["CT", "TITLE", "Caller", "Receiver", "dcmtk", "echo_s", "free_port", "make_objects", "receiver", "wait_for"]

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, VERIFICATION, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.1", "1.2.840.10008.1.2"
TITLE = "PEER"
SERVE = """
import signal, sys, threading
from pathlib import Path
from wetread.pacs.association import Limits, Policy
from wetread.pacs.server import StorageServer
from wetread.pacs.store import ObjectStore
store = ObjectStore(Path(sys.argv[1]), reserve_bytes=0)
server = StorageServer(store, Policy("PEER"), Limits(idle_s=600), port=int(sys.argv[2]))
server.start()
signal.sigwait({signal.SIGTERM})
server.stop()
store.close()
"""


@dataclass(frozen=True)
class Receiver:
    """A receiver that runs on ``port`` and keeps its files in ``folder``."""

    port: int
    process: psutil.Process
    folder: Path

    def resident_mib(self) -> float:
        """Resident memory of it and of what it forked; pages they share count once for each."""
        family = [self.process, *self.process.children(recursive=True)]
        return float(sum(one.memory_info().rss for one in family) / 2**20)


def make_objects(folder: Path, count: int, side: int = 512) -> list[Path]:
    """CT-like objects of ``side`` x ``side`` pixels, all different; 512 gives 525 kB."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(7)
    data = Dataset()
    data.SOPClassUID, data.Modality, data.PatientID = CT, "CT", "BENCH"
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    files = []
    for number in range(count):
        data.SOPInstanceUID = generate_uid()
        data.InstanceNumber = number + 1
        data.PixelData = chance.bytes(side * side * 2)
        files.append(folder / f"{number:05d}.dcm")
        data.save_as(files[-1], enforce_file_format=True)
    return files


@contextmanager
def receiver(name: str, folder: Path) -> Iterator[Receiver | None]:
    """Start a receiver (``wetread``, ``orthanc`` or ``storescp``); None where it is not installed."""
    port = free_port()
    words = command(name, folder, port)
    if words is None:
        yield None
        return
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        wait_for(port)
        yield Receiver(port, psutil.Process(process.pid), folder)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command(name: str, folder: Path, port: int) -> list[str] | None:
    """The words that start a receiver; None where it is not installed."""
    if name == "wetread":
        return [sys.executable, "-c", SERVE, str(folder), str(port)]
    if name == "storescp":
        found = dcmtk("storescp")
        return [found, "--fork", "-aet", TITLE, "-od", str(folder), str(port)] if found else None
    orthanc = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin")
    if orthanc is None:
        return None
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": port,
        "DicomAet": TITLE,
        "HttpServerEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "SyncStorageArea": True,
        "DicomThreadsCount": 4,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return [orthanc, str(folder / "orthanc.json")]


def dcmtk(tool: str) -> str | None:
    """Dcmtk's own tool: pynetdicom puts programs of the same names beside python."""
    places = [one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != Path(sys.executable).parent]
    return shutil.which(tool, path=os.pathsep.join(places))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens on ``port``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"expected a receiver on port {port}, got none in 120 s; start it by hand")


class Caller:
    """An association of our own, in few lines of Python, so that the sender costs little.

    Raises:
        OSError: refused or closed.
    """

    def __init__(self, port: int, sop_class: str = CT, syntax: str = EXPLICIT, timeout_s: float = 60) -> None:
        self.sop_class = sop_class
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = _item(0x20, b"\1\0\0\0" + _item(0x30, sop_class.encode()) + _item(0x40, syntax.encode()))
        user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.4"))
        body = struct.pack(">HH", 1, 0) + TITLE.ljust(16).encode() + b"CALLER".ljust(16) + bytes(32)
        body += _item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
        self.socket.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
        try:
            kind, answer = self._receive()
            if kind != 2:
                raise ConnectionRefusedError("the association was rejected")
        except OSError:
            self.socket.close()
            raise
        at = answer.find(b"\x51\0\0\4")
        self.most = int.from_bytes(answer[at + 4 : at + 8], "big") or 65_536

    def echo(self) -> None:
        """C-ECHO, on an association for Verification."""
        self._command({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: 1, 0x0800: 0x0101})
        self._receive()

    def store(self, instance: str, data: bytes) -> int:
        """C-STORE of an encoded data set; returns the status."""
        values: dict[int, int | str] = {0x0002: self.sop_class, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 0}
        self._command(values | {0x1000: instance})
        for pdu in wire.data_pdus(1, data, self.most, command=False):
            self.socket.sendall(pdu)
        body = self._receive()[1]
        at = body.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", body, at)[0])

    def release(self) -> None:
        """End in order."""
        self.socket.sendall(wire.release_pdu(wire.RELEASE_RQ))
        self._receive()
        self.socket.close()

    def close(self) -> None:
        """End without a word."""
        self.socket.close()

    def _command(self, values: dict[int, int | str]) -> None:
        for pdu in wire.data_pdus(1, wire.command_bytes(values), 16384, command=True):
            self.socket.sendall(pdu)

    def _receive(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        return head[0], self._exactly(int.from_bytes(head[2:6], "big"))

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            part = self.socket.recv(size - len(got))
            if not part:
                raise ConnectionResetError("closed")
            got += part
        return bytes(got)


def echo_s(port: int, timeout_s: float = 12) -> float:
    """Seconds from the connection to the answer of a C-ECHO; ``timeout_s`` where there is none."""
    began = time.perf_counter()
    try:
        with contextlib.closing(Caller(port, VERIFICATION, IMPLICIT, timeout_s)) as caller:
            caller.echo()
            caller.release()
    except OSError:
        return timeout_s
    return time.perf_counter() - began


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body
