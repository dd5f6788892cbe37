"""The worklist: filter, search and page over many studies without counting through them.

Decided here: pages follow a cursor (the place of the last study in the order) and never an offset, so that a page
costs the same wherever it lies and nothing is skipped when studies come in; the total is counted up to
:data:`COUNTED` and then said to be at least that.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from wetread.service.accounts import Principal
from wetread.service.problems import Problem
from wetread.service.tables import Study

__all__ = ["COUNTED", "Filter", "page"]

COUNTED = 1_000_000


@dataclass(frozen=True)
class Filter:
    """What to show; empty: no matter. ``q``: words that all must be in the texts of a study; the rest: see the API."""

    q: str = ""
    status: str = ""
    modality: str = ""
    body_part: str = ""
    decision: str = ""
    tray: str = ""
    days: int = 0
    order: str = "urgency"


def page(session: Session, who: Principal, chosen: Filter, cursor: str, limit: int) -> tuple[list[Study], str, int]:
    """One page: studies, cursor of the next page (empty at the end), total.

    Raises:
        Problem: ``bad_request``: a cursor of something else.
    """
    wanted = _conditions(select(Study), who, chosen)
    total = session.scalar(select(func.count()).select_from(_conditions(select(Study.id), who, chosen).subquery())) or 0
    keys: tuple[Any, ...] = (Study.urgency, Study.created, Study.id) if chosen.order == "urgency" else (
        Study.created, Study.id
    )  # fmt: skip
    if cursor:
        wanted = wanted.where(_after(keys, _read(cursor, len(keys))))
    rows = list(session.scalars(wanted.order_by(*(key.desc() for key in keys)).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    following = _write([getattr(rows[-1], key.key) for key in keys]) if more else ""
    return rows, following, min(total, COUNTED)


def _conditions(query: Select[Any], who: Principal, chosen: Filter) -> Select[Any]:
    if "*" not in who.trays:
        query = query.where(Study.tray.in_(who.trays))
    for name in ("status", "modality", "body_part", "decision", "tray"):
        value = getattr(chosen, name)
        if value:
            query = query.where(getattr(Study, name) == value)
    if chosen.days:
        query = query.where(_at_most(chosen.days))
    for word in chosen.q.lower().split()[:8]:
        query = query.where(Study.search.contains(word, autoescape=True))
    return query


def _at_most(days: int) -> Any:
    """Studies of at most that age; dates of the header have no time, so the whole first day counts."""
    first = datetime.now(UTC) - timedelta(days=days)
    dated = and_(Study.study_date.is_not(None), Study.study_date >= first.strftime("%Y%m%d"))
    return or_(dated, and_(Study.study_date.is_(None), Study.created >= first.timestamp()))


def _after(keys: tuple[Any, ...], values: list[Any]) -> Any:
    """Rows that come after ``values`` in descending order of ``keys``."""
    either = []
    for number, key in enumerate(keys):
        equal = [other == value for other, value in zip(keys[:number], values[:number], strict=True)]
        either.append(and_(*equal, key < values[number]))
    return or_(*either)


def _write(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def _read(cursor: str, count: int) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        *numbers, last = values
        if len(values) == count and isinstance(last, str) and all(isinstance(one, int | float) for one in numbers):
            return [*(float(one) for one in numbers), last]
    except (ValueError, TypeError, OverflowError):
        pass
    raise Problem("bad_request", "The cursor is not one that this address gave.", "Begin with the first page.")
