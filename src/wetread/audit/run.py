"""The whole audit: sixteen questions asked of one reader and one data set, in an order that shares the work.

Decided here: a question that fails to be asked for a reason of its own becomes NOT ASSESSABLE with that reason and does
not end the audit; a question that was not asked is absent, and the verdict says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wetread.audit.background import background_line
from wetread.audit.claim import claim_line
from wetread.audit.edits import edit_variants, judge_edits
from wetread.audit.groups import groups_line
from wetread.audit.heat import JUDGED, Positives, faithful_line, place_line, positives_of, randomised_line
from wetread.audit.leakage import leaks
from wetread.audit.material import Material, gather_material
from wetread.audit.organ_need import judge_organ_need, organ_variants
from wetread.audit.outside import judge_outside, outside_files
from wetread.audit.paperwork import paperwork, paperwork_line
from wetread.audit.probabilities import Answers, abstaining_line, probability_line
from wetread.audit.reader_sources import judge_sources
from wetread.audit.result import QUESTIONS, AuditFigure, AuditLine, AuditResult, verdict_of, weighed
from wetread.audit.robustness import judge_robustness, robustness_variants
from wetread.audit.sources import outside_sources, sources_line
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import OrganSource, Readings, read_variants
from wetread.datasets.manifest import Manifest
from wetread.datasets.scan import scan
from wetread.errors import ExplanationFailed, SplitRefused, StatisticRefused, UsageError, expected
from wetread.evaluation.result import EvaluationSpec
from wetread.models.card import HeatMapStatus
from wetread.models.predict import Reader
from wetread.training.predictions import predict_manifest, refuse_other_labels

if TYPE_CHECKING:
    import pandas as pd

    from wetread.models.guide import Guide
    from wetread.training.data import Progress

__all__ = ["Audited", "Question", "audit"]

Pictures = Mapping[str, bytes]
"""PNG by the name that the examples of a line carry."""


@dataclass(frozen=True)
class Question:
    """What is asked for: everything that decides an audit, beside reader and data.

    ``images``: at most so many are looked at by the questions about the data. ``organ`` is found by ``finder`` where
    masks are not annotated; None: no such questions. ``gate`` judges an image as a read would: ``reading.gate.judge``.
    ``outside``: folder of images that are near, but not what the reader was built for. ``against``: predictions of a
    reader that this one is said to beat, with its name. ``answers``: of the author, for the paperwork. ``only``: the
    codes to ask; empty: all.
    """

    gate: Callable[..., Any]
    split: str = "test"
    organ: str | None = "lungs"
    finder: Guide | None = None
    limits: Thresholds = field(default_factory=Thresholds)
    images: int = 1000
    outside: Path | None = None
    against: tuple[pd.DataFrame, str] | None = None
    answers: Mapping[int, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Audited:
    """The result and its pictures, PNG by the names that the examples of the lines carry."""

    result: AuditResult
    pictures: dict[str, bytes]


def audit(
    reader: Reader,
    manifest: Manifest,
    asked: Question,
    provenance: Mapping[str, str],
    progress: Progress | None = None,
) -> Audited:
    """Ask every question of ``asked`` and weigh the answers.

    Raises:
        UsageError: an unknown code.
        DatasetRefused: other labels than the reader's, or images that cannot be read.
        SplitRefused: no images in the split. A split that leaks is not refused here: it is what T1 fails.
    """
    unknown = [code for code in asked.only if code not in QUESTIONS]
    if unknown:
        raise UsageError(expected(f"codes among {', '.join(QUESTIONS)}", unknown[0], "e.g. --only T3"))
    rows = manifest.table[manifest.table["split"] == asked.split]
    if not len(rows):
        raise SplitRefused(expected(f"images in the split {asked.split!r}", "none", "name another --split"))
    refuse_other_labels(reader, manifest)
    room = _Room(reader, manifest, asked, progress)
    lines = weighed(tuple(room.lines()))
    on = f"{manifest.meta.name} {asked.split}"
    verdict = verdict_of(lines, on)
    result = AuditResult(
        reader=reader.card.identity,
        data=manifest.meta.name,
        split=asked.split,
        n=len(rows),
        patients=int(rows["patient"].nunique()) if rows["patient"].notna().any() else None,
        organ=asked.organ,
        organ_from=room.organ_from,
        lines=lines,
        heat_maps=room.heat_maps,
        verdict=verdict.verdict,
        headline=verdict.headline,
        failed=verdict.failed,
        watermark=verdict.watermark,
        thresholds={name: float(value) for name, value in asked.limits.model_dump().items()},
        seconds={name: round(value, 1) for name, value in room.seconds.items()},
        provenance=dict(provenance),
    )
    return Audited(result, room.pictures)


class _Room:
    """Reader and data with what several questions share: made when the first of them needs it."""

    def __init__(self, reader: Reader, manifest: Manifest, asked: Question, progress: Progress | None) -> None:
        self.reader, self.manifest, self.asked, self.progress = reader, manifest, asked, progress
        self.pictures: dict[str, bytes] = {}
        self.heat_maps: dict[str, HeatMapStatus] = {}
        self.seconds: dict[str, float] = {}
        self.organ_from = "not looked for"
        self.said: dict[str, str] = {}

    def lines(self) -> Iterator[AuditLine]:
        """Ask the questions in the order of the page, the paperwork last."""
        for code, ask in self._questions().items():
            if self.asked.only and code not in self.asked.only:
                continue
            with self._timed(code):
                line = self._answered(code, ask)
            self.said[code] = line.sentence
            yield line

    def _questions(self) -> dict[str, Callable[[], AuditLine]]:
        limits = self.asked.limits
        return {
            "T1": self._leaks,
            "T2": lambda: self._seen(sources_line(self.material, limits, self.asked.seed)),
            "T3": lambda: self._seen(background_line(self.material, limits, self.asked.seed)),
            "T4": lambda: self._seen(judge_organ_need(self.readings, limits)),
            "T5": lambda: self._seen(judge_edits(self.readings, limits)),
            "T6": self._sources,
            "T7": self._heat_maps,
            "T8": lambda: faithful_line(self.reader, self.positives, limits),
            "T9": lambda: self._seen(place_line(self.reader, self.positives, limits)),
            "T10": lambda: probability_line(self.reader.card, self.answers),
            "T11": lambda: abstaining_line(self.reader.card, self.answers),
            "T12": self._outside,
            "T13": lambda: groups_line(self.predictions, self.spec, limits),
            "T14": self._claim,
            "T15": lambda: self._seen(judge_robustness(self.readings, limits)),
            "T16": self._paperwork,
        }

    def _leaks(self) -> AuditLine:
        told = self.progress
        scanned = scan(self.manifest, None if told is None else lambda *counts: told("looking for copies", *counts))
        return self._seen(leaks(self.manifest, scanned, self.asked.limits, told))

    def _sources(self) -> AuditLine:
        """T6 judges the reader; what cheap probes lose in each source that they did not learn stands beside it."""
        line = self._seen(judge_sources(self.predictions, self.reader.card, self.manifest, self.asked.limits))
        beside = [
            AuditFigure(
                what=f"probe of the data, {one.label}: loss in {one.source} when not learned", estimate=one.drop
            )
            for one in outside_sources(self.material, self.asked.seed)
            if not one.reason
        ]
        return line.model_copy(update={"figures": (*line.figures, *beside)})

    def _answered(self, code: str, ask: Callable[[], AuditLine]) -> AuditLine:
        """Ask one question; a reason why it cannot be asked is its answer."""
        try:
            return ask()
        except (StatisticRefused, ExplanationFailed, SplitRefused) as reason:  # the split: a leak, which T1 judges
            return AuditLine(code=code, question=QUESTIONS[code], answer="NOT ASSESSABLE", sentence=str(reason))

    def _seen(self, answered: tuple[AuditLine, Pictures]) -> AuditLine:
        line, pictures = answered
        self.pictures.update(pictures)
        return line

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Time of a question; what it shares with later ones counts for the one that needed it first."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - begin

    @cached_property
    def material(self) -> Material:
        found = gather_material(
            self.manifest, self.asked.finder, self.asked.images, self.asked.seed, progress=self.progress
        )
        self.organ_from = found.organ_from
        return found

    @cached_property
    def organ(self) -> OrganSource | None:
        return None if self.asked.organ is None else OrganSource(self.asked.organ, self.asked.finder)

    @cached_property
    def readings(self) -> Readings:
        """One pass over the films for all questions that change them."""
        wanted = {"T4": organ_variants, "T5": edit_variants, "T15": robustness_variants}
        chosen = [make for code, make in wanted.items() if not self.asked.only or code in self.asked.only]
        variants = [variant for make in chosen for variant in make()]
        return read_variants(
            self.reader, self.manifest, variants, split=self.asked.split, organ=self.organ, seed=self.asked.seed,
            progress=self.progress,
        )  # fmt: skip

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return predict_manifest(self.reader, self.manifest, self.asked.split, progress=self.progress)

    @cached_property
    def positives(self) -> Positives:
        return positives_of(
            self.reader, self.manifest, self.predictions, self.organ, progress=self.progress, seed=self.asked.seed
        )

    @property
    def spec(self) -> EvaluationSpec:
        card = self.reader.card
        return EvaluationSpec(
            task=card.task, classes=card.classes, operating_points=card.operating_points, reader=card.name,
            split=self.asked.split,
        )  # fmt: skip

    @cached_property
    def answers(self) -> Answers:
        table, card = self.predictions, self.reader.card
        probabilities = table[[f"probability_{label}" for label in card.labels]].to_numpy(dtype=np.float64)
        if card.task == "multilabel":
            targets = table[[f"target_{label}" for label in card.labels]].to_numpy(dtype=np.float64)
        else:
            known = table["target"].notna()
            targets = np.stack([(table["target"] == one).astype(float).where(known) for one in card.labels], axis=1)
        patients = table["patient"].fillna(table["image"]).astype(str)
        return Answers(probabilities, targets, np.array(patients, dtype=np.str_))

    def _heat_maps(self) -> AuditLine:
        line, status = randomised_line(self.reader, self.positives)
        self.heat_maps = {method: one.verdict for method, one in status.items() if method in JUDGED}
        return line

    def _outside(self) -> AuditLine:
        near = outside_files(self.asked.outside)
        return self._seen(
            judge_outside(
                self.reader,
                self.manifest,
                self.asked.gate,
                self.asked.limits,
                split=self.asked.split,
                near=near,
                progress=self.progress,
            )
        )

    def _claim(self) -> AuditLine:
        other, name = self.asked.against or (None, "")
        return claim_line(self.predictions, other, self.spec, (name, self.reader.card.name))

    def _paperwork(self) -> AuditLine:
        found = paperwork(self.reader.card, self.manifest, self.said, self.asked.answers)
        return paperwork_line(found, self.asked.limits)
