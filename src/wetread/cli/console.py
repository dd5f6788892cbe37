"""What goes where: results on stdout, progress and warnings on stderr, colour only where wanted.

rich honours NO_COLOR and a stream that is no terminal; progress is a bar on a terminal and a plain
line every few seconds elsewhere, so that a log stays readable.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Advance",
    "Staged",
    "log_to_stderr",
    "print_json",
    "progress",
    "spinner",
    "staged_progress",
    "stderr",
    "stdout",
    "warn",
]

PLAIN_EVERY_S = 5.0
"""Seconds between the lines of progress in a log."""

Advance = Callable[[int, int], None]
"""Called with (done, total)."""

Staged = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """The console for everything that is not the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Write a pydantic model or plain data as JSON on stdout, and nothing else.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def warn(text: str) -> None:
    """Write one warning to stderr."""
    stderr().print(f"! {text}", style="yellow", markup=False)


def log_to_stderr(*, debug: bool = False) -> None:
    """Send warnings of wetread's log to stderr, with ``debug`` all of it; calling again changes nothing else."""
    log = logging.getLogger("wetread")
    if not any(isinstance(handler, _ToStderr) for handler in log.handlers):
        log.addHandler(_ToStderr(logging.WARNING))
    if debug:
        log.setLevel(logging.DEBUG)
    for handler in log.handlers:
        if isinstance(handler, _ToStderr):
            handler.setLevel(logging.DEBUG if debug else logging.WARNING)


class _ToStderr(logging.Handler):
    """Looks up sys.stderr at each line, so that a redirection holds."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname.lower()}: {self.format(record)}\n")


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show that something without a known end is under way; silent where stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def progress(text: str, unit: str = "images") -> Iterator[Advance]:
    """Show progress with units per second and the time left; yield ``advance(done, total)``."""
    console = stderr()
    if not console.is_terminal:
        yield _PlainProgress(text, unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(text, total=None, speed="")

        def advance(done: int, total: int) -> None:
            per_second = bar.tasks[0].speed
            speed = f"{per_second:.1f} {unit}/s" if per_second else ""
            bar.update(task, completed=done, total=total, speed=speed)

        yield advance


@contextmanager
def staged_progress() -> Iterator[Staged]:
    """Yield a callback (stage, done, total) that shows one bar per stage, one after the other."""
    with ExitStack() as stack:
        shown: dict[str, Advance] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                stack.close()
                shown.clear()
                shown[stage] = stack.enter_context(progress(stage.capitalize()))
            shown[stage](done, total)

        yield advance


class _PlainProgress:
    """One line on stderr every :data:`PLAIN_EVERY_S` seconds, and one at the end."""

    def __init__(self, text: str, unit: str) -> None:
        self.text = text
        self.unit = unit
        self.begin = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.last < PLAIN_EVERY_S:
            return
        self.last = now
        sys.stderr.write(progress_line(self.text, self.unit, done, total, now - self.begin) + "\n")


def progress_line(text: str, unit: str, done: int, total: int, elapsed_s: float) -> str:
    """The plain line of progress: how many, how fast, how long still."""
    speed = done / elapsed_s if elapsed_s > 0 else 0.0
    left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
    return f"{text}: {done} of {total} {unit}, {speed:.1f} {unit}/s{left}"
