"""The frozen records that the parts hand to each other.

A :class:`Image` holds pixels; everything else is a pydantic model that writes itself as JSON,
with the same schema for the command line, the Python API and the service.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Agreement",
    "Answer",
    "Box",
    "Decision",
    "Estimate",
    "Evidence",
    "GateResult",
    "Image",
    "ImageFacts",
    "LabelReading",
    "Measure",
    "ModelIdentity",
    "Neighbour",
    "OperatingPoint",
    "PredictionSet",
    "Read",
    "Record",
    "SimilarCases",
    "Span",
    "Step",
    "StudyRead",
    "Task",
    "ViewReading",
    "Vote",
]

Task = Literal["binary", "multiclass", "multilabel"]
Decision = Literal["positive", "negative", "withheld"]
Answer = Literal["positive", "negative"]


class Record(BaseModel):
    """Base of the records: frozen, and a key that nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Record):
    """One thing that was done to the pixels, e.g. ``voi window`` with its centre and width."""

    name: str
    detail: dict[str, Any] = Field(default_factory=dict)


class ImageFacts(Record):
    """What the file says about the image. Absent facts are None, never a default.

    ``spacing_mm`` is (row, column) from Pixel Spacing (0028,0030), else Imager Pixel Spacing
    (0018,1164). ``age_years`` comes from Patient's Age (0010,1010). ``colour`` is the share
    (0-1) of pixels that are visibly coloured.
    """

    name: str
    format: str
    sha256: str
    rows: int
    columns: int
    bits: int
    photometric_interpretation: str | None = None
    spacing_mm: tuple[float, float] | None = None
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    laterality: str | None = None
    patient: str | None = None
    sex: str | None = None
    age_years: float | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    transfer_syntax_uid: str | None = None
    manufacturer: str | None = None
    colour: float = 0.0
    burned_in_annotation: bool | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """One radiograph, ready to be looked at.

    ``pixels``: float32, shape (rows, columns), range [0, 1]; bright means dense (the
    MONOCHROME2 sense) and patient's orientation is as stored. ``applied`` lists, in order, what
    was done to the stored values.
    """

    pixels: NDArray[np.float32]
    facts: ImageFacts
    applied: tuple[Step, ...] = field(default=())


class Box(Record):
    """A rectangle in pixels of the original image: ``x``, ``y`` of the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    score: float | None = None


class Estimate(Record):
    """A number with its 95 % interval, the n behind it and how the interval was made.

    ``low`` and ``high`` are None where an interval would mislead; ``note`` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: str = ""
    note: str = ""


class Span(Record):
    """A width where it was measured: a horizontal line at height ``y`` from ``left`` to ``right``.

    In pixels of the original image, counted from its upper left corner; ``of`` names what is so wide.
    """

    of: str
    y: float
    left: float
    right: float


class Measure(Record):
    """One size of one organ.

    ``unit`` is in UCUM: ``cm2``, ``cm``, or ``1`` for a ratio. ``value`` None: not measured, and
    ``reason`` says why. ``spans``: the widths behind a ratio, numerator first.
    """

    name: str
    organ: str
    value: float | None
    unit: str
    reason: str = ""
    spans: tuple[Span, ...] = ()


class OperatingPoint(Record):
    """A threshold on the calibrated probability, the rule that chose it, and what it gave there.

    Sensitivity and specificity are those of the validation split on which it was chosen.
    """

    name: str
    label: str
    threshold: float
    rule: str
    sensitivity: Estimate
    specificity: Estimate


