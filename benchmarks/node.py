"""The DICOM node beside other receivers: throughput and latency, idle and hostile peers, study to report, a soak.

Peers run in the same minutes on the same disk: Orthanc (syncs each file) and dcmtk's storescp --fork (syncs nothing),
each where it is installed. Objects are CT-like, 525 kB, all different. The senders share the cores with the receiver.
``--only`` runs some of the parts; ``--soak`` is a part of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.node_peers import Caller, Receiver, dcmtk, echo_s, free_port, make_objects, receiver, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
BARS = {1: ">= 200", 8: ">= 220", 32: ">= 280"}
PEERS = ("wetread", "orthanc", "storescp")
SYNCED = {"wetread": "file, folder and index synced", "orthanc": "file synced", "storescp": "nothing synced"}
ANSWER = """
import signal, sys, threading
from pathlib import Path
from wetread.cli.node import study_reader
from wetread.pacs.node import Node
from wetread.settings import NodeRemote, NodeRule, NodeSettings
folder, port, peer, heat = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "heat"
remote = NodeRemote(title="PEER", host="127.0.0.1", port=peer, results=("sr", "heat") if heat else ("sr",))
rule = NodeRule(name="films", reader="chest-pneumonia", to=("peer",), heat_maps=heat)
settings = NodeSettings(
    folder=folder, port=port, title="PEER", reserve_bytes=0, quiet_s=0, remotes={"peer": remote}, rules=(rule,))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before the threads that take it over
node = Node(settings, study_reader(), apart=True)
node.start()
signal.sigwait({signal.SIGTERM})
node.stop()
"""


def main() -> None:
    parser = arguments(__doc__, "results/node.csv")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=[one for one in PARTS if one != "soak"])
    parser.add_argument("--objects", type=int, default=800, help="objects of each run")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=3, help="runs of the node; peers have one")
    parser.add_argument("--openings", type=int, default=10_000, help="malformed openings")
    parser.add_argument("--studies", type=int, default=200, help="studies that are read and answered")
    parser.add_argument("--soak", type=int, default=50_000, metavar="N", help="associations of the part soak")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure [a temporary one]")
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=asked.work) as scratch:
        for part in asked.only:
            for figure in PARTS[part](Path(scratch), asked):
                figures.append(figure)
                print(figure.what, figure.value, figure.unit, figure.met, flush=True)
    write_figures(asked.out, figures)


# --- throughput


def throughput(folder: Path, asked: Namespace) -> Iterator[Figure]:
    """Objects per second by dcmtk's senders."""
    files = make_objects(folder / "objects", asked.objects)
    yield raw_disk(folder, files)
    for associations in asked.associations:
        for name in PEERS:
            rates = [
                rate
                for _ in range(asked.repeats if name == "wetread" else 1)
                if (rate := measure(name, folder, files, associations)) is not None
            ]
            if rates:
                protocol = f"{len(files)} CT-like objects of 525 kB by dcmtk storescu on loopback; {SYNCED[name]}"
                bar = BARS.get(associations, "") if name == "wetread" else ""
                what, median = f"{name}, {associations} associations", round(float(np.median(rates)), 1)
                low, high = round(min(rates), 1), round(max(rates), 1)
                yield Figure(what, median, "objects/s", protocol, len(rates), low, high, bar)
    shutil.rmtree(folder / "objects")


def raw_disk(folder: Path, files: Sequence[Path]) -> Figure:
    """What the disk itself gives: write and sync one object after the other, no network, no index."""
    data = files[0].read_bytes()
    began = time.perf_counter()
    for number in range(100):
        with (folder / f"raw{number}").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
    rate = 100 / (time.perf_counter() - began)
    for number in range(100):
        (folder / f"raw{number}").unlink()
    protocol = "write and fsync of the same size, one after the other, no network"
    return Figure("disk alone", round(rate, 1), "objects/s", protocol, n=100)


def measure(name: str, folder: Path, files: Sequence[Path], associations: int) -> float | None:
    """Objects per second of one receiver, or None where it is not installed."""
    with place(folder) as own, receiver(name, own) as running:
        if running is None:
            return None
        began = time.perf_counter()
        codes = send(files, running.port, associations)
        seconds = time.perf_counter() - began
    if any(codes) and name == "wetread":
        raise SystemExit(f"expected every sender to end with 0, got {codes}; look at the receiver")
    if any(codes):
        print(f"{name} did not take all objects: senders ended with {codes}; this run is not counted", flush=True)
        return None
    return len(files) / seconds


@contextmanager
def place(folder: Path) -> Iterator[Path]:
    """A folder for one run, which is removed."""
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def send(files: Sequence[Path], port: int, associations: int) -> list[int]:
    """Divide the files among as many senders; returns their exit codes."""
    storescu = dcmtk("storescu")
    if storescu is None:
        raise SystemExit("expected dcmtk's storescu, got none; install the package dcmtk")
    codes: list[int] = []

    def one(part: Sequence[Path]) -> None:
        words = [storescu, "-R", "-aec", "PEER", "127.0.0.1", str(port), *map(str, part)]
        codes.append(subprocess.run(words, capture_output=True, check=False).returncode)

    in_threads(one, [files[i::associations] for i in range(associations)])
    return codes


