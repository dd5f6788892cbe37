"""Images to embeddings: of the whole image, or one for each place of the last feature maps.

Embeddings come from the reader's first network and its unzoomed view, as explanations by example and the gate have
them. An image that cannot be read, or whose embedding is not finite, is listed and left out: it never ends a batch and
never becomes a vector. What is computed is kept by the hash of the file and of the encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.errors import UsageError, WetreadError, expected
from wetread.imaging import DEFAULT_BUDGET_BYTES, load_image
from wetread.models.inputs import fit_pixels, normalise, placement, to_batch
from wetread.models.predict import Reader
from wetread.provenance import file_sha256
from wetread.retrieval.records import IndexCard, Kind, ReaderMark, Skipped, unit
from wetread.retrieval.store import key_of
from wetread.runtime import in_order, thread_count
from wetread.training.data import Progress
from wetread.training.features import encoder_sha256
from wetread.training.store import Array, ArrayStore
from wetread.types import Box, Image

__all__ = [
    "Embedded",
    "box_of_place",
    "embed_files",
    "embed_image",
    "load_embedder",
    "mark_of",
    "places_in",
    "places_of",
    "study_pooling",
]

_BATCH, _KEPT = 32, 1024
_WHITE = 65535
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedded:
    """``vectors`` (M, places, D) of length 1 for the files ``kept`` (M,), numbers of those given.

    ``hashes``: sha256 of every file given, empty for those that could not be opened. float16 where places are many.
    """

    vectors: NDArray[np.generic]
    kept: NDArray[np.int64]
    hashes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class FeatureShelf(ArrayStore):
    """The cache of embeddings, asked for what it has: files that cannot be read have no row to fill in."""

    def find(self, names: Sequence[str]) -> dict[str, Array]:
        """The rows called ``names`` that are stored."""
        return self._stored(set(names))

    def keep(self, rows: dict[str, Array]) -> None:
        """Store rows by name."""
        if rows:
            self._write(rows)


def load_embedder(name: str | Path, shelves: Sequence[Path] = ()) -> Reader:
    """Load a reader for its embeddings alone; of a reader of studies, what looks at single images.

    Raises:
        BundleRefused: no such reader, or a damaged one.
    """
    from wetread.models.bundle import find_reader, load_card, load_reader, load_study_reader

    folder = find_reader(name, shelves)
    return load_reader(folder) if load_card(folder).study is None else load_study_reader(folder).reader


def mark_of(reader: Reader, source: str = "") -> ReaderMark:
    """What an index writes down of the reader that made its embeddings."""
    card = reader.card
    guide = reader.guide.key if reader.guide else ""
    key = key_of(card.sha256, card.input.model_dump_json(), guide)
    return ReaderMark(
        name=card.name, version=card.version, sha256=card.sha256, embedding=key, source=source or card.name
    )


def places_of(reader: Reader, kind: Kind) -> tuple[int, int]:
    """Rows and columns of the grid of embeddings: (1, 1) for whole images.

    Raises:
        UsageError: the network has no feature maps whose mean is its embedding, or its guide cuts images.
    """
    if kind == "pooled":
        return 1, 1
    if reader.guide is not None and reader.guide.spec.kind == "crop":
        raise UsageError(
            expected("a reader that sees whole images for --local", "one that is shown a part", "leave --local out")
        )
    spec = reader.input
    maps = reader.forward(torch.rand(1, 1, spec.height, spec.width), views=1).features[0]
    if maps.ndim != 4 or maps.shape[2] * maps.shape[3] == 1:
        raise UsageError(
            expected("a network with feature maps for --local", reader.card.architecture, "leave --local out")
        )
    return int(maps.shape[2]), int(maps.shape[3])


def embed_image(reader: Reader, image: Image, kind: Kind = "pooled", region: Box | None = None) -> Floats:
    """Return the embedding of one image: (1, D), or (places, D), those whose centre lies in ``region`` alone.

    Raises:
        UsageError: a region for whole-image embeddings, or one outside of the image.
    """
    if region is not None and kind != "local":
        raise UsageError(
            expected("an index of local embeddings for --region", "one of whole images", "build one with --local")
        )
    batch = reader.prepare([image])
    if kind == "pooled":
        return np.asarray(reader.forward(batch, views=1).embeddings.numpy(), dtype=np.float32)
    grid, vectors = _local(reader, batch)
    if region is None:
        return np.asarray(vectors[0])
    rows, columns = image.pixels.shape
    chosen = places_in(region, grid, (rows, columns), reader)
    return np.asarray(vectors[0][chosen])


def places_in(region: Box, grid: tuple[int, int], size: tuple[int, int], reader: Reader) -> NDArray[np.int64]:
    """Places of a grid whose centres lie in ``region``, the nearest one if none; ``size``: (rows, columns).

    Raises:
        UsageError: the region does not touch the image.
    """
    rows, columns = size
    left, top = max(0.0, region.x), max(0.0, region.y)
    right, bottom = min(float(columns), region.x + region.width), min(float(rows), region.y + region.height)
    if left >= right or top >= bottom:
        raise UsageError(
            expected(f"a region inside of {columns} x {rows} pixels", region.model_dump(), "correct --region")
        )
    y0, x0, height, width = placement(rows, columns, reader.input)
    centre_y = ((np.arange(grid[0]) + 0.5) / grid[0] * reader.input.height - y0) / height * rows
    centre_x = ((np.arange(grid[1]) + 0.5) / grid[1] * reader.input.width - x0) / width * columns
    y, x = (one.ravel() for one in np.meshgrid(centre_y, centre_x, indexing="ij"))
    inside = np.flatnonzero((x >= left) & (x < right) & (y >= top) & (y < bottom))
    if len(inside):
        return inside
    return np.array([np.argmin((x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2)])


def box_of_place(place: int, card: IndexCard, size: tuple[int, int]) -> Box:
    """The part of an image of ``size`` (rows, columns) that one place of the grid stands for."""
    rows, columns = size
    y0, x0, height, width = placement(rows, columns, card.input)
    row, column = divmod(place, card.places[1])
    cell_h, cell_w = card.input.height / card.places[0], card.input.width / card.places[1]
    top, bottom = ((row + step) * cell_h / height * rows - y0 / height * rows for step in (0, 1))
    left, right = ((column + step) * cell_w / width * columns - x0 / width * columns for step in (0, 1))
    top, bottom = (float(np.clip(value, 0, rows)) for value in (top, bottom))
    left, right = (float(np.clip(value, 0, columns)) for value in (left, right))
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def embed_files(
    reader: Reader,
    files: Sequence[Path],
    kind: Kind = "pooled",
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> Embedded:
    """Embed files, those that cannot be read left out and listed.

    Raises:
        UsageError: see :func:`places_of`.
    """
    grid = places_of(reader, kind)
    skipped: dict[int, Skipped] = {}
    hashes = _hashes(files, skipped)
    shelf = shelf_of(reader, kind, cache)
    names = [_name(reader, sha256) for sha256 in hashes]
    found = shelf.find([name for name, sha256 in zip(names, hashes, strict=True) if sha256])
    wanted = [i for i, name in enumerate(names) if hashes[i] and name not in found]
    work = _Work(reader, kind, budget_bytes)
    fresh: dict[str, Array] = {}
    for done, (i, row) in enumerate(work.rows(files, hashes, wanted, skipped), 1):
        if row is not None:
            fresh[names[i]] = row
        if len(fresh) >= _KEPT:
            shelf.keep(fresh)
            found |= fresh
            fresh = {}
        if progress:
            progress("embedding images", done, len(wanted))
    shelf.keep(fresh)
    found |= fresh
    return _gathered(files, names, (hashes, found), skipped, grid)


def _gathered(
    files: Sequence[Path],
    names: Sequence[str],
    made: tuple[Sequence[str], dict[str, Array]],
    skipped: dict[int, Skipped],
    grid: tuple[int, int],
) -> Embedded:
    hashes, found = made
    kept: list[int] = []
    for i, name in enumerate(names):
        if i in skipped:
            continue
        if not np.isfinite(found[name]).all():
            reason = expected("a finite embedding", "NaN or infinity", "check the reader's weights")
            skipped[i] = Skipped(path=str(files[i]), error="WetreadError", reason=reason)
            continue
        kept.append(i)
    vectors = np.empty((0, grid[0] * grid[1], 0), np.float32)
    if kept:
        stacked = np.stack([found[names[i]] for i in kept]).astype(np.float32)
        vectors = unit(stacked.reshape(len(kept), grid[0] * grid[1], -1))
    shown: NDArray[np.generic] = vectors if vectors.shape[1] == 1 else vectors.astype(np.float16)
    return Embedded(shown, np.array(kept, np.int64), tuple(hashes), tuple(skipped[i] for i in sorted(skipped)))


def _hashes(files: Sequence[Path], skipped: dict[int, Skipped]) -> list[str]:
    hashes = []
    for i, file in enumerate(files):
        try:
            hashes.append(file_sha256(file))
        except OSError as error:
            reason = expected("a readable file", f"'{error.strerror or type(error).__name__}'", "check the path")
            skipped[i] = Skipped(path=str(file), error="ImageRefused", reason=reason)
            hashes.append("")
    return hashes


def _name(reader: Reader, sha256: str) -> str:
    """What is seen of a file: the file, or file and guide; as the cache of training names it."""
    if reader.guide is None or not reader.guide.changes_pixels:
        return sha256
    return hashlib.sha256(f"{sha256} {reader.guide.key}".encode()).hexdigest()


def shelf_of(reader: Reader, kind: Kind, cache: Path | None) -> FeatureShelf:
    """Where embeddings of a reader are kept; pooled ones where training keeps its features. None: in memory."""
    if cache is None:
        return FeatureShelf(None)
    what = "features-1" if kind == "pooled" else "local-1"
    key = f"{what} {encoder_sha256(reader.networks[0])} {reader.input.model_dump_json()}"
    return FeatureShelf(cache / "features" / hashlib.sha256(key.encode()).hexdigest()[:16])


@dataclass(frozen=True)
class _Work:
    """Decodes ahead in threads and embeds in batches."""

    reader: Reader
    kind: Kind
    budget_bytes: int

    def rows(
        self, files: Sequence[Path], hashes: Sequence[str], wanted: Sequence[int], skipped: dict[int, Skipped]
    ) -> Iterator[tuple[int, Array | None]]:
        """Yield each wanted number with its embedding, None for one that was skipped."""

        def decode(i: int) -> tuple[int, Floats | None]:
            return i, self._decoded(i, files[i], hashes[i], skipped)

        waiting: list[tuple[int, Floats]] = []
        for i, pixels in in_order(decode, wanted, thread_count()):
            if pixels is None:
                yield i, None
                continue
            waiting.append((i, pixels))
            if len(waiting) == _BATCH:
                yield from self._embedded(waiting)
                waiting = []
        if waiting:
            yield from self._embedded(waiting)

    def _decoded(self, i: int, file: Path, sha256: str, skipped: dict[int, Skipped]) -> Floats | None:
        try:
            image = load_image(file, budget_bytes=self.budget_bytes)
            pixels = image.pixels
            if self.reader.guide is not None and self.reader.guide.changes_pixels:
                pixels = self.reader.guide.unseen(sha256).pixels(image)
            fitted = fit_pixels(pixels, self.reader.input)
            # Rounded as training rounds them, so that the caches are one.
            return np.asarray(np.rint(fitted.clip(0, 1) * _WHITE) / _WHITE, dtype=np.float32)
        except WetreadError as error:
            skipped[i] = Skipped(path=str(file), error=type(error).__name__, reason=str(error))
        except Exception as error:  # a decoder's own bug costs one file; its text may quote a header
            reason = expected("a readable image", f"{type(error).__name__} while decoding", "export it again")
            skipped[i] = Skipped(path=str(file), error=type(error).__name__, reason=reason)
        return None

    def _embedded(self, waiting: list[tuple[int, Floats]]) -> Iterator[tuple[int, Array]]:
        batch = to_batch([pixels for _, pixels in waiting], self.reader.input)
        if self.kind == "local":
            rows: NDArray[np.generic] = _local(self.reader, batch)[1].astype(np.float16)
        else:
            network = self.reader.networks[0]
            with torch.inference_mode():
                rows = network.embed(network.features(normalise(batch, self.reader.input))).numpy()
        yield from ((i, row) for (i, _), row in zip(waiting, rows, strict=True))


def _local(reader: Reader, batch: torch.Tensor) -> tuple[tuple[int, int], Floats]:
    """The grid of a batch (N, 1, H, W) and its vectors (N, places, D), row by row."""
    network = reader.networks[0]
    with torch.inference_mode():
        maps = network.features(normalise(batch, reader.input))  # (N, D, h, w)
    grid = (int(maps.shape[2]), int(maps.shape[3]))
    return grid, maps.flatten(2).transpose(1, 2).contiguous().numpy()


StudyPooling = Callable[[Floats], Floats]
"""From embeddings (V, D) of a study's views to one (D,): what a reader of studies may offer as ``study_embedding``."""


def study_pooling(reader: Reader) -> StudyPooling:
    """How a reader makes one embedding of a study: its own way, else the mean of the views' unit vectors."""
    own: StudyPooling | None = getattr(reader, "study_embedding", None)
    return own or (lambda vectors: np.asarray(unit(vectors).mean(0), dtype=np.float32))
