"""The tables of the service's database, the same on SQLite and PostgreSQL.

Decided here: times are seconds since 1970 in UTC, as numbers; identifiers are random and say nothing; bytes
are never in a table, only the sha256 under which the blob store keeps them. Uniqueness that the service relies
on (one study for one content, one result for one question, one job for one result) is a constraint here, so
that two processes cannot both believe to be first.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "JOB_STATES",
    "ROLES",
    "Annotation",
    "AuditEntry",
    "Base",
    "Blob",
    "Draft",
    "Feedback",
    "Job",
    "LoginToken",
    "Picture",
    "ReportObject",
    "Result",
    "Session",
    "Study",
    "StudyImage",
    "Token",
    "User",
    "Value",
    "Workitem",
    "new_id",
    "now",
]

ROLES = ("reader", "annotator", "admin")
"""In order: each may do what those before it may."""

JOB_STATES = ("queued", "running", "done", "failed", "cancelled", "dead")

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
_ID = String(32)
_HASH = String(64)


def new_id() -> str:
    """A random identifier of 128 bits, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def now() -> float:
    """Seconds since 1970-01-01 UTC."""
    return time.time()


class Base(DeclarativeBase):
    """Base of all tables. Constraints have names, so that a migration can find them on both databases."""

    metadata = MetaData(naming_convention=_NAMES)


class User(Base):
    """A person who may log in. ``trays``: worklists that the person sees, ``*`` for all."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(String(255), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    trays: Mapped[list[str]] = mapped_column(JSON, default=lambda: ["*"])
    disabled: Mapped[bool] = mapped_column(default=False)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[float] = mapped_column(default=0.0)
    created: Mapped[float] = mapped_column(default=now)

    @property
    def openid(self) -> bool:
        """Whether a provider of OpenID Connect says who this is."""
        return self.subject is not None


class Session(Base):
    """A log-in of a browser. ``id`` is the sha256 of the cookie, so that a stolen table opens nothing."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(_HASH, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created: Mapped[float] = mapped_column(default=now)
    expires: Mapped[float] = mapped_column()


class Token(Base):
    """A token for programs. ``id`` names it in the API, ``hash`` is the sha256 of its secret."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(_HASH, unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(default=now)
    expires: Mapped[float] = mapped_column()
    revoked: Mapped[bool] = mapped_column(default=False)


class LoginToken(Base):
    """A secret that logs in once. ``id`` is its sha256."""

    __tablename__ = "login_tokens"

    id: Mapped[str] = mapped_column(_HASH, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    expires: Mapped[float] = mapped_column()


class Value(Base):
    """A setting of this installation that outlives a start, such as its secret."""

    __tablename__ = "installation"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Blob(Base):
    """Bytes in the blob store, by their sha256."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(_HASH, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    created: Mapped[float] = mapped_column(default=now)


class Study(Base):
    """One study of a worklist. ``key``: what makes it this study: its UID, or the hash of its images.

    ``patient_*`` and ``title`` are patient data: they leave the service only through routes that say ``no-store``.
    ``status``: open, read, failed. ``urgency``: 0-1, the highest calibrated probability of a finding weighed by the
    trust in its reader; ``search``: lower case words that the worklist's search looks in.
    """

    __tablename__ = "studies"
    __table_args__ = (
        UniqueConstraint("tray", "key"),
        Index("ix_studies_order", "tray", "urgency", "created", "id"),
        Index("ix_studies_all", "urgency", "created", "id"),
        Index("ix_studies_status", "status", "urgency", "created", "id"),
        Index("ix_studies_changed", "changed"),
        Index("ix_studies_uid", "study_uid"),
    )

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    tray: Mapped[str] = mapped_column(String(64), default="main")
    key: Mapped[str] = mapped_column(String(160))
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    study_uid: Mapped[str | None] = mapped_column(String(128))
    patient_id: Mapped[str | None] = mapped_column(String(255))
    patient_name: Mapped[str | None] = mapped_column(String(255))
    patient_sex: Mapped[str | None] = mapped_column(String(16))
    patient_age: Mapped[float | None] = mapped_column()
    title: Mapped[str | None] = mapped_column(String(255))
    study_date: Mapped[str | None] = mapped_column(String(16))
    modality: Mapped[str | None] = mapped_column(String(16))
    body_part: Mapped[str | None] = mapped_column(String(64))
    images: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(16), default="open")
    finding: Mapped[str | None] = mapped_column(String(64))
    decision: Mapped[str | None] = mapped_column(String(16))
    urgency: Mapped[float] = mapped_column(default=0.0)
    search: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[float] = mapped_column(default=now)
    changed: Mapped[float] = mapped_column(default=now)


