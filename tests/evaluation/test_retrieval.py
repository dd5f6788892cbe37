"""Metrics of a search: on paper, against scikit-learn and torchmetrics, by chance, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_normalized_dcg,
    retrieval_precision,
    retrieval_recall,
)

from wetread.errors import StatisticRefused
from wetread.evaluation.retrieval import (
    RETRIEVAL_METRICS,
    Ranking,
    average_precision_at,
    chance_scores,
    judge_leakage,
    ndcg_at,
    precision_at,
    recall_at,
    scores_at,
    summarise_ranking,
)


def ranking(rows: list[list[int]], possible: list[int], candidates: int = 100) -> Ranking:
    return Ranking(np.array(rows, np.bool_), np.array(possible), np.full(len(rows), candidates))


def test_on_paper() -> None:
    """Right, wrong, right, wrong, wrong; four relevant cases exist."""
    one = ranking([[1, 0, 1, 0, 0]], [4])
    assert precision_at(one, 5) == pytest.approx([2 / 5])
    assert recall_at(one, 5) == pytest.approx([2 / 4])
    assert average_precision_at(one, 5) == pytest.approx([(1 / 1 + 2 / 3) / 4])
    assert average_precision_at(one, 5, "found") == pytest.approx([(1 / 1 + 2 / 3) / 2])
    assert average_precision_at(one, 2) == pytest.approx([1 / 2])  # two could have been right
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)
    assert ndcg_at(one, 5) == pytest.approx([(1 + 1 / np.log2(4)) / ideal])


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    both = ranking([[1, 1, 1], [0, 0, 0]], [3, 3])
    for name, values in scores_at(both, 3).items():
        assert values.tolist() == [1.0, 0.0], name


def test_fewer_relevant_cases_than_places_can_still_be_perfect() -> None:
    one = ranking([[1, 0, 0, 0, 0]], [1])
    assert average_precision_at(one, 5) == pytest.approx([1.0])
    assert ndcg_at(one, 5) == pytest.approx([1.0])
    assert precision_at(one, 5) == pytest.approx([0.2])


def test_a_query_without_relevant_cases_has_no_score() -> None:
    both = ranking([[0, 0], [1, 0]], [0, 1])
    for values in scores_at(both, 2).values():
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


@pytest.fixture
def drawn() -> tuple[NDArray[np.float64], NDArray[np.int64], Ranking]:
    """Scores and relevance of 30 cases for 40 queries, and the ranking that follows."""
    generator = np.random.default_rng(0)
    scores, relevance = generator.random((40, 30)), (generator.random((40, 30)) < 0.3).astype(np.int64)
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(relevance, order, 1).astype(np.bool_)
    return scores, relevance, Ranking(ranked, relevance.sum(1), np.full(40, 30))


@pytest.mark.parametrize("k", [1, 5, 30])
def test_agrees_with_torchmetrics(drawn: tuple[NDArray[np.float64], NDArray[np.int64], Ranking], k: int) -> None:
    scores, relevance, ranked = drawn
    pairs = [(torch.from_numpy(s), torch.from_numpy(r)) for s, r in zip(scores, relevance, strict=True)]
    for ours, theirs in (
        (precision_at(ranked, k), [retrieval_precision(s, r, top_k=k) for s, r in pairs]),
        (recall_at(ranked, k), [retrieval_recall(s, r, top_k=k) for s, r in pairs]),
        (average_precision_at(ranked, k, "found"), [retrieval_average_precision(s, r, top_k=k) for s, r in pairs]),
        (ndcg_at(ranked, k), [retrieval_normalized_dcg(s, r, top_k=k) for s, r in pairs]),
    ):
        np.testing.assert_allclose(ours, [float(value) for value in theirs], atol=1e-6)


def test_agrees_with_scikit_learn(drawn: tuple[NDArray[np.float64], NDArray[np.int64], Ranking]) -> None:
    scores, relevance, ranked = drawn
    wanted = [average_precision_score(r, s) for s, r in zip(scores, relevance, strict=True)]
    np.testing.assert_allclose(average_precision_at(ranked, 30), wanted)
    assert ndcg_at(ranked, 5).mean() == pytest.approx(ndcg_score(relevance, scores, k=5))


def test_chance_is_what_random_orders_give() -> None:
    """Expected precision is the share of relevant cases; the rest is compared with real random orders."""
    generator = np.random.default_rng(3)
    relevance = np.arange(60) < 20
    many = np.array([generator.permutation(relevance)[:5] for _ in range(20_000)])
    one = Ranking(many[:400], np.full(400, 20), np.full(400, 60))
    chance = chance_scores(one, 5)
    assert set(chance) == set(RETRIEVAL_METRICS)
    assert chance["precision"] == pytest.approx(1 / 3, abs=0.005)
    assert chance["recall"] == pytest.approx(5 / 60, abs=0.002)
    truth = scores_at(Ranking(many, np.full(20_000, 20), np.full(20_000, 60)), 5)
    for name in ("map", "map_found", "ndcg"):
        assert chance[name] == pytest.approx(truth[name].mean(), abs=0.01), name


def test_intervals_know_that_films_of_a_patient_agree() -> None:
    """Twenty queries: as twenty patients, or as ten with the same outcome twice, which makes the interval wider."""
    values = np.repeat([1.0, 0.0, 1, 1, 0, 1, 0, 1, 1, 1], 2)
    single = summarise_ranking({"map": values}, np.arange(20).astype(str))["map"]
    paired = summarise_ranking({"map": values}, np.repeat(np.arange(10), 2).astype(str))["map"]
    assert single.value == paired.value == pytest.approx(0.7)
    assert single.low is not None
    assert single.high is not None
    assert paired.low is not None
    assert paired.high is not None
    assert paired.high - paired.low > 1.2 * (single.high - single.low)


def test_queries_without_a_score_are_in_no_mean() -> None:
    values = np.append(np.tile([1.0, 0.0], 10), np.nan)
    found = summarise_ranking({"map": values}, np.arange(21).astype(str))["map"]
    assert (found.value, found.n) == (0.5, 20)
    none = summarise_ranking({"map": np.full(3, np.nan)}, np.arange(3).astype(str))["map"]
    assert (none.value, none.note) == (None, "no query has a relevant case")


def test_leakage_is_the_difference_that_the_same_patient_makes() -> None:
    leaky, honest = ranking([[1, 1], [1, 0]], [9, 9]), ranking([[0, 1], [1, 0]], [8, 8])
    found = judge_leakage(np.array([True, False]), np.array([True, True]), np.array(["a", "b"]), (leaky, honest), 2)
    assert (found.queries, found.nearest.value) == (2, 0.5)
    assert found.with_own == {"map": 0.75, "precision": 0.75, "accuracy_at_1": 1.0}
    assert found.without == {"map": 0.375, "precision": 0.5, "accuracy_at_1": 0.5}


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(StatisticRefused, match="expected no more relevant answers than there are, got more"):
        ranking([[1, 1]], [1])
    with pytest.raises(StatisticRefused, match=r"expected relevance \(n, k\) and counts \(n,\), got \(1, 2\) and"):
        ranking([[1, 1]], [2, 2])
