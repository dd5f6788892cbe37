"""What the DICOM node receives goes into the worklist, and what the service finds goes back to the node.

Decided here: a study that arrived is taken in like an upload, whatever rule takes it, also where none does; those of
its images that a reader is given are asked for by the rule's reader, once, as jobs of any worker; the node is told
"not yet" until they have ended, and makes its results from the records and pictures that the workstation shows.
Everything can be done again after a crash: files are known by their content, jobs by their question.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.errors import WetreadError
from wetread.pacs.answer import StudyAnswer, StudyTask
from wetread.pacs.drawing import Organs, result_facts
from wetread.pacs.routing import READABLE
from wetread.service.accounts import Principal, add_user, named_user
from wetread.service.blobs import Quarantined
from wetread.service.context import Service
from wetread.service.ingest import Destination, ingest, read_question
from wetread.service.jobs import OPEN, Asked
from wetread.service.problems import Problem
from wetread.service.tables import Job, Picture, Result, Study, StudyImage, new_id

if TYPE_CHECKING:
    from wetread.pacs.facts import ResultFacts
    from wetread.pacs.store import StoredObject
    from wetread.settings import NodeRule

__all__ = ["USER", "Reception"]

T = TypeVar("T")

USER = "dicom-node"
"""The user in whose name studies are received; nobody can log in as it."""
TRAY = "main"
_TRANSIENT = ("unavailable", "disk_full")
_AT_ONCE = 500
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class _Ended:
    """Where a job stands: its state, why it failed, the result that it made."""

    state: str
    message: str
    result_id: str | None


States = Mapping[tuple[str, str], _Ended]
"""By sha256 of the file and kind of the job."""


class Reception:
    """Reads studies for the node by having them read by the service: :data:`wetread.pacs.answer.ReadStudies`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._who = _user(service)
        self._taken: dict[str, dict[int, str]] = {}
        """Study -> row of the object -> sha256 of its file in the service; empty where it is no image."""

    def __call__(self, tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer | None]:
        """Take in what is new of studies of one rule, and answer those whose jobs have ended."""
        rule = tasks[0].rule
        try:
            asked, error = self._asked(rule), ""
        except WetreadError as missing:  # the studies are shown all the same
            asked, error = (), str(missing)
        known = [sha256 for task in tasks for sha256 in self._taken.get(task.study, {}).values()]
        states = self._states(asked, known)
        for task in tasks:
            try:
                fresh = self._take_in(task, asked)
                if error or rule is None:
                    yield self._ended(task, StudyAnswer(error=error))
                else:
                    yield None if fresh else self._ended(task, self._answer(task, states))
            except Problem as problem:
                # A database or a disk that is away comes back: the study waits for it and is not given up.
                yield None if problem.code in _TRANSIENT else StudyAnswer(error=problem.message)

    def _asked(self, rule: NodeRule | None) -> tuple[Asked, ...]:
        """What a rule asks of each image: the read by its reader, and the organs by its segmenter."""
        if rule is None:
            return ()
        read = read_question(self._service, rule.reader, rule.operating_point)
        if not rule.heat_maps:
            read = Asked(read.kind, read.entry, {**read.parameters, "heat_maps": False})
        if not rule.segmenter:
            return (read,)
        return (read, Asked("segment", self._service.catalog.segmenter(rule.segmenter)))

    def _ended(self, task: StudyTask, answer: StudyAnswer | None) -> StudyAnswer | None:
        """Forget a study that came to an end: what comes of it later is another task."""
        if answer is not None:
            self._taken.pop(task.study, None)
        return answer

    def _take_in(self, task: StudyTask, asked: tuple[Asked, ...]) -> bool:
        """Put what is new of a study into the worklist; return whether there was anything."""
        taken = self._taken.setdefault(task.study, {})
        fresh = [one for one in task.objects if one.id not in taken]
        groups: dict[tuple[bool, str], list[StoredObject]] = {}
        for one in fresh:
            groups.setdefault((one.sop_class in READABLE, one.sender), []).append(one)
        for (readable, sender), wanted in groups.items():
            to = Destination(TRAY, asked=asked if readable else (), sender=sender)
            for some in _parts(wanted, self._service.limits.files):
                taken |= self._ingest(some, to)
        return bool(fresh)

    def _ingest(self, objects: Sequence[StoredObject], to: Destination) -> dict[int, str]:
        """Take in files as those of an upload; return the sha256 of each, empty for those that are no images.

        Raises:
            Problem: as :func:`wetread.service.ingest.ingest`, but that nothing in it was an image.
        """
        with contextlib.ExitStack() as stack:
            copies = {one.id: self._copied(one, stack) for one in objects}
            files = {row: file for row, file in copies.items() if file is not None}
            refused = set(files)
            with _unless_refused():
                got = ingest(self._service, self._who, list(files.values()), to, new_id())
                refused = {list(files)[one.number - 1] for one in got.refused}
            return {row: "" if row in refused or row not in files else files[row].sha256 for row in copies}

    def _copied(self, stored: StoredObject, stack: contextlib.ExitStack) -> Quarantined | None:
        """A file of the node in quarantine; None where the service takes none of that size."""
        limit = self._service.limits.file_bytes
        if stored.bytes + stored.offset > limit:
            return None
        copy = stack.enter_context(self._service.blobs.quarantine(limit))
        with stored.path.open("rb") as file:
            while block := file.read(_COPY_BYTES):
                copy.write(block)
        return copy

    def _states(self, asked: Sequence[Asked], hashes: Iterable[str]) -> States:
        """Where the jobs stand that were asked of files."""
        found: dict[tuple[str, str], _Ended] = {}
        questions = [one.question for one in asked]
        with self._service.database.read() as session:
            for some in _parts((one for one in hashes if one), _AT_ONCE):
                chosen = (
                    select(StudyImage.sha256, Job.kind, Job.state, Job.message, Job.result_id)
                    .join(Job, Job.image_id == StudyImage.id)
                    .join(Study, Study.id == StudyImage.study_id)
                    .where(StudyImage.sha256.in_(some), Job.question.in_(questions), Study.tray == TRAY)
                )
                for sha256, kind, state, message, result in session.execute(chosen):
                    found[sha256, kind] = _Ended(state, message or "", result)
        return found

    def _answer(self, task: StudyTask, states: States) -> StudyAnswer | None:
        """What was found of a study; None while a job of it is not at its end."""
        taken = self._taken[task.study]
        hashes = [(one, taken[one.id]) for one in task.images]
        jobs = [states.get((sha256, kind)) for _, sha256 in hashes for kind in ("read", "segment")]
        if any(job is not None and job.state in OPEN for job in jobs):
            return None
        if dead := [job for job in jobs if job is not None and job.state == "dead"]:
            return StudyAnswer(error=dead[0].message or "a read went to the dead letters")
        facts: list[tuple[StoredObject, ResultFacts]] = []
        failures: list[str] = []
        with self._service.database.read() as session:
            for one, sha256 in hashes:
                job = states.get((sha256, "read"))
                if job is None or job.result_id is None:
                    failures.append(_why(sha256, job))
                    continue
                organs = self._organs(session, states.get((sha256, "segment")))
                facts.append((one, self._facts(session, job.result_id, organs, task.pictures)))
        return StudyAnswer(facts, failures)

    def _facts(self, session: Session, result_id: str, organs: Organs | None, pictures: bool) -> ResultFacts:
        from wetread.types import Read

        read = Read.model_validate(session.get_one(Result, result_id).record)
        if not pictures:
            return result_facts(read, organs=organs)
        shown = self._pictures(session, result_id)
        heat = {name.partition(":")[2]: png for name, png in shown.items() if name.startswith("heat:")}
        return result_facts(read, shown["film"], heat, organs)

    def _organs(self, session: Session, job: _Ended | None) -> Organs | None:
        """The masks of an image; None where no segmenter was asked, or it could not read the image."""
        import numpy as np
        from PIL import Image

        from wetread.reading.organs import OrganReading

        if job is None or job.result_id is None:
            return None
        reading = OrganReading.model_validate(session.get_one(Result, job.result_id).record)
        shown = self._pictures(session, job.result_id)
        masks = {
            name.partition(":")[2]: np.asarray(Image.open(io.BytesIO(png)).convert("L")) > 0
            for name, png in shown.items()
        }
        return Organs(masks, reading.measures, reading.model)

    def _pictures(self, session: Session, result_id: str) -> dict[str, bytes]:
        rows = session.execute(select(Picture.name, Picture.sha256).where(Picture.result_id == result_id))
        return {name: self._service.blobs.read(sha256) for name, sha256 in rows}


@contextlib.contextmanager
def _unless_refused() -> Iterator[None]:
    """Nothing in it was an image: such a study has reports or marks only."""
    try:
        yield
    except Problem as problem:
        if problem.code != "refused":
            raise


def _parts(items: Iterable[T], most: int) -> Iterator[tuple[T, ...]]:
    waiting = iter(items)
    while part := tuple(islice(waiting, most)):
        yield part


def _user(service: Service) -> Principal:
    """The user of the node; made once."""
    with service.database.write() as session:
        user = named_user(session, USER)
        if user is None:
            user = add_user(session, USER, "reader", None)
            user.disabled = True
        return Principal(user.id, user.name, user.role, ("*",))


def _why(sha256: str, job: _Ended | None) -> str:
    if job is not None:
        return job.message or f"its read was {job.state}"
    return "it is not in the worklist any more" if sha256 else "it is no image that is read"
