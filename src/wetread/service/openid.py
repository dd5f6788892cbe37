"""Log-in through an OpenID Connect provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636).

Decided here: what must survive the way to the provider and back (state, nonce, verifier) travels in a signed cookie of
ten minutes, so that any server of several can finish; the identity token is checked by signature, issuer, audience,
time and nonce, never by the connection it came over alone; a person is known by issuer and subject, not by name or
address, which can be given to somebody else. Somebody new gets the lowest role and no worklist: an admin gives those.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.errors import UsageError, expected
from wetread.service import accounts
from wetread.service.problems import Problem
from wetread.service.tables import User, Value
from wetread.service.upsert import insert_new

__all__ = [
    "LASTS_S",
    "SECRET_VARIABLE",
    "OpenIdConnect",
    "begin",
    "finish",
    "known_user",
    "openid_connect",
    "signing_key",
]

LASTS_S = 600
SECRET_VARIABLE = "WETREAD_OIDC_SECRET"  # noqa: S105  the name of the variable
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""No shared secrets and no "none"."""
_LEEWAY_S = 60
_TIMEOUT_S = 10.0
_KEY = "openid key"
_DOCUMENT = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class OpenIdConnect:
    """A provider. ``redirect``: address of this service that it sends people back to; empty: as the browser asked."""

    issuer: str
    client: str
    secret: str = field(default="", repr=False)
    redirect: str = ""


def openid_connect(issuer: str, client: str, redirect: str) -> OpenIdConnect | None:
    """The provider of the flags, None without an issuer; the secret is read from the environment or a file.

    Raises:
        UsageError: no client, an issuer without TLS, a secret that cannot be read, packages that are not installed.
    """
    if not issuer:
        return None
    parts = urlsplit(issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UsageError(expected("an issuer with https", "another address", "correct --oidc-issuer"))
    if not client:
        raise UsageError(expected("the client of this service there", "none", "give --oidc-client ID"))
    if not all(find_spec(name) for name in ("authlib", "joserfc", "httpx2")):
        raise UsageError(expected("the package authlib", "an installation without", "install wetread[oidc]"))
    return OpenIdConnect(issuer.rstrip("/"), client, _secret(), redirect)


def begin(provider: OpenIdConnect, redirect: str, key: bytes) -> tuple[str, str]:
    """Where to send a browser, and the cookie that it must bring back.

    Raises:
        Problem: ``unavailable``: the provider does not answer.
    """
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    with _client(provider, redirect) as client:
        endpoint = _discover(client, provider)["authorization_endpoint"]
        address, _ = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, nonce=nonce)
    kept = {"state": state, "nonce": nonce, "verifier": verifier, "redirect": redirect, "until": time.time() + LASTS_S}
    return str(address), _sign(kept, key)


def finish(provider: OpenIdConnect, code: str, state: str, cookie: str, key: bytes) -> dict[str, Any]:
    """Turn what the provider sent back into the checked claims of its identity token.

    Raises:
        Problem: ``not_logged_in``: another browser began, too late, or a token that does not hold; ``unavailable``.
    """
    kept = _unsign(cookie, key)
    if kept is None or kept["until"] < time.time() or not hmac.compare_digest(kept["state"].encode(), state.encode()):
        raise Problem("not_logged_in", "This log-in was not begun in this browser, or too long ago.", "Begin again.")
    with _client(provider, kept["redirect"]) as client:
        about = _discover(client, provider)
        try:
            token = client.fetch_token(about["token_endpoint"], code=code, code_verifier=kept["verifier"])
            keys = client.request("GET", about["jwks_uri"], withhold_token=True).json()
        except Exception:  # authlib's and those of its HTTP client; their texts hold the code
            raise Problem("not_logged_in", "The provider did not confirm the log-in.", "Begin again.") from None
    return _checked(provider, str(token.get("id_token", "")), keys, kept["nonce"])


def known_user(session: Session, provider: OpenIdConnect, claims: dict[str, Any]) -> User:
    """The user of checked claims; made, with the lowest role and no worklist, where there is none yet.

    Raises:
        Problem: ``forbidden``: the user is disabled, or another user has the name.
    """
    subject = f"{provider.issuer}#{claims['sub']}"[:255]
    user = session.scalars(select(User).where(User.subject == subject)).one_or_none()
    if user is None:
        name = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])[:64]
        try:
            user = accounts.add_user(session, name, "reader", None, ())
        except UsageError:
            raise Problem("forbidden", "Another user has your name here.", "Ask an admin.") from None
        user.subject = subject
    if user.disabled:
        raise Problem("forbidden", "This user is disabled.", "Ask an admin.")
    return user


def signing_key(session: Session) -> bytes:
    """The key of this installation for cookies on the way; made at first use."""
    insert_new(session, Value, {"name": _KEY, "value": secrets.token_hex(32)}, ["name"])
    return session.get_one(Value, _KEY).value.encode()


def _checked(provider: OpenIdConnect, token: str, keys: dict[str, Any], nonce: str) -> dict[str, Any]:
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    rules = jwt.JWTClaimsRegistry(
        leeway=_LEEWAY_S,
        iss={"value": provider.issuer, "essential": True}, aud={"value": provider.client, "essential": True},
        exp={"essential": True}, sub={"essential": True}, nonce={"value": nonce, "essential": True},
    )  # fmt: skip
    try:
        found = jwt.decode(token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type]
        rules.validate(found.claims)
    except (JoseError, ValueError, KeyError, TypeError):
        raise Problem("not_logged_in", "The identity that the provider gave does not hold.", "Begin again.") from None
    return dict(found.claims)


def _client(provider: OpenIdConnect, redirect: str) -> Any:
    from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]

    return OAuth2Client(
        provider.client, provider.secret or None, scope="openid profile email", redirect_uri=redirect,
        code_challenge_method="S256", timeout=_TIMEOUT_S,
        token_endpoint_auth_method="client_secret_basic" if provider.secret else "none",
    )  # fmt: skip


def _discover(client: Any, provider: OpenIdConnect) -> dict[str, Any]:
    try:
        answer = client.request("GET", f"{provider.issuer}{_DOCUMENT}", withhold_token=True)
        found: dict[str, Any] = answer.raise_for_status().json()
        right = found["issuer"].rstrip("/") == provider.issuer
    except Exception:  # of the HTTP client, or a document of another kind
        raise Problem("unavailable", "The provider of log-ins does not answer.", retry_after_s=5) from None
    if not right:
        raise Problem("unavailable", "The provider of log-ins says that it is another.", "Tell an admin.")
    return found


def _sign(kept: dict[str, Any], key: bytes) -> str:
    text = base64.urlsafe_b64encode(json.dumps(kept).encode()).decode()
    return f"{text}.{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"


def _unsign(cookie: str, key: bytes) -> dict[str, Any] | None:
    text, _, mark = cookie.partition(".")
    right = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(right.encode(), mark.encode()):
        return None
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
    return found


def _secret() -> str:
    file = os.environ.get(f"{SECRET_VARIABLE}_FILE")
    if not file:
        return os.environ.get(SECRET_VARIABLE, "")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            expected("a file with the secret of the client", "none that can be read", f"check {SECRET_VARIABLE}_FILE")
        ) from None
