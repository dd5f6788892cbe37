"""What other systems do with workitems: create, update, claim, end them, ask for an end; each a line of the audit log.

Decided here: who claims a workitem is known by its transaction UID alone, as PS3.4 CC.1.1 has it, and any user of the
worklist may be a performer; before that only who asked for it, or an admin, may change it or have it cancelled. What
this service performs it cancels when asked; a performer elsewhere cannot be told, so such a request is refused.
"""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service import audit_log, jobs
from wetread.service.access import seen_workitem
from wetread.service.accounts import Principal
from wetread.service.audit_log import Actor
from wetread.service.claims import begin, new_lock, read_asked
from wetread.service.context import Service
from wetread.service.dicom_json import Json, is_uid, items, tag, text
from wetread.service.fulfilment import end
from wetread.service.problems import Problem
from wetread.service.tables import Job, Study, StudyImage, Workitem, new_id, now
from wetread.service.upsert import insert_new
from wetread.service.workitem_rules import as_created, as_ended, as_updated, wanted
from wetread.service.workitem_states import (
    ALREADY,
    CANCELED,
    COMPLETED,
    FINAL,
    IN_PROGRESS,
    SCHEDULED,
    already,
    check_lock,
    decide,
)

__all__ = ["Caller", "cancel", "change_state", "create", "update"]

_NOT_CLAIMED = "The target URI did not reference a claimed Workitem."
_INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem."
_ASKED = ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence", "ContactURI", "ContactDisplayName")
_LONGEST_REASON = 1024


class Caller:
    """Who asks, in which transaction of which service."""

    def __init__(self, service: Service, session: Session, who: Principal, request_id: str) -> None:
        self.service, self.session, self.who = service, session, who
        self._actor = Actor(who.name, request_id)

    def note(self, action: str, row: Workitem) -> None:
        """Write a line of the audit log."""
        audit_log.append(self.session, self._actor, action, row.id, {"state": row.state})

    def locked(self, uid: str, *, change: bool = False) -> Workitem:
        """A workitem that the user sees, held until the end of the transaction; jobs and study are locked before it."""
        row = seen_workitem(self.session, self.who, uid, change=change)
        if row.study_id is not None and row.state == IN_PROGRESS and row.ours:
            of_study = select(StudyImage.id).where(StudyImage.study_id == row.study_id)
            reads = select(Job).where(Job.image_id.in_(of_study), Job.kind == "read", Job.question == row.question)
            self.session.scalars(reads.order_by(Job.id).with_for_update()).all()
            self.session.scalars(select(Study).where(Study.id == row.study_id).with_for_update()).one_or_none()
        self.session.refresh(row, with_for_update=True)
        return seen_workitem(self.session, self.who, uid, change=change)


def create(caller: Caller, uid: str, data: Json) -> bool:
    """Add a workitem, and begin it if its study is here; return whether it was changed in any way.

    Args:
        caller: Who asks.
        uid: The UID of the address; empty where the data set names it.
        data: What was sent.

    Raises:
        Problem: ``bad_request``: not what PS3.4 requires. ``conflict``: there is one with this UID.
            ``forbidden``: the worklist is not this user's.
    """
    named = text(data, "SOPInstanceUID")
    uid = uid or named
    if not is_uid(uid) or named not in ("", uid):
        raise Problem("bad_request", "expected one UID for the workitem, in the address or in SOP Instance UID")
    tray = "main" if caller.who.sees("main") or not caller.who.trays else caller.who.trays[0]
    kept, modified = as_created(data, tray)
    asked = wanted(kept)
    _check(caller, asked.tray, asked.ours, asked.reader, asked.operating_point)
    values = {"id": new_id(), "uid": uid, "user_id": caller.who.user_id, "dataset": kept, **asdict(asked)}
    if not insert_new(caller.session, Workitem, values, ["uid"]):
        raise Problem("conflict", "The Target Workitem already exists.", "Choose another UID.")
    row = caller.session.scalars(select(Workitem).where(Workitem.uid == uid)).one()
    caller.note("create workitem", row)
    begin(caller.service, caller.session, workitem=row.id)
    return modified


def update(caller: Caller, uid: str, lock: str, change: Json) -> None:
    """Change attributes of a workitem: before it is claimed, or with its transaction UID.

    Raises:
        Problem: ``bad_request``: it has ended, another or no transaction UID, attributes that cannot be set.
            ``conflict``: a transaction UID for what is not claimed.
    """
    row = caller.locked(uid)
    if row.state in FINAL:
        message = f"The workitem is {row.state} and may no longer be updated (C300)."
        raise Problem("bad_request", message, warning=_INCONSISTENT)
    if row.state == SCHEDULED:
        if lock:
            raise Problem("conflict", "The workitem is not yet in progress (C310).", warning=_NOT_CLAIMED)
        row = caller.locked(uid, change=True)
    else:
        _held(row, lock)
    row.dataset = as_updated(row.dataset, change)
    asked = wanted(row.dataset)
    _check(caller, asked.tray, asked.ours and row.state == SCHEDULED, asked.reader, asked.operating_point)
    for name, value in asdict(asked).items():
        if name != "ours" or row.state == SCHEDULED:
            setattr(row, name, value)
    caller.session.flush()
    caller.note("update workitem", row)
    begin(caller.service, caller.session, workitem=row.id)


