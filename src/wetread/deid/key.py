"""The secret key, and everything that is derived from it: pseudonyms, UIDs, the shift of dates.

Decided here: all of it is HMAC-SHA256 of the key and of what it stands for, so two runs or two machines with the same
key agree without a table, and nobody without the key can tell which patient is which, not even by trying all numbers.
A key file that others may read, or that lies where the result is handed on from, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import uuid
from pathlib import Path

from wetread.errors import UsageError, expected

__all__ = ["SHIFT_DAYS", "Key", "create_key", "load_key", "open_key"]

_HEAD = "wetread-deid-key-1"
_BYTES = 32
SHIFT_DAYS = (30, 3650)
"""Dates move back by this many days, both ends included: at least a month, at most ten years."""


class Key:
    """A secret of 32 bytes. ``identity``: eight characters that tell keys apart and give nothing away."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.identity = self.token("key", "identity")[:8]

    def token(self, kind: str, value: str) -> str:
        """Sixteen characters (80 bits) of A-Z and 2-7 that stand for ``value``."""
        return base64.b32encode(self._digest(kind, value)[:10]).decode()

    def patient(self, identifier: str) -> str:
        """The pseudonym of a patient: new Patient ID and Patient's Name."""
        return f"P{self.token('patient', identifier.strip())}"

    def uid(self, original: str) -> str:
        """The UID that stands for ``original``: 2.25 and a UUID, PS3.5 B.2."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', original.strip())[:16], version=4).int}"

    def shift_days(self, identifier: str) -> int:
        """Days to add to the dates of a patient; negative, within :data:`SHIFT_DAYS`."""
        low, high = SHIFT_DAYS
        return -(low + int.from_bytes(self._digest("shift", identifier.strip())[:8], "big") % (high - low + 1))

    def sealing_key(self) -> bytes:
        """The key of the sealed record of originals, as Fernet takes it."""
        return base64.urlsafe_b64encode(self._digest("seal", ""))

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self._secret, f"{kind}\0{value}".encode(), hashlib.sha256).digest()


def open_key(path: Path, away_from: tuple[Path, ...] = ()) -> tuple[Key, bool]:
    """The key at ``path``, made anew where there is none, and whether it was; see :func:`load_key`.

    Raises:
        UsageError: as :func:`load_key` and :func:`create_key`.
    """
    if path.exists():
        return load_key(path, away_from), False
    _require_place(path, away_from)
    return create_key(path), True


def create_key(path: Path) -> Key:
    """Write a new key to ``path``, readable by its owner alone, and return it.

    Raises:
        UsageError: there is a file already, or it cannot be written.
    """
    secret = secrets.token_bytes(_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{_HEAD}\n{secret.hex()}\n")
    except OSError as error:
        got = f"{type(error).__name__} at {path}"
        raise UsageError(expected("a place for a new key file", got, "name another with --key")) from None
    return Key(secret)


def load_key(path: Path, away_from: tuple[Path, ...] = ()) -> Key:
    """Read a key file.

    Args:
        path: The file.
        away_from: Folders in which it must not lie, because they are handed on.

    Raises:
        UsageError: it lies in such a folder, others than its owner may read it, or it holds no key.
    """
    _require_place(path, away_from)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        got = f"{type(error).__name__} at {path}"
        raise UsageError(expected("a key file", got, "name it with --key")) from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        got = f"mode {stat.S_IMODE(mode):04o} of {path}"
        raise UsageError(expected("a key file that its owner alone may read", got, f"run: chmod 600 {path}"))
    lines = text.split()
    secret = _secret(lines[1]) if len(lines) == 2 and lines[0] == _HEAD else None
    if secret is None:
        cure = "name the file that the first run wrote"
        raise UsageError(expected(f"a key file that begins with {_HEAD}", f"something else in {path}", cure))
    return Key(secret)


def _require_place(path: Path, away_from: tuple[Path, ...]) -> None:
    for folder in away_from:
        if path.resolve().is_relative_to(folder.resolve()):
            got = f"{path} inside {folder}"
            cure = "keep it elsewhere: who has both can undo the pseudonyms"
            raise UsageError(expected("a key file outside the folders of images", got, cure))


def _secret(text: str) -> bytes | None:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(found) == _BYTES else None
