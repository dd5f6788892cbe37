"""The node as a whole: receive, wait until a study is complete, have it read, send the results.

Decided here: reading is a function that is handed in, so that nothing here knows a model. A study is read by one
worker at a time and marked as done only after its results are kept, so that a crash in between reads it again and
makes the same objects under the same UIDs.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from wetread.errors import PeerUnreachable, UsageError, WetreadError, expected
from wetread.pacs.association import Limits, Policy
from wetread.pacs.commitment import CommitmentDesk
from wetread.pacs.completion import DueStudy, due_studies, mark_done, mark_failed
from wetread.pacs.facts import ResultFacts
from wetread.pacs.outbox import Job, Outbox
from wetread.pacs.performer import Performer
from wetread.pacs.routing import READABLE, choose, study_facts
from wetread.pacs.server import StorageServer, server_tls
from wetread.pacs.store import ObjectStore, StoredObject, data_digest
from wetread.pacs.workitems import Output
from wetread.settings import NodeRemote, NodeRule, NodeSettings

__all__ = ["Health", "Node", "ReadStudy", "StudyAnswer", "require_remotes"]

_LOG = logging.getLogger("wetread.pacs")
_POLL_S = 1.0
_POLLS_FOR_A_PULL = 10


@dataclass(frozen=True)
class StudyAnswer:
    """What reading a study gave: facts by image, and the images that could not be read, with the reason."""

    facts: Sequence[tuple[StoredObject, ResultFacts]] = ()
    failures: Sequence[str] = field(default=())


@dataclass(frozen=True)
class _Made:
    """How many jobs are new, and all results, new or not."""

    new: int = 0
    outputs: tuple[Output, ...] = ()


ReadStudy = Callable[[NodeRule, Sequence[StoredObject]], StudyAnswer]
"""Reads the images of one study by the reader of a rule."""


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
        read: Reads a study; None to receive only.
        shared: Only to look, beside a node that runs on the same folder.

    Raises:
        UsageError: settings that do not fit each other, or a port that is taken.
    """

    def __init__(self, settings: NodeSettings, read: ReadStudy | None = None, *, shared: bool = False) -> None:
        require_remotes(settings)
        self.settings = settings
        self._read = read
        self.store = ObjectStore(
            settings.folder,
            reserve_bytes=settings.reserve_bytes,
            on_other=settings.on_other_bytes,
            shared=shared,
        )
        self.outbox = Outbox(self.store.ledger, settings.folder / "results")
        self._performer = Performer(self.store, settings, self._perform)
        self._stopping = threading.Event()
        self._worker = threading.Thread(target=self._work, name="node worker", daemon=True)
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
        if work:
            self._worker.start()
        return self.server.port

    def stop(self) -> None:
        """Take no more, finish what is under way, close the index."""
        self._stopping.set()
        if self.server is not None:
            self.server.stop()
            if self._worker.is_alive():
                self._worker.join()
            self.store.ledger.write(lambda change: change.event("node stopped"))
        self.store.close()

    def work_once(self, now: float | None = None, *, pull: bool = True) -> tuple[int, int]:
        """Read what is due and send what is due; return (studies taken up, objects that arrived).

        ``now``: seconds since 1970, for tests. ``pull``: ask the worklists too.
        """
        due = due_studies(self.store.ledger, self.settings.quiet_s, now) if self._read is not None else []
        self._take_up(due)
        if pull and self._read is not None:
            self._performer.work()
        return len(due), self.outbox.deliver(self._send, now)

    def check(self) -> Health:
        """Hash every object again and verify the chain of events."""
        rows = self.store.ledger.read("SELECT DISTINCT sop_instance FROM objects WHERE state = 'stored'")
        versions = [version for (instance,) in rows for version in self.store.versions(instance)]
        broken = tuple(one.sop_instance for one in versions if data_digest(one) != one.digest)
        ((waiting,),) = self.store.ledger.read("SELECT count(*) FROM jobs WHERE state = 'waiting'")
        return Health(len(versions), broken, self.store.ledger.verify_events(), waiting, len(self.outbox.dead()))

    def _work(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(_POLL_S):
                break
            try:
                self.work_once(pull=number % _POLLS_FOR_A_PULL == 0)
            except Exception as error:  # the worker must outlive any one study
                _LOG.error("the worker met an unexpected %s", type(error).__name__)
        self.store.ledger.forget_thread()

    def _take_up(self, due: Sequence[DueStudy]) -> None:
        """Read studies one after the other; the results of one are made while the next one is read."""
        if not due:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="results") as hands:
            before: Future[None] | None = None
            for study in due:
                rule, answer, why = self._read_study(study.study)
                if before is not None:
                    before.result()
                before = hands.submit(self._conclude, study, rule, answer, why)
            if before is not None:
                before.result()
            hands.submit(self.store.ledger.forget_thread).result()

    def _conclude(self, due: DueStudy, rule: NodeRule | None, answer: StudyAnswer, why: str) -> None:
        if rule is None:
            mark_done(self.store.ledger, due, rule=None)
            return
        made, failed = (_Made(), why) if why else self._answer_safely(rule, answer)
        if failed:
            mark_failed(self.store.ledger, due, failed)
            return
        counts = {"read": len(answer.facts), "not_read": len(answer.failures), "jobs": made.new}
        mark_done(self.store.ledger, due, rule=rule.name, **counts)

    def _read_study(self, study: str) -> tuple[NodeRule | None, StudyAnswer, str]:
        """The rule that takes the study (None: none does), what its reader says, and the reason where it failed."""
        facts = study_facts(self.store.ledger, study)
        rule = choose(self.settings.rules, facts) if facts is not None else None
        if rule is None or self._read is None:
            return None, StudyAnswer(), "no rule takes the study" if facts is not None else "the study is not here"
        images = [one for one in self.store.study(study) if one.sop_class in READABLE]
        try:
            return rule, self._read(rule, images), ""
        except Exception as error:
            return rule, StudyAnswer(), _why(error)

    def _answer_safely(self, rule: NodeRule, answer: StudyAnswer) -> tuple[_Made, str]:
        try:
            return self._answer(rule, answer), ""
        except Exception as error:
            return _Made(), _why(error)

    def _perform(self, study: str) -> tuple[list[Output], str]:
        """Read a study for a workitem, whatever has been read before."""
        rule, answer, why = self._read_study(study)
        if not why and not answer.facts:
            why = "; ".join(answer.failures)[:300] or "no image could be read"
        if rule is None or why:
            return [], why
        made, why = self._answer_safely(rule, answer)
        return list(made.outputs), why

    def _answer(self, rule: NodeRule, answer: StudyAnswer) -> _Made:
        """Make the results and enqueue them for each remote."""
        from wetread.pacs.results import RESULT_KINDS, build_results

        new, outputs = 0, []
        remotes = {name: self.settings.remotes[name] for name in rule.to}
        for stored, facts in answer.facts:
            wanted = [kind for kind in RESULT_KINDS if any(kind in remote.results for remote in remotes.values())]
            results = build_results(stored.path, facts, wanted)
            outputs += [Output(stored.study, one.series, one.sop_class, one.sop_instance) for one in results]
            for name, remote in remotes.items():
                if remote.port or remote.web:
                    new += self.outbox.add([one for one in results if one.kind in remote.results], [name])
                if remote.fhir:
                    new += self._add_fhir(name, stored, facts)
        return _Made(new, tuple(outputs))

    def _add_fhir(self, name: str, stored: StoredObject, facts: ResultFacts) -> bool:
        from wetread.pacs.derived import source_header
        from wetread.pacs.facts import instance_uid
        from wetread.pacs.fhir import fhir_json

        image = source_header(stored.path)
        key = instance_uid(facts, image, "fhir")
        return self.outbox.add_bytes("fhir", key, name, fhir_json(facts.read, image))

    def _defer_commitment(self, calling: str, transaction: str, event_type: int, event: bytes) -> bool:
        """Report on an association of our own where the settings say where the caller listens."""
        names = [name for name, one in self.settings.remotes.items() if one.title == calling and one.port]
        if not names:
            return False
        self.outbox.add_bytes("commitment", transaction, names[0], bytes((event_type,)) + event)
        return True

    def _send(self, target: str, jobs: list[tuple[Job, Path]]) -> dict[int, str]:
        remote = self.settings.remotes.get(target)
        if remote is None:
            return {job.id: "no such remote in the settings" for job, _ in jobs}
        failed: dict[int, str] = {}
        objects = [(job, path) for job, path in jobs if job.kind == "store"]
        try:
            refused = self._send_objects(remote, [path for _, path in objects])
            failed |= {job.id: refused[path] for job, path in objects if path in refused}
        except (PeerUnreachable, UsageError) as error:
            failed |= {job.id: str(error) for job, _ in objects}
        for job, path in jobs:
            if job.kind != "store" and (why := self._send_other(remote, job, path)):
                failed[job.id] = why
        return failed

    def _send_objects(self, remote: NodeRemote, files: list[Path]) -> dict[Path, str]:
        from wetread.pacs import client, web

        if not files:
            return {}
        if remote.web:
            return web.send_files(remote.web, files, proof=web.authorization(remote.authorization))
        return client.send_files(remote, self.settings.title, files)

    def _send_other(self, remote: NodeRemote, job: Job, path: Path) -> str:
        from wetread.pacs import client, web

        data = path.read_bytes()
        try:
            if job.kind == "fhir":
                return web.post_fhir(remote.fhir, data, proof=web.authorization(remote.authorization))
            return client.report_commitment(remote, self.settings.title, data[0], data[1:])
        except (PeerUnreachable, UsageError) as error:
            return str(error)


def _why(error: Exception) -> str:
    """The reason to record: only our own errors are quoted, as others may quote a header, and headers name patients."""
    return str(error)[:300] if isinstance(error, WetreadError) else f"unexpected {type(error).__name__}"


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
