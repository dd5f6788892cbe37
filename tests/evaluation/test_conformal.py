"""Prediction sets: on paper, against two other packages, with the coverage that theory promises, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from wetread.errors import StatisticRefused, UsageError
from wetread.evaluation.conformal import (
    cases_needed,
    conformal_quantile,
    coverage_range,
    fit_sets,
    one_per_patient,
    prediction_sets,
    quantile_rank,
    questions,
    set_figures,
    set_of,
    usable_quantiles,
)
from wetread.models.card import ConformalSpec
from wetread.types import Task

Floats = NDArray[np.float64]


def three_classes(n: int, seed: int = 0) -> tuple[Floats, NDArray[np.intp]]:
    """Softmax probabilities (n, 3) and the class that they promise."""
    generator = np.random.default_rng(seed)
    raw = np.exp(generator.normal((1.0, 0.0, -1.0), 2, (n, 3)))
    p = raw / raw.sum(axis=1, keepdims=True)
    return p, (generator.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)


def one_hot(truth: NDArray[np.intp], classes: int = 3) -> Floats:
    return np.eye(classes)[truth]


def spec_of(conditional: dict[str, float | None], marginal: dict[str, float | None] | None = None) -> ConformalSpec:
    n = dict.fromkeys(conditional, 9)
    return ConformalSpec(
        alpha=0.1, rule="", cases="", n=n, conditional=conditional, marginal=marginal or dict.fromkeys(conditional)
    )


def test_quantile_by_hand() -> None:
    """Nine scores .1 ... .9: alpha .1 needs rank 9, the largest; alpha .25 rank ceil(7.5) = 8; alpha .5 rank 5."""
    scores = np.arange(1, 10) / 10
    shuffled = np.random.default_rng(0).permutation(scores)
    assert [conformal_quantile(shuffled, alpha) for alpha in (0.1, 0.25, 0.5)] == [0.9, 0.8, 0.5]


def test_rank_and_cases_needed_agree_for_every_size() -> None:
    for alpha in (0.01, 0.05, 0.1, 0.2, 0.3, 1 / 3, 0.5, 0.9):
        enough = [n for n in range(200) if quantile_rank(n, alpha) <= n]
        assert enough == list(range(cases_needed(alpha), 200))
    assert [cases_needed(alpha) for alpha in (0.1, 0.05, 0.01, 0.3)] == [9, 19, 99, 3]


def test_quantile_is_the_least_that_covers_a_new_case_often_enough() -> None:
    """Brute force: among n + 1 exchangeable scores each is equally likely the new one; count how often it is inside."""
    for n, alpha in ((9, 0.1), (12, 0.1), (20, 0.2), (7, 0.25)):
        scores = np.random.default_rng(n).permutation(n + 1).astype(float)

        def inside(rank: int, scores: Floats = scores) -> float:
            leave = [np.delete(scores, new) for new in range(len(scores))]
            return float(np.mean([scores[new] <= np.sort(rest)[rank - 1] for new, rest in enumerate(leave)]))

        rank = quantile_rank(n, alpha)
        assert inside(rank) >= 1 - alpha - 1e-12
        assert rank == 1 or inside(rank - 1) < 1 - alpha


def test_too_few_cases_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(StatisticRefused, match=r"at least 9 calibration cases for an error rate of 0.1, got 8; add"):
        conformal_quantile(np.linspace(0, 1, 8), 0.1)
    with pytest.raises(StatisticRefused, match="finite probabilities, got NaN"):
        conformal_quantile([np.nan] * 9, 0.1)
    with pytest.raises(UsageError, match="alpha between 0 and 1, got 1"):
        conformal_quantile(np.linspace(0, 1, 50), 1)
    with pytest.raises(StatisticRefused, match="at least 9 calibration cases, got 8"):
        coverage_range(8, 0.1)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.23])
def test_marginal_sets_are_those_of_mapie(alpha: float) -> None:
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Fitted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Its features are its probabilities."""

        classes_ = np.arange(3)
        n_features_in_ = 3

        def fit(self, x: Any, y: Any) -> Fitted:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, x: Any) -> Floats:
            return np.asarray(x)

        def predict(self, x: Any) -> NDArray[np.intp]:
            return np.asarray(np.asarray(x).argmax(axis=1))

    p, truth = three_classes(217)
    new, _ = three_classes(2000, 1)
    other = mapie.SplitConformalClassifier(Fitted(), confidence_level=1 - alpha).conformalize(p, truth)
    found = fit_sets(p, one_hot(truth), "multiclass", "abc", alpha=alpha)
    quantile = found.marginal["a"]
    assert quantile is not None
    ours = prediction_sets(new, np.full(3, quantile))
    np.testing.assert_array_equal(ours, other.predict_set(new)[1][:, :, 0])
    assert quantile == pytest.approx(float(other._mapie_classifier.quantiles_[0]), abs=1e-6)


