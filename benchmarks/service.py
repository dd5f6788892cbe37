"""The service under load: studies uploaded by several clients at once while a worker reads, and a long worklist.

Starts ``wetread serve`` with its worker in a scratch folder and talks to it over HTTP, as programs do. Every study
is uploaded twice, by two clients: afterwards each must be there once, with one read of each image.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import func, insert, select

from benchmarks.common import Figure, arguments, write_figures
from wetread.service.accounts import Principal, add_user, make_token
from wetread.service.context import open_service
from wetread.service.tables import Job, Result, Study, StudyImage, User, new_id
from wetread.service.worklist import Filter, page
from wetread.settings import Settings, load_settings

FILM_PX = 512
WORKLIST = 100_000
SINGLE = 4
PORT = 18765


@dataclass
class Seen:
    """What the clients saw; ``seconds`` by kind of request."""

    studies: list[str] = field(default_factory=list)
    failures: int = 0
    uploads: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    parser = arguments(__doc__, "results/service.csv")
    parser.add_argument("--studies", type=int, default=200, help="studies, one film each (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once (default: %(default)s)")
    parser.add_argument("--limit-s", type=float, default=1200, help="longest wait for the reads (default: %(default)s)")
    parser.add_argument("--skip-load", action="store_true", help="only the worklist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = worklist(Path(folder) / "worklist")
        write_figures(options.out, figures)
        if not options.skip_load:
            figures += load(Path(folder) / "load", options)
    write_figures(options.out, figures)
    for figure in figures:
        print(f"{figure.what:52} {figure.value:9.2f} {figure.unit:9} {figure.bar:8} {figure.met}")


def worklist(root: Path) -> list[Figure]:
    """Pages of a long worklist, in this process: what the server computes."""
    service = open_service(load_settings({"service.root": root}))
    rng = random.Random(7)  # noqa: S311
    with service.database.write() as session:
        user = add_user(session, "bench", "admin", None)
        who = Principal(user.id, user.name, user.role, ("*",))
        for begin in range(0, WORKLIST, 5000):
            rows = [_study(rng, begin + number, user.id) for number in range(5000)]
            session.execute(insert(Study), rows)
    cases: dict[str, tuple[Filter, str]] = {
        "first page by urgency": (Filter(), ""),
        "filtered by status and modality": (Filter(status="read", modality="CR"), ""),
        "searched by a rare name": (Filter(q="name99999"), ""),
        "searched by a common word": (Filter(q="chest"), ""),
    }
    with service.database.read() as session:
        cases["a page in the middle"] = (Filter(), _middle(session))
    figures = []
    for what, (chosen, cursor) in cases.items():
        seconds = []
        for _ in range(7):
            begin_s = time.perf_counter()
            with service.database.read() as session:
                page(session, who, chosen, cursor, 50)
            seconds.append(time.perf_counter() - begin_s)
        figures.append(
            Figure(
                f"worklist of {WORKLIST}, {what}", 1e3 * statistics.median(seconds), "ms",
                "median of 7 pages of 50 with total, in process, SQLite, files in the disk cache", 7,
                1e3 * min(seconds), 1e3 * max(seconds), "<= 300",
            )
        )  # fmt: skip
    service.close()
    return figures


def _middle(session: Any) -> str:
    import base64
    import json

    row = session.execute(
        select(Study.urgency, Study.created, Study.id).order_by(Study.urgency.desc()).offset(WORKLIST // 2).limit(1)
    ).one()
    return base64.urlsafe_b64encode(json.dumps(list(row)).encode()).decode()


def _study(rng: random.Random, number: int, owner: str) -> dict[str, Any]:
    modality = rng.choice(["CR", "DX", "CT"])
    return {
        "id": new_id(), "key": f"k{number}", "owner_id": owner, "tray": "main", "modality": modality, "images": 1,
        "status": rng.choice(["read", "read", "read", "open"]), "urgency": round(rng.random(), 6),
        "search": f"patient{number} name{number} chest {modality.lower()}", "created": 1.7e9 + number,
    }  # fmt: skip


def load(root: Path, options: argparse.Namespace) -> list[Figure]:
    """Upload each study twice from several clients, look around meanwhile, wait for the reads, count."""
    settings = load_settings({"service.root": root, "service.requests_per_s": 10_000.0})
    secret = _token(settings)
    films = [_film(number) for number in range(options.studies)]
    seen = Seen()
    with _server(root), httpx.Client() as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        single = _single(client, _film(10**6))
        begin = time.perf_counter()
        _clients(options.clients, films, secret, seen)
        uploaded_s = time.perf_counter() - begin
        _wait(client, begin, options.limit_s)
        read_s = time.perf_counter() - begin
    return [*_times(seen, options, uploaded_s), single, *_counts(settings, options, seen, read_s)]


def _times(seen: Seen, options: argparse.Namespace, uploaded_s: float) -> list[Figure]:
    how = f"{options.clients} clients, {FILM_PX} px PNG films, each uploaded twice, worker reading meanwhile, loopback"
    figures = []
    for what, values in (("upload", seen.uploads), ("worklist page", seen.looks)):
        ordered = sorted(values)
        p95 = ordered[int(0.95 * (len(ordered) - 1))]
        figures.append(
            Figure(f"API p95, {what}, while reads run", 1e3 * p95, "ms", how, len(ordered),
                   1e3 * ordered[0], 1e3 * ordered[-1], "<= 150")
        )  # fmt: skip
    figures.append(Figure("uploads acknowledged", len(seen.uploads) / uploaded_s, "per s", how, len(seen.uploads)))
    return figures


def _counts(settings: Settings, options: argparse.Namespace, seen: Seen, read_s: float) -> list[Figure]:
    service = open_service(settings)
    with service.database.read() as session:
        studies = session.scalar(select(func.count()).select_from(Study)) or 0
        images = session.scalar(select(func.count()).select_from(StudyImage)) or 0
        results = session.scalar(select(func.count()).select_from(Result)) or 0
        ended = {state: count for state, count in session.execute(select(Job.state, func.count()).group_by(Job.state))}
        known = set(session.scalars(select(Study.id)))
    service.close()
    wanted = options.studies + SINGLE
    how = f"{options.studies} studies acknowledged twice each by {options.clients} clients; jobs {ended}"
    lost = len(set(seen.studies) - known) + max(0, wanted - results)
    return [
        Figure("lost (acknowledged, not there or not read)", lost, "studies", how, wanted, bar="<= 0"),
        Figure("duplicated (studies, images or reads too many)",
               max(0, studies - wanted) + max(0, images - wanted) + max(0, results - wanted), "rows", how, bar="<= 0"),
        Figure("requests that failed", seen.failures, "requests", how, 2 * wanted, bar="<= 0"),
        Figure("reads with heat maps, sustained", options.studies / read_s, "per s",
               "studies / time from the first upload to the last read, one worker", options.studies, bar=">= 8"),
    ]  # fmt: skip


def _single(client: httpx.Client, film: bytes) -> Figure:
    """Upload to read with nothing else to do; the second of two, the first one loads the reader."""
    seconds = []
    for number in range(SINGLE):
        begin = time.perf_counter()
        other = film if number == 0 else _film(10**6 + number)
        _upload(client, other)
        # The worklist, not the study: each look at a study is a line of the audit log, which waits for the disk.
        while client.get(f"{_url()}/api/v1/studies", params={"status": "open", "limit": 1}).json()["total"]:
            time.sleep(0.02)
        seconds.append(time.perf_counter() - begin)
    how = "median of 3 after a first one that loads the reader; nothing else asked of the service"
    warm = seconds[1:]
    return Figure("upload to read, low load", statistics.median(warm), "s", how, 3, min(warm), max(warm), "<= 2")


def _acknowledged(seen: Seen, client: httpx.Client, film: bytes) -> None:
    seen.studies.append(_upload(client, film))


def _clients(count: int, films: list[bytes], secret: str, seen: Seen) -> None:
    order = [*range(len(films))] * 2
    random.Random(1).shuffle(order)  # noqa: S311
    shares = [order[number::count] for number in range(count)]

    def run(share: list[int]) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
            for number in share:
                _timed(seen, seen.uploads, partial(_acknowledged, seen, client, films[number]))
                _timed(seen, seen.looks, lambda: client.get(f"{_url()}/api/v1/studies").raise_for_status())

    threads = [threading.Thread(target=run, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _timed(seen: Seen, into: list[float], act: Callable[[], object]) -> None:
    begin = time.perf_counter()
    try:
        act()
    except httpx.HTTPError:
        with seen.lock:
            seen.failures += 1
        return
    with seen.lock:
        into.append(time.perf_counter() - begin)


def _upload(client: httpx.Client, film: bytes) -> str:
    answer = client.post(f"{_url()}/api/v1/uploads", files={"files": ("film", film)})
    answer.raise_for_status()
    return str(answer.json()["studies"][0]["id"])


def _wait(client: httpx.Client, begin: float, limit_s: float) -> None:
    while time.perf_counter() - begin < limit_s:
        if client.get(f"{_url()}/api/v1/studies", params={"status": "open", "limit": 1}).json()["total"] == 0:
            return
        time.sleep(0.2)


@contextmanager
def _server(root: Path) -> Iterator[None]:
    program = Path(sys.executable).with_name("wetread")
    environment = {**os.environ, "WETREAD_SERVICE__REQUESTS_PER_S": "10000"}
    process = subprocess.Popen(
        [program, "serve", "--root", root, "--port", str(PORT)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{_url()}/healthz", timeout=1)  # noqa: S310
                break
            except OSError:
                time.sleep(0.25)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _token(settings: Settings) -> str:
    service = open_service(settings)
    with service.database.write() as session:
        user: User = add_user(session, "bench", "admin", None)
        _, secret = make_token(session, user, "bench", ["read", "write"], 86400)
    service.close()
    return secret


def _film(seed: int) -> bytes:
    """A smooth grey picture: the gate may refuse it, which costs the same but for the heat map."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8))
    target = io.BytesIO()
    small.resize((FILM_PX, FILM_PX), Image.Resampling.BICUBIC).save(target, "PNG", compress_level=1)
    return target.getvalue()


def _url() -> str:
    return f"http://127.0.0.1:{PORT}"


if __name__ == "__main__":
    main()
