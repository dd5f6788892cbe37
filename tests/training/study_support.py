"""Small studies: bone phantoms on disk, and vectors in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantom_mura import MuraPlan, make_mura
from wetread.datasets.splits import make_split
from wetread.models.backbones import make_encoder
from wetread.models.card import InputSpec, StudySpec
from wetread.models.mil import StudyNetwork, build_study_network
from wetread.training.study_config import StudyConfig
from wetread.training.study_fit import BagFeatures

__all__ = ["bones", "key_vectors", "network_of", "quick"]


def bones(folder: Path, **changes: Any) -> Manifest:
    """56 studies of bone phantoms with a split: valid is test, a fifth of train is val."""
    plan = MuraPlan(**{"patients": 56, "size_px": 64, "findings": ("hardware",), "mildest": 0.9, "most": 3, **changes})
    manifest = import_dataset(make_mura(folder, plan), layout="mura").manifest
    return make_split(manifest, {"train": 0.7, "val": 0.3}, seed=0)


def quick(**changes: Any) -> StudyConfig:
    """A run of seconds: 64 px, few epochs, no TensorBoard."""
    settings = {"image_size": 64, "epochs": 8, "batch_size": 8, "threads": 1, "tensorboard": False, "hidden": 32}
    return StudyConfig.model_validate({**settings, "learning_rate": 2e-3, "averaging": 0.9, **changes})


def network_of(spec: StudySpec, outputs: int = 1, size: int = 32) -> StudyNetwork:
    """The small convolutional encoder with a head for studies."""
    torch.manual_seed(0)
    encoder = make_encoder("cnn", InputSpec(height=size, width=size))
    return build_study_network(("cnn", spec), encoder, outputs, dropout=0.0)


def key_vectors(studies: int, seed: int, width: int = 256) -> tuple[BagFeatures, list[int | None]]:
    """Studies of 1 to 12 noise vectors; in every other one a single vector is moved, and it is known which."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, studies)
    keys: list[int | None] = []
    parts = []
    for number, length in enumerate(lengths):
        part = rng.normal(0, 1, (length, width))
        keys.append(int(rng.integers(length)) if number % 2 else None)
        if keys[-1] is not None:
            part[keys[-1], :8] += 2.5
        parts.append(part)
    vectors = torch.from_numpy(np.concatenate(parts).astype(np.float32))
    targets = torch.tensor([[0.0 if key is None else 1.0] for key in keys])
    return BagFeatures(vectors, lengths, targets), keys
