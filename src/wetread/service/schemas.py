"""What goes over the wire: the bodies of requests and answers, from which the OpenAPI document and clients are made.

Times are seconds since 1970 in UTC. A field that nobody declared is an error, so that a typing mistake of a client
is found at once.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AnnotationBody",
    "AnnotationOut",
    "AnswerOut",
    "Ask",
    "AuditLine",
    "AuditPage",
    "DraftBody",
    "DraftOut",
    "ErrorOut",
    "ExplainBody",
    "FactOut",
    "FeedbackBody",
    "FeedbackEntry",
    "FeedbackOut",
    "ImageOut",
    "JobLine",
    "JobOut",
    "JobPage",
    "LogIn",
    "LogInWays",
    "OneTime",
    "OneTimeMade",
    "PhraseOut",
    "ReadBody",
    "ReaderOut",
    "RefusalOut",
    "ResultOut",
    "SegmentBody",
    "SessionOut",
    "SimilarBody",
    "StudyDetail",
    "StudyOut",
    "StudyPage",
    "TokenBody",
    "TokenMade",
    "TokenOut",
    "UploadOut",
    "UploadedStudy",
    "UserBody",
    "UserChange",
    "UserOut",
    "WorklistQuery",
]

Role = Literal["reader", "annotator", "admin"]
Scope = Literal["read", "write", "admin"]
Name = Field(min_length=1, max_length=64)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class ErrorDetail(_Body):
    """``code`` is for programs, ``message`` and ``hint`` for people, ``request_id`` for the administrator."""

    code: str
    message: str
    hint: str
    request_id: str


class ErrorOut(_Body):
    """The one shape of every error."""

    error: ErrorDetail


class LogIn(_Body):
    """Name and password."""

    name: str = Name
    password: str = Field(min_length=1, max_length=1024)


class OneTime(_Body):
    """A secret that logs in once."""

    token: str = Field(min_length=1, max_length=256)


class SessionOut(_Body):
    """Who is logged in. ``csrf``: to be sent as X-CSRF-Token; None for a token."""

    name: str
    role: Role
    trays: list[str]
    csrf: str | None = None


class LogInWays(_Body):
    """How people log in here beside name and password. ``openid``: host of the provider, None for none."""

    openid: str | None


class OneTimeMade(_Body):
    """A secret that logs a user in once. ``address``: path of this service with it; ``expires``: until when."""

    address: str
    expires: float


class UserBody(_Body):
    """A new user."""

    name: str = Name
    role: Role
    password: str | None = Field(default=None, max_length=1024)
    trays: list[str] = ["*"]


class UserChange(_Body):
    """Changes of a user; what is left out stays."""

    role: Role | None = None
    password: str | None = Field(default=None, max_length=1024)
    trays: list[str] | None = None
    disabled: bool | None = None


class UserOut(_Body):
    """A user. ``locked_until``: no log-in before; ``openid``: known through the provider of OpenID Connect."""

    id: str
    name: str
    role: Role
    trays: list[str]
    disabled: bool
    openid: bool
    locked_until: float
    created: float


class TokenBody(_Body):
    """A new token for programs."""

    name: str = Name
    scopes: list[Scope] = Field(min_length=1)
    days: float = Field(default=30, gt=0, le=366)


class TokenOut(_Body):
    """A token, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created: float
    expires: float
    revoked: bool


class TokenMade(TokenOut):
    """A token with its secret, which is shown this once."""

    secret: str


class UploadedStudy(_Body):
    """A study of an upload."""

    id: str
    added: int
    known: int


class RefusalOut(_Body):
    """A file of an upload that was left out, counted from 1."""

    number: int
    message: str
    hint: str


class UploadOut(_Body):
    """What became of an upload."""

    studies: list[UploadedStudy]
    jobs: list[str]
    refused: list[RefusalOut]


class StudyOut(_Body):
    """One line of the worklist."""

    id: str
    tray: str
    patient_id: str | None
    patient_name: str | None
    patient_sex: str | None
    patient_age: float | None
    title: str | None
    study_date: str | None
    modality: str | None
    body_part: str | None
    images: int
    status: str
    finding: str | None
    decision: str | None
    urgency: float
    created: float
    changed: float


class WorklistQuery(_Body):
    """What the worklist shows. ``q``: words that all must occur; ``cursor``: ``next`` of the page before.

    ``days``: studies of at most that age, by the date of the study, where it has none by when it came in; 0 for all.
    """

    q: str = Field(default="", max_length=200)
    status: Literal["", "open", "read", "failed"] = ""
    modality: str = Field(default="", max_length=16)
    body_part: str = Field(default="", max_length=64)
    decision: Literal["", "positive", "negative", "withheld"] = ""
    tray: str = Field(default="", max_length=64)
    days: int = Field(default=0, ge=0, le=36500)
    order: Literal["urgency", "newest"] = "urgency"
    cursor: str = Field(default="", max_length=400)
    limit: int = Field(default=50, ge=1, le=200)


class StudyPage(_Body):
    """A page of the worklist. ``next``: cursor of the next page, None at the end; ``total``: of all pages."""

    studies: list[StudyOut]
    next: str | None
    total: int


class JobOut(_Body):
    """A job. ``result_id`` when it is done; ``code`` and ``message`` when it failed."""

    id: str
    kind: str
    image_id: str
    parameters: dict[str, Any]
    state: str
    attempts: int
    code: str | None
    message: str | None
    result_id: str | None
    version: int
    created: float
    started: float | None
    finished: float | None


