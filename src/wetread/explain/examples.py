"""Explanation by example: the most alike images of a data set, as the reader sees them, with what they were.

Decided here: alike means a small angle between embeddings of the reader; the patient of the image asked about is left
out, because a second film of the same person explains nothing; each patient is named once, so that shares count people.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.models.predict import Reader
from wetread.provenance import file_sha256
from wetread.training.data import LabelledImages, Progress, gather
from wetread.training.features import embed
from wetread.types import Image, Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CaseSet", "Example", "SimilarCases", "case_set", "similar_cases"]

_log = logging.getLogger(__name__)

_BATCH = 8
"""Images shown to the reader at once."""

_SAME = 1e-4
"""Embeddings nearer than this are of the same picture for all that the reader can tell."""


class Example(Record):
    """One case like the image: ``path`` as in the manifest, its ``labels`` (empty: none of them; None: unknown).

    ``distance`` is 1 - cosine of the reader's embeddings: 0 for the same picture, 1 for unrelated ones, 2 at most.
    """

    rank: int
    path: str
    labels: tuple[str, ...] | None
    split: str | None
    patient: str | None
    distance: float


class SimilarCases(Record):
    """The cases like one image, nearest first; ``shares`` (0-1): of those with known labels, how many had each."""

    image: str
    examples: tuple[Example, ...]
    shares: dict[str, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CaseSet:
    """A data set as one reader sees it. ``embeddings``: float32 (N, D), of length 1; ``names``: sha256 of the files."""

    manifest: Manifest
    images: pd.DataFrame
    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    patients: NDArray[np.str_]

    def nearest(self, image: str, name: str, embedding: NDArray[np.float32], k: int) -> SimilarCases:
        """Return the ``k`` patients most like ``image``, whose file has the sha256 ``name``; ``embedding``: (D,).

        Raises:
            DatasetRefused: the set holds this patient alone.
        """
        distances = 1 - self.embeddings @ _unit(embedding[None])[0]
        same = np.array([other == name for other in self.names])
        own = np.isin(self.patients, self.patients[same])
        warnings = []
        if same.any():
            warnings.append(f"{image} is itself in {self.manifest.meta.name}: its patient was left out")
        elif float(distances.min()) < _SAME:
            twin = self.images.iloc[int(distances.argmin())]["path"]
            warnings.append(f"{image} looks the same to the reader as {twin}, which may be a copy of it")
        chosen = self._one_each(np.where(own, np.inf, distances), k)
        if not chosen:
            raise DatasetRefused(
                expected("images of other patients", f"none in {self.manifest.meta.name}", "name a larger --cases set")
            )
        if len(chosen) < k:
            warnings.append(f"{self.manifest.meta.name} holds only {len(chosen)} other patients")
        found = tuple(self._example(rank, i, float(distances[i])) for rank, i in enumerate(chosen, 1))
        return SimilarCases(
            image=image, examples=found, shares=_shares(found, self.manifest.meta), warnings=tuple(warnings)
        )

    def _one_each(self, distances: NDArray[np.float32], k: int) -> list[int]:
        """Indices of the nearest image of each of the ``k`` nearest patients; an infinite distance is no candidate."""
        seen: dict[str, int] = {}
        for i in np.argsort(distances, kind="stable"):
            if len(seen) == k or not np.isfinite(distances[i]):
                break
            seen.setdefault(str(self.patients[i]), int(i))
        return list(seen.values())

    def _example(self, rank: int, index: int, distance: float) -> Example:
        row = self.images.iloc[index]
        return Example(
            rank=rank,
            path=str(row["path"]),
            labels=_labels(row, self.manifest.meta),
            split=_text(row, "split"),
            patient=_text(row, "patient"),
            distance=max(0.0, distance),
        )


def case_set(
    reader: Reader, manifest: Manifest, cache: Path | None = None, progress: Progress | None = None
) -> CaseSet:
    """Show the reader all images of a data set; embeddings and pixels are taken from ``cache`` where stored.

    Raises:
        DatasetRefused: no images, no labels, or images that cannot be read.
    """
    table = manifest.table.reset_index(drop=True)
    if table.empty:
        raise DatasetRefused(expected("at least one case", "an empty table", "name another --cases set"))
    images = gather(manifest, table, reader.input, cache, progress, guide=reader.guide)
    embedded = embed(reader.networks[0], images, reader.input, cache, progress)
    return CaseSet(manifest, table, _unit(embedded), _file_names(reader, manifest, images), images.patients)


def similar_cases(
    reader: Reader, images: Sequence[Image], manifest: Manifest, k: int = 5, progress: Progress | None = None
) -> list[tuple[Example, ...]]:
    """Return for each image the ``k`` most alike cases of other patients, nearest first.

    Warns in the log where an image is itself in the set.

    Raises:
        UsageError: ``k`` below 1.
        DatasetRefused: no images, no labels, images that cannot be read, or no other patient.
    """
    if k < 1:
        raise UsageError(expected("at least 1 case", k, "raise --neighbours"))
    cases = case_set(reader, manifest, progress=progress)
    found = []
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        embeddings = reader.forward(reader.prepare(part), views=1).embeddings.numpy()
        for image, embedding in zip(part, embeddings, strict=True):
            similar = cases.nearest(image.facts.name, image.facts.sha256, embedding, k)
            for warning in similar.warnings:
                _log.warning("%s", warning)
            found.append(similar.examples)
    return found


def _file_names(reader: Reader, manifest: Manifest, images: LabelledImages) -> tuple[str, ...]:
    """The sha256 of each file: the names of the images, unless a guide has changed what they name."""
    if reader.guide is None or not reader.guide.changes_pixels:
        return images.names
    return tuple(file_sha256(manifest.path_of(str(path))) for path in images.table["path"])


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (N, D) to length 1; zeros stay zeros and are far from everything."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), dtype=np.float32)


def _labels(row: pd.Series, meta: DatasetMeta) -> tuple[str, ...] | None:
    if meta.task != "multilabel":
        label = _text(row, "label")
        return None if label is None else (label,)
    known = row[[f"{LABEL_PREFIX}{name}" for name in meta.classes]].dropna()
    if known.empty:
        return None
    return tuple(name for name in meta.classes if known.get(f"{LABEL_PREFIX}{name}") == 1)


def _text(row: pd.Series, column: str) -> str | None:
    return None if row.isna()[column] else str(row[column])


def _shares(examples: Sequence[Example], meta: DatasetMeta) -> dict[str, float]:
    known = [example.labels for example in examples if example.labels is not None]
    counts = Counter(label for labels in known for label in labels)
    return {name: counts[name] / len(known) for name in meta.classes} if known else {}
