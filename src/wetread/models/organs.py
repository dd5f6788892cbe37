"""A loaded segmenter: images in, one probability map for each organ out, in the geometry of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetread.errors import WetreadError, expected
from wetread.models.card import SegmenterCard
from wetread.models.inputs import normalise, restore_map, to_batch
from wetread.types import Image

__all__ = ["Segmenter", "organ_probabilities"]


def organ_probabilities(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Turn logits (N, organs, H, W) into probabilities.

    Exclusive organs share each pixel with the background, whose logit is 0; others are judged each alone.
    """
    if not exclusive:
        return logits.sigmoid()
    background = torch.zeros_like(logits[:, :1])
    return torch.cat([background, logits], 1).softmax(1)[:, 1:]


class Segmenter:
    """Card and networks in evaluation mode; several networks (folds) are averaged."""

    def __init__(self, card: SegmenterCard, networks: Sequence[nn.Module]) -> None:
        self.card = card
        self.networks = tuple(network.eval() for network in networks)

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.card.organs

    def forward(self, batch: Tensor) -> Tensor:
        """Map float32 (N, 1, height, width) in [0, 1] to probabilities (N, organs, height, width).

        Raises:
            WetreadError: a probability that is not finite, which weights or pixels out of range give.
        """
        with torch.inference_mode():
            inputs = normalise(batch, self.card.input)
            found = [organ_probabilities(net(inputs), exclusive=self.card.exclusive) for net in self.networks]
            mean = torch.stack(found).mean(0)
        if not bool(mean.isfinite().all()):
            raise WetreadError(expected("finite scores", "NaN or infinity", f"check the weights of {self.card.name}"))
        return mean

    def maps(self, image: Image) -> dict[str, NDArray[np.float32]]:
        """Probability that each pixel of the image belongs to each organ, float32 (rows, columns) in [0, 1].

        What the input did not show (outside a centre crop) is 0.
        """
        found = self.forward(to_batch([image.pixels], self.card.input))[0].numpy()
        rows, columns = image.pixels.shape
        return {
            organ: restore_map(found[index], self.card.input, rows, columns).clip(0, 1)
            for index, organ in enumerate(self.organs)
        }

    def masks(self, image: Image) -> dict[str, NDArray[np.bool_]]:
        """The pixels (rows, columns) that more likely than not belong to each organ."""
        return {organ: found >= 0.5 for organ, found in self.maps(image).items()}
