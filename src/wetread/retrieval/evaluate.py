"""Judging an index: queries with known labels, answers without their patient, figures with intervals.

Queries are images of a data set, or the rows of the index itself, each asked without its patient. A case is relevant
if it has the class of the query; with independent labels, if the two share one or both have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, expected
from wetread.evaluation.retrieval import (
    Leakage,
    Ranking,
    RetrievalResult,
    chance_scores,
    judge_leakage,
    scores_at,
    summarise_ranking,
)
from wetread.models.predict import Reader
from wetread.retrieval.cases import EmbedPlan, cases_of
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.neighbours import targets_of_rows
from wetread.retrieval.records import Found, IndexCard, Query, SearchOptions
from wetread.retrieval.where import Condition
from wetread.retrieval.write import refuse_other_embeddings, refuse_other_kind
from wetread.training.data import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Judgement", "QuerySet", "evaluate_index", "knn_table", "own_queries", "queries_of"]

_RELEVANCE = "the same class"
_RELEVANCE_LABELS = "at least one label in common, or none in both"
_PRIOR = 0.5
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class QuerySet:
    """Queries with what is known of them: ``rows`` (n), ``what`` they are in words, ``skipped``: could not be read."""

    queries: tuple[Query, ...]
    rows: pd.DataFrame
    what: str
    skipped: int = 0


@dataclass(frozen=True)
class Judgement:
    """How an index is judged."""

    k: int = 5
    where: Condition | None = None
    resamples: int = 1000
    seed: int = 0


def queries_of(
    reader: Reader, manifest: Manifest, index: FolderIndex, plan: EmbedPlan, progress: Progress | None = None
) -> QuerySet:
    """Embed images of a data set to ask an index with.

    Raises:
        DatasetRefused: another reader or other classes than those of the index, no images.
    """
    cases = cases_of(reader, manifest, plan, progress)
    refuse_other_embeddings(index.card, cases.head.reader)
    refuse_other_kind(index.card, cases.head)
    rows = cases.rows
    queries = tuple(
        Query(np.asarray(vectors, np.float32), None if patient is None else str(patient), sha256, path)
        for vectors, patient, sha256, path in zip(
            cases.vectors, _texts(rows["patient"]), rows["sha256"], rows["path"], strict=True
        )
    )
    return QuerySet(queries, rows, manifest.meta.name, len(cases.skipped))


def own_queries(index: FolderIndex) -> QuerySet:
    """All rows of an index, each to be asked without its patient."""
    numbers = np.flatnonzero(index.live)
    rows = index.table(numbers.tolist())
    vectors = index.vectors.take(numbers)
    queries = tuple(
        Query(one, None if patient is None else str(patient), str(sha256).split(" ")[0], str(path))
        for one, patient, sha256, path in zip(
            vectors, _texts(rows["patient"]), rows["sha256"], rows["path"], strict=True
        )
    )
    return QuerySet(queries, rows, "the cases of the index, each without its patient")


def evaluate_index(
    index: FolderIndex, asked: QuerySet, how: Judgement | None = None, progress: Progress | None = None
) -> RetrievalResult:
    """Ask every query with known labels and judge the answers.

    Raises:
        UsageError: ``k`` below 1.
        DatasetRefused: an index or queries without labels, an empty index, a condition that nothing fits.
    """
    how = how or Judgement()
    truth = _known_truth(index, asked)
    known = np.asarray(np.isfinite(truth).all(1))
    queries = [query for query, keep in zip(asked.queries, known, strict=True) if keep]
    truth, rows = truth[known], asked.rows[known].reset_index(drop=True)
    options = SearchOptions(how.where, same_patient=False, once_per_patient=False)
    scope = _Scope.of(index, options)
    found = _answers(index, queries, how.k, options, progress)
    ranking = scope.ranking(index, queries, truth, found, how.k, own=False)
    scores = scores_at(ranking, how.k)
    scores["knn_accuracy"] = np.where(ranking.possible > 0, _knn_right(index.card, scope, found, truth), np.nan)
    patients = rows["patient"].fillna(rows["path"]).to_numpy(dtype=np.str_)
    card = index.card
    return RetrievalResult(
        index=card.name,
        reader=f"{card.reader.name} {card.reader.version}",
        reader_sha256=card.reader.sha256,
        queries=asked.what,
        k=how.k,
        n=int((ranking.possible > 0).sum()),
        n_without=int((ranking.possible == 0).sum()),
        patients=len(np.unique(patients)),
        cases=int(scope.allowed.sum()),
        relevance=_RELEVANCE_LABELS if card.task == "multilabel" else _RELEVANCE,
        overall=summarise_ranking(scores, patients, resamples=how.resamples, seed=how.seed),
        by_class={
            name: summarise_ranking(
                {key: values[mine] for key, values in scores.items()},
                patients[mine],
                resamples=how.resamples,
                seed=how.seed,
            )
            for name, mine in zip(card.classes, np.asarray(truth == 1).T, strict=True)
            if mine.any()
        },
        chance=_chance(ranking, scope, truth, how),
        leakage=_leakage(index, queries, (truth, patients), (ranking, how), progress),
        warnings=_warnings(asked, int((~known).sum())),
    )


def knn_table(index: FolderIndex, asked: QuerySet, k: int = 15, progress: Progress | None = None) -> pd.DataFrame:
    """Use kNN as a classifier: one row for each query with the vote of its ``k`` nearest cases as probabilities.

    The columns are those that ``wetread evaluate`` reads. The patient asked about does not vote.
    """
    import pandas as pd

    card, rows = index.card, asked.rows
    options = SearchOptions(once_per_patient=False)
    found = _answers(index, asked.queries, k, options, progress)
    votes = _votes(_Scope.of(index, options).truth, found, normalise=card.task == "multiclass")
    truth = targets_of_rows(card, rows)
    empty = pd.Series(pd.NA, index=rows.index, dtype="str")
    table = pd.DataFrame({name: rows.get(name, empty) for name in ("path", "patient", "study", "split")})
    table = table.rename(columns={"path": "image"})
    names = list(card.classes)
    for column, name in enumerate(names):
        if card.task != "binary" or column == 1:
            table[f"probability_{name}"] = votes[:, column]
        if card.task == "multilabel":
            table[f"target_{name}"] = truth[:, column]
    if card.task != "multilabel":
        table["target"] = rows["label"]
    return table


@dataclass(frozen=True, eq=False)
class _Scope:
    """Cases that may be answered: ``allowed`` (N,) with their labels ``truth`` (N, classes)."""

    allowed: NDArray[np.bool_]
    truth: NDArray[np.float64]

    @classmethod
    def of(cls, index: FolderIndex, options: SearchOptions) -> _Scope:
        return cls(index.allowed(options), targets_of_rows(index.card, _labels(index)))

    def relevant(self, asked: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which cases are relevant for queries with labels ``asked`` (n, classes): bool (n, N)."""
        held = self.truth
        shared = np.nan_to_num(asked) @ np.nan_to_num(held).T > 0
        none = np.asarray(np.nansum(asked, 1) == 0)[:, None] & np.asarray(np.nansum(held, 1) == 0)[None]
        return np.asarray((shared | none) & np.asarray(np.isfinite(held).any(1))[None])

    def ranking(
        self,
        index: FolderIndex,
        queries: Sequence[Query],
        truth: NDArray[np.float64],
        found: Sequence[Found],
        k: int,
        *,
        own: bool,
    ) -> Ranking:
        """Judge answers; ``own``: those of the same patient may be among them."""
        flags = np.zeros((len(queries), k), np.bool_)
        possible, candidates = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
        for start in range(0, len(queries), _AT_ONCE):
            every = self.relevant(truth[start : start + _AT_ONCE]) & self.allowed
            for i, relevant in enumerate(every, start):
                out = index.same_file(queries[i]) if own else index.rows_of(queries[i])
                usable = self.allowed.copy()
                usable[out] = False
                possible[i], candidates[i] = int((relevant & usable).sum()), int(usable.sum())
                hits = [hit.row for hit in found[i].hits]
                flags[i, : len(hits)] = relevant[hits]
        return Ranking(flags, possible, candidates)


