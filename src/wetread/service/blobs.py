"""Bytes by their sha256: written once, whole or not at all, and never changed.

Decided here: what arrives is written to a quarantine folder first, under a random name that nothing serves; only
what was accepted is renamed into the store. Two who store the same bytes at the same time both succeed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wetread.errors import expected
from wetread.provenance import disk_errors, file_sha256
from wetread.service.problems import Problem

__all__ = ["STALE_S", "BlobStore", "DiskFull", "Quarantined", "Stored"]

STALE_S = 6 * 3600.0
"""Age after which a file in quarantine belongs to nobody any more: its upload was cut off."""


class DiskFull(Problem):
    """The store's disk is full or may not be written; as an error of the service."""

    def __init__(self, message: str) -> None:
        super().__init__("disk_full", message.partition("; ")[0])


@dataclass(frozen=True)
class Stored:
    """Bytes that are in the store."""

    sha256: str
    size: int


class Quarantined:
    """Bytes on their way in. ``write`` counts and hashes; over ``limit_bytes`` it refuses."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.size = 0
        self._limit = limit_bytes
        self._digest = hashlib.sha256()
        self._stream = path.open("xb")

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add bytes.

        Raises:
            Problem: ``too_large``, or ``disk_full``.
        """
        self.size += len(chunk)
        if self.size > self._limit:
            raise Problem("too_large", expected(f"at most {self._limit} bytes", "more", "send less").partition(";")[0])
        self._digest.update(chunk)
        with disk_errors(self.path, DiskFull):
            self._stream.write(chunk)

    def finish(self) -> None:
        """Let others see all of it; nothing can be written afterwards. It is synced only when it is kept."""
        with disk_errors(self.path, DiskFull):
            self._stream.close()

    def discard(self) -> None:
        """Forget it; nothing happens to what is in the store already."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    """A folder of files named after their sha256, and a quarantine beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._quarantine = root / "quarantine"
        self._blobs = root / "blobs"
        for folder in (self._quarantine, self._blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def quarantine(self, limit_bytes: int) -> Iterator[Quarantined]:
        """A place for bytes that nobody has looked at yet; gone at the end unless it was kept."""
        with disk_errors(self._quarantine, DiskFull):
            new = Quarantined(self._quarantine / secrets.token_hex(16), limit_bytes)
        try:
            yield new
        finally:
            new.discard()

    def keep(self, new: Quarantined) -> Stored:
        """Move accepted bytes into the store."""
        target = self.path(new.sha256)
        if not target.exists():
            new.finish()
            with disk_errors(target, DiskFull):
                target.parent.mkdir(parents=True, exist_ok=True)
                new.path.chmod(0o400)
                _sync(new.path)
                new.path.replace(target)
                # Renamed file and new folders are only there after a power cut if their folders reached the disk too.
                for folder in (target.parent, target.parent.parent, self._blobs):
                    _sync(folder)
        return Stored(new.sha256, new.size)

    def put(self, data: bytes) -> Stored:
        """Store bytes that were made here."""
        digest = hashlib.sha256(data).hexdigest()
        if self.path(digest).exists():
            return Stored(digest, len(data))
        with self.quarantine(len(data)) as new:
            new.write(data)
            return self.keep(new)

    def path(self, sha256: str) -> Path:
        """Where the bytes of that hash lie, or would lie.

        Raises:
            Problem: ``not_found``: no hash at all.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise Problem("not_found", "No such file.")
        return self._blobs / sha256[:2] / sha256[2:4] / sha256

    def read(self, sha256: str) -> bytes:
        """The bytes of that hash.

        Raises:
            Problem: ``not_found``.
        """
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise Problem("not_found", "No such file.") from None

    def damaged(self, sha256: str) -> bool:
        """Whether the file of that hash is missing or holds other bytes."""
        path = self.path(sha256)
        return not path.is_file() or file_sha256(path) != sha256

    def sweep(self, older_than_s: float = STALE_S) -> int:
        """Remove what cut-off uploads left in quarantine; return how many files."""
        limit = time.time() - older_than_s
        stale = [path for path in self._quarantine.iterdir() if path.stat().st_mtime < limit]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
