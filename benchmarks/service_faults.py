"""The service under faults: workers and servers killed while they work, a locked database, a full disk, half uploads.

After each fault everything that a client saw acknowledged must be there, whole, and read exactly once, without anybody
mending anything. Workers are forked from a process that has torch loaded, so that a hundred kills take minutes and
not hours; from there on they are the workers of ``wetread worker``. The tests run the same with a few kills.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import func, select

from benchmarks.common import Figure, arguments, write_figures
from wetread.service import audit_log
from wetread.service.accounts import add_user, make_token
from wetread.service.context import Service, open_service
from wetread.service.tables import AuditEntry, Blob, Job, Result, Study, StudyImage
from wetread.settings import Settings, load_settings

__all__ = [
    "Site",
    "Tally",
    "disk_full",
    "half_uploads",
    "kill_servers",
    "kill_workers",
    "locked",
    "open_site",
    "share_work",
]

_SIDE_PX = 96
_LONGEST_WAIT_S = 600.0
_NURSERY = """
import os, signal, sys
from wetread.service.context import open_service
from wetread.service.tasks import Models
from wetread.service.worker import Worker, work
from wetread.settings import load_settings
import wetread.reading.read, wetread.models.predict
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            work(Worker(open_service(load_settings())))
        finally:
            os._exit(1)
    print(child, flush=True)
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    def reap():
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return
"""


@dataclass
class Site:
    """One installation under fault. ``acknowledged``: study -> sha256 of its one film."""

    root: Path
    settings: Settings
    port: int
    secret: str
    rng: random.Random
    server: subprocess.Popen[bytes] | None = None
    nursery: subprocess.Popen[str] | None = None
    acknowledged: dict[str, str] = field(default_factory=dict)
    films: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        chosen = self.settings.service
        told = {
            "ROOT": str(chosen.root), "DATABASE_URL": chosen.database_url, "LEASE_S": str(chosen.lease_s),
            "ATTEMPTS": str(chosen.attempts), "BATCH": str(chosen.batch), "REQUESTS_PER_S": "10000",
        }  # fmt: skip
        return {**os.environ, "OMP_NUM_THREADS": "1", **{f"WETREAD_SERVICE__{name}": it for name, it in told.items()}}

    def start_server(self) -> float:
        """Start the server without a worker; return the seconds until it answers."""
        begin = time.monotonic()
        program = [sys.executable, "-c", "from wetread.cli.main import main; main()"]
        self.server = subprocess.Popen(
            [*program, "serve", "--no-worker", "--port", str(self.port)],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with self.client() as client:
            wait_for(lambda: client.get("/healthz").status_code == 200)
        return time.monotonic() - begin

    def kill_server(self) -> None:
        """End the server without a word."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def start_worker(self) -> int:
        """Start a worker; return its process number."""
        if self.nursery is None:
            self.nursery = subprocess.Popen(
                [sys.executable, "-c", _NURSERY], env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        told, heard = _pipes(self.nursery)
        told.write("one\n")
        told.flush()
        return int(heard.readline())

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.secret}"}, timeout=60)

    def upload(self, client: httpx.Client, film: bytes | None = None) -> int:
        """Upload a film, a new one unless given; remember what was acknowledged; return the status."""
        data = self.next_film() if film is None else film
        answer = client.post("/api/v1/uploads", files={"files": ("film", data)})
        if answer.status_code == 201:
            with self.lock:
                self.acknowledged[str(answer.json()["studies"][0]["id"])] = hashlib.sha256(data).hexdigest()
        return answer.status_code

    def next_film(self) -> bytes:
        """A film of noise that nobody has seen yet."""
        with self.lock:
            self.films += 1
            number = self.films
        noise = np.random.default_rng(number).integers(0, 255, (_SIDE_PX, _SIDE_PX), dtype=np.uint8)
        target = io.BytesIO()
        Image.fromarray(noise).save(target, "PNG", compress_level=1)
        return target.getvalue()

    def open(self) -> Service:
        return open_service(self.settings)

    def close(self) -> None:
        self.kill_server()
        if self.nursery is not None:
            told, heard = _pipes(self.nursery)
            self.nursery.kill()
            self.nursery.wait()
            told.close()
            heard.close()


@dataclass(frozen=True)
class Tally:
    """What is left. ``lost``: acknowledged, but not there, damaged or not read; ``twice``: reads too many."""

    acknowledged: int
    lost: int
    twice: int
    dead: int
    chain_broken: bool
    unnamed: int
    """Stored files that no row names: of uploads that were never acknowledged."""


@contextlib.contextmanager
def open_site(root: Path, database_url: str = "", seed: int = 1) -> Iterator[Site]:
    """An installation with one user; processes that are left are ended."""
    flags = {
        "service.root": root, "service.database_url": database_url, "service.lease_s": 1.0,
        # Here it is the worker that dies, not the image that kills it: nothing may reach the dead letters.
        "service.attempts": 100, "service.batch": 4,
    }  # fmt: skip
    settings = load_settings(flags)
    service = open_service(settings)
    with service.database.write() as session:
        user = add_user(session, "bench", "admin", None)
        _, secret = make_token(session, user, "bench", ["read", "write"], 86400)
    service.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = Site(root, settings, port, secret, random.Random(seed))  # noqa: S311
    try:
        yield site
    finally:
        site.close()


