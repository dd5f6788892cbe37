"""A folder or a DICOM study in, one answer out: which view drove it, and where the reader looked in each.

Images are decoded, judged by the gate and embedded one at a time, and only their vectors are kept, so a study of any
size is read in the memory of a few images. An image that cannot be read or that the gate refuses is named and left
out; a study of which nothing is left has no probability.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from wetread.errors import ImageRefused, UsageError, expected
from wetread.imaging import DEFAULT_BUDGET_BYTES
from wetread.models.mil import StudyForward, StudyReader
from wetread.reading.decide import Decider, prediction_set
from wetread.reading.evidence import Computed, find_evidence, labels_to_explain
from wetread.reading.feed import Feed, Loaded, ReadFailure, Source, find_sources, load_one
from wetread.reading.gate import image_reasons, judge
from wetread.types import GateResult, ImageFacts, LabelReading, SimilarCases, Step, StudyRead, ViewReading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wetread.explain.base import Method
    from wetread.reading.similar import CaseSearch

__all__ = ["StudyOptions", "StudyResult", "StudySource", "read_study", "study_sources"]

HEAT_MAPS = 16
"""Images of a study that get a heat map at most, those of highest weight first: a CT has hundreds."""


@dataclass(frozen=True, slots=True)
class StudySource:
    """The files of one study; ``study_uid`` is Study Instance UID (0020,000D) where the files are DICOM."""

    name: str
    sources: tuple[Source, ...]
    study_uid: str | None = None


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """How to read a study.

    ``operating_point`` None: the card's default. ``pictures`` adds film and heat map PNGs of the explained images.
    ``similar``: an index of studies to look for past ones in, as :func:`wetread.reading.similar.cases_in` opens it.
    """

    operating_point: str | None = None
    heatmaps: bool = True
    pictures: bool = False
    method: str = "gradcam"
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    similar: CaseSearch | None = None


@dataclass(frozen=True, slots=True)
class StudyResult:
    """One study read; with pictures also ``films`` by image and ``heatmaps`` by image and label, PNG."""

    source: StudySource
    read: StudyRead
    films: dict[str, bytes] = field(default_factory=dict)
    heatmaps: dict[tuple[str, str], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image after its pixels were dropped; ``vector`` (K, D)."""

    source: Source
    facts: ImageFacts
    applied: tuple[Step, ...]
    gate: GateResult
    vector: NDArray[np.float32] | None


def study_sources(paths: Sequence[Path]) -> list[StudySource]:
    """Gather the images below ``paths`` into studies: by Study Instance UID for DICOM, else by their folder.

    Raises:
        ImageRefused: a path does not exist, or a folder has no image in it.
    """
    from wetread.datasets.importers.dicom_tree import is_dicom

    found: dict[tuple[str, str], list[Source]] = {}
    for source in find_sources(paths):
        uid = _study_uid(source.path) if is_dicom(source.path) else None
        key = ("uid", uid) if uid else ("folder", str(source.path.parent))
        found.setdefault(key, []).append(source)
    studies = []
    for (kind, value), sources in found.items():
        folder = sources[0].path.parent.resolve().name
        uid = value if kind == "uid" else None
        studies.append(StudySource(folder, tuple(sources), uid))
    return studies


def _study_uid(path: Path) -> str | None:
    """The study of a DICOM file; a header that cannot be read is reported when the image is."""
    from wetread.datasets.importers.dicom_tree import header_row
    from wetread.errors import DatasetRefused

    try:
        row = header_row(path, path.parent)
    except DatasetRefused:
        return None
    return None if row is None else row.get("study")


