"""Which answers cannot be ruled out: split conformal sets, their quantiles, and when a reader abstains.

The score of a case is 1 - p of its true class. At an error rate alpha the k-th smallest of n calibration
scores, k = ceil((n + 1)(1 - alpha)), bounds the score of a new case with probability at least 1 - alpha, whatever
the network. That needs exchangeable cases: images of one patient are not, so one of each is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, UsageError, expected
from wetread.evaluation.intervals import proportion
from wetread.models.card import ConformalSpec
from wetread.types import Estimate, PredictionSet, Record, Task

__all__ = [
    "ALPHA",
    "Question",
    "SetFigures",
    "cases_needed",
    "conformal_quantile",
    "coverage_range",
    "fit_sets",
    "one_per_patient",
    "prediction_sets",
    "quantile_rank",
    "questions",
    "set_figures",
    "set_of",
    "usable_quantiles",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ALPHA = 0.1
"""Error rate of the sets on a card: of ten new patients, one has a set without the truth."""

RULE = "the k-th smallest of n scores 1 - p of the true class, k = ceil((n + 1)(1 - alpha))"

_ROUNDING = 1e-9
"""(n + 1)(1 - alpha) may exceed a whole number by rounding alone."""


class SetFigures(Record):
    """How sets did on cases with known truth.

    ``coverage``: share of the sets that hold the truth, ``by_class`` among the cases of each class. ``mean_size``:
    answers per set. ``abstains``: share of the sets with none or several answers, ``empty`` with none.
    """

    n: int
    coverage: Estimate
    by_class: dict[str, Estimate]
    mean_size: float
    abstains: Estimate
    empty: float


@dataclass(frozen=True)
class Question:
    """One choice among answers that exclude each other, for N cases.

    ``name``: the label, empty for exclusive classes. ``probabilities``: float (N, C), rows sum to 1. ``truth``: (N,)
    number of the answer, -1 unknown.
    """

    name: str
    answers: tuple[str, ...]
    probabilities: Floats
    truth: NDArray[np.intp]


def questions(
    probabilities: ArrayLike, targets: ArrayLike | None, task: Task, classes: Sequence[str]
) -> tuple[Question, ...]:
    """Return what a reader answers: one question, or for independent labels one for each (``no L`` or ``L``).

    ``probabilities``: (N, outputs) calibrated, in the card's order; binary: one column, of the positive class.
    ``targets``: (N, outputs) 1, 0 or NaN (unknown), None where no truth is known.

    Raises:
        UsageError: shapes that do not fit the task.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    outputs = 1 if task == "binary" else len(classes)
    y = np.full(p.shape, np.nan) if targets is None else np.asarray(targets, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != outputs or y.shape != p.shape:
        raise UsageError(
            expected(f"probabilities and targets (N, {outputs})", f"{p.shape} and {y.shape}", "reshape them")
        )
    if task == "multiclass":
        unknown = np.isnan(y).any(axis=1)
        truth = np.where(unknown, -1, np.nan_to_num(y).argmax(axis=1))
        return (Question("", tuple(classes), p, truth.astype(np.intp)),)
    if task == "binary":
        return (_yes_or_no("", (classes[0], classes[1]), p[:, 0], y[:, 0]),)
    return tuple(
        _yes_or_no(label, (f"no {label}", label), p[:, number], y[:, number]) for number, label in enumerate(classes)
    )


def _yes_or_no(name: str, answers: tuple[str, str], p: Floats, y: Floats) -> Question:
    truth = np.where(np.isnan(y), -1, np.nan_to_num(y)).astype(np.intp)
    return Question(name, answers, np.stack([1 - p, p], axis=1), truth)


def quantile_rank(n: int, alpha: float) -> int:
    """Return k = ceil((n + 1)(1 - alpha)): which of n ordered scores is the quantile; above n with too few cases.

    Vovk et al. 2005, doi 10.1007/b106715; Lei et al. 2018, doi 10.1080/01621459.2017.1307116.

    Raises:
        UsageError: an error rate that is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise UsageError(expected("an error rate alpha between 0 and 1", alpha, "set e.g. 0.1"))
    return math.ceil((n + 1) * (1 - alpha) - _ROUNDING)


def cases_needed(alpha: float) -> int:
    """Return the fewest calibration cases with which an error rate ``alpha`` can be kept: ceil(1 / alpha) - 1."""
    quantile_rank(0, alpha)  # refuses other rates
    return math.ceil(1 / alpha - _ROUNDING) - 1


def conformal_quantile(scores: ArrayLike, alpha: float, what: str = "calibration cases") -> float:
    """Return the conformal quantile of ``scores`` (n,), each 1 - p of the true class.

    Raises:
        StatisticRefused: fewer cases than :func:`cases_needed`, named as ``what``, or a score that is not finite.
    """
    found = np.asarray(scores, dtype=np.float64)
    if len(found) < cases_needed(alpha):
        raise StatisticRefused(
            expected(
                f"at least {cases_needed(alpha)} {what} for an error rate of {alpha:g}",
                len(found),
                "add such images or allow a larger alpha",
            )
        )
    if not np.isfinite(found).all():
        raise StatisticRefused(expected("finite probabilities", "NaN or infinity", "look for a diverged training"))
    rank = quantile_rank(len(found), alpha) - 1
    return float(np.partition(found, rank)[rank])


def coverage_range(n: int, alpha: float, cases: int | None = None, level: float = 0.95) -> tuple[float, float]:
    """Return where the coverage of sets from ``n`` calibration cases lies with probability ``level``, if all is well.

    Its law is Beta(k, n + 1 - k) over all new cases and Beta-binomial over ``cases`` of them (Vovk 2012,
    doi 10.1007/s10994-013-5355-6). Scores with ties cover more.

    Raises:
        StatisticRefused: fewer calibration cases than :func:`cases_needed`.
    """
    from scipy.stats import beta, betabinom

    k = quantile_rank(n, alpha)
    if k > n:
        raise StatisticRefused(
            expected(f"at least {cases_needed(alpha)} calibration cases", n, "add images or allow a larger alpha")
        )
    tails = ((1 - level) / 2, (1 + level) / 2)
    if cases is None:
        return float(beta.ppf(tails[0], k, n + 1 - k)), float(beta.ppf(tails[1], k, n + 1 - k))
    low, high = (float(betabinom.ppf(tail, cases, k, n + 1 - k)) / cases for tail in tails)
    return low, high


def one_per_patient(patients: ArrayLike, seed: int = 0) -> NDArray[np.intp]:
    """Return the numbers (ascending) of one case of each patient, drawn with ``seed``; ``patients``: (n,)."""
    names = np.asarray(patients)
    order = np.random.default_rng(seed).permutation(len(names))
    _, first = np.unique(names[order], return_index=True)
    return np.sort(order[first])


def fit_sets(
    probabilities: ArrayLike,
    targets: ArrayLike,
    task: Task,
    classes: Sequence[str],
    *,
    patients: ArrayLike | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> ConformalSpec:
    """Return the conformal quantiles of calibration images, over all classes and for each class (Mondrian).

    Arrays as in :func:`questions`. ``patients``: (N,); one image of each is drawn with ``seed`` among those whose
    truth is known, for each label anew. Without them every image counts, and ``cases`` says so. A class with
    fewer cases than :func:`cases_needed` has the quantile None and a note. Sadinle et al. 2019, doi
    10.1080/01621459.2017.1395341 (score); Vovk 2012, doi 10.1007/s10994-013-5355-6 (quantile for each class).
    """
    n: dict[str, int] = {}
    conditional: dict[str, float | None] = {}
    marginal: dict[str, float | None] = {}
    notes: list[str] = []
    drawn = 0
    for question in questions(probabilities, targets, task, classes):
        chosen = _calibration_cases(question, patients, seed)
        truth = question.truth[chosen]
        scores = 1 - question.probabilities[chosen, truth]
        drawn = max(drawn, len(chosen))
        name = f"images of {question.name}" if question.name else "images"
        together = _quantile_or_note(scores, alpha, f"calibration {name}", notes)
        for number, answer in enumerate(question.answers):
            own = scores[truth == number]
            n[answer], marginal[answer] = len(own), together
            conditional[answer] = _quantile_or_note(own, alpha, f"calibration images of class {answer}", notes)
    if patients is None:
        cases = f"every image ({drawn}), as if each were of another patient"
    else:
        most = "up to " if task == "multilabel" else ""  # a label's own number depends on who is labelled for it
        cases = f"one image of each of {most}{drawn} patients, drawn with seed {seed}"
    return ConformalSpec(
        alpha=alpha, rule=RULE, cases=cases, n=n, conditional=conditional, marginal=marginal, notes=tuple(notes)
    )


def _calibration_cases(question: Question, patients: ArrayLike | None, seed: int) -> NDArray[np.intp]:
    known = np.flatnonzero(question.truth >= 0)
    return known if patients is None else known[one_per_patient(np.asarray(patients)[known], seed)]


def _quantile_or_note(scores: Floats, alpha: float, what: str, notes: list[str]) -> float | None:
    try:
        return conformal_quantile(scores, alpha, what)
    except StatisticRefused as refused:
        notes.append(str(refused))
        return None


def usable_quantiles(spec: ConformalSpec, answers: Sequence[str]) -> tuple[Floats, str] | None:
    """Return quantiles (C,) of the answers to one question and their kind; None where there are none.

    ``class-conditional`` where each class has its own; else ``marginal``, which holds over all classes together and
    may be broken for a rare one.
    """
    for kind, table in (("class-conditional", spec.conditional), ("marginal", spec.marginal)):
        found = [table.get(answer) for answer in answers]
        if all(value is not None for value in found):
            return np.array(found, dtype=np.float64), kind
    return None


def prediction_sets(probabilities: Floats, quantiles: Floats) -> Flags:
    """Return which answers stay in each set (N, C): those with 1 - p at or below the quantile (C,)."""
    return np.asarray(1 - probabilities <= quantiles)


def set_figures(sets: Flags, question: Question, patients: NDArray[np.str_] | None = None) -> SetFigures | None:
    """Return coverage, size and abstention of ``sets`` (N, C) on the cases whose truth is known; None without any.

    ``patients``: (N,), for the intervals.
    """
    known = question.truth >= 0
    if not known.any():
        return None
    truth, kept = question.truth[known], sets[known]
    groups = None if patients is None else patients[known]
    hit, size = kept[np.arange(len(kept)), truth], kept.sum(axis=1)
    by_class = {
        answer: proportion(hit[truth == number], None if groups is None else groups[truth == number])
        for number, answer in enumerate(question.answers)
    }
    return SetFigures(
        n=len(kept),
        coverage=proportion(hit, groups),
        by_class=by_class,
        mean_size=float(size.mean()),
        abstains=proportion(size != 1, groups),
        empty=float((size == 0).mean()),
    )


def set_of(
    spec: ConformalSpec, probabilities: Sequence[float], task: Task, classes: Sequence[str]
) -> PredictionSet | None:
    """Return the prediction set of one image; ``probabilities`` (outputs,) calibrated, in the card's order.

    None where no class has a quantile.
    """
    kept: list[str] = []
    open_: dict[str, str] = {}
    kinds: list[str] = []
    without: list[str] = []
    for question in questions(np.array([probabilities]), None, task, classes):
        usable = usable_quantiles(spec, question.answers)
        if usable is None:
            without.append(question.name)
            continue
        chosen = prediction_sets(question.probabilities, usable[0])[0]
        left = [answer for answer, inside in zip(question.answers, chosen, strict=True) if inside]
        kept += left
        kinds.append(usable[1])
        if len(left) != 1:
            open_[question.name] = _why(left, question, spec.alpha)
    if not kinds:
        return None
    return PredictionSet(
        classes=tuple(kept),
        alpha=spec.alpha,
        method=_method(kinds, without),
        abstains=bool(open_),
        reason=" ".join(open_.values()),
        undecided=tuple(name for name in open_ if name),
    )


def _method(kinds: Sequence[str], without: Sequence[str]) -> str:
    parts = [f"split conformal, {' and '.join(dict.fromkeys(kinds))} quantiles"]
    if without:
        parts.append(f"none for {', '.join(without)}: too few calibration cases")
    return "; ".join(parts)


def _why(left: Sequence[str], question: Question, alpha: float) -> str:
    """Say in words why a set of none or several answers is no answer."""
    at = f"at an error rate of {100 * alpha:g} %"
    if question.name and left:
        return f"{question.name} can be neither stated nor ruled out {at}."
    if question.name:
        return f"Neither the presence nor the absence of {question.name} is probable enough {at}."
    if left:
        return f"{len(left)} classes remain possible {at}: {', '.join(left)}."
    return f"No class is probable enough {at}."
