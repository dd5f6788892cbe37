"""The one number that chooses epochs and strengths: the mean AUROC on validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

__all__ = ["mean_auroc"]


def mean_auroc(logits: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Mean AUROC of the outputs that have both classes among the known targets; NaN if none has."""
    values = []
    for column in range(targets.shape[1]):
        known = ~np.isnan(targets[:, column])
        truth = targets[known, column]
        if 0 < truth.sum() < len(truth):
            values.append(float(roc_auc_score(truth, logits[known, column])))
    return float(np.mean(values)) if values else float("nan")
