"""The small card that comes with a reader made elsewhere, and its reference pairs: what the person who imports states.

Decided here: nothing that a number depends on has a default, and what is not stated of the data is ``unknown``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from wetread.errors import BundleRefused, expected
from wetread.imaging import load_image
from wetread.models.card import DataCard, InputSpec
from wetread.types import Image, ImageFacts, Record, Task

__all__ = [
    "DEFAULT_TOLERANCE",
    "MAX_TOLERANCE",
    "ForeignCard",
    "ForeignData",
    "ForeignInput",
    "ForeignOutput",
    "Pair",
    "PairSpec",
    "Pairs",
    "read_foreign_card",
    "read_pairs",
]

DEFAULT_TOLERANCE = 1e-4
"""Rounding of float32 differs between frameworks by about 1e-5 of a logit; a wrong mean or filter by far more."""

MAX_TOLERANCE = 0.05
"""Logits; it moves a probability of 0.5 by 0.0125. A larger difference is another reader."""

Scalars = float | tuple[float, ...]
Numbers = NDArray[np.float64]
AnyRecord = TypeVar("AnyRecord", bound=Record)


class ForeignInput(Record):
    """How pixels in [0, 1] become the network's input; see :class:`~wetread.models.card.InputSpec`.

    ``normalisation``: ``fixed`` subtracts ``mean`` and divides by ``std``, one number or one for each channel;
    ``range`` maps black and white to the two numbers of ``range``; ``zscore`` standardises each image.
    """

    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    fit: Literal["stretch", "pad", "crop"]
    channels: int = Field(ge=1, le=3)
    normalisation: Literal["fixed", "range", "zscore"]
    mean: Scalars | None = None
    std: Scalars | None = None
    range: tuple[float, float] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ForeignInput:
        wanted = {"fixed": {"mean", "std"}, "range": {"range"}, "zscore": set[str]()}[self.normalisation]
        given = {name for name in ("mean", "std", "range") if getattr(self, name) is not None}
        if given != wanted:
            names = " and ".join(sorted(wanted)) or "neither mean, std nor range"
            raise ValueError(f"normalisation '{self.normalisation}' takes {names}")
        if self.range is not None and self.range[0] == self.range[1]:
            raise ValueError("range needs two different numbers")
        for name in ("mean", "std"):
            many = getattr(self, name)
            if isinstance(many, tuple) and len(many) != self.channels:
                raise ValueError(f"{name} has {len(many)} numbers for {self.channels} channels")
        if 0 in self.per_channel[1]:
            raise ValueError("std must not be 0")
        return self

    @property
    def per_channel(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel; (0, …), (1, …) unless ``fixed``."""
        return self._for_each(self.mean, 0.0), self._for_each(self.std, 1.0)

    def _for_each(self, value: Scalars | None, absent: float) -> tuple[float, ...]:
        value = absent if value is None else value
        return value if isinstance(value, tuple) else (value,) * self.channels

    @property
    def channels_differ(self) -> bool:
        """Whether the channels are standardised apart."""
        return any(len(set(numbers)) > 1 for numbers in self.per_channel)

    @property
    def spec(self) -> InputSpec:
        """The input of the reader's card. Channels that differ are standardised by the network."""
        mean, std = 0.0, 1.0
        if self.range is not None:  # low + x (high - low) = (x - mean) / std
            low, high = self.range
            mean, std = -low / (high - low), 1 / (high - low)
        elif not self.channels_differ:
            mean, std = self.per_channel[0][0], self.per_channel[1][0]
        standardise: Literal["fixed", "zscore"] = "zscore" if self.normalisation == "zscore" else "fixed"
        size = {"height": self.height, "width": self.width, "fit": self.fit, "channels": self.channels}
        return InputSpec.model_validate({**size, "standardise": standardise, "mean": mean, "std": std})


class ForeignOutput(Record):
    """What the network gives.

    ``gives``: ``logits``, or ``probabilities`` after its own sigmoid or softmax. ``columns``: which outputs are the
    labels, in order; None: all. ``name``: the output of an ONNX graph that has several; ``features``: the inner one
    that is the embedding.
    """

    gives: Literal["logits", "probabilities"]
    columns: tuple[int, ...] | None = Field(default=None, min_length=1)
    name: str | None = None
    features: str | None = None


