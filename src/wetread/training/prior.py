"""Undoing class balancing after training, so that probabilities speak of the data and not of the weights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["restore_prior"]


def restore_prior(head: nn.Module, targets: NDArray[np.float32], *, softmax: bool) -> None:
    """Add the log prior of the training targets (N, outputs) to the bias of the head's last linear layer.

    Balanced weights make a network answer as if all classes were equally common. Adding
    log(n_positive / n_negative), or log(n_class / n) for exclusive classes, gives back the frequency
    in the training images; the ranking does not change. Source: prior correction, King & Zeng,
    Political Analysis 2001. A head without a linear layer (nearest neighbours) needs none.
    """
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        return
    known = ~np.isnan(targets)
    total, positive = known.sum(0), np.nansum(targets, axis=0)
    shift = np.log(positive / total) if softmax else np.log(positive / (total - positive))
    with torch.no_grad():
        layers[-1].bias.add_(torch.from_numpy(shift.astype(np.float32)))
