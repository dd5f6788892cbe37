"""What a network trains on: targets from the manifest, pixels decoded once and cached.

Pixels are kept at the input geometry as uint16 (range 0-65535 for [0, 1]), so that training,
validation and reading see the same resampling.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, ImageRefused, expected
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.guide import Guide, Hidden
from wetread.models.inputs import fit_pixels
from wetread.provenance import file_sha256
from wetread.runtime import thread_count
from wetread.training.store import Array, ArrayStore
from wetread.types import Image

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LabelledImages",
    "Progress",
    "gather",
    "labels_of",
    "refuse_missing_classes",
    "targets_of",
    "to_float",
]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) while long work goes on."""

_WHITE = 65535
Pixels = NDArray[np.float32]
Work = Callable[[Image, str], Array]
"""Makes an array of an image and the sha256 of its file."""


@dataclass(frozen=True)
class LabelledImages:
    """Rows of a manifest with their pixels and targets.

    ``pixels``: uint16 (N, height, width). ``targets``: float32 (N, outputs), 1, 0 or NaN
    (unknown). ``names``: (N,) sha256 of what is seen: the file, or file and guide. ``organs``: bool (N, height,
    width), for guides that need the organ in training alone.
    """

    table: pd.DataFrame
    pixels: NDArray[np.uint16]
    targets: NDArray[np.float32]
    names: tuple[str, ...]
    organs: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: NDArray[np.intp]) -> LabelledImages:
        """The images at ``index``, in that order."""
        names = tuple(self.names[i] for i in index)
        organs = None if self.organs is None else self.organs[index]
        return LabelledImages(self.table.iloc[index], self.pixels[index], self.targets[index], names, organs)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each image (N,); an image without one is its own patient."""
        filled = self.table["patient"].fillna(self.table["path"])
        return filled.astype(str).to_numpy(dtype=np.str_)


def labels_of(meta: DatasetMeta) -> tuple[str, ...]:
    """Names of the outputs: the positive class of a binary task, else all classes.

    Raises:
        DatasetRefused: the data set has no labels.
    """
    if not meta.labelled:
        raise DatasetRefused(expected("a labelled data set", "no classes", "import it with a label column"))
    return meta.classes[1:] if meta.task == "binary" else meta.classes


def targets_of(table: pd.DataFrame, meta: DatasetMeta) -> NDArray[np.float32]:
    """Targets float32 (N, outputs): 1, 0, or NaN where the label is unknown."""
    labels = labels_of(meta)
    if meta.task == "multilabel":
        columns = [table[f"{LABEL_PREFIX}{label}"].astype("Float32") for label in labels]
        return np.stack([column.to_numpy(dtype=np.float32, na_value=np.nan) for column in columns], axis=1)
    truth = table["label"]
    columns = [(truth == label).astype(float).where(truth.notna()) for label in labels]
    return np.stack([column.to_numpy(dtype=np.float32, na_value=np.nan) for column in columns], axis=1)


def refuse_missing_classes(targets: NDArray[np.float32], labels: tuple[str, ...], part: str) -> None:
    """Refuse targets (N, outputs) in which a label is the same in all known images of the ``part``.

    Raises:
        DatasetRefused: names the label.
    """
    for label, column in zip(labels, targets.T, strict=True):
        positive, negative = int((column == 1).sum()), int((column == 0).sum())
        if not positive or not negative:
            raise DatasetRefused(
                expected(
                    f"{part} images of every class",
                    f"{positive} with and {negative} without '{label}'",
                    "check the labels and the split",
                )
            )


def to_float(pixels: NDArray[np.uint16]) -> Tensor:
    """Turn uint16 (N, H, W) into float32 (N, 1, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / _WHITE)[:, None]


