"""The pages as files: what is served, how, and what is said where they were not built."""

from __future__ import annotations

import gzip
import runpy
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from wetread.service.app import build_app
from wetread.service.context import Service
from wetread.service.pages import Pages
from wetread.service.problems import Problem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pages" / "assets").mkdir(parents=True)
    (tmp_path / "pages" / "index.html").write_text("<!doctype html><title>built</title>" + " " * 500)
    (tmp_path / "pages" / "assets" / "a-1.js").write_text("let words = 1;" * 100)
    (tmp_path / "pages" / "assets" / "codec-2.wasm").write_bytes(b"\0asm" * 100)
    (tmp_path / "secret.txt").write_text("not a page")
    return tmp_path / "pages"


@pytest.fixture
def client(service: Service, folder: Path) -> TestClient:
    app = build_app(service)
    app.state.pages = Pages(folder)
    return TestClient(app)


def test_the_page_is_never_kept_and_its_files_for_ever(client: TestClient) -> None:
    page = client.get("/", headers={"Accept-Encoding": "identity"})
    assert page.status_code == 200
    assert "<title>built</title>" in page.text
    assert page.headers["Cache-Control"] == "no-cache"
    assert "script-src 'self' 'wasm-unsafe-eval'" in page.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
    script = client.get("/assets/a-1.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert "immutable" in script.headers["Cache-Control"]
    assert client.get("/assets/codec-2.wasm").headers["Content-Type"] == "application/wasm"


def test_texts_are_compressed_for_who_takes_that(client: TestClient) -> None:
    packed = client.get("/assets/a-1.js", headers={"Accept-Encoding": "br, gzip"})
    plain = client.get("/assets/a-1.js", headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.content == plain.content == b"let words = 1;" * 100  # the client unpacks
    assert int(packed.headers["Content-Length"]) < len(plain.content)
    assert "Content-Encoding" not in client.get("/assets/codec-2.wasm").headers


@pytest.mark.parametrize(
    "name", ["nothing.js", "../index.html", "../../secret.txt", "%2e%2e/%2e%2e/secret.txt", "/etc/passwd", ""]
)
def test_nothing_but_the_listed_files_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/assets/{name}").status_code in (200, 404)
    assert "not a page" not in client.get(f"/assets/{name}").text
    assert "root:" not in client.get(f"/assets/{name}").text


def test_a_name_with_dots_is_not_a_listed_one(folder: Path) -> None:
    with pytest.raises(Problem, match="No such page"):
        Pages(folder).asset("../../secret.txt", "")


def test_without_built_pages_the_service_says_how_to_build_them(service: Service, tmp_path: Path) -> None:
    app = build_app(service)
    app.state.pages = Pages(tmp_path / "none")
    page = TestClient(app).get("/")
    assert page.status_code == 200
    assert "make setup" in page.text
    assert "npm run build" in page.text
    assert not Pages(tmp_path / "none").built


def test_pages_are_typed_by_the_api_as_it_is(repository: Path) -> None:
    document = runpy.run_path(str(repository / "web" / "schema.py"))["document"]()
    kept = (repository / "web" / "openapi.json").read_text(encoding="utf-8")
    assert document == kept, "the API has changed: run `python web/schema.py`"


def test_compressed_bytes_are_the_file(folder: Path) -> None:
    answer = Pages(folder).front("gzip")
    assert gzip.decompress(bytes(answer.body)) == (folder / "index.html").read_bytes()
