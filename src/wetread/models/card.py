"""The card of a reader: everything but the weights, as one JSON document with one schema.

Reading a card imports no torch, so listing readers is instant.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from wetread.errors import BundleRefused, expected
from wetread.types import Estimate, ModelIdentity, OperatingPoint, Record, Task

__all__ = [
    "BundleCard",
    "Card",
    "ConformalSpec",
    "DataCard",
    "ForeignSpec",
    "GateSpec",
    "GuideSpec",
    "HeadSpec",
    "HeatMapStatus",
    "InputSpec",
    "LookSpec",
    "MetricRow",
    "ReaderCard",
    "ReferenceCheck",
    "SegmenterCard",
    "StudySpec",
    "parse_any_card",
    "parse_card",
]


class InputSpec(Record):
    """How pixels become the network's input.

    ``fit``: ``stretch`` to (height, width), ``pad`` to keep the aspect ratio on black, or
    ``crop`` the centre. ``standardise``: ``zscore`` gives each image mean 0 and standard
    deviation 1; ``fixed`` subtracts ``mean`` and divides by ``std`` (units of [0, 1] pixels).
    """

    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    fit: Literal["stretch", "pad", "crop"] = "pad"
    channels: int = Field(default=3, ge=1, le=3)
    standardise: Literal["fixed", "zscore"] = "zscore"
    mean: float = 0.5
    std: float = 0.25


class HeadSpec(Record):
    """The part after the encoder: ``linear``, ``mlp`` (one hidden layer) or ``knn`` (stored cases).

    ``none``: a network made elsewhere, which has its own.

    ``pooling``: feature maps are averaged over all places alike, or weighted by learned ``attention``.
    """

    kind: Literal["linear", "mlp", "knn", "none"] = "linear"
    pooling: Literal["mean", "attention"] = "mean"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    hidden: int = Field(default=256, ge=1)
    neighbours: int = Field(default=15, ge=1)
    references: int = Field(default=0, ge=0)


class LookSpec(Record):
    """What the films learned from look like on the whole, so that a negative is known for one.

    ``layout``: mean grey of 16 x 16 tiles less that of the film, row by row, 256 signed bytes in hexadecimal digits.
    ``least``: cosine (-1 to 0) that a film's own layout must reach with it.
    """

    layout: str = Field(pattern=r"^[0-9a-f]{512}$")
    least: float = Field(ge=-1, le=0)


class GateSpec(Record):
    """Which images the reader was built for.

    ``limit`` is the ``quantile`` of the feature distances of ``n`` validation images;
    ``components`` is the number of principal directions kept. Empty ``modalities`` or
    ``body_parts`` accept any. ``look``: None where nobody recorded it.
    """

    limit: float
    quantile: float
    n: int
    components: int
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    look: LookSpec | None = None


class GuideSpec(Record):
    """How a reader was led to one organ, widened by ``margin`` of the shorter side.

    ``mask``: the image outside it is filled with the ``mean`` grey of the organ, or ``black``. ``crop``: only the box
    around it is shown. Both need the organ of every image that is read: ``segmenter`` is found by name and must have
    ``sha256``. ``attention`` and ``background`` only trained with it, and are shown whole images.
    """

    kind: Literal["crop", "mask", "attention", "background"] = "mask"
    organ: str
    segmenter: str
    sha256: str
    margin: float = Field(default=0.03, ge=0, le=0.5)
    fill: Literal["mean", "black"] = "mean"

    @property
    def when_reading(self) -> bool:
        """Whether the organ has to be found in each image that is read."""
        return self.kind in ("crop", "mask")


class ConformalSpec(Record):
    """From which probability on a class cannot be ruled out at an error rate of ``alpha``.

    Keys are classes, or ``L`` and ``no L`` for each label L of a multi-label reader. ``n``: calibration cases.
    ``conditional`` and ``marginal``: quantile of 1 - p over the cases of that class, or over those of all classes of
    the same question; None with too few cases, and ``notes`` say so. ``rule``: which of the ordered scores is the
    quantile. ``cases``: which images were counted.
    """

    alpha: float = Field(gt=0, lt=1)
    rule: str
    cases: str
    n: dict[str, int]
    conditional: dict[str, float | None]
    marginal: dict[str, float | None]
    notes: tuple[str, ...] = ()


Count = int | Literal["unknown"]


class DataCard(Record):
    """What the reader learned from; ``unknown`` where a reader made elsewhere does not say."""

    name: str
    licence: str = "unknown"
    population: str = "unknown"
    images: Count
    patients: Count
    sha256: str


class MetricRow(Record):
    """One figure with its protocol: which split, what n, at which operating point."""

    name: str
    split: str
    estimate: Estimate
    operating_point: str | None = None


class ReferenceCheck(Record):
    """How closely a reader made elsewhere reproduced the outputs that its first framework had given.

    ``compared``: what the tolerance is on, logits or probabilities; ``resampled``: whether an image had another
    size than the input, so that two resampling filters are part of the difference.
    """

    images: int = Field(ge=1)
    compared: Literal["logits", "probabilities"]
    largest_difference: float = Field(ge=0)
    tolerance: float
    resampled: bool


class ForeignSpec(Record):
    """What was imported, and how its outputs become logits.

    ``kind``: an ``onnx`` graph, or a ``checkpoint`` of a timm network; ``file`` and ``sha256`` are those of the source.
    ``outputs`` of the network, of which ``columns`` are the labels in order; two columns of a binary task are the
    negative and the positive class. ``mean`` and ``std``: one for each channel, applied after ``input``; empty where
    that says all. ``layout`` of a graph's input. ``features``: the inner output of a graph that is the embedding.
    ``whole``: a checkpoint that keeps its own classifier. ``thresholds``: it answers with probabilities that were
    moved so that its operating thresholds lie at 0.5 (torchxrayvision). ``reference``: None if none was given.
    """

    kind: Literal["onnx", "checkpoint"]
    file: str
    sha256: str
    gives: Literal["logits", "probabilities"]
    outputs: int = Field(ge=1)
    columns: tuple[int, ...] = Field(min_length=1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    features: str | None = None
    whole: bool = False
    thresholds: bool = False
    reference: ReferenceCheck | None = None


class BundleCard(Record):
    """What every bundle says of itself; ``weights`` maps each of its files to its sha256."""

    schema_version: Literal["1"] = "1"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: str
    created: str
    architecture: str
    input: InputSpec
    networks: int = Field(default=1, ge=1)
    weights: dict[str, str]
    data: DataCard
    metrics: tuple[MetricRow, ...] = ()
    intended_use: str = "Research use only. Not a diagnosis."
    limits: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    audit_verdict: str = "not audited"
    training: dict[str, Any] = Field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The hash of the first network's weights: the identity that reads quote."""
        return self.weights.get("model.onnx") or self.weights["model.safetensors"]

    @property
    def watermark(self) -> str:
        """What every picture of a reader whose audit failed carries; empty for others."""
        return "AUDIT FAILED: DO NOT TRUST" if self.audit_verdict.upper().startswith("FAIL") else ""

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, hash and verdict, as they appear in each read."""
        return ModelIdentity(name=self.name, version=self.version, sha256=self.sha256, audit_verdict=self.audit_verdict)


class StudySpec(Record):
    """How a reader of studies makes one answer of all their images.

    ``level``: one study is a study or a patient. ``pooling``: what the answers of the images become. ``hidden``: width
    of the layer between embedding and answer, 0 for none; ``attention``: width of the attention; ``sharpness`` of
    log-sum-exp. ``positions``: views with a layer of their own, empty where all share one. ``label_policy``: the label
    of a study whose images differ. ``one_encoder``: the networks have the same, frozen encoder.
    """

    level: Literal["study", "patient"] = "study"
    pooling: Literal["max", "mean", "log-sum-exp", "noisy-or", "attention", "gated-attention"] = "attention"
    hidden: int = Field(default=128, ge=0)
    attention: int = Field(default=64, ge=1)
    sharpness: float = Field(default=4.0, gt=0)
    positions: tuple[str, ...] = ()
    label_policy: Literal["refuse", "any", "majority"] = "refuse"
    one_encoder: bool = True


HeatMapStatus = Literal["passes", "fails", "not assessable"]
"""Whether the maps of a method change when the weights are randomised (Adebayo et al. 2018, Arun et al. 2021)."""


class ReaderCard(BundleCard):
    """All that is known of a reader.

    ``views``: zooms of each image whose logits are averaged; temperature and operating points were chosen with them.
    ``foreign``: where it was made elsewhere and imported. ``heat_maps``: method -> whether its maps depend on the
    weights of this reader, as the audit found; a method that fails is hidden in reads and reports. ``study``: where it
    reads whole studies; temperature, operating points and figures are then those of studies, not of images.
    """

    kind: Literal["reader"] = "reader"
    task: Task
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    head: HeadSpec
    views: int = Field(default=1, ge=1, le=5)
    temperature: float = Field(default=1.0, gt=0)
    operating_points: tuple[OperatingPoint, ...] = ()
    default_operating_point: str = "youden"
    conformal: ConformalSpec | None = None
    heat_maps: dict[str, HeatMapStatus] = Field(default_factory=dict)
    gate: GateSpec | None = None
    guide: GuideSpec | None = None
    foreign: ForeignSpec | None = None
    study: StudySpec | None = None

    def operating_point(self, label: str, name: str | None = None) -> OperatingPoint | None:
        """Return the named (or default) operating point of ``label``; None where none was chosen."""
        wanted = name or self.default_operating_point
        found = [p for p in self.operating_points if p.label == label and p.name == wanted]
        return found[0] if found else None


class SegmenterCard(BundleCard):
    """All that is known of a segmenter.

    ``architecture`` is unet, residual-unet or attention-unet; ``encoder`` the timm network of a unet. ``organs``
    are its outputs in order; ``exclusive`` ones never overlap. ``decoder``: channels of the decoder, coarse to fine.
    """

    kind: Literal["segmenter"]
    organs: tuple[str, ...] = Field(min_length=1)
    encoder: str | None = None
    decoder: tuple[int, ...] = ()
    exclusive: bool = False


Card = ReaderCard | SegmenterCard


def parse_card(text: str, where: str) -> ReaderCard:
    """Read the card of a reader from JSON text.

    Raises:
        BundleRefused: the text is not a card of this schema (names the first wrong field), or that of a segmenter.
    """
    card = parse_any_card(text, where)
    if not isinstance(card, ReaderCard):
        raise BundleRefused(expected(f"a reader in {where}", f"the {card.kind} {card.name}", "use `wetread segment`"))
    return card


def parse_any_card(text: str, where: str) -> Card:
    """Read a card of any kind from JSON text; without a ``kind`` it is a reader's.

    Raises:
        BundleRefused: the text is not a card of this schema; names the first wrong field.
    """
    try:
        kind = json.loads(text).get("kind", "reader")
    except (ValueError, AttributeError):
        kind = "reader"  # whose validation says what is wrong
    try:
        return (SegmenterCard if kind == "segmenter" else ReaderCard).model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BundleRefused(
            expected(f"a reader card in {where}", f"{field}: {first['msg']}", "export the reader again")
        ) from error
