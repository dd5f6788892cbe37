"""The bell that wakes the workers: huey, on SQLite beside the database or on the PostgreSQL that is the database.

Decided here: a message says only "there is work" and holds no work itself; what is to be done stands in the table of
jobs. A lost message therefore costs time and loses nothing: once a minute, and at each start, a worker looks by
itself. Messages are JSON, never pickles.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huey import Huey

    from wetread.service.database import Database

__all__ = ["Bell"]

logger = logging.getLogger(__name__)

_NAME = "wetread"
_LONGEST_PAUSE_S = 0.25
_HEALTH_EVERY_S = 10.0


class Bell:
    """Ring it after a job was committed; a worker consumes the rings."""

    def __init__(self, database: Database, root: Path) -> None:
        logging.getLogger("huey").setLevel(logging.WARNING)
        self._work: Callable[[], None] = _nothing
        self._sweep: Callable[[], None] = _nothing
        self._huey = _open(database, root)
        self._ring = self._huey.task(name="drain")(self._drain)

    def ring(self) -> None:
        """Say that there is work; rings that nobody has heard yet count as one. Never fails: see the module."""
        try:
            if self._huey.pending_count() == 0:
                self._ring()
        except Exception as error:  # of either driver: a full disk, a lock, a server that is away
            logger.warning("the bell did not ring: %s", type(error).__name__)

    def close(self) -> None:
        """Close the connection to the queue."""
        self._huey.storage.close()

    def consume(self, work: Callable[[], None], sweep: Callable[[], None], stop: threading.Event) -> None:
        """Call ``work`` for each ring and ``sweep`` once a minute, in one thread, until ``stop`` is set."""
        from huey import crontab
        from huey.consumer import Consumer

        class Quiet(Consumer):  # type: ignore[misc]
            """A consumer that leaves the signals of the process to the command line."""

            def _set_signal_handlers(self) -> None:
                return

        self._work, self._sweep = work, sweep
        self._huey.periodic_task(crontab(minute="*"), name="sweep")(self._swept)
        consumer = Quiet(self._huey, workers=1, max_delay=_LONGEST_PAUSE_S, check_worker_health=True)
        self.ring()
        consumer.start()
        while not stop.wait(_HEALTH_EVERY_S):
            consumer.check_worker_health()
        consumer.stop(graceful=True)

    def _drain(self) -> None:
        self._work()

    def _swept(self) -> None:
        self._sweep()
        self._work()


def _open(database: Database, root: Path) -> Huey:
    from huey import PostgresHuey, SqliteHuey
    from huey.serializer import Serializer

    class JsonSerializer(Serializer):  # type: ignore[misc]
        """Tasks as JSON lists."""

        def _serialize(self, data: Any) -> bytes:
            return json.dumps(list(data), default=str).encode()

        def _deserialize(self, data: bytes) -> Any:
            from huey.registry import Message

            return Message(*json.loads(data))

    if database.is_sqlite:
        return SqliteHuey(
            _NAME, filename=str(root / "queue.db"), results=False, serializer=JsonSerializer(), timeout=20
        )
    dsn = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(_NAME, dsn=dsn, results=False, serializer=JsonSerializer())


def _nothing() -> None:
    return
