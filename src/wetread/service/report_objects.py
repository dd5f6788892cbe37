"""The DICOM reports (TID 1500) that stand for reads in a workitem, and that other systems fetch.

Decided here: a report gets its UIDs when a workitem names it and is made when it is first fetched; then it is kept, so
that one UID is one file for ever, whatever version of wetread answers later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service.context import Service
from wetread.service.problems import Problem
from wetread.service.removal import require_files
from wetread.service.tables import Blob, Job, ReportObject, Result, Study, StudyImage
from wetread.service.upsert import insert_new
from wetread.types import Read

if TYPE_CHECKING:
    from wetread.pacs.performed import Output

__all__ = ["REPORT_CLASS", "name_reports", "report_file"]

REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
"""Comprehensive 3D SR Storage."""


def name_reports(session: Session, study: Study, done: Sequence[Job]) -> list[Output]:
    """Name the report of each read that was made.

    There is none of an image without a UID of its own, and of a read that an older version wrote in another form.
    """
    from wetread.pacs.performed import Output

    outputs = []
    for job in done:
        result, image = session.get(Result, job.result_id), session.get(StudyImage, job.image_id)
        if result is None or image is None or not image.facts.get("instance_uid"):
            continue
        row = session.scalar(select(ReportObject).where(ReportObject.result_id == result.id))
        row = row or _named(session, study, image, result)
        if row is None:
            continue
        outputs.append(Output(str(study.study_uid), row.series_uid, REPORT_CLASS, row.uid))
    return outputs


def report_file(service: Service, uid: str) -> bytes:
    """The file of a report, made now if nobody fetched it before.

    Raises:
        Problem: ``not_found``: the study was deleted meanwhile.
        ImageRefused: the header of its image cannot be derived from.
    """
    with service.database.read() as session:
        row = session.get(ReportObject, uid)
        kept = row.sha256 if row is not None else None
        result = session.get(Result, row.result_id) if row is not None else None
        image = session.get(StudyImage, result.image_id) if result is not None else None
    if row is None or result is None or image is None:
        raise Problem("not_found", "No such instance.")
    return service.blobs.read(kept or _keep(service, row, _made(service, row, result, image), image.study_id))


def _named(session: Session, study: Study, image: StudyImage, result: Result) -> ReportObject | None:
    from pydicom.dataset import Dataset

    from wetread.pacs.facts import ResultFacts, instance_uid, series_uid

    try:
        facts, header = ResultFacts(Read.model_validate(result.record)), Dataset()
    except ValidationError:
        return None
    header.SOPInstanceUID, header.StudyInstanceUID = image.facts["instance_uid"], study.study_uid
    # Uploads of one image to two worklists are two results of one content: the second is told by its place.
    uid, series = instance_uid(facts, header, "sr"), series_uid(facts, header, "sr")
    values = {"uid": uid, "series_uid": series, "result_id": result.id}
    if not insert_new(session, ReportObject, values, ["uid"]):
        values["uid"] = _other_uid(uid, result.id)
        insert_new(session, ReportObject, values, ["uid"])
    return session.get_one(ReportObject, values["uid"])


def _other_uid(uid: str, result_id: str) -> str:
    """The UID of a report whose usual one is that of the same read in another worklist."""
    import uuid

    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{uid} {result_id}').int}"


def _made(service: Service, row: ReportObject, result: Result, image: StudyImage) -> bytes:
    from wetread.pacs.derived import encode, source_header
    from wetread.pacs.facts import ResultFacts
    from wetread.pacs.structured_report import structured_report

    header = source_header(service.blobs.path(image.sha256))
    report = structured_report(ResultFacts(Read.model_validate(result.record)), header)
    report.SOPInstanceUID, report.SeriesInstanceUID = row.uid, row.series_uid
    return encode(lambda: report, "the image", "a report")[1]


def _keep(service: Service, row: ReportObject, made: bytes, study_id: str) -> str:
    """Keep a report unless somebody was faster; return the sha256 of what is kept."""
    stored = service.blobs.put(made)
    with service.database.write() as session:
        session.scalars(select(Study.id).where(Study.id == study_id).with_for_update()).one_or_none()
        mine = session.scalar(select(ReportObject).where(ReportObject.uid == row.uid).with_for_update())
        if mine is None:
            raise Problem("not_found", "No such instance.")
        if mine.sha256 is None:
            insert_new(session, Blob, {"sha256": stored.sha256, "size": len(made), "kind": "DICOM"}, ["sha256"])
            require_files(service.blobs, {stored.sha256})
            mine.sha256 = stored.sha256
        return mine.sha256