def test_sets_are_those_of_crepes_marginal_and_for_each_class() -> None:
    """Without ties at the boundary: crepes keeps p >= alpha, which differs where (n + 1) alpha is whole."""
    crepes = pytest.importorskip("crepes")
    p, truth = three_classes(423)
    assert all((n + 1) % 10 for n in (*np.bincount(truth), 423))
    new, _ = three_classes(1500, 1)
    found = fit_sets(p, one_hot(truth), "multiclass", "abc")
    scores = 1 - p[np.arange(len(p)), truth]
    marginal = crepes.ConformalClassifier().fit(scores)
    ours = prediction_sets(new, np.array([found.marginal[c] for c in "abc"], dtype=float))
    np.testing.assert_array_equal(ours, marginal.predict_set(1 - new, confidence=0.9, smoothing=False))
    classes = crepes.ConformalClassifier().fit(scores, bins=truth)
    quantiles = usable_quantiles(found, "abc")
    assert quantiles is not None
    assert quantiles[1] == "class-conditional"
    for number in range(3):
        alone = classes.predict_set(
            1 - new[:, [number]], bins=np.full(len(new), number), confidence=0.9, smoothing=False
        )
        np.testing.assert_array_equal(prediction_sets(new, quantiles[0])[:, number], alone[:, 0])


def test_a_tie_at_the_boundary_stays_in_the_set() -> None:
    """Its p-value is 2 of 10 among nine scores, and the quantile is the score itself."""
    p = np.full((9, 1), 0.5)
    found = fit_sets(p, np.ones((9, 1)), "binary", ("no", "yes"))
    assert found.marginal == {"no": 0.5, "yes": 0.5}
    assert prediction_sets(np.array([[0.5, 0.5]]), np.array([0.5, 0.5])).tolist() == [[True, True]]


def test_coverage_follows_the_beta_law_over_all_and_in_each_class() -> None:
    """400 calibrations of 60 cases with uniform scores, of which the quantile is the coverage itself."""
    generator = np.random.default_rng(0)
    found, own = [], []
    for _ in range(400):
        p = generator.random((60, 1))
        truth = (np.arange(60) < 25).astype(float)[:, None]
        spec = fit_sets(p, truth, "binary", ("no", "yes"))
        found.append(spec.marginal["yes"])  # the score is 1 - p or p: uniform
        own.append(spec.conditional["yes"])
    for values, n in ((found, 60), (own, 25)):
        k = quantile_rank(n, 0.1)
        assert kstest(np.array(values, dtype=float), beta(k, n + 1 - k).cdf).pvalue > 0.01
    assert kstest(np.array(found, dtype=float), beta(53, 8).cdf).pvalue < 0.01  # a rank too low is noticed


def test_coverage_range_is_that_of_the_literature() -> None:
    """The 95 % ranges at alpha .1: .836-.951 (n = 100), .873-.925 (500), .881-.918 (1000), by simulation."""
    for n, low, high in ((100, 0.836, 0.951), (500, 0.873, 0.925), (1000, 0.881, 0.918)):
        assert coverage_range(n, 0.1) == pytest.approx((low, high), abs=0.002)
    few, many = coverage_range(100, 0.1, 50), coverage_range(100, 0.1, 100_000)
    assert few[0] < many[0] < many[1] < few[1]
    assert many == pytest.approx(coverage_range(100, 0.1), abs=1e-3)


