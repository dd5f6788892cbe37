"""Performing workitems: claim what a worklist offers, have its study read, tell what was made.

Decided here: what is claimed is a row of the ledger before it is claimed, so that a crash at any point is made up for
at the next start; a study that is not here yet is fetched by C-GET from the system that the workitem names, or from the
one that keeps the worklist, and goes through the same checks as an object that arrives by C-STORE.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from wetread.errors import PeerUnreachable, WetreadError
from wetread.pacs import client
from wetread.pacs.header import object_header
from wetread.pacs.ledger import Change, Ledger
from wetread.pacs.store import Incoming, ObjectStore
from wetread.pacs.workitems import Output, Workitem, Worklist, new_transaction
from wetread.settings import NodeRemote, NodeSettings

__all__ = ["Perform", "Performer", "take_file"]

_LOG = logging.getLogger("wetread.pacs")

Perform = Callable[[str], tuple[list[Output], str] | None]
"""Reads a study; returns what was made, and the reason where nothing could be; None where it is not read yet."""


class Performer:
    """The worklists of the settings, and the rows of what was claimed."""

    def __init__(self, store: ObjectStore, settings: NodeSettings, perform: Perform) -> None:
        self._store, self._settings, self._perform = store, settings, perform

    @property
    def _ledger(self) -> Ledger:
        return self._store.ledger

    def work(self) -> int:
        """Claim what is new and do what is claimed; returns how many workitems came to an end."""
        ended = 0
        for name in self._settings.worklists:
            worklist = Worklist(self._settings.remotes[name], self._settings.title)
            try:
                self._claim_new(name, worklist)
                ended += sum(self._do(worklist, name, *row) for row in self._claimed(name))
            except PeerUnreachable as error:
                _LOG.warning("worklist %s: %s", name, error)
        return ended

    def _claim_new(self, name: str, worklist: Worklist) -> None:
        known = {uid for (uid,) in self._ledger.read("SELECT uid FROM workitems WHERE state != 'claiming'")}
        for item in worklist.scheduled():
            if item.uid in known:
                continue
            lock = self._remember(name, item)
            won = worklist.claim(item.uid, lock)
            self._set(item.uid, "claimed" if won else "lost")

    def _remember(self, name: str, item: Workitem) -> str:
        """The lock for a workitem: the one that a crash left behind, or a new one."""
        found = self._ledger.read("SELECT lock FROM workitems WHERE uid = ?", (item.uid,))
        if found:
            return str(found[0][0])
        lock = new_transaction()
        values = (item.uid, name, item.study, item.source, item.label, lock)
        self._ledger.write(
            lambda change: change.execute("INSERT INTO workitems VALUES (?, ?, ?, ?, ?, ?, 'claiming')", values)
        )
        return lock

    def _claimed(self, name: str) -> list[tuple[Workitem, str, str]]:
        rows = self._ledger.read(
            "SELECT uid, study, source, label, lock, state FROM workitems "
            "WHERE remote = ? AND state IN ('claimed', 'claiming') ORDER BY rowid",
            (name,),
        )
        return [(Workitem(*row[:4]), row[4], row[5]) for row in rows]

    def _do(self, worklist: Worklist, name: str, item: Workitem, lock: str, state: str) -> bool:
        try:
            if not self._store.study(item.study):
                self._fetch(name, item)
            performed = self._perform(item.study)
            if performed is None:
                return False
            outputs, reason = performed
        except WetreadError as error:
            outputs, reason = [], str(error)[:300]
        try:
            worklist.finish(item, lock, outputs, reason)
        except PeerUnreachable:
            if state == "claimed":
                raise
            self._set(item.uid, "lost")  # the crash came before the claim, and somebody else has it
            return False
        self._set(item.uid, "canceled" if reason else "completed")
        return True

    def _set(self, uid: str, state: str) -> None:
        def end(change: Change) -> None:
            change.execute("UPDATE workitems SET state = ? WHERE uid = ?", (state, uid))
            change.event(f"workitem {state}", uid=uid)

        self._ledger.write(end)

    def _fetch(self, name: str, item: Workitem) -> None:
        remote = self._source(name, item)
        with tempfile.TemporaryDirectory(dir=self._store.folder) as folder:
            for path in client.get_study(remote, self._settings.title, item.study, Path(folder)):
                take_file(self._store, path, remote.title or name, self._settings.title)

    def _source(self, name: str, item: Workitem) -> NodeRemote:
        """Where the study lies; never an address that the workitem itself names."""
        named = [one for one in self._settings.remotes.values() if item.source and one.title == item.source]
        return named[0] if named else self._settings.remotes[name]


def take_file(store: ObjectStore, path: Path, sender: str, called: str) -> None:
    """Store a DICOM file as if it had arrived by C-STORE.

    Raises:
        WetreadError: its header cannot be read, or the disk is full.
        OSError: it could not be kept.
    """
    from pydicom.filereader import read_file_meta_info

    from wetread.imaging.header import quiet

    raw = path.read_bytes()
    with quiet():
        meta = read_file_meta_info(path)
        kind, instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        syntax = str(meta.TransferSyntaxUID)
    start = 144 + int.from_bytes(raw[140:144], "little")
    part = store.begin(Incoming(kind, instance, syntax, sender, called, "fetched"))
    try:
        part.write(memoryview(raw)[start:])
        store.keep(part, object_header(part.path, part.offset, syntax))
    finally:
        part.discard()
