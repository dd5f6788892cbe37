"""What an administrator and a monitor look at: health, metrics, the audit log."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from sqlalchemy import func, select

from wetread.errors import WetreadError
from wetread.service import audit_log
from wetread.service.access import Admin, Here
from wetread.service.database import revision
from wetread.service.schemas import AuditLine, AuditPage
from wetread.service.tables import JOB_STATES, AuditEntry, Job, Study

__all__ = ["health", "router"]

router = APIRouter(prefix="/api/v1", tags=["admin"])
health = APIRouter(include_in_schema=False)
_ROOM_BYTES = 64 << 20


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz")
def readyz(service: Here) -> JSONResponse:
    """Whether requests can be served: the database answers, is up to date, the disk has room, the receiver listens."""
    checks = {"database": False, "disk": shutil.disk_usage(service.root).free > _ROOM_BYTES}
    try:
        with service.database.read() as session:
            session.execute(select(1))
        checks["database"] = bool(revision(service.database))
    except WetreadError:
        checks["database"] = False
    if service.receiver is not None:
        checks["receiver"] = service.receiver.is_alive and service.receiver.standing().listening
    ready = all(checks.values())
    return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)


@health.get("/metrics", response_class=PlainTextResponse)
def metrics(service: Here, request: Request) -> PlainTextResponse:
    """Figures for Prometheus; by route and state, never by user or study."""
    shown = request.app.state.metrics
    with service.database.read() as session:
        counted = session.execute(select(Job.state, func.count()).group_by(Job.state))
        states: dict[str, int] = {state: number for state, number in counted}
        shown.studies.set(session.scalar(select(func.count()).select_from(Study)) or 0)
    for state in JOB_STATES:
        shown.jobs.labels(state).set(states.get(state, 0))
    if service.receiver is not None:
        shown.show_receiver(service.receiver.standing())
    text = generate_latest(shown.registry).decode()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/audit-log")
def log_lines(
    service: Here,
    who: Admin,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    target: Annotated[str, Query(max_length=96)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:
    """The audit log, newest first; ``target``: lines about one object."""
    chosen = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(AuditEntry.seq < before)
    if target:
        chosen = chosen.where(AuditEntry.object == target)
    with service.database.read() as session:
        lines = [AuditLine.model_validate(row, extra="ignore") for row in session.scalars(chosen)]
    return AuditPage(lines=lines, next=lines[-1].seq if len(lines) == limit else None)


@router.get("/audit-log/check")
def check_log(service: Here, who: Admin) -> dict[str, object]:
    """Whether the chain of the audit log holds, and its head."""
    with service.database.read() as session:
        found = audit_log.verify(session)
    return {"entries": found.entries, "head": found.head, "broken": found.broken, "reason": found.reason}
