"""What a worker does with the images of a batch: read, explain, segment, find similar cases.

The one module of the service that uses networks; torch is imported when the first job comes. Readers stay loaded,
the least used one leaves. A result or a failure is handed back for each image, in order; nothing is stored here.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.errors import WetreadError
from wetread.service.context import Service
from wetread.service.jobs import Failure, Found

if TYPE_CHECKING:
    from wetread.models.organs import Segmenter
    from wetread.models.predict import Reader
    from wetread.retrieval.index import CaseIndex

__all__ = ["Models", "Task", "run_task"]

_KEPT = 3
_NEIGHBOURS = 6


@dataclass(frozen=True)
class Task:
    """A batch of one question: ``images`` are the sha256 of stored files with the names that results get."""

    kind: str
    parameters: dict[str, Any]
    images: Sequence[tuple[str, str]]


class Models:
    """Readers in memory, at most :data:`_KEPT` of them."""

    def __init__(self, service: Service) -> None:
        from wetread.runtime import prepare_torch

        prepare_torch(service.settings.runtime.threads)
        self._service = service
        self._loaded: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def reader(self, name: str, sha256: str) -> Reader:
        """A reader, as it was when the job was asked for."""
        from wetread.models.bundle import load_reader

        reader: Reader = self._kept(name, sha256, load_reader)
        return reader

    def segmenter(self, name: str, sha256: str) -> Segmenter:
        """A segmenter, as it was when the job was asked for."""
        from wetread.models.bundle import load_segmenter

        segmenter: Segmenter = self._kept(name, sha256, load_segmenter)
        return segmenter

    def index(self) -> CaseIndex:
        """The index of past cases."""
        from wetread.retrieval.locate import open_index

        return open_index(self._service.settings.service.index)

    def _kept(self, name: str, sha256: str, load: Callable[..., Any]) -> Any:
        key = (name, sha256)
        if key not in self._loaded:
            entry = self._service.catalog.find(name)
            if entry.card.sha256 != sha256:
                raise WetreadError("expected the reader of the job, got one with other weights; ask for it again")
            self._loaded[key] = load(entry.folder, [self._service.settings.paths.readers])
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def run_task(service: Service, models: Models, task: Task) -> Iterator[Found | Failure]:
    """Yield a result or a failure for each image of a batch, in order.

    Raises:
        WetreadError: the whole batch cannot be done, e.g. its reader has gone.
    """
    yield from _KINDS[task.kind](service, models, task)


def _read(service: Service, models: Models, task: Task) -> Iterator[Found | Failure]:
    from wetread.reading.feed import ReadFailure, Source
    from wetread.reading.read import ReadOptions, read_images

    reader = models.reader(task.parameters["reader"], task.parameters["sha256"])
    options = ReadOptions(
        operating_point=task.parameters.get("operating_point"),
        batch_size=max(1, len(task.images)),
        heatmaps=task.parameters.get("heat_maps", True),
        pictures=True,
        budget_bytes=service.settings.imaging.budget_bytes,
    )
    sources = [Source(service.blobs.path(sha), name) for sha, name in task.images]
    for result in read_images(reader, sources, options):
        if isinstance(result, ReadFailure):
            yield Failure("image_refused", result.message)  # trying again does not mend it
            continue
        pictures = {f"heat:{label}": picture for label, picture in result.heatmaps.items()}
        if result.film_png is not None:
            pictures["film"] = result.film_png
        yield _found(service, result.read.model_dump(mode="json"), pictures)


def _explain(service: Service, models: Models, task: Task) -> Iterator[Found | Failure]:
    from wetread.errors import ExplanationFailed
    from wetread.explain.base import Target
    from wetread.explain.dispatch import explain_images
    from wetread.explain.localise import boxes_of
    from wetread.explain.overlay import heat_png
    from wetread.imaging import load_image
    from wetread.reading.evidence import HEAT_SIDE_PX

    reader = models.reader(task.parameters["reader"], task.parameters["sha256"])
    target = Target(task.parameters["label"], task.parameters["method"])
    for sha, _ in task.images:
        image = load_image(service.blobs.path(sha), budget_bytes=service.settings.imaging.budget_bytes)
        masks = reader.organ_masks([image])
        batch = reader.prepare([image], masks)
        rows, columns = image.pixels.shape
        windows = reader.windows(masks)
        (made,) = explain_images(reader, reader.forward(batch), target, [(rows, columns)], batch, windows)
        if isinstance(made, ExplanationFailed):
            yield Failure("no_explanation", str(made))
            continue
        evidence = made.evidence(boxes=boxes_of(made)).model_dump(mode="json")
        yield _found(service, {"evidence": evidence}, {f"heat:{made.label}": heat_png(made, HEAT_SIDE_PX)})


def _segment(service: Service, models: Models, task: Task) -> Iterator[Found | Failure]:
    from PIL import Image

    from wetread.imaging import load_image
    from wetread.reading.organs import segment_image

    segmenter = models.segmenter(task.parameters["reader"], task.parameters["sha256"])
    for sha, _ in task.images:
        image = load_image(service.blobs.path(sha), budget_bytes=service.settings.imaging.budget_bytes)
        reading, masks = segment_image(segmenter, image)
        pictures = {}
        for organ, mask in masks.items():
            target = io.BytesIO()
            Image.fromarray(mask).save(target, "PNG", compress_level=3)
            pictures[f"mask:{organ}"] = target.getvalue()
        yield _found(service, reading.model_dump(mode="json"), pictures)


def _similar(service: Service, models: Models, task: Task) -> Iterator[Found | Failure]:
    from wetread.imaging import load_image
    from wetread.retrieval.embed import embed_image, mark_of
    from wetread.retrieval.neighbours import similar_cases
    from wetread.retrieval.write import refuse_other_embeddings

    reader = models.reader(task.parameters["reader"], task.parameters["sha256"])
    index = models.index()
    refuse_other_embeddings(index.card, mark_of(reader))
    for sha, name in task.images:
        image = load_image(service.blobs.path(sha), budget_bytes=service.settings.imaging.budget_bytes)
        found = similar_cases(
            index,
            embed_image(reader, image, index.card.kind, None),
            patient=image.facts.patient,
            sha256=sha,
            image=name,
            k=int(task.parameters.get("k", _NEIGHBOURS)),
        )
        pictures: dict[str, bytes] = {}
        for one in found.neighbours:
            picture = _thumbnail(Path(one.file), service.settings.imaging.budget_bytes)
            pictures |= {f"case:{one.rank}": picture} if picture else {}
        yield _found(service, found.model_dump(mode="json"), pictures)


def _thumbnail(file: Path, budget_bytes: int) -> bytes | None:
    """A picture of a past case; None where its file has gone, which the page says."""
    from wetread.imaging import load_image
    from wetread.reading.feed import film_png

    try:
        return film_png(load_image(file, budget_bytes=budget_bytes))
    except WetreadError:
        return None


def _found(service: Service, record: dict[str, Any], pictures: dict[str, bytes]) -> Found:
    return Found(record, {name: service.blobs.put(data).sha256 for name, data in pictures.items()})


_KINDS: dict[str, Callable[[Service, Models, Task], Iterator[Found | Failure]]] = {
    "read": _read,
    "explain": _explain,
    "segment": _segment,
    "similar": _similar,
}
