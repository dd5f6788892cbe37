"""Tables, transactions, migrations and the audit log, on SQLite files."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from wetread.errors import UsageError
from wetread.service import audit_log
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.database import Database, migrate, open_database, revision
from wetread.service.tables import AuditEntry, Base, User, Workitem


@pytest.fixture
def database(tmp_path: Path) -> Database:
    opened = open_database(f"sqlite:///{tmp_path / 'x' / 'test.db'}")
    assert migrate(opened) == "0002"
    return opened


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_an_installation_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    from alembic import command

    from wetread.service.database import _configuration

    opened = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    configuration = _configuration()
    with opened.engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0001")
        connection.execute(
            text(
                "INSERT INTO users (id, name, role, trays, disabled, failures, locked_until, created)"
                " VALUES ('u', 'ada', 'admin', '[]', 0, 0, 0, 0)"
            )
        )
    assert migrate(opened) == "0002"
    with opened.read() as session:
        assert session.scalars(select(User.name)).all() == ["ada"]
        assert session.scalars(select(Workitem)).all() == []
    opened.close()


def test_migrating_twice_and_at_the_same_time_does_it_once(tmp_path: Path) -> None:
    opened = [open_database(f"sqlite:///{tmp_path / 'test.db'}") for _ in range(3)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda one=one: found.append(migrate(one))) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["0002"] * 3
    assert revision(opened[0]) == "0002"
    for one in opened:
        one.close()


def test_sqlite_survives_a_power_cut(database: Database) -> None:
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def add_and_fail() -> None:
        with database.write() as session:
            session.add(User(name="ada", role="admin"))
            session.flush()
            raise LookupError("after the row was written")

    with pytest.raises(LookupError, match="after the row"):
        add_and_fail()
    with database.read() as session:
        assert session.scalars(select(User)).all() == []
    database.close()


def test_writers_wait_for_each_other(database: Database) -> None:
    def add(number: int) -> None:
        with database.write() as session:
            audit_log.append(session, Actor("ada"), "view", str(number))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        check = audit_log.verify(session)
    assert (check.entries, check.broken) == (12, None)
    database.close()


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///FILE"):
        open_database(url)


def _three_lines(database: Database) -> str:
    with database.write() as session:
        for number in range(3):
            audit_log.append(session, Actor("ada", "r1"), "view", f"study{number}", {"n": number})
        return audit_log.head(session)


def test_the_audit_log_cannot_be_changed_through_the_database(database: Database) -> None:
    _three_lines(database)
    for statement in ("UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log"):
        with pytest.raises(DatabaseError, match="only grows"), database.engine.begin() as connection:
            connection.execute(text(statement))
    database.close()


@pytest.mark.parametrize(
    ("change", "broken", "reason"),
    [
        ("UPDATE audit_log SET actor = 'eve' WHERE seq = 2", 2, "the line was changed"),
        ("UPDATE audit_log SET detail = '{\"n\": 7}' WHERE seq = 1", 1, "the line was changed"),
        ("DELETE FROM audit_log WHERE seq = 2", 2, "a line is missing"),
        ("DELETE FROM audit_log WHERE seq = 3", 3, "lines were removed"),
    ],
)
def test_a_changed_file_is_found_out(database: Database, change: str, broken: int, reason: str) -> None:
    head = _three_lines(database)
    database.close()
    assert database.file is not None
    with sqlite3.connect(database.file) as raw:  # as someone with the file in hand would
        raw.execute("DROP TRIGGER audit_log_update")
        raw.execute("DROP TRIGGER audit_log_delete")
        raw.execute(change)
    raw.close()
    with database.read() as session:
        check = audit_log.verify(session, head)
    assert check.broken == broken
    assert reason in check.reason
    database.close()


def test_a_line_is_hashed_with_the_one_before(database: Database) -> None:
    _three_lines(database)
    with database.read() as session:
        lines = session.scalars(select(AuditEntry).order_by(AuditEntry.seq)).all()
    assert [line.previous for line in lines] == [audit_log.FIRST, lines[0].hash, lines[1].hash]
    database.close()


def test_an_opened_service_has_tables_and_private_folders(service: Service) -> None:
    assert (service.root / "wetread.db").is_file()
    assert service.root.stat().st_mode & 0o077 == 0


def test_writers_of_two_processes_take_turns_and_neither_waits_for_one_that_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database.file is not None
    other = open_database(f"sqlite:///{database.file}")
    order: list[str] = []

    def second() -> None:
        with other.write() as session:
            order.append("second")
            session.execute(select(User)).all()

    thread = threading.Thread(target=second)
    with database.write():
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    monkeypatch.setattr("wetread.service.database._TURN_S", 0.05)
    with database.file.with_suffix(".turn").open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # a process that hangs, with nothing written
        with other.write() as session:
            session.add(User(name="late", role="reader"))
    with database.read() as session:
        assert session.scalars(select(User.name)).all() == ["late"]
    other.close()
