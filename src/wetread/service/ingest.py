"""From files in quarantine to studies, images and jobs, whole or not at all.

Decided here: all of an upload is looked at before any of it is stored; one transaction then writes studies, images,
jobs and the line of the audit log. The same content twice is one image, one study, one job and one result. Of a file
of several frames the file is kept, and beside it those frames that are read, each as an image of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.errors import WetreadError
from wetread.service import audit_log
from wetread.service.accounts import Principal
from wetread.service.audit_log import Actor
from wetread.service.blobs import Quarantined
from wetread.service.claims import begin
from wetread.service.context import Service
from wetread.service.frames import frames_to_read
from wetread.service.headers import ImageHeader, cut_frame, group_key, read_image_header
from wetread.service.jobs import Asked, enqueue
from wetread.service.problems import Problem, problem_of
from wetread.service.removal import forget_files, require_files
from wetread.service.tables import Blob, Job, Study, StudyImage, new_id, now
from wetread.service.unpack import Refusal, archive_files, image_kind, is_archive
from wetread.service.upsert import insert_new

__all__ = ["Destination", "Ingested", "StudyGot", "frame_header", "ingest", "read_question", "search_words"]


@dataclass(frozen=True)
class Destination:
    """Where an upload goes: which worklist, read by which reader.

    ``asked``: what is asked of each image, where it is not the read of ``reader``; nothing is asked of images that
    are only to be seen. ``sender``: the AE title that sent them, where they did not come as an upload.
    """

    tray: str = "main"
    reader: str = ""
    asked: tuple[Asked, ...] | None = None
    sender: str = ""


@dataclass(frozen=True)
class StudyGot:
    """A study of an upload: ``added`` images are new, ``known`` were there already."""

    id: str
    added: int
    known: int


@dataclass(frozen=True)
class Ingested:
    """What became of an upload."""

    studies: tuple[StudyGot, ...]
    jobs: tuple[str, ...]
    refused: tuple[Refusal, ...] = field(default=())


def ingest(
    service: Service, who: Principal, files: Sequence[Quarantined], to: Destination, request_id: str
) -> Ingested:
    """Take in the files of one upload: images, and archives of images.

    Raises:
        Problem: nothing in it is an image that is read, an archive is refused, the worklist is not this user's.
    """
    if not who.sees(to.tray):
        raise Problem("forbidden", "This worklist is not one of yours.")
    asked = (read_question(service, to.reader),) if to.asked is None else to.asked
    with contextlib.ExitStack() as stack:
        images, refused = _look(service, files, stack)
        if to.sender:
            images = [(file, replace(one, facts={**one.facts, "received_from": to.sender})) for file, one in images]
        if not images:
            first = refused[0] if refused else None
            message = first.message if first else "expected at least one image, got none"
            raise Problem("refused", message, first.hint if first else "Send DICOM, PNG, JPEG or TIFF.")
        new = {file.sha256 for file, _ in images if not service.blobs.path(file.sha256).exists()}
        try:
            for file, _ in images:
                service.blobs.keep(file)
            got = _name(service, who, to, asked, images, len(refused), request_id)
        except Exception:
            with contextlib.suppress(WetreadError):
                forget_files(service, new)
            raise
    service.bell.ring()
    return Ingested(*got, tuple(refused))


def _name(
    service: Service,
    who: Principal,
    to: Destination,
    asked: Sequence[Asked],
    images: Sequence[tuple[Quarantined, ImageHeader]],
    refused: int,
    request_id: str,
) -> tuple[tuple[StudyGot, ...], tuple[str, ...]]:
    """Write the rows of stored images in one transaction: studies, images, jobs, audit log."""
    sizes = {header.sha256: (file.size, header.kind) for file, header in images}
    with service.database.write() as session:
        # In one order everywhere: two uploads of the same files must not wait for each other in a circle.
        for sha256, (size, kind) in sorted(sizes.items()):
            insert_new(session, Blob, {"sha256": sha256, "size": size, "kind": kind}, ["sha256"])
        require_files(service.blobs, set(sizes))  # a deletion that was under way has ended by now
        studies, jobs = [], []
        for key, headers in sorted(group_key([header for _, header in images]), key=lambda group: group[0]):
            study, got = _store(session, who, to.tray, key, headers)
            studies.append(got)
            wanted = {header.sha256 for header in headers if header.frames == 1}
            jobs += [job.id for job in _ask(session, study, wanted, asked, who)]
        begin(service, session, [study.id for study in studies])
        whole = sum("frame" not in header.facts for _, header in images)
        detail: dict[str, Any] = {"studies": len(studies), "images": whole, "refused": refused}
        target = studies[0].id if len(studies) == 1 else ""
        detail |= {"sender": to.sender} if to.sender else {}
        action = "receive" if to.sender else "upload"
        audit_log.append(session, Actor(who.name, request_id), action, target, detail)
    return tuple(studies), tuple(jobs)


def read_question(service: Service, reader: str = "", operating_point: str | None = None) -> Asked:
    """What is asked when an image is to be read; the default reader where none is named.

    Raises:
        Problem: no such reader, or no such operating point.
    """
    entry = service.catalog.reader(reader or service.settings.service.reader)
    return Asked("read", entry, {"operating_point": operating_point} if operating_point else {})


def search_words(*parts: str | None) -> str:
    """What the worklist's search looks in."""
    return " ".join(part for part in parts if part).lower()


