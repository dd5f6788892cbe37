"""What a training run on whole studies is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wetread.models.card import StudySpec
from wetread.models.registry import EMBEDDED
from wetread.training.config import ReaderSettings, TrainingConfig, plain_name

__all__ = ["StudyConfig"]


class StudyConfig(ReaderSettings):
    """Every setting of ``wetread train --level study``; the description of each field is its help text."""

    level: Literal["study", "patient"] = Field("study", description="what is judged as one: a study or a patient")
    mode: Literal["features", "finetune"] = Field(
        "features", description="features: frozen encoder, head in seconds; finetune: the whole network"
    )
    model: str = Field(EMBEDDED, description="a timm network, e.g. densenet201")
    pooling: Literal["max", "mean", "log-sum-exp", "noisy-or", "attention", "gated-attention"] = Field(
        "attention", description="how the answers of the images become that of the study"
    )
    hidden: int = Field(128, ge=0, le=4096, description="width of the layer before the answer; 0 is none")
    attention: int = Field(64, ge=1, le=4096, description="width of the attention")
    sharpness: float = Field(4.0, gt=0, description="r of log-sum-exp: near 0 it is the mean, large the maximum")
    view_encoder: Literal["shared", "per-view"] = Field(
        "shared", description="one layer after the encoder for all views, or one for each view position"
    )
    label_policy: Literal["refuse", "any", "majority"] = Field(
        "refuse", description="label of a study whose images differ: refused, positive if any is, or that of most"
    )
    drop_views: float = Field(0.1, ge=0, lt=1, description="chance that an image is left out of a step in training")
    dropout: float = Field(0.4, ge=0, lt=1, description="dropout before and after the hidden layer")
    images_held: int = Field(16, ge=1, le=4096, description="images in memory at once, however large a study is")
    head_epochs: int = Field(1, ge=0, description="first passes that train the head alone (finetune)")
    encoder_rate: float = Field(0.02, gt=0, le=1, description="the learned encoder learns this much slower (finetune)")
    image_size: int = Field(224, ge=16, le=2048, description="side of the square input, pixels")
    epochs: int = Field(30, ge=1, description="passes over the training studies")
    batch_size: int = Field(32, ge=2, description="studies per step")
    learning_rate: float = Field(5e-4, gt=0, description="peak rate of the head")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    augment: str = Field("light", description="augmentation recipe (finetune): none, light, robust, squeezed, s6")
    averaging: float = Field(0.98, ge=0, lt=1, description="decay of the averaged weights; 0 is off")
    patience: int = Field(8, ge=1, description="epochs without a better validation score before stopping")

    @property
    def run_name(self) -> str:
        """The given name, else model, pooling, mode and seed, in the letters that a reader's name may have."""
        return self.name or plain_name(self.model, f"-{self.level}-{self.pooling}-{self.mode}-seed{self.seed}")

    def specification(self, positions: tuple[str, ...]) -> StudySpec:
        """What the card says of the pooling; ``positions``: the views of the training images."""
        return StudySpec(
            level=self.level,
            pooling=self.pooling,
            hidden=self.hidden,
            attention=self.attention,
            sharpness=self.sharpness,
            positions=positions if self.view_encoder == "per-view" else (),
            label_policy=self.label_policy,
            one_encoder=self.mode == "features",
        )

    def for_card(self) -> TrainingConfig:
        """The settings that the card of any reader is made from."""
        return TrainingConfig(
            name=self.run_name,
            seed=self.seed,
            operating_points=self.operating_points,
            modalities=self.modalities,
            body_parts=self.body_parts,
            population=self.population,
            intended_use=self.intended_use,
            limits=self.limits,
        )
