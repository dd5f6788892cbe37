"""A process beside the server: its worker, its receiver.

Decided here: it is started again when it dies, sooner where it had run for a while; its input is a pipe that only the
server holds, so that it ends with the server, however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

from wetread.settings import Settings

__all__ = ["PROGRAM", "Companion"]

logger = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-c", "from wetread.cli.main import main; main()")
_LONGEST_PAUSE_S = 30.0
_LONG_RUN_S = 60.0


class Companion:
    """A process beside the server; a context. See the module.

    Args:
        name: What it is, for the log.
        settings: Those of the server, flags included.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._environment = _environment(settings)
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True, name=f"wetread-{name}-keeper")

    def words(self) -> Sequence[str]:
        """The verb and flags that it is started with."""
        raise NotImplementedError

    def ended(self) -> None:
        """Called after each process."""

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it: its input ends, it finishes what is under way and goes."""
        self._stop.set()
        with contextlib.suppress(OSError):
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
        self._thread.join(timeout=20)
        if self._process is not None and self.is_alive:
            self._process.kill()

    def _keep(self) -> None:
        pause = 0.5
        while not self._stop.is_set():
            begin = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603
                [*PROGRAM, *self.words()], stdin=subprocess.PIPE, env=self._environment
            )
            code = self._process.wait()
            self.ended()
            if self._stop.is_set():
                return
            pause = 0.5 if time.monotonic() - begin > _LONG_RUN_S else min(_LONGEST_PAUSE_S, pause * 2)
            logger.warning("the %s ended with code %s; starting another in %.1f s", self._name, code, pause)
            self._stop.wait(pause)


def _environment(settings: Settings) -> dict[str, str]:
    """The settings of this process for the other, flags included."""
    chosen = settings.service
    told = {
        "WETREAD_SERVICE__ROOT": str(chosen.root.resolve()),
        "WETREAD_SERVICE__DATABASE_URL": chosen.database_url,
        "WETREAD_SERVICE__READER": chosen.reader,
        "WETREAD_SERVICE__SEGMENTER": chosen.segmenter,
        "WETREAD_SERVICE__INDEX": chosen.index,
        "WETREAD_SERVICE__LEASE_S": str(chosen.lease_s),
        "WETREAD_SERVICE__BATCH": str(chosen.batch),
        "WETREAD_PATHS__READERS": str(settings.paths.readers),
    }
    return {**os.environ, **told}
