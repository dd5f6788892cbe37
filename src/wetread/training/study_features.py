"""Embeddings of the images of studies, made a few at a time: pixels are dropped as soon as they are seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, expected
from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.provenance import file_sha256
from wetread.training.data import Progress, gather, to_float
from wetread.training.features import encoder_sha256
from wetread.training.store import Array, ArrayStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["embed_images"]


def embed_images(
    networks: Sequence[Network],
    manifest: Manifest,
    table: pd.DataFrame,
    spec: InputSpec,
    *,
    held: int = 16,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings float32 (M, K, D) of the images of ``table`` by K encoders, from ``cache`` where stored.

    ``held``: images decoded and in memory at once; the vectors of all are kept (5 kB each for 1280 features).

    Raises:
        DatasetRefused: an image that cannot be read.
    """
    names = _contents(manifest, table)
    found = []
    for network in networks:
        network.eval()
        folder = None
        if cache:
            key = f"study-features-1 {encoder_sha256(network)} {spec.model_dump_json()}"
            folder = cache / "features" / hashlib.sha256(key.encode()).hexdigest()[:16]
        work = _Work(network, manifest, table.reset_index(drop=True), spec, held, progress)
        found.append(ArrayStore(folder).rows(names, work.rows).astype(np.float32, copy=False))
    return np.stack(found, axis=1)


def _contents(manifest: Manifest, table: pd.DataFrame) -> list[str]:
    names = []
    for path in table["path"]:
        file = manifest.path_of(str(path))
        try:
            names.append(file_sha256(file))
        except OSError as error:
            got = f"one that is not: {file.name} ({error.strerror or type(error).__name__})"
            raise DatasetRefused(expected(f"{len(table)} readable images", got, "check the path")) from error
    return names


class _Work:
    """Decodes and embeds the rows that are asked for, ``held`` at a time."""

    def __init__(
        self,
        network: Network,
        manifest: Manifest,
        table: pd.DataFrame,
        spec: InputSpec,
        held: int,
        progress: Progress | None,
    ) -> None:
        self.network, self.manifest, self.table = network, manifest, table
        self.spec, self.held, self.progress = spec, held, progress

    def rows(self, wanted: list[int]) -> Iterator[Array]:
        """Yield the embedding of each wanted row, in order."""
        for start in range(0, len(wanted), self.held):
            part = self.table.iloc[wanted[start : start + self.held]]
            pixels = gather(self.manifest, part, self.spec, None).pixels
            with torch.inference_mode():
                shown = normalise(to_float(pixels), self.spec)
                yield from self.network.embed(self.network.features(shown)).numpy()
            if self.progress:
                self.progress("computing features", min(start + self.held, len(wanted)), len(wanted))
