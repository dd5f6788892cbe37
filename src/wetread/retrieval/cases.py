"""From a data set to the rows of an index: which images, what is known of them, one row for an image or a study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.columns import label_columns
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.imaging import DEFAULT_BUDGET_BYTES
from wetread.models.predict import Reader
from wetread.retrieval.embed import StudyPooling, embed_files, mark_of, places_of, study_pooling
from wetread.retrieval.records import Kind, Level, Skipped, unit
from wetread.retrieval.where import Condition, mask_of
from wetread.retrieval.write import Head
from wetread.training.data import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CaseRows", "EmbedPlan", "cases_of"]

_LEFT_OUT = ("mask", "boxes", "text", "phash")
"""Columns of no use in a search; report texts stay where they are."""


@dataclass(frozen=True)
class EmbedPlan:
    """How images become rows."""

    kind: Kind = "pooled"
    level: Level = "image"
    where: Condition | None = None
    source: str = ""
    cache: Path | None = None
    budget_bytes: int = DEFAULT_BUDGET_BYTES


@dataclass(frozen=True, eq=False)
class CaseRows:
    """``rows``: one for each of ``vectors`` (N, places, D); ``skipped``: images that could not be read."""

    head: Head
    rows: pd.DataFrame
    vectors: NDArray[np.generic]
    skipped: tuple[Skipped, ...]


def cases_of(reader: Reader, manifest: Manifest, plan: EmbedPlan, progress: Progress | None = None) -> CaseRows:
    """Embed the images of a data set; those that cannot be read are left out and listed.

    Raises:
        UsageError: local embeddings of studies, or of a reader without feature maps; a condition on another column.
        DatasetRefused: no image fits the condition, or none can be read.
    """
    if plan.kind == "local" and plan.level == "study":
        raise UsageError(expected("--local with --level image", "--level study", "leave one of them out"))
    table = manifest.table if plan.where is None else manifest.table[mask_of(plan.where, manifest.table)]
    if table.empty:
        raise DatasetRefused(expected("images that fit --where", "none", "widen the condition"))
    table = table.reset_index(drop=True)
    files = [manifest.path_of(str(path)) for path in table["path"]]
    made = embed_files(reader, files, plan.kind, cache=plan.cache, progress=progress, budget_bytes=plan.budget_bytes)
    if not len(made.kept):
        first = made.skipped[0]
        raise DatasetRefused(
            expected(f"at least one of {len(files)} images that can be read", f"none: {first.reason}", "check the data")
        )
    rows = _rows(manifest, table.iloc[made.kept], [made.hashes[i] for i in made.kept])
    head = Head(
        reader=mark_of(reader, plan.source),
        input=reader.input,
        kind=plan.kind,
        level=plan.level,
        places=places_of(reader, plan.kind),
        dataset=manifest.meta.name,
        task=manifest.meta.task,
        classes=manifest.meta.classes,
    )
    cases = CaseRows(head, rows, made.vectors, made.skipped)
    return _studies(cases, study_pooling(reader)) if plan.level == "study" else cases


def _rows(manifest: Manifest, table: pd.DataFrame, hashes: list[str]) -> pd.DataFrame:
    """What is kept of a manifest: columns with anything in them, where the files lie, their hashes as they are now."""
    kept = [name for name in table.columns if name not in _LEFT_OUT and bool(table[name].notna().any())]
    needed = [name for name in ("patient",) if name not in kept]
    rows = table[[*kept, *needed]].reset_index(drop=True)
    return rows.assign(root=str(manifest.root), sha256=hashes, images=1)


def _studies(cases: CaseRows, pool: StudyPooling) -> CaseRows:
    """One row for each study of a patient: the mean of its images, what they agree on, the path of the first."""
    import pandas as pd

    rows = cases.rows
    study = rows["study"] if "study" in rows else pd.Series(pd.NA, index=rows.index)
    key = rows["patient"].fillna(rows["path"]).astype(str) + "\0" + study.fillna(rows["path"]).astype(str)
    groups = [np.asarray(members, np.int64) for members in rows.groupby(key, sort=False).indices.values()]
    groups.sort(key=lambda members: int(members[0]))
    embeddings = np.stack([pool(np.asarray(cases.vectors[members, 0], np.float32)) for members in groups])
    agreed = [_agreed(rows.iloc[members]) for members in groups]
    merged = pd.DataFrame(
        {name: pd.Series([one[str(name)] for one in agreed], dtype=rows[name].dtype) for name in rows.columns}
    )
    return replace(cases, rows=merged, vectors=unit(embeddings)[:, None])


def _agreed(rows: pd.DataFrame) -> dict[str, object]:
    """What the images of a study have in common; a label that any image has is the study's."""
    found: dict[str, object] = {}
    for name in rows.columns:
        values = rows[name].dropna().unique()
        found[str(name)] = values[0] if len(values) == 1 else None
    for name in label_columns(rows):
        found[name] = rows[name].max()
    first = rows.iloc[0]
    shared = {"path": first["path"], "images": len(rows), "sha256": " ".join(sorted(rows["sha256"]))}
    return {**found, **shared}
