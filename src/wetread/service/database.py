"""The database of the service: SQLite by default, PostgreSQL by URL; transactions, migrations under a lock.

Decided here: SQLite runs with a write-ahead log and ``synchronous=FULL``, so that what was acknowledged survives
a power cut; every writing transaction begins with ``BEGIN IMMEDIATE``, so that none fails half-way because another
one was faster; writers queue at locks of their own, which are fairer and quicker than SQLite's waiting.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from wetread.errors import PeerUnreachable, UsageError, expected
from wetread.service.problems import Problem

__all__ = ["BUSY_S", "Database", "migrate", "open_database", "revision", "start_lock"]

BUSY_S = 20.0
"""How long a writer waits for another process before the client is told to try again."""

_TURN_S, _LOOK_S = 0.5, 0.001
_POOL = 24
_LOCK_NUMBER = 0x77657472
"""Number of PostgreSQL's advisory lock for migrations ("wetr")."""


class Database:
    """One database. :meth:`read` and :meth:`write` give transactions; see :func:`open_database`."""

    def __init__(self, engine: Engine, file: Path | None) -> None:
        self.engine = engine
        self.file = file
        self._writer = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._turn = _Turn(file.with_suffix(".turn")) if file is not None else None

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the default kind."""
        return self.file is not None

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only looks."""
        with _busy_as_problem(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the block, or undone where it raises.

        Raises:
            Problem: ``unavailable``: the database was locked for :data:`BUSY_S` seconds. ``disk_full``: no room.
                ``conflict``: somebody else wrote the same at the same moment. ``invalid``: text that it cannot hold.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_busy_as_problem())
            if self._turn is not None:
                stack.enter_context(self._turn.taken())
            session = stack.enter_context(Session(self._writer, expire_on_commit=False))
            with session.begin():
                yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class _Turn:
    """Whose turn it is to write into a file: threads wait at a lock, processes at another file.

    SQLite sleeps longer and longer before it looks again, up to a tenth of a second, and a queue of uploads pays for
    that many times over. After :data:`_TURN_S` the wait is left to SQLite, which ends it with an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn of this thread of this process; a context."""
        with self._lock, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # no room for an empty file: SQLite will say so
                stream = stack.enter_context(self._path.open("wb"))
                _wait_for(stream)
            yield  # and closing the file lets the next one go


def _wait_for(stream: IO[bytes]) -> None:
    end = time.monotonic() + _TURN_S
    while time.monotonic() < end:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
        else:
            return


def open_database(url: str) -> Database:
    """Open ``sqlite:///FILE`` or ``postgresql+psycopg://…``; the folder of a file is made.

    Raises:
        UsageError: another kind of URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(expected("a database URL", "something else", "use sqlite:///FILE or postgresql+psycopg://…")) \
            from None  # fmt: skip
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_size=_POOL, pool_pre_ping=True, hide_parameters=True
        )
        return Database(engine, None)
    if backend != "sqlite" or not parsed.database:
        raise UsageError(expected("SQLite in a file, or PostgreSQL", backend, "use sqlite:///FILE"))
    file = Path(parsed.database)
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        pool_size=_POOL,
        max_overflow=_POOL,
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
        hide_parameters=True,  # what is written names patients; no error and no log of statements may
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, file)


def migrate(database: Database) -> str:
    """Bring the tables up to date under a lock, so that processes started together do it once; return the revision.

    Raises:
        PeerUnreachable: the database does not answer.
    """
    from alembic import command

    with start_lock(database), _unreachable():
        configuration = _configuration()
        with database.engine.begin() as connection:
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
    return revision(database)


def revision(database: Database) -> str:
    """The revision of the tables, empty for a database without any."""
    from alembic.runtime.migration import MigrationContext

    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def _configuration() -> Any:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.set_main_option("path_separator", "os")
    return configuration


@contextlib.contextmanager
def start_lock(database: Database) -> Iterator[None]:
    """Let one process after the other make tables; a context.

    Raises:
        PeerUnreachable: the database does not answer.
    """
    if database.file is not None:
        with database.file.with_suffix(".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
        return
    with _unreachable(), database.engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK_NUMBER})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": _LOCK_NUMBER})


@contextlib.contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        # The driver's text names the host and the user, at times the password.
        raise PeerUnreachable(expected("a database that answers", type(error.orig).__name__, "check its URL")) from None


@contextlib.contextmanager
def _busy_as_problem() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        words = str(error.orig).lower()
        if "full" in words:
            raise Problem("disk_full", "The disk of the database is full.") from None
        raise Problem("unavailable", "The database is busy or does not answer.", retry_after_s=2) from None
    except IntegrityError:
        hint = "Send the request again."
        raise Problem("conflict", "Somebody else changed the same at the same moment.", hint, 1) from None
    except DataError:
        # PostgreSQL holds no NUL in a text; its own words would quote what was sent.
        raise Problem("invalid", "A value holds what the database cannot keep, such as a NUL character.") from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin when SQLAlchemy says so, see _begin_sqlite
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
