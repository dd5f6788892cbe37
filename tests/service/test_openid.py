"""Log-in through an OpenID Connect provider: there and back, and all that must not pass on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.service.test_api import error_of
from wetread.errors import UsageError
from wetread.service.accounts import add_user
from wetread.service.app import build_app
from wetread.service.context import Service
from wetread.service.openid import OpenIdConnect, openid_connect
from wetread.service.tables import AuditEntry, User

pytest.importorskip("authlib", reason="uv pip install authlib httpx2 joserfc")
pytest.importorskip("httpx2", reason="uv pip install authlib httpx2 joserfc")

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey


class Provider:
    """A provider on this machine. ``claims`` change its tokens, ``key`` signs them, ``wrong_code`` refuses."""

    def __init__(self) -> None:
        self.published = RSAKey.generate_key(2048, auto_kid=True)
        self.key: RSAKey | OctKey = self.published
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.asked: dict[str, list[str]] = {}
        self.verified = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("openid-configuration"):
                    self.tell(200, outer.document())
                else:
                    self.tell(200, {"keys": [outer.published.as_dict(private=False)]})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                outer.verified = [challenge] == outer.asked["code_challenge"]
                if form["code"] != ["right"] or not outer.verified:
                    self.tell(400, {"error": "invalid_grant"})
                else:
                    self.tell(200, {"access_token": "a", "token_type": "Bearer", "id_token": outer.token()})

            def tell(self, status: int, document: dict[str, Any]) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.named = self.issuer
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def document(self) -> dict[str, Any]:
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": self.named, **{name: f"{self.issuer}/{end}" for name, end in ends.items()}}

    def token(self) -> str:
        claims = {
            "iss": self.issuer, "aud": "wetread", "sub": "4711", "preferred_username": "ada",
            "nonce": self.asked["nonce"][0], "iat": int(time.time()), "exp": int(time.time()) + 300,
        }  # fmt: skip
        header = {"alg": self.algorithm, "kid": self.published.kid}
        return jwt.encode(header, {**claims, **self.claims}, self.key, algorithms=[self.algorithm])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    opened = Provider()
    yield opened
    opened.close()


@pytest.fixture
def client(service: Service, provider: Provider) -> TestClient:
    openid = OpenIdConnect(provider.issuer, "wetread", "secret")
    return TestClient(build_app(replace(service, openid=openid)), follow_redirects=False)


def go(client: TestClient, provider: Provider) -> str:
    """To the provider; returns the state."""
    answer = client.get("/login/openid")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{provider.issuer}/authorize?")
    provider.asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    return provider.asked["state"][0]


def back(client: TestClient, state: str, code: str = "right") -> Any:
    return client.get("/login/openid/back", params={"code": code, "state": state})


def test_there_and_back_logs_in_a_new_user_who_sees_nothing_yet(
    client: TestClient, provider: Provider, service: Service
) -> None:
    state = go(client, provider)
    assert provider.asked["code_challenge_method"] == ["S256"]
    assert provider.asked["response_type"] == ["code"]
    assert provider.asked["redirect_uri"] == ["http://testserver/login/openid/back"]
    answer = back(client, state)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert provider.verified
    told = client.get("/api/v1/session").json()
    assert (told["name"], told["role"], told["trays"]) == ("ada", "reader", [])
    state = go(client, provider)
    assert back(client, state).status_code == 303  # the same person is the same user
    with service.database.read() as session:
        (user,) = session.scalars(select(User)).all()
        actions = session.scalars(select(AuditEntry.action)).all()
    assert user.subject == f"{provider.issuer}#4711"
    assert actions == ["log in through openid"] * 2


WRONG: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": "another"},
    "audience": {"aud": "another"},
    "issuer": {"iss": "https://elsewhere.example"},
    "late": {"exp": 1},
    "nobody": {"sub": None},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_token_for_something_else_is_refused(client: TestClient, provider: Provider, name: str) -> None:
    state = go(client, provider)
    provider.claims = WRONG[name]
    assert error_of(back(client, state)) == (401, "not_logged_in")
    assert "wetread_session" not in client.cookies


def test_a_token_of_another_key_or_a_weaker_algorithm_is_refused(client: TestClient, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, parameters={"kid": str(provider.published.kid)})
    assert error_of(back(client, go(client, provider))) == (401, "not_logged_in")
    provider.algorithm, provider.key = "HS256", OctKey.import_key("s" * 32)
    assert error_of(back(client, go(client, provider))) == (401, "not_logged_in")


def test_only_the_browser_that_began_can_finish(client: TestClient, provider: Provider, service: Service) -> None:
    state = go(client, provider)
    assert error_of(back(client, "another")) == (401, "not_logged_in")
    assert error_of(back(client, state, code="wrong")) == (401, "not_logged_in")
    assert error_of(back(TestClient(client.app), state)) == (401, "not_logged_in")
    forged = TestClient(client.app)
    text = base64.urlsafe_b64encode(json.dumps({"state": state, "until": 1e12}).encode()).decode()
    forged.cookies.set("wetread_openid", f"{text}.{'0' * 64}")
    assert error_of(back(forged, state)) == (401, "not_logged_in")
    with service.database.read() as session:
        assert session.scalars(select(User)).all() == []


def test_a_name_that_is_taken_is_not_taken_over(client: TestClient, provider: Provider, service: Service) -> None:
    with service.database.write() as session:
        add_user(session, "Ada", "admin", None)
    assert error_of(back(client, go(client, provider))) == (403, "forbidden")
    provider.claims = {"preferred_username": "eve"}
    assert back(client, go(client, provider)).status_code == 303
    with service.database.write() as session:
        session.scalars(select(User).where(User.name == "eve")).one().disabled = True
    assert error_of(back(client, go(client, provider))) == (403, "forbidden")


def test_a_provider_that_is_away_or_another_is_told(client: TestClient, provider: Provider, service: Service) -> None:
    provider.named = "https://elsewhere.example"
    assert error_of(client.get("/login/openid")) == (503, "unavailable")
    away = TestClient(build_app(replace(service, openid=OpenIdConnect("http://127.0.0.1:1", "wetread"))))
    assert error_of(away.get("/login/openid")) == (503, "unavailable")
    assert error_of(TestClient(build_app(service)).get("/login/openid")) == (404, "not_found")


def test_the_flags_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert openid_connect("", "", "") is None
    with pytest.raises(UsageError, match="expected an issuer with https, got another address; correct --oidc-issuer"):
        openid_connect("http://id.example", "wetread", "")
    with pytest.raises(UsageError, match="give --oidc-client ID"):
        openid_connect("https://id.example", "", "")
    (tmp_path / "secret").write_text("hidden\n")
    monkeypatch.setenv("WETREAD_OIDC_SECRET_FILE", str(tmp_path / "secret"))
    found = openid_connect("https://id.example/", "wetread", "")
    assert found == OpenIdConnect("https://id.example", "wetread", "hidden")
    assert "hidden" not in repr(found)
