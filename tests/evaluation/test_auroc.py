"""AUROC: against brute force, scikit-learn and a published worked example; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.metrics import roc_auc_score

from wetread.errors import StatisticRefused, UsageError
from wetread.evaluation.auroc import auroc, auroc_estimate, delong, logit_interval, wald_interval

Floats = NDArray[np.float64]

OVARIAN = """
3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0
2.5 5.7  8 0   1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1
4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0
4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1
3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1
2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
3.6 6.6  5 1
"""
"""Albumin, total protein, Krebs-Goplerud score and outcome of 43 patients with ovarian cancer.

The data of DeLong, DeLong & Clarke-Pearson 1988 as printed in the SAS/STAT User's Guide, The
LOGISTIC Procedure, example "Comparing Receiver Operating Characteristic Curves", where the areas,
standard errors, limits and contrasts below are printed too. K-G is scored as 10 minus the score.
"""


@pytest.fixture(scope="module")
def ovarian() -> tuple[Floats, Floats]:
    table = np.array(OVARIAN.split(), dtype=np.float64).reshape(-1, 4)
    return np.stack([table[:, 0], table[:, 1], 10 - table[:, 2]]), table[:, 3]


def brute_force(scores: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Areas and covariance from the full (m, n) kernel of pairs."""
    x, y = scores[:, targets == 1], scores[:, targets == 0]
    kernel = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    areas = kernel.mean(axis=(1, 2))
    v10, v01 = kernel.mean(axis=2), kernel.mean(axis=1)
    m, n = v10.shape[1], v01.shape[1]
    s10 = (v10 - areas[:, None]) @ (v10 - areas[:, None]).T / (m - 1)
    s01 = (v01 - areas[:, None]) @ (v01 - areas[:, None]).T / (n - 1)
    return areas, s10 / m + s01 / n


def test_published_example_areas_and_errors(ovarian: tuple[Floats, Floats]) -> None:
    found = delong(*ovarian)
    errors = np.sqrt(np.diag(found.covariance))
    np.testing.assert_allclose(found.areas, [0.7366, 0.6478, 0.7258], atol=5e-5)
    np.testing.assert_allclose(errors, [0.0927, 0.1000, 0.1028], atol=5e-5)
    limits = [wald_interval(a, e * e) for a, e in zip(found.areas, errors, strict=True)]
    np.testing.assert_allclose(limits, [[0.5549, 0.9182], [0.4518, 0.8439], [0.5243, 0.9273]], atol=5e-5)
    assert (found.positives, found.negatives) == (31, 12)


def test_published_example_contrasts(ovarian: tuple[Floats, Floats]) -> None:
    found = delong(*ovarian)
    contrast = np.array([[1, 0, -1], [0, 1, -1]])
    difference, covariance = contrast @ found.areas, contrast @ found.covariance @ contrast.T
    np.testing.assert_allclose(difference, [0.0108, -0.0780], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0953, 0.1046], atol=5e-5)
    np.testing.assert_allclose(difference**2 / np.diag(covariance), [0.0127, 0.5554], atol=5e-5)
    statistic = difference @ np.linalg.solve(covariance, difference)
    assert statistic == pytest.approx(2.5340, abs=5e-5)
    assert chi2.sf(statistic, 2) == pytest.approx(0.2817, abs=5e-5)


