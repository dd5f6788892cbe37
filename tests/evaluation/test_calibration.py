"""Temperature, ECE and slope: recovered, compared with other implementations, refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from wetread.errors import StatisticRefused, UsageError
from wetread.evaluation.calibration import (
    apply_temperature,
    calibration_slope,
    ece,
    ece_null,
    ece_verdict,
    fit_temperature,
    logit,
    mean_offset,
    slope_estimate,
)
from wetread.types import Task

Floats = NDArray[np.float64]


def binary_data(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, n)
    return logits, (generator.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def calibrated_binary() -> tuple[Floats, Floats]:
    """Each logit 1000 times, with the share of positives that it promises: no sampling noise."""
    grid = np.linspace(-5, 5, 41)
    positives = np.round(1000 / (1 + np.exp(-grid)))
    targets = np.arange(1000)[None, :] < positives[:, None]
    return np.repeat(grid, 1000), targets.reshape(-1).astype(np.float64)


def calibrated_classes() -> tuple[Floats, Floats]:
    """As for two classes: 100 random logit vectors, each with the classes it promises among 1000 cases."""
    logits = np.random.default_rng(0).normal(0, 2, (100, 4))
    ends = np.round(1000 * apply_temperature(logits, 1.0, "multiclass").cumsum(axis=1))
    targets = (ends[:, None, :] <= np.arange(1000)[None, :, None]).sum(axis=2)
    return np.repeat(logits, 1000, axis=0), targets.reshape(-1).astype(np.float64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 7.0])
@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_known_temperature_is_recovered_within_2_percent(task: Task, temperature: float) -> None:
    logits, targets = calibrated_classes() if task == "multiclass" else calibrated_binary()
    if task == "multilabel":
        logits, targets = logits.reshape(-1, 2), targets.reshape(-1, 2)
    assert fit_temperature(logits * temperature, targets, task) == pytest.approx(temperature, rel=0.02)


def test_known_temperature_is_recovered_from_samples() -> None:
    """Twenty validation splits of 2,000: right on average, spread as theory says (about 4 % each)."""
    found = []
    for seed in range(20):
        logits, targets = binary_data(2000, seed)
        found.append(fit_temperature(logits * 3, targets, "binary"))
    assert np.mean(found) == pytest.approx(3, rel=0.02)
    assert np.std(found) / 3 < 0.08


def test_temperature_is_the_minimum_that_torch_finds() -> None:
    logits, targets = binary_data(500)
    logits = logits * 3

    def loss(log_t: float) -> float:
        scaled = torch.tensor(logits) / np.exp(log_t)
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, torch.tensor(targets)))

    best = float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x))
    assert fit_temperature(logits, targets, "binary") == pytest.approx(best, rel=1e-4)


def test_unknown_targets_are_masked() -> None:
    logits, targets = binary_data(2000)
    known = fit_temperature(logits[:1500], targets[:1500], "binary")
    masked = np.where(np.arange(2000) < 1500, targets, np.nan)
    assert fit_temperature(logits, masked, "binary") == pytest.approx(known)
    assert fit_temperature(logits[:, None], masked[:, None], "multilabel") == pytest.approx(known)
    classes = np.stack([np.zeros(2000), logits], axis=1)
    truth = np.where(np.arange(2000) < 1500, targets, -1)
    # two softmax logits (0, z) are one sigmoid logit z
    assert fit_temperature(classes, truth, "multiclass") == pytest.approx(known, rel=1e-6)


def test_undetermined_temperatures_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fit_temperature([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1], "binary") == 1.0
        assert fit_temperature([3.0, 2.0, -2.0, -3.0], [0, 0, 1, 1], "binary") == 20.0
    assert "temperature kept at 1" in caplog.text
    assert "carry no information" in caplog.text


def test_temperature_refusals() -> None:
    with pytest.raises(StatisticRefused, match="known labels, got none"):
        fit_temperature([1.0, 2.0], [np.nan, np.nan], "binary")
    with pytest.raises(StatisticRefused, match="finite logits, got NaN"):
        fit_temperature([1.0, np.nan], [0, 1], "binary")
    with pytest.raises(UsageError, match=r"logits \(N, C\) and targets \(N,\)"):
        fit_temperature([[1.0, 2.0]], [0, 1], "multiclass")
    with pytest.raises(UsageError, match="one target for each logit"):
        fit_temperature([1.0, 2.0], [0], "binary")
    with pytest.raises(UsageError, match="a temperature above 0, got 0"):
        apply_temperature([1.0], 0, "binary")


def test_apply_temperature_equals_torch() -> None:
    logits = np.random.default_rng(0).normal(0, 200, (50, 5))  # overflows a naive exp
    for task, expected in (
        ("multiclass", torch.softmax(torch.tensor(logits) / 1.7, dim=1)),
        ("multilabel", torch.sigmoid(torch.tensor(logits) / 1.7)),
    ):
        found = apply_temperature(logits, 1.7, task)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)


def test_ece_by_hand() -> None:
    """5 bins: {.1, .15} all negative: 2 * .125; {.5} positive: .5; {.9, 1} one of two: 2 * .45.

    (.25 + .5 + .9) / 5 = .33.
    """
    assert ece([0.1, 0.15, 0.5, 0.9, 1.0], [0, 0, 1, 1, 0], bins=5) == pytest.approx(0.33)


@pytest.mark.parametrize("seed", range(4))
def test_ece_equals_torchmetrics(seed: int) -> None:
    logits, targets = binary_data(777, seed)
    p = 1 / (1 + np.exp(-1.5 * logits))
    other = binary_calibration_error(torch.tensor(p), torch.tensor(targets).long(), n_bins=15)
    assert ece(p, targets) == pytest.approx(float(other), abs=1e-6)
    classes = apply_temperature(np.random.default_rng(seed).normal(0, 2, (500, 4)), 1, "multiclass")
    truth = np.random.default_rng(seed).integers(0, 4, 500)
    top = multiclass_calibration_error(torch.tensor(classes), torch.tensor(truth), num_classes=4, n_bins=15)
    assert ece(classes.max(axis=1), classes.argmax(axis=1) == truth) == pytest.approx(float(top), abs=1e-6)


def test_equal_mass_bins_hold_equally_many() -> None:
    p = np.linspace(0, 1, 100) ** 4
    y = np.r_[np.zeros(50), np.ones(50)]
    by_hand = np.mean([abs((p[k : k + 10] - y[k : k + 10]).mean()) for k in range(0, 100, 10)])
    assert ece(p, y, bins=10, binning="mass") == pytest.approx(by_hand)


def test_perfect_reader_shows_an_ece_that_shrinks_with_n() -> None:
    """About 1/sqrt(n), as for a mean of noise; the 95th percentile rejects 5 % of perfect readers."""
    generator = np.random.default_rng(0)
    means = []
    for n in (100, 400, 1600):
        mean, p95 = ece_null(generator.beta(0.5, 0.5, n), seed=1)
        assert 0 < mean < p95 < 0.2
        means.append(mean)
    assert means[0] / means[1] == pytest.approx(2, rel=0.25)
    assert means[1] / means[2] == pytest.approx(2, rel=0.25)
    p = generator.beta(0.5, 0.5, 300)
    _, p95 = ece_null(p, seed=2)
    alarms = [ece(p, (generator.random(300) < p).astype(float)) > p95 for _ in range(600)]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.03)


def test_slope_equals_logistic_regression() -> None:
    logits, targets = binary_data(800)
    p = 1 / (1 + np.exp(-(1.6 * logits + 0.4)))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], targets)
    assert calibration_slope(p, targets) == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert calibration_slope(p, targets) < 0.8  # overconfident


def test_mean_offset_makes_the_mean_right() -> None:
    logits, targets = binary_data(800)
    p = 1 / (1 + np.exp(-(logits + 1.0)))
    offset = mean_offset(p, targets)
    corrected = 1 / (1 + np.exp(-(logit(p) + offset)))
    assert corrected.mean() == pytest.approx(targets.mean(), abs=1e-9)
    assert offset == pytest.approx(-1.0, abs=0.25)


def test_slope_of_separated_classes_does_not_exist() -> None:
    assert np.isnan(calibration_slope([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]))
    assert np.isnan(mean_offset([0.1, 0.2], [1, 1]))


def promised(n: int, seed: int = 0, factor: float = 1.0) -> tuple[Floats, Floats]:
    """Probabilities and truth; the true logit is ``factor`` times the one that is promised."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, n)
    truth = generator.random(n) < 1 / (1 + np.exp(-factor * logits))
    return 1 / (1 + np.exp(-logits)), truth.astype(np.float64)


