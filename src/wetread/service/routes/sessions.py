"""Log in and out, users, tokens."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from wetread.service import accounts, audit_log
from wetread.service.access import COOKIE, Admin, Here, Reader, actor
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.problems import Problem
from wetread.service.schemas import (
    LogIn,
    LogInWays,
    OneTime,
    OneTimeMade,
    SessionOut,
    TokenBody,
    TokenMade,
    TokenOut,
    UserBody,
    UserChange,
    UserOut,
)
from wetread.service.tables import Token, User, now

__all__ = ["home", "router"]

router = APIRouter(prefix="/api/v1")
home = APIRouter()
_ONE_TIME_S = 3600.0


@router.post("/session", tags=["session"])
def log_in(body: LogIn, service: Here, request: Request, response: Response) -> SessionOut:
    """Log in with name and password; sets the cookie of the session."""
    _slow_down(request)
    with service.database.write() as session:
        found = accounts.log_in(session, body.name, body.password)
        who = actor(request)
        if isinstance(found, Problem):
            user = accounts.named_user(session, body.name)
            # The name of somebody who does not exist may be a password typed into the wrong field.
            audit_log.append(session, who, "log in refused", user.id if user else "", {"code": found.code})
        else:
            cookie = accounts.start_session(session, found, _lasts_s(service))
            audit_log.append(session, Actor(found.name, who.request_id), "log in", found.id)
    if isinstance(found, Problem):  # after the transaction: the count of failures must stay
        raise found
    return _welcome(service, response, found, cookie)


@router.post("/session/one-time", tags=["session"])
def log_in_once(body: OneTime, service: Here, request: Request, response: Response) -> SessionOut:
    """Log in with a one-time token, which is used up by that."""
    user, cookie = _once(service, request, body.token)
    return _welcome(service, response, user, cookie)


@home.get("/login", include_in_schema=False)
def login_address(service: Here, request: Request, token: Annotated[str, Query(max_length=256)]) -> RedirectResponse:
    """The address that `wetread serve` prints: logs in once and goes on to the page."""
    user, cookie = _once(service, request, token)
    answer = RedirectResponse("/", status_code=303)
    _welcome(service, answer, user, cookie)
    return answer


@router.get("/session", tags=["session"])
def session_info(service: Here, who: Reader, request: Request) -> SessionOut:
    """Who is logged in."""
    cookie = request.cookies.get(COOKIE)
    csrf = accounts.csrf_of(cookie) if cookie and who.scopes is None else None
    return SessionOut(name=who.name, role=who.role, trays=list(who.trays), csrf=csrf)


@router.get("/session/ways", tags=["session"])
def ways(service: Here) -> LogInWays:
    """How people log in here: the page that asks for it must know before anybody is."""
    return LogInWays(openid=urlsplit(service.openid.issuer).hostname if service.openid else None)


@router.delete("/session", status_code=204, tags=["session"])
def log_out(service: Here, who: Reader, request: Request, response: Response) -> None:
    """Log out."""
    with service.database.write() as session:
        accounts.end_sessions(session, who.user_id, request.cookies.get(COOKIE, ""))
        audit_log.append(session, actor(request, who), "log out", who.user_id)
    response.delete_cookie(COOKIE, path="/")


@router.get("/tokens", tags=["session"])
def own_tokens(service: Here, who: Reader) -> list[TokenOut]:
    """Your tokens for programs."""
    with service.database.read() as session:
        found = session.scalars(select(Token).where(Token.user_id == who.user_id).order_by(Token.created))
        return [TokenOut.model_validate(token, extra="ignore") for token in found]


@router.post("/tokens", status_code=201, tags=["session"])
def make_token(body: TokenBody, service: Here, who: Reader, request: Request) -> TokenMade:
    """Make a token; a token can hand on only scopes that it has itself."""
    if who.scopes is not None and not set(body.scopes) <= set(who.scopes):
        raise Problem("forbidden", "A token cannot make one that may do more than itself.")
    with service.database.write() as session:
        user = session.get_one(User, who.user_id)
        token, secret = accounts.make_token(session, user, body.name, body.scopes, body.days * 86400)
        audit_log.append(session, actor(request, who), "make token", token.id, {"scopes": " ".join(token.scopes)})
    return TokenMade(**TokenOut.model_validate(token).model_dump(), secret=secret)


@router.delete("/tokens/{token_id}", status_code=204, tags=["session"])
def revoke_token(token_id: str, service: Here, who: Reader, request: Request) -> None:
    """Revoke one of your tokens; an admin, anybody's."""
    with service.database.write() as session:
        token = session.get(Token, token_id)
        if token is None or (token.user_id != who.user_id and who.role != "admin"):
            raise Problem("not_found", "No such token.")
        token.revoked = True
        audit_log.append(session, actor(request, who), "revoke token", token.id)


