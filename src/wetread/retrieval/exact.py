"""Every vector compared: what small indexes are searched with, and what large ones are judged by.

One vector for each case goes through FAISS or a matrix product, in the order of ``IndexFlatIP``. Cases with a grid of
vectors are as alike as their places: for each place of the query the most alike place of the case, averaged (late
interaction, Khattab & Zaharia, SIGIR 2020). Arrays may lie on disk and are read through the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranked", "VectorSet", "best_of", "faiss_ready"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_BLOCK_VECTORS = 65_536
"""Vectors gathered at once: 128 MiB at 512 dimensions."""
_MANY_QUERIES = 8
"""From so many on a matrix product is faster than FAISS, four times for 64 queries of 120,000 x 512."""


@dataclass(frozen=True)
class Ranked:
    """Rows (n,), most alike first, with their similarities (n,) and the most alike place (n,) of each."""

    rows: Rows
    similarities: Floats
    places: Rows

    def first(self, n: int) -> Ranked:
        """The first ``n``."""
        return Ranked(self.rows[:n], self.similarities[:n], self.places[:n])


def faiss_ready() -> None:
    """Give FAISS the threads of this process; it has its own OpenMP beside that of torch."""
    import faiss

    from wetread.runtime import thread_count

    faiss.omp_set_num_threads(thread_count())


class VectorSet:
    """The vectors of an index: arrays (n, places, D), float32 or float16, one after the other."""

    def __init__(self, arrays: Sequence[NDArray[np.generic]]) -> None:
        self.arrays = tuple(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def places(self) -> int:
        """Vectors of each case."""
        return int(self.arrays[0].shape[1]) if self.arrays else 1

    def take(self, rows: Rows) -> Floats:
        """Gather rows, float32 (n, places, D), in their order."""
        if len(self.arrays) == 1:
            return np.asarray(self.arrays[0][rows], dtype=np.float32)
        out: Floats = np.empty((len(rows), *self.arrays[0].shape[1:]), dtype=np.float32)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for number, array in enumerate(self.arrays):
            mine = which == number
            out[mine] = array[rows[mine] - self.starts[number]]
        return out

    def blocks(self, rows: Rows | None, begin: int = 0) -> Iterator[tuple[Rows | None, int, Floats]]:
        """Yield (rows, first row, vectors): of ``rows``, or of all from ``begin`` on, where rows is None."""
        step = max(1, _BLOCK_VECTORS // self.places)
        if rows is not None:
            for at in range(0, len(rows), step):
                yield rows[at : at + step], 0, self.take(rows[at : at + step])
            return
        for start, array in zip(self.starts, self.arrays, strict=False):
            offset = max(0, begin - int(start))
            for at in range(offset, len(array), step):
                yield None, int(start) + at, np.asarray(array[at : at + step], dtype=np.float32)

    def nearest(self, queries: Floats, n: int, rows: Rows | None = None, begin: int = 0) -> list[Ranked]:
        """Compare single vectors ``queries`` (B, D) with all cases (or ``rows``); ``places`` must be 1."""
        best: tuple[Floats, Rows] | None = None
        for numbers, first, block in self.blocks(rows, begin):
            similar, at = _block_nearest(queries, block.reshape(len(block), -1), n)
            found = at + first if numbers is None else numbers[at]
            best = _merged(best, similar, found, n)
        if best is None:
            return [_NOTHING for _ in queries]
        return [Ranked(ids, values, np.zeros(len(ids), np.int64)) for values, ids in zip(*best, strict=True)]

    def score(self, query: Floats, rows: Rows | None = None, begin: int = 0) -> Ranked:
        """Compare all places of one query (Q, D) with all cases (or ``rows``), unsorted."""
        parts = []
        for numbers, first, block in self.blocks(rows, begin):
            ids = np.arange(first, first + len(block)) if numbers is None else numbers
            cosine = block.reshape(-1, block.shape[-1]) @ query.T
            cosine = cosine.reshape(len(block), -1, len(query))  # (n, places, Q)
            parts.append((ids, cosine.max(1).mean(1), cosine.max(2).argmax(1)))
        if not parts:
            return _NOTHING
        ids, values, places = (np.concatenate(one) for one in zip(*parts, strict=True))
        return Ranked(ids.astype(np.int64), values.astype(np.float32), places.astype(np.int64))


_NOTHING = Ranked(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))


def _block_nearest(queries: Floats, block: Floats, n: int) -> tuple[Floats, Rows]:
    """The ``n`` most alike of one block, (B, n) each, sorted: FAISS for few queries, one product for many."""
    n = min(n, len(block))
    if len(queries) < _MANY_QUERIES:
        import faiss

        faiss_ready()
        similar, at = faiss.knn(queries, block, n, metric=faiss.METRIC_INNER_PRODUCT)
        return similar, at
    cosine = queries @ block.T
    at = np.argpartition(-cosine, n - 1, axis=1)[:, :n] if n < len(block) else np.tile(np.arange(n), (len(queries), 1))
    similar = np.take_along_axis(cosine, at, 1)
    order = np.lexsort((at, -similar), axis=1)
    return np.take_along_axis(similar, order, 1), np.take_along_axis(at, order, 1)


def best_of(scored: Ranked, n: int) -> Ranked:
    """The ``n`` most alike, sorted; equal ones in the order of their rows."""
    if len(scored.rows) > n:
        kept = np.argpartition(-scored.similarities, n - 1)[:n]
        scored = Ranked(scored.rows[kept], scored.similarities[kept], scored.places[kept])
    order = np.lexsort((scored.rows, -scored.similarities))
    return Ranked(scored.rows[order], scored.similarities[order], scored.places[order])


def _merged(best: tuple[Floats, Rows] | None, values: Floats, rows: Rows, n: int) -> tuple[Floats, Rows]:
    if best is None:
        return values, rows
    both, ids = np.concatenate([best[0], values], 1), np.concatenate([best[1], rows], 1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(both, order, 1), np.take_along_axis(ids, order, 1)