class GateResult(Record):
    """Whether the reader was built for this image; ``reasons`` are empty when it passed.

    ``distance`` is the outlier score of the image's features, ``limit`` the threshold that
    the validation split gave; both None for a reader without feature statistics.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    distance: float | None = None
    limit: float | None = None


class Evidence(Record):
    """Where the reader looked for one label.

    ``heatmap`` is a PNG path relative to the result folder, or None with ``status`` saying why.
    ``boxes`` are in pixels of the original image.
    """

    method: str
    target: str
    layer: str
    status: str = "made"
    heatmap: str | None = None
    boxes: tuple[Box, ...] = ()
    limits: tuple[str, ...] = ()


class LabelReading(Record):
    """The answer for one label: calibrated probability (0-1) and decision at the operating point."""

    label: str
    probability: float | None
    decision: Decision
    operating_point: OperatingPoint | None = None
    reason: str = ""
    evidence: Evidence | None = None


class Agreement(Record):
    """Whether a measure and the classifier say the same of one label.

    ``value`` of ``measure`` above ``limit`` (from ``source``) means positive. ``measure_says`` is None where the
    limit does not hold or nothing was measured, ``classifier_says`` where the answer was withheld; then ``agree``
    is None too and ``reason`` says why. ``sentence`` says all of it in plain words.
    """

    label: str
    measure: str
    value: float | None
    limit: float
    source: str
    measure_says: Answer | None
    classifier_says: Answer | None
    agree: bool | None
    reason: str = ""
    cautions: tuple[str, ...] = ()
    sentence: str


class ModelIdentity(Record):
    """Which reader answered: name, version, sha256 of its weights, and its audit verdict."""

    name: str
    version: str
    sha256: str
    audit_verdict: str = "not audited"


class PredictionSet(Record):
    """The answers that cannot be ruled out at an error rate of ``alpha`` (split conformal prediction).

    ``classes``: for independent labels ``L`` and ``no L`` stand for themselves, and ``undecided`` are the labels left
    open. ``abstains``: not exactly one answer is left, and ``reason`` says so in words. ``method`` says which quantiles
    were used and which labels have none. The rate holds for new patients like those of the calibration images,
    for each label by itself, and on average over images: never for one image.
    """

    classes: tuple[str, ...]
    alpha: float
    method: str
    abstains: bool
    reason: str = ""
    undecided: tuple[str, ...] = ()


class Neighbour(Record):
    """One case like the one asked about.

    ``path`` as in its manifest, ``file`` where it lay then; ``labels``: None unknown, empty: none of them.
    ``distance``: 1 - cosine, 0 for the same picture. ``facts``: what else its manifest says. ``place``: the most alike
    one of the grid of local embeddings, ``box`` the same in pixels of the original where its size is known.
    """

    rank: int
    path: str
    file: str
    distance: float
    labels: tuple[str, ...] | None
    patient: str | None
    study: str | None
    split: str | None
    images: int = 1
    facts: dict[str, str] = Field(default_factory=dict)
    place: int | None = None
    box: Box | None = None


class Vote(Record):
    """What the neighbours say of one label: ``positive`` of ``known`` have it; ``share`` (0-1) weighs them by likeness.

    ``share`` = (sum of w y + 1/2) / (sum of w + 1), w the cosine and not below 0: the rule of the kNN reader.
    """

    positive: int
    known: int
    share: float


class SimilarCases(Record):
    """Past cases of the index ``index`` that look like an image to the reader, nearest first.

    ``vote``: label -> what they say of it, and ``contradictions``: sentences where that contradicts the classifier.
    ``task`` and ``classes``: those of the index. ``left_out``: rows of the same patient that were not shown.
    """

    index: str
    task: Task
    classes: tuple[str, ...]
    cases: tuple[Neighbour, ...]
    vote: dict[str, Vote]
    contradictions: tuple[str, ...] = ()
    left_out: int = 0
    warnings: tuple[str, ...] = ()


class Read(Record):
    """One image read. ``labels`` carry no probability when the gate refused the image.

    ``measures``: sizes of the organs that a guided reader's segmenter found. ``agreement``: what the
    cardiothoracic ratio and the classifier say of cardiomegaly; None where a reader has not both. ``prediction_set``:
    the answers that remain possible; None where the card has no conformal quantiles or the gate refused. ``similar``:
    past cases like the image; None where no index was asked, the gate refused, or the index has no case of another
    patient, which is then a warning.
    """

    schema_version: Literal["1"] = "1"
    image: ImageFacts
    applied: tuple[Step, ...]
    gate: GateResult
    labels: tuple[LabelReading, ...]
    prediction_set: PredictionSet | None = None
    measures: tuple[Measure, ...] = ()
    agreement: Agreement | None = None
    similar: SimilarCases | None = None
    model: ModelIdentity
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()
    disclaimer: str = "Research use only. Not a diagnosis."

    def __str__(self) -> str:
        """A summary of a few lines for a person at a prompt; no patient data."""
        lines = [f"{self.image.name}: read by {self.model.name} {self.model.version} ({self.model.audit_verdict})"]
        if not self.gate.passed:
            lines += [f"  withheld: {reason}" for reason in self.gate.reasons]
        for label in self.labels if self.gate.passed else ():
            line = f"  {label.label}: {label.probability:.3f}, {label.decision}"
            if label.operating_point is not None:
                line += f" (from {label.operating_point.threshold:.3f}, {label.operating_point.name})"
            lines.append(line)
        if self.prediction_set is not None and self.prediction_set.abstains:
            lines.append(f"  abstains: {self.prediction_set.reason}")
        if self.agreement is not None:
            lines.append(f"  {self.agreement.sentence}")
        lines += [f"  note: {warning}" for warning in (*self.image.warnings, *self.warnings)]
        return "\n".join([*lines, f"  {self.disclaimer}"])


class ViewReading(Record):
    """What one image had to do with the answer for its study.

    ``weights``: label -> its share of the study's answer, 0-1, adding up to 1 over the images that counted; empty for
    an image that the gate left out. ``alone``: label -> calibrated probability of a study of this image only.
    ``evidence``: label -> where the reader looked; only for the images of highest weight.
    """

    image: ImageFacts
    applied: tuple[Step, ...]
    gate: GateResult
    weights: dict[str, float] = Field(default_factory=dict)
    alone: dict[str, float] = Field(default_factory=dict)
    evidence: dict[str, Evidence] = Field(default_factory=dict)


class StudyRead(Record):
    """One study read as a whole. ``labels`` carry no probability where no image was left to judge.

    ``drove``: label -> the image with the highest weight. ``failures``: file -> why it could not be read. ``similar``:
    past studies like this one, as in :class:`Read`.
    """

    schema_version: Literal["1"] = "1"
    study: str
    study_uid: str | None = None
    pooling: str
    labels: tuple[LabelReading, ...]
    drove: dict[str, str] = Field(default_factory=dict)
    views: tuple[ViewReading, ...]
    failures: dict[str, str] = Field(default_factory=dict)
    prediction_set: PredictionSet | None = None
    similar: SimilarCases | None = None
    model: ModelIdentity
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()
    disclaimer: str = "Research use only. Not a diagnosis."

    @property
    def answered(self) -> bool:
        """Whether at least one image passed the gate."""
        return any(view.gate.passed for view in self.views)