@router.get("/users", tags=["admin"])
def users(service: Here, who: Admin) -> list[UserOut]:
    """All users."""
    with service.database.read() as session:
        return [UserOut.model_validate(user) for user in session.scalars(select(User).order_by(User.name))]


@router.post("/users", status_code=201, tags=["admin"])
def add_user(body: UserBody, service: Here, who: Admin, request: Request) -> UserOut:
    """Add a user."""
    with service.database.write() as session:
        user = accounts.add_user(session, body.name, body.role, body.password, body.trays)
        audit_log.append(session, actor(request, who), "add user", user.id, {"role": user.role})
        return UserOut.model_validate(user)


@router.patch("/users/{user_id}", tags=["admin"])
def change_user(user_id: str, body: UserChange, service: Here, who: Admin, request: Request) -> UserOut:
    """Change a user; a new password, role or a ban ends all of the user's log-ins."""
    with service.database.write() as session:
        user = session.get(User, user_id)
        if user is None:
            raise Problem("not_found", "No such user.")
        if user.id == who.user_id and (body.disabled or body.role not in (None, "admin")):
            raise Problem("conflict", "You cannot take your own rights away.", "Ask another admin.")
        changed = body.model_dump(exclude_none=True, exclude={"password"})
        for name, value in changed.items():
            setattr(user, name, value)
        if body.password is not None:
            accounts.set_password(user, body.password)
            user.failures, user.locked_until = 0, 0.0
        accounts.end_sessions(session, user.id)
        names = sorted([*changed, *(["password"] if body.password is not None else [])])
        audit_log.append(session, actor(request, who), "change user", user.id, {"fields": " ".join(names)})
        return UserOut.model_validate(user)


@router.post("/users/{user_id}/one-time", status_code=201, tags=["admin"])
def one_time(user_id: str, service: Here, who: Admin, request: Request) -> OneTimeMade:
    """Make an address that logs a user in once, within an hour: for a new user, or one who forgot the password."""
    with service.database.write() as session:
        user = session.get(User, user_id)
        if user is None or user.disabled:
            raise Problem("not_found", "No such user, or one who is disabled.")
        token = accounts.make_login_token(session, user, _ONE_TIME_S)
        audit_log.append(session, actor(request, who), "make one-time log-in", user.id)
    return OneTimeMade(address=f"/login?token={token}", expires=now() + _ONE_TIME_S)


def _once(service: Service, request: Request, token: str) -> tuple[User, str]:
    _slow_down(request)
    with service.database.write() as session:
        user = accounts.of_login_token(session, token)
        if user is None:
            hint = "Start `wetread serve` again for a new one, or log in with a password."
            raise Problem("not_logged_in", "The one-time token is unknown, expired or used.", hint)
        cookie = accounts.start_session(session, user, _lasts_s(service))
        audit_log.append(session, Actor(user.name, actor(request).request_id), "log in once", user.id)
    return user, cookie


def _welcome(service: Service, response: Response, user: User, cookie: str) -> SessionOut:
    response.set_cookie(
        COOKIE, cookie, max_age=int(_lasts_s(service)), httponly=True, samesite="lax", secure=service.secure, path="/"
    )
    return SessionOut(name=user.name, role=user.role, trays=user.trays, csrf=accounts.csrf_of(cookie))


def _lasts_s(service: Service) -> float:
    return service.settings.service.session_hours * 3600


def _slow_down(request: Request) -> None:
    """Hold back somebody who tries many passwords from one address."""
    address = request.client.host if request.client else ""
    wait = request.app.state.login_rate.wait_s(address)
    if wait:
        raise Problem("too_many", "Too many log-ins from this address.", retry_after_s=int(wait) + 1)
