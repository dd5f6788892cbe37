"""The number that every explanation is about: the log-odds of one label, as a function of pixels.

Decided here: log-odds and not probabilities, because those are flat where a reader is sure; of the mean logits of
all networks, before temperature; of the unzoomed view, because places of averaged views do not lie on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wetread.errors import ExplanationFailed, expected
from wetread.models.inputs import normalise
from wetread.models.predict import Reader

__all__ = ["Score"]

_BATCH = 32
"""Images in one pass; more gain nothing on a CPU."""


@dataclass(frozen=True)
class Score:
    """The log-odds of ``label``: its logit, or logit minus log-sum-exp of the others where classes are exclusive."""

    reader: Reader
    label: str

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the log-odds (N,) of (N, 1, height, width), float32 in [0, 1], without gradients."""
        with torch.inference_mode():
            return torch.cat([self._of(part) for part in batch.split(_BATCH)]).clone()

    def differentiable(self, batch: Tensor) -> Tensor:
        """Return the log-odds (N,) with their graph, for the gradient with respect to ``batch``.

        Raises:
            ExplanationFailed: the reader gives no gradients.
        """
        if not getattr(self.reader, "differentiable", True):
            raise ExplanationFailed(
                expected(
                    "a network with gradients",
                    f"{self.reader.card.architecture}, which gives scores alone",
                    "use --method occlusion, rise or lime",
                )
            )
        with torch.enable_grad():
            return self._of(batch)

    def _of(self, batch: Tensor) -> Tensor:
        shown = normalise(batch, self.reader.input)
        logits = torch.stack([network(shown) for network in self.reader.networks]).mean(0)
        column = self.reader.labels.index(self.label)
        if not self.reader.softmax:
            return logits[:, column]
        others = [i for i in range(logits.shape[1]) if i != column]
        return logits[:, column] - logits[:, others].logsumexp(1)