def kill_workers(site: Site, kills: int) -> list[float]:
    """Kill -9 a worker at a random moment of its work, again and again; return the seconds to recover at the end."""
    with site.client() as client, contextlib.closing(site.open()) as service:
        for _ in range(kills):
            for _ in range(6):
                if site.upload(client) != 201:
                    raise RuntimeError("the server refused an upload while workers were killed")
            worker = site.start_worker()
            wait_for(lambda: _jobs(service, "running") > 0)
            time.sleep(site.rng.uniform(0.0, 1.0))
            os.kill(worker, signal.SIGKILL)
        return [_recover(site, service)]


def kill_servers(site: Site, kills: int) -> list[float]:
    """Kill -9 the server while two clients upload; return the seconds until it answers again, then recover."""
    stop, back = threading.Event(), []

    def send() -> None:
        film = site.next_film()
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError), site.client() as client:
                # What was not acknowledged is sent again, as a client would.
                while not stop.is_set() and site.upload(client, film) == 201:
                    film = site.next_film()
            time.sleep(0.05)

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    for _ in range(kills):
        before = len(site.acknowledged)
        wait_for(lambda before=before: len(site.acknowledged) > before)  # type: ignore[misc]
        time.sleep(site.rng.uniform(0.0, 0.5))
        site.kill_server()
        back.append(site.start_server())
    stop.set()
    for sender in senders:
        sender.join()
    with contextlib.closing(site.open()) as service:
        _recover(site, service)
    return back


def share_work(site: Site, workers: int, films: int) -> float:
    """Let several workers read at once, kill one of them in the middle; return the seconds until all is read."""
    with site.client() as client, contextlib.closing(site.open()) as service:
        started = [site.start_worker() for _ in range(workers)]
        for _ in range(films):
            site.upload(client)
        begin = time.monotonic()
        wait_for(lambda: _jobs(service, "running") > 0)
        os.kill(started[0], signal.SIGKILL)
        wait_for(lambda: _jobs(service, "queued") + _jobs(service, "running") == 0)
        for worker in started[1:]:
            os.kill(worker, signal.SIGKILL)
        return time.monotonic() - begin


def locked(site: Site, hold_s: float) -> tuple[float, int]:
    """Hold the lock of the database while a client uploads; return the seconds it waited and the status it got."""
    raw = sqlite3.connect(site.root / "wetread.db", isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    release = threading.Timer(hold_s, lambda: None)
    release.start()
    found: list[int] = []
    with site.client() as client:
        sender = threading.Thread(target=lambda: found.append(site.upload(client)))
        sender.start()
        release.join()
        raw.execute("ROLLBACK")
        raw.close()
        sender.join()
    return time.monotonic() - begin, found[0]


def half_uploads(site: Site, count: int) -> int:
    """Break off uploads at random places; return how many files they left in quarantine five seconds later.

    What a killed server left there is not counted: that goes after six hours.
    """
    folder = site.root / "quarantine"
    before = set(folder.iterdir())
    film = site.next_film()
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    body = head + film + b"\r\n--b--\r\n"
    request = (
        f"POST /api/v1/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.secret}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", site.port)) as peer:
            peer.sendall(request + body[: site.rng.randrange(1, len(body) - 1)])
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: set(folder.iterdir()) <= before, 5.0)
    return len(set(folder.iterdir()) - before)


