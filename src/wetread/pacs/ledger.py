"""The node's database: what was received, what is due, what was done. One writer, group commit.

Decided here: every change goes through one thread, which takes all waiting ones into one transaction. The
directories they touched are synced first, then SQLite commits (WAL, synchronous=FULL), and only then does any
caller go on: durable for the price of two or three syncs however many associations wait. A change that fails is
rolled back alone; if the commit fails, all are, and what they did to files is undone.

The table of events is a hash chain: a row that was changed, moved or removed breaks it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from wetread.errors import WetreadError, expected

__all__ = ["Change", "Ledger", "sync_directory"]

T = TypeVar("T")
Row = tuple[Any, ...]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  id INTEGER PRIMARY KEY, sop_instance TEXT NOT NULL, digest TEXT NOT NULL, sop_class TEXT NOT NULL,
  transfer_syntax TEXT NOT NULL, bytes INTEGER NOT NULL, offset INTEGER NOT NULL, path TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL, version INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, modality TEXT NOT NULL,
  body_part TEXT NOT NULL, study_description TEXT NOT NULL, series_description TEXT NOT NULL, age_years REAL,
  sender TEXT NOT NULL, address TEXT NOT NULL, received TEXT NOT NULL, UNIQUE (sop_instance, digest));
CREATE INDEX IF NOT EXISTS objects_by_study ON objects (study);
CREATE TABLE IF NOT EXISTS studies (
  study TEXT PRIMARY KEY, sender TEXT NOT NULL, called TEXT NOT NULL, last_arrival REAL NOT NULL,
  arrivals INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, error TEXT);
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, target TEXT NOT NULL, payload TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting', tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (state, next_at);
CREATE TABLE IF NOT EXISTS workitems (
  uid TEXT PRIMARY KEY, remote TEXT NOT NULL, study TEXT NOT NULL, source TEXT NOT NULL, label TEXT NOT NULL,
  lock TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, chain TEXT NOT NULL);
"""

_MOST_AT_ONCE = 256
_STOP_WAIT_S = 30


class Change:
    """What a change may do: run SQL, name directories to sync, record events, say how to undo."""

    def __init__(self, connection: sqlite3.Connection, directories: set[Path]) -> None:
        self._connection = connection
        self._directories = directories
        self.undo: list[Callable[[], None]] = []

    def execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement inside the transaction."""
        return self._connection.execute(sql, values)

    def sync(self, directory: Path) -> None:
        """Have ``directory`` synced before the commit."""
        self._directories.add(directory)

    def event(self, kind: str, **detail: object) -> None:
        """Append to the chained log. ``detail``: UIDs, titles, counts; never names of patients."""
        last = self.execute("SELECT number, chain FROM events ORDER BY number DESC LIMIT 1").fetchone() or (0, "")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps(detail, sort_keys=True)
        chain = _chain(last[1], last[0] + 1, at, kind, text)
        self.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (last[0] + 1, at, kind, text, chain))


class Ledger:
    """The database at ``path`` and its writer thread.

    ``step`` is called with ``directory`` and ``indexed`` where a crash would matter; tests crash there.
    """

    def __init__(self, path: Path, step: Callable[[str], None] = lambda _name: None) -> None:
        self.path = path
        self._step = step
        self._waiting: queue.SimpleQueue[tuple[Callable[[Change], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._connection = self._open()
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.executescript(_SCHEMA)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def write(self, change: Callable[[Change], T]) -> T:
        """Run ``change`` in the next transaction; return when it is on the disk.

        Raises:
            WetreadError: the commit failed (disk full, I/O error); nothing was changed.
            Exception: what ``change`` itself raised; nothing of it was kept.
        """
        if self._closed:
            raise WetreadError(expected("an open node", "one that is stopping", "send it again later"))
        future: Future[T] = Future()
        self._waiting.put((change, future))
        return future.result()

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Rows of a query, on a connection of this thread."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open()
        return list(connection.execute(sql, values))

    def forget_thread(self) -> None:
        """Close this thread's connection for reading."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def verify_events(self) -> int | None:
        """The number of the first event that breaks the chain, None where it is whole."""
        before, expected_number = "", 1
        for number, at, kind, detail, chain in self.read("SELECT * FROM events ORDER BY number"):
            if number != expected_number or chain != _chain(before, number, at, kind, detail):
                return int(expected_number)
            before, expected_number = chain, number + 1
        return None

    def close(self) -> None:
        """Commit what waits and stop."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._thread.join(_STOP_WAIT_S)
        self.forget_thread()
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._waiting.get()]
            while len(batch) < _MOST_AT_ONCE:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stopping = None in batch
            if waiting := [item for item in batch if item is not None]:
                self._commit(waiting)

    def _commit(self, batch: list[tuple[Callable[[Change], Any], Future[Any]]]) -> None:
        directories: set[Path] = set()
        done: list[tuple[Future[Any], Any]] = []
        undo: list[Callable[[], None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for change, future in batch:
                self._one(change, future, (directories, done, undo))
            for directory in directories:
                sync_directory(directory)
            self._step("directory")
            self._connection.execute("COMMIT")
        except Exception as error:  # SQLite, the disk or anything else: nobody may be left waiting
            self._roll_back(undo)
            failure = WetreadError(expected("to record a change", type(error).__name__, "free some space"))
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
            return
        self._step("indexed")
        for future, result in done:
            future.set_result(result)

    def _one(
        self,
        run: Callable[[Change], Any],
        future: Future[Any],
        gathered: tuple[set[Path], list[tuple[Future[Any], Any]], list[Callable[[], None]]],
    ) -> None:
        directories, done, undo = gathered
        change = Change(self._connection, directories)
        self._connection.execute("SAVEPOINT one")
        try:
            result = run(change)
        except Exception as error:  # whatever it is belongs to the caller that waits for it
            for step in reversed(change.undo):
                with contextlib.suppress(OSError):
                    step()
            self._connection.execute("ROLLBACK TO one")
            self._connection.execute("RELEASE one")
            future.set_exception(error)
            return
        self._connection.execute("RELEASE one")
        done.append((future, result))
        undo.extend(change.undo)

    def _roll_back(self, undo: list[Callable[[], None]]) -> None:
        for step in reversed(undo):
            with contextlib.suppress(OSError):
                step()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` survive a power loss."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _chain(before: str, number: int, at: str, kind: str, detail: str) -> str:
    return hashlib.sha256("\n".join((before, str(number), at, kind, detail)).encode()).hexdigest()
