"""Backup and restore: all tables and all files that they name, in one TAR file that either database can take in.

Decided here: tables are written as lines of JSON from one transaction, so that a running service can be backed up,
and restored into SQLite or PostgreSQL alike; log-ins, sessions and one-time tokens stay out; a restore goes into an
empty installation only, checks every file against its hash, and the chain of the audit log at the end.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from wetread.errors import InputRefused, WetreadError, expected
from wetread.provenance import atomic_file
from wetread.service import audit_log
from wetread.service.audit_log import Actor
from wetread.service.blobs import BlobStore
from wetread.service.database import Database, revision
from wetread.service.tables import Base, Blob, User

__all__ = ["Summary", "back_up", "restore"]

_LEFT_OUT = ("sessions", "login_tokens")
_HEAD = "backup.json"
_CHUNK = 2000
_ACTOR = Actor("command line")


@dataclass(frozen=True)
class Summary:
    """What a backup holds. ``missing``: files that a table names and the store has not, or damaged."""

    rows: int
    files: int
    head: str
    missing: tuple[str, ...] = ()


def back_up(database: Database, store: BlobStore, target: Path) -> Summary:
    """Write a backup to ``target``, whole or not at all, while the service may run.

    Raises:
        WetreadError: the disk is full.
    """
    with database.write() as session:
        audit_log.append(session, _ACTOR, "backup")
    missing, rows, files = [], 0, 0
    with atomic_file(target) as part, tarfile.open(part, "w") as tar, database.read() as session:
        head = {"schema": "1", "revision": revision(database), "head": audit_log.head(session)}
        _add(tar, _HEAD, json.dumps(head).encode())
        for table in Base.metadata.sorted_tables:
            if table.name in _LEFT_OUT:
                continue
            for number, lines in enumerate(_lines(session, table)):
                rows += len(lines)
                _add(tar, f"tables/{table.name}/{number:06}.jsonl", "\n".join(lines).encode())
        for sha256 in session.scalars(select(Blob.sha256).order_by(Blob.sha256)):
            if store.damaged(sha256):
                missing.append(sha256)
                continue
            tar.add(store.path(sha256), f"blobs/{sha256}", recursive=False)
            files += 1
    return Summary(rows, files, head["head"], tuple(missing))


def restore(database: Database, store: BlobStore, source: Path) -> Summary:
    """Take a backup into an empty installation.

    Raises:
        InputRefused: no backup, a damaged one, one of another revision, or an installation that is in use.
    """
    with database.read() as session:
        if session.scalar(select(func.count()).select_from(User)):
            raise InputRefused(expected("an empty installation", "one with users", "restore into another root"))
    try:
        with tarfile.open(source) as tar:
            return _restore(database, store, tar)
    except (tarfile.TarError, OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None and source.is_file():
            raise
        raise InputRefused(expected("a backup of wetread", f"{source.name} is none", "check the file")) from None


def _restore(database: Database, store: BlobStore, tar: tarfile.TarFile) -> Summary:
    first = tar.next()
    if first is None or first.name != _HEAD:
        raise ValueError("no head")
    head = json.loads(_read(tar, first))
    if head["revision"] != revision(database):
        got = f"revision {head['revision']}"
        raise InputRefused(expected(f"revision {revision(database)}", got, "use the version of wetread that made it"))
    tables, rows, files = {table.name: table for table in Base.metadata.sorted_tables}, 0, 0
    with database.write() as session:
        while (member := tar.next()) is not None:
            folder, _, rest = member.name.partition("/")
            if folder == "tables":
                values = [json.loads(line) for line in _read(tar, member).decode().splitlines()]
                session.execute(insert(tables[rest.partition("/")[0]]), values)
                rows += len(values)
            elif folder == "blobs":
                files += _take_file(tar, member, store, rest)
        check = audit_log.verify(session, head["head"])
        if check.broken is not None:
            raise InputRefused(expected("a whole audit log", f"line {check.broken}: {check.reason}", "use another"))
        audit_log.append(session, _ACTOR, "restore", "", {"rows": rows})
    return Summary(rows, files, head["head"])


def _take_file(tar: tarfile.TarFile, member: tarfile.TarInfo, store: BlobStore, sha256: str) -> int:
    if store.put(_read(tar, member)).sha256 != sha256:
        raise InputRefused(expected("files with the hash of their name", "another", "the backup is damaged"))
    return 1


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    if stream is None:
        raise WetreadError(expected("files in the backup", "something else", "use another backup"))
    return stream.read()


def _lines(session: Session, table: Any) -> Iterator[list[str]]:
    rows = session.execute(select(table).order_by(*table.primary_key).execution_options(yield_per=_CHUNK))
    for part in rows.partitions(_CHUNK):
        yield [json.dumps(dict(row._mapping), ensure_ascii=False, default=str) for row in part]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o600
    tar.addfile(info, io.BytesIO(data))
