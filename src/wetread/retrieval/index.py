"""An index in a folder: opened whole, searched without showing a patient to himself.

Decided here: the patient asked about is found by name or by the hash of the file; all rows of that patient and the
file itself are no answers. Every vector is compared up to :data:`EXACT_LIMIT`; above, the approximate index gives
candidates that are compared again exactly, and rows written after it was built are all compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, UsageError, expected
from wetread.retrieval.approximate import CANDIDATES, Ann
from wetread.retrieval.exact import Ranked, Rows, VectorSet, best_of
from wetread.retrieval.records import EXACT_LIMIT, Found, Hit, IndexCard, Query, SearchOptions
from wetread.retrieval.store import Folder
from wetread.retrieval.where import columns_of, mask_of, refuse_unknown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CaseIndex", "FolderIndex", "Taken", "pick", "require_answerable"]

_SLACK = 4
"""Answers fetched for each one asked where a patient counts once."""
_QUERIES = 64
"""Queries compared together."""


class CaseIndex(Protocol):
    """What every index offers, wherever it is kept."""

    card: IndexCard

    @property
    def location(self) -> str:
        """Folder or database, for people."""
        ...

    def search(self, queries: Sequence[Query], k: int, options: SearchOptions | None = None) -> list[Found]:
        """Return the ``k`` nearest cases of each query, nearest first."""
        ...

    def table(self, rows: Sequence[int]) -> pd.DataFrame:
        """Return what is known of rows, in their order."""
        ...


def require_answerable(card: IndexCard, queries: Sequence[Query], k: int) -> None:
    """Refuse what no index can answer.

    Raises:
        UsageError: ``k`` below 1, or embeddings of another length.
        DatasetRefused: an empty index.
    """
    if k < 1:
        raise UsageError(expected("at least 1 case", k, "raise -k"))
    if not card.count:
        raise DatasetRefused(
            expected("at least one case in the index", "an empty one", "add some: wetread index add INDEX DATASET")
        )
    for query in queries:
        if query.vectors.shape[1] != card.dimension:
            raise UsageError(
                expected(
                    f"embeddings of length {card.dimension}",
                    query.vectors.shape[1],
                    f"use the reader {card.reader.name}, which made the index",
                )
            )


@dataclass(frozen=True, eq=False)
class Taken:
    """What of ranked rows is answered with: not ``own``; once per ``people`` (N,) unless that is None."""

    own: Rows
    people: NDArray[np.int64] | None


def pick(ranked: Ranked, taken: Taken, k: int) -> tuple[Hit, ...]:
    """The first ``k`` of ranked rows that may be answered with."""
    kept = ~np.isin(ranked.rows, taken.own)
    hits: list[Hit] = []
    seen: set[int] = set()
    for row, similarity, place in zip(ranked.rows[kept], ranked.similarities[kept], ranked.places[kept], strict=True):
        person = None if taken.people is None else int(taken.people[row])
        if person is not None and person in seen:
            continue
        if person is not None:
            seen.add(person)
        hits.append(Hit(int(row), float(similarity), int(place)))
        if len(hits) == k:
            break
    return tuple(hits)


class FolderIndex:
    """One generation of an index in a folder; later writes do not change it."""

    def __init__(self, path: Path, *, everything: bool = False, with_ann: bool = True) -> None:
        """Open and verify the newest generation; ``everything``: also large files that nobody touched.

        Raises:
            DatasetRefused: no index, or a damaged one.
        """
        self.folder = Folder(Path(path))
        self.vectors = VectorSet([])
        self.ann: Ann | None = None
        self._dead: Rows = np.empty(0, np.int64)
        self._columns: dict[str, pd.Series] = {}
        self._tables: list[NDArray[np.uint8]] = []
        self._with_ann = with_ann
        self.card = self.folder.opened(self._load, everything=everything)

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder.path)

    def __len__(self) -> int:
        return self.card.count

    def _load(self, card: IndexCard) -> None:
        self.vectors = VectorSet([self.folder.read_array(segment.vectors) for segment in card.segments])
        mark = card.ann if self._with_ann else None
        self.ann = Ann.read(self.folder.path / mark.file.name, mark) if mark else None
        dead = self.folder.read_array(card.deleted) if card.deleted else np.empty(0, np.int64)
        self._dead = np.asarray(dead, np.int64)
        # Mapped now and read when needed: a writer may remove the files of this generation meanwhile.
        self._tables = [np.memmap(self.folder.path / segment.rows.name, np.uint8, "r") for segment in card.segments]
        self._counts = [segment.count for segment in card.segments]

    @cached_property
    def schemas(self) -> list[dict[str, bool]]:
        """For each segment its columns, and whether they hold numbers."""
        import pyarrow.parquet as parquet
        from pyarrow import BufferReader, types

        found = []
        for data in self._tables:
            schema = parquet.read_schema(BufferReader(data))
            found.append({one.name: types.is_integer(one.type) or types.is_floating(one.type) for one in schema})
        return found

    def column(self, name: str) -> pd.Series:
        """One column of all rows, deleted ones too; nulls where a segment does not have it."""
        if name not in self._columns:
            self._columns[name] = self._read_column(name)
        return self._columns[name]

    def _read_column(self, name: str) -> pd.Series:
        import pandas as pd
        from pyarrow import BufferReader

        parts = []
        for schema, data, count in zip(self.schemas, self._tables, self._counts, strict=True):
            if name in schema:
                parts.append(pd.read_parquet(BufferReader(data), columns=[name])[name])
            else:
                numeric = any(other.get(name) for other in self.schemas)
                parts.append(pd.Series([None] * count, dtype="Float64" if numeric else "str"))
        return pd.concat(parts, ignore_index=True) if parts else pd.Series([], dtype="str")

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which rows count, bool (N,)."""
        mask = np.ones(len(self.vectors), np.bool_)
        mask[self._dead] = False
        return mask

    @cached_property
    def people(self) -> NDArray[np.int64]:
        """The number of the patient of each row (N,); a row without one is its own patient."""
        codes, self._names = self._factorised()
        return codes

    def _factorised(self) -> tuple[NDArray[np.int64], pd.Index]:
        import pandas as pd

        patients = self.column("patient")
        if bool(patients.isna().any()):
            patients = patients.fillna(self.column("path"))
        codes, names = pd.factorize(patients)
        return codes.astype(np.int64), pd.Index(names)

    @cached_property
    def _by_person(self) -> tuple[Rows, Rows]:
        """Rows in the order of their patients, and where each patient begins."""
        order = np.argsort(self.people, kind="stable")
        return order, np.searchsorted(self.people[order], np.arange(int(self.people.max(initial=-1)) + 2))

    @cached_property
    def _by_content(self) -> pd.Series:
        """Hash of a file -> row; a study has several."""
        import pandas as pd

        hashes = self.column("sha256")
        if self.card.level == "study":
            hashes = hashes.str.split(" ").explode()

        return pd.Series(hashes.index.to_numpy(), index=hashes.to_numpy())

    def rows_of(self, query: Query) -> Rows:
        """Rows of the patient asked about, by name or by the hash of the file."""
        import pandas as pd

        codes: set[int] = set()
        if query.sha256 is not None and query.sha256 in self._by_content.index:
            same = np.atleast_1d(self._by_content.loc[query.sha256])
            codes |= {int(code) for code in self.people[same]}
        if query.patient is not None and len(self.people):
            codes |= {int(code) for code in self._names.get_indexer(pd.Index([query.patient])) if code >= 0}
        order, starts = self._by_person
        parts = [order[starts[code] : starts[code + 1]] for code in codes]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def same_file(self, query: Query) -> Rows:
        """Rows made of the very file asked about."""
        if query.sha256 is None or query.sha256 not in self._by_content.index:
            return np.empty(0, np.int64)
        return np.atleast_1d(self._by_content.loc[query.sha256]).astype(np.int64)

    def allowed(self, options: SearchOptions) -> NDArray[np.bool_]:
        """Which rows may be answered with, bool (N,), whoever asks.

        Raises:
            UsageError: a condition on an unknown column.
            DatasetRefused: no row fits the condition; says what its columns hold.
        """
        if options.where is None:
            return self.live
        import pandas as pd

        refuse_unknown(options.where, self.card.columns)
        table = pd.DataFrame({name: self.column(name) for name in columns_of(options.where)})
        mask = mask_of(options.where, table) & self.live
        if not mask.any():
            held = "; ".join(_holds(name, table[name][self.live]) for name in table.columns)
            raise DatasetRefused(expected("cases that fit --where", f"none of {self.card.count}", held))
        return mask

    def search(self, queries: Sequence[Query], k: int, options: SearchOptions | None = None) -> list[Found]:
        """Return the ``k`` nearest cases of each query, nearest first; fewer where there are no more.

        Raises:
            UsageError: see :func:`require_answerable`; a condition on an unknown column.
            DatasetRefused: an empty index, or no row fits the condition.
        """
        require_answerable(self.card, queries, k)
        options = options or SearchOptions()
        allowed = self.allowed(options)
        found: list[Found] = []
        for start in range(0, len(queries), _QUERIES):
            found += self._search(queries[start : start + _QUERIES], k, options, allowed)
        return found

    def _search(
        self, queries: Sequence[Query], k: int, options: SearchOptions, allowed: NDArray[np.bool_]
    ) -> list[Found]:
        people = self.people if options.once_per_patient else None
        out = [self.same_file(query) if options.same_patient else self.rows_of(query) for query in queries]
        most, fetch = int(allowed.sum()), k * (_SLACK if people is not None else 1) + max(map(len, out), default=0)
        scope = _Scope(allowed, None if most == len(allowed) else np.flatnonzero(allowed))
        hits: dict[int, tuple[Hit, ...]] = {}
        waiting = list(range(len(queries)))
        while waiting:
            fetch = min(fetch, most)
            ranked = self._ranked([queries[i] for i in waiting], fetch, scope)
            for i, one in zip(waiting, ranked, strict=True):
                hits[i] = pick(one, Taken(out[i], people), k)
            # Fewer than asked for: others of the same patients took the places; look further.
            waiting = [i for i in waiting if len(hits[i]) < k] if fetch < most else []
            fetch *= _SLACK
        count = not options.same_patient
        return [Found(hits[i], int(allowed[out[i]].sum()) if count else 0) for i in range(len(queries))]

    def _ranked(self, queries: Sequence[Query], n: int, scope: _Scope) -> list[Ranked]:
        pooled = self.vectors.places == 1 and all(len(query.vectors) == 1 for query in queries)
        few = int(scope.mask.sum()) * self.vectors.places <= EXACT_LIMIT
        if self.ann is None or few or n * _SLACK > self._covered:
            if pooled:
                return self.vectors.nearest(np.concatenate([query.vectors for query in queries]), n, scope.rows)
            return [best_of(self.vectors.score(query.vectors, scope.rows), n) for query in queries]
        return [self._approximate(query, n, scope) for query in queries]

    @property
    def _covered(self) -> int:
        return self.card.ann.rows if self.card.ann else 0

    def _approximate(self, query: Query, n: int, scope: _Scope) -> Ranked:
        """Candidates from the approximate index and all later rows, compared exactly."""
        assert self.ann is not None  # noqa: S101  asked above
        places = self.vectors.places
        wanted = max(CANDIDATES, _SLACK * n) * (1 if places == 1 else 2)
        found = self.ann.candidates(query.vectors, wanted, scope.bits(self._covered, places))
        rows = np.unique(np.concatenate(found) // places)
        late = np.flatnonzero(scope.mask[self._covered :]) + self._covered
        return best_of(self.vectors.score(query.vectors, np.concatenate([rows, late])), n)

    def table(self, rows: Sequence[int]) -> pd.DataFrame:
        """Return what is known of rows, in their order."""
        import pandas as pd

        at = np.asarray(rows, np.int64)
        return pd.DataFrame({name: self.column(name).iloc[at].to_numpy() for name in self.card.columns})


class _Scope:
    """Rows that may be answered with: as a mask (N,), as numbers (None: all), and as bits for FAISS."""

    def __init__(self, mask: NDArray[np.bool_], rows: Rows | None) -> None:
        self.mask = mask
        self.rows = rows
        self._bits: NDArray[np.uint8] | None = None

    def bits(self, covered: int, places: int) -> NDArray[np.uint8] | None:
        """Bits of the vectors of the first ``covered`` rows; None where all count."""
        if self.rows is None:
            return None
        if self._bits is None:
            self._bits = np.packbits(np.repeat(self.mask[:covered], places), bitorder="little")
        return self._bits


def _holds(name: str, column: pd.Series) -> str:
    """``view is AP (4,471), PA (12)``: what a column holds, the most frequent first."""
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column.dtype):
        return f"{name} runs from {column.min():g} to {column.max():g}"
    counts = column.value_counts(dropna=True)
    if counts.empty:
        return f"{name} is unknown everywhere"
    shown = ", ".join(f"{value} ({count})" for value, count in counts.iloc[:5].items())
    return f"{name} is {shown}{f' and {len(counts) - 5} others' if len(counts) > 5 else ''}"