def _answers(
    index: FolderIndex, queries: Sequence[Query], k: int, options: SearchOptions, progress: Progress | None
) -> list[Found]:
    found: list[Found] = []
    for start in range(0, len(queries), _AT_ONCE):
        found += index.search(queries[start : start + _AT_ONCE], k, options)
        if progress:
            progress("asking the index", len(found), len(queries))
    return found


def _known_truth(index: FolderIndex, asked: QuerySet) -> NDArray[np.float64]:
    if not index.card.classes:
        raise DatasetRefused(expected("an index of labelled cases", "no classes", "build it from a labelled data set"))
    truth = targets_of_rows(index.card, asked.rows)
    if not np.isfinite(truth).all(1).any():
        raise DatasetRefused(expected("queries with known labels", "none", "label some of them"))
    return truth


def _labels(index: FolderIndex) -> pd.DataFrame:
    """The label columns of all rows of an index."""
    import pandas as pd

    names = [name for name in index.card.columns if name == "label" or name.startswith("label_")]
    return pd.DataFrame({name: index.column(name) for name in names})


def _votes(truth: NDArray[np.float64], found: Sequence[Found], *, normalise: bool) -> NDArray[np.float64]:
    """Shares (n, classes) of the neighbours' labels, weighed by likeness, half a case for and half against."""
    shares = np.full((len(found), truth.shape[1]), 0.5)
    for i, one in enumerate(found):
        held = truth[[hit.row for hit in one.hits]]
        weights = np.array([max(0.0, hit.similarity) for hit in one.hits])[:, None] * np.isfinite(held)
        shares[i] = ((weights * np.nan_to_num(held)).sum(0) + _PRIOR) / (weights.sum(0) + 2 * _PRIOR)
    return shares / shares.sum(1, keepdims=True) if normalise else shares