class StudyImage(Base):
    """One image of a study. ``facts``: what the header says, as plain JSON.

    A file of several frames is an image with ``frames`` in its facts; a frame of it that is read is an image too, with
    the number of that file, and ``frame`` and ``frame_of`` (the sha256 of the file) in its facts. ``received_from``:
    the AE title that sent it, where it came by DICOM.
    """

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("study_id", "sha256"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    number: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(String(16))
    rows: Mapped[int] = mapped_column()
    columns: Mapped[int] = mapped_column()
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(default=now)


class Result(Base):
    """What a worker found: a read, an explanation, masks, similar cases. One for each image and question."""

    __tablename__ = "results"
    __table_args__ = (UniqueConstraint("image_id", "kind", "question"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    question: Mapped[str] = mapped_column(_HASH)
    reader: Mapped[str] = mapped_column(String(64))
    reader_sha256: Mapped[str] = mapped_column(_HASH)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(default=now)


class Picture(Base):
    """A picture that belongs to a result: ``film``, or ``heat:LABEL``, ``mask:ORGAN``."""

    __tablename__ = "pictures"

    result_id: Mapped[str] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))


class Job(Base):
    """One piece of work. ``key``: the result that it makes; asking again for it gives the same job.

    ``owner`` and ``lease_until`` say who is at it and until when that is believed; ``version`` grows with each
    change and is the event id of its progress stream.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_due", "state", "run_after", "id"), Index("ix_jobs_image", "image_id"))

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    key: Mapped[str] = mapped_column(String(160), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    question: Mapped[str] = mapped_column(_HASH)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempts: Mapped[int] = mapped_column(default=0)
    run_after: Mapped[float] = mapped_column(default=now)
    owner: Mapped[str | None] = mapped_column(String(96))
    lease_until: Mapped[float] = mapped_column(default=0.0)
    cancel: Mapped[bool] = mapped_column(default=False)
    code: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    result_id: Mapped[str | None] = mapped_column(_ID)
    version: Mapped[int] = mapped_column(default=1)
    created: Mapped[float] = mapped_column(default=now)
    started: Mapped[float | None] = mapped_column()
    finished: Mapped[float | None] = mapped_column()


class Workitem(Base):
    """A Unified Procedure Step (PS3.4 annex CC) that another system asked for: read one study.

    ``dataset`` is its DICOM JSON but for UIDs, state and ``lock``, the transaction UID that only its performer knows.
    ``ours``: this service is to perform it, or does; ``study_id`` and ``question`` then say which reads it waits for.
    ``gone``: deleted with its study; nothing but the UID is left. It is not begun before ``start``.
    """

    __tablename__ = "workitems"
    __table_args__ = (
        Index("ix_workitems_waiting", "state", "study_uid"),
        Index("ix_workitems_order", "created", "id"),
        Index("ix_workitems_study", "study_id"),
    )

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    tray: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    state: Mapped[str] = mapped_column(String(16), default="SCHEDULED")
    gone: Mapped[bool] = mapped_column(default=False)
    lock: Mapped[str | None] = mapped_column(String(64))
    ours: Mapped[bool] = mapped_column()
    study_uid: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    patient_name: Mapped[str] = mapped_column(String(400), default="")
    label: Mapped[str] = mapped_column(String(64))
    priority: Mapped[str] = mapped_column(String(16))
    readiness: Mapped[str] = mapped_column(String(16))
    start: Mapped[float] = mapped_column()
    reader: Mapped[str] = mapped_column(String(256), default="")
    operating_point: Mapped[str] = mapped_column(String(64), default="")
    study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id", ondelete="SET NULL"))
    question: Mapped[str | None] = mapped_column(_HASH)
    dataset: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(default=now)
    begun: Mapped[float | None] = mapped_column()


class ReportObject(Base):
    """A DICOM report of a result, named when a workitem told of it and made when it is first fetched.

    ``uid``: its SOP Instance UID. ``sha256``: the file, once it was made, so that it is the same for ever after.
    """

    __tablename__ = "report_objects"

    uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    result_id: Mapped[str] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))


class Feedback(Base):
    """What a person said to one finding of one read: accept, edit (``corrected`` holds the answer) or reject."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("result_id", "label", "user_id"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    result_id: Mapped[str] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    corrected: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[float] = mapped_column(default=now)


class Draft(Base):
    """One person's report of one study: the machine's phrases, the person's text, and whether it was signed."""

    __tablename__ = "drafts"
    __table_args__ = (UniqueConstraint("study_id", "user_id"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    phrases: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    facts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    text: Mapped[str] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(default=1)
    signed: Mapped[float | None] = mapped_column()
    created: Mapped[float] = mapped_column(default=now)
    changed: Mapped[float] = mapped_column(default=now)


class Annotation(Base):
    """A measurement or mark that a person drew on an image; ``data`` is in pixels of the original image."""

    __tablename__ = "annotations"

    id: Mapped[str] = mapped_column(_ID, primary_key=True, default=new_id)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(default=now)


class AuditEntry(Base):
    """One line of the audit log. ``hash`` is over the line and the hash of the line before it."""

    __tablename__ = "audit_log"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[float] = mapped_column()
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(48))
    object: Mapped[str] = mapped_column(String(96))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_id: Mapped[str] = mapped_column(String(32), default="")
    previous: Mapped[str] = mapped_column(_HASH)
    hash: Mapped[str] = mapped_column(_HASH, unique=True)
