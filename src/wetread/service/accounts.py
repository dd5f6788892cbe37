"""Users, passwords, log-ins and tokens.

Decided here: passwords are kept as argon2id hashes; cookies, tokens and one-time log-ins only as sha256, so that a
copied database opens nothing; after :data:`FREE_TRIES` wrong passwords an account waits, twice as long each time; an
unknown name costs as much time as a wrong password, so that names cannot be found out by the clock.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session as Transaction

from wetread.errors import UsageError, expected
from wetread.service.problems import Problem
from wetread.service.tables import ROLES, LoginToken, Session, Token, User, now

if TYPE_CHECKING:
    from argon2 import PasswordHasher

__all__ = [
    "FREE_TRIES",
    "LONGEST_TOKEN_S",
    "MIN_PASSWORD",
    "SCOPES",
    "Principal",
    "add_user",
    "csrf_of",
    "end_sessions",
    "log_in",
    "make_login_token",
    "make_token",
    "named_user",
    "of_cookie",
    "of_login_token",
    "of_token",
    "set_password",
    "start_session",
]

MIN_PASSWORD = 12
"""Characters of a password at least (NIST SP 800-63B-4 asks 15 where it is the only factor, 8 at least)."""

FREE_TRIES = 5
SCOPES = ("read", "write", "admin")
LONGEST_TOKEN_S = 366 * 86400.0
_LOCK_S, _LONGEST_LOCK_S = 30.0, 3600.0


@dataclass(frozen=True)
class Principal:
    """Who asks. ``scopes``: what a token is good for; None for a log-in, which may do all that its role may."""

    user_id: str
    name: str
    role: str
    trays: tuple[str, ...]
    scopes: tuple[str, ...] | None = None

    def may(self, role: str, scope: str) -> bool:
        """Whether the role reaches ``role`` and the token, if any, has ``scope``."""
        return ROLES.index(self.role) >= ROLES.index(role) and (self.scopes is None or scope in self.scopes)

    def sees(self, tray: str) -> bool:
        """Whether the studies of a tray exist for this user."""
        return "*" in self.trays or tray in self.trays


def add_user(session: Transaction, name: str, role: str, password: str | None, trays: Sequence[str] = ("*",)) -> User:
    """Add a user; without ``password`` only one-time tokens or OpenID Connect log in.

    Raises:
        UsageError: an unknown role, a name that is taken or empty, a short password.
    """
    if role not in ROLES:
        raise UsageError(expected(f"a role among {', '.join(ROLES)}", repr(role), "choose one"))
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise UsageError(expected("a user name of 1 to 64 printable characters", "another", "choose one"))
    if named_user(session, name) is not None:
        raise UsageError(expected("a new user name", "one that is taken", "choose another"))
    user = User(name=name, role=role, trays=list(trays), password_hash=None)
    if password is not None:
        set_password(user, password)
    session.add(user)
    session.flush()
    return user


def set_password(user: User, password: str) -> None:
    """Set a password.

    Raises:
        UsageError: too short, too long, or the user's name.
    """
    if not MIN_PASSWORD <= len(password) <= 1024 or password.lower() == user.name.lower():
        raise UsageError(
            expected(f"a password of {MIN_PASSWORD} characters or more that is not the name", "another", "choose one")
        )
    user.password_hash = _hasher().hash(password)


def named_user(session: Transaction, name: str) -> User | None:
    """The user of that name, in whatever case it was typed."""
    return session.scalar(select(User).where(func.lower(User.name) == name.lower()))


def log_in(session: Transaction, name: str, password: str) -> User | Problem:
    """Check a password. Returns the user, or what to tell: the count of failures must be committed either way."""
    # Locked: many guesses at once must count as many.
    user = session.scalar(select(User).where(func.lower(User.name) == name.lower()).with_for_update())
    if user is not None and user.locked_until > now():
        wait = int(user.locked_until - now()) + 1
        return Problem("locked_out", "Too many wrong passwords for this account.", retry_after_s=wait)
    stored = user.password_hash if user is not None else None
    right = _matches(stored or _nobody(), password)
    if user is None or stored is None or user.disabled or not right:
        if user is not None:
            _count_failure(user)
        return Problem("not_logged_in", "Name or password is wrong.", "Check both; capitals count in the password.")
    user.failures, user.locked_until = 0, 0.0
    if _hasher().check_needs_rehash(stored):
        user.password_hash = _hasher().hash(password)
    return user


def start_session(session: Transaction, user: User, lasts_s: float) -> str:
    """Log a user in; return the cookie."""
    session.execute(delete(Session).where(Session.expires < now()))
    cookie = secrets.token_urlsafe(32)
    session.add(Session(id=_sha256(cookie), user_id=user.id, expires=now() + lasts_s))
    return cookie


def csrf_of(cookie: str) -> str:
    """What a page must send beside its cookie with everything that changes something.

    It follows from the cookie, which no script can read; a page of another origin knows neither.
    """
    return hmac.new(cookie.encode(), b"wetread csrf", hashlib.sha256).hexdigest()


def of_cookie(session: Transaction, cookie: str) -> Principal | None:
    """Whose log-in a cookie is."""
    row = session.get(Session, _sha256(cookie))
    return None if row is None or row.expires < now() else _principal(session.get(User, row.user_id))


def end_sessions(session: Transaction, user_id: str, cookie: str | None = None) -> None:
    """Log a user out: the log-in of one cookie, or all of them."""
    chosen = delete(Session).where(Session.user_id == user_id)
    session.execute(chosen if cookie is None else chosen.where(Session.id == _sha256(cookie)))


def make_token(session: Transaction, user: User, name: str, scopes: Sequence[str], lasts_s: float) -> tuple[Token, str]:
    """Make a token for programs; its secret is handed out once.

    Raises:
        UsageError: unknown scopes, or none; a life of less than a minute or more than a year.
    """
    if not scopes or not set(scopes) <= set(SCOPES):
        raise UsageError(expected(f"scopes among {', '.join(SCOPES)}", "others", "choose at least one"))
    if not 60 <= lasts_s <= LONGEST_TOKEN_S:
        raise UsageError(expected("a life between a minute and a year", f"{lasts_s:g} s", "choose another"))
    secret = "wr_" + secrets.token_urlsafe(32)
    token = Token(
        user_id=user.id, name=name, hash=_sha256(secret), scopes=sorted(set(scopes)), expires=now() + lasts_s
    )  # fmt: skip
    session.add(token)
    session.flush()
    return token, secret


def of_token(session: Transaction, secret: str) -> Principal | None:
    """Whose token that is, with its scopes."""
    token = session.scalar(select(Token).where(Token.hash == _sha256(secret)))
    if token is None or token.revoked or token.expires < now():
        return None
    return _principal(session.get(User, token.user_id), tuple(token.scopes))


def make_login_token(session: Transaction, user: User, lasts_s: float) -> str:
    """Make a secret that logs in once."""
    session.execute(delete(LoginToken).where(LoginToken.expires < now()))
    secret = secrets.token_urlsafe(24)
    session.add(LoginToken(id=_sha256(secret), user_id=user.id, expires=now() + lasts_s))
    return secret


def of_login_token(session: Transaction, secret: str) -> User | None:
    """The user of a one-time log-in, which is used up by that."""
    chosen = delete(LoginToken).where(LoginToken.id == _sha256(secret), LoginToken.expires >= now())
    found = session.scalar(chosen.returning(LoginToken.user_id))
    user = None if found is None else session.get(User, found)
    return None if user is None or user.disabled else user


def _principal(user: User | None, scopes: tuple[str, ...] | None = None) -> Principal | None:
    if user is None or user.disabled:
        return None
    return Principal(user.id, user.name, user.role, tuple(user.trays), scopes)


def _count_failure(user: User) -> None:
    user.failures += 1
    over = user.failures - FREE_TRIES
    if over >= 0:
        user.locked_until = now() + min(_LONGEST_LOCK_S, _LOCK_S * 2.0**over)


def _matches(stored: str, password: str) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return _hasher().verify(stored, password)
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    # The second recommendation of RFC 9106 (64 MiB, 3 passes) with one lane: it is waited for on small machines.
    return PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)


@cache
def _nobody() -> str:
    """A hash of nothing that anyone knows, for names that do not exist."""
    return _hasher().hash(secrets.token_urlsafe(32))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
