"""Writing an index in a folder: build, add, delete; each makes a new generation or changes nothing.

Adding writes a segment of its own, deleting a list of row numbers, so that both take as long as what is changed.
Small indexes are written together at once, large ones when a tenth of the rows is deleted or segments are many:
then nothing of a deleted row is left on the disk.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, UsageError, expected
from wetread.models.card import InputSpec
from wetread.retrieval.approximate import CANDIDATES, Ann, build_ann
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.records import (
    EXACT_LIMIT,
    AnnMark,
    IndexCard,
    Kind,
    Level,
    ReaderMark,
    SearchOptions,
    Segment,
)
from wetread.retrieval.store import Folder
from wetread.retrieval.where import Condition
from wetread.types import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Changed",
    "Head",
    "add_rows",
    "build_index",
    "delete_rows",
    "refuse_everything",
    "refuse_other_embeddings",
    "refuse_other_kind",
    "refuse_taken",
    "refuse_unknown_paths",
]

_SEGMENTS = 16
_DEAD_SHARE = 0.1
_LATE_VECTORS = 16_384
"""Vectors behind the approximate index, or above the limit of an index without one, that are all compared when they
come later: 4 ms at 512 dimensions. An addition is quick, and few of them have to wait for cells to be made."""
_COMPARED = 20_000
"""Paths among which the nearest to a wrong one is looked for."""
_RETRAIN = 4
"""The cells are made anew when there are this many times more vectors than they were made for."""


@dataclass(frozen=True)
class Head:
    """What an index is of, before anything is in it."""

    reader: ReaderMark
    input: InputSpec
    kind: Kind
    level: Level
    places: tuple[int, int]
    dataset: str
    task: Task
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Changed:
    """What a write did: rows ``added``, ``replaced`` and ``deleted``, rows ``known`` already; the new card."""

    card: IndexCard
    added: int = 0
    replaced: int = 0
    known: int = 0
    deleted: int = 0


def build_index(
    path: Path, head: Head, rows: pd.DataFrame, vectors: NDArray[np.generic], *, overwrite: bool = False
) -> Changed:
    """Write a new index. ``rows``: one for each of ``vectors`` (N, places, D), of length 1.

    Raises:
        UsageError: ``path`` is taken and not to be overwritten.
        WetreadError: another writer does not finish, or the disk is full.
    """
    folder = Folder(path)
    refuse_taken(path, overwrite)
    with folder.writing():
        refuse_taken(path, overwrite)
        now = _now()
        old = folder.card().generation if folder.exists() else 0
        card = IndexCard(
            name=path.name,
            reader=head.reader,
            input=head.input,
            kind=head.kind,
            level=head.level,
            dimension=int(vectors.shape[2]),
            places=head.places,
            task=head.task,
            classes=head.classes,
            datasets=(head.dataset,),
            generation=old,
            created=now,
            changed=now,
            wetread=importlib.metadata.version("wetread"),
        )
        return Changed(_commit(folder, _appended(folder, card, rows, vectors)), added=len(rows))


def add_rows(path: Path, head: Head, rows: pd.DataFrame, vectors: NDArray[np.generic]) -> Changed:
    """Add rows to an index; those that it has are left, changed files under a known path take the old one's place.

    Raises:
        DatasetRefused: no index, a damaged one, another reader, other classes.
        WetreadError: another writer does not finish, or the disk is full.
    """
    folder = Folder(path)
    folder.card()  # refuses before a lock makes the folder
    with folder.writing():
        index = FolderIndex(path, with_ann=False)
        refuse_other_embeddings(index.card, head.reader)
        refuse_other_kind(index.card, head)
        hashes = index.column("sha256")
        known = set(hashes[hashes.isin(rows["sha256"]).to_numpy() & index.live])
        new = ~rows["sha256"].isin(known).to_numpy()
        replaced = _replaced(index, rows[new])
        if not new.any():
            return Changed(index.card, known=len(rows))
        card = index.card
        datasets = tuple(dict.fromkeys((*card.datasets, head.dataset)))
        card = card.model_copy(update={"datasets": datasets})
        if len(replaced):
            card = _buried(folder, index, card, replaced)
        card = _appended(folder, card, rows[new].reset_index(drop=True), vectors[new])
        card = _commit(folder, card)
        return Changed(card, added=int(new.sum()) - len(replaced), replaced=len(replaced), known=int((~new).sum()))


def delete_rows(
    path: Path, where: Condition | None = None, paths: Sequence[str] = (), *, purge: bool = False
) -> Changed:
    """Delete the rows that fit ``where``, and those with one of ``paths`` (as the index has them).

    ``purge`` writes a large index anew at once, so that nothing of them is left on the disk.

    Raises:
        UsageError: a condition on an unknown column, or neither condition nor paths.
        DatasetRefused: no index, a damaged one, no row fits, or a path that it does not have.
    """
    refuse_everything(where, paths)
    folder = Folder(path)
    folder.card()  # refuses before a lock makes the folder
    with folder.writing():
        index = FolderIndex(path, with_ann=False)
        gone = np.zeros(len(index.live), np.bool_) if where is None else index.allowed(SearchOptions(where))
        if paths:
            held = index.column("path")
            refuse_unknown_paths(paths, held[index.live])
            gone = gone | held.isin(list(paths)).to_numpy()
        rows = np.flatnonzero(gone & index.live)
        card = _commit(folder, _buried(folder, index, index.card, rows), purge=purge)
        return Changed(card, deleted=len(rows))


def refuse_everything(where: Condition | None, paths: Sequence[str]) -> None:
    """Refuse to delete without saying what.

    Raises:
        UsageError: neither condition nor paths.
    """
    if where is None and not paths:
        raise UsageError(expected("what to delete", "nothing", "give --where or paths as the index has them"))


def refuse_unknown_paths(paths: Sequence[str], held: pd.Series) -> None:
    """Refuse paths that an index does not have; the nearest is suggested.

    Raises:
        DatasetRefused: names the first.
    """
    missing = [path for path in paths if path not in set(held[held.isin(list(paths))])]
    if missing:
        near = difflib.get_close_matches(missing[0], held.astype(str).tolist()[:_COMPARED], n=1)
        cure = f"did you mean {near[0]}?" if near else "give them as `wetread index search` shows them"
        raise DatasetRefused(expected("paths of the index", f"{len(missing)} others, e.g. {missing[0]}", cure))


def refuse_other_embeddings(card: IndexCard, reader: ReaderMark) -> None:
    """Refuse a reader that did not make the embeddings of an index.

    Raises:
        DatasetRefused: names both readers and their hashes.
    """
    if reader.embedding == card.reader.embedding:
        return
    have, got = card.reader, reader
    if have.sha256 == got.sha256:
        what, other = f"embedding {have.embedding[:12]}…", f"embedding {got.embedding[:12]}… (another input or guide)"
    else:
        what, other = f"sha256 {have.sha256[:12]}…", f"sha256 {got.sha256[:12]}…"
    raise DatasetRefused(
        expected(
            f"the reader that made the index, {have.name} {have.version} with {what}",
            f"{got.name} {got.version} with {other}",
            "name that one with --reader, or build another index with this one",
        )
    )


def refuse_taken(path: Path, overwrite: bool) -> None:
    """Refuse a place for a new index that has other files, or an index that is not to be overwritten.

    Raises:
        UsageError: names it.
    """
    folder = Folder(path)
    if path.is_dir() and not folder.exists():
        others = [one for one in path.iterdir() if not one.name.startswith(".")]
        if not others:
            return
        raise UsageError(expected("a new folder for the index", f"{path}, which has other files", "name another"))
    if path.exists() and not (overwrite and folder.exists()):
        raise UsageError(
            expected("a new folder for the index", f"{path}, which exists", "name another, or add --overwrite")
        )


def refuse_other_kind(card: IndexCard, head: Head) -> None:
    """Refuse rows of another task, other classes, another level or kind.

    Raises:
        DatasetRefused: names both.
    """
    if (card.level, card.kind) != (head.level, head.kind):
        raise DatasetRefused(
            expected(
                f"{card.kind} embeddings by {card.level}", f"{head.kind} ones by {head.level}", "build another index"
            )
        )
    if (card.task, card.classes) != (head.task, head.classes):
        raise DatasetRefused(
            expected(
                f"a {card.task} data set with the index's classes {', '.join(card.classes) or '(none)'}",
                f"a {head.task} one with {', '.join(head.classes) or '(none)'}",
                "map the labels when importing, or build another index",
            )
        )


def _replaced(index: FolderIndex, rows: pd.DataFrame) -> NDArray[np.int64]:
    """Rows of the index that have root and path of one of ``rows``: the files have changed."""
    paths = index.column("path")
    near = np.flatnonzero(paths.isin(rows["path"]).to_numpy() & index.live)
    asked = set(zip(rows["root"], rows["path"], strict=True))
    pairs = zip(index.column("root").iloc[near], paths.iloc[near], near, strict=True)
    return np.array([row for root, path, row in pairs if (root, path) in asked], np.int64)


def _appended(folder: Folder, card: IndexCard, rows: pd.DataFrame, vectors: NDArray[np.generic]) -> IndexCard:
    if not len(rows):
        return card
    stem = f"{card.generation + 1:06d}"
    segment = Segment(count=len(rows), vectors=folder.write_vectors(stem, vectors), rows=folder.write_rows(stem, rows))
    return card.model_copy(update={"segments": (*card.segments, segment)})


def _buried(folder: Folder, index: FolderIndex, card: IndexCard, rows: NDArray[np.int64]) -> IndexCard:
    dead = np.union1d(np.flatnonzero(~index.live), rows).astype(np.int64)
    return card.model_copy(update={"deleted": folder.write_deleted(f"{card.generation + 1:06d}", dead)})


class _Draft(FolderIndex):
    """An index as it will be: its files are written, its card is not yet."""

    def __init__(self, folder: Folder, card: IndexCard) -> None:
        self.folder = folder
        self.card = card
        self._columns = {}
        self._with_ann = False
        self._load(card)


def _commit(folder: Folder, card: IndexCard, *, purge: bool = False) -> IndexCard:
    """Write together what should be, make or extend the approximate index, and make the card the newest one."""
    card = card.model_copy(update={"generation": card.generation + 1, "changed": _now()})
    draft = _Draft(folder, card)
    total, dead = len(draft.vectors), int((~draft.live).sum())
    small = total * draft.vectors.places <= EXACT_LIMIT
    crowded = len(card.segments) > _SEGMENTS or dead > (0 if small else _DEAD_SHARE * total)
    if crowded or (purge and dead):
        card = _together(folder, draft)
        draft = _Draft(folder, card)
    card = _with_ann(folder, draft)
    people = draft.people[draft.live]
    facts = _column_facts(draft)
    card = card.model_copy(update={"count": int(draft.live.sum()), "patients": len(np.unique(people)), **facts})
    folder.commit(card)
    return card


def _together(folder: Folder, draft: FolderIndex) -> IndexCard:
    """Write all rows that count as one segment."""
    import pandas as pd

    card, rows = draft.card, np.flatnonzero(draft.live)
    update: dict[str, Any] = {"segments": (), "deleted": None, "ann": None}
    if len(rows):
        names = _column_facts(draft)["columns"]
        table = pd.DataFrame({name: draft.column(name).iloc[rows].reset_index(drop=True) for name in names})
        stem = f"{card.generation:06d}-all"
        kept = draft.vectors
        kind, shape = kept.arrays[0].dtype, (len(rows), *kept.arrays[0].shape[1:])
        blocks = (block for _, _, block in kept.blocks(rows))
        marks = (folder.write_stream(stem, shape, kind, blocks), folder.write_rows(stem, table))
        update["segments"] = (Segment(count=len(rows), vectors=marks[0], rows=marks[1]),)
    return card.model_copy(update=update)


def _with_ann(folder: Folder, draft: FolderIndex) -> IndexCard:
    """Make, extend or keep the approximate index, as the number of vectors asks for."""
    card, vectors = draft.card, draft.vectors
    total = len(vectors) * vectors.places
    if total <= EXACT_LIMIT:
        return card.model_copy(update={"ann": None})
    old = card.ann
    if old is None and card.generation > 1 and total <= EXACT_LIMIT + _LATE_VECTORS:
        return card
    if old is None or total > _RETRAIN * old.trained_on:
        ann, trained = build_ann(vectors), total
    elif total - old.rows * vectors.places <= _LATE_VECTORS:
        return card
    else:
        ann, trained = Ann.read(folder.path / old.file.name, old), old.trained_on
        ann.extend(vectors, old.rows)
    mark = AnnMark(
        file=folder.write_bytes(f"{card.generation:06d}", ann.bytes()),
        rows=len(vectors),
        trained_on=trained,
        lists=ann.index.nlist,
        probes=ann.probes,
        candidates=CANDIDATES,
    )
    return card.model_copy(update={"ann": mark})


def _column_facts(draft: FolderIndex) -> dict[str, tuple[str, ...]]:
    """Names of the columns that any segment has, and which hold numbers."""
    numeric: dict[str, bool] = {}
    for schema in draft.schemas:
        for name, is_number in schema.items():
            numeric[name] = numeric.get(name, False) or is_number
    return {"columns": tuple(numeric), "numeric": tuple(name for name, is_number in numeric.items() if is_number)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
