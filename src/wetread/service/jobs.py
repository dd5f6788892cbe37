"""Jobs as rows of a table: asked for once, leased to one worker, finished once.

Decided here: a job is named after the result that it makes, so that asking twice is asking once; a worker holds a
job by a lease and writes its result only while it still holds it, so that a worker which was thought dead cannot
write a second time; a job that was tried before is tried alone, so that one that kills its worker takes no other
with it, and after as many tries as the settings allow it goes to the dead letters, where a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from wetread.service.catalog import Entry, question_hash
from wetread.service.fulfilment import settle
from wetread.service.problems import Problem
from wetread.service.tables import Job, Picture, Result, Study, StudyImage, new_id, now
from wetread.service.upsert import insert_new

__all__ = [
    "BACK_OFF_S",
    "KINDS",
    "OPEN",
    "Asked",
    "Failure",
    "Found",
    "Lease",
    "cancel",
    "claim",
    "enqueue",
    "fail",
    "finish",
    "next_due",
    "put_back",
    "release",
    "renew",
    "requeue",
]

KINDS = ("read", "explain", "segment", "similar")
OPEN = ("queued", "running")
BACK_OFF_S = (2.0, 10.0, 60.0, 300.0)
"""Waiting before the second, third … try."""

_GIVEN_UP = ("failed", "cancelled", "dead")


@dataclass(frozen=True)
class Asked:
    """What is asked of one image: by which reader, with which parameters (plain JSON)."""

    kind: str
    entry: Entry
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The hash that names this question, whatever the image."""
        return question_hash(self.kind, self.entry.card.sha256, dict(self.parameters))


@dataclass(frozen=True)
class Lease:
    """Who works, for how long a claim holds without a sign of life, and how often a job is tried."""

    owner: str
    lasts_s: float
    attempts: int


@dataclass(frozen=True)
class Found:
    """A result: its record as plain JSON, and the sha256 of its stored pictures by name."""

    record: dict[str, Any]
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why there is no result. ``again``: whether trying again may help."""

    code: str
    message: str
    again: bool = False


def enqueue(session: Session, asked: Asked, image: StudyImage, user_id: str) -> Job:
    """Ask for a result; the job of an earlier asking is handed back, and revived where it was given up."""
    key = f"{asked.kind}:{asked.question}:{image.id}"
    parameters = {"reader": asked.entry.card.name, "sha256": asked.entry.card.sha256, **asked.parameters}
    values = {
        "id": new_id(), "key": key, "kind": asked.kind, "question": asked.question, "image_id": image.id,
        "user_id": user_id, "parameters": parameters,
    }  # fmt: skip
    insert_new(session, Job, values, ["key"])
    job = session.scalars(select(Job).where(Job.key == key)).one()
    if job.state in _GIVEN_UP:
        requeue(job)
    return job


def requeue(job: Job) -> None:
    """Give a job another life: as if it had just been asked for."""
    job.state, job.attempts, job.run_after, job.cancel = "queued", 0, now(), False
    job.code = job.message = job.owner = job.finished = None
    job.version += 1


def claim(session: Session, lease: Lease, limit: int) -> list[Job]:
    """Take due jobs that ask the same, at most ``limit``; jobs of workers that fell silent are due again."""
    _bury(session, lease)
    moment = now()
    due = or_(
        and_(Job.state == "queued", Job.run_after <= moment), and_(Job.state == "running", Job.lease_until < moment)
    )
    ordered = select(Job).where(due).order_by(Job.run_after, Job.id).with_for_update(skip_locked=True)
    first = session.scalars(ordered.limit(1)).one_or_none()
    if first is None:
        return []
    jobs = [first]
    if first.attempts == 0 and limit > 1:
        same = ordered.where(Job.question == first.question, Job.attempts == 0, Job.id != first.id)
        jobs += session.scalars(same.limit(limit - 1))
    for job in jobs:
        job.state, job.owner, job.lease_until = "running", lease.owner, moment + lease.lasts_s
        job.attempts += 1
        job.started, job.version = moment, job.version + 1
    return jobs


def next_due(session: Session) -> float | None:
    """When the next job that waits or is held will be due, in seconds since 1970; None where there is none."""
    waiting = session.scalar(select(func.min(Job.run_after)).where(Job.state == "queued"))
    held = session.scalar(select(func.min(Job.lease_until)).where(Job.state == "running"))
    return min((moment for moment in (waiting, held) if moment is not None), default=None)


def _bury(session: Session, lease: Lease) -> None:
    """Move jobs whose every try ended with a silent worker to the dead letters."""
    lost = (Job.state == "running", Job.lease_until < now(), Job.attempts >= lease.attempts)
    for job in session.scalars(select(Job).where(*lost).with_for_update(skip_locked=True)).all():
        _end(session, job, "dead", Failure("worker_lost", f"The worker was lost {job.attempts} times at this job."))


def renew(session: Session, lease: Lease, jobs: Sequence[str]) -> set[str]:
    """Extend the lease of jobs at work; return those that are to be cancelled."""
    mine = and_(Job.id.in_(jobs), Job.owner == lease.owner, Job.state == "running")
    session.execute(update(Job).where(mine).values(lease_until=now() + lease.lasts_s))
    return set(session.scalars(select(Job.id).where(mine, Job.cancel)))


def finish(session: Session, lease: Lease, job_id: str, found: Found) -> Result | None:
    """Write a result and end its job; None where the job is no longer this worker's: nothing is written then."""
    job = _held(session, lease, job_id)
    if job is None:
        return None
    if job.cancel:
        _end(session, job, "cancelled", None)
        return None
    values = {
        "id": new_id(), "image_id": job.image_id, "kind": job.kind, "question": job.question,
        "reader": job.parameters["reader"], "reader_sha256": job.parameters["sha256"],
        "parameters": job.parameters, "record": found.record,
    }  # fmt: skip
    new = insert_new(session, Result, values, ["image_id", "kind", "question"])
    result = session.scalars(
        select(Result).where(Result.image_id == job.image_id, Result.kind == job.kind, Result.question == job.question)
    ).one()
    if new:
        session.add_all(Picture(result_id=result.id, name=name, sha256=sha) for name, sha in found.pictures.items())
    job.result_id = result.id
    _end(session, job, "done", None)
    return result


