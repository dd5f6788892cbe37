"""Heat maps of files on disk: one overlay PNG, one raw map and one record for each map; sheets that compare them.

The raw map is the ``.npy`` of :class:`~wetread.explain.base.Explanation`'s ``map``, float32
(h, w) at the resolution of the layer; the record says how it lies on the image.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wetread.errors import ExplanationFailed, ImageRefused
from wetread.explain.base import CAM_METHODS, Explanation, Options, Target
from wetread.explain.dispatch import check_target, explain_images
from wetread.explain.localise import boxes_of
from wetread.explain.overlay import overlay_png
from wetread.explain.sheet import Tile, film_tile, map_tile, notes_of, refused_tile, sheet_png
from wetread.imaging import DEFAULT_BUDGET_BYTES, load_image
from wetread.models.guide import Window
from wetread.models.predict import Forward, Reader
from wetread.types import Box, Image, Record

if TYPE_CHECKING:
    from wetread.explain.examples import CaseSet, Example, SimilarCases

__all__ = ["Explained", "MapFailure", "MapRecord", "Plan", "Refused", "explain_files", "usable_targets"]

_log = logging.getLogger(__name__)

_ALIKE = "Alike to the reader, not to a doctor: what it has not learned to see does not count."

_BATCH = 8
"""Images held at once: a detector of 3000 x 2500 pixels takes 30 MB as float32."""


class MapRecord(Record):
    """One heat map on disk; ``overlay`` and ``map`` are file names beside the record.

    ``probability`` is the calibrated probability (0-1) of ``label``; ``boxes`` are in pixels of
    the image; ``scale`` is the maximum of the raw map; ``error``, ``baseline``, ``passes`` and ``details`` as in
    ``Explanation``. ``milliseconds`` is the time of this map alone: for a class activation map without the forward
    pass that gave the probability, and its share where several images were explained at once.
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
    baseline: str
    passes: int
    details: dict[str, float]
    milliseconds: float


class MapFailure(Record):
    """A file or a map that failed; ``label`` and ``method`` are empty for a whole file."""

    image: str
    label: str = ""
    method: str = ""
    reason: str


@dataclass(frozen=True)
class Refused:
    """A target that the reader allows for no image, and why."""

    target: Target
    reason: str


@dataclass(frozen=True)
class Plan:
    """What to make of each file.

    ``refused``: what sheets say of targets left out. ``threshold`` as in ``boxes_from_heat``. ``sheets``: write one
    comparison sheet for each image and label. ``cases``: name ``neighbours`` similar ones of that set.
    """

    targets: Sequence[Target]
    options: Options = field(default_factory=Options)
    refused: Sequence[Refused] = ()
    threshold: float | None = None
    sheets: bool = False
    cases: CaseSet | None = None
    neighbours: int = 5


@dataclass(frozen=True)
class Explained:
    """What came of a batch of files; ``sheets`` are file names beside the records."""

    maps: tuple[MapRecord, ...]
    failures: tuple[MapFailure, ...]
    sheets: tuple[str, ...] = ()
    cases: tuple[SimilarCases, ...] = ()


def usable_targets(reader: Reader, targets: Sequence[Target]) -> tuple[list[Target], list[Refused]]:
    """Return the targets that this reader's network allows, and those that it does not, with the reason.

    Raises:
        UsageError: an unknown layer.
        ExplanationFailed: it allows none of them.
    """
    probe = torch.rand(1, 1, reader.input.height, reader.input.width, generator=torch.Generator().manual_seed(0))
    kept: list[Target] = []
    refused: list[Refused] = []
    for target in targets:
        try:
            check_target(reader, target, probe)
        except ExplanationFailed as failure:
            refused.append(Refused(target, str(failure)))
        else:
            kept.append(target)
    if not kept and refused:
        raise ExplanationFailed(refused[0].reason)
    return kept, refused


