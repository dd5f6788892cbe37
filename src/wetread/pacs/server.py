"""The listener: who gets a thread, who is turned away, and what happens to those that only wait.

Decided here: a connection that has not asked for an association within seconds is closed, and where one
address holds too many of them the oldest goes, so that a flood of silent sockets never keeps a real sender out.
The same holds for associations: at the limit the one that has been idle longest gives way. Beyond loopback the
node needs TLS or the word of its operator.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
from pathlib import Path

from wetread.errors import UsageError, expected
from wetread.pacs.association import Answerer, Association, Limits, Policy
from wetread.pacs.store import ObjectStore

__all__ = ["StorageServer", "server_tls"]

_LOG = logging.getLogger("wetread.pacs")
_BACKLOG = 256
_STOP_WAIT_S = 10.0
_MOMENT_S, _BURST = 1.0, 4
_OUT_OF_FILES_PAUSE_S = 0.05


class StorageServer:
    """Serves the store on ``(host, port)``; port 0 takes a free one.

    Raises:
        UsageError: a host beyond loopback without TLS, unless ``open_network``; or the port is taken.
    """

    def __init__(
        self,
        store: ObjectStore,
        policy: Policy,
        limits: Limits | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        open_network: bool = False,
    ) -> None:
        if not (_is_loopback(host) or tls or open_network):
            cure = "give a certificate (node.tls_certificate) or set node.open_network"
            raise UsageError(expected("TLS for a node that others can reach", f"none on {host}", cure))
        self._store, self._policy, self._tls = store, policy, tls
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._live: dict[Association, threading.Thread] = {}
        self._stopping = threading.Event()
        self.answerer: Answerer | None = None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except OSError as error:
            self._listener.close()
            cure = "choose another with --port"
            raise UsageError(expected(f"a free port on {host}", f"{port}: {error.strerror}", cure)) from None
        self._listener.listen(_BACKLOG)
        self._thread = threading.Thread(target=self._accept, name="dicom listener", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._live)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more, let objects under way arrive, close what is idle."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        end = time.monotonic() + _STOP_WAIT_S
        while time.monotonic() < end and self.connections:
            for association in self._snapshot():
                if association.state != "busy":
                    _shut(association.connection)
            time.sleep(0.02)
        for association in self._snapshot():
            _shut(association.connection)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError:  # out of file handles, or closed by stop()
                self._evict([one for one in self._snapshot() if one.state == "opening"])
                self._stopping.wait(_OUT_OF_FILES_PAUSE_S)
                continue
            self._take(connection, str(address[0]))

    def _take(self, connection: socket.socket, address: str) -> None:
        opening = [one for one in self._snapshot() if one.state == "opening" and one.address == address]
        if len(opening) >= self._limits.half_open_per_address:
            # A sender with many associations opens them all at once: those get a moment to say who they are.
            before = time.monotonic() - _MOMENT_S
            crowd = len(opening) >= _BURST * self._limits.half_open_per_address
            self._evict(opening if crowd else [one for one in opening if one.since < before])
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = Association(connection, address, self._store, self._policy, self._limits)
        thread = threading.Thread(target=self._serve, args=(association,), name="association", daemon=True)
        with self._lock:
            self._live[association] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._forget(association)

    def _serve(self, association: Association) -> None:
        try:
            if self._tls is not None:
                association.connection.settimeout(self._limits.handshake_s)
                association.connection = self._tls.wrap_socket(association.connection, server_side=True)
            association.serve(lambda: self._admit(association), self.answerer)
        except OSError as error:  # a handshake that failed
            _LOG.warning("no TLS with %s: %s", association.address, type(error).__name__)
        finally:
            self._forget(association)
            self._store.ledger.forget_thread()

    def _admit(self, newcomer: Association) -> bool:
        """Whether there is room for one more; the longest idle one makes room if need be."""
        open_ = [one for one in self._snapshot() if one.state != "opening" and one is not newcomer]
        same = [one for one in open_ if one.address == newcomer.address]
        for group, limit in ((same, self._limits.per_address), (open_, self._limits.associations)):
            if len(group) >= limit:
                before = time.monotonic() - self._limits.evictable_s
                return self._evict([one for one in group if one.state == "idle" and one.since < before])
        return True

    def _evict(self, candidates: list[Association]) -> bool:
        if not candidates:
            return False
        oldest = min(candidates, key=lambda one: one.since)
        with self._lock:
            self._live.pop(oldest, None)
        _shut(oldest.connection)
        return True

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._live.pop(association, None)
        _shut(association.connection)
        association.connection.close()

    def _snapshot(self) -> list[Association]:
        with self._lock:
            return list(self._live)


def server_tls(certificate: Path, key: Path, clients: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later (PS3.15 B.12); with ``clients``, only peers whose certificate it signed.

    Raises:
        UsageError: a file is missing or is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        got = f"{type(error).__name__} at {certificate}"
        raise UsageError(expected("a certificate and its key in PEM", got, "check the files")) from None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
