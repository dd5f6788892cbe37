"""Heads fitted without gradient descent: logistic regression, linear SVM, nearest neighbours.

They are stored as ordinary heads (linear weights, or stored cases), so a baseline is a reader
like any other and no pickle is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wetread.errors import DatasetRefused, UsageError, expected
from wetread.models.networks import KnnHead
from wetread.training.score import mean_auroc

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

__all__ = ["fit_knn", "fit_linear"]

Floats = NDArray[np.float32]
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation strengths; the best validation AUROC decides."""
_ITERATIONS = 1000


def _estimator(kind: str, strength: float, seed: int) -> LogisticRegression | LinearSVC:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if kind == "svm":
        return LinearSVC(C=strength, class_weight="balanced", max_iter=20 * _ITERATIONS, random_state=seed, dual="auto")
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=_ITERATIONS)


def _one_column(kind: str, strength: float, x: Floats, y: Floats, seed: int) -> tuple[Floats, float]:
    """Fit one output on its known targets; return weights (D,) and bias."""
    known = ~np.isnan(y)
    if len(np.unique(y[known])) < 2:
        raise DatasetRefused(
            expected("training images of every class", "only one class", "check the labels and the split")
        )
    fitted = _estimator(kind, strength, seed).fit(x[known], y[known])
    return fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0])


def fit_linear(
    kind: str, train: tuple[Floats, Floats], validation: tuple[Floats, Floats], *, seed: int
) -> tuple[nn.Module, float]:
    """Fit ``logistic`` or ``svm``, one against the rest; return the head and the chosen strength.

    ``train``, ``validation``: embeddings (N, D) and targets (N, outputs). Embeddings are
    standardised and the scaling is folded into the weights. The strength is the one with the best
    validation AUROC.
    """
    if kind not in ("logistic", "svm"):
        raise UsageError(expected("logistic or svm", repr(kind), "choose one"))
    x, y = train
    mean, std = x.mean(0), x.std(0) + 1e-6
    scaled, judged = (x - mean) / std, (validation[0] - mean) / std
    best: tuple[float, float, Floats, Floats] | None = None
    for strength in _STRENGTHS:
        columns = [_one_column(kind, strength, scaled, y[:, j], seed) for j in range(y.shape[1])]
        weight = np.stack([column[0] for column in columns])
        bias = np.array([column[1] for column in columns], dtype=np.float32)
        score = mean_auroc(judged @ weight.T + bias, validation[1])
        if best is None or score > best[0]:
            best = (score, strength, weight, bias)
    if best is None:
        raise UsageError(expected("strengths to try", "none", "report this as a defect"))
    _, strength, weight, bias = best
    linear = nn.Linear(x.shape[1], y.shape[1])
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight / std))
        linear.bias.copy_(torch.from_numpy(bias - weight @ (mean / std)))
    return nn.Sequential(nn.Dropout(0.0), linear), strength


def fit_knn(head: KnnHead, train: tuple[Floats, Floats]) -> KnnHead:
    """Store the training cases in ``head``: unit embeddings (N, D) and targets (N, outputs)."""
    x, y = train
    with torch.no_grad():
        head.references.copy_(nn.functional.normalize(torch.from_numpy(x), dim=1))
        head.targets.copy_(torch.from_numpy(y))
    return head
