"""Mutants of pydicom's test files through the importer: one typed error or an image, no hang, little memory.

Each mutant is one test file with a few changes (bytes, lengths, cuts, blocks moved, doubled or zeroed, elements
swapped between files), made from its number alone, so that any of them can be made again: ``--show NUMBER FILE``
writes one. Mutants are opened by ``load_image`` in worker processes that a supervisor kills after five seconds of
CPU; a worker's own memory is limited, and its peak is recorded. The log makes a long run resumable.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import psutil

from benchmarks.common import Figure, arguments, write_figures

__all__ = ["HANG_S", "MOST_BYTES", "Door", "Tally", "campaign", "mutant", "seed_files"]

HANG_S, MOST_BYTES = 5.0, 1 << 30
_BLOCK = 500
_LEFT_OUT = {"__pycache__", "palettes", "SE000000"}
"""Folders of pydicom's data without images: SE000000 is 50 times the same kind of object."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk in memory, where there is one
_BUDGET_BYTES = 64 << 20
_LONGEST_WAIT_S = 1800
"""On the wall, for a worker that waits and uses no CPU."""
_LENGTHS = (0, 1, 2, 7, 0xFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_MARKS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\x7f\xe0\x10\x00", b"\xff\xd8", b"\xff\x4f")
_KINDS = (b"SQ", b"UN", b"OB", b"DS", b"US", b"FD", b"AT", b"PN", b"ZZ", b"\0\0")


@dataclass
class Tally:
    """What a campaign gave. ``outcomes``: class of the error, or ``image``, to how often."""

    mutants: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def add(self, block: Tally) -> None:
        """Take over what one block gave."""
        self.mutants += block.mutants
        self.outcomes = dict(Counter(self.outcomes) + Counter(block.outcomes))
        for name in ("foreign", "hangs", "deaths"):
            getattr(self, name).extend(getattr(block, name))
        self.slowest_s = max(self.slowest_s, block.slowest_s)
        self.peak_bytes = max(self.peak_bytes, block.peak_bytes)


def seed_files() -> list[Path]:
    """Pydicom's own test files that are on this machine, small enough to be mutated thousands of times."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data"
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".py", ".json")]
    return [path for path in found if path.stat().st_size < 300_000 and not _LEFT_OUT & set(path.parts)]


def mutant(number: int, seeds: Sequence[bytes]) -> bytes:
    """The mutant of this number: always the same for the same seeds."""
    chance = random.Random(number)  # noqa: S311 - a fixed sequence is wanted
    data = bytearray(seeds[number % len(seeds)])
    for _ in range(chance.choice((1, 1, 2, 3, 6, 20))):
        if not data:
            break
        chance.choice(_CHANGES)(data, chance, seeds)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Somewhere, mostly in the header."""
    most = min(len(data), 3000) if chance.random() < 0.7 else len(data)
    return chance.randrange(most)


def _flip(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    data[_place(data, chance)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _length(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(data, chance), chance.choice((2, 4))
    data[at : at + size] = struct.pack("<I", chance.choice(_LENGTHS))[:size]


def _mark(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    mark, at = chance.choice((*_MARKS, *_KINDS)), _place(data, chance)
    data[at : at + len(mark)] = mark


def _kind(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Change the VR of an element that is there."""
    at = data.find(chance.choice((b"US", b"DS", b"IS", b"CS", b"OW", b"OB", b"SQ", b"UI")), _place(data, chance))
    if at >= 0:
        data[at : at + 2] = chance.choice(_KINDS)


def _cut(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del data[_place(data, chance) :]


def _remove(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, chance)
    del data[at : at + chance.randrange(1, 64)]


def _double(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, chance)
    data[at:at] = data[at : at + chance.randrange(1, 512)] * chance.choice((1, 2, 50))


def _zero(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(data, chance), chance.randrange(1, 256)
    data[at : at + size] = bytes(len(data[at : at + size]))


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    other = seeds[chance.randrange(len(seeds))]
    start = chance.randrange(len(other))
    at = _place(data, chance)
    data[at : at + chance.randrange(256)] = other[start : start + chance.randrange(1, 2048)]


_CHANGES = (_flip, _byte, _length, _mark, _kind, _cut, _remove, _double, _zero, _splice)


def _opened(path: Path) -> tuple[str, bool]:
    from wetread.errors import WetreadError
    from wetread.imaging import load_image

    try:
        load_image(path, budget_bytes=_BUDGET_BYTES)
    except WetreadError as error:
        return type(error).__name__, True
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:100]}", False
    return "image", True


@dataclass(frozen=True)
class Door:
    """What makes a mutant of its number and opens it, and the CPU seconds after which it hangs."""

    make: Callable[[int, Sequence[bytes]], bytes] = mutant
    opened: Callable[[Path], tuple[str, bool]] = _opened
    hang_s: float = HANG_S


def campaign(numbers: Sequence[int], workers: int = 1, door: Door | None = None) -> Iterator[tuple[int, Tally]]:
    """Open mutants in blocks; yields (first number, what the block gave). A worker that hangs or dies is replaced."""
    how = door or Door()
    blocks = [list(numbers[start : start + _BLOCK]) for start in range(0, len(numbers), _BLOCK)]
    running: list[_Worker] = []
    while blocks or running:
        while blocks and len(running) < workers:
            running.append(_Worker(blocks.pop(0), how))
        wait([worker.pipe for worker in running], timeout=0.2)
        for worker in list(running):
            worker.poll()
            if worker.over:
                running.remove(worker)
                yield worker.block[0], worker.tally


class _Worker:
    """A process that opens the mutants of a block, watched from outside."""

    def __init__(self, block: list[int], door: Door) -> None:
        self.block, self.todo, self.door = block, list(block), door
        self.tally = Tally()
        self.over = False
        self._start()

    def _start(self) -> None:
        self.pipe, writing = multiprocessing.Pipe(duplex=False)
        # Forked from a small process that has loaded the libraries: no threads, and memory that is the worker's own.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.mutants", "wetread.imaging.load"])
        self.process = context.Process(target=_open_all, args=(self.todo, self.door, writing), daemon=True)
        self.process.start()
        writing.close()
        self.since, self.used_s = time.monotonic(), 0.0

    def poll(self) -> None:
        """Take what came; kill a worker that is silent for too long."""
        try:
            while self.pipe.poll():
                self._take(*self.pipe.recv())
        except EOFError:
            self._gone(self.tally.deaths)
            return
        waited = time.monotonic() - self.since
        most = self.door.hang_s
        if waited > most and (self._cpu_s() - self.used_s > most or waited > _LONGEST_WAIT_S):
            self.process.kill()
            self._gone(self.tally.hangs)

    def _cpu_s(self) -> float:
        """CPU seconds of the worker: on a busy machine the clock on the wall says nothing of a hang."""
        try:
            times = psutil.Process(self.process.pid or 0).cpu_times()
        except psutil.Error:
            return self.used_s
        return float(times.user + times.system)

    def _take(self, number: int, outcome: str, ours: bool, seconds: float, peak_bytes: int) -> None:
        self.todo.remove(number)
        self.since, self.used_s = time.monotonic(), self._cpu_s()
        self.tally.mutants += 1
        self.tally.outcomes[outcome] = self.tally.outcomes.get(outcome, 0) + 1
        self.tally.slowest_s = max(self.tally.slowest_s, seconds)
        self.tally.peak_bytes = max(self.tally.peak_bytes, peak_bytes)
        if not ours:
            self.tally.foreign.append(f"{number}: {outcome}")
        if seconds > self.door.hang_s:
            self.tally.hangs.append(number)

    def _gone(self, told: list[int]) -> None:
        """The process ended: with the block, or in the middle of a mutant, which is then left out."""
        self.process.join()
        self.pipe.close()
        if self.todo:
            told.append(self.todo.pop(0))
            self.tally.mutants += 1
        if self.todo:
            self._start()
        else:
            self.over = True


def _open_all(numbers: list[int], door: Door, writing: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - codecs print to it
    seeds = [path.read_bytes() for path in seed_files()]
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "mutant"
        for number in numbers:
            path.write_bytes(door.make(number, seeds))
            used = time.process_time()
            outcome, ours = door.opened(path)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            writing.send((number, outcome, ours, time.process_time() - used, peak))
    writing.close()


def figures_of(tally: Tally) -> list[Figure]:
    """The rows of the table."""
    kinds = ", ".join(f"{name} {count}" for name, count in Counter(tally.outcomes).most_common(12))
    protocol = f"mutants of {len(seed_files())} test files of pydicom through load_image, in workers; {kinds}"
    n = tally.mutants
    return [
        Figure("mutants", n, "files", protocol, n=n, bar=">= 100000"),
        Figure("errors that are not ours", len(tally.foreign), "files", protocol, n=n, bar="<= 0"),
        Figure("hangs beyond 5 s", len(tally.hangs), "files", protocol, n=n, bar="<= 0"),
        Figure("workers that died", len(tally.deaths), "files", protocol, n=n, bar="<= 0"),
        Figure("slowest", round(tally.slowest_s, 3), "s of CPU", protocol, n=n, bar="<= 5"),
        Figure("peak memory of a worker", round(tally.peak_bytes / 2**20, 1), "MiB", protocol, n=n, bar="<= 1024"),
    ]


def main() -> None:
    parser = arguments(__doc__, "results/mutants.csv")
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("runs/mutants.jsonl"), help="makes a run resumable")
    parser.add_argument("--show", nargs=2, metavar=("NUMBER", "FILE"), help="write one mutant and end")
    asked = parser.parse_args()
    if asked.show:
        seeds = [path.read_bytes() for path in seed_files()]
        Path(asked.show[1]).write_bytes(mutant(int(asked.show[0]), seeds))
        return
    asked.log.parent.mkdir(parents=True, exist_ok=True)
    tally, done = Tally(), set()
    if asked.log.exists():
        for line in asked.log.read_text().splitlines():
            row = json.loads(line)
            done.add(row.pop("first"))
            tally.add(Tally(**row))
    starts = [first for first in range(0, asked.mutants, _BLOCK) if first not in done]
    numbers = [number for first in starts for number in range(first, min(first + _BLOCK, asked.mutants))]
    with asked.log.open("a") as log:
        for first, block in campaign(numbers, asked.workers):
            tally.add(block)
            log.write(json.dumps({"first": first, **asdict(block)}) + "\n")
            log.flush()
            print(tally.mutants, len(tally.foreign), len(tally.hangs), len(tally.deaths), flush=True)
    for line in [*tally.foreign, *(f"{number}: hang" for number in tally.hangs), *map(str, tally.deaths)][:50]:
        print(line)
    write_figures(asked.out, figures_of(tally))


if __name__ == "__main__":
    main()
