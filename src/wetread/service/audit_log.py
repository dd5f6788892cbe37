"""The audit log: who did what to which object, each line chained to the one before by its hash.

Decided here: a line is written in the transaction of what it tells of, so that there is neither an act without a
line nor a line without its act; it holds identifiers and counts, never what a file or a person said. A changed or
removed line breaks the chain; lines cut off at the end are found by comparing with a head that was noted before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from wetread.service.tables import AuditEntry, now

__all__ = ["FIRST", "Actor", "LogCheck", "append", "entry_hash", "head", "verify"]

FIRST = "0" * 64
"""What stands for the line before the first."""

_LOCK_NUMBER = 0x77657461
_CHUNK = 1000


@dataclass(frozen=True)
class Actor:
    """Who acts, in which request. ``name`` is that of a user, or ``worker``, ``command line``."""

    name: str
    request_id: str = ""


@dataclass(frozen=True)
class LogCheck:
    """``entries`` that hold together up to ``head``; ``broken``: the number of the first line that does not."""

    entries: int
    head: str
    broken: int | None = None
    reason: str = ""


def append(
    session: Session, actor: Actor, action: str, target: str = "", detail: Mapping[str, Any] | None = None
) -> AuditEntry:
    """Add a line within a writing transaction. ``detail``: plain text, numbers and truth values by name."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    last = session.execute(
        select(AuditEntry.seq, AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)
    ).one_or_none()  # fmt: skip
    seq, previous = (last[0] + 1, last[1]) if last else (1, FIRST)
    entry = AuditEntry(
        seq=seq,
        at=round(now(), 6),
        actor=actor.name,
        action=action,
        object=target,
        detail=dict(detail or {}),
        request_id=actor.request_id,
        previous=previous,
        hash="",
    )
    entry.hash = entry_hash(entry)
    session.add(entry)
    session.flush()
    return entry


def entry_hash(entry: AuditEntry) -> str:
    """The sha256 over a line and the hash of the line before it."""
    fields = [
        entry.seq, entry.at, entry.actor, entry.action, entry.object, entry.detail, entry.request_id, entry.previous
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def head(session: Session) -> str:
    """The hash of the last line: note it elsewhere, and nobody can shorten the log unseen."""
    return session.scalar(select(AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)) or FIRST


def verify(session: Session, expected_head: str = "") -> LogCheck:
    """Check every line against the one before it, and that ``expected_head``, where given, is among them."""
    previous, count, seen = FIRST, 0, not expected_head or expected_head == FIRST
    for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.seq).execution_options(yield_per=_CHUNK)):
        if entry.seq != count + 1:
            return LogCheck(count, previous, count + 1, "a line is missing")
        if entry.previous != previous or entry.hash != entry_hash(entry):
            return LogCheck(count, previous, entry.seq, "the line was changed")
        previous, count = entry.hash, count + 1
        seen = seen or previous == expected_head
    if not seen:
        return LogCheck(count, previous, count + 1, "the head that was noted is not in the log: lines were removed")
    return LogCheck(count, previous)
