"""What a network trains on: targets from the manifest, pixels decoded once and cached.

Pixels are kept at the input geometry as uint16 (range 0-65535 for [0, 1]), so that training,
validation and reading see the same resampling.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, ImageRefused, expected
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.guide import Guide
from wetread.models.inputs import fit_pixels
from wetread.provenance import file_sha256
from wetread.runtime import thread_count
from wetread.training.store import Array, ArrayStore

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


@dataclass(frozen=True)
class LabelledImages:
    """Rows of a manifest with their pixels and targets.

    ``pixels``: uint16 (N, height, width). ``targets``: float32 (N, outputs), 1, 0 or NaN
    (unknown). ``names``: (N,) sha256 of what is seen: the file, or file and guide.
    """

    table: pd.DataFrame
    pixels: NDArray[np.uint16]
    targets: NDArray[np.float32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    def take(self, index: NDArray[np.intp]) -> LabelledImages:
        """The images at ``index``, in that order."""
        names = tuple(self.names[i] for i in index)
        return LabelledImages(self.table.iloc[index], self.pixels[index], self.targets[index], names)

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
    guide: Guide | None = None,
) -> LabelledImages:
    """Decode (or fetch from the cache) the images of ``table`` at the geometry of ``spec``, guided if so asked.

    Raises:
        DatasetRefused: images that cannot be read; names the first and how many.
    """
    targets = targets_of(table, manifest.meta)
    paths = [manifest.path_of(str(path)) for path in table["path"]]
    names = _contents(paths)
    if guide:  # what is seen of a file depends on the guide, and features are cached by these names too
        names = [hashlib.sha256(f"{name} {guide.key}".encode()).hexdigest() for name in names]
    geometry = f"{spec.height}x{spec.width}-{spec.fit}"
    key = hashlib.sha256(f"pixels-1 {geometry}".encode()).hexdigest()[:16]
    store = ArrayStore(cache / "pixels" / key if cache else None)
    pixels = store.rows(names, lambda wanted: _decode([paths[i] for i in wanted], spec, progress, guide))
    return LabelledImages(table, pixels.astype(np.uint16, copy=False), targets, tuple(names))


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


def _decode(
    paths: list[Path], spec: InputSpec, progress: Progress | None, guide: Guide | None = None
) -> Iterator[Array]:
    """Yield one row per path, decoded a little ahead in threads; refuse at the end if any failed."""
    failed: list[str] = []

    def one(path: Path) -> Array:
        try:
            image = load_image(path)
            pixels = fit_pixels(guide.pixels(image) if guide else image.pixels, spec)
        except ImageRefused as error:
            failed.append(f"{path.name} ({error})")
            return np.zeros((spec.height, spec.width), dtype=np.uint16)
        scaled: Array = np.rint(pixels.clip(0, 1) * _WHITE).astype(np.uint16)
        return scaled

    for done, row in enumerate(_ahead(one, paths), 1):
        if failed:
            break
        if progress:
            progress("decoding images", done, len(paths))
        yield row
    if failed:
        raise _unreadable(len(paths), failed[0])


def _ahead(work: Callable[[Path], Array], paths: Iterable[Path]) -> Iterator[Array]:
    """Map in threads, a bounded number ahead, results in order."""
    workers = thread_count()
    with ThreadPoolExecutor(workers) as pool:
        queue: deque[Future[Array]] = deque()
        for path in paths:
            queue.append(pool.submit(work, path))
            if len(queue) > 8 * workers:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
