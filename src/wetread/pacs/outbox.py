"""Results on their way out: kept until they arrive, tried again later, and never sent twice.

Decided here: a result is known by its target and its instance UID, and that UID follows from the image and the
reader, so that a second run finds it already there. A target that fails is tried again after 5 s, 10 s, 20 s and so
on up to an hour; after 12 failures the job is a dead letter, which a person may send again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wetread.pacs.ledger import Change, Ledger
from wetread.provenance import atomic_file

__all__ = ["MAX_TRIES", "Job", "Outbox", "Result"]

MAX_TRIES = 12
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 3600.0
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Result:
    """One object to send. ``kind``: ``sr``, ``seg``, ``heat``, ``gsps``, ``sc`` or ``pdf``; ``data``: the file."""

    kind: str
    sop_class: str
    sop_instance: str
    data: bytes
    series: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One job that is due. ``payload``: the path of a file in the node's folder."""

    id: int
    kind: str
    target: str
    payload: str
    tries: int


class Outbox:
    """The jobs of a ledger; result files lie in ``folder``."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, results: Iterable[Result], targets: Iterable[str]) -> int:
        """Keep ``results`` and enqueue each for every target; what is known already is left alone.

        Returns:
            How many jobs are new.
        """
        wanted: list[tuple[str, str, str]] = []
        places = list(targets)
        for result in results:
            path = self.folder / f"{hashlib.sha256(result.sop_instance.encode()).hexdigest()}.dcm"
            if not path.exists():  # the first run made it: a stable UID names the same bytes
                with atomic_file(path) as part:
                    part.write_bytes(result.data)
            wanted += [(f"{target} {result.sop_instance}", target, path.name) for target in places]
        return self._ledger.write(lambda change: sum(_insert(change, "store", *job) for job in wanted))

    def add_bytes(self, kind: str, key: str, target: str, data: bytes) -> bool:
        """Enqueue something that is no DICOM file, such as a commitment event or a FHIR bundle."""
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.{kind}"
        with atomic_file(path) as part:
            part.write_bytes(data)
        return bool(self._ledger.write(lambda change: _insert(change, kind, f"{target} {key}", target, path.name)))

    def due(self, now: float | None = None) -> list[Job]:
        """Jobs to try now, oldest first."""
        rows = self._ledger.read(
            "SELECT id, kind, target, payload, tries FROM jobs WHERE state = 'waiting' AND next_at <= ? "
            "ORDER BY id LIMIT ?",
            (time.time() if now is None else now, _AT_ONCE),
        )
        return [Job(*row) for row in rows]

    def sent(self, jobs: Iterable[Job]) -> None:
        """These arrived."""
        done = list(jobs)

        def change(tx: Change) -> None:
            for job in done:
                tx.execute("UPDATE jobs SET state = 'sent', error = NULL WHERE id = ?", (job.id,))
            if done:
                tx.event("sent", target=done[0].target, jobs=len(done))

        self._ledger.write(change)

    def failed(self, job: Job, error: str, now: float | None = None, *, final: bool = False) -> None:
        """This one did not; ``final`` where another try cannot help."""
        dead = final or job.tries + 1 >= MAX_TRIES
        wait = min(_FIRST_WAIT_S * 2**job.tries, _LONGEST_WAIT_S)
        at = (time.time() if now is None else now) + wait

        def change(tx: Change) -> None:
            tx.execute(
                "UPDATE jobs SET state = ?, tries = tries + 1, next_at = ?, error = ? WHERE id = ?",
                ("dead" if dead else "waiting", at, error, job.id),
            )
            if dead:
                tx.event("dead letter", target=job.target, job=job.id, error=error)

        self._ledger.write(change)

    def dead(self) -> list[tuple[int, str, str, str]]:
        """The dead letters: id, kind, target, last error."""
        return [
            (row[0], row[1], row[2], row[3])
            for row in self._ledger.read("SELECT id, kind, target, error FROM jobs WHERE state = 'dead' ORDER BY id")
        ]

    def revive(self) -> int:
        """Try all dead letters again from the beginning; return how many."""
        return self._ledger.write(
            lambda change: (
                change.execute(
                    "UPDATE jobs SET state = 'waiting', tries = 0, next_at = 0 WHERE state = 'dead'"
                ).rowcount
            )
        )

    def deliver(self, send: Callable[[str, list[tuple[Job, Path]]], dict[int, str]], now: float | None = None) -> int:
        """Try what is due, target by target; ``send`` returns job id -> error for those that failed.

        Returns:
            How many arrived.
        """
        arrived = 0
        by_target: dict[str, list[Job]] = {}
        for job in self.due(now):
            by_target.setdefault(job.target, []).append(job)
        for target, jobs in by_target.items():
            errors = send(target, [(job, self.folder / job.payload) for job in jobs])
            good = [job for job in jobs if job.id not in errors]
            self.sent(good)
            for job in jobs:
                if job.id in errors:
                    self.failed(job, errors[job.id], now)
            arrived += len(good)
        return arrived


def _insert(change: Change, kind: str, key: str, target: str, payload: str) -> int:
    return change.execute(
        "INSERT OR IGNORE INTO jobs (key, kind, target, payload, next_at) VALUES (?, ?, ?, ?, 0)",
        (key, kind, target, payload),
    ).rowcount
