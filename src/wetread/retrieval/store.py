"""The folder of an index: whole generations, one writer at a time, damage found by hash.

A write adds new files and then replaces ``index.json`` in one step, so that a reader sees the old generation or the
new one and never a mixture. Files that no generation names are removed by the next writer. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wetread.errors import DatasetRefused, WetreadError, expected
from wetread.provenance import atomic_file, file_sha256, write_json_atomically
from wetread.retrieval.records import FileMark, IndexCard

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CARD", "LOCK", "Folder", "key_of", "rebuild_words"]

CARD, LOCK = "index.json", ".lock"
_POLL_S = 0.05
_OURS = (".vectors.npy", ".rows.parquet", ".deleted.npy", ".ivf.faiss")
_ALWAYS_HASHED_BYTES = 256 << 20
"""Larger files are hashed when they are not as old as their mark says: 1 GB/s would delay every search."""


def rebuild_words(folder: Path) -> str:
    """The command that makes an index anew."""
    return f"build it again: wetread index build {folder} DATASET --overwrite"


@dataclass(frozen=True)
class Folder:
    """The files of an index in ``path``."""

    path: Path

    def exists(self) -> bool:
        """Whether there is an index."""
        return (self.path / CARD).is_file()

    def card(self) -> IndexCard:
        """Read the newest generation's card.

        Raises:
            DatasetRefused: there is no index, or its card is damaged.
        """
        try:
            text = (self.path / CARD).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            got = f"none in {self.path}"
            raise DatasetRefused(
                expected("an index", got, f"make one: wetread index build {self.path} DATASET")
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(CARD, type(error).__name__) from error
        try:
            return IndexCard.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise self._damaged(CARD, f"{where}: {first['msg']}") from error

    def verify(self, card: IndexCard, *, everything: bool = False) -> None:
        """Compare the files with their marks; files above 256 MiB that nobody touched only with ``everything``.

        Raises:
            DatasetRefused: a file is missing or has other bytes; names it and the command that builds anew.
            FileNotFoundError: a file is missing while another writer changes the index.
        """
        for mark in card.files:
            file = self.path / mark.name
            if Path(mark.name).name != mark.name:
                raise self._damaged(CARD, f"a file outside of the folder: {mark.name}")
            if not file.is_file():
                raise FileNotFoundError(mark.name)
            facts = file.stat()
            if facts.st_size != mark.size_bytes:
                raise self._damaged(mark.name, f"{facts.st_size} bytes instead of {mark.size_bytes}")
            untouched = facts.st_mtime_ns == mark.modified_ns and facts.st_size > _ALWAYS_HASHED_BYTES
            if untouched and not everything:
                continue
            if (found := file_sha256(file)) != mark.sha256:
                raise self._damaged(mark.name, f"sha256 {found[:12]}… instead of {mark.sha256[:12]}…")

    def opened(self, load: Callable[[IndexCard], None], *, everything: bool = False) -> IndexCard:
        """Read a card, verify its files and ``load`` them; once more where a writer replaced them meanwhile.

        Raises:
            DatasetRefused: no index, or a damaged one.
        """
        missing = ""
        for _ in range(5):
            card = self.card()
            try:
                self.verify(card, everything=everything)
                load(card)
            except FileNotFoundError as error:
                missing = str(error)
                if self.card().generation == card.generation:
                    break
                continue
            return card
        raise self._damaged(missing, "no such file")

    def _damaged(self, name: str, what: str) -> DatasetRefused:
        return DatasetRefused(expected(f"a whole {name} in the index {self.path}", what, rebuild_words(self.path)))

    @contextlib.contextmanager
    def writing(self, wait_s: float = 60.0) -> Iterator[None]:
        """Hold the index for one writer; a second one waits.

        Raises:
            WetreadError: another writer did not finish within ``wait_s`` seconds, or the folder may not be written.
        """
        handle = _locked(self.path, wait_s)
        try:
            yield
            self._sweep()
        finally:
            os.close(handle)  # which lets the lock go
            if not self.exists():
                self._leave_nothing()

    def _sweep(self) -> None:
        """Remove what no generation names: older files, and those of a writer that was killed."""
        if not self.exists():
            return
        kept = {mark.name for mark in self.card().files}
        for file in self.path.iterdir():
            if file.name.endswith(_OURS) and file.name not in kept:
                file.unlink(missing_ok=True)

    def _leave_nothing(self) -> None:
        for file in list(self.path.iterdir()) if self.path.is_dir() else []:
            if file.name.endswith(_OURS) or file.name == LOCK:
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def commit(self, card: IndexCard) -> None:
        """Make a generation the newest."""
        write_json_atomically(self.path / CARD, card)

    def write_vectors(self, stem: str, vectors: NDArray[np.generic]) -> FileMark:
        """Write an array as ``STEM.vectors.npy``."""
        return self._write(f"{stem}.vectors.npy", lambda part: _save(part, vectors))

    def write_stream(
        self, stem: str, shape: tuple[int, ...], kind: np.dtype[np.generic], blocks: Iterable[NDArray[np.generic]]
    ) -> FileMark:
        """Write an array that comes in ``blocks`` of its first axis."""

        def write(part: Path) -> None:
            with part.open("wb") as stream:
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for block in blocks:
                    stream.write(np.ascontiguousarray(block, dtype=kind).data)

        return self._write(f"{stem}.vectors.npy", write)

    def write_deleted(self, stem: str, rows: NDArray[np.int64]) -> FileMark:
        """Write the numbers of deleted rows."""
        return self._write(f"{stem}.deleted.npy", lambda part: _save(part, rows))

    def write_rows(self, stem: str, table: pd.DataFrame) -> FileMark:
        """Write a table of rows."""
        return self._write(f"{stem}.rows.parquet", lambda part: table.to_parquet(part, index=False))

    def write_bytes(self, stem: str, data: NDArray[np.uint8]) -> FileMark:
        """Write a serialised FAISS index."""
        return self._write(f"{stem}.ivf.faiss", data.tofile)

    def _write(self, name: str, write: Callable[[Path], object]) -> FileMark:
        with atomic_file(self.path / name) as part:
            write(part)
        file = self.path / name
        facts = file.stat()
        return FileMark(name=name, sha256=file_sha256(file), size_bytes=facts.st_size, modified_ns=facts.st_mtime_ns)

    def read_array(self, mark: FileMark) -> NDArray[np.generic]:
        """Map an array of the folder into memory.

        Raises:
            DatasetRefused: it is no such array.
        """
        try:
            return np.asarray(np.load(self.path / mark.name, mmap_mode="r", allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise self._damaged(mark.name, type(error).__name__) from error

    def read_columns(self, mark: FileMark, columns: list[str] | None = None) -> pd.DataFrame:
        """Read columns of a table of rows; those that it does not have are left out."""
        import pandas as pd

        return pd.read_parquet(self.path / mark.name, columns=columns)


def _save(part: Path, array: NDArray[np.generic]) -> None:
    with part.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _locked(path: Path, wait_s: float) -> int:
    """Open and lock the lock file of an index; another writer may have removed the one we waited for."""
    end = time.monotonic() + wait_s
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            got = f"'{error.strerror}'"
            raise WetreadError(expected(f"to be allowed to write {path}", got, "write elsewhere")) from error
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == (path / LOCK).stat().st_ino:
                return handle
        os.close(handle)
        if time.monotonic() >= end:
            got = f"another one that did not finish within {wait_s:g} s"
            raise WetreadError(expected(f"to be the only writer of {path}", got, "try again later"))
        time.sleep(_POLL_S)


def key_of(*parts: str) -> str:
    """One sha256 over texts, in their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
