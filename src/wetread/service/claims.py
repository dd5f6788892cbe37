"""Workitems that this service begins: those whose study has come and whose time has.

Decided here: a workitem is begun when it is created or updated, when its study is uploaded, and once a minute by a
worker, which makes up for a server that died between and for a start that lies in the future; studies are locked before
workitems, and a worker begins one in each transaction, so that two never wait for each other in a circle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from wetread.errors import WetreadError
from wetread.service import audit_log
from wetread.service.context import Service
from wetread.service.dicom_json import tag
from wetread.service.fulfilment import SERVICE, end, settle
from wetread.service.jobs import Asked, enqueue
from wetread.service.problems import Problem, problem_of
from wetread.service.tables import Study, StudyImage, Workitem, now
from wetread.service.workitem_rules import INCOMPLETE
from wetread.service.workitem_states import IN_PROGRESS, SCHEDULED

__all__ = ["begin", "begin_due", "new_lock", "read_asked"]


def read_asked(service: Service, reader: str, operating_point: str) -> Asked:
    """What a workitem asks of each image; the reader of the settings where none is named.

    Raises:
        Problem: ``bad_request``: no such reader or operating point.
    """
    try:
        entry = service.catalog.reader(reader or service.settings.service.reader)
    except WetreadError as error:
        problem = problem_of(error)
        raise Problem("bad_request", f"expected a reader of this service: {problem.message}", problem.hint) from None
    points = {point.name for point in service.catalog.card_of(entry).operating_points}
    if operating_point and operating_point not in points:
        raise Problem("bad_request", f"expected an operating point among {', '.join(sorted(points))}, got another")
    return Asked("read", entry, {"operating_point": operating_point} if operating_point else {})


def new_lock() -> str:
    """A transaction UID that nobody can guess."""
    import uuid

    return f"2.25.{uuid.uuid4().int}"


def begin(service: Service, session: Session, studies: Sequence[str] = (), workitem: str = "") -> int:
    """Begin what is due, for ``studies`` or for one ``workitem``; return how many. The caller rings the bell."""
    due = _due()
    due = due.where(Study.id.in_(studies)) if studies else due.where(Workitem.id == workitem)
    found = {row_id for row_id, _ in session.execute(due)}
    _extend(service, session, studies)
    return sum(_begin(service, session, row_id) for row_id in sorted(found))


def begin_due(service: Service) -> int:
    """Begin all that is due, each in a transaction of its own; return how many."""
    with service.database.read() as session:
        found = sorted({row_id for row_id, _ in session.execute(_due())})
    begun = 0
    for row_id in found:
        with service.database.write() as session:
            begun += _begin(service, session, row_id)
    if begun:
        service.bell.ring()
    return begun


def _due() -> Any:
    """Workitems that wait, with the studies that they may mean."""
    named = or_(Workitem.patient_id == "", Workitem.patient_id == Study.patient_id)
    means = and_(Study.tray == Workitem.tray, Study.study_uid == Workitem.study_uid, named)
    waits = (Workitem.state == SCHEDULED, Workitem.ours, Workitem.gone.is_(False), Workitem.readiness != INCOMPLETE)
    return select(Workitem.id, Study.id).join(Study, means).where(*waits, Workitem.start <= now())


def _begin(service: Service, session: Session, row_id: str) -> bool:
    studies = sorted(study_id for _, study_id in session.execute(_due().where(Workitem.id == row_id)))
    locked = session.scalars(select(Study).where(Study.id.in_(studies)).order_by(Study.id).with_for_update()).all()
    mine = select(Workitem).where(Workitem.id == row_id, Workitem.state == SCHEDULED)
    row = session.scalar(mine.with_for_update().execution_options(populate_existing=True))
    if row is None or not locked:
        return False
    row.state, row.lock, row.begun = IN_PROGRESS, new_lock(), now()
    row.readiness = "READY"
    row.dataset = {**row.dataset, tag("InputReadinessState"): {"vr": "CS", "Value": ["READY"]}}
    row.study_id = locked[0].id
    session.flush()
    audit_log.append(session, SERVICE, "claim workitem", row.id, {"study": locked[0].id})
    if len(locked) > 1:
        end(session, row, reason=f"{len(locked)} studies of several patients have this UID; name the patient.")
        return True
    try:
        asked = read_asked(service, row.reader, row.operating_point)
    except Problem as problem:
        end(session, row, reason=problem.message)
        return True
    row.reader, row.question = asked.entry.card.name, asked.question
    _ask(session, row, locked[0], asked)
    settle(session, locked[0])
    return True


def _extend(service: Service, session: Session, studies: Sequence[str]) -> None:
    """Have the images that came to a study read by the workitems that are at it."""
    at_it = (Workitem.study_id.in_(studies), Workitem.state == IN_PROGRESS, Workitem.ours)
    rows = session.scalars(select(Workitem).where(*at_it).order_by(Workitem.id)).all() if studies else []
    for row in rows:
        with contextlib.suppress(Problem):  # its reader has gone: the reads under way decide
            asked = read_asked(service, row.reader, row.operating_point)
            _ask(session, row, session.get_one(Study, row.study_id), asked)


def _ask(session: Session, row: Workitem, study: Study, asked: Asked) -> None:
    """Queue the reads; those that somebody asked for before are the same jobs."""
    images = session.scalars(select(StudyImage).where(StudyImage.study_id == study.id).order_by(StudyImage.id)).all()
    single = [image for image in images if image.facts.get("frames", 1) == 1]
    jobs = [enqueue(session, asked, image, row.user_id) for image in single]
    if any(job.state == "queued" for job in jobs):
        study.status, study.changed = "open", now()
    session.flush()
