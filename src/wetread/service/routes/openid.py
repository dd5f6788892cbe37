"""Log in through the OpenID Connect provider of the installation: there and back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse

from wetread.service import accounts, audit_log, openid
from wetread.service.access import COOKIE, Here, actor
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.openid import OpenIdConnect
from wetread.service.problems import Problem

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_COOKIE, _PATH = "wetread_openid", "/login/openid"


@router.get("/login/openid")
def begin(service: Here, request: Request) -> RedirectResponse:
    """Go to the provider."""
    provider = _provider(service, request)
    with service.database.write() as session:
        key = openid.signing_key(session)
    back = provider.redirect or str(request.url.replace(path=f"{_PATH}/back", query=""))
    address, cookie = openid.begin(provider, back, key)
    answer = RedirectResponse(address, status_code=303)
    answer.set_cookie(
        _COOKIE, cookie, max_age=openid.LASTS_S, httponly=True, samesite="lax", secure=service.secure, path=_PATH
    )
    return answer


@router.get("/login/openid/back")
def come_back(
    service: Here,
    request: Request,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=256)] = "",
) -> RedirectResponse:
    """Come back from the provider, log in and go on to the page."""
    provider = _provider(service, request)
    with service.database.write() as session:
        key = openid.signing_key(session)
    claims = openid.finish(provider, code, state, request.cookies.get(_COOKIE, ""), key)
    lasts_s = service.settings.service.session_hours * 3600
    with service.database.write() as session:
        user = openid.known_user(session, provider, claims)
        cookie = accounts.start_session(session, user, lasts_s)
        audit_log.append(session, Actor(user.name, actor(request).request_id), "log in through openid", user.id)
    answer = RedirectResponse("/", status_code=303)
    answer.delete_cookie(_COOKIE, path=_PATH)
    answer.set_cookie(
        COOKIE, cookie, max_age=int(lasts_s), httponly=True, samesite="lax", secure=service.secure, path="/"
    )
    return answer


def _provider(service: Service, request: Request) -> OpenIdConnect:
    if service.openid is None:
        raise Problem("not_found", "This service has no OpenID Connect provider.", "Log in with a password.")
    wait = request.app.state.login_rate.wait_s(request.client.host if request.client else "")
    if wait:
        raise Problem("too_many", "Too many log-ins from this address.", retry_after_s=int(wait) + 1)
    return service.openid
