"""Search for workitems: matching by attributes as in QIDO-RS (PS3.18 8.3.4 and 11.9), and what an answer shows.

Decided here: every attribute that is matched has a column; another one is an error, never ignored; the order is that of
creation, so that offsets hold while workitems come in; the transaction UID is in no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from wetread.service.accounts import Principal
from wetread.service.dicom_json import Json, first, is_uid, items, tag, text
from wetread.service.dicom_time import span
from wetread.service.problems import Problem
from wetread.service.tables import Workitem
from wetread.service.workitem_rules import PUSH, TYPE_2
from wetread.service.workitem_states import COMPLETED

__all__ = ["MATCHED", "MOST", "USUAL_LIMIT", "Page", "Query", "as_json", "query_of", "search"]

USUAL_LIMIT, MOST, MOST_STARS = 100, 200, 3
_LAST_OFFSET = 1 << 31
_CHARACTER_SET = {"vr": "CS", "Value": ["ISO_IR 192"]}
"""Texts in JSON are UTF-8 (PS3.18 F.2)."""

_RETURNED = (
    *("ScheduledProcedureStepPriority", "ProcedureStepLabel", "ScheduledProcedureStepStartDateTime"),
    *("ScheduledProcedureStepModificationDateTime", "ExpectedCompletionDateTime", "InputReadinessState"),
    *TYPE_2,
)
"""Return keys of type 1, 1C and 2 beside UIDs and state, and the two times that a performer looks for."""


@dataclass(frozen=True)
class Query:
    """What is looked for. ``fields``: keys that are shown beside the usual ones, None for all."""

    conditions: tuple[ColumnElement[bool], ...] = ()
    fields: frozenset[str] | None = frozenset()
    offset: int = 0
    limit: int = USUAL_LIMIT
    fuzzy: bool = False


@dataclass(frozen=True)
class Page:
    """What was found; ``more``: how many lie beyond."""

    found: list[Json] = field(default_factory=list)
    more: int = 0


def search(session: Session, who: Principal, query: Query, base: str) -> Page:
    """Workitems of the worklists that this user sees, oldest first; ``base``: the address of the DICOMweb service."""
    conditions = [Workitem.gone.is_(False), *query.conditions]
    if "*" not in who.trays:
        conditions.append(Workitem.tray.in_(who.trays))
    total = session.scalar(select(func.count()).select_from(Workitem).where(*conditions)) or 0
    chosen = select(Workitem).where(*conditions).order_by(Workitem.created, Workitem.id)
    rows = session.scalars(chosen.offset(query.offset).limit(query.limit)).all()
    shown = None if query.fields is None else query.fields | {tag(keyword) for keyword in _RETURNED}
    found = [_shown(as_json(row, base), shown) for row in rows]
    return Page(found, max(0, total - query.offset - len(rows)))


def as_json(row: Workitem, base: str) -> Json:
    """A workitem as it is given to others: all but its transaction UID, with the addresses of our reports."""
    columns = {
        tag("SpecificCharacterSet"): _CHARACTER_SET,
        tag("SOPClassUID"): {"vr": "UI", "Value": [PUSH]},
        tag("SOPInstanceUID"): {"vr": "UI", "Value": [row.uid]},
        tag("ProcedureStepState"): {"vr": "CS", "Value": [row.state]},
    }
    data = _with_addresses(row.dataset, base) if row.ours and row.state == COMPLETED else row.dataset
    return dict(sorted({**data, **columns}.items()))


def _with_addresses(data: Json, base: str) -> Json:
    """Say where each series of reports is fetched: in WADO-RS Retrieval Sequence (PS3.3 table 10-3b)."""
    key, output = tag("UnifiedProcedureStepPerformedProcedureSequence"), tag("OutputInformationSequence")
    performed = first(data, "UnifiedProcedureStepPerformedProcedureSequence")
    series = []
    for one in items(performed, "OutputInformationSequence"):
        where = f"{base}/studies/{text(one, 'StudyInstanceUID')}/series/{text(one, 'SeriesInstanceUID')}"
        address = {tag("RetrieveURL"): {"vr": "UR", "Value": [where]}}
        series.append({**one, tag("WADORSRetrievalSequence"): {"vr": "SQ", "Value": [address]}})
    told = {**performed, output: {"vr": "SQ", "Value": series} if series else {"vr": "SQ"}}
    return {**data, key: {"vr": "SQ", "Value": [told]}}


def query_of(parameters: Sequence[tuple[str, str]]) -> Query:
    """The query of an address.

    Raises:
        Problem: ``bad_request``: an attribute that is not matched, a value that none can have.
    """
    conditions: list[ColumnElement[bool]] = []
    fields: set[str] = set()
    everything, numbers, fuzzy = False, {"offset": 0, "limit": USUAL_LIMIT}, False
    for name, value in parameters:
        if "\0" in value:
            raise Problem("bad_request", "expected values without NUL, got one with it")
        if name == "includefield":
            everything = everything or value == "all"
            fields |= {_field(one) for one in value.split(",") if one != "all"}
        elif name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            fuzzy = value == "true"
        elif name.lower() not in ("accept", "charset"):
            keyword = _keyword(name)
            conditions += [MATCHED[keyword](value)] if value else []
            fields |= {tag(keyword.rpartition(".")[0] or keyword)}
    return Query(tuple(conditions), None if everything else frozenset(fields), fuzzy=fuzzy, **numbers)


def _shown(data: Json, fields: frozenset[str] | set[str] | None) -> Json:
    always = {tag(name) for name in ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "ProcedureStepState")}
    return {key: element for key, element in data.items() if fields is None or key in fields or key in always}


def _keyword(name: str) -> str:
    """The keywords of an attribute, by a dot where it lies in a sequence; tags are known too."""
    from pydicom.datadict import keyword_for_tag

    parts = [
        keyword_for_tag(int(part, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else part for part in name.split(".")
    ]
    keyword = ".".join(parts)
    if keyword not in MATCHED:
        message = f"expected limit, offset, includefield or an attribute of {', '.join(MATCHED)}, got another"
        raise Problem("bad_request", message, "Leave it out, or match what was found yourself.")
    return keyword


def _field(name: str) -> str:
    from pydicom.datadict import tag_for_keyword

    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper()
    number = tag_for_keyword(name)
    if number is None:
        raise Problem("bad_request", "expected 'all', tags or keywords in includefield, got another")
    return f"{number:08X}"


def _number(name: str, value: str) -> int:
    most = MOST if name == "limit" else _LAST_OFFSET
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > most or (name == "limit" and int(value) < 1):
        raise Problem("bad_request", f"expected {name} up to {most}, got something else")
    return int(value)


def _equal(column: Any) -> Callable[[str], ColumnElement[bool]]:
    """One of several values that a comma or a backslash divides."""
    return lambda value: column.in_(re.split(r"[,\\]", value))


def _uids(column: Any) -> Callable[[str], ColumnElement[bool]]:
    def match(value: str) -> ColumnElement[bool]:
        uids = re.split(r"[,\\]", value)
        if not all(is_uid(uid) for uid in uids):
            raise Problem("bad_request", "expected UIDs, got something else")
        among: ColumnElement[bool] = column.in_(uids)
        return among

    return match


def _words(column: Any, *, case: bool = True) -> Callable[[str], ColumnElement[bool]]:
    """Literal, or with ``*`` for any and ``?`` for one character (PS3.4 C.2.2.2.4), then in either case.

    With wild cards case never counts, because it does not in SQLite either.
    """

    def match(value: str) -> ColumnElement[bool]:
        if not re.search(r"[*?]", value):
            return column == value if case else func.lower(column) == value.lower()
        if value.count("*") > MOST_STARS:  # each one more costs a database a power of the length
            raise Problem("bad_request", f"expected at most {MOST_STARS} asterisks, got more")
        pattern = re.sub(r"([%_!])", r"!\1", value.lower()).replace("*", "%").replace("?", "_")
        matches: ColumnElement[bool] = func.lower(column).like(pattern, escape="!")
        return matches

    return match


def _when(value: str) -> ColumnElement[bool]:
    try:
        begin, last = span(value)
    except ValueError:
        raise Problem("bad_request", "expected a date and time or a range of them, got something else") from None
    limits = [] if begin is None else [Workitem.start >= begin]
    return and_(*limits, *([] if last is None else [Workitem.start <= last]))


MATCHED: dict[str, Callable[[str], ColumnElement[bool]]] = {
    "SOPInstanceUID": _uids(Workitem.uid),
    "ProcedureStepState": _equal(Workitem.state),
    "StudyInstanceUID": _uids(Workitem.study_uid),
    "InputInformationSequence.StudyInstanceUID": _uids(Workitem.study_uid),
    "PatientID": _words(Workitem.patient_id),
    "PatientName": _words(Workitem.patient_name, case=False),
    "ProcedureStepLabel": _words(Workitem.label),
    "WorklistLabel": _words(Workitem.tray),
    "ScheduledProcedureStepPriority": _equal(Workitem.priority),
    "InputReadinessState": _equal(Workitem.readiness),
    "ScheduledProcedureStepStartDateTime": _when,
}
"""Attributes that can be matched -> the condition that a value makes."""
