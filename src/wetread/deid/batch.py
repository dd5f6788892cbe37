"""Many files: from a folder into a result, with a journal, a quarantine and, if asked, sealed originals.

Decided here: a file is written outside the result, checked there, and only then renamed into it, so the result never
holds a file that was not checked, not even after a crash. The journal in the result has a line for each file; the next
run with the same key and options takes from it what is done, and a run with others is refused. What is quarantined
lies in a folder of its own that its owner alone may enter.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from wetread import __version__
from wetread.deid.originals import Sealer
from wetread.deid.process import Cleaned, Quarantined, Setup, Skipped, clean
from wetread.deid.records import DeidReport, FileResult
from wetread.deid.residual import left_in_file
from wetread.errors import InputRefused, UsageError, expected
from wetread.imaging.header import quiet
from wetread.provenance import disk_errors

__all__ = ["JOURNAL", "Run", "files_below", "open_run", "quarantine_of"]

JOURNAL = "deid.jsonl"
_LIST = "quarantine.csv"
_MOST_NAMED = 6
_HEADER_BYTES = 256 << 20
"""What a file may hold beside the pixels of the budget."""


@dataclass
class Run:
    """One run into one result. Use :func:`open_run`.

    ``results``: one for each file, in order. ``done``: by token, what an earlier run had written.
    """

    setup: Setup
    out: Path
    quarantine: Path
    dry_run: bool
    scratch: Path
    sealer: Sealer | None = None
    results: list[FileResult] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    done: dict[str, FileResult] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def take(self, path: Path, shown: str | None = None) -> FileResult:
        """De-identify one file and return what became of it.

        Args:
            path: The source file.
            shown: What the quarantine list calls it; default the path.

        Raises:
            WetreadError: the disk is full or may not be written.
        """
        number = len(self.results) + 1
        try:
            data = _read(path, self.setup.budget_bytes + _HEADER_BYTES)
        except Quarantined as reason:
            token = self.setup.key.token("path", str(path))
            return self._note(FileResult(number=number, source=token, status="quarantined", reason=str(reason)))
        token = self.setup.key.token("file", hashlib.sha256(data).hexdigest())
        if token in self._seen:
            return self._note(FileResult(number=number, source=token, status="skipped", reason="the same file again"))
        self._seen.add(token)
        done = self.done.get(token)
        if done is not None and done.output and (self.out / done.output).is_file():
            return self._note(done.model_copy(update={"number": number}), write=False)
        result = self._one(data, token, number)
        if result.status == "quarantined" and not self.dry_run:
            self._lock_away(data, token, shown or str(path), result.reason)
        return self._note(result)

    def report(self) -> DeidReport:
        """What was done so far."""
        return DeidReport(
            created=datetime.now(UTC).replace(microsecond=0),
            wetread=__version__,
            key=self.setup.key.identity,
            options=self.setup.options,
            dry_run=self.dry_run,
            seconds=round(time.monotonic() - self.began, 3),
            files=tuple(self.results),
        )

    def _one(self, data: bytes, token: str, number: int) -> FileResult:
        with quiet():  # pydicom's warnings quote values
            return self._judged(data, token, number)

    def _judged(self, data: bytes, token: str, number: int) -> FileResult:
        try:
            cleaned = clean(data, self.setup)
            if (self.out / cleaned.place).exists() or cleaned.place.as_posix() in self._places():
                raise Quarantined("another file of the result has the same SOP Instance UID")
            self._write(cleaned)
        except Skipped as reason:
            return FileResult(number=number, source=token, status="skipped", reason=str(reason))
        except Quarantined as reason:
            return FileResult(number=number, source=token, status="quarantined", reason=str(reason))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a damaged file fails in any of pydicom's converters and writers
            why = f"it could not be processed ({type(error).__name__})"
            return FileResult(number=number, source=token, status="quarantined", reason=why)
        if self.sealer is not None:
            self.sealer.add(cleaned.dataset, cleaned.original, cleaned.frames)
        return cleaned.result(number, token)

    def _write(self, cleaned: Cleaned) -> None:
        """Write, check what lies on the disk, and only then put it into the result."""
        part = self.scratch / "part.dcm"
        target = self.out / cleaned.place
        with disk_errors(target):
            cleaned.dataset.save_as(part, enforce_file_format=True)
            left = left_in_file(part, cleaned.place, cleaned.identity)
            if left:
                part.unlink()
                raise Quarantined(f"strings of the patient are left in {', '.join(left[:_MOST_NAMED])}")
            if self.dry_run:
                part.unlink()
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)

    def _lock_away(self, data: bytes, token: str, shown: str, reason: str) -> None:
        with disk_errors(self.quarantine):
            self.quarantine.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = self.quarantine / f"{token}.dcm"
            known = place.exists()
            place.write_bytes(data)
            place.chmod(0o600)
            if known:
                return
            listed = self.quarantine / _LIST
            new = not listed.exists()
            with listed.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                if new:
                    writer.writerow(("file", "source", "reason"))
                writer.writerow((place.name, shown, reason))
            listed.chmod(0o600)

    def _places(self) -> set[str]:
        return {result.output for result in self.results if result.output} if self.dry_run else set()

    def _note(self, result: FileResult, *, write: bool = True) -> FileResult:
        self.results.append(result)
        if write and not self.dry_run and result.reason != "the same file again":
            with disk_errors(self.out), (self.out / JOURNAL).open("a", encoding="utf-8") as stream:
                stream.write(result.model_dump_json() + "\n")
        return result


@contextlib.contextmanager
def open_run(
    setup: Setup, out: Path, *, quarantine: Path | None = None, dry_run: bool = False, sealed: Path | None = None
) -> Iterator[Run]:
    """Begin or go on with a result.

    Args:
        setup: Key, options and budget.
        out: Folder of the result; new, empty, or of an earlier run with the same key and options.
        quarantine: Folder for what is not claimed to be clean; default beside the result.
        dry_run: Do everything but write.
        sealed: File for the sealed originals; None: they are not kept.

    Raises:
        UsageError: the folder holds something else, another key or other options were used, or the quarantine lies
            inside the result.
        WetreadError: the disk is full or may not be written.
    """
    place = quarantine or quarantine_of(out)
    if place.resolve().is_relative_to(out.resolve()):
        cure = "name one outside it: it holds what identifies patients"
        raise UsageError(expected("a quarantine outside the result", f"{place} inside {out}", cure))
    done = _earlier(setup, out)
    with disk_errors(out):
        home = None if dry_run else out.resolve().parent
        if home is not None:
            out.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".deid-", dir=home))
    try:
        sealer = None if sealed is None or dry_run else Sealer(sealed, setup.key)
        run = Run(setup, out, place, dry_run, scratch, sealer, done=done)
        if not dry_run and not (out / JOURNAL).exists():
            with disk_errors(out):
                (out / JOURNAL).write_text(json.dumps(_head(setup)) + "\n", encoding="utf-8")
        yield run
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def quarantine_of(out: Path) -> Path:
    """The folder beside a result that takes what is not claimed to be clean."""
    return out.resolve().parent / f"{out.resolve().name}-quarantine"


def files_below(sources: Iterable[Path]) -> list[Path]:
    """All files of the sources, in the order of their names; links to folders are not followed.

    Raises:
        InputRefused: a source is not there.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            tree = os.walk(source)
            found += sorted(Path(at) / name for at, _, names in tree for name in names if not name.startswith("."))
        elif source.is_file():
            found.append(source)
        else:
            raise InputRefused(expected("a file or folder", f"nothing at {source}", "check the path"))
    return found


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        if path.stat().st_size > most_bytes:
            raise Quarantined("a file larger than the budget for its pixels")
        return path.read_bytes()
    except OSError as error:
        raise Quarantined(f"it cannot be read ({type(error).__name__})") from None


def _head(setup: Setup) -> dict[str, object]:
    return {"wetread-deid": "1", "key": setup.key.identity, "options": setup.options.model_dump(mode="json")}


def _earlier(setup: Setup, out: Path) -> dict[str, FileResult]:
    """Token -> what an earlier run wrote into the result."""
    journal = out / JOURNAL
    if not journal.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            cure = "name a new folder, or that of an earlier run"
            raise UsageError(expected("a new folder for the result", f"{out}, which holds something else", cure))
        return {}
    lines = journal.read_text(encoding="utf-8").splitlines()
    with contextlib.suppress(ValueError, IndexError):
        if json.loads(lines[0]) == _head(setup):
            return {result.source: result for line in lines[1:] if (result := _result(line)) is not None}
    cure = "use the same key and options, or a new folder"
    raise UsageError(expected(f"a result of the same key and options in {out}", "another", cure))


def _result(line: str) -> FileResult | None:
    try:
        found = FileResult.model_validate_json(line)
    except ValidationError:
        return None  # the last line of a run that was killed
    return found if found.status == "written" else None
