"""Results and their pictures, feedback on them, jobs, readers."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import func, select

from wetread.models.card import SegmenterCard
from wetread.service import audit_log, jobs
from wetread.service.access import Admin, Annotator, Here, Reader, actor, seen_job, seen_result
from wetread.service.accounts import Principal
from wetread.service.catalog import Entry
from wetread.service.events import stream
from wetread.service.feedback import of_seen_studies, settled_table
from wetread.service.problems import Problem
from wetread.service.routes.studies import results_of
from wetread.service.schemas import (
    FeedbackBody,
    FeedbackEntry,
    FeedbackOut,
    JobLine,
    JobOut,
    JobPage,
    ReaderOut,
    ResultOut,
)
from wetread.service.tables import JOB_STATES, Feedback, Job, Picture, Result, Study, StudyImage, User, now

__all__ = ["router"]

router = APIRouter(prefix="/api/v1")
_PNG = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}
_CSV = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
Id = Annotated[str, Path(max_length=32)]


@router.get("/results/{result_id}", tags=["results"])
def result(result_id: Id, service: Here, who: Reader) -> ResultOut:
    """A read, an explanation, masks, or similar cases."""
    with service.database.read() as session:
        found, _ = seen_result(session, who, result_id)
        return next(one for one in results_of(session, [found.image_id]) if one.id == found.id)


@router.get("/results/{result_id}/pictures/{name}", tags=["results"], response_class=Response, responses=_PNG)  # type: ignore[arg-type]
def picture(result_id: Id, name: Annotated[str, Path(max_length=96)], service: Here, who: Reader) -> Response:
    """A picture of a result: ``film``, ``heat:LABEL``, ``mask:ORGAN``, ``case:RANK``."""
    with service.database.read() as session:
        seen_result(session, who, result_id)
        found = session.get(Picture, (result_id, name))
    if found is None:
        raise Problem("not_found", "No such picture.")
    return Response(service.blobs.read(found.sha256), media_type="image/png")


@router.put("/results/{result_id}/feedback/{label}", tags=["feedback"])
def give_feedback(
    result_id: Id, label: Annotated[str, Path(max_length=64)], body: FeedbackBody, service: Here, who: Annotator,
    request: Request,
) -> FeedbackOut:  # fmt: skip
    """Accept, edit or reject one finding; again replaces your earlier word."""
    if (body.action == "edit") != (body.corrected is not None):
        raise Problem("invalid", "expected 'corrected' with edit, and only then", "Say what the right answer is.")
    with service.database.write() as session:
        found, _ = seen_result(session, who, result_id)
        if found.kind != "read" or label not in [one["label"] for one in found.record["labels"]]:
            raise Problem("not_found", "This result has no such finding.")
        chosen = select(Feedback).where(
            Feedback.result_id == found.id, Feedback.label == label, Feedback.user_id == who.user_id
        )
        row = session.scalars(chosen).one_or_none() or Feedback(result_id=found.id, label=label, user_id=who.user_id)
        row.action, row.corrected, row.reason, row.created = body.action, body.corrected, body.reason, now()
        session.add(row)
        session.flush()
        detail = {"label": label, "action": body.action}
        audit_log.append(session, actor(request, who), "feedback", found.id, detail)
        return _feedback(row, who.name)


@router.get("/results/{result_id}/feedback", tags=["feedback"])
def feedback_on(result_id: Id, service: Here, who: Reader) -> list[FeedbackOut]:
    """What people said to a read."""
    with service.database.read() as session:
        seen_result(session, who, result_id)
        rows = session.execute(
            select(Feedback, User.name).join(User, User.id == Feedback.user_id).where(Feedback.result_id == result_id)
        )
        return [_feedback(row, name) for row, name in rows]


@router.get("/feedback", tags=["feedback"])
def agreement(service: Here, who: Annotator) -> dict[str, dict[str, int]]:
    """How often people agreed with each reader: reader -> accept, edit, reject."""
    with service.database.read() as session:
        counted = session.execute(
            of_seen_studies(select(Result.reader, Feedback.action, func.count()), who).group_by(
                Result.reader, Feedback.action
            )
        )
        found: dict[str, dict[str, int]] = {}
        for reader, action, number in counted:
            found.setdefault(reader, {"accept": 0, "edit": 0, "reject": 0})[action] = number
        return found


@router.get("/feedback/entries", tags=["feedback"])
def feedback_entries(
    service: Here, who: Annotator, limit: Annotated[int, Query(ge=1, le=2000)] = 500
) -> list[FeedbackEntry]:
    """What people said, newest first, each beside what the reader had decided."""
    with service.database.read() as session:
        chosen = of_seen_studies(select(Feedback, Result, StudyImage.study_id, User.name), who)
        rows = session.execute(
            chosen.join(User, User.id == Feedback.user_id).order_by(Feedback.created.desc()).limit(limit)
        )
        return [_entry(row, result, study, name) for row, result, study, name in rows]


@router.get("/feedback/manifest", tags=["feedback"], response_class=Response, responses=_CSV)  # type: ignore[arg-type]
def manifest(service: Here, who: Annotator, request: Request) -> Response:
    """Images with the labels that people settled on, as a table that ``wetread dataset import`` takes.

    One row for each image, the newest word on each finding counts; a rejected finding without correction is left
    empty. ``path`` is where the image lies below the folder ``blobs`` of the service: give that as ``--images``.
    """
    with service.database.write() as session:
        table = settled_table(session, who)
        audit_log.append(session, actor(request, who), "export feedback", "", {"rows": len(table) - 1})
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(table)
    return Response(target.getvalue(), media_type="text/csv")


@router.get("/jobs", tags=["jobs"])
def list_jobs(
    service: Here,
    who: Reader,
    state: Annotated[str, Query(max_length=16)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> JobPage:
    """Your jobs; an admin sees all. ``state=dead`` are the dead letters."""
    if state and state not in JOB_STATES:
        raise Problem("invalid", f"expected a state among {', '.join(JOB_STATES)}", "Take one of them.")
    chosen = _seen_jobs(select(Job, StudyImage.study_id, StudyImage.number, User.name), who)
    chosen = chosen.join(User, User.id == Job.user_id).order_by(Job.created.desc(), Job.id).limit(limit)
    with service.database.read() as session:
        rows = session.execute(chosen.where(Job.state == state) if state else chosen).all()
        counted = session.execute(_seen_jobs(select(Job.state, func.count()), who).group_by(Job.state))
        counts = dict.fromkeys(JOB_STATES, 0) | {name: number for name, number in counted}
    return JobPage(jobs=[_job_line(*row) for row in rows], counts=counts)


@router.get("/jobs/{job_id}", tags=["jobs"])
def job(job_id: Id, service: Here, who: Reader) -> JobOut:
    """One job."""
    with service.database.read() as session:
        return JobOut.model_validate(seen_job(session, who, job_id), extra="ignore")


@router.get("/jobs/{job_id}/events", tags=["jobs"], response_class=StreamingResponse)
def job_events(job_id: Id, service: Here, who: Reader, request: Request) -> StreamingResponse:
    """Progress of a job as server-sent events, until it has ended."""
    with service.database.read() as session:
        seen_job(session, who, job_id)

    def look() -> tuple[str, dict[str, object], bool]:
        with service.database.read() as session:
            row = session.get(Job, job_id)
        if row is None:
            return "deleted", {"state": "deleted"}, True
        told = {"state": row.state, "attempts": row.attempts, "result_id": row.result_id, "code": row.code}
        return str(row.version), told, row.state not in jobs.OPEN

    return stream(request, look)


@router.post("/jobs/{job_id}/cancel", tags=["jobs"])
def cancel_job(job_id: Id, service: Here, who: Reader, request: Request) -> JobOut:
    """Cancel a job of yours."""
    with service.database.write() as session:
        row = seen_job(session, who, job_id, change=True)
        jobs.cancel(session, row)
        audit_log.append(session, actor(request, who), "cancel job", row.id)
        return JobOut.model_validate(row, extra="ignore")


@router.post("/jobs/{job_id}/retry", tags=["jobs"])
def retry_job(job_id: Id, service: Here, who: Admin, request: Request) -> JobOut:
    """Give a failed, cancelled or dead job another life."""
    with service.database.write() as session:
        row = seen_job(session, who, job_id)
        if row.state not in ("failed", "cancelled", "dead"):
            raise Problem("conflict", f"The job is {row.state}.", "Only one that was given up can be tried again.")
        jobs.requeue(row)
        audit_log.append(session, actor(request, who), "retry job", row.id)
        told = JobOut.model_validate(row, extra="ignore")
    service.bell.ring()
    return told


@router.get("/readers", tags=["readers"])
def readers(service: Here, who: Reader) -> list[ReaderOut]:
    """All readers and segmenters, with their cards."""
    return [_reader(entry) for entry in service.catalog.entries()]


@router.get("/readers/{name}", tags=["readers"])
def reader(name: Annotated[str, Path(max_length=64)], service: Here, who: Reader) -> ReaderOut:
    """One reader with its card and its last audit."""
    entry = service.catalog.find(name)
    return _reader(entry).model_copy(update={"audit": entry.audit})


def _seen_jobs(query: Any, who: Principal) -> Any:
    """Join a selection of jobs with their images, and keep those that this user sees."""
    joined = query.select_from(Job).join(StudyImage, StudyImage.id == Job.image_id)
    if who.role != "admin":
        joined = joined.where(Job.user_id == who.user_id)
    if "*" in who.trays:
        return joined
    return joined.join(Study, Study.id == StudyImage.study_id).where(Study.tray.in_(who.trays))


def _job_line(job: Job, study_id: str, number: int, by: str) -> JobLine:
    told = JobOut.model_validate(job, extra="ignore").model_dump()
    return JobLine(**told, study_id=study_id, image_number=number, by=by)


def _reader(entry: Entry) -> ReaderOut:
    card = entry.card
    return ReaderOut(
        name=card.name,
        kind="segmenter" if isinstance(card, SegmenterCard) else "reader",
        sha256=card.sha256,
        audit_verdict=card.audit_verdict,
        watermark=card.watermark,
        card=card.model_dump(mode="json"),
    )


def _entry(row: Feedback, result: Result, study: str, name: str) -> FeedbackEntry:
    said = next(one for one in result.record["labels"] if one["label"] == row.label)
    return FeedbackEntry(
        **_feedback(row, name).model_dump(),
        study_id=study,
        reader=result.reader,
        decision=said["decision"],
        probability=said["probability"],
    )


def _feedback(row: Feedback, name: str) -> FeedbackOut:
    return FeedbackOut(
        id=row.id, result_id=row.result_id, label=row.label, action=row.action, corrected=row.corrected,
        reason=row.reason, by=name, created=row.created,
    )  # fmt: skip
