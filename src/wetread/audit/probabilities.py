"""T10, are the probabilities honest, and T11, does abstaining keep its promise: both on the assessed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.errors import StatisticRefused
from wetread.evaluation.calibration import EceVerdict, ece_verdict
from wetread.evaluation.conformal import (
    Question,
    coverage_range,
    one_per_patient,
    prediction_sets,
    questions,
    set_figures,
    usable_quantiles,
)
from wetread.models.card import ConformalSpec, ReaderCard
from wetread.types import Estimate

__all__ = ["Answers", "abstaining_line", "probability_line"]

_MINIMUM = 50
"""Cases of a class below which its coverage says nothing."""


@dataclass(frozen=True)
class Answers:
    """What a reader answered: calibrated ``probabilities`` and ``targets`` (N, outputs), and ``patients`` (N,)."""

    probabilities: NDArray[np.float64]
    targets: NDArray[np.float64]
    patients: NDArray[np.str_]


def probability_line(card: ReaderCard, answers: Answers) -> AuditLine:
    """Return T10: each label's ECE against that of a perfectly calibrated reader, its slope and its Brier skill."""
    judged: list[tuple[str, EceVerdict]] = []
    refused: list[str] = []
    for column, label in enumerate(card.labels):
        try:
            one = ece_verdict(answers.probabilities[:, column], answers.targets[:, column], answers.patients)
            judged.append((label, one))
        except StatisticRefused as reason:
            refused.append(f"{label}: {reason}")
    line = {"code": "T10", "question": QUESTIONS["T10"], "n": len(answers.targets)}
    if not judged:
        sentence = "Too few images to judge probabilities."
        return AuditLine(
            **line, answer="NOT ASSESSABLE", sentence=sentence, notes=tuple(refused), cure="audit on more images"
        )
    answer = _worst([one.verdict for _, one in judged])
    label, worst = next(pair for pair in judged if pair[1].verdict == answer)
    limit = f"an honest reader of this size would show up to {worst.null_p95:.3f}"
    said = "are honest as far as can be told" if answer == "PASS" else f"of {label} are off: {'; '.join(worst.reasons)}"
    return AuditLine(
        **line,
        answer=answer,
        sentence=f"Probabilities {said} (calibration error {worst.ece:.3f}; {limit}).",
        figures=tuple(figure for label, one in judged for figure in _calibration_figures(label, one)),
        notes=tuple(refused),
        cure="" if answer == "PASS" else "fit the temperature on your own validation images: wetread calibrate",
    )


def _calibration_figures(label: str, found: EceVerdict) -> list[AuditFigure]:
    error = Estimate(value=found.ece, low=found.ece_low, n=found.n, note=f"null p95 {found.null_p95:.3f}")
    skill = Estimate(value=found.brier_skill, n=found.n, note="no interval")
    return [
        AuditFigure(what=f"{label}: expected calibration error", estimate=error),
        AuditFigure(what=f"{label}: calibration slope", estimate=found.slope),
        AuditFigure(what=f"{label}: Brier skill", estimate=skill),
    ]


def _worst(found: Sequence[str]) -> Answered:
    return "FAIL" if "FAIL" in found else "WARN" if "WARN" in found else "PASS"


def abstaining_line(card: ReaderCard, answers: Answers) -> AuditLine:
    """Return T11: whether the sets hold the truth as often as promised, over all and for each class.

    A coverage is judged by the range that 95 % of honest calibrations give: beta-binomial with the calibration cases
    of the card and the cases at hand, one image of each patient (Angelopoulos and Bates, arXiv 2107.07511, 3.2).
    """
    line = {"code": "T11", "question": QUESTIONS["T11"]}
    if card.conformal is None:
        return AuditLine(
            **line,
            answer="NOT ASSESSABLE",
            sentence="The reader makes no promise: its card has no conformal quantiles.",
            cure="wetread calibrate READER --data DATASET adds them",
        )
    kept = one_per_patient(answers.patients)
    found = [
        judged
        for question in questions(answers.probabilities[kept], answers.targets[kept], card.task, card.classes)
        for judged in _coverages(question, card.conformal)
    ]
    outside = [one for one in found if not one.inside]
    if not found:
        sentence = "No class has enough images to judge the promise."
        return AuditLine(**line, answer="NOT ASSESSABLE", sentence=sentence, n=len(kept), cure="audit on more images")
    worst = max(outside or found, key=lambda one: abs((one.figure.value or 0) - (one.low + one.high) / 2))
    answer: Answered = "FAIL" if outside else "PASS"
    promise = f"{1 - card.conformal.alpha:.0%}"
    verb = "keeps" if answer == "PASS" else "breaks"
    return AuditLine(
        **line,
        n=len(kept),
        answer=answer,
        sentence=f"It {verb} its promise of {promise}: {worst.figure.value:.1%} of {worst.what} hold the truth "
        f"({worst.low:.1%} to {worst.high:.1%} would be in order).",
        figures=tuple(AuditFigure(what=f"coverage of {one.what}", estimate=one.figure) for one in found),
        notes=(f"one image of each patient; calibrated on {card.conformal.cases}", *card.conformal.notes),
        cure="" if answer == "PASS" else "calibrate on images of this place: wetread calibrate",
    )


@dataclass(frozen=True)
class _Coverage:
    what: str
    figure: Estimate
    low: float
    high: float

    @property
    def inside(self) -> bool:
        return self.figure.value is not None and self.low <= self.figure.value <= self.high


def _coverages(question: Question, spec: ConformalSpec) -> list[_Coverage]:
    """Coverage of the classes of one question that have enough cases, with the range that is in order."""
    usable = usable_quantiles(spec, question.answers)
    if usable is None:
        return []
    quantiles, kind = usable
    known = question.truth >= 0
    sets = prediction_sets(question.probabilities, quantiles)
    figures = set_figures(sets, question)
    if figures is None:
        return []
    found = []
    for number, answer in enumerate(question.answers):
        cases = int((question.truth == number).sum())
        if cases >= _MINIMUM and "conditional" in kind:
            found.append(
                _Coverage(
                    f"{answer} sets", figures.by_class[answer], *coverage_range(spec.n[answer], spec.alpha, cases)
                )
            )
    cases = int(known.sum())
    if not found and cases >= _MINIMUM:
        total = sum(spec.n[answer] for answer in question.answers)
        found.append(_Coverage("all sets", figures.coverage, *coverage_range(total, spec.alpha, cases)))
    return found
