"""Throughput of the receiver with dcmtk's storescu at 1, 8 and 32 associations, beside other receivers.

Peers run in the same minutes on the same disk: Orthanc (syncs each file) and dcmtk's storescp --fork (syncs nothing),
each where it is installed. Objects are CT-like, 525 kB, all different. The senders share the cores with the receiver.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from benchmarks.common import Figure, arguments, write_figures

BARS = {1: ">= 200", 8: ">= 220", 32: ">= 280"}
CT = "1.2.840.10008.5.1.4.1.1.2"
SERVE = """
import signal, sys, threading
from pathlib import Path
from wetread.pacs.association import Policy
from wetread.pacs.server import StorageServer
from wetread.pacs.store import ObjectStore
store = ObjectStore(Path(sys.argv[1]), reserve_bytes=0)
server = StorageServer(store, Policy("PEER"), port=int(sys.argv[2]))
server.start()
signal.sigwait({signal.SIGTERM})
server.stop()
store.close()
"""


def main() -> None:
    parser = arguments(__doc__, "results/node.csv")
    parser.add_argument("--objects", type=int, default=800, help="objects of each run")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder on the disk to measure [a temporary one]")
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=asked.work) as scratch:
        folder = Path(scratch)
        files = make_objects(folder / "objects", asked.objects)
        figures.append(raw_disk(folder, files))
        for associations in asked.associations:
            for name in ("wetread", "orthanc", "storescp"):
                rates = [rate for _ in range(asked.repeats) if (rate := measure(name, folder, files, associations))]
                if rates:
                    figures.append(figure(name, associations, rates, len(files)))
                    print(figures[-1].what, figures[-1].value, flush=True)
    write_figures(asked.out, figures)


def figure(name: str, associations: int, rates: Sequence[float], objects: int) -> Figure:
    synced = {"wetread": "file, folder and index synced", "orthanc": "file synced", "storescp": "nothing synced"}
    return Figure(
        what=f"{name}, {associations} associations",
        value=round(float(np.median(rates)), 1),
        unit="objects/s",
        protocol=f"{objects} CT-like objects of 525 kB by dcmtk storescu on loopback; {synced[name]}",
        n=len(rates),
        low=round(min(rates), 1),
        high=round(max(rates), 1),
        bar=BARS.get(associations, "") if name == "wetread" else "",
    )


def raw_disk(folder: Path, files: Sequence[Path]) -> Figure:
    """What the disk itself gives: write and sync one object after the other, no network, no index."""
    data = files[0].read_bytes()
    began = time.perf_counter()
    for number in range(100):
        with (folder / f"raw{number}").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
    rate = 100 / (time.perf_counter() - began)
    protocol = "write and fsync of the same size, one after the other, no network"
    return Figure("disk alone", round(rate, 1), "objects/s", protocol, n=100)


def make_objects(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    chance = np.random.default_rng(7)
    data = Dataset()
    data.SOPClassUID, data.Modality, data.PatientID = CT, "CT", "BENCH"
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Rows = data.Columns = 512
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    files = []
    for number in range(count):
        data.SOPInstanceUID = generate_uid()
        data.InstanceNumber = number + 1
        data.PixelData = chance.bytes(512 * 512 * 2)
        files.append(folder / f"{number:05d}.dcm")
        data.save_as(files[-1], enforce_file_format=True)
    return files


def measure(name: str, folder: Path, files: Sequence[Path], associations: int) -> float | None:
    """Objects per second of one receiver, or None where it is not installed."""
    place = folder / f"{name}-{associations}-{time.monotonic_ns()}"
    place.mkdir()
    try:
        with receiver(name, place) as port:
            if port is None:
                return None
            began = time.perf_counter()
            send(files, port, associations)
            return len(files) / (time.perf_counter() - began)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def send(files: Sequence[Path], port: int, associations: int) -> None:
    """Divide the files among as many senders; all must be taken."""
    storescu = dcmtk("storescu")
    codes: list[int] = []

    def one(part: Sequence[Path]) -> None:
        words = [str(storescu), "-R", "-aec", "PEER", "127.0.0.1", str(port), *map(str, part)]
        codes.append(subprocess.run(words, capture_output=True, check=False).returncode)

    threads = [threading.Thread(target=one, args=(files[i::associations],)) for i in range(associations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(codes):
        raise SystemExit(f"expected every sender to end with 0, got {codes}; look at the receiver")


@contextmanager
def receiver(name: str, folder: Path) -> Iterator[int | None]:
    """Start a receiver; yield its port, or None where it is not installed."""
    port = free_port()
    words = command(name, folder, port)
    if words is None:
        yield None
        return
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def command(name: str, folder: Path, port: int) -> list[str] | None:
    if name == "wetread":
        return [sys.executable, "-c", SERVE, str(folder), str(port)]
    if name == "storescp":
        found = dcmtk("storescp")
        return [str(found), "--fork", "-aet", "PEER", "-od", str(folder), str(port)] if found else None
    orthanc = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin")
    if orthanc is None:
        return None
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": port,
        "DicomAet": "PEER",
        "HttpServerEnabled": False,
        "DicomAlwaysAllowStore": True,
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"expected a receiver on port {port}, got none in 120 s; start it by hand")


if __name__ == "__main__":
    main()
