"""The node under faults: killed at every step and at random, power lost, a disk that is full or fails, no file handles.

After each fault the store is opened again: every object that a sender saw acknowledged (0000) must be there with the
bytes that were sent, no file may lie in ``objects/`` without a row, and none in ``incoming/``.

Loss of power is simulated, as a kill leaves the page cache alone: the receiver notes what it has synced (the content
of a file at its fsync, the names of a folder at its fsync, the index after each commit, which SQLite syncs with
``synchronous=FULL``), and what it had not is thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.node_peers import Caller, echo_s, free_port, make_objects, wait_for
from wetread.pacs.store import ObjectStore, data_digest

__all__ = ["Tally", "after_power_loss", "one_disk_fault", "one_kill"]

STEPS = ("opened", "written", "synced", "renamed", "directory", "indexed", "answered")
FAULTS = ("ENOSPC write", "EIO fsync", "EIO rename", "EMFILE open")
_START = """
import errno, json, os, random, shutil, signal, sys
from pathlib import Path
from wetread.pacs.association import Limits, Policy
from wetread.pacs.server import StorageServer
from wetread.pacs.store import ObjectStore
folder, port = Path(sys.argv[1]), int(sys.argv[2])
"""
_SERVE = """
store = ObjectStore(folder, reserve_bytes=0, step=step)
server = StorageServer(store, Policy("PEER"), Limits(handshake_s=60, pdu_s=120), port=port)
server.start()
signal.pause()
"""
KILLED = f"""{_START}
at, after, seen = sys.argv[3], int(sys.argv[4]), 0
def step(name):
    global seen
    if name == at or at == "random":
        seen += 1
        if seen >= after:
            os.kill(os.getpid(), signal.SIGKILL)
{_SERVE}"""
POWERED = f"""{_START}
shadow, after, seen = Path(sys.argv[3]), int(sys.argv[4]), 0
(shadow / "files").mkdir(parents=True)
sync = os.fsync
def noting(handle):
    sync(handle)
    path = Path(os.readlink(f"/proc/self/fd/{{handle}}"))
    if path.is_dir():
        names = {{entry.name: entry.inode() for entry in os.scandir(path)}}
        note(f"{{path.relative_to(folder).as_posix().replace('/', '+')}}.names", json.dumps(names).encode())
    else:
        shutil.copyfile(f"/proc/self/fd/{{handle}}", shadow / "files" / str(os.fstat(handle).st_ino))
def note(name, data):
    (shadow / (name + "~")).write_bytes(data)
    (shadow / (name + "~")).rename(shadow / name)
def step(name):
    global seen
    if name == "indexed":
        parts = [(folder / f"index.db{{end}}").read_bytes() for end in ("", "-wal")]
        note("index", len(parts[0]).to_bytes(8, "big") + parts[0] + parts[1])
    seen += 1
    if seen >= after:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = noting
{_SERVE}"""
BROKEN = f"""{_START}
fault, name = sys.argv[3].split()
number, real, chance, broken = getattr(errno, fault), getattr(os, name), random.Random(1), Path(sys.argv[4])
def failing(*given, **named):
    mine = name != "open" or ".part" in str(given[0])
    if mine and broken.exists() and chance.random() < 0.5:
        raise OSError(number, os.strerror(number))
    return real(*given, **named)
def step(name):
    pass