def fail(session: Session, lease: Lease, job_id: str, failure: Failure) -> str | None:
    """End a job without result, or put it back for another try; return its new state, None if it was not held."""
    job = _held(session, lease, job_id)
    if job is None:
        return None
    if job.cancel:
        _end(session, job, "cancelled", None)
    elif not failure.again:
        _end(session, job, "failed", failure)
    elif job.attempts >= lease.attempts:
        _end(session, job, "dead", failure)
    else:
        job.state, job.owner, job.code, job.message = "queued", None, failure.code, failure.message
        job.run_after = now() + BACK_OFF_S[min(job.attempts, len(BACK_OFF_S)) - 1]
        job.version += 1
    return job.state


def put_back(session: Session, lease: Lease, jobs: Sequence[str]) -> None:
    """Hand jobs back untried, because the worker is asked to stop."""
    for job in session.scalars(select(Job).where(Job.id.in_(jobs), Job.owner == lease.owner, Job.state == "running")):
        job.state, job.owner, job.run_after = "queued", None, now()
        job.attempts -= 1
        job.version += 1


def release(session: Session, owner: str) -> int:
    """End the leases of a worker that is known to be gone, so that nobody waits for them; return how many."""
    mine = update(Job).where(Job.owner == owner, Job.state == "running").values(lease_until=0.0)
    return int(getattr(session.execute(mine), "rowcount", 0))


def cancel(session: Session, job: Job) -> None:
    """Cancel a job: at once where it waits, else before its result is written.

    Raises:
        Problem: ``conflict``: it has ended already.
    """
    if job.state not in OPEN:
        raise Problem("conflict", f"The job has ended already: {job.state}.", "Nothing is left to cancel.")
    job.cancel = True
    job.version += 1
    if job.state == "queued":
        _end(session, job, "cancelled", None)


def _held(session: Session, lease: Lease, job_id: str) -> Job | None:
    mine = (Job.id == job_id, Job.owner == lease.owner, Job.state == "running")
    return session.scalars(select(Job).where(*mine).with_for_update()).one_or_none()


def _end(session: Session, job: Job, state: str, failure: Failure | None) -> None:
    job.state, job.owner, job.finished, job.version = state, None, now(), job.version + 1
    job.code, job.message = (failure.code, failure.message) if failure else (None, None)
    session.flush()
    if job.kind == "read":
        _update_study(session, job.image_id)


def _update_study(session: Session, image_id: str) -> None:
    """Bring the status of a study up to date with the reads of its images.

    The study is locked before they are counted: two workers that end its last two reads at the same moment would
    otherwise each believe that the other is still at work.
    """
    study = session.scalars(
        select(Study)
        .join(StudyImage, StudyImage.study_id == Study.id)
        .where(StudyImage.id == image_id)
        .with_for_update(of=Study)
    ).one_or_none()
    if study is None:
        return
    counted = session.execute(
        select(Job.state, func.count())
        .join(StudyImage, StudyImage.id == Job.image_id)
        .where(StudyImage.study_id == study.id, Job.kind == "read")
        .group_by(Job.state)
    )
    states: dict[str, int] = {state: number for state, number in counted}
    is_open = any(states.get(state) for state in OPEN)
    study.status = "open" if is_open else "read" if states.get("done") else "failed"
    study.changed = now()
    settle(session, study)
