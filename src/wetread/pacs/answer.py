"""From complete studies to results that are kept: which rule takes each, what its reader says, what is made of it.

Decided here: studies of one rule are handed to the reader together, so that its batches run over studies, and the
objects of one study are made while the next is read, in a process of their own where the node has one: they are
made in pure Python, which would keep the networks waiting. A study is marked as done in the very transaction that
enqueues its results, so that a crash before it reads the study again and makes the same objects under the same UIDs.
A study that fails fails alone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from wetread.errors import WetreadError
from wetread.pacs.completion import DueStudy, done, failed
from wetread.pacs.facts import ResultFacts
from wetread.pacs.hands import Hands
from wetread.pacs.ledger import Change
from wetread.pacs.outbox import Letter, Outbox, Parcel
from wetread.pacs.performed import Output
from wetread.pacs.results import PICTURE_KINDS, address_results
from wetread.pacs.routing import READABLE, choose, study_facts
from wetread.pacs.store import ObjectStore, StoredObject
from wetread.settings import NodeRemote, NodeRule, NodeSettings

__all__ = ["Answering", "ReadStudies", "StudyAnswer", "StudyTask"]

_LOG = logging.getLogger("wetread.pacs")
_WAITING = 16
"""Studies that are read and whose objects are not made yet; each may hold films and heat maps."""
_FEW, _LOOK_S = 50, 0.02
"""More studies than that, read by somebody else, are asked for after so many seconds for each: a look takes 2 ms."""
_KEPT_TOGETHER = 32
"""Studies whose results go into the outbox in one transaction, at most."""


@dataclass(frozen=True)
class StudyTask:
    """A study to read. ``objects``: the latest version of all of it; ``rule``: None where none takes it.

    ``pictures``: whether somebody is sent film or heat map, which are left out otherwise.
    """

    study: str
    objects: Sequence[StoredObject]
    rule: NodeRule | None = None
    pictures: bool = False

    @property
    def images(self) -> list[StoredObject]:
        """The objects that a reader is given."""
        return [one for one in self.objects if one.sop_class in READABLE]


@dataclass(frozen=True)
class StudyAnswer:
    """What reading a study gave: facts by image, and the images that could not be read, with the reason.

    ``error``: why the study as a whole could not be read; it is tried again later.
    """

    facts: Sequence[tuple[StoredObject, ResultFacts]] = ()
    failures: Sequence[str] = field(default=())
    error: str = ""


ReadStudies = Callable[[Sequence[StudyTask]], Iterator[StudyAnswer | None]]
"""Reads studies that all have the same rule, or none: an answer for each, in order.

