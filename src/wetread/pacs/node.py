"""The node as a whole: receive, wait until a study is complete, have it read, send the results.

Decided here: reading is a function that is handed in, so that nothing here knows a model. One thread reads, another
sends, so that a slow remote does not keep studies from being read; each goes on at once while there is something to
do, and looks about once a second where there is not.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from wetread.errors import UsageError, expected
from wetread.pacs.answer import Answering, ReadStudies
from wetread.pacs.association import Limits, Policy
from wetread.pacs.commitment import CommitmentDesk
from wetread.pacs.completion import due_studies
from wetread.pacs.delivery import Delivery
from wetread.pacs.hands import Hands
from wetread.pacs.outbox import Outbox
from wetread.pacs.performer import Performer
from wetread.pacs.server import StorageServer, server_tls
from wetread.pacs.standing import forget_port, note_port
from wetread.pacs.store import ObjectStore, data_digest
from wetread.settings import NodeSettings

__all__ = ["Health", "Node", "require_remotes"]

_LOG = logging.getLogger("wetread.pacs")
_LOOK_S, _SEND_S = 1.0, 0.2
_PULL_S = 10.0


@dataclass(frozen=True)
class Health:
    """What a check of the store found. ``broken``: instance UIDs whose bytes are gone or changed.

    ``first_bad_event``: number of the first event that breaks the chain, None where it is whole.
    """

    objects: int
    broken: tuple[str, ...]
    first_bad_event: int | None
    waiting: int
    dead: int


class Node:
    """A store, a listener, a worker and an outbox, as the settings say.

    Args:
        settings: Section ``node``.
        read: Reads studies; None to receive only.
        shared: Only to look, beside a node that runs on the same folder.
        apart: Make result objects in a process beside this one.

    Raises:
        UsageError: settings that do not fit each other, or a port that is taken.
    """

    def __init__(
        self, settings: NodeSettings, read: ReadStudies | None = None, *, shared: bool = False, apart: bool = False
    ) -> None:
        require_remotes(settings)
        self.settings = settings
        self.store = ObjectStore(
            settings.folder,
            reserve_bytes=settings.reserve_bytes,
            on_other=settings.on_other_bytes,
            shared=shared,
        )
        self.outbox = Outbox(self.store.ledger, settings.folder / "results")
        self._hands = Hands(apart=apart)
        self._answering = None if read is None else Answering(self.store, self.outbox, settings, read, self._hands)
        self._performer = None if self._answering is None else Performer(self.store, settings, self._answering.perform)
        self._delivery = Delivery(settings)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._work, "node worker"), (self._deliver, "node sender"))
        ]
        self.server: StorageServer | None = None

    def start(self, *, work: bool = True) -> int:
        """Listen, and unless ``work`` is False read and send by itself; return the port."""
        chosen = self.settings
        tls = None
        if chosen.tls_certificate is not None and chosen.tls_key is not None:
            tls = server_tls(chosen.tls_certificate, chosen.tls_key, chosen.tls_clients)
        elif chosen.tls_certificate or chosen.tls_key or chosen.tls_clients:
            cure = "set node.tls_certificate and node.tls_key"
            raise UsageError(expected("a certificate and its key for TLS", "only one of them", cure))
        limits = Limits(
            object_bytes=chosen.object_bytes,
            associations=chosen.associations,
            per_address=chosen.per_address,
            idle_s=chosen.idle_s,
        )
        policy = Policy(chosen.title, chosen.any_called, dict(chosen.callers) or None)
        self.server = StorageServer(
            self.store,
            policy,
            limits,
            host=chosen.host,
            port=chosen.port,
            tls=tls,
            open_network=chosen.open_network,
        )
        self.server.answerer = CommitmentDesk(self.store, self._defer_commitment)
        self.store.ledger.write(lambda change: change.event("node started", title=chosen.title))
        self.server.start()
        note_port(chosen, self.server.port)
        for thread in self._threads if work else ():
            thread.start()
        return self.server.port

    def stop(self) -> None:
        """Take no more, finish what is under way, close the index."""
        self._stopping.set()
        if self.server is not None:
            forget_port(self.settings)
            self.server.stop()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()
            self.store.ledger.write(lambda change: change.event("node stopped"))
        self._hands.close()
        self.store.close()

    def work_once(self, now: float | None = None, *, pull: bool = True) -> tuple[int, int]:
        """Read what is due, then send what is due; return (studies that came to an end, objects that arrived).

        ``now``: seconds since 1970, for tests. ``pull``: ask the worklists too.
        """
        ended = self._read_due(now)
        if pull and self._performer is not None:
            self._performer.work()
        return ended, self.outbox.deliver(self._delivery.send, now)

    def check(self) -> Health:
        """Hash every object again and verify the chain of events."""
        rows = self.store.ledger.read("SELECT DISTINCT sop_instance FROM objects WHERE state = 'stored'")
        versions = [version for (instance,) in rows for version in self.store.versions(instance)]
        broken = tuple(one.sop_instance for one in versions if data_digest(one) != one.digest)
        ((waiting,),) = self.store.ledger.read("SELECT count(*) FROM jobs WHERE state = 'waiting'")
        return Health(len(versions), broken, self.store.ledger.verify_events(), waiting, len(self.outbox.dead()))

    def _read_due(self, now: float | None = None) -> int:
        if self._answering is None:
            return 0
        due = due_studies(self.store.ledger, self.settings.quiet_s, now)
        return self._answering.take_up(due, self._stopping)

    def _work(self) -> None:
        """Read until told to stop."""
        next_pull, ended = time.monotonic(), 0
        while not self._stopping.wait(0 if ended else _LOOK_S):
            ended = 0
            try:
                ended = self._read_due()
                if self._performer is not None and time.monotonic() >= next_pull:
                    next_pull = time.monotonic() + _PULL_S
                    self._performer.work()
            except Exception as error:  # the worker must outlive any one study
                _LOG.error("the worker met an unexpected %s", type(error).__name__)
        self.store.ledger.forget_thread()

    def _deliver(self) -> None:
        """Send until told to stop."""
        arrived = 0
        while not self._stopping.wait(0 if arrived else _SEND_S):
            arrived = 0
            try:
                arrived = self.outbox.deliver(self._delivery.send)
            except Exception as error:  # the sender must outlive any one remote
                _LOG.error("the sender met an unexpected %s", type(error).__name__)
        self.store.ledger.forget_thread()

    def _defer_commitment(self, calling: str, transaction: str, event_type: int, event: bytes) -> bool:
        """Report on an association of our own where the settings say where the caller listens."""
        names = [name for name, one in self.settings.remotes.items() if one.title == calling and one.port]
        if not names:
            return False
        self.outbox.add_bytes("commitment", transaction, names[0], bytes((event_type,)) + event)
        return True


def require_remotes(settings: NodeSettings) -> None:
    """Raise UsageError where a remote that is named is not there, or says not where it is."""
    for rule in settings.rules:
        for name in rule.to:
            if name not in settings.remotes:
                known = ", ".join(settings.remotes) or "none is set"
                cure = f"add [node.remotes.{name}] (known: {known})"
                raise UsageError(expected(f"a remote for rule '{rule.name}'", f"'{name}'", cure))
    for name in settings.worklists:
        if name not in settings.remotes or not settings.remotes[name].port:
            cure = f"add [node.remotes.{name}] with host and port"
            raise UsageError(expected("a remote with a port for each of node.worklists", f"'{name}'", cure))
    for name, remote in settings.remotes.items():
        if not (remote.web or remote.fhir or (remote.host and remote.port)):
            raise UsageError(expected(f"where remote '{name}' is", "nothing", "set host and port, web or fhir"))
