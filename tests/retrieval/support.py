"""Indexes of known geometry: images whose embedding is an angle, and tables of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PilImage

from tests.models.support import reader_of
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.models.card import InputSpec
from wetread.models.networks import Network, PixelEncoder
from wetread.models.predict import Reader
from wetread.retrieval.records import Kind, Level, ReaderMark, unit
from wetread.retrieval.write import Head
from wetread.types import Task

__all__ = ["SIDE", "angle_reader", "angles", "head_of", "manifest_of", "random_units", "rows_of", "write_film"]

SIDE = 32
Floats = NDArray[np.float32]


def angle_reader(**changes: Any) -> Reader:
    """A reader whose embedding is the image itself, 32 x 32 grey values."""
    from torch import nn

    network = Network(PixelEncoder(), nn.Linear(SIDE * SIDE, 1), spatial=False)
    spec = InputSpec(height=SIDE, width=SIDE, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
    hashes = {"model.safetensors": "1" * 64}
    return reader_of([network], **{"input": spec, "weights": hashes, **changes})


def write_film(file: Path, degrees: float) -> Path:
    """An image with one part of its weight in the left half and the other in the right: two dimensions in all."""
    picture = np.zeros((SIDE, SIDE))
    picture[:, : SIDE // 2] = np.cos(np.deg2rad(degrees))
    picture[:, SIDE // 2 :] = np.sin(np.deg2rad(degrees))
    file.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray((picture * 255).round().astype(np.uint8)).save(file)
    return file


def manifest_of(folder: Path, task: Task = "binary", **columns: object) -> Manifest:
    """Eight films at 0, 10 ... 70 degrees; patient p0 has the first two; ill from 40 degrees on."""
    for i in range(8):
        write_film(folder / f"{i}.png", 10 * i)
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(8)],
            "patient": ["p0", "p0", "p2", "p3", "p4", "p5", "p6", "p7"],
            "label": ["normal"] * 4 + ["ill"] * 4,
            "split": ["train"] * 6 + ["test"] * 2,
            "age": [20.0, 21.0, 30.0, None, 50.0, 60.0, 70.0, 80.0],
            **columns,
        }
    )
    return Manifest(table, DatasetMeta(name="set", task=task, classes=("normal", "ill")), folder)


def angles(*degrees: float) -> Floats:
    """Vectors (n, 1, 2) of length 1."""
    turns = np.deg2rad(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)[:, None]


def random_units(n: int, dimension: int, seed: int = 0) -> Floats:
    """Directions (n, 1, dimension)."""
    return unit(np.random.default_rng(seed).standard_normal((n, 1, dimension), np.float32))


def rows_of(n: int, **columns: object) -> pd.DataFrame:
    """What an index keeps of n images of n patients, two classes in turns."""
    table = {
        "path": [f"{i}.png" for i in range(n)],
        "patient": [f"p{i}" for i in range(n)],
        "label": ["normal" if i % 2 else "ill" for i in range(n)],
        "sha256": [f"{i:064x}" for i in range(n)],
        "root": "/films",
        "images": 1,
    }
    return pd.DataFrame({**table, **columns})


def head_of(embedding: str = "e" * 64, kind: Kind = "pooled", level: Level = "image", **changes: Any) -> Head:
    """A head of an index that a reader called small made."""
    mark = ReaderMark(name="small", version="1", sha256="1" * 64, embedding=embedding, source="small")
    fields: dict[str, Any] = {
        "reader": mark,
        "input": InputSpec(height=SIDE, width=SIDE, fit="stretch"),
        "kind": kind,
        "level": level,
        "places": (1, 1),
        "dataset": "set",
        "task": "binary",
        "classes": ("normal", "ill"),
    }
    return Head(**{**fields, **changes})