def _knn_right(
    card: IndexCard, scope: _Scope, found: Sequence[Found], truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Whether the vote is the truth (n,): the most voted class, or the share of labels that are right."""
    votes = _votes(scope.truth, found, normalise=False)
    if card.task == "multilabel":
        return np.asarray(((votes >= 0.5) == (truth == 1)).mean(1))
    return np.asarray(votes.argmax(1) == truth.argmax(1), np.float64)


def _chance(ranking: Ranking, scope: _Scope, truth: NDArray[np.float64], how: Judgement) -> dict[str, float]:
    """Random answers; for the vote, always the answer that most cases have."""
    scores = chance_scores(ranking, how.k, how.seed)
    held = scope.truth[scope.allowed]
    if np.isfinite(held).any() and scores:
        share = np.nanmean(held, axis=0)
        single = bool((truth.sum(1) == 1).all())
        guess = np.eye(len(share))[int(share.argmax())] if single else (share >= 0.5).astype(float)
        right = (truth == guess).all(1) if single else (truth == guess).mean(1)
        scores["knn_accuracy"] = float(np.mean(right))
    return scores


def _leakage(
    index: FolderIndex,
    queries: Sequence[Query],
    known: tuple[NDArray[np.float64], NDArray[np.str_]],
    honest: tuple[Ranking, Judgement],
    progress: Progress | None,
) -> Leakage:
    """Ask again with the same patient allowed (not the same file), where any query has such cases."""
    truth, patients = known
    ranking, how = honest
    options = SearchOptions(how.where, same_patient=True, once_per_patient=False)
    others = [np.setdiff1d(index.rows_of(query), index.same_file(query)) for query in queries]
    scope = _Scope.of(index, options)
    has_own = np.array([bool(scope.allowed[rows].any()) for rows in others])
    if not has_own.any():
        return judge_leakage(np.zeros(len(queries), np.bool_), has_own, patients, (ranking, ranking), how.k)
    found = _answers(index, queries, how.k, options, progress)
    first = np.array(
        [bool(one.hits) and one.hits[0].row in set(rows.tolist()) for one, rows in zip(found, others, strict=True)]
    )
    leaky = scope.ranking(index, queries, truth, found, how.k, own=True)
    return judge_leakage(first, has_own, patients, (leaky, ranking), how.k)


def _warnings(asked: QuerySet, unknown: int) -> tuple[str, ...]:
    texts = []
    if unknown:
        texts.append(f"{unknown} queries without known labels were not asked")
    if asked.skipped:
        texts.append(f"{asked.skipped} images could not be read and were not asked")
    return tuple(texts)


def _texts(column: pd.Series) -> list[object]:
    return [None if missing else value for value, missing in zip(column, column.isna(), strict=True)]
