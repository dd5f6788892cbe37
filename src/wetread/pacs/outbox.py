"""Results on their way out: kept until they arrive, tried again later, and never sent twice.

Decided here: a result is known by its target and its instance UID, and that UID follows from the image and the
reader, so that a second run finds it already there. What was made together is enqueued in one transaction, and with
it whatever its maker has to record. A target that fails is tried again after 5 s, 10 s, 20 s and so on up to an hour;
after 12 failures the job is a dead letter, which a person may send again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wetread.pacs.ledger import Change, Ledger
from wetread.provenance import atomic_file

__all__ = ["MAX_TRIES", "Job", "Letter", "Outbox", "Parcel", "Result"]

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
class Letter:
    """Bytes for some targets. ``kind``: ``store`` (a DICOM file) or ``fhir``; ``key``: its UID."""

    kind: str
    key: str
    data: bytes
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parcel:
    """Letters that go into the outbox together with what ``record`` writes; it is told how many jobs are new."""

    letters: Sequence[Letter]
    record: Callable[[Change, int], None]


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

    def keep(self, parcels: Sequence[Parcel]) -> list[int]:
        """Keep what is in ``parcels`` and enqueue it; what is known already is left alone. All of it or nothing.

        Returns:
            How many jobs are new, by parcel.
        """
        for letter in (letter for parcel in parcels for letter in parcel.letters):
            path = self.folder / _file_name(letter.kind, letter.key)
            if letter.targets and not path.exists():  # the first run made it: a stable UID names the same bytes
                _write(path, letter.data)

        def change(tx: Change) -> list[int]:
            tx.sync(self.folder)
            counts = []
            for parcel in parcels:
                counts.append(sum(_insert(tx, one.kind, one.key, to) for one in parcel.letters for to in one.targets))
                parcel.record(tx, counts[-1])
            return counts

        return self._ledger.write(change)

    def add(self, results: Iterable[Result], targets: Iterable[str]) -> int:
        """Keep ``results`` and enqueue each for every target; returns how many jobs are new."""
        places = tuple(targets)
        letters = [Letter("store", one.sop_instance, one.data, places) for one in results]
        return self.keep([Parcel(letters, _nothing)])[0]

    def add_bytes(self, kind: str, key: str, target: str, data: bytes) -> bool:
        """Enqueue something that is made anew each time, such as a commitment event; the last one counts."""
        _write(self.folder / _file_name(kind, key), data)

        def change(tx: Change) -> bool:
            tx.sync(self.folder)
            return bool(_insert(tx, kind, key, target))

        return self._ledger.write(change)

    def made(self, sop_instance: str) -> bool:
        """Whether the object of that UID is a result of ours."""
        return (self.folder / _file_name("store", sop_instance)).exists()

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


def _file_name(kind: str, key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()}.{'dcm' if kind == 'store' else kind}"


def _write(path: Path, data: bytes) -> None:
    with atomic_file(path) as part:
        part.write_bytes(data)


def _insert(change: Change, kind: str, key: str, target: str) -> int:
    return change.execute(
        "INSERT OR IGNORE INTO jobs (key, kind, target, payload, next_at) VALUES (?, ?, ?, ?, 0)",
        (f"{target} {key}", kind, target, _file_name(kind, key)),
    ).rowcount


def _nothing(_: Change, _new: int) -> None:
    return
