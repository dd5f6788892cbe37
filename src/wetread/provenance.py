"""Where a result came from, and how it reaches the disk whole or not at all.

A run record names versions, commit, machine, seed and hashes, and never the environment. Files and
folders are written beside their place and renamed into it; a full disk is one line, not half a run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from wetread import runtime
from wetread.errors import UsageError, WetreadError, expected

__all__ = [
    "LIBRARIES",
    "Provenance",
    "atomic_file",
    "atomic_folder",
    "disk_errors",
    "file_sha256",
    "folder_sha256",
    "library_versions",
    "machine_facts",
    "record",
    "rows_sha256",
    "source_commit",
    "write_json_atomically",
]

LIBRARIES = (
    "numpy",
    "pandas",
    "pydicom",
    "pillow",
    "imagecodecs",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "safetensors",
)
"""Distributions whose version can change a number."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = "No space left on device"
"""Rust and C++ writers (safetensors, torch) give the text and lose the number."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_GIT_TIMEOUT_S = 5


class Provenance(BaseModel):
    """The record of one run. ``created`` is UTC, ISO 8601; ``memory_bytes`` is of the machine.

    ``command`` is what was typed, paths included; the environment is never kept. ``hashes`` are
    sha256, by the name of what was hashed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: str
    wetread: str
    commit: str | None
    python: str
    platform: str
    cpu: str
    cores: int
    memory_bytes: int | None
    libraries: dict[str, str]
    command: tuple[str, ...]
    seed: int | None = None
    device: str = "cpu"
    threads: int
    hashes: dict[str, str] = {}


def record(
    *,
    seed: int | None = None,
    device: str = "cpu",
    threads: int = 0,
    hashes: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Provenance:
    """Record this run; ``threads`` 0 means :func:`wetread.runtime.thread_count`, ``command`` sys.argv."""
    facts = machine_facts()
    typed = list(sys.argv if command is None else command)
    if typed:
        typed[0] = Path(typed[0]).name  # where wetread is installed says nothing about the result
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wetread=_version("wetread") or "unknown",
        commit=source_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=facts["cpu"],
        cores=facts["cores"],
        memory_bytes=facts["memory_bytes"],
        libraries=library_versions(),
        command=tuple(typed),
        seed=seed,
        device=device,
        threads=threads or runtime.thread_count(),
        hashes=dict(hashes or {}),
    )


def machine_facts() -> dict[str, Any]:
    """Processor name, usable cores and memory in bytes (None where the system does not say)."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": memory,
    }


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of the installed ones among ``names``, read from metadata: nothing is imported."""
    found = {name: _version(name) for name in names}
    return {name: version for name, version in found.items() if version}


def source_commit() -> str | None:
    """The git commit of the checkout that wetread runs from (``+changes`` if dirty), else None."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    head = _git(git, root, "rev-parse", "HEAD")
    if head is None:
        return None
    dirty = _git(git, root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if dirty else head


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """One sha256 of the names and contents of all files below ``folder``, whatever their order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return rows_sha256((path.relative_to(folder).as_posix(), file_sha256(path)) for path in files)


def rows_sha256(rows: Iterable[Sequence[object]]) -> str:
    """One sha256 of the rows of a table, in their order; None and NaN are the same unknown.

    Numbers hash by value (1 and 1.0 differ, as int and float), everything else by its text.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps([_plain(value) for value in row], ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def write_json_atomically(path: Path, value: object) -> None:
    """Write ``value`` (a pydantic model or plain data) as indented JSON, whole or not at all.

    Raises:
        WetreadError: the disk is full or the folder may not be written.
        ValueError: NaN or infinity, which JSON does not have.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def atomic_file(path: Path, failure: type[WetreadError] = WetreadError) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` if nothing failed.

    Raises:
        UsageError: ``path`` is a folder.
        WetreadError: or ``failure``: the disk is full or the place may not be written.
    """
    if path.is_dir():
        raise UsageError(expected("the name of a file", f"{path}, which is a folder", "name a file in it"))
    with disk_errors(path, failure):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            _sync(part)
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False, failure: type[WetreadError] = WetreadError) -> Iterator[Path]:
    """Yield a new folder beside ``path``; it is renamed to ``path`` if nothing failed, else removed.

    Raises:
        UsageError: ``path`` exists and ``replace`` is False; an empty folder does not count.
        WetreadError: or ``failure``: the disk is full or the place may not be written.
    """
    if not replace and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(expected("a new folder", f"{path}, which exists", "name another or remove it"))
    with disk_errors(path, failure):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield part
            part.chmod(0o777 & ~_umask())
            _put_in_place(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path, failure: type[WetreadError] = WetreadError) -> Iterator[None]:
    """Turn a full disk or a forbidden place met while writing ``path`` into one ``failure``."""
    try:
        yield
    except WetreadError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or _FULL_TEXT in str(error):
            got = f"a full disk ({_free_mib(path)} MiB free)"
            cure = "free some space or write elsewhere; nothing half-written was left"
            raise failure(expected(f"room to write {path}", got, cure)) from error
        if number in _REFUSED:
            got = f"'{os.strerror(number)}'"
            raise failure(expected(f"to be allowed to write {path}", got, "write elsewhere")) from error
        raise


def _put_in_place(part: Path, path: Path) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        part.replace(path)  # rename(2) takes the place of an empty folder
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")) / "old"
    path.rename(old)
    try:
        part.replace(path)
    except OSError:
        old.rename(path)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _sync(path: Path) -> None:
    # Without it a crash may leave the new name on an empty file.
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _free_mib(path: Path) -> int:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free >> 20


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    number = value.item() if hasattr(value, "item") else value  # numpy and pandas scalars
    if isinstance(number, float):
        return None if math.isnan(number) else number
    if isinstance(number, (bool, int, str)):
        return number
    text = str(number)
    return None if text in ("<NA>", "NaT") else text


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(git: str, root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            [git, "-C", str(root), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
