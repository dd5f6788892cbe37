"""Who makes result objects: this process in a thread, or a process of its own beside it.

Decided here: the process is started anew, knows nothing of this one but what it is handed, leaves the signals of the
terminal to us, and dies with us, however we end.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Hands"]

T = TypeVar("T")

_LOG = logging.getLogger("wetread.pacs")
_OBJECTS = 100_000
"""New objects before Python looks for unused ones: a report has 10,000, and a look every 700 costs a sixth of it."""


class Hands:
    """Does one thing after the other. ``apart``: in a process of its own, which pays for more than a few studies."""

    def __init__(self, *, apart: bool = False) -> None:
        self._apart = apart
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def do(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin ``work(*arguments)``, which can be pickled. What it raises is in the future.

        So is a process that died; the next call starts another.
        """
        with self._lock:
            try:
                return self._running().submit(work, *arguments)
            except BrokenExecutor:
                self._executor = None
                return self._running().submit(work, *arguments)

    def _running(self) -> Executor:
        if self._executor is None and self._apart:
            try:
                self._executor = _process()
            except OSError as error:  # no semaphores: some containers have no /dev/shm
                _LOG.warning("results are made in this process: %s where another was to start", type(error).__name__)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "result objects")
        return self._executor

    def close(self) -> None:
        """Finish what is under way and stop."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


def _process() -> ProcessPoolExecutor:
    # Not forked: this process has threads, which hold locks that a copy would wait for.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_settle)


def _settle() -> None:
    """In the new process: Ctrl-C goes to the whole group and is for the node to obey; without it there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(_OBJECTS)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(0)
