"""An installation of the service on a small reader, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