def test_one_image_of_each_patient_is_drawn_evenly_and_by_seed() -> None:
    patients = np.array(["a", "b", "a", "c", "a", "b"])
    drawn = [one_per_patient(patients, seed) for seed in range(600)]
    assert all(sorted(patients[index]) == ["a", "b", "c"] for index in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=6) / 600
    np.testing.assert_allclose(counts, [1 / 3, 1 / 2, 1 / 3, 1, 1 / 3, 1 / 2], atol=0.06)
    np.testing.assert_array_equal(one_per_patient(patients, 5), one_per_patient(patients, 5))


def test_copies_of_patients_break_coverage_and_one_image_of_each_mends_it() -> None:
    """20 patients with 30 images alike: taken as 600 cases, the law of n = 600 is far too narrow."""
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 30)
    every, each = [], []
    for seed in range(300):
        p = generator.random(20)[patients][:, None]
        y = np.ones((600, 1))
        every.append(fit_sets(p, y, "binary", ("no", "yes")).marginal["yes"])
        each.append(fit_sets(p, y, "binary", ("no", "yes"), patients=patients, seed=seed).marginal["yes"])
    k, few = quantile_rank(600, 0.1), quantile_rank(20, 0.1)
    assert kstest(np.array(every, dtype=float), beta(k, 601 - k).cdf).pvalue < 1e-6
    assert kstest(np.array(each, dtype=float), beta(few, 21 - few).cdf).pvalue > 0.01


def test_the_record_says_what_was_done() -> None:
    p, truth = three_classes(60)
    y = one_hot(truth)
    y[0] = np.nan
    patients = np.arange(60) // 2
    found = fit_sets(p, y, "multiclass", "abc", patients=patients, seed=3)
    assert found.cases == "one image of each of 30 patients, drawn with seed 3"
    assert sum(found.n.values()) == 30
    assert fit_sets(p, y, "multiclass", "abc").cases == "every image (59), as if each were of another patient"


def test_a_small_class_has_a_note_and_the_marginal_quantile_serves() -> None:
    p, _ = three_classes(40)
    truth = np.array([0] * 20 + [1] * 17 + [2] * 3)
    found = fit_sets(p, one_hot(truth), "multiclass", "abc")
    assert found.conditional["c"] is None
    assert found.notes == (
        "expected at least 9 calibration images of class c for an error rate of 0.1, got 3; "
        "add such images or allow a larger alpha",
    )
    usable = usable_quantiles(found, "abc")
    assert usable is not None
    assert usable[1] == "marginal"
    one = set_of(found, [0.5, 0.3, 0.2], "multiclass", "abc")
    assert one is not None
    assert one.method == "split conformal, marginal quantiles"


def test_without_any_quantile_there_is_no_set() -> None:
    found = fit_sets(np.full((5, 1), 0.5), np.array([[0.0], [1], [0], [1], [np.nan]]), "binary", ("no", "yes"))
    assert len(found.notes) == 3
    assert set_of(found, [0.5], "binary", ("no", "yes")) is None


@pytest.mark.parametrize(
    ("p", "classes", "reason"),
    [
        (0.95, ("ill",), ""),
        (0.5, ("well", "ill"), "2 classes remain possible at an error rate of 10 %: well, ill."),
        (0.05, ("well",), ""),
    ],
)
def test_a_set_of_one_answers_and_any_other_abstains(p: float, classes: tuple[str, ...], reason: str) -> None:
    found = set_of(spec_of({"well": 0.6, "ill": 0.7}), [p], "binary", ("well", "ill"))
    assert found is not None
    assert (found.classes, found.abstains, found.reason) == (classes, bool(reason), reason)
    assert (found.alpha, found.undecided) == (0.1, ())


def test_an_empty_set_abstains_too() -> None:
    found = set_of(spec_of({"well": 0.2, "ill": 0.2}), [0.5], "binary", ("well", "ill"))
    assert found is not None
    assert (found.classes, found.abstains) == ((), True)
    assert found.reason == "No class is probable enough at an error rate of 10 %."