def read_study(reader: StudyReader, study: StudySource, options: StudyOptions | None = None) -> StudyResult:
    """Read one study.

    Raises:
        ImageRefused: no image of it can be read.
        UsageError: options that do not fit the reader.
        DatasetRefused: another reader made the index.
    """
    chosen = options or StudyOptions()
    decider = Decider(reader.card, chosen.operating_point)
    _check(reader, chosen)
    begin = time.perf_counter()
    seen, failures = _look(reader, study, chosen)
    if not seen:
        first = next(iter(failures.values()), "it has no files")
        raise ImageRefused(
            expected(
                f"a readable image in the study {study.name}", f"{len(failures)} that are not: {first}", "check it"
            )
        )
    looked = time.perf_counter()
    used = [one for one in seen if one.gate.passed]
    forward = _judge(reader, used)
    if forward is None:
        labels = decider.withhold("The gate refused every image of the study.")
    else:
        labels = decider.decide(reader.probabilities(forward.logits[None])[0].tolist())
    views = _views(reader, seen, forward)
    similar, warnings = _similar(reader, study, used, labels, chosen.similar)
    judged = time.perf_counter()
    read = StudyRead(
        study=study.name,
        study_uid=study.study_uid,
        pooling=reader.spec.pooling,
        labels=labels,
        drove=_drove(views, reader.card.labels),
        views=views,
        failures=failures,
        prediction_set=prediction_set(reader.card, labels),
        similar=similar,
        model=reader.card.identity,
        timings_ms={"look": round((looked - begin) * 1e3, 2), "judge": round((judged - looked) * 1e3, 2)},
        warnings=(*_warnings(seen, failures), *warnings),
    )
    result = StudyResult(study, read)
    return _explained(reader, result, chosen) if chosen.heatmaps and forward is not None else result


def _check(reader: StudyReader, options: StudyOptions) -> None:
    from wetread.explain.base import CAM_METHODS, Target
    from wetread.reading.similar import refuse_foreign_index, refuse_other_level

    Target(reader.card.labels[0], cast("Method", options.method))
    if options.method not in CAM_METHODS:
        raise UsageError(
            expected(f"a method among {', '.join(CAM_METHODS)} for a study", options.method, "use --method gradcam")
        )
    if options.similar is not None:
        refuse_foreign_index(reader.reader, options.similar)
        refuse_other_level(options.similar)


def _look(reader: StudyReader, study: StudySource, options: StudyOptions) -> tuple[list[_Seen], dict[str, str]]:
    """Decode, gate and embed image by image; pixels are dropped at once."""
    feed = Feed(study.sources, ahead=4, budget_bytes=options.budget_bytes)
    seen: list[_Seen] = []
    failures: dict[str, str] = {}
    try:
        for item in feed:
            if isinstance(item, ReadFailure):
                failures[item.name] = item.message
            else:
                seen.append(_embed(reader, item))
    finally:
        feed.close()
    return seen, failures


def _embed(reader: StudyReader, item: Loaded) -> _Seen:
    image = item.image
    if image_reasons(reader.card.gate, image, item.appearance):
        gate = judge(reader.card, image, None, item.appearance)
        return _Seen(item.source, image.facts, image.applied, gate, None)
    found = reader.embed(reader.reader.prepare([image]))
    distance = None if found.distances is None else float(found.distances[0])
    gate = judge(reader.card, image, distance, item.appearance)
    return _Seen(item.source, image.facts, image.applied, gate, found.vectors[0])


def _judge(reader: StudyReader, used: Sequence[_Seen]) -> StudyForward | None:
    vectors = [one.vector for one in used if one.vector is not None]
    if not vectors:
        return None
    return reader.judge(np.stack(vectors), [one.facts.view for one in used])


def _similar(
    reader: StudyReader,
    study: StudySource,
    used: Sequence[_Seen],
    labels: Sequence[LabelReading],
    search: CaseSearch | None,
) -> tuple[SimilarCases | None, tuple[str, ...]]:
    """Past studies like the images that counted, of another patient than theirs."""
    from wetread.reading.similar import cases_like, study_vector

    vectors = [one.vector[0] for one in used if one.vector is not None]
    if search is None or not vectors:
        return None, ()
    patient = next((one.facts.patient for one in used if one.facts.patient), None)
    facts = used[0].facts.model_copy(update={"name": study.name, "patient": patient})
    return cases_like(search, study_vector(reader.reader, np.stack(vectors)), facts, labels)


