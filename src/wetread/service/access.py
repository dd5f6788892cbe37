"""Who asks, and whether they may: the dependency that every route but the public ones declares.

Decided here: a route states the role and the scope that it needs, and a test walks over all routes and fails on one
that states nothing; a log-in by cookie must send its CSRF token with everything that changes something; what a user
may not see does not exist for that user, so that identifiers cannot be found out by trying.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service import accounts
from wetread.service.accounts import Principal
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.dicom_json import is_uid
from wetread.service.problems import Problem
from wetread.service.tables import Draft, Job, ReportObject, Result, Study, StudyImage, Workitem

__all__ = [
    "COOKIE",
    "CSRF_HEADER",
    "PUBLIC",
    "Access",
    "Admin",
    "Annotator",
    "Here",
    "Reader",
    "actor",
    "needs",
    "own_draft",
    "seen_image",
    "seen_job",
    "seen_report_objects",
    "seen_result",
    "seen_study",
    "seen_workitem",
]

COOKIE = "wetread_session"
CSRF_HEADER = "X-CSRF-Token"
PUBLIC = frozenset(
    {
        "/",
        "/assets/{name:path}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/login",
        "/login/openid",
        "/login/openid/back",
        "/api/v1/openapi.json",
        "/api/v1/session",
        "/api/v1/session/one-time",
        "/api/v1/session/ways",
    }
)
"""Routes that somebody who is not logged in may use."""

_SAFE = ("GET", "HEAD", "OPTIONS")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _here(request: Request) -> Service:
    # Not a plain function: each of those waits for a thread of its own, and there is nothing here to wait for.
    return _service(request)


Here = Annotated[Service, Depends(_here)]
"""The installation that a request is for."""


@dataclass(frozen=True)
class Access:
    """What a route needs: ``role``, and the ``scope`` of a token (empty: ``read`` for looking, else ``write``)."""

    role: str
    scope: str = ""

    def check(self, request: Request) -> Principal:
        """Find out who asks, and whether they may.

        Raises:
            Problem: ``not_logged_in``, ``csrf``, ``forbidden``, ``too_many``.
        """
        who = _who(request)
        request.state.user = who.name
        wait = request.app.state.rate.wait_s(who.user_id)
        if wait:
            raise Problem("too_many", "Too many requests.", retry_after_s=int(wait) + 1)
        scope = self.scope or ("read" if request.method in _SAFE else "write")
        if not who.may(self.role, scope):
            raise Problem("forbidden", f"This needs the role {self.role} and, for tokens, the scope {scope}.")
        return who


Reader = Annotated[Principal, Depends(Access("reader").check)]
Annotator = Annotated[Principal, Depends(Access("annotator").check)]
Admin = Annotated[Principal, Depends(Access("admin", "admin").check)]


def actor(request: Request, who: Principal | None = None) -> Actor:
    """Who acts, for the audit log."""
    return Actor("nobody" if who is None else who.name, getattr(request.state, "request_id", ""))


def seen_study(session: Session, who: Principal, study_id: str) -> Study:
    """A study that this user sees.

    Raises:
        Problem: ``not_found``: there is none, or it is in another worklist.
    """
    study = session.get(Study, study_id)
    if study is None or not who.sees(study.tray):
        raise Problem("not_found", "No such study.")
    return study


def seen_image(session: Session, who: Principal, image_id: str) -> tuple[StudyImage, Study]:
    """An image that this user sees, with its study. Raises as :func:`seen_study`."""
    image = session.get(StudyImage, image_id)
    if image is None:
        raise Problem("not_found", "No such image.")
    return image, seen_study(session, who, image.study_id)


def seen_result(session: Session, who: Principal, result_id: str) -> tuple[Result, Study]:
    """A result of an image that this user sees, with its study. Raises as :func:`seen_study`."""
    result = session.get(Result, result_id)
    if result is None:
        raise Problem("not_found", "No such result.")
    return result, seen_image(session, who, result.image_id)[1]


def seen_job(session: Session, who: Principal, job_id: str, *, change: bool = False) -> Job:
    """A job on an image that this user sees; to ``change`` it, it must be the user's own, or the user an admin."""
    job = session.get(Job, job_id)
    if job is None:
        raise Problem("not_found", "No such job.")
    seen_image(session, who, job.image_id)
    if change and job.user_id != who.user_id and who.role != "admin":
        raise Problem("forbidden", "This job was asked for by somebody else.")
    return job


def seen_workitem(session: Session, who: Principal, uid: str, *, change: bool = False) -> Workitem:
    """A workitem of a worklist that this user sees; to ``change`` it, the user must have asked for it, or be an admin.

    Raises:
        Problem: ``not_found``, ``forbidden``; ``gone``: it was deleted with its study.
    """
    row = session.scalar(select(Workitem).where(Workitem.uid == uid)) if is_uid(uid) else None
    if row is None or not who.sees(row.tray):
        raise Problem("not_found", "No such workitem.")
    if row.gone:
        raise Problem("gone", "The workitem was deleted with its study.")
    if change and row.user_id != who.user_id and who.role != "admin":
        raise Problem("forbidden", "This workitem was asked for by somebody else.")
    return row


def seen_report_objects(
    session: Session, who: Principal, uids: tuple[str, str, str]
) -> list[tuple[ReportObject, Study]]:
    """The DICOM reports of a study and series, or one ``(study, series, instance)`` of them, that this user sees.

    Raises:
        Problem: ``not_found``: none.
    """
    study, series, instance = uids
    chosen = (
        select(ReportObject, Study)
        .join(Result, Result.id == ReportObject.result_id)
        .join(StudyImage, StudyImage.id == Result.image_id)
        .join(Study, Study.id == StudyImage.study_id)
        .where(Study.study_uid == study, ReportObject.series_uid == series)
        .order_by(ReportObject.uid)
    )
    if not all(is_uid(uid) for uid in (study, series, instance or study)):
        raise Problem("not_found", "No such instance.")
    rows = session.execute(chosen.where(ReportObject.uid == instance) if instance else chosen)
    found = [(row, owner) for row, owner in rows if who.sees(owner.tray)]
    if not found:
        raise Problem("not_found", "No such instance.")
    return found


def own_draft(session: Session, who: Principal, study_id: str) -> Draft | None:
    """The draft of this user for a study."""
    mine = select(Draft).where(Draft.study_id == study_id, Draft.user_id == who.user_id)
    return session.scalars(mine).one_or_none()


def _who(request: Request) -> Principal:
    service = _service(request)
    secret = request.headers.get("Authorization", "")
    if secret[:7].lower() == "bearer ":
        with service.database.read() as session:
            found = accounts.of_token(session, secret[7:].strip())
        if found is None:
            raise Problem("not_logged_in", "The token is unknown, expired or revoked.", "Make a new token.")
        return found
    cookie = request.cookies.get(COOKIE, "")
    with service.database.read() as session:
        found = accounts.of_cookie(session, cookie) if cookie else None
    if found is None:
        raise Problem("not_logged_in", "You are not logged in.")
    if request.method not in _SAFE and request.headers.get(CSRF_HEADER) != accounts.csrf_of(cookie):
        raise Problem("csrf", "The request does not come from a page of this service.")
    return found


def needs(route: Any) -> Access | None:
    """What a route declares to need, None for one that declares nothing; for the test of all routes."""
    dependant = getattr(route, "dependant", None)
    for dependency in getattr(dependant, "dependencies", ()):
        owner = getattr(dependency.call, "__self__", None)
        if isinstance(owner, Access):
            return owner
    return None
