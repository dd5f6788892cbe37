"""How good answers of a search are: precision, recall, average precision and nDCG at k, one value for each query.

Decided here: a query without any relevant case has no score (NaN) and is counted apart. Average precision at k is
given twice, because articles mean either: ``map`` divides by the relevant cases that could have been among the first
k (TREC, capped at k), ``map_found`` by those that were (so that one hit in first place gives 1). Intervals are a
bootstrap over the patients of the queries. Formulas: Manning, Raghavan & Schuetze 2008, chapter 8; nDCG: Jarvelin &
Kekalainen, TOIS 2002.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetread.errors import StatisticRefused, expected
from wetread.evaluation.intervals import Resampler, bootstrap, proportion
from wetread.types import Estimate, Record

__all__ = [
    "RETRIEVAL_METRICS",
    "Leakage",
    "Ranking",
    "RetrievalResult",
    "average_precision_at",
    "chance_scores",
    "judge_leakage",
    "ndcg_at",
    "precision_at",
    "recall_at",
    "scores_at",
    "summarise_ranking",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Over = Literal["possible", "found"]

RETRIEVAL_METRICS = ("map", "map_found", "precision", "recall", "ndcg", "accuracy_at_1")
"""Of one cut-off each; ``accuracy_at_1``: whether the nearest case is relevant."""
_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Ranking:
    """Answers to n queries, nearest first.

    ``relevant``: bool (n, k), False behind the last answer. ``possible``: relevant cases that could be answered, (n,).
    ``candidates``: cases that could be answered, (n,).
    """

    relevant: Flags
    possible: Counts
    candidates: Counts

    def __post_init__(self) -> None:
        if self.relevant.ndim != 2 or len(self.relevant) != len(self.possible):
            got = f"{self.relevant.shape} and {self.possible.shape}"
            raise StatisticRefused(expected("relevance (n, k) and counts (n,)", got, "give one row for each query"))
        if bool((self.relevant.sum(1) > self.possible).any()):
            raise StatisticRefused(
                expected("no more relevant answers than there are", "more", "count the relevant cases again")
            )

    def take(self, keep: Flags) -> Ranking:
        """The queries where ``keep`` (n,) is True."""
        return Ranking(self.relevant[keep], self.possible[keep], self.candidates[keep])


class RetrievalResult(Record):
    """What searches were worth; every estimate is a mean over queries with an interval over their patients.

    ``overall`` and, by class of the query, ``by_class``: :data:`RETRIEVAL_METRICS` and ``knn_accuracy``.
    ``chance``: the same of random answers. ``n_without``: queries without a relevant case, in none of the figures.
    """

    schema_version: Literal["1"] = "1"
    index: str
    reader: str
    reader_sha256: str
    queries: str
    k: int
    n: int
    n_without: int
    patients: int
    cases: int
    relevance: str
    overall: dict[str, Estimate]
    by_class: dict[str, dict[str, Estimate]]
    chance: dict[str, float]
    leakage: Leakage | None = None
    warnings: tuple[str, ...] = ()


class Leakage(Record):
    """What answers with the same patient would have done to the figures.

    ``queries``: those whose patient has other rows in the index. ``nearest``: for which share of all queries the
    nearest case would have been of the same patient. ``with_own``: ``map``, ``precision`` and ``accuracy_at_1`` with
    such answers, ``without`` as they are reported.
    """

    queries: int
    nearest: Estimate
    with_own: dict[str, float]
    without: dict[str, float]


RetrievalResult.model_rebuild()


def precision_at(ranking: Ranking, k: int) -> Floats:
    """Share of the first ``k`` answers that are relevant, (n,); places that stayed empty count as not relevant."""
    return _defined(ranking.relevant[:, :k].sum(1) / k, ranking)


def recall_at(ranking: Ranking, k: int) -> Floats:
    """Share of the relevant cases that are among the first ``k``, (n,)."""
    return _defined(ranking.relevant[:, :k].sum(1) / np.maximum(ranking.possible, 1), ranking)


def average_precision_at(ranking: Ranking, k: int, over: Over = "possible") -> Floats:
    """Sum of the precision at each relevant answer among the first ``k``, (n,).

    Divided by min(k, relevant cases), or by the relevant answers ``found`` (0 where there are none).
    """
    hits = ranking.relevant[:, :k].astype(np.float64)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    divisor = np.minimum(k, ranking.possible) if over == "possible" else hits.sum(1)
    return _defined((precision * hits).sum(1) / np.maximum(divisor, 1), ranking)


def ndcg_at(ranking: Ranking, k: int) -> Floats:
    """Discounted gain of the first ``k`` over that of the best order, (n,); gain 1, discount 1 / log2(rank + 1)."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    hits = ranking.relevant[:, :k]
    ideal = np.concatenate([[0.0], discount.cumsum()])[np.minimum(k, ranking.possible)]
    return _defined((hits * discount[: hits.shape[1]]).sum(1) / np.maximum(ideal, 1e-12), ranking)


