"""Durability: the order of writes, faults of the disk, kill -9 at every step, and what a restart finds."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pacs.node_support import data_set, film
from wetread.errors import WetreadError
from wetread.pacs import ledger as ledger_module
from wetread.pacs import store as store_module
from wetread.pacs.header import object_header
from wetread.pacs.store import DiskReserve, Incoming, ObjectStore, Outcome, data_digest

CLASS, SYNTAX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1"


def keep(store: ObjectStore, data: bytes, instance: str = "1.2.3") -> Outcome:
    part = store.begin(Incoming(CLASS, instance, SYNTAX, "CT1", "WETREAD", "127.0.0.1"))
    try:
        part.write(memoryview(data))
    except BaseException:
        part.discard()
        raise
    return store.keep(part, object_header(part.path, part.offset, SYNTAX))


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return data_set(film(tmp_path / "film.dcm"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = ObjectStore(tmp_path / "store", reserve_bytes=0)
    yield opened
    opened.close()


def files(store: ObjectStore) -> list[str]:
    folders = ("incoming", "objects", "quarantine")
    return sorted(path.parent.name for folder in folders for path in (store.folder / folder).rglob("*.*"))


def test_nothing_is_acknowledged_before_file_directory_and_row_are_synced(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated power loss: at the answer, nothing that it promises is still only in memory."""
    order: list[str] = []
    sync = os.fsync

    def recording(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}"))
        order.append(f"sync {name.parent.name if name.suffix else 'folder'}")
        sync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    store = ObjectStore(tmp_path / "store", reserve_bytes=0, step=order.append)
    assert keep(store, data) == "stored"
    store.close()
    # the first folder sync is that of objects/, where the new subfolder stands
    wanted = ["opened", "written", "sync incoming", "synced", "sync folder", "renamed", "sync folder"]
    assert order == [*wanted, "directory", "indexed"]
    (mode,) = store_pragma(tmp_path / "store" / "index.db")
    assert mode == "wal"


def store_pragma(path: Path) -> list[str]:
    import sqlite3

    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("PRAGMA journal_mode")]
    finally:
        connection.close()


def test_the_writer_commits_with_full_synchronisation(store: ObjectStore) -> None:
    assert store.ledger.write(lambda change: change.execute("PRAGMA synchronous").fetchone()[0]) == 2


def test_waiting_changes_share_one_commit(store: ObjectStore) -> None:
    commits: list[str] = []
    store.ledger._step = commits.append
    hold, held = threading.Event(), threading.Event()

    def holding(_: ledger_module.Change) -> None:
        held.set()
        hold.wait(300)

    threads = [threading.Thread(target=store.ledger.write, args=(holding,))]
    threads[0].start()
    held.wait(300)
    threads += [
        threading.Thread(target=store.ledger.write, args=(partial(ledger_module.Change.event, kind="x", n=n),))
        for n in range(20)
    ]
    for thread in threads[1:]:
        thread.start()
    while store.ledger._waiting.qsize() < 20:
        pass
    hold.set()
    for thread in threads:
        thread.join()
    assert commits.count("indexed") == 2
    assert store.ledger.read("SELECT count(*) FROM events") == [(20,)]


def test_a_change_that_fails_does_not_take_its_neighbours_along(store: ObjectStore) -> None:
    def bad(change: ledger_module.Change) -> None:
        change.event("half")
        raise ValueError("no")

    store.ledger.write(lambda change: change.event("before"))
    with pytest.raises(ValueError, match="no"):
        store.ledger.write(bad)
    store.ledger.write(lambda change: change.event("after"))
    assert store.ledger.read("SELECT kind FROM events ORDER BY number") == [("before",), ("after",)]


FAULTS = [
    ("fsync of the file", os, "fsync", errno.EIO),
    ("fsync of the folder", ledger_module, "sync_directory", errno.EIO),
    ("write", os, "write", errno.ENOSPC),
    ("open", os, "open", errno.EMFILE),
]