def explain_files(
    reader: Reader,
    files: Sequence[Path],
    plan: Plan,
    out: Path,
    *,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    advance: Callable[[int, int], None] | None = None,
) -> Explained:
    """Explain every target for every file; write overlays, maps and sheets into ``out``, which exists.

    ``budget_bytes`` as in ``load_image``; ``advance`` is called with (done, total) maps.

    Raises:
        ImageRefused: there is one file only, and it cannot be read.
    """
    done = _Done(reader, plan, out, _Count(len(files) * len(plan.targets), advance))
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        loaded = list(_load(part, done.failures, budget_bytes, alone=len(files) == 1))
        if loaded:
            done.explain(loaded)
        done.count.add((len(part) - len(loaded)) * len(plan.targets))
    return Explained(tuple(done.maps), tuple(done.failures), tuple(done.sheets), tuple(done.cases))


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


class _Count:
    """Maps done so far, told to ``advance``."""

    def __init__(self, total: int, advance: Callable[[int, int], None] | None) -> None:
        self.total = total
        self.done = 0
        self._advance = advance

    def add(self, count: int) -> None:
        self.done += count
        if self._advance is not None and count:
            self._advance(self.done, self.total)


@dataclass(frozen=True)
class _Shown:
    """A batch of images as the reader saw them, N each."""

    images: Sequence[Image]
    stems: Sequence[str]
    batch: Tensor
    forward: Forward
    windows: Sequence[Window | None]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, columns) of each image."""
        return [(image.pixels.shape[0], image.pixels.shape[1]) for image in self.images]

    def only(self, index: int) -> _Shown:
        """One of them."""
        part = slice(index, index + 1)
        forward = self.forward
        return _Shown(
            self.images[part],
            self.stems[part],
            self.batch[part],
            Forward(forward.logits[part], tuple(maps[part] for maps in forward.features), forward.embeddings[part]),
            self.windows[part],
        )


@dataclass(frozen=True, eq=False)
class _Result:
    """A map or the reason why there is none, and how long it took."""

    found: Explanation | ExplanationFailed
    milliseconds: float


class _Done:
    """The maps written to ``out`` so far, and what failed."""

    def __init__(self, reader: Reader, plan: Plan, out: Path, count: _Count) -> None:
        self.reader = reader
        self.plan = plan
        self.out = out
        self.count = count
        self.maps: list[MapRecord] = []
        self.failures: list[MapFailure] = []
        self.sheets: list[str] = []
        self.cases: list[SimilarCases] = []
        self._stems: set[str] = set()

    def explain(self, loaded: Sequence[tuple[Path, Image]]) -> None:
        """Run the reader once on ``loaded`` and write a map for each image and target."""
        images = [image for _, image in loaded]
        masks = self.reader.organ_masks(images)
        batch = self.reader.prepare(images, masks)
        shown = _Shown(
            images,
            [self._stem(file) for file, _ in loaded],
            batch,
            self.reader.forward(batch),
            self.reader.windows(masks) or [None] * len(images),
        )
        probabilities = self.reader.probabilities(shown.forward)
        tiles: list[dict[str, list[Tile]]] = [{} for _ in images]
        for target in self.plan.targets:
            shares = probabilities[:, self.reader.labels.index(target.label)]
            for i, result in enumerate(self._results(shown, target)):
                tile = self._keep(images[i], shown.stems[i], target, result, float(shares[i]))
                tiles[i].setdefault(target.label, []).append(tile)
        if self.plan.sheets:
            self._write_sheets(shown, tiles, probabilities.tolist())
        if self.plan.cases is not None:
            self._find_cases(shown, self.plan.cases)

    def _results(self, shown: _Shown, target: Target) -> Iterator[_Result]:
        """All images at once where the feature maps are there already, else one after the other."""
        together = target.method in CAM_METHODS
        for part in [shown] if together else [shown.only(i) for i in range(len(shown.images))]:
            begin = time.perf_counter()
            found = self._explained(part, target)
            each = (time.perf_counter() - begin) * 1000 / len(found)
            self.count.add(len(found))
            yield from (_Result(one, each) for one in found)

    def _explained(self, part: _Shown, target: Target) -> Sequence[Explanation | ExplanationFailed]:
        explain = partial(explain_images, options=self.plan.options)
        try:
            return explain(self.reader, part.forward, target, part.sizes, part.batch, part.windows)
        except ExplanationFailed as failure:
            return [failure] * len(part.images)

    def _keep(self, image: Image, stem: str, target: Target, result: _Result, probability: float) -> Tile:
        """Write a map, or note why there is none; return its tile."""
        found = result.found
        if isinstance(found, ExplanationFailed):
            self.failures.append(
                MapFailure(image=image.facts.name, label=target.label, method=target.method, reason=str(found))
            )
            return refused_tile(target.method, str(found))
        self.maps.append(self._write(image, stem, result, found, probability))
        return map_tile(image.pixels, found, result.milliseconds) if self.plan.sheets else Tile("")

    def _write_sheets(
        self, shown: _Shown, tiles: Sequence[dict[str, list[Tile]]], probabilities: Sequence[Sequence[float]]
    ) -> None:
        """One sheet for each image and label: the film, its maps, and what could not be made."""
        card = self.reader.card
        for image, stem, by_label, shares in zip(shown.images, shown.stems, tiles, probabilities, strict=True):
            rows, columns = image.pixels.shape
            film = film_tile("film", image.pixels, (f"{columns} x {rows} pixels",))
            for label, made in by_label.items():
                left_out = [
                    refused_tile(r.target.method, r.reason) for r in self.plan.refused if r.target.label == label
                ]
                share = shares[self.reader.labels.index(label)]
                heading = f"{image.facts.name}: {label}, probability {share:.3f}"
                about = f"{card.watermark} Reader {card.name} {card.version}. {card.intended_use}".strip()
                notes = (about, *notes_of(made))
                name = f"{stem}.{_plain(label)}.sheet.png"
                (self.out / name).write_bytes(sheet_png(heading, notes, [film, *made, *left_out]))
                self.sheets.append(name)

    def _find_cases(self, shown: _Shown, cases: CaseSet) -> None:
        """Name the similar cases of each image, and draw them beside it."""
        for image, stem, embedding in zip(shown.images, shown.stems, shown.forward.embeddings.numpy(), strict=True):
            similar = cases.nearest(image.facts.name, image.facts.sha256, embedding, self.plan.neighbours)
            for warning in similar.warnings:
                _log.warning("%s", warning)
            self.cases.append(similar)
            tiles = [film_tile("film", image.pixels), *(_case_tile(cases, example) for example in similar.examples)]
            shares = ", ".join(f"{label} {share:.0%}" for label, share in similar.shares.items())
            heading = f"{image.facts.name}: cases like this in {cases.manifest.meta.name}"
            notes = (f"Labels of these cases: {shares or 'unknown'}. {_ALIKE}", *similar.warnings)
            name = f"{stem}.cases.png"
            (self.out / name).write_bytes(sheet_png(heading, notes, tiles, scale=False))
            self.sheets.append(name)

    def _stem(self, file: Path) -> str:
        """Return a name that no other file has: the same one may lie in several folders."""
        plain = _plain(file.stem)
        stem, count = plain, 1
        while stem in self._stems:
            count += 1
            stem = f"{plain}-{count}"
        self._stems.add(stem)
        return stem

    def _write(
        self, image: Image, stem: str, result: _Result, explanation: Explanation, probability: float
    ) -> MapRecord:
        name = f"{stem}.{_plain(explanation.label)}.{explanation.method}"
        boxes = boxes_of(explanation, self.plan.threshold)
        watermark = self.reader.card.watermark
        (self.out / f"{name}.png").write_bytes(overlay_png(image.pixels, explanation, boxes, watermark=watermark))
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
            baseline=explanation.baseline,
            passes=explanation.passes,
            details=dict(explanation.details),
            milliseconds=round(result.milliseconds, 1),
        )


def _case_tile(cases: CaseSet, example: Example) -> Tile:
    """The picture of a case, with its label, split and distance; a file that is gone since has a tile that says so."""
    title = " + ".join(example.labels or ("none",)) if example.labels is not None else "label unknown"
    lines = (f"distance {example.distance:.3f}", f"split {example.split or 'unknown'}", example.path)
    try:
        picture = load_image(cases.manifest.path_of(example.path))
    except ImageRefused as refusal:
        return refused_tile(title, str(refusal))
    return film_tile(f"{example.rank}. {title}", picture.pixels, lines)