def test_labels_have_sets_of_their_own() -> None:
    quantiles: dict[str, float | None] = {"no a": 0.2, "a": 0.2, "no b": 0.9, "b": 0.9, "no c": None, "c": None}
    found = set_of(spec_of(quantiles), [0.9, 0.5, 0.9], "multilabel", ("a", "b", "c"))
    assert found is not None
    assert (found.classes, found.undecided) == (("a", "no b", "b"), ("b",))
    assert found.reason == "b can be neither stated nor ruled out at an error rate of 10 %."
    assert found.method == "split conformal, class-conditional quantiles; none for c: too few calibration cases"
    empty = set_of(spec_of(quantiles), [0.5, 0.05, 0.5], "multilabel", ("a", "b", "c"))
    assert empty is not None
    assert (empty.classes, empty.undecided) == (("no b",), ("a",))
    assert empty.reason.startswith("Neither the presence nor the absence of a is probable enough")


def test_multilabel_counts_the_known_labels_of_each() -> None:
    generator = np.random.default_rng(0)
    p = generator.random((80, 2))
    y = (generator.random((80, 2)) < p).astype(float)
    y[:30, 1] = np.nan
    found = fit_sets(p, y, "multilabel", ("a", "b"), patients=np.arange(80) // 2)
    assert found.n["a"] + found.n["no a"] == 40
    assert found.n["b"] + found.n["no b"] == 25
    assert found.cases == "one image of each of up to 40 patients, drawn with seed 0"
    alone = fit_sets(p[30:, [1]], y[30:, [1]], "binary", ("no b", "b"), patients=np.arange(30, 80) // 2)
    assert alone.conditional == {key: found.conditional[key] for key in ("no b", "b")}


def test_figures_by_hand() -> None:
    """Four known cases: hit alone, hit among two, missed alone, empty; the fifth is unknown."""
    p = np.array([0.9, 0.5, 0.1, 0.7, 0.9])[:, None]
    y = np.array([1, 0, 1, 0, np.nan])[:, None]
    question = questions(p, y, "binary", ("no", "yes"))[0]
    sets = np.array([[0, 1], [1, 1], [1, 0], [0, 0], [0, 1]], dtype=bool)
    found = set_figures(sets, question)
    assert found is not None
    assert (found.n, found.coverage.value, found.mean_size, found.abstains.value, found.empty) == (4, 0.5, 1, 0.5, 0.25)
    assert {answer: (one.value, one.n) for answer, one in found.by_class.items()} == {"no": (0.5, 2), "yes": (0.5, 2)}
    assert set_figures(sets, questions(p, None, "binary", ("no", "yes"))[0]) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"probabilities and targets \(N, 3\), got \(4, 2\) and \(4, 2\)"):
        questions(np.zeros((4, 2)), np.zeros((4, 2)), "multiclass", "abc")
    with pytest.raises(UsageError, match=r"targets \(N, 1\), got \(4, 1\) and \(4, 2\)"):
        questions(np.zeros((4, 1)), np.zeros((4, 2)), "binary", ("no", "yes"))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_no_temperature_changes_which_binary_cases_abstain(task: Task) -> None:
    """Sets of two classes depend on ranks alone; with three they may change."""
    generator = np.random.default_rng(0)
    z = generator.normal(0, 2, (300, 1 if task == "binary" else 3))
    truth = (generator.random(300) < 0.5).astype(float) if task == "binary" else generator.integers(0, 3, 300)
    y = truth[:, None] if task == "binary" else one_hot(truth)
    classes = ("no", "yes") if task == "binary" else ("a", "b", "c")
    kept = []
    for temperature in (1.0, 3.0):
        p = 1 / (1 + np.exp(-z / temperature))
        if task == "multiclass":
            p = np.exp(z / temperature) / np.exp(z / temperature).sum(axis=1, keepdims=True)
        usable = usable_quantiles(fit_sets(p, y, task, classes), classes)
        assert usable is not None
        kept.append(prediction_sets(questions(p, None, task, classes)[0].probabilities, usable[0]))
    assert np.array_equal(kept[0], kept[1]) == (task == "binary")
