"""What an index says of itself, what is asked of it, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wetread.errors import UsageError, expected
from wetread.models.card import InputSpec
from wetread.retrieval.where import Condition
from wetread.types import Neighbour, Record, Task, Vote

__all__ = [
    "EXACT_LIMIT",
    "AnnMark",
    "FileMark",
    "Found",
    "Hit",
    "IndexCard",
    "Kind",
    "Level",
    "Neighbours",
    "Query",
    "ReaderMark",
    "SearchOptions",
    "Segment",
    "Skipped",
    "unit",
]

Level = Literal["image", "study"]
Kind = Literal["pooled", "local"]
Vectors = NDArray[np.float32]

EXACT_LIMIT = 100_000
"""Vectors up to which every one is compared; above, an approximate index finds candidates."""


class ReaderMark(Record):
    """Which reader made the embeddings.

    ``embedding``: sha256 over its weights, the geometry of its input and its guide: two readers with the same one give
    the same embeddings. ``source``: the name or folder it was loaded from.
    """

    name: str
    version: str
    sha256: str
    embedding: str
    source: str


class FileMark(Record):
    """A file of an index: its name in the folder, the sha256 of its bytes, their number, and when it was written."""

    name: str
    sha256: str
    size_bytes: int
    modified_ns: int


class Segment(Record):
    """Rows written together. ``vectors``: .npy (count, places, D); ``rows``: Parquet, one row for each."""

    count: int
    vectors: FileMark
    rows: FileMark


class AnnMark(Record):
    """The approximate index over the first ``rows`` rows: an inverted file with 8-bit codes (FAISS ``IVF,SQ8``).

    ``lists`` cells, ``probes`` of which are searched; ``candidates`` for each answer asked are compared again exactly.
    """

    file: FileMark
    rows: int
    trained_on: int
    lists: int
    probes: int
    candidates: int


class IndexCard(Record):
    """``index.json``: whose embeddings, of what, in which files. Distances are 1 - cosine, 0 to 2.

    ``places``: rows and columns of the grid of local embeddings, (1, 1) for one of the whole image. ``deleted``: the
    numbers of rows that no longer count. ``count``: rows that do. ``numeric``: columns of numbers.
    """

    schema_version: Literal["1"] = "1"
    name: str
    reader: ReaderMark
    input: InputSpec
    kind: Kind = "pooled"
    level: Level = "image"
    dimension: int = Field(ge=1)
    places: tuple[int, int] = (1, 1)
    task: Task
    classes: tuple[str, ...]
    datasets: tuple[str, ...]
    count: int = 0
    patients: int = 0
    generation: int = 0
    created: str
    changed: str
    wetread: str
    segments: tuple[Segment, ...] = ()
    deleted: FileMark | None = None
    ann: AnnMark | None = None
    columns: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[FileMark, ...]:
        """All files of this generation."""
        several = [mark for segment in self.segments for mark in (segment.vectors, segment.rows)]
        single = [self.deleted, self.ann.file if self.ann else None]
        return (*several, *(mark for mark in single if mark is not None))


class Skipped(Record):
    """An image that is not in the index: its path as given, the class of the error, and why."""

    path: str
    error: str
    reason: str


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked: ``vectors`` (Q, D), one for a whole image, several for places of it; any length but zero.

    ``patient`` and ``sha256`` (of the file) say whose image it is; both None where that is not known.
    """

    vectors: Vectors
    patient: str | None = None
    sha256: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        vectors = np.atleast_2d(np.asarray(self.vectors, dtype=np.float32))
        if not np.isfinite(vectors).all():
            raise UsageError(
                expected(f"a finite embedding of {self.name or 'the image'}", "NaN or infinity", "check the reader")
            )
        object.__setattr__(self, "vectors", unit(vectors))


@dataclass(frozen=True)
class SearchOptions:
    """Which cases may be answered with.

    ``same_patient``: also those of the patient asked about. ``once_per_patient``: the nearest of each patient alone,
    so that shares count people and not films.
    """

    where: Condition | None = None
    same_patient: bool = False
    once_per_patient: bool = True


@dataclass(frozen=True, slots=True)
class Hit:
    """Row ``row`` of an index with its cosine ``similarity``; ``place``: the most alike one of its grid."""

    row: int
    similarity: float
    place: int = 0


class Neighbours(Record):
    """The cases like one image, nearest first. ``left_out``: rows of the same patient that were not shown."""

    image: str
    index: str
    reader: ReaderMark
    level: Level
    neighbours: tuple[Neighbour, ...]
    vote: dict[str, Vote]
    left_out: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Hits of one query, nearest first, with how many rows of the same patient were left out."""

    hits: tuple[Hit, ...]
    left_out: int = 0


def unit(vectors: Vectors) -> Vectors:
    """Scale (..., D) to length 1; zeros stay zeros and are far from everything."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
