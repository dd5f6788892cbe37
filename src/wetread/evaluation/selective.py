"""What a reader gains by leaving its least certain cases to a person: risk against coverage, and AURC.

Cases are answered in order of confidence; the risk at a coverage is the share of wrong ones among those
answered. Ties are taken at random: their expected risk is exact, so no result depends on the order of rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, UsageError, expected
from wetread.evaluation.calibration import logit
from wetread.evaluation.intervals import Resampler, bootstrap
from wetread.types import Estimate, Record

__all__ = ["SelectiveResult", "aurc", "certainty", "risk_coverage", "selective_result", "weighted_aurc"]

Floats = NDArray[np.float64]

MAXIMUM_POINTS = 400
"""More points than this cannot be told apart on a page and only make the JSON long."""


class SelectiveResult(Record):
    """Risk and coverage of a reader that may abstain.

    ``coverage`` and ``risk``: points of the curve, from the most certain cases to all. ``aurc``: mean risk over all
    coverages; ``optimal`` is that of a ranking with every error last, ``random`` that of one by chance, the error
    rate. ``excess``: aurc - optimal, what is lost by ranking wrongly.
    """

    n: int
    errors: int
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: Estimate
    excess: Estimate
    optimal: float
    random: float

    def risk_at(self, coverage: float) -> float:
        """Return the risk where a share ``coverage`` (0-1) is answered, between the points of the curve.

        Raises:
            UsageError: a share below the least of the curve or above 1.
        """
        if not self.coverage[0] <= coverage <= 1:
            raise UsageError(
                expected(f"a coverage from {self.coverage[0]:.3g} to 1", coverage, "choose one in this range")
            )
        return float(np.interp(coverage, self.coverage, self.risk))


def certainty(probabilities: ArrayLike, threshold: float = 0.5) -> Floats:
    """Return how far each case lies from where its decision would change.

    ``probabilities`` (n,) of the positive class: distance from ``threshold`` in logits. (n, C) of exclusive classes:
    the largest one (Geifman & El-Yaniv 2017, arXiv 1705.08500).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim == 2:
        return np.asarray(p.max(axis=1))
    return np.abs(logit(p) - float(logit(threshold)))


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage and risk (K,) at each of K distinct confidences, highest first.

    ``confidence``: (n,) any finite numbers, higher is surer. ``wrong``: (n,) whether the decision is an error.
    El-Yaniv & Wiener 2010, JMLR 11:1605. Raises as :func:`selective_result`.
    """
    sure, error = _checked(confidence, wrong)
    answered, errors = _cumulated(sure, error, np.ones((1, len(sure))))
    return answered[0] / len(sure), errors[0] / answered[0]


def aurc(confidence: ArrayLike, wrong: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean risk over coverages 1/n, 2/n, ... 1.

    Arrays as in :func:`risk_coverage`. Geifman, Uziel & El-Yaniv 2019, arXiv 1805.08206.
    """
    sure, error = _checked(confidence, wrong)
    return float(weighted_aurc(sure, error, np.ones((1, len(sure))))[0])


def selective_result(
    confidence: ArrayLike,
    wrong: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> SelectiveResult:
    """Return curve, AURC and its excess over the optimal ranking, with bootstrap intervals over patients.

    Arrays as in :func:`risk_coverage`; ``groups``: (n,) patient of each case.

    Raises:
        StatisticRefused: no cases, or a confidence that is not finite.
        UsageError: arrays of different lengths.
    """
    sure, error = _checked(confidence, wrong)
    n, errors = len(sure), int(error.sum())
    resampler = Resampler(n, None if groups is None else np.asarray(groups), resamples, seed)

    def statistics(weights: Floats) -> dict[str, Floats]:
        area = weighted_aurc(sure, error, weights)
        return {"aurc": area, "excess": area - _optimal(weights @ error, weights.sum(axis=1))}

    found = bootstrap(statistics, resampler)
    coverage, risk = risk_coverage(sure, error)
    kept = np.unique(np.linspace(0, len(risk) - 1, min(len(risk), MAXIMUM_POINTS)).round().astype(np.intp))
    return SelectiveResult(
        n=n,
        errors=errors,
        coverage=tuple(map(float, coverage[kept])),
        risk=tuple(map(float, risk[kept])),
        aurc=found["aurc"],
        excess=found["excess"],
        optimal=float(_optimal(np.array([errors]), np.array([n]))[0]),
        random=errors / n,
    )


def weighted_aurc(confidence: Floats, wrong: Floats, weights: Floats) -> Floats:
    """Return the AURC (B,) for whole case counts ``weights`` (B, n); copies of a case are ties.

    With N0 cases and E0 errors above it, m tied cases with e errors have expected risks (E0 + j e/m) / (N0 + j),
    j = 1 ... m, whose sum is e + (E0 - N0 e/m)(H(N0 + m) - H(N0)) with the harmonic numbers H.
    """
    answered, errors = _cumulated(confidence, wrong, weights)
    above, errors_above = _before(answered), _before(errors)
    tied, tied_errors = answered - above, errors - errors_above
    share = np.divide(tied_errors, tied, out=np.zeros_like(tied), where=tied > 0)
    harmonic = _harmonic(int(answered[:, -1].max()))
    steps = harmonic[answered.astype(np.intp)] - harmonic[above.astype(np.intp)]
    return np.asarray((tied_errors + (errors_above - above * share) * steps).sum(axis=1) / answered[:, -1])


def _cumulated(confidence: Floats, wrong: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return counts of cases and of errors (B, K) at or above each of K distinct confidences, highest first."""
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(confidence) - 1)
    ranked = weights[:, order]
    return np.cumsum(ranked, axis=1)[:, ends], np.cumsum(ranked * wrong[order], axis=1)[:, ends]


def _before(cumulated: Floats) -> Floats:
    return np.concatenate([np.zeros((len(cumulated), 1)), cumulated[:, :-1]], axis=1)


def _harmonic(most: int) -> Floats:
    """Return H(0) ... H(most), with H(k) = 1 + 1/2 + ... + 1/k."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1))])


def _optimal(errors: Floats, cases: Floats) -> Floats:
    """Return the AURC (B,) with every error last: (e - (N - e)(H(N) - H(N - e))) / N."""
    harmonic = _harmonic(int(cases.max()))
    right = cases - errors
    steps = harmonic[cases.astype(np.intp)] - harmonic[right.astype(np.intp)]
    return np.asarray((errors - right * steps) / cases)


def _checked(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    sure, error = np.asarray(confidence, dtype=np.float64), np.asarray(wrong).astype(np.float64)
    if sure.ndim != 1 or sure.shape != error.shape:
        raise UsageError(expected("confidence and errors (n,)", f"{sure.shape} and {error.shape}", "reshape them"))
    if not len(sure):
        raise StatisticRefused(expected("cases with known truth", "none", "add labels"))
    if not np.isfinite(sure).all():
        raise StatisticRefused(expected("finite confidences", "NaN or infinity", "use probabilities or logits"))
    return sure, error
