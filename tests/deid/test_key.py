"""Pseudonyms against HMAC written out by hand, and the refusals of a key file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from pathlib import Path

import pytest
from pydicom.uid import UID

from wetread.deid.key import SHIFT_DAYS, Key, create_key, load_key, open_key
from wetread.errors import UsageError

SECRET = b"k" * 32


def _digest(kind: str, value: str) -> bytes:
    return hmac.new(SECRET, f"{kind}\0{value}".encode(), hashlib.sha256).digest()


def test_everything_is_hmac_of_the_key() -> None:
    key = Key(SECRET)
    assert key.patient("4711 ") == "P" + base64.b32encode(_digest("patient", "4711")[:10]).decode()
    assert key.uid("1.2.3") == f"2.25.{uuid.UUID(bytes=_digest('uid', '1.2.3')[:16], version=4).int}"
    span = SHIFT_DAYS[1] - SHIFT_DAYS[0] + 1
    assert key.shift_days("4711") == -(SHIFT_DAYS[0] + int.from_bytes(_digest("shift", "4711")[:8], "big") % span)


def test_uids_are_valid_and_distinct() -> None:
    made = {Key(SECRET).uid(f"1.2.840.{n}") for n in range(500)}
    assert len(made) == 500
    assert all(UID(uid).is_valid and len(uid) <= 44 for uid in made)


def test_another_key_gives_other_pseudonyms() -> None:
    other = Key(b"j" * 32)
    assert other.patient("4711") != Key(SECRET).patient("4711")
    assert other.uid("1.2.3") != Key(SECRET).uid("1.2.3")
    assert other.identity != Key(SECRET).identity


def test_shifts_stay_in_their_range_and_differ() -> None:
    shifts = [-Key(SECRET).shift_days(str(n)) for n in range(300)]
    assert min(shifts) >= SHIFT_DAYS[0]
    assert max(shifts) <= SHIFT_DAYS[1]
    assert len(set(shifts)) > 250


def test_a_new_key_file_is_private_and_is_read_again(tmp_path: Path) -> None:
    made, new = open_key(tmp_path / "deep" / "deid.key")
    assert new
    assert (tmp_path / "deep" / "deid.key").stat().st_mode & 0o777 == 0o600
    again, new = open_key(tmp_path / "deep" / "deid.key")
    assert not new
    assert again.identity == made.identity
    with pytest.raises(UsageError, match="expected a place for a new key file, got FileExistsError"):
        create_key(tmp_path / "deep" / "deid.key")


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deid.key"
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="that its owner alone may read, got mode 0640"):
        load_key(path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_key_file_inside_the_result_is_refused(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "out" / "keys" / "deid.key"
    if exists:
        create_key(path)
    with pytest.raises(UsageError, match="expected a key file outside the folders of images"):
        open_key(path, (tmp_path / "in", tmp_path / "out"))
    assert path.exists() == exists


@pytest.mark.parametrize("text", ["", "wetread-deid-key-1\nabcd\n", "wetread-deid-key-1\nxyz\n", "other\n" + "00" * 32])
def test_another_file_is_no_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deid.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="expected a key file that begins with wetread-deid-key-1"):
        load_key(path)


def test_no_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a key file, got FileNotFoundError"):
        load_key(tmp_path / "none")
