"""Classification losses with unknown labels masked out, class weights and label smoothing.

Targets are float (N, outputs) in [0, 1]; a row (exclusive classes) or a cell (independent
labels) with NaN is unknown and adds nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import DatasetRefused, expected

__all__ = ["class_weights", "classification_loss"]


def class_weights(targets: NDArray[np.float32], *, softmax: bool) -> Tensor:
    """Weights that make classes count equally.

    Exclusive classes: (C,), n / (C n_c). Independent labels: (2, L), rows for negative and
    positive, n / (2 n_negative) and n / (2 n_positive).

    Raises:
        DatasetRefused: a class has no training image.
    """
    known = ~np.isnan(targets)
    total = known.sum(0)
    positive = np.nansum(targets, axis=0)
    if softmax:
        _require(positive)
        return torch.from_numpy((total / (len(positive) * positive)).astype(np.float32))
    negative = total - positive
    _require(np.concatenate([negative, positive]))
    return torch.from_numpy(np.stack([total / (2 * negative), total / (2 * positive)]).astype(np.float32))


def _require(counts: NDArray[np.floating]) -> None:
    if (counts < 1).any():
        raise DatasetRefused(
            expected(
                "training images of every class",
                "a class with none (only one class present)",
                "check the labels and the split",
            )
        )


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    softmax: bool,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean weighted (focal) cross-entropy over the known targets; a scalar, 0 when none is known.

    ``logits``, ``targets``: (N, outputs). Focal loss: Lin et al., ICCV 2017, each term times
    ``(1 - p_true) ** gamma``. The mean is over the sum of weights, as in
    ``torch.nn.functional.cross_entropy``.
    """
    known = ~targets.isnan()
    filled = targets.nan_to_num()
    if softmax:
        known = known.all(1)
        soft = filled * (1 - smoothing) + smoothing / targets.shape[1]
        terms = -(soft * F.log_softmax(logits, 1)).sum(1)  # (N,)
        weight = torch.ones_like(terms) if weights is None else (filled * weights).sum(1)
    else:
        soft = filled * (1 - 2 * smoothing) + smoothing
        terms = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")  # (N, L)
        weight = torch.ones_like(terms) if weights is None else weights[0] + filled * (weights[1] - weights[0])
    if focal_gamma:
        terms = terms * (1 - _probability_of_truth(logits, filled, softmax=softmax)) ** focal_gamma
    weight = weight * known
    return (terms * weight).sum() / weight.sum().clamp(min=1e-8)


def _probability_of_truth(logits: Tensor, targets: Tensor, *, softmax: bool) -> Tensor:
    if softmax:
        return (logits.softmax(1) * targets).sum(1)
    p = logits.sigmoid()
    return targets * p + (1 - targets) * (1 - p)
