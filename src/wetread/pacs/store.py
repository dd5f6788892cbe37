"""Where received objects are kept, and when an object may be acknowledged.

Decided here: the order of B4, which nothing may change. An object is streamed into ``incoming/`` without
being parsed, its header is checked, its bytes are synced, it is renamed into ``objects/``, the directory is
synced, its row is committed, and only then does :meth:`ObjectStore.keep` return. File names are hashes: no
name that a peer chose ever reaches the file system.

Same instance UID and same bytes: nothing is written. Same UID and other bytes: both are kept, as versions.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from wetread.errors import UsageError, WetreadError, expected
from wetread.pacs.header import ObjectHeader
from wetread.pacs.ledger import Change, Ledger, sync_directory

__all__ = ["DiskReserve", "Incoming", "ObjectStore", "Outcome", "Part", "StoredObject", "data_digest"]

Outcome = Literal["stored", "same", "other kept", "other refused"]

_PER_FOLDER = 4096
_CHECK_EVERY_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_IMPLEMENTATION_CLASS = "2.25.302498158263105127352217409413517420921"
_COLUMNS = "id, sop_instance, sop_class, transfer_syntax, digest, bytes, offset, path, " + (
    "study, series, modality, version, sender"
)
_PATH = 7
"""Of the columns, the place of the path, which is relative to the folder."""


class DiskReserve(WetreadError):
    """The disk is down to its reserve."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is known of an object before its first byte, from command set and association."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    sender: str
    called: str
    address: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One row of the index; the data set begins at ``offset`` of ``path``, ``sender`` is who sent it first."""

    id: int
    sop_instance: str
    sop_class: str
    transfer_syntax: str
    digest: str
    bytes: int
    offset: int
    path: Path
    study: str
    series: str
    modality: str
    version: int
    sender: str = ""


class Part:
    """An object on its way in: a file in ``incoming/`` that nobody was told of."""

    def __init__(self, path: Path, incoming: Incoming, room: Callable[[], bool]) -> None:
        self.path = path
        self.incoming = incoming
        self.bytes = 0
        self._room = room
        self._next_check = _CHECK_EVERY_BYTES
        self._digest = hashlib.sha256(incoming.transfer_syntax.encode("ascii") + b"\0")
        head = _file_head(incoming)
        self.offset = len(head)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(self._handle, memoryview(head))
        except BaseException:
            self.discard()
            raise

    @property
    def digest(self) -> str:
        """sha256 of transfer syntax and data set."""
        return self._digest.hexdigest()

    def write(self, data: memoryview) -> None:
        """Append bytes of the data set.

        Raises:
            DiskReserve: the disk is down to its reserve.
            OSError: it could not be written.
        """
        self.bytes += len(data)
        if self.bytes >= self._next_check:
            self._next_check += _CHECK_EVERY_BYTES
            if not self._room():
                raise DiskReserve(expected("room for the object", "a disk down to its reserve", "free some space"))
        self._digest.update(data)
        _write_all(self._handle, data)

    def sync(self) -> None:
        """Put the bytes on the disk and close the file; nothing to do the second time.

        A failed sync is final: the kernel has dropped the pages that it could not write.
        """
        if self._handle >= 0:
            os.fsync(self._handle)
            self._close()

    def discard(self) -> None:
        """Remove the file; never fails."""
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with contextlib.suppress(OSError):
                os.close(handle)


class ObjectStore:
    """Objects below ``folder`` and their rows in the ledger.

    ``shared`` is for looking beside a node that runs; without it the folder is locked and tidied up after a crash.

    Raises:
        UsageError: another node has the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        reserve_bytes: int = 1 << 30,
        on_other: Literal["warn", "refuse"] = "warn",
        step: Callable[[str], None] = lambda _name: None,
        shared: bool = False,
    ) -> None:
        self.folder = folder
        self._reserve_bytes = reserve_bytes
        self._on_other = on_other
        self.step = step
        for name in ("incoming", "objects", "quarantine"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = None if shared else _locked(folder)
        self.ledger = Ledger(folder / "index.db", step)
        self._shard, self._in_shard = 0, _PER_FOLDER
        if not shared:
            self._recover()

    def has_room(self) -> bool:
        """Whether the disk has more than its reserve."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize > self._reserve_bytes

    def begin(self, incoming: Incoming) -> Part:
        """Open a part for one object.

        Raises:
            DiskReserve: the disk is down to its reserve.
            OSError: no file could be opened.
        """
        if not self.has_room():
            raise DiskReserve(expected("room for an object", "a disk down to its reserve", "free some space"))
        part = Part(self.folder / "incoming" / f"{secrets.token_hex(16)}.part", incoming, self.has_room)
        self.step("opened")
        return part

    def keep(self, part: Part, header: ObjectHeader) -> Outcome:
        """Make ``part`` durable and known; when this returns, it may be acknowledged.

        Raises:
            OSError: a sync or a rename failed; nothing is left of it.
            WetreadError: the row could not be committed; nothing is left of it.
        """
        try:
            self.step("written")
            if self._same(part) is None:
                part.sync()
                self.step("synced")
            return self.ledger.write(lambda change: self._place(change, part, header))
        finally:
            part.discard()

    def versions(self, sop_instance: str) -> list[StoredObject]:
        """All versions of an instance that were not refused, oldest first."""
        return self._rows("sop_instance = ? AND state = 'stored' ORDER BY id", sop_instance)

    def study(self, study: str) -> list[StoredObject]:
        """The latest version of every instance of a study, in order of arrival."""
        latest = {row.sop_instance: row for row in self._rows("study = ? AND state = 'stored' ORDER BY id", study)}
        return sorted(latest.values(), key=lambda row: row.id)

    def close(self) -> None:
        """Commit what waits and close the index."""
        self.ledger.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _rows(self, where: str, value: str) -> list[StoredObject]:
        rows = self.ledger.read(f"SELECT {_COLUMNS} FROM objects WHERE {where}", (value,))  # noqa: S608 - fixed words
        return [
            StoredObject(*(self.folder / value if at == _PATH else value for at, value in enumerate(row)))
            for row in rows
        ]

    def _same(self, part: Part) -> str | None:
        """The state of what is already kept of the very same bytes, if its file is still there."""
        found = self.ledger.read(
            "SELECT state, path, bytes, offset FROM objects WHERE sop_instance = ? AND digest = ?",
            (part.incoming.sop_instance, part.digest),
        )
        return str(found[0][0]) if found and self._is_whole(*found[0][1:]) else None

    def _is_whole(self, path: str, size: int, offset: int) -> bool:
        try:
            return (self.folder / path).stat().st_size == size + offset
        except OSError:
            return False

    def _place(self, change: Change, part: Part, header: ObjectHeader) -> Outcome:
        """In the writer thread: decide, rename, insert. The caller is told after sync and commit."""
        known, digest = part.incoming, part.digest
        rows = change.execute(
            "SELECT digest, state, path, bytes, offset FROM objects WHERE sop_instance = ?", (known.sop_instance,)
        ).fetchall()
        same = [row for row in rows if row[0] == digest]
        if same and self._is_whole(*same[0][2:]):
            return "same" if same[0][1] == "stored" else "other refused"
        if same:  # the row outlived its file: the new bytes take its place
            change.execute("DELETE FROM objects WHERE sop_instance = ? AND digest = ?", (known.sop_instance, digest))
            change.event("object replaced", sop_instance=known.sop_instance, digest=digest)
        others = [row for row in rows if row[0] != digest]
        refused = bool(others) and self._on_other == "refuse"
        part.sync()
        path = self._rename(change, part)
        self._insert(change, part, header, (path, "refused" if refused else "stored", len(others) + 1))
        if others:
            kept = {"sop_instance": known.sop_instance, "digest": digest, "sender": known.sender}
            change.event("other bytes refused" if refused else "other bytes kept", version=len(others) + 1, **kept)
        if not others:
            return "stored"
        return "other refused" if refused else "other kept"

    def _rename(self, change: Change, part: Part) -> str:
        if self._in_shard >= _PER_FOLDER:
            self._shard, self._in_shard = self._shard + 1, 0
            (self.folder / "objects" / f"{self._shard:06d}").mkdir(exist_ok=True, mode=0o700)
            sync_directory(self.folder / "objects")
        name = hashlib.sha256(f"{part.incoming.sop_instance}\0{part.digest}".encode()).hexdigest()
        path = f"objects/{self._shard:06d}/{name}.dcm"
        target = self.folder / path
        part.path.rename(target)
        change.undo.append(lambda: target.unlink(missing_ok=True))
        change.sync(target.parent)
        self._in_shard += 1
        self.step("renamed")
        return path

    def _insert(self, change: Change, part: Part, header: ObjectHeader, placed: tuple[str, str, int]) -> None:
        known, (path, state, version) = part.incoming, placed
        now = datetime.now(UTC)
        values = (
            *(known.sop_instance, part.digest, known.sop_class, known.transfer_syntax, part.bytes, part.offset),
            *(path, state, version, header.study, header.series, header.modality, header.body_part),
            *(header.study_description, header.series_description, header.age_years),
            *(known.sender, known.address, now.isoformat(timespec="milliseconds")),
        )
        marks = ", ".join("?" * len(values))
        change.execute(f"INSERT INTO objects VALUES (NULL, {marks})", values)  # noqa: S608 - question marks only
        if state == "stored":
            change.execute(
                "INSERT INTO studies (study, sender, called, last_arrival, arrivals) VALUES (?, ?, ?, ?, 1) "
                "ON CONFLICT (study) DO UPDATE SET last_arrival = excluded.last_arrival, arrivals = arrivals + 1, "
                "sender = excluded.sender, called = excluded.called, tries = 0",
                (header.study, known.sender, known.called, now.timestamp()),
            )

    def _recover(self) -> None:
        """After a crash: partial files go, whole ones without a row go to quarantine, rows without a file are told."""
        parts = list((self.folder / "incoming").glob("*.part"))
        known = {path: (size, offset) for path, size, offset in self._paths()}
        found = {file.relative_to(self.folder).as_posix() for file in (self.folder / "objects").glob("*/*.dcm")}
        shards = [int(path.name) for path in (self.folder / "objects").iterdir() if path.name.isdigit()]
        self._shard = max(shards, default=0)
        self._in_shard = (
            sum(path.startswith(f"objects/{self._shard:06d}/") for path in found) if shards else _PER_FOLDER
        )
        orphans = sorted(found - known.keys())
        for part in parts:
            part.unlink(missing_ok=True)
        for path in orphans:
            (self.folder / path).rename(self.folder / "quarantine" / Path(path).name)
        missing = [path for path, place in known.items() if not self._is_whole(path, *place)]
        if parts or orphans or missing:
            counts = {"partial_removed": len(parts), "quarantined": len(orphans), "missing": len(missing)}
            self.ledger.write(lambda change: change.event("recovered", **counts))

    def _paths(self) -> Iterator[tuple[str, int, int]]:
        yield from ((row[0], row[1], row[2]) for row in self.ledger.read("SELECT path, bytes, offset FROM objects"))


def data_digest(stored: StoredObject) -> str | None:
    """Hash the bytes on the disk again, as :class:`Part` did; None where they cannot be read."""
    digest = hashlib.sha256(stored.transfer_syntax.encode("ascii") + b"\0")
    try:
        with stored.path.open("rb") as file:
            file.seek(stored.offset)
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _locked(folder: Path) -> int:
    """A handle that holds the folder until it is closed, also by a crash."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        cure = "stop the other or choose another folder"
        raise UsageError(expected("a folder of this node alone", f"{folder}, where another runs", cure)) from None
    return handle


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _file_head(incoming: Incoming) -> bytes:
    """Preamble of zeros (a peer's could hide a program), prefix and file meta information (PS3.10 7.1)."""
    values: list[tuple[int, bytes, bytes]] = [
        (0x0002, b"UI", incoming.sop_class.encode("ascii")),
        (0x0003, b"UI", incoming.sop_instance.encode("ascii")),
        (0x0010, b"UI", incoming.transfer_syntax.encode("ascii")),
        (0x0012, b"UI", _IMPLEMENTATION_CLASS.encode("ascii")),
        (0x0013, b"SH", b"WETREAD"),
        (0x0016, b"AE", incoming.sender.encode("ascii", "replace")),
    ]
    body = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1"
    for element, kind, value in values:
        padded = value + (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
        body += struct.pack("<HH2sH", 2, element, kind, len(padded)) + padded
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
