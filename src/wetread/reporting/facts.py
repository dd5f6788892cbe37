"""The records that pages are drawn from: recorded facts and pictures, never a model.

Decided here: a gated image has no probability and no heat map, a picture is a PNG or a JPEG, and
a page links only to files beside it. A record that breaks one of these cannot be built.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from wetread.datasets.check_result import CountTable
from wetread.errors import WetreadError, expected
from wetread.reading.organs import OrganReading
from wetread.types import Estimate, LabelReading, OperatingPoint, Read, Record

__all__ = [
    "CalibrationFacts",
    "CasePicture",
    "DataFacts",
    "FailedFile",
    "FoldRow",
    "MetricRow",
    "NextStep",
    "OrganItem",
    "OrganReport",
    "OverlapReport",
    "ReadWithPictures",
    "ReaderSummary",
    "SegmenterSummary",
    "StudyReport",
    "TrainingReport",
    "Worklist",
    "WorklistEntry",
    "most_urgent",
    "picture_type",
]

_PICTURE_TYPES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))
_SHOWN_TYPES = "a PNG or JPEG picture"


def picture_type(data: bytes) -> str:
    """Return the media type of PNG or JPEG bytes; raise WetreadError for anything else."""
    for magic, media_type in _PICTURE_TYPES:
        if data.startswith(magic):
            return media_type
    raise WetreadError(expected(_SHOWN_TYPES, f"{len(data)} bytes of another kind", "encode the pixels first"))


class ReaderSummary(Record):
    """What a reader is for, in the words of its card.

    ``normal_labels`` are labels whose presence is no reason to hurry, such as ``normal`` of a
    multi-class reader; they never decide the order of a worklist.
    """

    name: str
    intended_use: str
    not_for: tuple[str, ...] = ()
    population: str
    limits: tuple[str, ...] = ()
    licence: str | None = None
    normal_labels: tuple[str, ...] = ()


class CasePicture(Record):
    """A small picture of one film: PNG or JPEG bytes, with the ``rows`` and ``columns`` of the original."""

    data: bytes
    rows: int
    columns: int

    @field_validator("data")
    @classmethod
    def _a_picture(cls, value: bytes) -> bytes:
        picture_type(value)
        return value


class ReadWithPictures(Record):
    """One read with its film and heat maps.

    ``film_png``: PNG or JPEG bytes of the whole image, any scale. ``heatmaps``: label -> RGBA PNG
    bytes of the same field of view, transparent where the reader did not look. ``cases``: a picture for
    each similar case, None where its file is not where it was.
    """

    read: Read
    film_png: bytes
    heatmaps: dict[str, bytes] = Field(default_factory=dict)
    cases: tuple[CasePicture | None, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for picture in (self.film_png, *self.heatmaps.values()):
            picture_type(picture)
        known = {label.label for label in self.read.labels}
        if unknown := sorted(set(self.heatmaps) - known):
            raise WetreadError(
                expected(
                    f"heat maps for the labels {sorted(known)}",
                    f"others: {unknown}",
                    "name each map after its label",
                )
            )
        shown = len(self.read.similar.cases) if self.read.similar else 0
        if len(self.cases) != shown:
            raise WetreadError(
                expected(f"a picture or None for each of {shown} similar cases", len(self.cases), "give one for each")
            )
        _refuse_gated_answers(self.read, self.heatmaps)
        return self


def _refuse_gated_answers(read: Read, heatmaps: dict[str, bytes] | None = None) -> None:
    """Raise WetreadError where a gated read has an answer; a page must not be able to show one."""
    if read.gate.passed:
        return
    answered = [x.label for x in read.labels if x.probability is not None or x.decision != "withheld"]
    given = f"answers for {answered}" if answered else "heat maps" if heatmaps else ""
    if read.measures or read.agreement is not None:
        given = given or "measures"
    if read.similar is not None:
        given = given or "similar cases"
    if given:
        raise WetreadError(
            expected(
                "no probability, decision, heat map, measure or similar case for a gated image",
                given,
                "read the image again or drop them",
            )
        )


class StudyReport(Record):
    """One study: the page that ``wetread read --out`` writes for it."""

    title: str
    study_uid: str | None
    reads: tuple[ReadWithPictures, ...] = Field(min_length=1)
    created: AwareDatetime
    reader: ReaderSummary
    wetread_version: str


class FailedFile(Record):
    """A file that could not be read at all, and why (the error's message)."""

    path: str
    reason: str


class WorklistEntry(Record):
    """One study of a batch: its page (a file beside the worklist) and its reads.

    ``thumbnail``: small PNG or JPEG of the first film, or None.
    """

    title: str
    href: str
    reads: tuple[Read, ...] = Field(min_length=1)
    thumbnail: bytes | None = None

    @field_validator("href")
    @classmethod
    def _local(cls, href: str) -> str:
        path = PurePosixPath(href)
        bad = path.is_absolute() or ".." in path.parts or ":" in href or "\\" in href or not href
        if bad:
            raise WetreadError(expected("a path beside the worklist", repr(href), "write the page into its folder"))
        return href

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.thumbnail is not None:
            picture_type(self.thumbnail)
        for read in self.reads:
            _refuse_gated_answers(read)
        return self


class Worklist(Record):
    """A batch of studies, in any order; the page sorts by urgency."""

    title: str
    created: AwareDatetime
    reader: ReaderSummary
    entries: tuple[WorklistEntry, ...]
    failures: tuple[FailedFile, ...] = ()
    wetread_version: str


def most_urgent(reads: tuple[Read, ...], normal_labels: tuple[str, ...] = ()) -> LabelReading | None:
    """Return the answer that decides how soon a study should be looked at, or None if all are withheld.

    Positive before negative before withheld, then by calibrated probability. Labels in
    ``normal_labels`` count only where a reader has no other.
    """
    answers = [x for read in reads for x in read.labels if x.probability is not None]
    findings = [x for x in answers if x.label not in normal_labels] or answers
    rank = {"positive": 2, "negative": 1, "withheld": 0}
    return max(findings, key=lambda x: (rank[x.decision], x.probability or 0.0), default=None)


class DataFacts(Record):
    """What a reader was trained on. ``counts`` as tables, e.g. images per class and split."""

    name: str
    task: str
    classes: tuple[str, ...]
    n_images: int
    n_patients: int | None
    counts: tuple[CountTable, ...] = ()
    split_method: str
    split_seed: int | None = None
    split_sha256: str | None = None
    manifest_sha256: str | None = None
    licence: str | None = None


class MetricRow(Record):
    """One metric of the validation split; ``label`` is None for an average over labels."""

    name: str
    label: str | None = None
    estimate: Estimate


class CalibrationFacts(Record):
    """Temperature scaling on the validation split, and the calibration error around it.

    ``temperature`` by label or under ``all``; above 1 softens the probabilities.
    """

    method: str
    temperature: dict[str, float]
    ece_before: Estimate | None = None
    ece_after: Estimate | None = None
    n: int


class FoldRow(Record):
    """One fold of a patient-grouped cross-validation."""

    fold: int
    n_train: int
    n_validation: int
    best_epoch: int | None = None
    metrics: dict[str, Estimate]


class NextStep(Record):
    """What a person would do next, and the command for it."""

    text: str
    command: str | None = None


class TrainingReport(Record):
    """One training run: the page that ``wetread train`` writes into its run folder.

    ``config``: resolved settings by dotted name. ``curves``: caption -> SVG text. ``provenance``:
    versions, hashes, seed, device.
    """

    title: str
    created: AwareDatetime
    run_folder: str
    reader: ReaderSummary
    outcome: str
    config: dict[str, str | int | float | bool | None]
    data: DataFacts
    curves: dict[str, str] = Field(default_factory=dict)
    metrics: tuple[MetricRow, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    calibration: CalibrationFacts | None = None
    folds: tuple[FoldRow, ...] = ()
    provenance: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    next_steps: tuple[NextStep, ...] = ()
    pictures: tuple[tuple[str, bytes], ...] = ()
    """(caption, PNG or JPEG) of the worst cases."""
    audit_verdict: str = "not audited"
    wetread_version: str


class SegmenterSummary(Record):
    """What a segmenter is, in the words of its card."""

    name: str
    version: str
    sha256: str
    organs: tuple[str, ...]
    population: str
    limits: tuple[str, ...] = ()
    audit_verdict: str = "not audited"


class OverlapReport(Record):
    """How a segmenter's masks lie on annotated ones: the page of ``wetread evaluate --task segment``.

    ``n_images`` were compared; ``n_without_mask`` more of the split have no annotated mask.
    """

    title: str
    created: AwareDatetime
    segmenter: SegmenterSummary
    dataset: str
    split: str
    n_images: int
    n_patients: int
    n_without_mask: int = 0
    n_flagged: int
    metrics: tuple[MetricRow, ...]
    pictures: tuple[tuple[str, bytes], ...] = ()
    wetread_version: str


class OrganItem(Record):
    """One image's organs with its film: PNG or JPEG bytes on which the masks are drawn."""

    reading: OrganReading
    picture: bytes

    @field_validator("picture")
    @classmethod
    def _a_picture(cls, value: bytes) -> bytes:
        picture_type(value)
        return value


class OrganReport(Record):
    """A batch of images segmented."""

    items: tuple[OrganItem, ...]
    failures: tuple[FailedFile, ...] = ()
    segmenter: SegmenterSummary
