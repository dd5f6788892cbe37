"""A loaded segmenter: images in, one probability map for each organ out, in the geometry of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetread.errors import DatasetRefused, WetreadError, expected
from wetread.models.card import SegmenterCard
from wetread.models.folding import folded
from wetread.models.inputs import normalise, restore_map, to_batch
from wetread.types import Image

__all__ = ["SEEN_BY_ALL", "Segmenter", "held_out_arrays", "held_out_of", "organ_probabilities"]


def organ_probabilities(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Turn logits (N, organs, H, W) into probabilities.

    Exclusive organs share each pixel with the background, whose logit is 0; others are judged each alone.
    """
    if not exclusive:
        return logits.sigmoid()
    background = torch.zeros_like(logits[:, :1])
    return torch.cat([background, logits], 1).softmax(1)[:, 1:]


SEEN_BY_ALL = -1
"""Stands for the network that did not learn an image, where there is none."""


class Segmenter:
    """Card and networks in evaluation mode; several networks (folds) are averaged.

    ``held_out`` maps the sha256 of each image file that was used in training to the one network that did not learn
    it, or to :data:`SEEN_BY_ALL`; None where that was not recorded.
    """

    def __init__(
        self, card: SegmenterCard, networks: Sequence[nn.Module], held_out: Mapping[str, int] | None = None
    ) -> None:
        self.card = card
        self.networks = tuple(network.eval() for network in networks)
        self.held_out = held_out

    @cached_property
    def folded(self) -> tuple[nn.Module, ...]:
        """The networks as they are run: the same functions, batch normalisation folded in."""
        return tuple(folded(network, self.card.input.channels) for network in self.networks)

    def unseen(self, sha256: str) -> Segmenter:
        """Return a segmenter of the networks that never learned the image file of that hash.

        Raises:
            DatasetRefused: all of them learned it: their mask is better than that of a new image will be.
        """
        network = (self.held_out or {}).get(sha256)
        if network is None:
            return self
        if network == SEEN_BY_ALL:
            raise DatasetRefused(
                expected(
                    f"masks from a network of {self.card.name} that never learned the image",
                    f"an image that it was trained on (sha256 {sha256[:12]}…)",
                    "train the segmenter with --folds 5, or leave those images out",
                )
            )
        return Segmenter(self.card, [self.networks[network]], self.held_out)

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
            found = [organ_probabilities(net(inputs), exclusive=self.card.exclusive) for net in self.folded]
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


def held_out_arrays(held_out: Mapping[str, int]) -> dict[str, NDArray[np.generic]]:
    """Turn the table of held-out images into arrays: ``sha256`` uint8 (N, 32) and ``network`` int32 (N,)."""
    names = np.frombuffer(bytes.fromhex("".join(held_out)), np.uint8).reshape(-1, 32)
    return {"sha256": names, "network": np.array(list(held_out.values()), np.int32)}


def held_out_of(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
    """Read what :func:`held_out_arrays` wrote."""
    names = [bytes(row).hex() for row in np.asarray(arrays["sha256"], np.uint8)]
    return dict(zip(names, np.asarray(arrays["network"]).tolist(), strict=True))