def in_threads(run: Callable[[Sequence[Path]], None], parts: Sequence[Sequence[Path]]) -> None:
    threads = [threading.Thread(target=run, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- latency


def latency(folder: Path, asked: Namespace) -> Iterator[Figure]:
    """How long a sender waits for the answer to one object."""
    files = make_objects(folder / "objects", asked.objects)
    objects = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): data_set(path) for path in files}
    for associations in asked.associations:
        for name in PEERS:
            with place(folder) as own, receiver(name, own) as running:
                if running is None:
                    continue
                waits = sorted(waited(running.port, list(objects.items()), associations))
                protocol = f"{len(waits)} objects of 525 kB, senders in threads of one Python; {SYNCED[name]}"
                for share in (50, 99):
                    value = 1e3 * waits[min(len(waits) - 1, len(waits) * share // 100)]
                    yield Figure(f"{name}, {associations} associations, p{share}", round(value, 1), "ms", protocol)
    shutil.rmtree(folder / "objects")


def data_set(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


def waited(port: int, objects: Sequence[tuple[str, bytes]], associations: int) -> list[float]:
    """Seconds for each object, from its first byte to its answer."""
    found: list[float] = []

    def one(part: Sequence[tuple[str, bytes]]) -> None:
        caller = Caller(port)
        for instance, data in part:
            began = time.perf_counter()
            require_taken(caller.store(instance, data))
            found.append(time.perf_counter() - began)
        caller.release()

    in_threads(one, [objects[i::associations] for i in range(associations)])  # type: ignore[arg-type, misc]
    return found


# --- peers that only wait, or mean harm


def idle(folder: Path, _: Namespace) -> Iterator[Figure]:
    """200 sockets that say nothing, 60 associations that do nothing."""
    for name in PEERS:
        for what, bars in (("200 idle sockets", True), ("60 idle associations", True)):
            with place(folder) as own, receiver(name, own) as running:
                if running is None:
                    continue
                before = running.resident_mib()
                held = list(hold(running, what))
                seconds = echo_s(running.port)
                grown = running.resident_mib() - before
                for connection in held:
                    connection.close()
            mine = bars and name == "wetread"
            protocol = f"{len(held)} held while one more caller asks (12 s: no answer); {name}"
            yield Figure(f"{name}, {what}: echo", round(seconds, 3), "s", protocol, bar="<= 1" if mine else "")
            grew = "resident memory, of forks too" if name == "storescp" else "resident memory"
            yield Figure(f"{name}, {what}: memory", round(grown, 1), "MiB", grew, bar="<= 50" if mine else "")


def hold(running: Receiver, what: str) -> Iterator[socket.socket]:
    """As many as are let in."""
    for _ in range(int(what.split()[0])):
        try:
            if "sockets" in what:
                yield socket.create_connection(("127.0.0.1", running.port), timeout=5)
            else:
                yield Caller(running.port, timeout_s=5).socket
        except OSError:
            return


def hostile(folder: Path, asked: Namespace) -> Iterator[Figure]:
    """A PDU of 4 GB, and openings of random bytes."""
    count = asked.openings
    for name in PEERS:
        with place(folder) as own, receiver(name, own) as running:
            if running is None:
                continue
            mine = name == "wetread"
            taken = taken_of_4_gb(running.port)
            protocol = "an A-ASSOCIATE-RQ that claims 4 GiB, sent until the receiver hangs up, at most 64 MiB"
            yield Figure(f"{name}, 4 GB PDU", round(taken, 3), "MB read", protocol, bar="<= 1" if mine else "")
            before, number = running.resident_mib(), count if mine else min(count, 300)
            chance = random.Random(4)  # noqa: S311 - a fixed sequence is wanted
            for _ in range(number):
                open_badly(running.port, chance)
            seconds = echo_s(running.port, 60)
            grown = running.resident_mib() - before
            protocol = f"after {number} openings of random bytes"
            yield Figure(f"{name}, bad openings: echo", round(seconds, 3), "s", protocol, bar="<= 1" if mine else "")
            bar = "<= 20" if mine else ""
            yield Figure(f"{name}, bad openings: memory", round(grown, 1), "MiB", protocol, bar=bar)


def taken_of_4_gb(port: int) -> float:
    """Megabytes that were taken beyond what socket buffers hold."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 0
        try:
            connection.sendall(struct.pack(">BBI", 1, 0, 0xFFFFFFFE))
            while sent < 64 << 20:
                sent += connection.send(bytes(65536))
                time.sleep(0.0005)
        except OSError:
            pass
    return sent / 1e6


def open_badly(port: int, chance: random.Random) -> None:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(chance.randbytes(chance.randrange(1, 300)))
    except OSError:
        return


# --- a study in, a report out


def back(folder: Path, asked: Namespace) -> Iterator[Figure]:
    """Studies of one film each: received, read, reported, and the report received by another node."""
    count = asked.studies
    films = list(make_films(folder / "films", count))
    for kind, bar in (("plain", ">= 20"), ("heat", ">= 8")):
        with place(folder) as own, receiver("wetread", own) as peer:
            if peer is None:
                continue
            rate = answered(folder, peer, films, kind)
        wanted = count * (2 if kind == "heat" else 1)
        name = "with heat maps" if kind == "heat" else "without heat maps"
        protocol = (
            f"{count} studies of one film of 512 x 512, reader chest-pneumonia, from the first byte sent until "
            f"{wanted} objects (SR{' and heat map' if kind == 'heat' else ''}) are acknowledged by a second node"
        )
        yield Figure(f"receive, read, report back, {name}", round(rate, 2), "studies/s", protocol, n=count, bar=bar)


def make_films(folder: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Phantoms that the reader takes, each under UIDs of its own: instance UID and data set."""
    from wetread.datasets.phantoms import PhantomSpec, render, write_dicom

    folder.mkdir()
    seeds = [
        pydicom.dcmread(write_dicom(render(PhantomSpec(seed=seed, age_years=4.0)), folder / f"{seed}.dcm"))
        for seed in (1, 2, 4)
    ]
    for number in range(count):
        data = seeds[number % len(seeds)]
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(data, keyword, generate_uid())
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        path = folder / "one.dcm"
        data.save_as(path, enforce_file_format=True)
        yield str(data.SOPInstanceUID), data_set(path)


def answered(folder: Path, peer: Receiver, films: Sequence[tuple[str, bytes]], kind: str) -> float:
    """Studies per second until all results are with the peer; one study before is not counted."""
    port, wanted = free_port(), len(films) * (2 if kind == "heat" else 1)
    extra = next(make_films(Path(tempfile.mkdtemp(dir=folder)) / "x", 1))
    with place(folder) as own:
        words = [sys.executable, "-c", ANSWER, str(own), str(port), str(peer.port), kind]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            caller = Caller(port, CR)
            require_taken(caller.store(*extra))
            first = wait_for_objects(peer, 2 if kind == "heat" else 1)
            began = time.perf_counter()
            for instance, data in films:
                require_taken(caller.store(instance, data))
            wait_for_objects(peer, first + wanted)
            seconds = time.perf_counter() - began
            caller.release()
        finally:
            process.terminate()
            process.wait(60)
    return len(films) / seconds


def require_taken(status: int) -> None:
    if status != 0:
        raise SystemExit(f"expected every object to be taken, got status {status:04X}; look at the receiver")


def wait_for_objects(peer: Receiver, wanted: int) -> int:
    deadline = time.monotonic() + 900
    with closing(sqlite3.connect(f"file:{peer.folder / 'index.db'}?mode=ro", uri=True)) as index:
        while time.monotonic() < deadline:
            ((found,),) = index.execute("SELECT count(*) FROM objects")
            if found >= wanted:
                return int(found)
            time.sleep(0.05)
    raise SystemExit(f"expected {wanted} results, got {found} in 900 s; look at the node")


# --- a soak


def soak(folder: Path, asked: Namespace) -> Iterator[Figure]:
    """Associations one after the other, each with one small object; memory must not grow."""
    count = asked.soak
    (path,) = make_objects(folder / "soak", 1, side=16)
    data, instance = data_set(path), str(pydicom.dcmread(path).SOPInstanceUID)
    points: list[tuple[int, float]] = []
    with place(folder) as own, receiver("wetread", own) as running:
        if running is None:
            return
        began = time.perf_counter()
        for number in range(count):
            caller = Caller(running.port)
            require_taken(caller.store(instance, data))  # after the first one: the same object again
            caller.release()
            if number % max(1, count // 200) == 0:
                points.append((number, running.resident_mib()))
        seconds = time.perf_counter() - began
    settled = [point for point in points if point[0] >= count // 5]
    numbers, sizes = np.array(settled, dtype=float).T
    slope = float(np.polyfit(numbers, sizes, 1)[0]) * 1000
    protocol = f"{count} associations one after the other, each with C-STORE; slope over the last four fifths"
    yield Figure("soak: memory", round(slope, 4), "MiB per 1,000 associations", protocol, n=count, bar="<= 1")
    yield Figure("soak: rate", round(count / seconds, 1), "associations/s", protocol, n=count)


PARTS: dict[str, Callable[[Path, Namespace], Iterator[Figure]]] = {
    "throughput": throughput,
    "latency": latency,
    "idle": idle,
    "hostile": hostile,
    "back": back,
    "soak": soak,
}

if __name__ == "__main__":
    main()
