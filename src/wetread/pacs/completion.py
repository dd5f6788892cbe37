"""When a study is complete: nothing of it came for a while. A late image makes it due again.

A sender may divide a study over associations, so the end of one means nothing. Decided here: what was already read
is remembered as a count of arrivals, so that an image that arrives while its study is being read is not lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wetread.pacs.ledger import Change, Ledger

__all__ = ["MAX_TRIES", "DueStudy", "done", "due_studies", "failed"]

MAX_TRIES = 5
"""After so many failures a study waits for a new image or for a person."""


@dataclass(frozen=True, slots=True)
class DueStudy:
    """A study to read. ``arrivals``: how many objects had come when it was taken up."""

    study: str
    arrivals: int
    tries: int


def due_studies(ledger: Ledger, quiet_s: float, now: float | None = None) -> list[DueStudy]:
    """Studies that were quiet for ``quiet_s`` seconds and have something new; the longest waiting first.

    After a failure the wait doubles. An arrival that lies in the future (the clock was set back) is due at once.
    """
    at = time.time() if now is None else now
    rows = ledger.read(
        "SELECT study, arrivals, tries FROM studies WHERE arrivals > done AND tries < ? "
        "AND (last_arrival + ? * (1 << tries) <= ? OR last_arrival > ?) ORDER BY last_arrival",
        (MAX_TRIES, quiet_s, at, at + 1),
    )
    return [DueStudy(*row) for row in rows]


def done(due: DueStudy, **detail: object) -> Callable[[Change], None]:
    """What records that the study was read as it stood when it was taken up."""

    def change(tx: Change) -> None:
        tx.execute(
            "UPDATE studies SET done = ?, tries = 0, error = NULL WHERE study = ? AND done < ?",
            (due.arrivals, due.study, due.arrivals),
        )
        tx.event("study read", study=due.study, objects=due.arrivals, **detail)

    return change


def failed(due: DueStudy, error: str) -> Callable[[Change], None]:
    """What records that the study could not be read; it is tried again later, at most :data:`MAX_TRIES` times."""

    def change(tx: Change) -> None:
        tx.execute("UPDATE studies SET tries = tries + 1, error = ? WHERE study = ?", (error, due.study))
        tx.event("study failed" if due.tries + 1 < MAX_TRIES else "study given up", study=due.study, error=error)

    return change
