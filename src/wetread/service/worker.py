"""The loop of a worker: claim a batch, do it, write each result while the lease holds; until told to stop.

Decided here: a batch that fails as a whole is put back image by image, so that the next try finds the one that
fails; an error that wetread raises on purpose is final, any other is tried again; while networks compute, a second
thread keeps the lease alive, and dies with the process.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.errors import WetreadError
from wetread.service import audit_log, jobs
from wetread.service.audit_log import Actor
from wetread.service.claims import begin_due
from wetread.service.context import Service
from wetread.service.jobs import Failure, Found, Lease
from wetread.service.problems import Problem
from wetread.service.removal import require_files
from wetread.service.tables import Blob, Job, StudyImage, new_id, now
from wetread.service.upsert import insert_new
from wetread.service.urgency import note_read

if TYPE_CHECKING:
    from wetread.service.tasks import Models

__all__ = ["AGAIN_S", "Worker", "owner_name", "work"]

logger = logging.getLogger(__name__)

AGAIN_S = 2.0
"""Pause after an error of the database or the disk."""

_SOONEST_S = 0.2
_ACTOR = Actor("worker")
_TRANSIENT = ("unavailable", "disk_full")


class Worker:
    """One worker. ``owner`` names it in the table of jobs."""

    def __init__(self, service: Service, owner: str = "") -> None:
        chosen = service.settings.service
        self.service = service
        self.stop = threading.Event()
        self.lease = Lease(owner or owner_name(), chosen.lease_s, chosen.attempts)
        self._batch = chosen.batch
        self._models: Models | None = None
        self._alarm: threading.Timer | None = None

    def drain(self) -> int:
        """Work until nothing is due; return how many jobs were taken."""
        taken = 0
        while not self.stop.is_set():
            with self.service.database.write() as session:
                batch = jobs.claim(session, self.lease, self._batch)
                images = _images(session, batch)
            if not batch:
                break
            taken += len(batch)
            if len(batch) == self._batch:
                self.service.bell.ring()  # there may be more: another worker that has nothing to do hears it
            self._do(batch, images)
        return taken

    def set_alarm(self) -> None:
        """Ring when the next job is due that waits now, or whose worker may have died: nobody else would."""
        with self.service.database.read() as session:
            due = jobs.next_due(session)
        if self._alarm is not None:
            self._alarm.cancel()
        if due is not None:
            self._alarm = threading.Timer(max(_SOONEST_S, due - now()), self.service.bell.ring)
            self._alarm.daemon = True
            self._alarm.start()

    def sweep(self) -> None:
        """Remove what cut-off uploads left, and begin workitems whose time has come."""
        self.service.blobs.sweep()
        try:
            begin_due(self.service)
        except Problem:
            logger.warning("workitems could not be begun; trying again in a minute")

    def _do(self, batch: Sequence[Job], images: dict[str, tuple[str, str]]) -> None:
        with self._heartbeat([job.id for job in batch]):
            left = list(batch)
            try:
                for outcome in self._outcomes(batch, images):
                    self._write(left.pop(0), outcome)
            except WetreadError as error:
                code = error.code if isinstance(error, Problem) else "refused"
                again = code in _TRANSIENT or len(left) > 1
                self._give_up(left, Failure(code, str(error), again))
            except Exception as error:
                # Its text may quote a header, and headers name patients.
                kind = type(error).__name__
                logger.warning("%s in a job of kind %s", kind, batch[0].kind)
                self._give_up(left, Failure("unexpected", f"An unexpected {kind} in the worker.", again=True))

    def _outcomes(self, batch: Sequence[Job], images: dict[str, tuple[str, str]]) -> Iterator[Found | Failure]:
        from wetread.service.tasks import Models, Task, run_task

        if self._models is None:
            self._models = Models(self.service)
        task = Task(batch[0].kind, batch[0].parameters, [images[job.image_id] for job in batch])
        return run_task(self.service, self._models, task)

    def _write(self, job: Job, outcome: Found | Failure) -> None:
        with self.service.database.write() as session:
            if isinstance(outcome, Failure):
                state = jobs.fail(session, self.lease, job.id, outcome)
                if state in ("failed", "dead"):
                    audit_log.append(session, _ACTOR, f"job {state}", job.id, {"code": outcome.code})
                return
            self._name_files(session, set(outcome.pictures.values()))
            result = jobs.finish(session, self.lease, job.id, outcome)
            if result is None:
                return
            if result.kind == "read":
                note_read(session, result)
            detail = {"image": job.image_id, "reader": result.reader, "sha256": result.reader_sha256[:12]}
            audit_log.append(session, _ACTOR, f"{job.kind} done", result.id, detail)

    def _name_files(self, session: Session, hashes: set[str]) -> None:
        """Write the rows of stored pictures, which results point to."""
        require_files(self.service.blobs, hashes)
        sizes = {sha256: self.service.blobs.path(sha256).stat().st_size for sha256 in hashes}
        for sha256 in sorted(hashes):
            insert_new(session, Blob, {"sha256": sha256, "size": sizes[sha256], "kind": "PNG"}, ["sha256"])
        require_files(self.service.blobs, hashes)

    def _give_up(self, left: Sequence[Job], failure: Failure) -> None:
        for job in left:
            self._write(job, failure)

    @contextmanager
    def _heartbeat(self, ids: Sequence[str]) -> Iterator[None]:
        """Renew the lease while the block runs."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.lease.lasts_s / 3):
                try:
                    with self.service.database.write() as session:
                        jobs.renew(session, self.lease, ids)
                except Problem:
                    logger.warning("the lease could not be renewed; trying again")

        thread = threading.Thread(target=beat, daemon=True, name="wetread-lease")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def work(worker: Worker) -> None:
    """Run a worker until its ``stop`` is set."""
    worker.service.bell.consume(lambda: _quietly(worker), worker.sweep, worker.stop)


def owner_name() -> str:
    """Host, process and a random part: no two workers have the same, even after a restart."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{new_id()[:8]}"


def _quietly(worker: Worker) -> None:
    """One drain; an error that has nothing to do with a job (a database away) must not end the worker."""
    try:
        worker.drain()
        worker.set_alarm()
    except Exception as error:  # its text could quote a file, and huey would log it whole
        logger.warning("%s; trying again in %.0f s", type(error).__name__, AGAIN_S)
        worker.stop.wait(AGAIN_S)
        worker.service.bell.ring()


def _images(session: Session, batch: Sequence[Job]) -> dict[str, tuple[str, str]]:
    """Image id -> (sha256 of its file, the name that results get)."""
    chosen = select(StudyImage.id, StudyImage.sha256, StudyImage.number)
    rows = session.execute(chosen.where(StudyImage.id.in_([job.image_id for job in batch])))
    return {image: (sha, f"image {number}") for image, sha, number in rows}
