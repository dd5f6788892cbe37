"""Images in, one Read each out, in order: gate, probability, decision, evidence, timings.

Every network runs on one image at a time and on one core, as many images beside each other as there are cores:
convolution kernels are chosen by batch size and threads and differ in the last bits, and a film must get the same
probability alone and in a batch. Decoding runs ahead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wetread.errors import UsageError, expected
from wetread.imaging import DEFAULT_BUDGET_BYTES
from wetread.reading.appearance import look_at
from wetread.reading.decide import Decider, prediction_set
from wetread.reading.evidence import Computed, Found, find_evidence, labels_to_explain
from wetread.reading.feed import Feed, Loaded, ReadFailure, Source, film_png
from wetread.reading.gate import image_reasons, judge
from wetread.reading.guided import Sizes, gate_with_organ, guide_steps, organ_warnings, sizes_beside
from wetread.reading.mask_quality import oddities_of
from wetread.runtime import side_by_side
from wetread.types import GateResult, Image, LabelReading, Read, SimilarCases

if TYPE_CHECKING:
    from wetread.explain.base import Method
    from wetread.models.predict import Forward, OrganMasks, Reader
    from wetread.reading.similar import CaseSearch

__all__ = ["ReadFailure", "ReadOptions", "ReadResult", "check_options", "read_feed", "read_image", "read_images"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read.

    ``operating_point`` None: the card's default. ``views``: zooms averaged, 1 to 5; None: as the card says.
    ``pictures`` adds film and heat map PNGs to each result; ``heatmaps`` False leaves out the
    evidence altogether. ``method``: any of ``wetread explain``; those that run the network again take seconds.
    ``similar``: where to look for past cases, as :func:`wetread.reading.similar.cases_in` gives; None: nowhere.
    """

    operating_point: str | None = None
    views: int | None = None
    batch_size: int = 16
    heatmaps: bool = True
    pictures: bool = False
    method: str = "gradcam"
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    similar: CaseSearch | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(expected("a batch size of at least 1", self.batch_size, "set --batch-size 16"))


