"""The whole service as processes: serve with its worker, upload, wait for the read, kill the worker, go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.service.test_api import film
from wetread.errors import WetreadError
from wetread.service.server import Address, listen

PROGRAM = [sys.executable, "-c", "from wetread.cli.main import main; main()"]


def wait_for(what: Callable[[], Any], limit_s: float = 240) -> Any:
    """Look until something is there."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if found := what():
                return found
        time.sleep(0.2)
    raise TimeoutError("nothing came")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WETREAD_SERVICE__LEASE_S": "5"}
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--root", tmp_path / "service", "--port", str(port)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    found = re.fullmatch(rf"http://127\.0\.0\.1:{port}/login\?token=\S+", address)
    assert found, address
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        wait_for(lambda: client.get("/healthz").status_code == 200)
        assert client.get(address).status_code == 303
        client.headers["X-CSRF-Token"] = client.get("/api/v1/session").json()["csrf"]
        yield client, process.pid
    process.send_signal(signal.SIGINT)
    process.wait(30)
    process.stdout.close()


def test_an_upload_is_read_also_when_workers_are_killed(served: tuple[httpx.Client, int]) -> None:
    client, server = served

    def upload(seed: int) -> str:
        answer = client.post("/api/v1/uploads", files={"files": ("x", film(seed, 256))})
        assert answer.status_code == 201
        return str(answer.json()["studies"][0]["id"])

    def ended(study: str) -> bool:
        return bool(client.get(f"/api/v1/studies/{study}").json()["status"] == "read")

    first = upload(1)
    wait_for(lambda: ended(first))
    others = [upload(seed) for seed in range(2, 8)]
    (worker,) = psutil.Process(server).children()
    assert worker.nice() > psutil.Process(server).nice()  # a page goes before a read
    worker.kill()
    wait_for(lambda: all(ended(study) for study in others))
    for study in (first, *others):
        (image,) = client.get(f"/api/v1/studies/{study}").json()["image_list"]
        assert len([one for one in image["results"] if one["kind"] == "read"]) == 1
    assert client.get("/api/v1/audit-log/check").json()["broken"] is None


async def _delay_of_an_accepted_connection(listener: socket.socket) -> int:
    """TCP_NODELAY of a connection as asyncio, and so the web server, accepts it."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(connected, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        delay = await found
        writer.close()
    return delay


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    assert asyncio.run(_delay_of_an_accepted_connection(listen(Address(port=0)))) != 0


def test_a_port_that_is_taken_is_named() -> None:
    with contextlib.closing(listen(Address(port=0))) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(WetreadError, match=rf"expected a free port, got {port} \(.*in use.*; choose another"):
            listen(Address(port=port))
