"""A node on a free port, films to send it, and dcmtk's clients to send them with."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from wetread.pacs.association import Limits, Policy
from wetread.pacs.server import StorageServer
from wetread.pacs.store import ObjectStore

TITLE = "WETREAD"


class Node:
    """A store and a server on loopback."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        on_other: Literal["warn", "refuse"] = changes.pop("on_other", "warn")
        reserve = changes.pop("reserve_bytes", 0)
        callers = changes.pop("callers", None)
        self.tls = changes.pop("tls", None)
        self.store = ObjectStore(folder, reserve_bytes=reserve, on_other=on_other)
        # generous: tests run on busy machines
        changes = {"handshake_s": 60.0, "pdu_s": 120.0, "idle_s": 300.0} | changes
        self.server = StorageServer(
            self.store, Policy(TITLE, callers=callers), Limits(**changes), tls=self.tls, host="127.0.0.1"
        )
        self.server.start()
        self.port = self.server.port

    def stop(self) -> None:
        self.server.stop()
        self.store.close()

    def rows(self, columns: str = "sop_instance, state, version, path") -> list[tuple[Any, ...]]:
        return self.store.ledger.read(f"SELECT {columns} FROM objects ORDER BY id")

    def events(self) -> list[str]:
        return [row[0] for row in self.store.ledger.read("SELECT kind FROM events ORDER BY number")]

    def files(self, folder: str) -> list[Path]:
        return sorted(path for path in (self.store.folder / folder).rglob("*") if path.is_file())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextlib.contextmanager
def running(folder: Path, **changes: Any) -> Iterator[Node]:
    node = Node(folder, **changes)
    try:
        yield node
    finally:
        node.stop()


def dcmtk(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a tool of dcmtk, or skip where it is not installed."""
    # pynetdicom puts programs of the same names beside python
    places = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != Path(sys.executable).parent]
    found = shutil.which(tool, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{tool} is not installed (Debian: dcmtk)")
    words = [found, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def storescu(node: Node, *files: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return dcmtk("storescu", "-v", "-R", *options, "-aec", TITLE, "127.0.0.1", node.port, *files)


def echoscu(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    return dcmtk("echoscu", *options, "-aec", TITLE, "127.0.0.1", node.port)


def film(path: Path, seed: int = 1, **changes: Any) -> Path:
    """A radiograph of 64 x 64 pixels of noise, of its own study; ``changes`` are elements by keyword."""
    pixels = np.random.default_rng(seed).integers(0, 4096, (64, 64), dtype=np.uint16)
    data = Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    for number, keyword in enumerate(("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
        setattr(data, keyword, generate_uid(entropy_srcs=[path.name, str(seed), str(number)]))
    data.PatientName, data.PatientID = "CANARY^NAME", f"CANARY{seed}"
    data.PatientBirthDate, data.PatientSex, data.PatientAge = "19700101", "F", "045Y"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260102", "101500", "S1", "A1"
    data.ReferringPhysicianName, data.Manufacturer, data.Laterality = "", "maker", ""
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", "PA"
    data.StudyDescription, data.SeriesDescription = "CHEST PA", "PA"
    data.SeriesNumber, data.InstanceNumber, data.PatientOrientation = 1, 1, ["L", "F"]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 64, 64, 16, 12, 11
    data.ImagerPixelSpacing, data.WindowCenter, data.WindowWidth = [0.5, 0.5], 2048, 4096
    data.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


class RawPeer:
    """A sender written byte by byte, for what no real client would send."""

    def __init__(self, node: Node, sop_class: str = "1.2.840.10008.5.1.4.1.1.1", syntax: str = "1.2.840.10008.1.2.1"):
        self.socket = node.connect()
        self.sop_class = sop_class
        context = item(0x20, b"\1\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, syntax.encode()))
        user = item(0x50, item(0x51, struct.pack(">I", 16384)))
        body = struct.pack(">HH", 1, 0) + TITLE.ljust(16).encode() + b"RAW".ljust(16) + bytes(32)
        self.send(1, body + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user)
        assert self.receive()[0] == 2

    def send(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">BBI", kind, 0, len(body)) + body)

    def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; (0, b"") where the node has hung up."""
        try:
            head = self.socket.recv(6, socket.MSG_WAITALL)
            if len(head) < 6:
                return 0, b""
            return head[0], self.socket.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)
        except ConnectionResetError:
            return 0, b""

    def begin_store(self, instance: str) -> None:
        def element(number: int, value: bytes) -> bytes:
            value += bytes(len(value) % 2)
            return struct.pack("<HHI", 0, number, len(value)) + value

        command = element(0x0002, self.sop_class.encode()) + element(0x0100, b"\1\0") + element(0x0110, b"\7\0")
        command += element(0x0700, b"\0\0") + element(0x0800, b"\0\0") + element(0x1000, instance.encode("latin-1"))
        command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
        self.pdv(3, command)

    def pdv(self, flags: int, data: bytes) -> None:
        self.send(4, struct.pack(">IBB", len(data) + 2, 1, flags) + data)

    def store(self, instance: str, data: bytes) -> int:
        """The status of a C-STORE of ``data``, 100 kB at a time."""
        self.begin_store(instance)
        starts = range(0, max(1, len(data)), 100_000)
        for start in starts:
            self.pdv(2 if start == starts[-1] else 0, data[start : start + 100_000])
        kind, body = self.receive()
        assert kind == 4
        at = body.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", body, at)[0])

    def close(self) -> None:
        self.socket.close()


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def data_set(path: Path) -> bytes:
    """The data set of a file, as it lies there."""
    with path.open("rb") as file:
        read_preamble(file, False)
        _read_file_meta_info(file)
        return file.read()