setattr(os, name, failing)
{_SERVE}"""


@dataclass
class Tally:
    """What was promised and what was found. ``refused``: objects that were answered with A700."""

    faults: int = 0
    acknowledged: int = 0
    refused: int = 0
    lost: int = 0
    unreadable: int = 0
    partial: int = 0
    deaf: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def main() -> None:
    parser = arguments(__doc__, "results/node_faults.csv")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--kills", type=int, default=104)
    parser.add_argument("--objects", type=int, default=400, help="objects offered before each kill")
    parser.add_argument("--cuts", type=int, default=25, help="losses of power")
    parser.add_argument("--senders", type=int, default=6)
    parser.add_argument("--side", type=int, default=64, help="pixels of a side of an object")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder on the disk to use [a temporary one]")
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=asked.work) as scratch:
        files = make_objects(Path(scratch) / "objects", asked.objects, asked.side)
        objects = [(str(pydicom.dcmread(path).SOPInstanceUID), data_set(path)) for path in files]
        for part in asked.only:
            figures += PARTS[part](Path(scratch), objects, asked)
    write_figures(asked.out, figures)


def data_set(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


Objects = Sequence[tuple[str, bytes]]


def kills(folder: Path, objects: Objects, asked: Namespace) -> Iterator[Figure]:
    tally, chance = Tally(), random.Random(asked.seed)  # noqa: S311 - a fixed sequence is wanted
    for number in range(asked.kills):
        at = (*STEPS, "random")[number % (len(STEPS) + 1)]
        most = len(objects) * (len(STEPS) if at == "random" else 1)
        grouped = at in ("directory", "indexed")  # one for all objects that wait
        after = chance.randint(most // 12 + 1, most // 6 + 1) if grouped else chance.randint(most // 2, most)
        one_kill(folder / f"kill{number}", objects, (at, after, asked.senders), tally)
        print("kill", number + 1, at, tally, flush=True)
    protocol = f"{tally.faults} kills of the receiver at named steps and at random, {asked.senders} senders at once"
    yield from rows("kill -9", tally, protocol, least=20_000)


def power(folder: Path, objects: Objects, asked: Namespace) -> Iterator[Figure]:
    tally, chance = Tally(), random.Random(asked.seed)  # noqa: S311 - a fixed sequence is wanted
    for number in range(asked.cuts):
        after = chance.randint(len(objects) * 2, len(objects) * 5)
        one_cut(folder / f"cut{number}", objects, (after, asked.senders), tally)
        print("power", number + 1, tally, flush=True)
    protocol = f"{tally.faults} losses of power, simulated: what was not synced is thrown away; {asked.senders} senders"
    yield from rows("loss of power", tally, protocol, least=5_000)


def disk(folder: Path, objects: Objects, asked: Namespace) -> Iterator[Figure]:
    tally = Tally()
    for number, fault in enumerate(FAULTS):
        one_disk_fault(folder / f"disk{number}", objects, (fault, asked.senders), tally)
        print("disk", fault, tally, flush=True)
    protocol = f"{', '.join(FAULTS)} in half of the calls, then no more; {asked.senders} senders, one store each"
    yield from rows("disk", tally, protocol)
    yield Figure("disk: refused while it failed", tally.refused, "objects", protocol, n=len(FAULTS), bar=">= 1")
    yield Figure("disk: receivers that did not recover", tally.deaf, "receivers", protocol, n=len(FAULTS), bar="<= 0")


PARTS: dict[str, Callable[[Path, Objects, Namespace], Iterator[Figure]]] = {"kill": kills, "power": power, "disk": disk}


def rows(name: str, tally: Tally, protocol: str, least: int = 0) -> Iterator[Figure]:
    bar = f">= {least}" if least else ""
    yield Figure(f"{name}: acknowledged", tally.acknowledged, "objects", protocol, n=tally.faults, bar=bar)
    for kind in ("lost", "unreadable", "partial"):
        yield Figure(f"{name}: {kind}", getattr(tally, kind), "objects", protocol, n=tally.faults, bar="<= 0")


def one_kill(folder: Path, objects: Objects, how: tuple[str, int, int], tally: Tally) -> None:
    """``how``: the step, how often it is passed before the kill, and the number of senders."""
    at, after, senders = how
    process, port = started(KILLED, folder, at, str(after))
    acknowledged = send_all(objects, port, senders, tally)
    ended(process)
    check(folder, acknowledged, tally)
    shutil.rmtree(folder)


def one_cut(folder: Path, objects: Objects, how: tuple[int, int], tally: Tally) -> None:
    """``how``: how many steps are passed before power is lost, and the number of senders."""
    after, senders = how
    shadow, left = folder.with_name(f"{folder.name}-shadow"), folder.with_name(f"{folder.name}-left")
    process, port = started(POWERED, folder, str(shadow), str(after))
    acknowledged = send_all(objects, port, senders, tally)
    ended(process)
    after_power_loss(shadow, left)
    check(left, acknowledged, tally, partial=False)
    for one in (folder, shadow, left):
        shutil.rmtree(one)


def after_power_loss(shadow: Path, left: Path) -> None:
    """Put together what a disk would hold: synced names, each with what was synced of its file."""
    names: dict[str, dict[str, int]] = {}
    for path in shadow.glob("*.names"):
        names[path.name.removesuffix(".names").replace("+", "/")] = json.loads(path.read_text())
    left.mkdir()
    for shard in names.get("objects", {}):
        (left / "objects" / shard).mkdir(parents=True)
        for name, inode in names.get(f"objects/{shard}", {}).items():
            synced = shadow / "files" / str(inode)
            (left / "objects" / shard / name).write_bytes(synced.read_bytes() if synced.exists() else b"")
    if (shadow / "index").exists():
        raw = (shadow / "index").read_bytes()
        size = int.from_bytes(raw[:8], "big")
        (left / "index.db").write_bytes(raw[8 : 8 + size])
        (left / "index.db-wal").write_bytes(raw[8 + size :])


def one_disk_fault(folder: Path, objects: Objects, how: tuple[str, int], tally: Tally) -> None:
    """``how``: the fault and the number of senders. The receiver must serve again once the fault is over."""
    fault, senders = how
    switch = folder.with_name(f"{folder.name}-broken")
    switch.touch()
    process, port = started(BROKEN, folder, fault, str(switch))
    half = len(objects) // 2
    acknowledged = send_all(objects[:half], port, senders, tally)
    switch.unlink()
    before = tally.refused
    acknowledged |= send_all(objects[half:], port, senders, tally)
    tally.deaf += tally.refused != before or len(acknowledged) < len(objects) - half or echo_s(port, 60) >= 60
    left = list((folder / "incoming").iterdir())
    tally.partial += len(left)
    ended(process)
    check(folder, acknowledged, tally)
    shutil.rmtree(folder)


def started(script: str, folder: Path, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(port), *words], stderr=subprocess.DEVNULL
    )
    wait_for(port)
    return process, port


def ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def send_all(objects: Objects, port: int, senders: int, tally: Tally) -> set[str]:
    """Send until all are sent or the receiver dies; returns what was acknowledged."""
    acknowledged: set[str] = set()

    def one(part: Objects) -> None:
        with contextlib.suppress(OSError), contextlib.closing(Caller(port)) as caller:
            for instance, data in part:
                status = caller.store(instance, data)
                with tally.lock:
                    tally.refused += status == 0xA700
                    acknowledged.update([instance] if status == 0 else [])
            caller.release()

    threads = [threading.Thread(target=one, args=(objects[i::senders],)) for i in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return acknowledged


def check(folder: Path, acknowledged: set[str], tally: Tally, *, partial: bool = True) -> None:
    """Open the store again and look for everything that was acknowledged."""
    store = ObjectStore(folder, reserve_bytes=0)
    for instance in acknowledged:
        versions = store.versions(instance)
        tally.lost += not versions
        tally.unreadable += any(data_digest(one) != one.digest for one in versions)
    known = store.ledger.read("SELECT count(*) FROM objects")[0][0]
    visible = len(list((folder / "objects").rglob("*.dcm")))
    tally.partial += max(0, visible - known) + (len(list((folder / "incoming").iterdir())) if partial else 0)
    store.close()
    tally.faults += 1
    tally.acknowledged += len(acknowledged)


if __name__ == "__main__":
    main()