@pytest.mark.parametrize(("module", "name", "number"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_of_the_disk_leaves_nothing_and_ends_with_the_fault(
    store: ObjectStore, data: bytes, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int
) -> None:
    keep(store, data)  # so that the subfolder exists
    before = files(store)

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    other = data.replace(b"CANARY", b"SOMEBO")
    with monkeypatch.context() as broken:
        broken.setattr(module, name, failing)
        with pytest.raises((OSError, WetreadError)):
            keep(store, other, "1.2.4")
    assert files(store) == before
    assert store.ledger.read("SELECT count(*) FROM objects") == [(1,)]
    assert keep(store, other, "1.2.4") == "stored"
    (kept,) = store.versions("1.2.4")
    assert data_digest(kept) == kept.digest


def test_a_disk_down_to_its_reserve_takes_nothing(tmp_path: Path, data: bytes) -> None:
    store = ObjectStore(tmp_path / "store", reserve_bytes=1 << 62)
    with pytest.raises(DiskReserve, match="expected room for an object, got a disk down to its reserve"):
        keep(store, data)
    assert files(store) == []
    store.close()


def test_the_reserve_is_watched_while_an_object_grows(store: ObjectStore) -> None:
    part = store.begin(Incoming(CLASS, "1.2.3", SYNTAX, "CT1", "WETREAD", "127.0.0.1"))
    store._reserve_bytes = 1 << 62
    with pytest.raises(DiskReserve, match="expected room for the object"):
        part.write(memoryview(bytes(5 << 20)))
    part.discard()
    assert files(store) == []


def test_a_restart_finds_partial_files_orphans_and_losses(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "store"
    store = ObjectStore(folder, reserve_bytes=0)
    keep(store, data)
    keep(store, data.replace(b"CANARY", b"SOMEBO"), "1.2.4")
    store.versions("1.2.4")[0].path.unlink()
    store.close()
    (folder / "incoming" / "0.part").write_bytes(b"half")
    (folder / "objects" / "000001" / "0.dcm").write_bytes(b"whole, but nobody was told")
    again = ObjectStore(folder, reserve_bytes=0)
    assert files(again) == ["000001", "quarantine"]
    (event,) = again.ledger.read("SELECT kind, detail FROM events")
    assert event == ("recovered", '{"missing": 1, "partial_removed": 1, "quarantined": 1}')
    again.close()


def test_a_folder_holds_a_bounded_number_of_files(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PER_FOLDER", 2)
    for start in (0, 3):  # the count goes on after a restart
        store = ObjectStore(tmp_path / "store", reserve_bytes=0)
        for number in range(start, start + 3):
            keep(store, data, f"1.2.{number}")
        store.close()
    assert sorted(len(list(shard.iterdir())) for shard in (tmp_path / "store" / "objects").iterdir()) == [2, 2, 2]


def test_an_event_that_is_changed_moved_or_removed_breaks_the_chain(store: ObjectStore) -> None:
    for number in range(4):
        store.ledger.write(partial(ledger_module.Change.event, kind="x", n=number))
    assert store.ledger.verify_events() is None
    edits = {
        "UPDATE events SET detail = '{}' WHERE number = 2": 2,
        "UPDATE events SET kind = 'y' WHERE number = 3": 3,
        "DELETE FROM events WHERE number = 1": 1,
        "UPDATE events SET number = number + 10 WHERE number > 2": 3,
    }
    for edit, first in edits.items():
        found: list[int | None] = []

        def tampered(change: ledger_module.Change, edit: str = edit, found: list[int | None] = found) -> None:
            change.execute(edit)
            store.ledger._local.connection = change._connection  # look at the edit before it is undone
            found.append(store.ledger.verify_events())
            store.ledger._local.connection = None
            raise KeyError

        with pytest.raises(KeyError):
            store.ledger.write(tampered)
        assert found == [first]
    assert store.ledger.verify_events() is None


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.pacs.test_store import keep
from wetread.pacs.store import ObjectStore

folder, data, at = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3]
done = 0
def step(name):
    if name == at and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
store = ObjectStore(folder, reserve_bytes=0, step=step)
for done in range(5):
    keep(store, data, f"1.2.{done}")
    print(done, flush=True)
"""


@pytest.mark.parametrize("step", ["opened", "synced", "renamed", "directory", "indexed"])
def test_what_was_acknowledged_survives_kill_9_at_every_step(tmp_path: Path, data: bytes, step: str) -> None:
    (tmp_path / "data").write_bytes(data)
    words = [sys.executable, "-c", CHILD, str(tmp_path / "store"), str(tmp_path / "data"), step]
    child = subprocess.run(
        words, capture_output=True, text=True, timeout=600, check=False, cwd=Path(__file__).parents[2]
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert child.stdout.split() == ["0", "1", "2"]
    store = ObjectStore(tmp_path / "store", reserve_bytes=0)
    for number in range(3):
        (kept,) = store.versions(f"1.2.{number}")
        assert data_digest(kept) == kept.digest
    assert "incoming" not in files(store)
    rows = store.ledger.read("SELECT count(*) FROM objects")[0][0]
    assert files(store).count("000001") == rows  # no file without a row is left where readers look
    assert keep(store, data, "1.2.3") in ("stored", "same")
    store.close()