class JobLine(JobOut):
    """A job with the study it is about, the number of the image there, and who asked for it."""

    study_id: str
    image_number: int
    by: str


class JobPage(_Body):
    """Jobs, newest first. ``counts``: how many there are of each state."""

    jobs: list[JobLine]
    counts: dict[str, int]


class ResultOut(_Body):
    """What a worker found. ``pictures``: names to fetch below this result."""

    id: str
    image_id: str
    kind: str
    reader: str
    reader_sha256: str
    parameters: dict[str, Any]
    record: dict[str, Any]
    pictures: list[str]
    created: float


class ImageOut(_Body):
    """One image of a study. ``frames``: how many the file holds; results are those of single frames.

    ``frame_of``: the image whose frame ``frame`` this one is, counted from 1; None for an image that is a file.
    """

    id: str
    number: int
    kind: str
    rows: int
    columns: int
    frames: int = 1
    frame: int = 1
    frame_of: str | None = None
    facts: dict[str, Any]
    results: list[ResultOut] = []


class StudyDetail(StudyOut):
    """A study with its images, their results and the jobs that are not done."""

    study_uid: str | None
    image_list: list[ImageOut]
    jobs: list[JobOut]


class ReadBody(_Body):
    """Read by which reader, at which operating point; the usual ones where left out."""

    reader: str = Field(default="", max_length=256)
    operating_point: str | None = Field(default=None, max_length=64)


class ExplainBody(_Body):
    """Which label, by which method."""

    reader: str = Field(default="", max_length=256)
    label: str = Field(max_length=64)
    method: str = Field(default="gradcam", max_length=32)


class SegmentBody(_Body):
    """By which segmenter."""

    segmenter: str = Field(default="", max_length=256)


class SimilarBody(_Body):
    """How many cases; the reader is the one that made the index."""

    reader: str = Field(default="", max_length=256)
    k: int = Field(default=6, ge=1, le=50)


class AnnotationBody(_Body):
    """A measurement or mark. ``points``: pixels (column, row) of the original image; ``frame``: on which of several."""

    kind: Literal["length", "angle", "box", "arrow", "text"]
    frame: int = Field(default=1, ge=1, le=4096)
    points: list[tuple[float, float]] = Field(min_length=1, max_length=64)
    text: str = Field(default="", max_length=500)


class AnnotationOut(_Body):
    """A stored measurement. ``value`` with its ``unit``, computed from the spacing that the file states."""

    id: str
    image_id: str
    kind: str
    frame: int = 1
    points: list[tuple[float, float]]
    text: str
    value: float | None
    unit: str
    mine: bool
    created: float


class FeedbackBody(_Body):
    """What a person says to one finding. ``corrected``: the right answer, for ``edit``."""

    action: Literal["accept", "edit", "reject"]
    corrected: Literal["positive", "negative"] | None = None
    reason: str = Field(default="", max_length=2000)


class FeedbackOut(_Body):
    """Stored feedback."""

    id: str
    result_id: str
    label: str
    action: str
    corrected: str | None
    reason: str
    by: str
    created: float


class FeedbackEntry(FeedbackOut):
    """Feedback beside what the reader had decided: the material for agreement over time."""

    study_id: str
    reader: str
    decision: Literal["positive", "negative", "withheld"]
    probability: float | None


class FactOut(_Body):
    """One recorded fact, de-identified; phrases and answers cite its ``id``."""

    id: str
    kind: str
    image: str
    label: str = ""
    value: float | None = None
    unit: str = ""
    text: str


class PhraseOut(_Body):
    """One phrase and the facts that it is made of."""

    text: str
    facts: list[str]


class DraftBody(_Body):
    """The person's text. ``revision``: that of the draft which was edited."""

    text: str = Field(max_length=20000)
    revision: int


class DraftOut(_Body):
    """One person's report. ``phrases`` are the machine's, ``text`` the person's; ``signed``: when, None if open."""

    id: str
    study_id: str
    facts: list[FactOut]
    phrases: list[PhraseOut]
    text: str
    revision: int
    signed: float | None
    disclaimer: str = "Machine draft for research use. Not a diagnosis."


class Ask(_Body):
    """A question about the open study, in plain words."""

    question: str = Field(min_length=1, max_length=500)


class AnswerOut(_Body):
    """An answer made of facts alone. ``actions``: what the page may do next, e.g. show a heat map or ask for one.

    ``worded_by``: the language model that put the words together, checked against the facts; empty for none.
    """

    intent: str
    text: str
    phrases: list[PhraseOut]
    facts: list[FactOut]
    actions: list[dict[str, str]]
    worded_by: str = ""
    machine: bool = True


class ReaderOut(_Body):
    """A reader or segmenter with its card and, on its own page, its last audit."""

    name: str
    kind: Literal["reader", "segmenter"]
    sha256: str
    audit_verdict: str
    watermark: str
    card: dict[str, Any]
    audit: dict[str, Any] | None = None


class AuditLine(_Body):
    """A line of the audit log."""

    seq: int
    at: float
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    request_id: str
    hash: str


class AuditPage(_Body):
    """Lines of the audit log, newest first."""

    lines: list[AuditLine]
    next: int | None
