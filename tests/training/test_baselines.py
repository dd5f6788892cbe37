"""Heads without gradient descent beside scikit-learn's own pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from wetread.errors import DatasetRefused, UsageError
from wetread.models.card import HeadSpec
from wetread.models.networks import KnnHead
from wetread.training.baselines import fit_knn, fit_linear

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
Pair = tuple[np.ndarray, np.ndarray]


def features(count: int, outputs: int = 1, seed: int = 0, width: int = 12) -> Pair:
    """Embeddings of unlike scale and offset, with a weak signal for each output."""
    rng = np.random.default_rng(seed)
    y = (rng.random((count, outputs)) < 0.4).astype(np.float32)
    x = rng.normal(size=(count, width))
    for output in range(outputs):
        x[:, output] += 1.2 * y[:, output]
    return (x * np.linspace(0.05, 20, width) + np.linspace(-5, 5, width)).astype(np.float32), y


def pipeline(kind: str, strength: float, seed: int = 0) -> object:
    if kind == "svm":
        return make_pipeline(
            StandardScaler(),
            LinearSVC(C=strength, class_weight="balanced", random_state=seed, max_iter=20000, dual="auto"),
        )
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=1000))


def logits(head: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        out: np.ndarray = head.eval()(torch.from_numpy(x)).numpy()
    return out


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_the_folded_head_is_the_pipeline_of_scikit_learn(kind: str) -> None:
    train, validation, other = features(150), features(80, seed=1), features(40, seed=2)
    head, strength = fit_linear(kind, train, validation, seed=0)
    judge = pipeline(kind, strength).fit(train[0], train[1][:, 0])  # type: ignore[attr-defined]
    np.testing.assert_allclose(logits(head, other[0])[:, 0], judge.decision_function(other[0]), atol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_the_strength_is_the_best_on_validation(kind: str) -> None:
    train, validation = features(60, seed=3), features(60, seed=4)
    _, strength = fit_linear(kind, train, validation, seed=0)
    areas = []
    for each in STRENGTHS:
        judge = pipeline(kind, each).fit(train[0], train[1][:, 0])  # type: ignore[attr-defined]
        areas.append(roc_auc_score(validation[1][:, 0], judge.decision_function(validation[0])))
    assert strength == STRENGTHS[int(np.argmax(areas))]
    assert len(set(areas)) > 1  # the choice was one


def test_independent_labels_learn_from_what_is_known_of_each() -> None:
    x, y = features(160, outputs=2)
    y[::3, 0] = np.nan
    y[1::4, 1] = np.nan
    head, strength = fit_linear("logistic", (x, y), features(80, outputs=2, seed=1), seed=0)
    mean, std = x.mean(0), x.std(0)
    for label in range(2):
        known = ~np.isnan(y[:, label])
        judge = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        judge.fit((x[known] - mean) / std, y[known, label])
        np.testing.assert_allclose(logits(head, x)[:, label], judge.decision_function((x - mean) / std), atol=1e-4)


def test_a_constant_feature_does_no_harm() -> None:
    x, y = features(100)
    x[:, 5] = 7.0
    validation = features(50, seed=1)
    validation[0][:, 5] = 7.0
    head, _ = fit_linear("logistic", (x, y), validation, seed=0)
    found = logits(head, validation[0])
    assert np.isfinite(found).all()
    assert roc_auc_score(validation[1][:, 0], found[:, 0]) > 0.6


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_single_class_is_refused(value: float) -> None:
    x, y = features(30)
    y[:] = value
    with pytest.raises(DatasetRefused, match="expected training images of every class, got only one class"):
        fit_linear("logistic", (x, y), features(20, seed=1), seed=0)


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="expected logistic or svm, got 'forest'"):
        fit_linear("forest", features(30), features(20, seed=1), seed=0)


def knn(train: Pair, *, softmax: bool = False, neighbours: int = 15) -> KnnHead:
    spec = HeadSpec(kind="knn", references=len(train[0]), neighbours=neighbours)
    return fit_knn(KnnHead(spec, train[0].shape[1], train[1].shape[1], softmax), train)


def test_knn_is_scikit_learns_with_cosine_weights() -> None:
    """Sklearn's weighted vote v over weight w becomes (v + .5) / (w + 1), as the head's docstring says."""
    train, other = features(90), features(30, seed=1)
    judge = KNeighborsClassifier(15, metric="cosine").fit(train[0], train[1][:, 0])
    distance, index = judge.kneighbors(other[0])
    weight = np.maximum(1 - distance, 0)
    vote = (weight * train[1][index, 0]).sum(1)
    share = (vote + 0.5) / (weight.sum(1) + 1)
    found = 1 / (1 + np.exp(-logits(knn(train), other[0])[:, 0]))
    np.testing.assert_allclose(found, share, atol=1e-5)


def test_knn_by_hand() -> None:
    """Three cases along the axes: to (1, 0) the first is near (cosine 1), the third at 45 degrees."""
    train = (np.array([[2, 0], [0, 3], [1, 1]], np.float32), np.array([[1], [0], [np.nan]], np.float32))
    head = knn(train, neighbours=2)
    np.testing.assert_allclose(head.references.numpy()[2], [2**-0.5] * 2, rtol=1e-6)
    # The unknown case adds nothing: (1 * 1 + .5) / (1 + 1).
    share = 1 / (1 + np.exp(-logits(head, np.array([[5, 0]], np.float32))[0, 0]))
    assert share == pytest.approx(0.75, rel=1e-6)


def test_knn_of_exclusive_classes_gives_shares() -> None:
    x = np.eye(3, dtype=np.float32)
    head = knn((x, x), softmax=True, neighbours=1)
    found = np.exp(logits(head, x))
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), np.full((3, 3), 0.2) + 0.4 * x, rtol=1e-5)
