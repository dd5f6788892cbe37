"""How a node stands, as seen from another process: whether it listens, what it has received, what is left to do.

Decided here: the index is opened for reading only and the listener is tried as any sender would, so that a look
neither needs the node's help nor disturbs it.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from dataclasses import dataclass

from wetread.provenance import atomic_file
from wetread.settings import NodeSettings

__all__ = ["Standing", "forget_port", "note_port", "standing_of"]

_PORT_FILE = "port"
_CONNECT_S = 2.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to look, not where to listen
_COUNTS = (
    "SELECT coalesce((SELECT max(id) FROM objects), 0), "
    "(SELECT count(*) FROM studies WHERE arrivals > done), "
    "(SELECT count(*) FROM jobs WHERE state = 'waiting'), "
    "(SELECT count(*) FROM jobs WHERE state = 'dead')"
)


@dataclass(frozen=True)
class Standing:
    """``received``: objects ever kept; ``due``: studies to read; ``waiting``, ``dead``: results to send, given up."""

    listening: bool
    received: int = 0
    due: int = 0
    waiting: int = 0
    dead: int = 0


def standing_of(settings: NodeSettings) -> Standing:
    """Look at the node that runs with ``settings``; without one, at what it left."""
    listening = _listens(settings)
    index = settings.folder.resolve() / "index.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return Standing(listening, *connection.execute(_COUNTS).fetchone())
    except sqlite3.Error:  # there is none yet
        return Standing(listening)


def note_port(settings: NodeSettings, port: int) -> None:
    """Write down where the node listens, which the settings may leave open."""
    with atomic_file(settings.folder / _PORT_FILE) as part:
        part.write_text(str(port))


def forget_port(settings: NodeSettings) -> None:
    """The node listens no more."""
    (settings.folder / _PORT_FILE).unlink(missing_ok=True)


def _listens(settings: NodeSettings) -> bool:
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    try:
        port = int((settings.folder / _PORT_FILE).read_text())
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, ValueError):
        return False
    return True