def _views(reader: StudyReader, seen: Sequence[_Seen], forward: StudyForward | None) -> tuple[ViewReading, ...]:
    alone = None if forward is None else reader.probabilities(forward.views)
    place = {id(one): number for number, one in enumerate(one for one in seen if one.gate.passed)}
    views = []
    for one in seen:
        number = place.get(id(one))
        weights: dict[str, float] = {}
        chances: dict[str, float] = {}
        if number is not None and forward is not None and alone is not None:
            weights = {label: float(forward.weights[number, k]) for k, label in enumerate(reader.card.labels)}
            chances = {label: float(alone[number, k]) for k, label in enumerate(reader.card.labels)}
        views.append(ViewReading(image=one.facts, applied=one.applied, gate=one.gate, weights=weights, alone=chances))
    return tuple(views)


def _drove(views: Sequence[ViewReading], labels: Sequence[str]) -> dict[str, str]:
    counted = [view for view in views if view.weights]
    if not counted:
        return {}
    return {label: max(counted, key=lambda view: view.weights[label]).image.name for label in labels}


def _warnings(seen: Sequence[_Seen], failures: dict[str, str]) -> tuple[str, ...]:
    found = []
    left_out = sum(not one.gate.passed for one in seen)
    if failures:
        found.append(f"{len(failures)} of {len(seen) + len(failures)} images could not be read and did not count.")
    if left_out:
        found.append(f"{left_out} of {len(seen)} images were refused by the gate and did not count.")
    return tuple(found)


def _explained(reader: StudyReader, result: StudyResult, options: StudyOptions) -> StudyResult:
    """Add heat maps for the labels that are explained, in the images of highest weight."""
    begin = time.perf_counter()
    labels = labels_to_explain(result.read.labels)
    ranked = sorted(
        (number for number, view in enumerate(result.read.views) if view.weights),
        key=lambda number: -max(result.read.views[number].weights[label] for label in labels),
    )
    sources = {source.name: source for source in result.source.sources}
    views, films, heatmaps = list(result.read.views), dict(result.films), dict(result.heatmaps)
    for number in ranked[:HEAT_MAPS]:
        view = views[number]
        item = load_one(sources[view.image.name], options.budget_bytes, film=options.pictures)
        evidence, pictures = _evidence(reader, item, labels, options)
        views[number] = view.model_copy(update={"evidence": evidence})
        films |= {view.image.name: item.film} if item.film else {}
        heatmaps |= {(view.image.name, label): picture for label, picture in pictures.items()}
    read = result.read.model_copy(
        update={
            "views": tuple(views),
            "timings_ms": result.read.timings_ms | {"explain": round((time.perf_counter() - begin) * 1e3, 2)},
            "warnings": (*result.read.warnings, *_without(ranked)),
        }
    )
    return StudyResult(result.source, read, films, heatmaps)


def _without(ranked: Sequence[int]) -> tuple[str, ...]:
    if len(ranked) <= HEAT_MAPS:
        return ()
    return (f"Heat maps were made for the {HEAT_MAPS} images of highest weight among {len(ranked)}.",)


def _evidence(
    reader: StudyReader, item: Loaded, labels: Sequence[str], options: StudyOptions
) -> tuple[dict, dict[str, bytes]]:  # type: ignore[type-arg]
    one = reader.reader_of_view(item.image.facts.view)
    batch = one.prepare([item.image])
    size = (item.image.facts.rows, item.image.facts.columns)
    computed = Computed(batch, one.forward(batch, 1), size)
    found = find_evidence(one, computed, labels, cast("Method", options.method), options.pictures)
    return found.evidence, found.pictures
