"""What the benchmarks share: timing, memory of child processes, and a CSV that carries its protocol.

Every row says what was measured, on what machine, how, and against which bar; a figure without its
protocol cannot be written.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import psutil

from wetread import provenance

__all__ = ["Child", "Figure", "arguments", "machine", "run_child", "summarise", "timed", "write_figures"]

_POLL_S = 0.02


@dataclass(frozen=True)
class Figure:
    """One measured number.

    ``value`` with ``low`` and ``high`` (the spread over ``n`` repeats, not a confidence interval),
    ``bar`` such as ``<= 0.3`` (empty: no bar), ``protocol``: how it was measured and its flaw.
    """

    what: str
    value: float
    unit: str
    protocol: str
    n: int = 1
    low: float | None = None
    high: float | None = None
    bar: str = ""

    @property
    def met(self) -> str:
        """``yes`` or ``no`` against the bar; empty without one."""
        if not self.bar:
            return ""
        sign, limit = self.bar.split()[:2]
        if sign not in ("<=", ">="):
            raise ValueError(f"expected a bar such as '<= 0.3', got {self.bar!r}; begin it with <= or >=")
        kept = self.value <= float(limit) if sign == "<=" else self.value >= float(limit)
        return "yes" if kept else "no"


@dataclass(frozen=True)
class Child:
    """One finished child process: wall seconds, peak memory, exit code and what it printed.

    ``peak_bytes`` is the largest sum of resident sizes over the child and its descendants seen at
    any poll (every 20 ms). Shared pages count once for each process, so it errs upwards; a peak
    between two polls is missed. The kernel's own peak is of no use: it counts the forked parent too.
    """

    seconds: float
    peak_bytes: int
    exit_code: int
    stdout: str
    stderr: str


def machine() -> dict[str, str]:
    """What a reader needs to judge a timing: processor, cores, memory, versions, date, commit."""
    run = provenance.record(command=[])
    memory = "unknown" if run.memory_bytes is None else f"{run.memory_bytes / 2**30:.1f} GiB"
    libraries = " ".join(f"{name} {version}" for name, version in run.libraries.items())
    return {
        "machine": f"{run.cpu}, {run.cores} cores, {memory}",
        "load": f"{os.getloadavg()[0]:.2f}",
        "python": run.python,
        "libraries": libraries,
        "wetread": run.wetread,
        "commit": run.commit or "",
        "date": datetime.now(UTC).date().isoformat(),
    }


def timed(function: Callable[[], object], repeats: int = 5, warm_up: int = 1) -> list[float]:
    """Wall seconds of ``repeats`` calls after ``warm_up`` unmeasured ones."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds


def run_child(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Child:
    """Run ``command`` to its end and measure it; a failure is the caller's to judge.

    ``environment`` is added to this process's own.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=err, env={**os.environ, **(environment or {})}
        )
        watcher = _Watcher(process.pid)
        watcher.start()
        _, status = os.waitpid(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.stop.set()
        watcher.join()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", errors="replace"))
    return Child(seconds, watcher.peak_bytes, process.returncode, *texts)


class _Watcher(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_bytes = 0
        self.stop = threading.Event()

    def run(self) -> None:
        first = True
        while first or not self.stop.wait(_POLL_S):
            first = False
            try:
                root = psutil.Process(self.pid)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.peak_bytes = max(self.peak_bytes, sum(_resident(member) for member in family))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def summarise(what: str, values: Sequence[float], unit: str, protocol: str, bar: str = "") -> Figure:
    """The median of ``values`` with their smallest and largest."""
    return Figure(what, statistics.median(values), unit, protocol, len(values), min(values), max(values), bar)


def write_figures(path: Path, figures: Sequence[Figure], stays: Callable[[str], bool] | None = None) -> None:
    """Write one CSV row for each figure, with the machine in every row, whole or not at all.

    ``stays`` says by ``what`` which rows of the file that is there are kept as they are, before the new ones: each
    names its own machine, commit and date.
    """
    facts = machine()
    names = [field.name for field in fields(Figure)]
    names.insert(names.index("bar") + 1, "met")
    kept = [row for row in _rows(path) if stays(row["what"])] if stays else []
    with provenance.atomic_file(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*names, *facts], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        for figure in figures:
            row = {**asdict(figure), "met": figure.met, **facts}
            writer.writerow({key: f"{cell:.6g}" if isinstance(cell, float) else cell for key, cell in row.items()})


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def arguments(description: str | None, out: str) -> argparse.ArgumentParser:
    """A parser with ``--out FILE.csv``; a benchmark adds its own flags to it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(out), help="where the CSV goes (default: %(default)s)")
    return parser
