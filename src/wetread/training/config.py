"""What a training run is told: one frozen table that the command line, TOML recipes and Python share."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from wetread.errors import UsageError, expected
from wetread.models.registry import EMBEDDED
from wetread.types import Record

__all__ = [
    "CLASSIC",
    "NAME_PATTERN",
    "LoopSettings",
    "ReaderSettings",
    "SegmentConfig",
    "TrainingConfig",
    "config_of",
    "config_to_toml",
    "load_recipe",
    "make_config",
]

CLASSIC = ("knn", "svm", "logistic")
"""Baselines without gradient descent, on features of the embedded encoder or on raw pixels."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What the card of a reader takes as its name: it becomes the name of a folder."""
_LONGEST_NAME = 64


class LoopSettings(Record):
    """What every training run is told, whatever it learns; the description of each field is its help text."""

    weights: str | None = Field(None, description="timm safetensors file or folder, or 'random'")
    image_size: int = Field(160, ge=16, le=2048, description="side of the square input, pixels")
    fit: Literal["pad", "stretch", "crop"] = Field("pad", description="how an image is brought to that square")
    standardise: Literal["zscore", "fixed"] = Field("zscore", description="per-image z-score, or fixed mean and std")
    epochs: int = Field(8, ge=1, description="passes over the training images (finetune)")
    batch_size: int = Field(32, ge=2, description="images per step")
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of the last encoder block; the head takes 3x")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay")
    schedule: Literal["onecycle", "cosine"] = Field("onecycle", description="course of the learning rate")
    augment: str = Field("robust", description="augmentation recipe: none, light, robust, squeezed, organs, s6")
    averaging: float = Field(0.995, ge=0, lt=1, description="decay of the averaged weights; 0 is off")
    patience: int = Field(5, ge=1, description="epochs without a better validation score before stopping")
    folds: int = Field(0, ge=0, le=20, description="patient-grouped folds, shipped as one ensemble; 0 is one network")
    seed: int = Field(0, ge=0, description="seed of everything random")
    threads: int = Field(0, ge=0, description="CPU threads; 0 is all cores")
    tensorboard: bool = Field(True, description="write TensorBoard logs into the run folder")
    mlflow: str | None = Field(None, description="MLflow tracking URI, e.g. http://localhost:5000")
    name: str | None = Field(
        None, pattern=NAME_PATTERN, description="name of the run and its reader; default: model, mode and seed"
    )
    population: str = Field("unknown", description="who the images are of, for the card")
    intended_use: str = Field("Research use only. Not a diagnosis.", description="for the card")
    limits: tuple[str, ...] = Field((), description="known limits, for the card")

    @property
    def run_name(self) -> str:
        """The given name, else one made of the most telling settings."""
        return self.name or f"seed{self.seed}"


class ReaderSettings(LoopSettings):
    """What every reader is told beside its loop: thresholds, and which images it is for."""

    operating_points: tuple[str, ...] = Field(
        ("youden", "sensitivity=0.95", "specificity=0.95"), description="rules that choose thresholds on validation"
    )
    gate: bool = Field(True, description="store feature statistics, so that foreign images are refused")
    modalities: tuple[str, ...] = Field((), description="DICOM modalities that the gate accepts; empty: any")
    body_parts: tuple[str, ...] = Field((), description="body parts that the gate accepts; empty: any")


class TrainingConfig(ReaderSettings):
    """Every setting of ``wetread train`` for classification."""

    mode: Literal["features", "finetune"] = Field(
        "features", description="features: frozen encoder, head in seconds; finetune: the whole network"
    )
    model: str = Field(EMBEDDED, description="a timm network, cnn, or a baseline: knn, svm, logistic")
    inputs: Literal["features", "pixels"] = Field("features", description="what knn, svm and logistic look at")
    head: Literal["linear", "mlp"] = Field("linear", description="head of a fine-tuned network")
    head_epochs: int = Field(1, ge=0, description="first passes that train the head alone")
    layer_decay: float = Field(0.8, gt=0, le=1, description="each earlier block learns this much slower")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the head")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the encoder")
    loss: Literal["cross-entropy", "focal"] = Field("cross-entropy", description="loss function")
    focal_gamma: float = Field(2.0, ge=0, description="focusing exponent of the focal loss")
    label_smoothing: float = Field(0.05, ge=0, lt=0.5, description="share of the target given to the other classes")
    mixup: float = Field(0.0, ge=0, description="Beta parameter of mixup; 0 is off")
    balance: Literal["weights", "sampling", "none"] = Field("weights", description="how rare classes are made to count")
    views: int = Field(1, ge=1, le=5, description="zooms of each image that the reader averages")
    guide: Literal["none", "crop", "mask", "attention", "background"] = Field(
        "none",
        description="lead the network to one organ: show its box or it alone, hold attention to it, change the rest",
    )
    organ: str = Field("lungs", description="the organ of --guide")
    segmenter: str = Field("lungs", description="name or folder of the segmenter that finds it")
    fill: Literal["mean", "black"] = Field("mean", description="what --guide mask shows outside the organ")
    margin: float = Field(0.03, ge=0, le=0.5, description="how far the organ is widened, share of the shorter side")
    attention_weight: float = Field(1.0, gt=0, description="weight of the organ's term in the loss (--guide attention)")
    background_chance: float = Field(
        0.75, gt=0, le=1, description="share of training images given a new background (--guide background)"
    )

    @property
    def run_name(self) -> str:
        """The given name, else model, mode and seed, in the letters that a reader's name may have."""
        return self.name or plain_name(self.model, f"-{self.mode}-seed{self.seed}")


