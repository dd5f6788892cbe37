"""Long form of the durability tests: kill -9 at every step and at random while several senders are at work.

After each kill the store is opened again: every object that a sender saw acknowledged (0000) must be there with the
bytes that were sent, no file may lie in objects/ without a row, and none in incoming/.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.node import free_port, make_objects, wait_for
from wetread.pacs.store import ObjectStore, data_digest

STEPS = ("opened", "written", "synced", "renamed", "directory", "indexed", "answered")
SERVE = """
import os, random, signal, sys
from pathlib import Path
from wetread.pacs.association import Policy
from wetread.pacs.server import StorageServer
from wetread.pacs.store import ObjectStore
folder, port, at, after = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
seen = 0
def step(name):
    global seen
    if name == at or at == "random":
        seen += 1
        if seen >= after:
            os.kill(os.getpid(), signal.SIGKILL)
store = ObjectStore(folder, reserve_bytes=0, step=step)
server = StorageServer(store, Policy("PEER"), port=port)
server.start()
signal.pause()
"""


@dataclass
class Tally:
    """What was promised and what was found."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    unreadable: int = 0
    partial: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    parser = arguments(__doc__, "results/node_faults.csv")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--objects", type=int, default=240, help="objects offered before each kill")
    parser.add_argument("--senders", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    tally, chance = Tally(), random.Random(asked.seed)  # noqa: S311 - a fixed sequence is wanted
    with tempfile.TemporaryDirectory() as scratch:
        files = make_objects(Path(scratch) / "objects", asked.objects)
        for number in range(asked.kills):
            at = STEPS[number % (len(STEPS) + 1)] if number % (len(STEPS) + 1) < len(STEPS) else "random"
            most = asked.objects * (len(STEPS) if at == "random" else 1)
            after = chance.randint(most // 2, most)
            one_kill(Path(scratch) / f"store{number}", files, (at, after, asked.senders), tally)
            print(number + 1, at, tally.acknowledged, tally.lost, tally.unreadable, tally.partial, flush=True)
    protocol = f"{tally.kills} kills of the receiver, {asked.senders} pynetdicom senders, at named steps and at random"
    rows = (("acknowledged", ""), ("lost", "<= 0"), ("unreadable", "<= 0"), ("partial", "<= 0"))
    figures = [
        Figure(f"kill -9: {name}", getattr(tally, name), "objects", protocol, n=tally.kills, bar=bar)
        for name, bar in rows
    ]
    write_figures(asked.out, figures)


def one_kill(folder: Path, files: list[Path], how: tuple[str, int, int], tally: Tally) -> None:
    at, after, senders = how
    port = free_port()
    words = [sys.executable, "-c", SERVE, str(folder), str(port), at, str(after)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    wait_for(port)
    acknowledged: dict[str, Path] = {}
    threads = [
        threading.Thread(target=send, args=(files[i::senders], port, acknowledged, tally)) for i in range(senders)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = ObjectStore(folder, reserve_bytes=0)
    for instance in acknowledged:
        versions = store.versions(instance)
        tally.lost += not versions
        tally.unreadable += any(data_digest(one) != one.digest for one in versions)
    rows = store.ledger.read("SELECT count(*) FROM objects")[0][0]
    visible = len(list((folder / "objects").rglob("*.dcm")))
    tally.partial += abs(visible - rows) + len(list((folder / "incoming").iterdir()))
    store.close()
    tally.kills += 1
    tally.acknowledged += len(acknowledged)


def send(files: list[Path], port: int, acknowledged: dict[str, Path], tally: Tally) -> None:
    """Send until the receiver dies; remember what it acknowledged."""
    from pydicom import dcmread
    from pynetdicom import AE

    entity = AE()
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="PEER")
    for path in files:
        if not association.is_established:
            return
        data = dcmread(path)
        try:
            status = association.send_c_store(data)
        except RuntimeError:
            return
        if "Status" in status and status.Status == 0:
            with tally.lock:
                acknowledged[str(data.SOPInstanceUID)] = path
    association.abort()


if __name__ == "__main__":
    main()
