"""The mean AUROC beside scikit-learn's, and where a class is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from wetread.training.score import mean_auroc


def test_mean_auroc_is_the_mean_of_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 3))
    targets = (rng.random((60, 3)) < 0.4).astype(np.float32)
    assert mean_auroc(scores, targets) == pytest.approx(roc_auc_score(targets, scores, average="macro"))
    targets[::4, 1] = np.nan
    known = ~np.isnan(targets[:, 1])
    wanted = [
        roc_auc_score(targets[:, 0], scores[:, 0]),
        roc_auc_score(targets[known, 1], scores[known, 1]),
        roc_auc_score(targets[:, 2], scores[:, 2]),
    ]
    assert mean_auroc(scores, targets) == pytest.approx(np.mean(wanted))


def test_mean_auroc_leaves_out_what_has_one_class() -> None:
    scores = np.array([[0.1, 0.9], [0.4, 0.1], [0.35, 0.2], [0.8, 0.3]])
    targets = np.array([[0, 1], [0, 1], [1, 1], [1, np.nan]], dtype=np.float32)
    assert mean_auroc(scores, targets) == 0.75  # 3 of 4 pairs of the first output are in order
    assert np.isnan(mean_auroc(scores[:, 1:], targets[:, 1:]))
