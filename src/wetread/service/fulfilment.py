"""How a workitem that this service performs comes to its end: with the last of the reads that it waits for.

Decided here: a workitem waits for every read of its study by its reader, whoever asked for one; it is completed when
none is open and at least one was made, and then says how many were not, and why; it is cancelled when none was made.
This happens in the transaction that ends the read, so a worker that dies leaves no workitem behind in progress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.imaging.header import quiet
from wetread.service import audit_log
from wetread.service.audit_log import Actor
from wetread.service.dicom_json import write
from wetread.service.dicom_time import now_text
from wetread.service.report_objects import name_reports
from wetread.service.tables import JOB_STATES, Job, Study, StudyImage, Workitem
from wetread.service.workitem_rules import STATION
from wetread.service.workitem_states import CANCELED, COMPLETED, IN_PROGRESS

if TYPE_CHECKING:
    from wetread.pacs.performed import Output

__all__ = ["SERVICE", "end", "settle"]

SERVICE = Actor("service")
"""Who acts where the service does something by itself."""
_OPEN = JOB_STATES[:2]


def settle(session: Session, study: Study) -> None:
    """End the workitems of a study, locked by the caller, whose reads have ended."""
    waiting = select(Workitem).where(Workitem.study_id == study.id, Workitem.state == IN_PROGRESS, Workitem.ours)
    for row in session.scalars(waiting.order_by(Workitem.id).with_for_update()).all():
        reads = session.scalars(
            select(Job)
            .join(StudyImage, StudyImage.id == Job.image_id)
            .where(StudyImage.study_id == study.id, Job.kind == "read", Job.question == row.question)
            .order_by(Job.created, Job.id)
        ).all()
        if any(job.state in _OPEN for job in reads):
            continue
        done = [job for job in reads if job.state == "done"]
        outputs = name_reports(session, study, done)
        bare = len(done) - len(outputs)
        remark = f"{why_not(reads)} {bare} of {len(done)} reads have no DICOM report." if bare else why_not(reads)
        end(session, row, outputs, "" if done else why_not(reads), remark=remark.strip() if done else "")


def end(session: Session, row: Workitem, outputs: Sequence[Output] = (), reason: str = "", *, remark: str = "") -> None:
    """Complete a workitem of ours, or cancel it for ``reason``; ``remark``: what else there is to say."""
    from wetread.pacs.performed import performed

    begun = now_text(row.begun) if row.begun else now_text()
    work = f"Read by {row.reader}" if row.reader else "Read by an algorithm"
    with quiet():
        told = performed(STATION, work, (begun, now_text()), outputs, reason)
        procedure = told.UnifiedProcedureStepPerformedProcedureSequence[0]
        procedure.PerformedProcedureStepDescription = work[:64]
        if remark:
            procedure.CommentsOnThePerformedProcedureStep = remark[:1024]
    row.dataset = {**row.dataset, **write(told)}
    row.state = CANCELED if reason else COMPLETED
    session.flush()
    detail = {"state": row.state, "outputs": len(outputs)}
    audit_log.append(session, SERVICE, "end workitem", row.id, detail)


def why_not(reads: Sequence[Job]) -> str:
    """Which reads were not made, in words: by the codes of their jobs, which name nobody."""
    if not reads:
        return "The study has no image that is read."
    left = Counter(job.code or job.state for job in reads if job.state != "done")
    if not left:
        return ""
    parts = ", ".join(f"{code} {number}" for code, number in sorted(left.items()))
    return f"{sum(left.values())} of {len(reads)} images were not read ({parts})."
