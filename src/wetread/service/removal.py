"""Deleting a study: its rows, and the stored files that nothing else needs.

Decided here: files go within the transaction that removes the rows, and whoever adds a row looks within its own
transaction that the file is still there; so a file that was uploaded again at the same moment is never missing.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from wetread.service.blobs import BlobStore
from wetread.service.context import Service
from wetread.service.problems import Problem
from wetread.service.tables import Blob, Picture, ReportObject, Result, Study, StudyImage, Workitem
from wetread.service.upsert import insert_new

__all__ = ["forget_files", "remove_study", "require_files"]


def remove_study(session: Session, store: BlobStore, study: Study) -> int:
    """Delete a study with all that was found of it; return how many stored files went with it.

    Of the workitems that asked for its reads only the UIDs stay, so that nobody waits for them.
    """
    session.refresh(study, with_for_update=True)  # nobody makes a report of it, or claims it, meanwhile
    own = select(StudyImage.id).where(StudyImage.study_id == study.id)
    hashes = set(session.scalars(select(StudyImage.sha256).where(StudyImage.study_id == study.id)))
    hashes |= set(
        session.scalars(
            select(Picture.sha256).join(Result, Result.id == Picture.result_id).where(Result.image_id.in_(own))
        )
    )
    made = select(ReportObject.sha256).join(Result, Result.id == ReportObject.result_id)
    hashes |= {sha256 for sha256 in session.scalars(made.where(Result.image_id.in_(own))) if sha256}
    nothing = {"gone": True, "dataset": {}, "patient_id": "", "patient_name": "", "label": "", "lock": None}
    session.execute(update(Workitem).where(Workitem.study_id == study.id).values(**nothing))
    session.delete(study)
    session.flush()
    removed = 0
    for sha256 in sorted(hashes):
        used = session.scalar(select(StudyImage.id).where(StudyImage.sha256 == sha256).limit(1))
        used = used or session.scalar(select(Picture.name).where(Picture.sha256 == sha256).limit(1))
        if used or session.scalar(select(ReportObject.uid).where(ReportObject.sha256 == sha256).limit(1)):
            continue
        session.execute(delete(Blob).where(Blob.sha256 == sha256))
        store.path(sha256).unlink(missing_ok=True)
        removed += 1
    return removed


def require_files(store: BlobStore, hashes: set[str]) -> None:
    """Refuse to name files that have gone meanwhile; to be called within the transaction that names them.

    Raises:
        Problem: ``unavailable``: sending them again will do.
    """
    if any(not store.path(sha256).exists() for sha256 in hashes):
        raise Problem("unavailable", "A file was deleted while it was stored again.", "Send it again.", 1)


def forget_files(service: Service, hashes: set[str]) -> None:
    """Remove stored files whose upload failed before a row named them, so that a full disk is not filled further."""
    with service.database.write() as session:
        for sha256 in sorted(hashes):
            if session.get(Blob, sha256) is not None:
                continue
            if not service.database.is_sqlite:
                # Writers of SQLite are alone; here another upload may be about to name the file, and waits for us.
                if not insert_new(session, Blob, {"sha256": sha256, "size": 0, "kind": ""}, ["sha256"]):
                    continue
                session.execute(delete(Blob).where(Blob.sha256 == sha256))
            service.blobs.path(sha256).unlink(missing_ok=True)