@pytest.mark.parametrize("seed", range(8))
def test_midranks_equal_brute_force_with_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, (3, 90)) / 12  # many ties
    targets = (generator.random(90) < 0.3).astype(np.float64)
    areas, covariance = brute_force(scores, targets)
    found = delong(scores, targets)
    np.testing.assert_allclose(found.areas, areas, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
    assert auroc(scores[0], targets) == pytest.approx(roc_auc_score(targets, scores[0]), abs=1e-12)


def test_by_hand() -> None:
    """Positives .9 .6, negatives .7 .2: pairs 1 1 0 1, area 3/4.

    v10 = (1, 1/2), v01 = (1/2, 1); each has variance 1/8, so variance = (1/8)/2 + (1/8)/2 = 1/8.
    """
    found = delong([0.9, 0.6, 0.7, 0.2], [1, 1, 0, 0])
    assert found.areas[0] == 0.75
    assert found.covariance[0, 0] == pytest.approx(0.125)


def test_logit_interval_by_hand() -> None:
    """Area .8, se .05: logit 1.386294, se .05/.16 = .3125, so 1.386294 +- .612489."""
    low, high = logit_interval(0.8, 0.0025)
    assert low == pytest.approx(1 / (1 + np.exp(-0.773805)), abs=1e-6)
    assert high == pytest.approx(1 / (1 + np.exp(-1.998783)), abs=1e-6)


def test_one_image_per_patient_is_delong() -> None:
    generator = np.random.default_rng(1)
    scores, targets = generator.random((2, 60)), (np.arange(60) < 25).astype(np.float64)
    plain, grouped = delong(scores, targets), delong(scores, targets, generator.permutation(60))
    # Obuchowski adds only the within-patient term, which is 0 here
    np.testing.assert_allclose(grouped.covariance, plain.covariance, atol=1e-12)


def obuchowski_by_loops(scores: Floats, targets: Floats, groups: NDArray[np.intp]) -> float:
    """Obuchowski 1997, equations for S10, S01, S11, written out patient by patient."""
    x, y = scores[targets == 1], scores[targets == 0]
    gx, gy = groups[targets == 1], groups[targets == 0]
    area = float(np.mean([[(a > b) + 0.5 * (a == b) for b in y] for a in x]))
    v10 = [float(np.mean([(a > b) + 0.5 * (a == b) for b in y])) for a in x]
    v01 = [float(np.mean([(a > b) + 0.5 * (a == b) for a in x])) for b in y]
    names = sorted(set(groups.tolist()))
    m, n, clusters = len(x), len(y), len(names)
    i10, i01 = len(set(gx.tolist())), len(set(gy.tolist()))
    s10 = s01 = s11 = 0.0
    for name in names:
        a = sum(v - area for v, g in zip(v10, gx, strict=True) if g == name)
        b = sum(v - area for v, g in zip(v01, gy, strict=True) if g == name)
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    s10, s01 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n)
    s11 *= clusters / (clusters - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def test_clusters_equal_the_written_out_formula() -> None:
    generator = np.random.default_rng(5)
    groups = generator.integers(0, 25, 80)
    targets = (generator.random(80) < 0.5).astype(np.float64)
    scores = np.round(generator.random(80) + 0.5 * targets, 1)
    found = delong(scores, targets, groups)
    assert found.covariance[0, 0] == pytest.approx(obuchowski_by_loops(scores, targets, groups), abs=1e-12)
    assert found.patients == len(set(groups.tolist()))


def test_copied_images_do_not_narrow_the_clustered_interval() -> None:
    generator = np.random.default_rng(2)
    targets = np.repeat([0.0, 1.0], 40)
    scores = generator.normal(targets)
    once = auroc_estimate(scores, targets)
    naive = auroc_estimate(np.repeat(scores, 5), np.repeat(targets, 5))
    clustered = auroc_estimate(np.repeat(scores, 5), np.repeat(targets, 5), np.repeat(np.arange(80), 5))
    assert naive.low is not None
    assert clustered.low is not None
    assert once.low is not None
    assert naive.low > once.low + 0.03
    assert clustered.low == pytest.approx(once.low, abs=1e-3)
    assert "400 cases of 80 patients, design effect" in clustered.note


@pytest.mark.parametrize(
    ("positives", "negatives", "shift", "message"),
    [
        (9, 200, 0.5, "9 positive and 200 negative cases, fewer than 10"),
        (200, 29, 4.0, "fewer than 30 of one class with an AUROC above 0.95"),
        (50, 50, 100.0, "do not overlap"),
        (50, 0, 1.0, "only one class is present"),
        (0, 0, 1.0, "no cases"),
    ],
)
def test_interval_is_refused(positives: int, negatives: int, shift: float, message: str) -> None:
    generator = np.random.default_rng(3)
    targets = np.r_[np.ones(positives), np.zeros(negatives)]
    scores = generator.normal(size=len(targets)) + shift * targets
    found = auroc_estimate(scores, targets)
    assert (found.low, found.high) == (None, None)
    assert message in found.note
    with pytest.raises(StatisticRefused, match="expected enough cases for an interval of the AUROC"):
        auroc_estimate(scores, targets, strict=True)


def test_counts_are_of_patients_where_there_are_patients() -> None:
    generator = np.random.default_rng(4)
    targets = np.repeat([0.0, 1.0], 40)
    found = auroc_estimate(generator.normal(targets), targets, np.arange(80) // 8)
    assert found.low is None
    assert "5 positive and 5 negative patients, fewer than 10" in found.note


def test_interval_is_given_where_it_may_be() -> None:
    generator = np.random.default_rng(6)
    targets = np.repeat([0.0, 1.0], 30)
    found = auroc_estimate(generator.normal(2.6 * targets), targets, strict=True)
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert 0 < found.low < found.value < found.high < 1
    assert found.method == "logit-DeLong"


def test_delong_refuses_what_it_cannot_do() -> None:
    with pytest.raises(StatisticRefused, match="expected two positives and two negatives, got 1 and 3"):
        delong([0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0])
    with pytest.raises(StatisticRefused, match="two patients with positives"):
        delong([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0], ["a", "a", "b", "c"])
    with pytest.raises(UsageError, match="one target for each score"):
        delong([0.1, 0.2, 0.3], [1, 0])


@pytest.mark.parametrize("groups", [None, [f"p{i // 2}" for i in range(80)]])
def test_scores_that_are_all_alike_get_no_interval(groups: list[str] | None) -> None:
    found = auroc_estimate([0.3] * 80, [0, 0, 1, 1] * 20, groups=groups)
    assert found.value == 0.5
    assert found.low is None
    assert found.note.startswith("no interval: all scores are alike")
