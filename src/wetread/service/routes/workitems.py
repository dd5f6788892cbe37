"""The Worklist Service of DICOMweb (UPS-RS, PS3.18 chapter 11): workitems that other systems ask for; their reports.

The answers are those of the standard, empty or DICOM JSON; errors have the shape of all errors of the service, and the
header ``Warning`` where the standard prescribes one.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from wetread.service import audit_log
from wetread.service.access import Here, Reader, actor, seen_report_objects, seen_workitem
from wetread.service.accounts import Principal
from wetread.service.context import Service
from wetread.service.dicom_json import MEDIA_TYPES, accepted, is_uid, parse, text
from wetread.service.problems import Problem
from wetread.service.report_objects import report_file
from wetread.service.schemas import ErrorOut
from wetread.service.tables import new_id
from wetread.service.web import dicom_warning
from wetread.service.workitem_search import MATCHED, as_json, query_of, search
from wetread.service.workitems import Caller, cancel, change_state, create, update

__all__ = ["router"]

_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorOut} for status in (406, 410, 501)}
router = APIRouter(prefix="/dicom-web", tags=["DICOMweb"], responses=_REFUSALS)

_DATA_SET = {"type": "object", "additionalProperties": {"type": "object"}}
_JSON = {kind: {"schema": {"type": "array", "items": _DATA_SET}} for kind in MEDIA_TYPES}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPES[0]: {"schema": _DATA_SET}}}}
_DICOM: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}
                      for kind in ("multipart/related", "application/dicom")}}
}  # fmt: skip
_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
_CREATE_NAMES, _LOCK_NAMES = ("workitem", "AffectedSOPInstanceUID"), ("transaction-uid", "transaction")
_COMMON = ("accept", "charset")


def _parameters(*names: str) -> dict[str, Any]:
    """Query parameters for the OpenAPI document; they are read from the address as the standard writes it."""
    return {"parameters": [{"name": one, "in": "query", "schema": {"type": "string"}} for one in names]}


async def _payload(request: Request) -> bytes:
    return await request.body()


def _kind(request: Request) -> str:
    """The media type to answer with (PS3.18 8.7.5): the query parameter goes before the header."""
    kind = accepted(request.query_params.get("accept", "") or request.headers.get("Accept", ""))
    if not kind:
        raise Problem("not_acceptable", f"expected {MEDIA_TYPES[0]} among the acceptable media types, got others")
    return kind


Payload = Annotated[bytes, Depends(_payload)]
Kind = Annotated[str, Depends(_kind)]


@router.post(
    "/workitems", status_code=201, response_class=Response, openapi_extra={**_BODY, **_parameters(*_CREATE_NAMES)}
)
def create_workitem(service: Here, who: Reader, request: Request, payload: Payload) -> Response:
    """Ask for the read of a study (PS3.18 11.4); it begins when the study is here. `Location` says where it is."""
    uid = _named(request, _CREATE_NAMES)
    data = parse(payload, request.headers.get("Content-Type", ""))
    with service.database.write() as session:
        modified = create(Caller(service, session, who, _number(request)), uid, data)
    service.bell.ring()
    where = f"{_base(request)}/workitems/{uid or text(data, 'SOPInstanceUID')}"
    warning = dicom_warning(request, "The Workitem was created with modifications.")
    headers = {"Location": where, "Content-Location": where} | ({"Warning": warning} if modified else {})
    return Response(status_code=201, headers=headers)


@router.get(
    "/workitems",
    response_class=Response,
    responses={200: {"content": _JSON}, 204: {"description": "Nothing matches"}, 206: {"content": _JSON}},
    openapi_extra=_parameters(*MATCHED, "includefield", "fuzzymatching", "offset", "limit"),
)
def search_workitems(service: Here, who: Reader, request: Request, kind: Kind) -> Response:
    """Search (PS3.18 11.9), oldest first; 206 says that there are more."""
    query = query_of(request.query_params.multi_items())
    with service.database.read() as session:
        page = search(session, who, query, _base(request))
    warnings = [_FUZZY] if query.fuzzy else []
    if page.more:
        warnings.append(f"There are {page.more} additional results that can be requested")
    headers = {"Warning": ", ".join(dicom_warning(request, one) for one in warnings)} if warnings else {}
    if not page.found:
        return Response(status_code=204, headers=headers)
    return Response(json.dumps(page.found), 206 if page.more else 200, headers, media_type=kind)


@router.get("/workitems/{workitem}", response_class=Response, responses={200: {"content": _JSON}})
def retrieve_workitem(workitem: str, service: Here, who: Reader, request: Request, kind: Kind) -> Response:
    """One workitem (PS3.18 11.5), without its transaction UID."""
    with service.database.read() as session:
        found = as_json(seen_workitem(session, who, workitem), _base(request))
    return Response(json.dumps([found]), media_type=kind)


@router.post("/workitems/{workitem}", response_class=Response, openapi_extra={**_BODY, **_parameters(*_LOCK_NAMES)})
def update_workitem(workitem: str, service: Here, who: Reader, request: Request, payload: Payload) -> Response:
    """Change attributes (PS3.18 11.6): before it is claimed, or with `transaction-uid`."""
    change = parse(payload, request.headers.get("Content-Type", ""))
    locks = {_named(request, _LOCK_NAMES), text(change, "TransactionUID")} - {""}
    if len(locks) > 1:
        raise Problem("bad_request", "expected one Transaction UID, got two that differ")
    with service.database.write() as session:
        update(Caller(service, session, who, _number(request)), workitem, next(iter(locks), ""), change)
    service.bell.ring()
    return Response(status_code=200)


@router.put("/workitems/{workitem}/state", response_class=Response, openapi_extra=_BODY)
def change_workitem_state(workitem: str, service: Here, who: Reader, request: Request, payload: Payload) -> Response:
    """Claim, complete or cancel as its performer (PS3.18 11.7): Transaction UID and Procedure Step State."""
    asked = parse(payload, request.headers.get("Content-Type", ""))
    with service.database.write() as session:
        warning = change_state(Caller(service, session, who, _number(request)), workitem, asked)
    return Response(headers={"Warning": dicom_warning(request, warning)} if warning else {})


@router.post("/workitems/{workitem}/cancelrequest", status_code=202, response_class=Response, openapi_extra=_BODY)
def request_cancellation(workitem: str, service: Here, who: Reader, request: Request, payload: Payload) -> Response:
    """Ask for its cancellation (PS3.18 11.8); a body may give the reason and whom to contact."""
    asked = parse(payload, request.headers.get("Content-Type", "")) if payload else {}
    with service.database.write() as session:
        warning = cancel(Caller(service, session, who, _number(request)), workitem, asked)
    return Response(status_code=202, headers={"Warning": dicom_warning(request, warning)} if warning else {})


@router.post("/workitems/{workitem}/subscribers/{aetitle}", response_class=Response)
def subscribe(workitem: str, aetitle: str, who: Reader) -> Response:
    """Not offered: look at the workitem again instead (PS3.18 11.10)."""
    _no_subscriptions()


@router.delete("/workitems/{workitem}/subscribers/{aetitle}", response_class=Response)
def unsubscribe(workitem: str, aetitle: str, who: Reader) -> Response:
    """Not offered (PS3.18 11.11)."""
    _no_subscriptions()


@router.post("/workitems/{workitem}/subscribers/{aetitle}/suspend", response_class=Response)
def suspend(workitem: str, aetitle: str, who: Reader) -> Response:
    """Not offered (PS3.18 11.12)."""
    _no_subscriptions()


@router.get("/subscribers/{aetitle}", response_class=Response)
def notifications(aetitle: str, who: Reader) -> Response:
    """Not offered (PS3.18 8.10.4)."""
    _no_subscriptions()


@router.get("/studies/{study}/series/{series}", response_class=Response, responses=_DICOM)
def retrieve_reports(study: str, series: str, service: Here, who: Reader, request: Request) -> Response:
    """The reports of a series that a completed workitem names in its output (WADO-RS, PS3.18 10.4)."""
    return _reports(service, who, request, (study, series, ""))


@router.get("/studies/{study}/series/{series}/instances/{instance}", response_class=Response, responses=_DICOM)
def retrieve_report(study: str, series: str, instance: str, service: Here, who: Reader, request: Request) -> Response:
    """One of these reports. Fetching them is a line of the audit log."""
    return _reports(service, who, request, (study, series, instance))


def _reports(service: Service, who: Principal, request: Request, uids: tuple[str, str, str]) -> Response:
    single = _asks_for_one(request.headers.get("Accept", ""))
    with service.database.write() as session:
        found = seen_report_objects(session, who, uids)
        if single and len(found) > 1:
            raise Problem("not_acceptable", "expected multipart/related for several instances, got application/dicom")
        for study in sorted({study.id for _, study in found}):
            audit_log.append(session, actor(request, who), "export report", study, {"kind": "DICOM SR"})
    files = [report_file(service, row.uid) for row, _ in found]
    if single:
        return Response(files[0], media_type="application/dicom")
    border = new_id()
    parts = [
        f"--{border}\r\nContent-Type: application/dicom\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for data in files
    ]
    kind = f'multipart/related; type="application/dicom"; boundary={border}'
    return Response(b"".join(parts) + f"--{border}--\r\n".encode(), media_type=kind)


def _asks_for_one(accept: str) -> bool:
    """Whether a file alone is wanted rather than a multipart answer, which is the usual way."""
    kinds = [part.partition(";")[0].strip() for part in accept.lower().split(",")]
    return "application/dicom" in kinds and "multipart/related" not in kinds


def _named(request: Request, names: tuple[str, ...]) -> str:
    """The UID in a query as the standard writes it, ``?UID``, or behind one of ``names``."""
    found = set()
    for name, value in request.query_params.multi_items():
        if name.lower() in _COMMON:
            continue
        uid = value if name in names else name if not value else ""
        if not is_uid(uid):
            raise Problem("bad_request", f"expected a UID, alone or as {names[0]}, got something else")
        found.add(uid)
    if len(found) > 1:
        raise Problem("bad_request", "expected one UID in the address, got several")
    return next(iter(found), "")


def _base(request: Request) -> str:
    return f"{request.base_url}dicom-web"


def _number(request: Request) -> str:
    return actor(request).request_id


def _no_subscriptions() -> NoReturn:
    raise Problem("not_offered", "Subscriptions and notifications are not offered.", "Retrieve the workitem again.")