def gather(
    manifest: Manifest,
    table: pd.DataFrame,
    spec: InputSpec,
    cache: Path | None,
    progress: Progress | None = None,
    *,
    guide: Guide | Hidden | None = None,
) -> LabelledImages:
    """Decode (or fetch from the cache) the images of ``table`` at the geometry of ``spec``, guided if so asked.

    Raises:
        DatasetRefused: images that cannot be read (names the first and how many), or that the guide's segmenter
            has learned.
    """
    targets = targets_of(table, manifest.meta)
    paths = [manifest.path_of(str(path)) for path in table["path"]]
    files = _contents(paths)
    guides = {name: guide.unseen(name) for name in files} if guide else {}  # refuses before anything is decoded
    source = _Source(tuple(zip(paths, files, strict=True)), spec, cache, progress)
    names, organs = files, None
    if guide and guide.changes_pixels:  # what is seen depends on the guide, and features have these names too
        names = [hashlib.sha256(f"{name} {guide.key}".encode()).hexdigest() for name in files]
        pixels = source.pixels(names, lambda image, name: guides[name].pixels(image))
    else:
        pixels = source.pixels(names, lambda image, _: image.pixels)
    if isinstance(guide, Guide) and not guide.changes_pixels:
        organs = source.organs(guide, guides)
    return LabelledImages(table, pixels, targets, tuple(names), organs)


@dataclass(frozen=True)
class _Source:
    """Files as (path, sha256), and how arrays are made of them; arrays that are stored are not made again."""

    files: tuple[tuple[Path, str], ...]
    spec: InputSpec
    cache: Path | None
    progress: Progress | None

    def pixels(self, names: list[str], seen: Callable[[Image, str], Pixels]) -> NDArray[np.uint16]:
        """What is seen of each image, at the geometry of the input: uint16 (N, height, width), stored as ``names``."""

        def work(image: Image, name: str) -> Array:
            return np.asarray(np.rint(fit_pixels(seen(image, name), self.spec).clip(0, 1) * _WHITE), np.uint16)

        return self._rows(names, "pixels-1", work, "decoding images").astype(np.uint16, copy=False)

    def organs(self, guide: Guide, guides: Mapping[str, Guide | Hidden]) -> NDArray[np.bool_]:
        """The area of the guide's organ in each image, bool (N, height, width), by the guide of each file."""

        def work(image: Image, name: str) -> Array:
            area = cast(Guide, guides[name]).area(image).astype(np.float32)
            return np.asarray(fit_pixels(area, self.spec) >= 0.5)

        what = f"organs-1 {guide.segmenter.card.sha256} {guide.spec.organ} {guide.spec.margin}"
        names = [name for _, name in self.files]
        return self._rows(names, what, work, f"finding {guide.spec.organ}").astype(np.bool_, copy=False)

    def _rows(self, names: list[str], what: str, work: Work, stage: str) -> Array:
        geometry = f"{self.spec.height}x{self.spec.width}-{self.spec.fit}"
        key = hashlib.sha256(f"{what} {geometry}".encode()).hexdigest()[:16]
        store = ArrayStore(self.cache / "pixels" / key if self.cache else None)
        return store.rows(names, lambda wanted: self._decode(wanted, work, stage))

    def _decode(self, wanted: list[int], work: Work, stage: str) -> Iterator[Array]:
        """Yield one row per wanted file, decoded a little ahead in threads; refuse at the end if any failed."""
        failed: list[str] = []

        def one(index: int) -> Array:
            path, name = self.files[index]
            try:
                return work(load_image(path), name)
            except ImageRefused as error:
                failed.append(f"{path.name} ({error})")
                return np.zeros((self.spec.height, self.spec.width), dtype=np.uint16)

        for done, row in enumerate(_ahead(one, wanted), 1):
            if failed:
                break
            if self.progress:
                self.progress(stage, done, len(wanted))
            yield row
        if failed:
            raise _unreadable(len(wanted), failed[0])


def _contents(paths: list[Path]) -> list[str]:
    """Return the sha256 of each file as it is now: the manifest's may be older than the file (1 GB/s)."""
    names = []
    for path in paths:
        try:
            names.append(file_sha256(path))
        except OSError as error:
            raise _unreadable(len(paths), f"{path.name} ({error.strerror or type(error).__name__})") from error
    return names


def _unreadable(count: int, first: str) -> DatasetRefused:
    return DatasetRefused(
        expected(
            f"{count} readable images",
            f"one that is not: {first}",
            "run `wetread dataset check` and leave it out",
        )
    )


def _ahead(work: Callable[[int], Array], wanted: Iterable[int]) -> Iterator[Array]:
    """Map in threads, a bounded number ahead, results in order."""
    workers = thread_count()
    with ThreadPoolExecutor(workers) as pool:
        queue: deque[Future[Array]] = deque()
        for index in wanted:
            queue.append(pool.submit(work, index))
            if len(queue) > 8 * workers:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
