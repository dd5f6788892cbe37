"""The probes: closed form against the long way, chance against chance, patients kept whole."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.audit.probes import (
    CONTROLS,
    MINIMUM_PATIENTS,
    _kernels,
    _ridge,
    assessable,
    between_patients,
    patient_folds,
    told,
    told_each,
)
from wetread.evaluation.auroc import auroc


def names(n: int) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.array([f"p{i}" for i in range(n)])


def test_leave_one_out_in_closed_form_equals_leaving_each_image_out() -> None:
    """The mean of the labels is taken once, of all training images, as in the closed form."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((30, 6))
    truth = (features[:, 0] + rng.standard_normal(30) > 0).astype(float)
    inside, across = _kernels(features, rng.standard_normal((5, 6)))[1]
    both = np.stack([truth, 1 - truth], axis=1)
    own, new = _ridge(inside, across, both)
    centred = truth - truth.mean()
    errors = {}
    for penalty in 10.0 ** np.arange(-3, 3.5, 0.5) * np.linalg.eigvalsh(inside).clip(0).mean():
        left_out = np.zeros(30)
        for i in range(30):
            rest = np.delete(np.arange(30), i)
            weights = np.linalg.solve(inside[np.ix_(rest, rest)] + penalty * np.eye(29), centred[rest])
            left_out[i] = inside[i, rest] @ weights
        whole = across @ np.linalg.solve(inside + penalty * np.eye(30), centred)
        errors[((centred - left_out) ** 2).sum()] = (left_out, whole)
    best, whole = errors[min(errors)]
    np.testing.assert_allclose(own, np.stack([best, -best], axis=1), atol=1e-6)
    np.testing.assert_allclose(new, np.stack([whole, -whole], axis=1), atol=1e-6)


def test_kernels_are_products_and_gaussians_of_distances() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    (_, outer), (near, far) = _kernels(a, b)
    assert outer[1, 2] == pytest.approx(b[1] @ a[2] / 3)
    assert far[1, 2] == pytest.approx(np.exp(-((b[1] - a[2]) ** 2).sum() / 6))
    np.testing.assert_allclose(np.diag(near), 1)


def test_what_is_told_of_nothing_lies_around_one_half() -> None:
    """40 labels drawn at random: the mean is 0.5, and above chance are at most two (expected: one)."""
    rng = np.random.default_rng(2)
    views = {"a": rng.standard_normal((80, 20)).astype(np.float32), "b": rng.random((80, 8)).astype(np.float32)}
    found = [
        told(views, rng.permutation(np.arange(80) % 2 == 0), names(80), seed, controls=CONTROLS) for seed in range(40)
    ]
    values = np.array([f.auroc.value for f in found])
    assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(40)
    assert sum(f.above_chance for f in found) <= 2
    chance = np.concatenate([f.chance for f in found])
    assert chance.std() == pytest.approx(values.std(), rel=0.3)  # shuffled labels spread as labels of nothing do


def test_shuffled_labels_keep_the_images_of_a_patient_together() -> None:
    patients = np.repeat(names(50), 4)
    targets = np.repeat(np.arange(50) % 2 == 0, 4)
    shuffled = between_patients(targets, patients, np.random.default_rng(0))
    assert all(np.unique(shuffled[patients == p]).size == 1 for p in np.unique(patients))
    assert shuffled.sum() == targets.sum()
    assert (shuffled != targets).mean() == pytest.approx(0.5, abs=0.2)


def test_one_view_that_tells_is_heard_among_views_that_do_not() -> None:
    rng = np.random.default_rng(3)
    truth = np.arange(200) % 2 == 0
    tells = (rng.standard_normal((200, 4)) + [1.5, 0, 0, 0] * truth[:, None]).astype(np.float32)
    noise = {f"noise {i}": rng.standard_normal((200, 50)).astype(np.float32) for i in range(4)}
    groups = {"alone": ("tells",), "all": ("tells", *noise), "none": tuple(noise)}
    found = told_each({"tells": tells, **noise}, groups, truth, names(200))
    best = auroc(tells[:, 0], truth)
    assert found["alone"].auroc.value == pytest.approx(best, abs=0.03)
    assert found["all"].auroc.value == pytest.approx(best, abs=0.05)
    assert not found["none"].above_chance


def test_what_only_a_distance_tells_is_found() -> None:
    rng = np.random.default_rng(4)
    features = rng.standard_normal((300, 2)).astype(np.float32)
    inner = (features**2).sum(1) < np.log(4)  # half of a standard normal in two dimensions
    assert (told({"ring": features}, inner, names(300)).auroc.value or 0) > 0.95


def test_images_of_a_patient_are_in_one_fold_and_a_patient_cannot_be_recognised() -> None:
    """Features that name the patient, and labels of patients by chance: a split by images would tell them all."""
    rng = np.random.default_rng(5)
    patients = np.repeat(names(80), 3)
    truth = np.repeat(rng.permutation(np.arange(80) % 2 == 0), 3)
    fold = patient_folds(truth, patients)
    assert all(np.unique(fold[patients == p]).size == 1 for p in np.unique(patients))
    face = np.repeat(rng.standard_normal((80, 20)), 3, axis=0).astype(np.float32)
    found = told({"face": face}, truth, patients)
    assert not found.above_chance
    assert found.auroc.method == "logit-DeLong, clustered by patient (Obuchowski)"


def test_a_perfect_order_has_the_bound_of_a_proportion_without_failures() -> None:
    truth = np.arange(100) < 40
    view = {"label": truth[:, None].astype(np.float32)}
    found = told(view, truth, names(100))
    assert found.auroc.value == 1.0
    assert found.auroc.low is None
    assert found.floor == pytest.approx(0.025 ** (1 / 40))  # Clopper-Pearson for 40 of 40
    assert found.above_chance


def test_a_constant_view_tells_nothing_and_raises_nothing() -> None:
    truth = np.arange(80) % 2 == 0
    found = told({"same": np.ones((80, 3), np.float32)}, truth, names(80))
    assert found.auroc.value == 0.5
    assert not found.above_chance


def test_too_few_patients_of_a_class_are_named() -> None:
    truth = np.arange(100) < MINIMUM_PATIENTS - 1
    assert assessable(truth, names(100)) == "29 patients with and 71 without it, fewer than 30 of one"
    assert assessable(np.arange(100) < MINIMUM_PATIENTS, names(100)) == ""
    assert "patients with" in assessable(truth, np.repeat(names(10), 10))
