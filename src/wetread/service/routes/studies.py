"""Uploads, the worklist, one study, and their streams of events."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from wetread.service import audit_log
from wetread.service.access import Admin, Here, Reader, actor, seen_study
from wetread.service.demonstration import load_phantoms
from wetread.service.events import stream
from wetread.service.ingest import Destination, Ingested, ingest
from wetread.service.jobs import OPEN
from wetread.service.problems import Problem
from wetread.service.removal import remove_study
from wetread.service.schemas import (
    ImageOut,
    JobOut,
    RefusalOut,
    ResultOut,
    StudyDetail,
    StudyOut,
    StudyPage,
    UploadedStudy,
    UploadOut,
    WorklistQuery,
)
from wetread.service.tables import Job, Picture, Result, Study, StudyImage
from wetread.service.upload import receive
from wetread.service.worklist import Filter, page

__all__ = ["results_of", "router"]

router = APIRouter(prefix="/api/v1", tags=["studies"])
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "tray": {"type": "string", "maxLength": 64},
                        "reader": {"type": "string", "maxLength": 256},
                    },
                }
            }
        },
    }
}


@router.post("/uploads", status_code=201, openapi_extra=_UPLOAD_BODY)
async def upload(service: Here, who: Reader, request: Request) -> UploadOut:
    """Upload images (DICOM, PNG, JPEG, TIFF) or ZIP archives of them; each image is read. The same twice is once."""
    with contextlib.ExitStack() as stack:
        kind = request.headers.get("Content-Type", "")
        try:
            received = await receive(request.stream(), kind, service.blobs, service.limits, stack)
        except ClientDisconnect:
            raise Problem("bad_request", "The upload was cut short.", "Send it again.") from None
        to = Destination(received.fields.get("tray") or "main", received.fields.get("reader", ""))
        number = actor(request).request_id
        return _told(await run_in_threadpool(ingest, service, who, received.files, to, number))


@router.post("/phantoms", status_code=201)
def phantoms(service: Here, who: Reader, request: Request) -> UploadOut:
    """Put the synthetic studies of the demonstration into the worklist; the same twice is once."""
    return _told(load_phantoms(service, who, actor(request).request_id))


@router.get("/studies")
def worklist(service: Here, who: Reader, asked: Annotated[WorklistQuery, Query()]) -> StudyPage:
    """The worklist, most urgent first (``order=newest``: newest first); ``q`` looks in names and findings."""
    chosen = Filter(**asked.model_dump(exclude={"cursor", "limit"}))
    with service.database.read() as session:
        rows, following, total = page(session, who, chosen, asked.cursor, asked.limit)
        return StudyPage(studies=[StudyOut.model_validate(row) for row in rows], next=following or None, total=total)


@router.get("/studies/{study_id}")
def study(study_id: str, service: Here, who: Reader, request: Request) -> StudyDetail:
    """One study: images, results, jobs under way. Opening it is a line of the audit log."""
    with service.database.write() as session:
        found = seen_study(session, who, study_id)
        audit_log.append(session, actor(request, who), "view study", found.id)
        listed = list(session.scalars(select(StudyImage).where(StudyImage.study_id == found.id)))
        results = results_of(session, [image.id for image in listed])
        jobs = session.scalars(
            select(Job).where(Job.image_id.in_([image.id for image in listed]), Job.state != "done")
        ).all()  # fmt: skip
        line = StudyOut.model_validate(found, extra="ignore").model_dump()
        return StudyDetail(
            **line,
            study_uid=found.study_uid,
            image_list=_images(listed, results),
            jobs=[JobOut.model_validate(job, extra="ignore") for job in jobs],
        )


@router.delete("/studies/{study_id}", status_code=204)
def delete_study(study_id: str, service: Here, who: Admin, request: Request) -> None:
    """Delete a study with all that was found of it, and the stored files that nothing else needs."""
    with service.database.write() as session:
        found = seen_study(session, who, study_id)
        files = remove_study(session, service.blobs, found)
        audit_log.append(session, actor(request, who), "delete study", study_id, {"files": files})


@router.get("/studies/{study_id}/priors")
def priors(study_id: str, service: Here, who: Reader) -> list[StudyOut]:
    """Other studies of the same patient that you see, newest first."""
    with service.database.read() as session:
        found = seen_study(session, who, study_id)
        if found.patient_id is None:
            return []
        same = select(Study).where(Study.patient_id == found.patient_id, Study.id != found.id)
        rows = session.scalars(same.order_by(Study.study_date.desc(), Study.created.desc()).limit(50))
        return [StudyOut.model_validate(row, extra="ignore") for row in rows if who.sees(row.tray)]


@router.get("/studies/{study_id}/events", response_class=StreamingResponse)
def study_events(study_id: str, service: Here, who: Reader, request: Request) -> StreamingResponse:
    """Progress of a study as server-sent events: ``{status, done, total}``, until nothing is left to do."""
    with service.database.read() as session:
        seen_study(session, who, study_id)

    def look() -> tuple[str, dict[str, object], bool]:
        with service.database.read() as session:
            return _progress(session, study_id)

    return stream(request, look)


@router.get("/events", response_class=StreamingResponse)
def worklist_events(service: Here, who: Reader, request: Request) -> StreamingResponse:
    """Tells when the worklist changed, as server-sent events: ``{changed, total}``."""

    def look() -> tuple[str, dict[str, object], bool]:
        with service.database.read() as session:
            chosen = select(func.max(Study.changed), func.count(Study.id))
            seen = chosen if "*" in who.trays else chosen.where(Study.tray.in_(who.trays))
            changed, total = session.execute(seen).one()
        return f"{changed or 0:.6f}-{total}", {"changed": changed, "total": total}, False

    return stream(request, look)


def results_of(session: Session, images: list[str]) -> list[ResultOut]:
    """All results of images, oldest first, with the names of their pictures."""
    found = session.scalars(select(Result).where(Result.image_id.in_(images)).order_by(Result.created)).all()
    names: dict[str, list[str]] = {}
    chosen = select(Picture.result_id, Picture.name).where(Picture.result_id.in_([one.id for one in found]))
    for result, name in session.execute(chosen.order_by(Picture.name)):
        names.setdefault(result, []).append(name)
    return [
        ResultOut.model_validate({**_plain(one), "pictures": names.get(one.id, [])}, extra="ignore") for one in found
    ]


def _images(rows: list[StudyImage], results: list[ResultOut]) -> list[ImageOut]:
    """Images by number; the frames of a file that are images of their own follow it."""
    files = {row.sha256: row.id for row in rows}
    found = []
    for row in sorted(rows, key=lambda row: (row.number, row.created, row.facts.get("frame", 0))):
        own = [one for one in results if one.image_id == row.id]
        frames = {"frames": row.facts.get("frames", 1), "frame": row.facts.get("frame", 1)}
        frame_of = files.get(row.facts.get("frame_of", ""))
        about = {**_plain(row), **frames, "frame_of": frame_of, "results": own}
        found.append(ImageOut.model_validate(about, extra="ignore"))
    return found


def _told(got: Ingested) -> UploadOut:
    return UploadOut(
        studies=[UploadedStudy.model_validate(one) for one in got.studies],
        jobs=list(got.jobs),
        refused=[RefusalOut.model_validate(one) for one in got.refused],
    )


def _progress(session: Session, study_id: str) -> tuple[str, dict[str, object], bool]:
    counted = session.execute(
        select(Job.state, func.count(), func.sum(Job.version))
        .join(StudyImage, StudyImage.id == Job.image_id)
        .where(StudyImage.study_id == study_id)
        .group_by(Job.state)
    ).all()
    states: dict[str, int] = {state: number for state, number, _ in counted}
    version = sum(int(versions) for _, _, versions in counted)
    status = session.scalar(select(Study.status).where(Study.id == study_id)) or "deleted"
    done = sum(number for state, number in states.items() if state not in OPEN)
    total = sum(states.values())
    return str(version), {"status": status, "done": done, "total": total, "states": states}, done == total


def _plain(row: StudyImage | Result) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
