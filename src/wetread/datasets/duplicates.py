"""The same image twice: byte for byte, pixel for pixel, nearly, or mirrored.

Perceptual hashes (DCT pHash, 64 bits, imagehash) propose pairs and 32x32 thumbnails confirm them,
because radiographs of one region resemble each other: among the 5,840 chest radiographs of Kermany
et al. 10,401 pairs lie within 8 bits, of which 34 are copies; the others correlate 0.967 at most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.scan import THUMB

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_HAMMING", "MIN_CORRELATION", "Copies", "Pair", "find_copies"]

MAX_HAMMING = 8
"""Bits in which hashes of a pair may differ. Resized and JPEG q50 copies differ in 4 at most,
copies with gamma 0.8 in 8 (600 radiographs of each kind)."""
MIN_CORRELATION = 0.98
"""Of the thumbnails. Copies as above reach 0.995 and more, different radiographs 0.967 at most."""
_MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail (8 bit) below which a hash only describes noise."""
_BLOCK = 512
"""Rows compared at once: 512 x 100,000 hashes of 8 bytes are 400 MB at most."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of the scan, the bits in which their hashes differ and how thumbnails correlate."""

    first: int
    second: int
    distance: int
    correlation: float


@dataclass(frozen=True, slots=True)
class Copies:
    """Row numbers that belong together: groups of identical images, pairs of similar ones.

    ``near`` and ``mirrored`` hold no pair that ``exact`` has.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[Pair, ...]
    mirrored: tuple[Pair, ...]


def find_copies(scanned: pd.DataFrame) -> Copies:
    """Find copies among the rows of a scan; images that could not be read take no part."""
    exact = _exact(scanned)
    rows = np.flatnonzero(scanned["phash"].notna().to_numpy())
    if len(rows) < 2:
        return Copies(tuple(exact), (), ())
    flat = np.stack([np.frombuffer(t, np.uint8) for t in scanned["thumb"].iloc[rows]])
    thumbs = flat.reshape(-1, THUMB, THUMB)
    plain, mirrored = _hashes(scanned["phash"].iloc[rows]), _hashes(scanned["phash_mirrored"].iloc[rows])
    same = {pair for group in exact for pair in _pairs_of(group)}
    near = _confirmed(_close(plain, plain), thumbs, thumbs, rows)
    mirror = _confirmed(_close(plain, mirrored), thumbs, thumbs[:, :, ::-1], rows)
    near = [p for p in near if (p.first, p.second) not in same]
    taken = same | {(p.first, p.second) for p in near}
    mirror = [p for p in mirror if (p.first, p.second) not in taken]
    return Copies(tuple(exact), tuple(near), tuple(mirror))


def _exact(scanned: pd.DataFrame) -> list[tuple[int, ...]]:
    """Groups with the same decoded pixels; the same bytes decode to the same pixels."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(scanned["pixels_sha256"]):
        if isinstance(digest, str):
            groups[digest].append(row)
    return [tuple(g) for g in groups.values() if len(g) > 1]


def _pairs_of(group: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    return ((a, b) for i, a in enumerate(group) for b in group[i + 1 :])


def _hashes(column: pd.Series) -> NDArray[np.uint64]:
    return np.array([int(h, 16) for h in column], dtype=np.uint64)


def _close(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs (i < j) and their Hamming distance: int64, shape (pairs, 3)."""
    found = [np.empty((0, 3), np.int64)]
    for start in range(0, len(left), _BLOCK):
        bits = np.bitwise_count(left[start : start + _BLOCK, None] ^ right[None, start:])
        i, j = np.nonzero(bits <= MAX_HAMMING)
        ahead = i < j
        i, j = i[ahead], j[ahead]
        found.append(np.stack([i + start, j + start, bits[i, j].astype(np.int64)], axis=1))
    return np.concatenate(found)


def _confirmed(
    pairs: NDArray[np.int64],
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    rows: NDArray[np.int64],
) -> list[Pair]:
    confirmed = []
    for start in range(0, len(pairs), _BLOCK):
        part = pairs[start : start + _BLOCK]
        value = _correlation(left[part[:, 0]], right[part[:, 1]])
        for (i, j, bits), r in zip(part, value, strict=True):
            if r >= MIN_CORRELATION:
                confirmed.append(Pair(int(rows[i]), int(rows[j]), int(bits), round(float(r), 4)))
    return confirmed


def _correlation(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of thumbnails, shape (pairs,); 0 where one has next to no contrast."""
    a = left.reshape(len(left), -1).astype(np.float64)
    b = right.reshape(len(right), -1).astype(np.float64)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    spread = a.std(axis=1) * b.std(axis=1)
    enough = np.minimum(a.std(axis=1), b.std(axis=1)) >= _MIN_CONTRAST
    value = np.zeros(len(a))
    np.divide((a * b).mean(axis=1), spread, out=value, where=enough)
    return value
