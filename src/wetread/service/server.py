"""``wetread serve``: the web server, its worker beside it, and what must be true before either starts.

Decided here: an address that others reach needs TLS or an explicit word; the first start makes an admin whose log-in
is a one-time token in the printed address; the worker is a process of its own, because networks would keep the
server from answering.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from wetread.errors import UsageError, WetreadError, expected
from wetread.service import audit_log, jobs
from wetread.service.accounts import add_user, make_login_token
from wetread.service.audit_log import Actor
from wetread.service.companion import Companion
from wetread.service.context import Service
from wetread.service.tables import User
from wetread.settings import Settings

__all__ = [
    "LOGIN_LASTS_S",
    "Address",
    "EmbeddedWorker",
    "check_address",
    "listen",
    "login_address",
    "run_server",
    "stop_with_parent",
    "yield_to_server",
]

LOGIN_LASTS_S = 3600.0
_COMMAND_LINE = Actor("command line")
_NICENESS = 10


@dataclass(frozen=True)
class Address:
    """Where the service listens. ``certificate`` and ``key``: PEM files for TLS, both or none."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificate is not None

    @property
    def url(self) -> str:
        """What a person types on this machine."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{shown}:{self.port}"


def check_address(address: Address, insecure_bind: bool) -> None:
    """Refuse an address that would send patient data in the clear.

    Raises:
        UsageError: another machine can reach it, without TLS and without ``insecure_bind``; half of a TLS pair; a
            file of it that is not there.
    """
    if (address.certificate is None) != (address.key is None):
        raise UsageError(expected("--tls-certificate and --tls-key together", "one of them", "give both"))
    for file in (address.certificate, address.key):
        if file is not None and not file.is_file():
            raise UsageError(expected("a PEM file", f"no file {file.name}", "check the path"))
    if not (_is_loopback(address.host) or address.secure or insecure_bind):
        cure = "give --tls-certificate and --tls-key, or --insecure-bind behind a proxy that speaks TLS"
        raise UsageError(expected("TLS for an address that others reach", f"--host {address.host} without", cure))


def login_address(service: Service, address: Address) -> str:
    """The address with a one-time token that logs in an admin; the first start makes the user ``admin``."""
    with service.database.write() as session:
        chosen = select(User).where(User.role == "admin", User.disabled.is_(False)).order_by(User.created).limit(1)
        user = session.scalars(chosen).one_or_none()
        if user is None:
            user = add_user(session, "admin", "admin", None)
            audit_log.append(session, _COMMAND_LINE, "add user", user.id, {"role": "admin"})
        token = make_login_token(session, user, LOGIN_LASTS_S)
        audit_log.append(session, _COMMAND_LINE, "make one-time token", user.id)
    return f"{address.url}/login?token={token}"


def run_server(service: Service, address: Address) -> None:
    """Serve until interrupted.

    Raises:
        WetreadError: the port is taken.
    """
    import uvicorn

    from wetread.service.app import build_app
    from wetread.service.web import log_as_json

    with contextlib.closing(listen(address)) as listener:
        log_as_json()
        configuration = uvicorn.Config(
            build_app(service),
            log_level="warning",
            access_log=False,  # ours knows requests by their route, uvicorn's by their address
            server_header=False,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(configuration).run([listener])


def listen(address: Address) -> socket.socket:
    """Bind a socket to the address.

    Raises:
        WetreadError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sends without delay only where a socket names its protocol; else each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        got = f"{address.port} ({os.strerror(error.errno or 0)})"
        raise WetreadError(expected("a free port", got, "choose another with --port")) from None
    return listener


class EmbeddedWorker(Companion):
    """A worker process beside the server."""

    def __init__(self, service: Service, settings: Settings) -> None:
        super().__init__("worker", settings)
        self._service = service
        self._owner = ""

    def words(self) -> list[str]:
        """A name of its own for each process, under which it holds jobs."""
        self._owner = f"embedded:{os.getpid()}:{time.monotonic_ns():x}"
        return ["worker", "--with-parent", "--owner", self._owner]

    def ended(self) -> None:
        """End its leases: nobody has to wait for them."""
        with contextlib.suppress(WetreadError), self._service.database.write() as session:
            jobs.release(session, self._owner)


def stop_with_parent(stop: threading.Event) -> None:
    """Set ``stop`` when the input of this process ends, which is when its parent is gone."""

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.buffer.read(1):
                pass
        stop.set()

    threading.Thread(target=wait, daemon=True, name="wetread-parent").start()


def yield_to_server() -> None:
    """Let the server of this machine have the processor first: a person waits for a page, a read takes seconds."""
    with contextlib.suppress(AttributeError, OSError):  # no such call on Windows; forbidden in some containers
        os.nice(_NICENESS)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