class ForeignData(Record):
    """What is known of the data that the reader learned from."""

    name: str = "unknown"
    licence: str = "unknown"
    population: str = "unknown"
    images: int | None = None
    patients: int | None = None

    @property
    def card(self) -> DataCard:
        """The data of the reader's card."""
        images, patients = (one if one is not None else "unknown" for one in (self.images, self.patients))
        return DataCard.model_validate(
            self.model_dump() | {"images": images, "patients": patients, "sha256": "unknown"}
        )


class PairSpec(Record):
    """One image, a path beside the card, and what the original framework gave for it.

    ``outputs``: all outputs as the network gives them; ``probabilities``: one for each label, after the activation.
    """

    image: str
    outputs: tuple[float, ...] | None = None
    probabilities: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> PairSpec:
        if self.outputs is None and self.probabilities is None:
            raise ValueError("give outputs, probabilities or both")
        return self


class ForeignCard(Record):
    """The small card. ``classes`` as a data set has them, binary: the negative one first; ``labels`` follow from them.

    ``architecture``: the timm name of a checkpoint; ``prefix``: what precedes the names of its tensors.
    """

    name: str
    version: str = "unknown"
    task: Task
    classes: tuple[str, ...] = Field(min_length=1)
    labels: tuple[str, ...] = ()
    architecture: str | None = None
    prefix: str = ""
    licence: str = "unknown"
    intended_use: str = "Research use only. Not a diagnosis."
    limits: tuple[str, ...] = ()
    input: ForeignInput
    output: ForeignOutput
    data: ForeignData = Field(default_factory=ForeignData)
    reference: tuple[PairSpec, ...] = ()
    tolerance: float = Field(default=DEFAULT_TOLERANCE, gt=0, le=MAX_TOLERANCE)

    @model_validator(mode="after")
    def _consistent(self) -> ForeignCard:
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("classes need names, each once")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError("a binary task has two classes, the negative one first")
        if self.task == "multiclass" and len(self.classes) < 2:
            raise ValueError("a multiclass task has at least two classes")
        if self.labels and self.labels != self.outputs:
            raise ValueError(f"labels of a {self.task} task with these classes are {', '.join(self.outputs)}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the reader's outputs: of a binary task the positive class alone."""
        return self.classes[1:] if self.task == "binary" else self.classes

    def columns_of(self, outputs: int) -> tuple[int, ...]:
        """Return which of the network's ``outputs`` are the labels; two for a binary task with two exclusive outputs.

        Raises:
            BundleRefused: their number is not that of the labels.
        """
        labels = len(self.outputs)
        columns = tuple(range(outputs)) if self.output.columns is None else self.output.columns
        fits = len(columns) == labels or (self.task == "binary" and len(columns) == 2)
        if not fits:
            got = f"{len(columns)} {'columns' if self.output.columns else 'outputs'}"
            wanted = f"{labels} output{'s' if labels > 1 else ''} for {', '.join(self.outputs)}"
            raise BundleRefused(expected(wanted, got, "correct classes in the card, or name columns in [output]"))
        if not all(0 <= column < outputs for column in columns) or len(set(columns)) != len(columns):
            raise BundleRefused(
                expected(f"columns from 0 to {outputs - 1}, each once", list(columns), "correct columns in the card")
            )
        if self.task == "multiclass" and len(columns) != outputs:
            raise BundleRefused(
                expected(f"all {outputs} outputs of exclusive classes", f"{len(columns)}", "name a class for each")
            )
        return columns


class _PairFile(Record):
    reference: tuple[PairSpec, ...] = Field(min_length=1)


_TABLES: dict[str, type[Record]] = {
    "input": ForeignInput,
    "output": ForeignOutput,
    "data": ForeignData,
    "reference": PairSpec,
}
"""Tables of the card and their keys, to suggest the nearest."""


@dataclass(frozen=True)
class Pair:
    """One image with what the original gave: ``outputs`` (all) and ``probabilities`` (labels), None where not known."""

    image: Image
    outputs: Numbers | None
    probabilities: Numbers | None


Pairs = tuple[Pair, ...]


def read_foreign_card(file: Path) -> ForeignCard:
    """Read the small card, TOML or JSON.

    Raises:
        BundleRefused: unreadable, an unknown key (the nearest is suggested), or a value that is not allowed.
    """
    return _record(ForeignCard, _document(file), file)


def read_pairs(card: ForeignCard, card_file: Path, reference: Path | None = None) -> Pairs:
    """Return the reference pairs of the card, or those of the file ``reference`` in their place.

    Such a file is TOML or JSON with the table ``reference``, or .npz or .safetensors with ``images`` (N, H, W), uint8,
    uint16 or floats in [0, 1], and ``outputs`` (N, outputs), ``probabilities`` (N, labels) or both.

    Raises:
        BundleRefused: unreadable, or numbers that do not belong together.
        ImageRefused: an image cannot be read.
    """
    if reference is None:
        return tuple(_pairs(card.reference, card_file.parent))
    if reference.suffix in (".npz", ".safetensors"):
        return tuple(_array_pairs(_arrays(reference), reference.name))
    found = _record(_PairFile, _document(reference), reference)
    return tuple(_pairs(found.reference, reference.parent))


def _pairs(specs: tuple[PairSpec, ...], folder: Path) -> Iterator[Pair]:
    for spec in specs:
        image = load_image(folder / spec.image)
        yield Pair(image, _numbers(spec.outputs), _numbers(spec.probabilities))


def _numbers(values: tuple[float, ...] | None) -> Numbers | None:
    return None if values is None else np.array(values, dtype=np.float64)


def _arrays(file: Path) -> Mapping[str, NDArray[Any]]:
    from safetensors.numpy import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # damaged archives fail in many ways
        cure = "save it again, without objects"
        raise BundleRefused(expected(f"arrays in {file.name}", type(error).__name__, cure)) from error


def _array_pairs(arrays: Mapping[str, NDArray[Any]], name: str) -> Iterator[Pair]:
    known = {"images", "outputs", "probabilities"}
    if "images" not in arrays or len(arrays) < 2 or not set(arrays) <= known:
        raise BundleRefused(
            expected(f"images with outputs or probabilities in {name}", ", ".join(sorted(arrays)), "rename the arrays")
        )
    images = arrays["images"] if arrays["images"].ndim == 3 else arrays["images"][None]
    others = {key: np.atleast_2d(arrays[key]) for key in known - {"images"} if key in arrays}
    if images.ndim != 3 or not len(images) or any(value.shape[:1] != images.shape[:1] for value in others.values()):
        shapes = ", ".join(f"{key} {arrays[key].shape}" for key in sorted(arrays))
        raise BundleRefused(expected("images (N, rows, columns) and a row for each", shapes, f"correct {name}"))
    for index, pixels in enumerate(images):
        rows = {key: value[index].astype(np.float64) for key, value in others.items()}
        yield Pair(_image(pixels, f"{name}[{index}]"), rows.get("outputs"), rows.get("probabilities"))


def _image(pixels: NDArray[Any], name: str) -> Image:
    whole = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
    values = (pixels / whole).astype(np.float32)
    if not (np.issubdtype(pixels.dtype, np.floating) or whole > 1) or not (values.min() >= 0 and values.max() <= 1):
        raise BundleRefused(
            expected("pixels as uint8, uint16 or floats in [0, 1]", pixels.dtype.name, f"scale the images of {name}")
        )
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    rows, columns = values.shape
    bits = 8 * pixels.dtype.itemsize
    return Image(values, ImageFacts(name=name, format="array", sha256=digest, rows=rows, columns=columns, bits=bits))


def _document(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise BundleRefused(
            expected(f"TOML or JSON in {file.name}", type(error).__name__, "check path and syntax")
        ) from error
    if not isinstance(found, dict):
        raise BundleRefused(expected(f"a table of keys in {file.name}", type(found).__name__, "write key = value"))
    return found


def _record(kind: type[AnyRecord], found: dict[str, Any], file: Path) -> AnyRecord:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in first["loc"] if isinstance(part, str)]
        key = ".".join(str(part) for part in first["loc"]) or "the card"
        if first["type"] == "extra_forbidden":
            raise _unknown_key(place, kind, file) from error
        message = str(first["msg"]).removeprefix("Value error, ")
        raise BundleRefused(expected(f"a card in {file.name}", f"{key}: {message}", "correct it")) from error


def _unknown_key(place: list[str], kind: type[Record], file: Path) -> BundleRefused:
    table = _TABLES[place[0]] if len(place) > 1 else kind
    near = difflib.get_close_matches(place[-1], table.model_fields, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(table.model_fields)}"
    where = f"[{place[0]}] of {file.name}" if len(place) > 1 else file.name
    return BundleRefused(expected(f"a key of {where}", repr(place[-1]), cure))
