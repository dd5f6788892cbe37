"""Candidates among very many vectors: an inverted file with 8-bit codes (FAISS), compared again exactly afterwards.

Decided here: an inverted file and not a graph (HNSW), because it takes a minute to build where a graph takes an hour,
filters while it searches, and costs one byte for each number; the float32 vectors stay on disk for the second look.
How many cells are searched is chosen when it is built: as few as find :data:`RECALL` of what exact search finds for
points half way between two stored vectors. Those are harder than real queries, which lie nearer to some cases; stored
vectors themselves are far easier, and promise a recall that new images do not have. Source: Jegou, Douze & Schmid,
PAMI 2011 (inverted file).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, expected
from wetread.retrieval.exact import Floats, Rows, VectorSet, faiss_ready
from wetread.retrieval.records import AnnMark, unit

__all__ = ["CANDIDATES", "RECALL", "Ann", "build_ann", "list_count"]

logger = logging.getLogger(__name__)

RECALL, _NEAREST = 0.96, 10
"""Share of the ten nearest of the hard queries that the chosen number of cells must find."""
CANDIDATES = 100
"""Vectors compared again at least."""
_PER_CELL, _ITERATIONS, _TRIALS = 64, 10, 200
_PROBES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_ADD_VECTORS = 1 << 16


def list_count(vectors: int) -> int:
    """Cells of the inverted file: the power of two nearest to twice the root of the number of vectors."""
    return int(2 ** round(np.log2(2 * np.sqrt(max(vectors, 4)))))


class Ann:
    """A loaded approximate index; numbers are of vectors, ``places`` of them for each row."""

    def __init__(self, index: Any, probes: int) -> None:
        faiss_ready()
        self.index = index
        self.probes = probes

    @classmethod
    def read(cls, path: Path, mark: AnnMark) -> Ann:
        """Read an index from its file.

        Raises:
            DatasetRefused: FAISS cannot read it.
        """
        import faiss

        try:
            return cls(faiss.read_index(str(path)), mark.probes)
        except RuntimeError as error:
            raise DatasetRefused(
                expected(f"an index that FAISS can read in {path.name}", "another", "build it again")
            ) from error

    def candidates(self, queries: Floats, n: int, allowed: NDArray[np.uint8] | None = None) -> list[Rows]:
        """Numbers of about ``n`` near vectors of each query (B, D); ``allowed``: bits of those that count."""
        import faiss

        library: Any = faiss  # whose types do not know the arguments that its Python layer takes
        selector = None if allowed is None else library.IDSelectorBitmap(allowed)
        options = library.SearchParametersIVF(nprobe=self.probes, sel=selector)
        _, found = self.index.search(queries, n, params=options)
        return [row[row >= 0] for row in found]

    def bytes(self) -> NDArray[np.uint8]:
        """The index as bytes."""
        import faiss

        return np.asarray(faiss.serialize_index(self.index))

    def extend(self, vectors: VectorSet, begin: int) -> None:
        """Put the vectors of the rows from ``begin`` on into their cells."""
        for _, _, block in vectors.blocks(None, begin):
            flat = block.reshape(-1, block.shape[-1])
            for at in range(0, len(flat), _ADD_VECTORS):
                self.index.add(np.ascontiguousarray(flat[at : at + _ADD_VECTORS]))


def build_ann(vectors: VectorSet, seed: int = 0) -> Ann:
    """Divide the vectors into cells, code them, and choose how many cells are searched."""
    import faiss

    faiss_ready()
    generator = np.random.default_rng(seed)
    total = len(vectors) * vectors.places
    dimension = int(vectors.arrays[0].shape[-1])
    lists = list_count(total)
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        coarse, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = _ITERATIONS, _PER_CELL, seed
    rows = generator.permutation(len(vectors))[: -(-lists * _PER_CELL // vectors.places)]
    index.train(_flat(vectors, np.sort(rows)))
    ann = Ann(index, _PROBES[0])
    ann.extend(vectors, 0)
    ann.probes = _chosen_probes(ann, vectors, generator)
    return ann


def _flat(vectors: VectorSet, rows: Rows) -> Floats:
    taken = vectors.take(rows)
    return np.ascontiguousarray(taken.reshape(-1, taken.shape[-1]))


def _chosen_probes(ann: Ann, vectors: VectorSet, generator: np.random.Generator) -> int:
    """The fewest cells that find :data:`RECALL` of the ten nearest of points between two stored vectors."""
    count = min(_TRIALS, len(vectors) // 2)
    ends = vectors.take(generator.permutation(len(vectors))[: 2 * count])[:, 0]
    queries = unit(ends[:count] + ends[count:])
    flat = VectorSet([array.reshape(-1, 1, array.shape[-1]) for array in vectors.arrays])
    wanted = [ranked.rows for ranked in flat.nearest(queries, _NEAREST)]
    share = 0.0
    for probes in (one for one in _PROBES if one <= ann.index.nlist):
        ann.probes = probes
        found = ann.candidates(queries, CANDIDATES)
        share = float(np.mean([np.isin(want, have).mean() for want, have in zip(wanted, found, strict=True)]))
        logger.debug("%d of %d cells find %.4f", probes, ann.index.nlist, share)
        if share >= RECALL:
            return probes
    logger.warning("the approximate index finds %.0f %% of hard cases; searches may miss some", 100 * share)
    return ann.probes