@dataclass(frozen=True, slots=True)
class ReadResult:
    """One image read; ``film_png`` and ``heatmaps`` (label -> RGBA PNG) only where pictures were asked for."""

    source: Source
    read: Read
    film_png: bytes | None = None
    heatmaps: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One image on its way to a Read; ``timings_ms`` by stage."""

    item: Loaded
    gate: GateResult
    labels: tuple[LabelReading, ...]
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()
    sizes: Sizes = field(default_factory=Sizes)
    similar: SimilarCases | None = None


def read_image(reader: Reader, image: Image, options: ReadOptions | None = None) -> Read:
    """Read one image that is already in memory.

    Raises:
        UsageError: options that do not fit the reader.
    """
    chosen = options or ReadOptions()
    source = Source(Path(image.facts.name), image.facts.name)
    film = film_png(image) if chosen.pictures else None
    loaded = Loaded(source, image, look_at(image.pixels), 0.0, film)
    return cast(ReadResult, next(read_feed(reader, [loaded], chosen))).read


def read_images(
    reader: Reader, sources: Iterable[Source | Path | str], options: ReadOptions | None = None
) -> Iterator[ReadResult | ReadFailure]:
    """Read files in order; a file that cannot be read gives a :class:`ReadFailure` in its place.

    Raises:
        UsageError: options that do not fit the reader, before the first file is opened.
    """
    chosen = options or ReadOptions()
    check_options(reader, chosen)
    named = (given if isinstance(given, Source) else Source(Path(given), Path(given).name) for given in sources)
    feed = Feed(named, ahead=2 * chosen.batch_size, film=chosen.pictures, budget_bytes=chosen.budget_bytes)
    return read_feed(reader, feed, chosen)


def check_options(reader: Reader, options: ReadOptions) -> None:
    """Raise UsageError where ``options`` do not fit ``reader``, DatasetRefused where another reader made the index."""
    from wetread.explain.base import Target
    from wetread.reading.similar import refuse_foreign_index

    Decider(reader.card, options.operating_point)
    Target(reader.labels[0], cast("Method", options.method))
    if options.similar is not None:
        refuse_foreign_index(reader, options.similar)


def read_feed(
    reader: Reader, feed: Iterable[Loaded | ReadFailure], options: ReadOptions
) -> Iterator[ReadResult | ReadFailure]:
    """Read what ``feed`` decodes; see :func:`read_images`."""
    check_options(reader, options)
    decider = Decider(reader.card, options.operating_point)
    items = iter(feed)
    while group := list(islice(items, options.batch_size)):
        loaded = [item for item in group if isinstance(item, Loaded)]
        results = iter(_read_group(reader, loaded, decider, options))
        yield from (item if isinstance(item, ReadFailure) else next(results) for item in group)


def _read_group(reader: Reader, group: Sequence[Loaded], decider: Decider, options: ReadOptions) -> list[ReadResult]:
    done: dict[int, ReadResult] = {}
    open_: list[tuple[int, Loaded]] = []
    for i, item in enumerate(group):
        if image_reasons(reader.card.gate, item.image, item.appearance):
            gate = judge(reader.card, item.image, None, item.appearance)
            done[i] = _result(reader, _Answer(item, gate, decider.withhold(gate.reasons[0]), {}), Found())
        else:
            open_.append((i, item))
    if open_:
        results = _predict_group(reader, [item for _, item in open_], decider, options)
        done |= {i: result for (i, _), result in zip(open_, results, strict=True)}
    return [done[i] for i in range(len(group))]


def _predict_group(reader: Reader, group: Sequence[Loaded], decider: Decider, options: ReadOptions) -> list[ReadResult]:
    from wetread.explain.base import CAM_METHODS

    alone = options.method not in CAM_METHODS  # such methods run batches of their own, which fill the cores

    def work(item: Loaded) -> tuple[_Answer, Computed, Found | None]:
        answer, computed = _predict(reader, item, decider, options)
        return answer, computed, None if alone else _explained(reader, answer, computed, options)

    _ = reader.folded, reader.guide and reader.guide.segmenter.folded  # made before several threads ask for them
    results = []
    for answer, computed, found in side_by_side(work, group):
        # One search after the other: what is found must not depend on the batch.
        told = answer if options.similar is None else _compared(answer, computed.forward, options.similar)
        results.append(_result(reader, told, found or _explained(reader, told, computed, options)))
    return results


def _predict(reader: Reader, item: Loaded, decider: Decider, options: ReadOptions) -> tuple[_Answer, Computed]:
    """Everything but heat maps and past cases, for one image."""
    begin = time.perf_counter()
    found = reader.organ_masks([item.image])
    batch = reader.prepare([item.image], found)
    forward = reader.forward(batch, options.views)
    probabilities = reader.probabilities(forward)[0].tolist()
    distances = reader.distances(forward)
    predict_ms = (time.perf_counter() - begin) * 1e3
    gate = judge(reader.card, item.image, None if distances is None else float(distances[0]), item.appearance)
    warnings: tuple[str, ...] = ()
    odd = {} if found is None else oddities_of(found[0])
    if found is not None and reader.card.guide is not None:
        gate = gate_with_organ(gate, reader.card.guide, found[0][reader.card.guide.organ])
        warnings = organ_warnings(reader.card.guide, odd)
    labels = decider.decide(probabilities) if gate.passed else decider.withhold(gate.reasons[0])
    answer = _Answer(item, gate, labels, {"predict": predict_ms}, warnings)
    (window,) = reader.windows(found) or [None]
    size = (item.image.facts.rows, item.image.facts.columns)
    computed = Computed(batch, forward, size, window)
    return (answer if found is None else _measured(answer, found[0], odd)), computed


def _explained(reader: Reader, answer: _Answer, computed: Computed, options: ReadOptions) -> Found:
    labels = labels_to_explain(answer.labels) if options.heatmaps else ()
    if not labels:
        return Found()
    begin = time.perf_counter()
    found = find_evidence(reader, computed, labels, cast("Method", options.method), options.pictures)
    answer.timings_ms["explain"] = (time.perf_counter() - begin) * 1e3
    return found


def _measured(answer: _Answer, masks: OrganMasks, odd: Mapping[str, Sequence[str]]) -> _Answer:
    """Add the sizes of the organs and what they say beside the answer; a refused image has none."""
    if not answer.gate.passed:
        return answer
    begin = time.perf_counter()
    sizes = sizes_beside(answer.labels, masks, odd, answer.item.image.facts)
    timings = answer.timings_ms | {"measure": (time.perf_counter() - begin) * 1e3}
    return replace(answer, timings_ms=timings, warnings=(*answer.warnings, *sizes.warnings), sizes=sizes)


def _compared(answer: _Answer, forward: Forward, search: CaseSearch) -> _Answer:
    """Add the past cases like the image, one search for each: what is found must not depend on the batch."""
    from wetread.reading.similar import cases_like, vectors_of

    if not answer.gate.passed:
        return answer
    begin = time.perf_counter()
    vectors = vectors_of(search.index.card, forward, 0)
    similar, warnings = cases_like(search, vectors, answer.item.image.facts, answer.labels)
    timings = answer.timings_ms | {"similar": (time.perf_counter() - begin) * 1e3}
    return replace(answer, timings_ms=timings, warnings=(*answer.warnings, *warnings), similar=similar)


def _result(reader: Reader, answer: _Answer, found: Found) -> ReadResult:
    facts = answer.item.image.facts
    labels = tuple(
        reading.model_copy(update={"evidence": found.evidence.get(reading.label)}) for reading in answer.labels
    )
    timings = {"load": answer.item.load_ms, "predict": 0.0, "explain": 0.0, **answer.timings_ms}
    read = Read(
        image=facts,
        applied=(*answer.item.image.applied, *guide_steps(reader.card.guide, refused=not answer.gate.passed)),
        gate=answer.gate,
        labels=labels,
        prediction_set=prediction_set(reader.card, labels),
        measures=answer.sizes.measures,
        agreement=answer.sizes.agreement,
        similar=answer.similar,
        model=reader.card.identity,
        timings_ms={stage: round(value, 2) for stage, value in timings.items()},
        warnings=(
            *answer.warnings,
            *_enlarged(reader, facts.rows, facts.columns),
            *found.missing(answer.labels),
        ),  # those of the file are in image
    )
    return ReadResult(answer.item.source, read, answer.item.film, found.pictures)


def _enlarged(reader: Reader, rows: int, columns: int) -> tuple[str, ...]:
    spec = reader.input
    if rows >= spec.height / 2 and columns >= spec.width / 2:
        return ()
    return (f"The image was enlarged from {columns} x {rows} to the reader's input of {spec.width} x {spec.height}.",)