def disk_full(site: Site, leave_bytes: int) -> tuple[set[int], int]:
    """Fill the disk of the site, upload until it is refused, make room, upload again.

    Returns the statuses while it was full, and the one afterwards. The root must be a small disk of its own.
    """
    filler = site.root / "filler"
    with site.client() as client, filler.open("wb") as stream:
        room = os.statvfs(site.root)
        with contextlib.suppress(OSError):
            for _ in range(max(0, room.f_bavail * room.f_frsize - leave_bytes) // 4096):
                stream.write(b"\0" * 4096)
            stream.flush()
        statuses: set[int] = set()
        for _ in range(200):
            statuses.add(site.upload(client))
            if statuses - {201}:
                break
        statuses |= {site.upload(client) for _ in range(3)}
    filler.unlink()
    with site.client() as client:
        return statuses, site.upload(client)


def tally(site: Site) -> Tally:
    """Look at what is left, through the database and on the disk."""
    with contextlib.closing(site.open()) as service, service.database.read() as session:
        lost = 0
        for study, sha256 in site.acknowledged.items():
            images = session.scalars(select(StudyImage).where(StudyImage.study_id == study)).all()
            reads = select(func.count()).select_from(Result).join(StudyImage).where(StudyImage.study_id == study)
            whole = [one.sha256 for one in images] == [sha256] and not service.blobs.damaged(sha256)
            lost += not (whole and session.scalar(reads))
        done = session.execute(
            select(func.count()).where(AuditEntry.action == "read done").group_by(AuditEntry.object)
        ).scalars()
        results = session.scalar(select(func.count()).select_from(Result)) or 0
        named = set(session.scalars(select(Blob.sha256)))
        files = {path.name for path in (site.root / "blobs").rglob("*") if path.is_file()}
        return Tally(
            acknowledged=len(site.acknowledged),
            lost=lost + len(named - files),
            twice=sum(count - 1 for count in done) + max(0, results - len(set(session.scalars(select(Study.id))))),
            dead=_jobs(service, "dead"),
            chain_broken=audit_log.verify(session).broken is not None,
            unnamed=len(files - named),
        )


def wait_for(what: Callable[[], object], limit_s: float = _LONGEST_WAIT_S) -> None:
    """Look until something is true.

    Raises:
        TimeoutError: it did not become true.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if what():
                return
        time.sleep(0.05)
    raise TimeoutError("nothing came")


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Input and output of a process that was started with both."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("expected a process with pipes")
    return process.stdin, process.stdout


def _recover(site: Site, service: Service) -> float:
    """Seconds that one worker needs, untouched, until nothing is left to do."""
    begin = time.monotonic()
    worker = site.start_worker()
    wait_for(lambda: _jobs(service, "queued") + _jobs(service, "running") == 0)
    os.kill(worker, signal.SIGKILL)
    return time.monotonic() - begin


def _jobs(service: Service, state: str) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.state == state)) or 0


def main() -> None:
    parser = arguments(__doc__, "results/service_faults.csv")
    parser.add_argument("--worker-kills", type=int, default=100)
    parser.add_argument("--server-kills", type=int, default=20)
    parser.add_argument("--halves", type=int, default=200, help="uploads that are broken off")
    parser.add_argument("--hold-s", type=float, default=10.0, help="how long the database is locked")
    parser.add_argument("--small-disk", type=Path, help="folder on a disk of a few MiB, e.g. a tmpfs; else left out")
    parser.add_argument("--database-url", default="", help="PostgreSQL for the kills, an empty database")
    asked = parser.parse_args()
    figures: list[Figure] = []
    kind = "PostgreSQL" if asked.database_url else "SQLite"
    with tempfile.TemporaryDirectory() as folder, open_site(Path(folder) / "kills", asked.database_url) as site:
        site.start_server()
        recovered = kill_workers(site, asked.worker_kills)
        how = f"{kind}; SIGKILL of a worker up to 1 s after it took a job, 6 new films before each"
        figures += _counts(f"after {asked.worker_kills} killed workers", how, tally(site))
        figures.append(Figure("until all is read after the last kill", recovered[0], "s", how))
        how = f"{kind}; three workers, 60 films, one worker killed in the middle"
        figures.append(Figure("three workers read 60 films", share_work(site, 3, 60), "s", how))
        figures += _counts("after three workers shared", how, tally(site))
        before = len(site.acknowledged)
        back = kill_servers(site, asked.server_kills)
        how = f"{kind}; SIGKILL of the server while two clients upload and try again; {before} films were there before"
        figures += _counts(f"after {asked.server_kills} killed servers", how, tally(site))
        figures.append(Figure("server answers again, longest", max(back), "s", how, len(back)))
        how = f"{asked.halves} connections cut at a random byte of the upload; looked at 5 s later"
        figures.append(Figure("files of half uploads left", half_uploads(site, asked.halves), "files", how, bar="<= 0"))
        write_figures(asked.out, figures)
        if not asked.database_url:
            waited, status = locked(site, asked.hold_s)
            how = f"another process holds the lock for {asked.hold_s:g} s; the upload waits and is answered {status}"
            figures.append(Figure("upload while the database is locked", waited, "s", how))
    if asked.small_disk:
        figures += _full(asked.small_disk)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:9.2f} {figure.unit:9} {figure.bar:8} {figure.met}")


def _full(folder: Path) -> list[Figure]:
    with open_site(folder / "full") as site:
        site.start_server()
        statuses, after = disk_full(site, 1 << 20)
        with contextlib.closing(site.open()) as service:
            _recover(site, service)
        found = tally(site)
    how = f"uploads until refused ({sorted(statuses)}), then room again: answered {after} without a restart"
    return _counts("after a full disk", how, found)


def _counts(when: str, how: str, found: Tally) -> list[Figure]:
    n = found.acknowledged
    return [
        Figure(f"lost {when}", found.lost, "films", how, n, bar="<= 0"),
        Figure(f"read twice {when}", found.twice, "reads", how, n, bar="<= 0"),
        Figure(f"dead letters {when}", found.dead, "jobs", how, n, bar="<= 0"),
        Figure(f"audit log broken {when}", float(found.chain_broken), "yes = 1", how, n, bar="<= 0"),
        Figure(f"stored files without a row {when}", found.unnamed, "files", how, n),
    ]


if __name__ == "__main__":
    main()
