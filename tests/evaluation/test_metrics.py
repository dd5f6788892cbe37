"""Every metric against scikit-learn or torchmetrics to 1e-6, by hand, and with resampling weights."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_matthews_corrcoef,
    multiclass_cohen_kappa,
    multiclass_matthews_corrcoef,
)

from wetread.evaluation.metrics import (
    RATES,
    at_prevalence,
    auprc,
    confusion_counts,
    confusion_matrix,
    counts_rates,
    matrix_scores,
    probability_scores,
    weighted_auprc,
    weighted_auroc,
)

Floats = NDArray[np.float64]


def data(seed: int, n: int = 400) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    y = (generator.random(n) < 0.35).astype(np.float64)
    p = np.round(1 / (1 + np.exp(-generator.normal(2 * y - 1, 1.5))), 2)  # with ties
    return np.clip(p, 0.01, 0.99), y


def one(n: int) -> Floats:
    return np.ones((1, n))


@pytest.mark.parametrize("seed", range(5))
def test_decisions_equal_scikit_learn(seed: int) -> None:
    p, y = data(seed)
    called, truth = p >= 0.4, y > 0
    found = {k: v[0] for k, v in counts_rates(confusion_counts(called, truth, one(len(y)))).items()}
    expected = {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sk.recall_score(truth, called),
        "specificity": sk.recall_score(~truth, ~called),
        "ppv": sk.precision_score(truth, called),
        "npv": sk.precision_score(~truth, ~called),
        "f1": sk.f1_score(truth, called),
        "kappa": sk.cohen_kappa_score(truth, called),
        "mcc": sk.matthews_corrcoef(truth, called),
    }
    assert set(found) == set(RATES)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    other = binary_matthews_corrcoef(torch.tensor(called).int(), torch.tensor(truth).int())
    assert found["mcc"] == pytest.approx(float(other), abs=1e-6)


def test_decisions_by_hand() -> None:
    """True positives 8, fp 2, tn 6, fn 4: kappa (.7 - .5) / .5 = .4, mcc (48 - 8) / sqrt(10 * 12 * 8 * 10)."""
    found = counts_rates(np.array([8.0, 2, 6, 4]))
    assert float(found["accuracy"]) == pytest.approx(0.7)
    assert float(found["sensitivity"]) == pytest.approx(2 / 3)
    assert float(found["specificity"]) == pytest.approx(0.75)
    assert float(found["kappa"]) == pytest.approx(0.4)
    assert float(found["mcc"]) == pytest.approx(40 / 9600**0.5)
    assert float(found["f1"]) == pytest.approx(16 / 22)


def test_what_is_not_defined_is_nan_and_never_zero() -> None:
    nobody = counts_rates(np.array([0.0, 0, 5, 0]))
    for name in ("sensitivity", "ppv", "f1", "kappa", "mcc", "balanced_accuracy"):
        assert np.isnan(nobody[name]), name
    assert float(nobody["specificity"]) == 1.0


def test_predictive_values_at_a_prevalence_by_hand() -> None:
    """Sensitivity .9, specificity .8, 1 in 100: 9 true and 198 false positives of 1000."""
    ppv, npv = at_prevalence(0.9, 0.8, 0.01)
    assert float(ppv) == pytest.approx(9 / 207)
    assert float(npv) == pytest.approx(792 / 793)


def test_predictive_values_at_the_prevalence_of_the_data_are_its_own() -> None:
    p, y = data(3)
    rates = counts_rates(confusion_counts(p >= 0.5, y > 0, one(len(y))))
    ppv, npv = at_prevalence(rates["sensitivity"], rates["specificity"], float(y.mean()))
    assert ppv[0] == pytest.approx(rates["ppv"][0])
    assert npv[0] == pytest.approx(rates["npv"][0])


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_equal_scikit_learn(seed: int) -> None:
    p, y = data(seed)
    found = {k: v[0] for k, v in probability_scores(p, y, one(len(y))).items()}
    assert found["auprc"] == pytest.approx(sk.average_precision_score(y, p), abs=1e-9)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p), abs=1e-9)
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p), abs=1e-9)
    assert auprc(p, y) == found["auprc"]
    other = binary_average_precision(torch.tensor(p), torch.tensor(y).int())
    assert found["auprc"] == pytest.approx(float(other), abs=1e-6)
    assert weighted_auroc(p, y, one(len(y)))[0] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-9)


def test_average_precision_by_hand() -> None:
    """Ranked + - + -: recall 1/2 at precision 1, recall 1 at precision 2/3: 1/2 + 1/3."""
    assert auprc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    assert np.isnan(auprc([0.9, 0.8], [0, 0]))


def test_weights_are_repeated_rows() -> None:
    p, y = data(7, n=150)
    weights = np.random.default_rng(0).integers(0, 4, (6, 150)).astype(np.float64)
    scores = probability_scores(p, y, weights)
    areas, precision = weighted_auroc(p, y, weights), weighted_auprc(p, y, weights)
    rates = counts_rates(confusion_counts(p >= 0.5, y > 0, weights))
    for row, counts in enumerate(weights.astype(int)):
        copies_p, copies_y = np.repeat(p, counts), np.repeat(y, counts)
        assert areas[row] == pytest.approx(sk.roc_auc_score(copies_y, copies_p), abs=1e-9)
        assert precision[row] == pytest.approx(sk.average_precision_score(copies_y, copies_p), abs=1e-9)
        assert scores["brier"][row] == pytest.approx(sk.brier_score_loss(copies_y, copies_p), abs=1e-9)
        alone = probability_scores(copies_p, copies_y, one(len(copies_y)))
        for name in ("ece", "log_loss", "slope", "intercept"):
            assert scores[name][row] == pytest.approx(alone[name][0], abs=1e-7), name
        assert rates["kappa"][row] == pytest.approx(sk.cohen_kappa_score(copies_y > 0, copies_p >= 0.5))


@pytest.mark.parametrize("seed", range(5))
def test_classes_equal_scikit_learn_and_torchmetrics(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 4, 300)
    called = np.where(generator.random(300) < 0.6, truth, generator.integers(0, 4, 300))
    matrix = confusion_matrix(truth, called, one(300), 4)
    np.testing.assert_array_equal(matrix[0], sk.confusion_matrix(truth, called))
    found = {k: v[0] for k, v in matrix_scores(matrix).items()}
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, called), abs=1e-9)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, called), abs=1e-9)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, called, average="macro"), abs=1e-9)
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, called), abs=1e-9)
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, called), abs=1e-9)
    pair = torch.tensor(called), torch.tensor(truth)
    assert found["kappa"] == pytest.approx(float(multiclass_cohen_kappa(*pair, num_classes=4)), abs=1e-6)
    assert found["mcc"] == pytest.approx(float(multiclass_matthews_corrcoef(*pair, num_classes=4)), abs=1e-6)


def test_class_that_does_not_occur_is_left_out_of_macro_averages() -> None:
    truth, called = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = matrix_scores(confusion_matrix(truth, called, one(4), 3))
    assert found["balanced_accuracy"][0] == pytest.approx(sk.balanced_accuracy_score(truth, called))
    assert found["macro_f1"][0] == pytest.approx(sk.f1_score(truth, called, average="macro"))