class SegmentConfig(LoopSettings):
    """Every setting of ``wetread train --task segment``."""

    organs: tuple[str, ...] = Field(
        ("lungs",), min_length=1, description="organs to find; lungs is the column mask, others mask_NAME"
    )
    network: Literal["unet", "residual-unet", "attention-unet"] = Field(
        "unet", description="unet on a timm encoder, or one of the two without a learned encoder"
    )
    encoder: str = Field(EMBEDDED, description="timm encoder of the unet")
    exclusive: bool = Field(False, description="one organ for each pixel at most; else organs may overlap")
    loss: str = Field("dice-ce", description="segmentation loss; docs/explanation/segmentation-losses.md has them all")
    encoder_rate: float = Field(0.3, gt=0, le=1, description="the learned encoder learns this much slower")
    image_size: int = Field(256, ge=32, le=2048, description="side of the square input, pixels")
    epochs: int = Field(30, ge=1, description="passes over the training images")
    batch_size: int = Field(16, ge=2, description="images per step")
    learning_rate: float = Field(2e-3, gt=0, description="peak rate of the decoder")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    augment: str = Field("organs", description="augmentation recipe: none, light, robust, squeezed, organs, s6")
    averaging: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights; 0 is off")
    patience: int = Field(10, ge=1, description="epochs without a better validation Dice before stopping")

    @field_validator("organs")
    @classmethod
    def _each_once(cls, organs: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(organs)) < len(organs):
            raise ValueError("name each organ once")
        return organs

    @property
    def run_name(self) -> str:
        """The given name, else organs, network and seed, in the letters that a reader's name may have."""
        return self.name or plain_name("-".join(self.organs), f"-{self.network}-seed{self.seed}")


def plain_name(text: str, ending: str) -> str:
    """Join both into what a reader may be called."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("-._") or "model"
    return plain[: _LONGEST_NAME - len(ending)] + ending


Config = TypeVar("Config", bound=LoopSettings)


def load_recipe(path: Path, kind: type[LoopSettings] = TrainingConfig) -> dict[str, object]:
    """Read a TOML recipe into settings of ``kind``.

    Raises:
        UsageError: no such file, no TOML, or an unknown key (the nearest is suggested).
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            expected(f"a TOML recipe at {path.name}", type(error).__name__, "check path and syntax")
        ) from error
    for key in settings:
        if key not in kind.model_fields:
            near = difflib.get_close_matches(key, kind.model_fields, n=1)
            cure = f"did you mean '{near[0]}'?" if near else "`wetread train --help` lists them"
            raise UsageError(expected(f"settings of `wetread train` in {path.name}", repr(key), cure))
    return settings


def make_config(settings: dict[str, object]) -> TrainingConfig:
    """Build the configuration of a classifier from loose settings.

    Raises:
        UsageError: a value out of its range; names the setting.
    """
    return config_of(TrainingConfig, settings)


def config_of(kind: type[Config], settings: dict[str, object]) -> Config:
    """Build a configuration of ``kind`` from loose settings.

    Raises:
        UsageError: a value out of its range; names the setting.
    """
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(expected(f"a valid {key}", repr(first["input"]), first["msg"])) from error


def config_to_toml(config: LoopSettings) -> str:
    """Write the resolved settings as TOML that :func:`load_recipe` reads back."""
    lines = []
    for key, value in config.model_dump().items():
        if value is None:
            continue
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # TOML reads JSON strings alike, but forbids the one control character that JSON leaves bare.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