def scores_at(ranking: Ranking, k: int) -> dict[str, Floats]:
    """Every metric of :data:`RETRIEVAL_METRICS`, (n,) each."""
    return {
        "map": average_precision_at(ranking, k),
        "map_found": average_precision_at(ranking, k, "found"),
        "precision": precision_at(ranking, k),
        "recall": recall_at(ranking, k),
        "ndcg": ndcg_at(ranking, k),
        "accuracy_at_1": precision_at(ranking, 1),
    }


def chance_scores(ranking: Ranking, k: int, seed: int = 0) -> dict[str, float]:
    """What :func:`scores_at` gives on average for answers in random order, of the same cases without replacement."""
    generator = np.random.default_rng(seed)
    known = ranking.take((ranking.possible > 0) & (ranking.candidates > 0))
    if not len(known.possible):
        return {}
    totals: dict[str, float] = dict.fromkeys(RETRIEVAL_METRICS, 0.0)
    for _ in range(_DRAWS):
        flags = np.zeros((len(known.possible), k), np.bool_)
        left, pool = known.possible.astype(np.float64), known.candidates.astype(np.float64)
        for rank in range(k):
            drawn = generator.random(len(left)) * np.maximum(pool, 1) < left
            flags[:, rank] = drawn
            left, pool = left - drawn, pool - 1
        random = scores_at(Ranking(flags, known.possible, known.candidates), k)
        totals = {name: totals[name] + float(random[name].mean()) for name in totals}
    return {name: total / _DRAWS for name, total in totals.items()}


def summarise_ranking(
    scores: Mapping[str, Floats], patients: NDArray[np.str_], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Mean of each score (n,) over the queries that have one, with its interval over ``patients`` (n,)."""
    table = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    keep = np.all([np.isfinite(values) for values in table.values()], axis=0)
    resampler = Resampler(int(keep.sum()), patients[keep], resamples, seed)
    stacked = np.stack([values[keep] for values in table.values()])
    if not resampler.n:
        return {name: Estimate(value=None, note="no query has a relevant case") for name in table}

    def means(weights: Floats) -> dict[str, Floats]:
        total = weights.sum(1)
        return {name: weights @ row / total for name, row in zip(table, stacked, strict=True)}

    return bootstrap(means, resampler)


def judge_leakage(
    own_first: Flags, has_own: Flags, patients: NDArray[np.str_], rankings: tuple[Ranking, Ranking], k: int
) -> Leakage:
    """Compare answers with and without the patient asked about.

    ``own_first`` (n,): the nearest case is of the same patient where those may be answered; ``has_own`` (n,): there are
    such cases. ``rankings``: with them and without.
    """
    names = ("map", "precision", "accuracy_at_1")
    both = [
        {name: float(np.nanmean(values)) for name, values in scores_at(ranking, k).items() if name in names}
        for ranking in rankings
    ]
    return Leakage(
        queries=int(has_own.sum()), nearest=proportion(own_first, patients), with_own=both[0], without=both[1]
    )


def _defined(values: Floats, ranking: Ranking) -> Floats:
    return np.where(ranking.possible > 0, values, np.nan)
