"""One image: its pixels, what a worker is asked to find in it, measurements that a person drew."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from sqlalchemy import select

from wetread.service import audit_log
from wetread.service.access import Annotator, Here, Reader, actor, seen_image
from wetread.service.accounts import Principal
from wetread.service.context import Service
from wetread.service.frames import MOST_FRAMES
from wetread.service.ingest import read_question
from wetread.service.jobs import Asked, enqueue
from wetread.service.measuring import measured
from wetread.service.methods import METHODS
from wetread.service.problems import Problem
from wetread.service.schemas import (
    AnnotationBody,
    AnnotationOut,
    ExplainBody,
    JobOut,
    ReadBody,
    SegmentBody,
    SimilarBody,
)
from wetread.service.stacks import frame_as_dicom, known_frame, name_frame, require_single, store_frame
from wetread.service.tables import Annotation, StudyImage, now

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["images"])
_TYPES = {"DICOM": "application/dicom", "PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff"}
_DICOM = {200: {"content": {"application/dicom": {"schema": {"type": "string", "format": "binary"}}}}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANY = {200: {"content": {kind: _BINARY for kind in (*_TYPES.values(), "application/octet-stream")}}}
ImageId = Annotated[str, Path(max_length=32)]
Frame = Annotated[int, Path(ge=1, le=MOST_FRAMES)]


@router.get("/images/{image_id}/dicom", response_class=Response, responses=_DICOM)  # type: ignore[arg-type]
def dicom(image_id: ImageId, service: Here, who: Reader, request: Request) -> Response:
    """The image as DICOM, for the viewer: the file itself, or a Secondary Capture made of a picture.

    Of a TIFF of several pages it is the first one; a DICOM file of several frames is given whole.
    """
    image = _viewed(service, who, image_id, request, "view image")
    data = service.blobs.read(image.sha256) if image.kind == "DICOM" else frame_as_dicom(service, image, 1)
    return _file(data, "application/dicom", f"{image.id}.dcm")


@router.get("/images/{image_id}/frames/{frame}/dicom", response_class=Response, responses=_DICOM)  # type: ignore[arg-type]
def frame_dicom(image_id: ImageId, frame: Frame, service: Here, who: Reader, request: Request) -> Response:
    """One frame or page of a file that holds several, counted from 1, as DICOM with this frame alone."""
    image = _viewed(service, who, image_id, request, "view image", {"frame": frame})
    return _file(frame_as_dicom(service, image, frame), "application/dicom", f"{image.id}-{frame}.dcm")


@router.post("/images/{image_id}/frames/{frame}/reads", status_code=202)
def ask_frame_read(
    image_id: ImageId, frame: Frame, body: ReadBody, service: Here, who: Reader, request: Request
) -> JobOut:
    """Ask for a read of a frame that was not read at first; it becomes an image of the study, that of the job."""
    asked = read_question(service, body.reader)
    with service.database.read() as session:
        image, _ = seen_image(session, who, image_id)
        known = known_frame(session, image, frame) is not None
    header = None if known else store_frame(service, image, frame)
    with service.database.write() as session:
        image, study = seen_image(session, who, image_id)
        cut = known_frame(session, image, frame) if header is None else name_frame(service, session, image, header)
        if cut is None:
            raise Problem("not_found", "The study was deleted meanwhile.")
        job = enqueue(session, asked, cut, who.user_id)
        if job.state == "queued":
            study.status, study.changed = "open", now()
        audit_log.append(session, actor(request, who), "ask read", cut.id, {"job": job.id, "frame": frame})
        told = JobOut.model_validate(job, extra="ignore")
    service.bell.ring()
    return told


@router.get("/images/{image_id}/file", response_class=Response, responses=_ANY)  # type: ignore[arg-type]
def original(image_id: ImageId, service: Here, who: Reader, request: Request) -> Response:
    """The file as it was uploaded."""
    image = _viewed(service, who, image_id, request, "export image")
    kind = _TYPES.get(image.kind, "application/octet-stream")
    return _file(service.blobs.read(image.sha256), kind, f"{image.id}.{image.kind.lower()}")


@router.post("/images/{image_id}/reads", status_code=202)
def ask_read(image_id: ImageId, body: ReadBody, service: Here, who: Reader, request: Request) -> JobOut:
    """Ask for a read by a reader; asked twice, it is one job."""
    entry = service.catalog.reader(body.reader or service.settings.service.reader)
    points = {point.name for point in service.catalog.card_of(entry).operating_points}
    if body.operating_point and body.operating_point not in points:
        message = f"expected an operating point among {', '.join(sorted(points))}"
        raise Problem("invalid", message, "Take one of them.")
    parameters = {"operating_point": body.operating_point} if body.operating_point else {}
    return _ask(service, who, image_id, Asked("read", entry, parameters), request)


@router.post("/images/{image_id}/explanations", status_code=202)
def ask_explanation(image_id: ImageId, body: ExplainBody, service: Here, who: Reader, request: Request) -> JobOut:
    """Ask for the heat map of one label by one method."""
    entry = service.catalog.reader(body.reader or service.settings.service.reader)
    labels = service.catalog.card_of(entry).labels
    if body.label not in labels or body.method not in METHODS:
        message = f"expected a label of {', '.join(labels)} and a method of {', '.join(METHODS)}"
        raise Problem("invalid", message, "Take one of each.")
    return _ask(service, who, image_id, Asked("explain", entry, {"label": body.label, "method": body.method}), request)


@router.post("/images/{image_id}/masks", status_code=202)
def ask_masks(image_id: ImageId, body: SegmentBody, service: Here, who: Reader, request: Request) -> JobOut:
    """Ask for organ masks and sizes."""
    entry = service.catalog.segmenter(body.segmenter or service.settings.service.segmenter)
    return _ask(service, who, image_id, Asked("segment", entry), request)


@router.post("/images/{image_id}/similar", status_code=202)
def ask_similar(image_id: ImageId, body: SimilarBody, service: Here, who: Reader, request: Request) -> JobOut:
    """Ask for similar past cases, the same patient left out."""
    if not service.settings.service.index:
        hint = "Build one with `wetread index build` and set service.index."
        raise Problem("unavailable", "There is no index of past cases.", hint)
    entry = service.catalog.reader(body.reader or service.settings.service.reader)
    return _ask(service, who, image_id, Asked("similar", entry, {"k": body.k}), request)


@router.get("/images/{image_id}/annotations")
def list_annotations(image_id: ImageId, service: Here, who: Reader) -> list[AnnotationOut]:
    """Measurements and marks on an image."""
    with service.database.read() as session:
        seen_image(session, who, image_id)
        rows = session.scalars(select(Annotation).where(Annotation.image_id == image_id).order_by(Annotation.created))
        return [_annotation(row, who) for row in rows]


@router.post("/images/{image_id}/annotations", status_code=201)
def annotate(image_id: ImageId, body: AnnotationBody, service: Here, who: Annotator, request: Request) -> AnnotationOut:
    """Store a measurement; its value is computed here, from the spacing that the file states."""
    with service.database.write() as session:
        image, _ = seen_image(session, who, image_id)
        if body.frame > image.facts.get("frames", 1):
            raise Problem("invalid", "expected a frame of the image, got one beyond its last", "Draw it again.")
        value, unit = measured(body.kind, body.points, image.facts.get("spacing_mm"))
        data: dict[str, Any] = {**body.model_dump(mode="json", exclude={"kind"}), "value": value, "unit": unit}
        row = Annotation(image_id=image.id, user_id=who.user_id, kind=body.kind, data=data)
        session.add(row)
        session.flush()
        audit_log.append(session, actor(request, who), "annotate", image.id, {"kind": body.kind})
        return _annotation(row, who)


@router.delete("/annotations/{annotation_id}", status_code=204)
def remove_annotation(
    annotation_id: Annotated[str, Path(max_length=32)], service: Here, who: Annotator, request: Request
) -> None:
    """Remove your own measurement."""
    with service.database.write() as session:
        row = session.get(Annotation, annotation_id)
        if row is None:
            raise Problem("not_found", "No such annotation.")
        seen_image(session, who, row.image_id)
        if row.user_id != who.user_id and who.role != "admin":
            raise Problem("forbidden", "Somebody else drew this.")
        session.delete(row)
        audit_log.append(session, actor(request, who), "remove annotation", row.image_id)


def _viewed(
    service: Service, who: Principal, image_id: str, request: Request, action: str, detail: dict[str, Any] | None = None
) -> StudyImage:
    with service.database.write() as session:
        image, _ = seen_image(session, who, image_id)
        audit_log.append(session, actor(request, who), action, image.id, detail)
        return image


def _ask(service: Service, who: Principal, image_id: str, asked: Asked, request: Request) -> JobOut:
    with service.database.write() as session:
        image, study = seen_image(session, who, image_id)
        require_single(image)
        job = enqueue(session, asked, image, who.user_id)
        if asked.kind == "read" and job.state == "queued":
            study.status = "open"
        audit_log.append(session, actor(request, who), f"ask {asked.kind}", image.id, {"job": job.id})
        told = JobOut.model_validate(job, extra="ignore")
    service.bell.ring()
    return told


def _annotation(row: Annotation, who: Principal) -> AnnotationOut:
    return AnnotationOut(
        id=row.id,
        image_id=row.image_id,
        kind=row.kind,
        mine=row.user_id == who.user_id,
        created=row.created,
        **row.data,
    )


def _file(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
