"""The store of bytes: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from wetread.service.blobs import BlobStore
from wetread.service.problems import Problem


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_bytes_are_found_by_their_hash(store: BlobStore) -> None:
    stored = store.put(b"film")
    assert stored.sha256 == hashlib.sha256(b"film").hexdigest()
    assert store.read(stored.sha256) == b"film"
    assert store.put(b"film") == stored
    assert len(_files(store.root)) == 1


def test_what_is_not_kept_is_gone(store: BlobStore) -> None:
    with store.quarantine(100) as new:
        new.write(b"half an upl")
        assert len(_files(store.root / "quarantine")) == 1
    assert _files(store.root) == []


def test_too_much_is_refused_and_leaves_nothing(store: BlobStore) -> None:
    with store.quarantine(10) as new:
        new.write(b"0123456789")
        with pytest.raises(Problem, match="at most 10 bytes"):
            new.write(b"x")
    assert _files(store.root) == []


def test_the_same_bytes_at_the_same_time_are_one_file(store: BlobStore) -> None:
    threads = [threading.Thread(target=store.put, args=(b"film" * 1000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_files(store.root)) == 1


def test_a_damaged_file_is_known(store: BlobStore) -> None:
    stored = store.put(b"film")
    assert not store.damaged(stored.sha256)
    store.path(stored.sha256).chmod(0o600)
    store.path(stored.sha256).write_bytes(b"fi1m")
    assert store.damaged(stored.sha256)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 63, "g" * 64])
def test_a_name_that_is_no_hash_is_no_path(store: BlobStore, name: str) -> None:
    with pytest.raises(Problem, match="No such file"):
        store.path(name)


def test_cut_off_uploads_are_swept_away_when_old(store: BlobStore, tmp_path: Path) -> None:
    old, new = tmp_path / "quarantine" / "old", tmp_path / "quarantine" / "new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert store.sweep() == 1
    assert _files(store.root) == [new]