def _look(
    service: Service, files: Sequence[Quarantined], stack: contextlib.ExitStack
) -> tuple[list[tuple[Quarantined, ImageHeader]], list[Refusal]]:
    """Read the headers of all images; those that cannot be read are refused one by one."""
    images: dict[str, tuple[Quarantined, ImageHeader]] = {}
    refused: list[Refusal] = []
    number = 0
    for file in files:
        several = archive_files(service.blobs, file, service.limits, stack) if is_archive(file) else [file]
        for one in several:
            number += 1
            if number > service.limits.files:
                raise Problem("too_large", f"expected at most {service.limits.files} files, got more")
            found = _opened(service, one, number, stack)
            if isinstance(found, Refusal):
                refused.append(found)
                continue
            for made, header in found:
                images.setdefault(header.sha256, (made, header))
    return list(images.values()), refused


def _opened(
    service: Service, file: Quarantined, number: int, stack: contextlib.ExitStack
) -> list[tuple[Quarantined, ImageHeader]] | Refusal:
    """One file and those of its frames that are read; why it is left out where it cannot be."""
    try:
        header = read_image_header(file, image_kind(file), service.limits.file_bytes)
        return [(file, header), *(_cut(service, file, header, stack) if header.frames > 1 else [])]
    except WetreadError as error:
        # The imaging layer names the file in its message, which here is a random word.
        told = problem_of(error)
        return Refusal(number, told.message.replace(file.path.name, "the file"), told.hint)


def frame_header(made: Quarantined, whole: ImageHeader, frame: int, budget_bytes: int) -> ImageHeader:
    """What is known of one frame that was cut out of a file into quarantine."""
    header = read_image_header(made, whole.kind, budget_bytes)
    return replace(header, number=whole.number, facts={**header.facts, "frame": frame, "frame_of": whole.sha256})


def _cut(
    service: Service, file: Quarantined, header: ImageHeader, stack: contextlib.ExitStack
) -> list[tuple[Quarantined, ImageHeader]]:
    """The frames of a file that are read, each in quarantine as a file of its own."""
    data = file.path.read_bytes()
    found = []
    for frame in frames_to_read(header.frames):
        made = stack.enter_context(service.blobs.quarantine(service.limits.file_bytes))
        made.write(cut_frame(data, header.kind, frame))
        made.finish()
        found.append((made, frame_header(made, header, frame, service.limits.file_bytes)))
    return found


def _store(session: Session, who: Principal, tray: str, key: str, headers: list[ImageHeader]) -> tuple[Study, StudyGot]:
    study = _study(session, who, tray, key, headers[0])
    whole = [header for header in headers if "frame" not in header.facts]
    added = 0
    for number, header in enumerate(sorted(whole, key=lambda one: one.number), study.images + 1):
        added += _insert(session, study, header, header.number or number)
        for frame in headers:
            if frame.facts.get("frame_of") == header.sha256:
                _insert(session, study, frame, header.number or number)
    if added:
        study.images, study.status, study.changed = study.images + added, "open", now()
    return study, StudyGot(study.id, added, len(whole) - added)


def _insert(session: Session, study: Study, header: ImageHeader, number: int) -> bool:
    values = {
        "id": new_id(), "study_id": study.id, "sha256": header.sha256, "number": number, "kind": header.kind,
        "rows": header.rows, "columns": header.columns, "facts": header.facts,
    }  # fmt: skip
    return insert_new(session, StudyImage, values, ["study_id", "sha256"])


def _study(session: Session, who: Principal, tray: str, key: str, header: ImageHeader) -> Study:
    about = {**header.patient, **header.study}
    words = (about.get(name) for name in ("patient_id", "patient_name", "title", "modality", "body_part"))
    values = {
        "id": new_id(),
        "tray": tray,
        "key": key,
        "owner_id": who.user_id,
        "search": search_words(*words),
        **about,
    }
    insert_new(session, Study, values, ["tray", "key"])
    return session.scalars(select(Study).where(Study.tray == tray, Study.key == key).with_for_update()).one()


def _ask(session: Session, study: Study, hashes: set[str], asked: Sequence[Asked], who: Principal) -> list[Job]:
    chosen = select(StudyImage).where(StudyImage.study_id == study.id, StudyImage.sha256.in_(hashes))
    images = list(session.scalars(chosen)) if asked else []
    jobs = [enqueue(session, one, image, who.user_id) for one in asked for image in images]
    if asked and all(job.state == "done" for job in jobs) and study.status == "open":
        study.status = "read"
    return jobs