None instead of an answer: it is not read yet, and is to be asked for again.
"""

_Facts = Sequence[tuple[Path, str, ResultFacts]]
"""By image: its file, its study, what was read."""


@dataclass(frozen=True)
class _Made:
    """The results of a study; ``error``: why those of some image could not be made."""

    letters: tuple[Letter, ...] = ()
    outputs: tuple[Output, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class _Answered:
    """A study on its way from the reader to the outbox."""

    due: DueStudy
    task: StudyTask
    answer: StudyAnswer
    making: Future[_Made]


class Answering:
    """Reads studies by ``read`` and keeps what is made of them in ``outbox``.

    Args:
        store: What was received.
        outbox: Takes the results.
        settings: Rules and remotes.
        read: Reads studies.
        hands: Makes the objects.
    """

    def __init__(
        self, store: ObjectStore, outbox: Outbox, settings: NodeSettings, read: ReadStudies, hands: Hands
    ) -> None:
        self._store, self._outbox, self._settings = store, outbox, settings
        self._read, self._hands = read, hands
        self._look_at: dict[DueStudy, float] = {}
        """Studies that somebody else is reading, and when to ask for them again, on the monotonic clock."""

    def take_up(self, due: Sequence[DueStudy], stopping: threading.Event | None = None) -> int:
        """Read studies and keep their results; return how many came to an end.

        What is not read yet, or not kept, stays due; so does the rest once ``stopping`` is set.
        """
        now = time.monotonic()
        due = [one for one in due if self._look_at.get(one, now) <= now]
        if not due:
            return 0
        unread: list[DueStudy] = []
        answered: queue.Queue[_Answered | None] = queue.Queue(_WAITING)
        ended: list[int] = []
        keeper = threading.Thread(target=self._keep_all, args=(answered, ended), name="results", daemon=True)
        keeper.start()
        try:
            for one, task, answer in self._answers(due):
                if stopping is not None and stopping.is_set():
                    break
                if answer is None:
                    unread.append(one)
                else:
                    answered.put(_Answered(one, task, answer, self._make(task, answer)))
        finally:
            answered.put(None)
            keeper.join()
        self._wait_for(unread)
        return sum(ended)

    def _wait_for(self, unread: Sequence[DueStudy]) -> None:
        """Ask again the later the more wait: a long queue elsewhere must not keep this node busy with looking."""
        now = time.monotonic()
        self._look_at = {one: at for one, at in self._look_at.items() if at > now}
        many = len(self._look_at) + len(unread)
        at = now + _LOOK_S * many if many > _FEW else now
        self._look_at |= dict.fromkeys(unread, at)

    def perform(self, study: str) -> tuple[list[Output], str] | None:
        """Read a study for a workitem, whatever has been read before; see :data:`wetread.pacs.performer.Perform`."""
        task = self._task(study)
        if task.rule is None:
            return [], "no rule takes the study" if task.objects else "the study is not here"
        ((_, answer),) = self._read_safely([task])
        if answer is None:
            return None
        if answer.error or not answer.facts:
            return [], answer.error or "; ".join(answer.failures)[:300] or "no image could be read"
        made = self._result(self._make(task, answer), task, answer)
        try:
            self._outbox.keep([Parcel(made.letters, _nothing)])
        except Exception as error:
            return [], _why(error)
        return list(made.outputs), made.error

    def _answers(self, due: Sequence[DueStudy]) -> Iterator[tuple[DueStudy, StudyTask, StudyAnswer | None]]:
        """Studies by rule, the longest waiting rule first, each as its reader answers."""
        by_rule: dict[NodeRule | None, list[tuple[DueStudy, StudyTask]]] = {}
        for one in due:
            task = self._task(one.study)
            by_rule.setdefault(task.rule, []).append((one, task))
        for group in by_rule.values():
            found = self._read_safely([task for _, task in group])
            for (one, task), (_, answer) in zip(group, found, strict=True):
                yield one, task, answer

    def _task(self, study: str) -> StudyTask:
        facts = study_facts(self._store.ledger, study)
        rule = choose(self._settings.rules, facts) if facts is not None else None
        kinds = {kind for remote in self._remotes(rule).values() for kind in remote.results}
        # Our own results, which an archive may send round to us, are no part of what there is to read.
        objects = [one for one in self._store.study(study) if not self._outbox.made(one.sop_instance)]
        return StudyTask(study, objects, rule, any(kind in PICTURE_KINDS for kind in kinds))

    def _remotes(self, rule: NodeRule | None) -> Mapping[str, NodeRemote]:
        return {name: self._settings.remotes[name] for name in (rule.to if rule is not None else ())}

    def _read_safely(self, tasks: Sequence[StudyTask]) -> Iterator[tuple[StudyTask, StudyAnswer | None]]:
        """An answer for each study; where the reader breaks off, the rest is read one by one."""
        told = 0
        try:
            for task, answer in zip(tasks, self._read(tasks), strict=True):
                yield task, answer
                told += 1
        except Exception as error:
            if len(tasks) == 1 and not told:
                yield tasks[0], StudyAnswer(error=_why(error))
                return
            for task in tasks[told:]:
                yield from self._read_safely([task])

    def _make(self, task: StudyTask, answer: StudyAnswer) -> Future[_Made]:
        return self._hands.do(_made, *self._material(task, answer))

    def _material(self, task: StudyTask, answer: StudyAnswer) -> tuple[_Facts, Mapping[str, NodeRemote]]:
        """What :func:`_made` is handed; of a study that no rule takes nothing is made."""
        facts = answer.facts if task.rule is not None else ()
        return [(one.path, one.study, found) for one, found in facts], self._remotes(task.rule)

    def _result(self, making: Future[_Made], task: StudyTask, answer: StudyAnswer) -> _Made:
        """What was made; here and now where the process that was at it has died."""
        try:
            return making.result()
        except Exception as error:
            _LOG.warning("results are made again after an unexpected %s", type(error).__name__)
        return _made(*self._material(task, answer))

    def _keep_all(self, answered: queue.Queue[_Answered | None], ended: list[int]) -> None:
        """Keep results until None comes: those that are made by then in one transaction."""
        last = False
        while not last:
            group = [answered.get()]
            while group[-1] is not None and len(group) < _KEPT_TOGETHER and not answered.empty():
                group.append(answered.get())
            last = group[-1] is None
            try:
                ended.append(self._keep([self._parcel(one) for one in group if one is not None]))
            except Exception as error:  # the thread that reads would wait for us for ever; the studies are still due
                _LOG.error("results were not kept: unexpected %s", type(error).__name__)
        self._store.ledger.forget_thread()

    def _parcel(self, one: _Answered) -> tuple[DueStudy, Parcel]:
        """The results of a study with the line that says that it was read, or why it was not."""
        due, rule, answer = one.due, one.task.rule, one.answer
        made = self._result(one.making, one.task, answer)

        def record(change: Change, new: int) -> None:
            if error := answer.error or made.error:
                failed(due, error)(change)
            elif rule is None:
                done(due, rule=None)(change)
            else:
                counts = {"read": len(answer.facts), "not_read": len(answer.failures), "jobs": new}
                done(due, rule=rule.name, **counts)(change)

        return due, Parcel(made.letters, record)

    def _keep(self, parcels: Sequence[tuple[DueStudy, Parcel]]) -> int:
        """Keep the results of studies together, or where that fails one by one; return how many were kept."""
        if not parcels:
            return 0
        try:
            self._outbox.keep([parcel for _, parcel in parcels])
            return len(parcels)
        except Exception as error:
            why = _why(error)
        if len(parcels) > 1:
            return sum(self._keep([one]) for one in parcels)
        self._store.ledger.write(failed(parcels[0][0], why))
        return 1


def _made(facts: _Facts, remotes: Mapping[str, NodeRemote]) -> _Made:
    """Make the results of the images of a study; one that fails keeps no other back."""
    letters: list[Letter] = []
    outputs: list[Output] = []
    error = ""
    for path, study, found in facts:
        try:
            results, addressed = address_results(path, found, remotes)
        except Exception as failure:
            error = error or _why(failure)
            continue
        letters += addressed
        outputs += [Output(study, one.series, one.sop_class, one.sop_instance) for one in results]
    return _Made(tuple(letters), tuple(outputs), error)


def _why(error: Exception) -> str:
    """The reason to record: only our own errors are quoted, as others may quote a header, and headers name patients."""
    return str(error)[:300] if isinstance(error, WetreadError) else f"unexpected {type(error).__name__}"


def _nothing(_: Change, _new: int) -> None:
    return
