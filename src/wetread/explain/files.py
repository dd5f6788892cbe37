"""Heat maps of files on disk: one overlay PNG, one raw map and one record for each map.

The raw map is the ``.npy`` of :class:`~wetread.explain.base.Explanation`'s ``map``, float32
(h, w) at the resolution of the layer; the record says how it lies on the image.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wetread.errors import ExplanationFailed, ImageRefused
from wetread.explain.base import Explanation, Target
from wetread.explain.cam import explain_batch
from wetread.explain.localise import boxes_of
from wetread.explain.overlay import overlay_png
from wetread.imaging import DEFAULT_BUDGET_BYTES, load_image
from wetread.models.predict import Reader
from wetread.types import Box, Image, Record

__all__ = ["Explained", "MapFailure", "MapRecord", "explain_files", "usable_targets"]

_log = logging.getLogger(__name__)

_BATCH = 8
"""Images held at once: a detector of 3000 x 2500 pixels takes 30 MB as float32."""


class MapRecord(Record):
    """One heat map on disk; ``overlay`` and ``map`` are file names beside the record.

    ``probability`` is the calibrated probability (0-1) of ``label``; ``boxes`` are in pixels of
    the image; ``scale`` is the maximum of the raw map and ``error`` as in ``Explanation``.
    """

    image: str
    rows: int
    columns: int
    label: str
    probability: float
    method: str
    layer: str
    overlay: str
    map: str
    map_shape: tuple[int, int]
    fit: str
    scale: float
    error: float | None
    boxes: tuple[Box, ...]
    limits: tuple[str, ...]


class MapFailure(Record):
    """A file or a map that failed; ``label`` and ``method`` are empty for a whole file."""

    image: str
    label: str = ""
    method: str = ""
    reason: str


@dataclass(frozen=True)
class Explained:
    """What came of a batch of files."""

    maps: tuple[MapRecord, ...]
    failures: tuple[MapFailure, ...]


def usable_targets(reader: Reader, targets: Sequence[Target]) -> tuple[list[Target], list[str]]:
    """Return the targets that this reader's network allows, and a note for each that it does not.

    Raises:
        ExplanationFailed: it allows none of them.
    """
    import torch

    probe = torch.rand(1, 1, reader.input.height, reader.input.width, generator=torch.Generator().manual_seed(0))
    forward = reader.forward(probe)
    kept: list[Target] = []
    refused: list[ExplanationFailed] = []
    for target in targets:
        try:
            explain_batch(reader, forward, target, [(reader.input.height, reader.input.width)], probe)
        except ExplanationFailed as failure:
            refused.append(failure)
        else:
            kept.append(target)
    if not kept and refused:
        raise refused[0]
    return kept, list(dict.fromkeys(str(failure) for failure in refused))


def explain_files(
    reader: Reader,
    files: Sequence[Path],
    targets: Sequence[Target],
    out: Path,
    *,
    threshold: float | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    advance: Callable[[int, int], None] | None = None,
) -> Explained:
    """Explain every target for every file; write overlays and maps into ``out``, which exists.

    ``threshold`` as in ``boxes_from_heat``; ``budget_bytes`` as in ``load_image``; ``advance`` is
    called with (done, total).

    Raises:
        ImageRefused: there is one file only, and it cannot be read.
    """
    done = _Done(out, threshold)
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        loaded = list(_load(part, done.failures, budget_bytes, alone=len(files) == 1))
        if loaded:
            done.explain(reader, loaded, targets)
        if advance is not None:
            advance(start + len(part), len(files))
    return Explained(tuple(done.maps), tuple(done.failures))


def _load(
    files: Sequence[Path], failures: list[MapFailure], budget_bytes: int, *, alone: bool
) -> Iterator[tuple[Path, Image]]:
    """Yield files with their images; what cannot be read goes to ``failures``, or is raised if ``alone``."""
    for file in files:
        try:
            yield file, load_image(file, budget_bytes=budget_bytes)
        except ImageRefused as refusal:
            if alone:
                raise
            _log.warning("%s: %s", file.name, refusal)
            failures.append(MapFailure(image=file.name, reason=str(refusal)))


def _plain(text: str) -> str:
    """Turn any label or stem into a part of a file name."""
    return re.sub(r"[^\w+-]+", "-", text).strip("-") or "image"


class _Done:
    """The maps written to ``out`` so far, and what failed."""

    def __init__(self, out: Path, threshold: float | None) -> None:
        self.out = out
        self.threshold = threshold
        self.maps: list[MapRecord] = []
        self.failures: list[MapFailure] = []
        self._stems: set[str] = set()

    def explain(self, reader: Reader, loaded: Sequence[tuple[Path, Image]], targets: Sequence[Target]) -> None:
        """Run the reader once on ``loaded`` and write a map for each image and target."""
        images = [image for _, image in loaded]
        masks = reader.organ_masks(images)
        batch = reader.prepare(images, masks)
        forward = reader.forward(batch)
        probabilities = reader.probabilities(forward)
        sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in images]
        stems = [self._stem(file) for file, _ in loaded]
        for target in targets:
            shares = probabilities[:, reader.labels.index(target.label)]
            results = explain_batch(reader, forward, target, sizes, batch, reader.windows(masks))
            for image, stem, share, result in zip(images, stems, shares, results, strict=True):
                if isinstance(result, Explanation):
                    self.maps.append(self._write(image, stem, result, float(share)))
                else:
                    failed = MapFailure(
                        image=image.facts.name, label=target.label, method=target.method, reason=str(result)
                    )
                    self.failures.append(failed)

    def _stem(self, file: Path) -> str:
        """Return a name that no other file has: the same one may lie in several folders."""
        plain = _plain(file.stem)
        stem, count = plain, 1
        while stem in self._stems:
            count += 1
            stem = f"{plain}-{count}"
        self._stems.add(stem)
        return stem

    def _write(self, image: Image, stem: str, explanation: Explanation, probability: float) -> MapRecord:
        name = f"{stem}.{_plain(explanation.label)}.{explanation.method}"
        boxes = boxes_of(explanation, self.threshold)
        (self.out / f"{name}.png").write_bytes(overlay_png(image.pixels, explanation, boxes))
        np.save(self.out / f"{name}.npy", explanation.map, allow_pickle=False)
        height, width = explanation.map.shape
        return MapRecord(
            image=image.facts.name,
            rows=explanation.size[0],
            columns=explanation.size[1],
            label=explanation.label,
            probability=probability,
            method=explanation.method,
            layer=explanation.layer,
            overlay=f"{name}.png",
            map=f"{name}.npy",
            map_shape=(height, width),
            fit=explanation.input.fit,
            scale=explanation.scale,
            error=explanation.error,
            boxes=boxes,
            limits=explanation.limits,
        )