def change_state(caller: Caller, uid: str, asked: Json) -> str:
    """Claim, complete or cancel a workitem as its performer; return the warning to send along, empty for none.

    Raises:
        Problem: as :func:`wetread.service.workitem_states.decide` and
            :func:`wetread.service.workitem_rules.as_ended`.
    """
    row, state, lock = caller.locked(uid), text(asked, "ProcedureStepState"), text(asked, "TransactionUID")
    if decide(state, row.state, lock, row.lock) == ALREADY:
        return already(state)
    if state == IN_PROGRESS:
        row.lock, row.ours, row.begun = lock, False, now()
    else:
        row.dataset = as_ended(row.dataset, state)
    row.state = state
    caller.session.flush()
    names = {IN_PROGRESS: "claim workitem", COMPLETED: "complete workitem", CANCELED: "cancel workitem"}
    caller.note(names[state], row)
    return ""


def cancel(caller: Caller, uid: str, asked: Json) -> str:
    """Have a workitem cancelled that somebody else performs or nobody yet; return the warning to send along.

    Raises:
        Problem: ``conflict``: it is completed, or its performer cannot be told. ``forbidden``.
    """
    row = caller.locked(uid)
    if row.state == CANCELED:
        return already(CANCELED)
    if row.state == COMPLETED:
        text_ = "The UPS is already COMPLETED."
        raise Problem("conflict", "The workitem is already COMPLETED (C311).", warning=text_)
    if row.state == IN_PROGRESS and not row.ours:
        hint = "Ask its performer, who knows the Transaction UID."
        warning = "The performer cannot be contacted."
        raise Problem("conflict", "The performer cannot be contacted (C312).", hint, warning=warning)
    seen_workitem(caller.session, caller.who, uid, change=True)
    reason = text(asked, "ReasonForCancellation")[:_LONGEST_REASON] or "The requester cancelled it."
    row.lock = row.lock or new_lock()
    end(caller.session, row, reason=reason)
    _note_request(row, asked)
    caller.session.flush()
    caller.note("cancel workitem", row)
    _stop_reads(caller.session, row)
    return ""


def _check(caller: Caller, tray: str, ours: bool, reader: str, operating_point: str) -> None:
    if not caller.who.sees(tray):
        raise Problem("forbidden", "This worklist is not one of yours.", "Name one in Worklist Label (0074,1202).")
    if ours:
        read_asked(caller.service, reader, operating_point)


def _held(row: Workitem, lock: str) -> None:
    try:
        check_lock(row.state, lock, row.lock)
    except Problem as problem:
        problem.warning = _INCONSISTENT
        raise


def _note_request(row: Workitem, asked: Json) -> None:
    """Keep what the requester said beside the reason (PS3.4 table CC.2.2-1)."""
    key = tag("ProcedureStepProgressInformationSequence")
    progress = dict(row.dataset[key]["Value"][0])
    for keyword in _ASKED[:2]:
        if items(asked, keyword):
            progress[tag(keyword)] = asked[tag(keyword)]
    contact = {tag(keyword): asked[tag(keyword)] for keyword in _ASKED[2:] if items(asked, keyword)}
    if tag("ContactURI") in contact:
        progress[tag("ProcedureStepCommunicationsURISequence")] = {"vr": "SQ", "Value": [contact]}
    row.dataset = {**row.dataset, key: {"vr": "SQ", "Value": [progress]}}


def _stop_reads(session: Session, row: Workitem) -> None:
    """Cancel the reads that only this workitem waits for and that its requester asked for."""
    same = (Workitem.study_id == row.study_id, Workitem.question == row.question, Workitem.state == IN_PROGRESS)
    if row.study_id is None or session.scalar(select(Workitem.id).where(*same).limit(1)) is not None:
        return
    of_study = select(StudyImage.id).where(StudyImage.study_id == row.study_id)
    reads = select(Job).where(Job.image_id.in_(of_study), Job.kind == "read", Job.question == row.question)
    for job in session.scalars(reads.where(Job.user_id == row.user_id, Job.state.in_(jobs.OPEN)).order_by(Job.id)):
        jobs.cancel(session, job)
