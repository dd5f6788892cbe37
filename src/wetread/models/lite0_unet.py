"""The U-Net on EfficientNet-lite0 in torch alone, tensor for tensor as segmentation_models_pytorch's on timm's.

The shipped segmenter is one, every read of a guided reader waits for it, and importing those two packages takes longer
than importing torch. Same names, same numbers (``tests/models/test_lite0_unet.py``); for reading only, training
takes theirs. Source: Ronneberger et al., MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from wetread.models.lite0 import EfficientNetLite0

__all__ = ["Lite0UNet"]

_TAKEN = (0, 1, 2, 4, 6)
"""Stages that end a size of maps, fine to coarse: 1/2 to 1/32 of the input."""

_WIDTHS = (16, 24, 40, 112, 320)
"""Their channels."""


class _Encoder(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = EfficientNetLite0(channels)
        del self.model.conv_head, self.model.bn2  # what comes after the last maps

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.model.bn1(self.model.conv_stem(x))
        maps = []
        for number, stage in enumerate(self.model.blocks):
            x = stage(x)
            if number in _TAKEN:
                maps.append(x)
        return maps


class _Step(nn.Module):
    """Twice the size, the encoder's maps of that size beside them, two convolutions."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.conv1 = _conv(narrow, wide)
        self.conv2 = _conv(wide, wide)

    def forward(self, x: Tensor, beside: Tensor | None) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if beside is not None:
            x = torch.cat([x, beside], 1)
        return cast(Tensor, self.conv2(self.conv1(x)))


class _Decoder(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        coarse = (_WIDTHS[-1], *widths[:-1])
        beside = (*_WIDTHS[-2::-1], 0)
        self.blocks = nn.ModuleList(_Step(a + b, c) for a, b, c in zip(coarse, beside, widths, strict=True))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for step, beside in zip(self.blocks, [*maps[-2::-1], None], strict=True):
            x = step(x, beside)
        return x


class Lite0UNet(nn.Module):
    """Maps (N, channels, H, W), H and W multiples of 32, to logits (N, organs, H, W).

    ``widths``: channels of the five steps of the decoder, coarse to fine.
    """

    def __init__(self, organs: int, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = _Encoder(channels)
        self.decoder = _Decoder(widths)
        self.segmentation_head = nn.Sequential(nn.Conv2d(widths[-1], organs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.segmentation_head(self.decoder(self.encoder(x))))


def _conv(narrow: int, wide: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
