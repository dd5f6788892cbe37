"""A browser on a running service, for tests and benchmarks of the workstation."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

__all__ = ["NO_CHROMIUM", "LoggedIn", "Served", "browser", "chromium", "log_in", "serve", "wait_for"]

NO_CHROMIUM = "no browser: apt-get install chromium"
_PROGRAM = [sys.executable, "-c", "from wetread.cli.main import main; main()"]
# Software rendering, no sandbox for root, nothing that calls home.
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """Where the browser is."""
    return shutil.which("chromium")


@dataclass(frozen=True)
class Served:
    """A running service: its address, and the one that it printed, which logs in once."""

    base: str
    login: str


@dataclass(frozen=True)
class LoggedIn:
    """A browser that opened the printed address, and a client of the API with a token that it made there."""

    base: str
    context: BrowserContext
    api: httpx.Client

    def read_all(self, limit_s: float = 400) -> list[dict[str, Any]]:
        """Wait until nothing is being read; return the worklist."""

        def settled() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self.api.get("/api/v1/studies").json()["studies"]
            return found if found and all(one["status"] != "open" for one in found) else []

        return list(wait_for(settled, limit_s))


def wait_for(what: Callable[[], Any], limit_s: float) -> Any:
    """Look until something is there."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if found := what():
                return found
        time.sleep(0.1)
    raise TimeoutError("nothing came")


@contextlib.contextmanager
def serve(root: Path, settings: Mapping[str, str], *flags: str) -> Iterator[Served]:
    """Run ``wetread serve`` on a free port with its worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*_PROGRAM, "serve", "--root", root, "--port", str(port), *flags],
        env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        served = Served(f"http://127.0.0.1:{port}", process.stdout.readline().strip())
        wait_for(lambda: httpx.get(f"{served.base}/healthz").status_code == 200, 60)
        yield served
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium; the loop that drives it ends with the block, so that it disturbs no other test."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=_FLAGS)
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def log_in(opened: Browser, served: Served, **options: Any) -> Iterator[LoggedIn]:
    """Open the printed address; ``options`` are those of a context of the browser."""
    context = opened.new_context(base_url=served.base, **options)
    page = context.new_page()
    page.goto(served.login)
    csrf = context.request.get("/api/v1/session").json()["csrf"]
    body = {"name": "test", "scopes": ["read", "write", "admin"], "days": 1}
    made = context.request.post("/api/v1/tokens", data=body, headers={"X-CSRF-Token": csrf})
    page.close()
    headers = {"Authorization": f"Bearer {made.json()['secret']}"}
    with httpx.Client(base_url=served.base, headers=headers, timeout=60) as api:
        yield LoggedIn(served.base, context, api)
    context.close()