def test_slope_interval_is_that_of_the_likelihood() -> None:
    """The second derivative of the profile likelihood, by differences, gives the Wald width."""
    p, y = promised(700)
    found = slope_estimate(p, y)
    assert found.value == pytest.approx(calibration_slope(p, y))
    z = logit(p)

    def profile(slope: float) -> float:
        scaled = 1 / (1 + np.exp(-(slope * z + mean_offset(1 / (1 + np.exp(-slope * z)), y))))
        return float(np.sum(y * np.log(scaled) + (1 - y) * np.log1p(-scaled)))

    at, step = calibration_slope(p, y), 1e-3
    curve = -(profile(at + step) - 2 * profile(at) + profile(at - step)) / step**2
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / np.sqrt(curve), rel=1e-3)


def test_slope_interval_of_patients_is_that_of_their_single_images() -> None:
    p, y = promised(400)
    single, copies = slope_estimate(p, y), slope_estimate(p.repeat(4), y.repeat(4), np.arange(400).repeat(4))
    blind = slope_estimate(p.repeat(4), y.repeat(4))
    widths = [one.high - one.low for one in (single, copies, blind) if one.high is not None and one.low is not None]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=1e-6)


def test_slope_of_separated_classes_has_no_interval() -> None:
    found = slope_estimate([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert (found.value, found.low) == (None, None)
    assert "separated" in found.note


def test_patients_widen_the_null() -> None:
    """Four copies of each case carry what one does: the ECE of chance is that of the single cases."""
    p, _ = promised(100)
    single, copies = ece_null(p), ece_null(p.repeat(4), groups=np.arange(100).repeat(4))
    assert copies[1] == pytest.approx(single[1], rel=0.05)
    assert ece_null(p.repeat(4))[1] < 0.6 * copies[1]
    assert ece_null(p, groups=np.arange(100)) == single


def test_a_calibrated_reader_passes_and_an_overconfident_one_fails() -> None:
    grid = np.linspace(-4, 4, 33)  # each 25 times, with the share of positives that it promises
    kept = np.arange(25)[None, :] < np.round(25 / (1 + np.exp(-grid)))[:, None]
    good = ece_verdict(1 / (1 + np.exp(-grid.repeat(25))), kept.reshape(-1))
    assert (good.verdict, good.reasons) == ("PASS", ())
    assert good.ece <= good.null_p95
    assert good.slope.low is not None
    assert good.slope.low < 1
    assert 0 < good.brier_skill < 1
    bad = ece_verdict(*promised(800, factor=0.4))
    assert bad.verdict == "FAIL"
    assert bad.ece_low is not None
    assert bad.ece_low > bad.null_p95
    assert "ECE 0.1" in bad.reasons[0]
    assert "which 95 % of perfectly calibrated readers stay below" in bad.reasons[0]
    assert "calibration slope 0." in bad.reasons[1]


def test_a_little_off_is_a_warning() -> None:
    """At n = 800 a slope of .75 is noticed before the ECE is surely above chance."""
    found = ece_verdict(*promised(800, seed=1, factor=0.75))
    assert found.verdict == "WARN"
    assert found.reasons


def test_a_useless_reader_is_a_warning_even_if_honest() -> None:
    generator = np.random.default_rng(1)
    y = (generator.random(400) < 0.3).astype(float)
    found = ece_verdict(np.full(400, y.mean() + 1e-3), y)
    assert found.verdict == "WARN"
    assert any("no better than stating the base rate" in reason for reason in found.reasons)


def test_copies_of_a_patient_do_not_make_a_failure_certain() -> None:
    """Twelve copies of 60 calibrated patients look like 720 cases that are off; by patient they do not."""
    p, y = promised(60, seed=3)
    patients = np.arange(60).repeat(12)
    assert ece_verdict(p.repeat(12), y.repeat(12)).verdict == "FAIL"
    by_patient = ece_verdict(p.repeat(12), y.repeat(12), patients)
    assert by_patient.verdict != "FAIL"
    assert (by_patient.n, by_patient.patients) == (720, 60)


def test_verdict_leaves_out_the_unknown_and_refuses_too_few() -> None:
    p, y = promised(200)
    y[:50] = np.nan
    assert ece_verdict(p, y) == ece_verdict(p[50:], y[50:])
    with pytest.raises(StatisticRefused, match=r"at least 50 cases and 10 of each class to judge calibration, got \d+"):
        ece_verdict(p[:90], y[:90])
    with pytest.raises(StatisticRefused, match="got 0 positive and 60 negative"):
        ece_verdict(np.full(60, 0.1), np.zeros(60))
    few = ece_verdict(p[50:], y[50:], np.arange(150) // 30)
    assert (few.patients, few.ece_low) == (5, None)
    assert few.verdict != "FAIL"
