"""EfficientNet-lite0 in torch alone, tensor for tensor as timm's ``tf_efficientnet_lite0``.

The embedded encoder is the one that shipped readers have, and importing timm for it costs as much as
importing torch. Same names, same order, same numbers (``tests/models/test_lite0.py``); no stochastic
depth: training with it takes timm's. Source: Tan & Le, ICML 2019; the lite variant has no squeeze-and-
excitation and clips at 6 (tensorflow/tpu, efficientnet/lite).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
"""Repeats, kernel, stride, expansion and width of each stage (Tan & Le 2019, table 1)."""

_STEM, _WIDTH = 32, 1280
_EPSILON, _MOMENTUM = 1e-3, 0.01
"""Of batch normalisation in TensorFlow; torch counts the momentum the other way round."""


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's ``SAME`` padding: as little as needed, the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class _NormAct(nn.BatchNorm2d):
    """Batch normalisation, then ReLU6 unless ``act`` is False."""

    def __init__(self, width: int, act: bool = True) -> None:
        super().__init__(width, eps=_EPSILON, momentum=_MOMENTUM)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return nn.functional.relu6(x) if self.act else x


def _conv(narrow: int, wide: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        return _SameConv(narrow, wide, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(narrow, wide, kernel, padding=kernel // 2, groups=groups, bias=False)


class _Separable(nn.Module):
    """Depthwise, then pointwise convolution: the only block of the first stage."""

    def __init__(self, narrow: int, wide: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(narrow, narrow, kernel, stride, narrow)
        self.bn1 = _NormAct(narrow)
        self.conv_pw = _conv(narrow, wide)
        self.bn2 = _NormAct(wide, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.bn2(self.conv_pw(self.bn1(self.conv_dw(x)))))


class _Inverted(nn.Module):
    """Inverted residual: expand, depthwise, project; a shortcut where the shape stays."""

    def __init__(self, narrow: int, wide: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = narrow * expansion
        self.conv_pw = _conv(narrow, inner)
        self.bn1 = _NormAct(inner)
        self.conv_dw = _conv(inner, inner, kernel, stride, inner)
        self.bn2 = _NormAct(inner)
        self.conv_pwl = _conv(inner, wide)
        self.bn3 = _NormAct(wide, act=False)
        self.shortcut = narrow == wide and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        y = self.bn3(self.conv_pwl(y))
        return cast(Tensor, y + x if self.shortcut else y)


class EfficientNetLite0(nn.Module):
    """The encoder without classifier; offers what :class:`wetread.models.networks.Encoder` asks for."""

    num_features = _WIDTH
    head_hidden_size = _WIDTH

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv_stem = _conv(channels, _STEM, 3, 2)
        self.bn1 = _NormAct(_STEM)
        stages, narrow = [], _STEM
        for repeats, kernel, stride, expansion, wide in _STAGES:
            stage: list[nn.Module] = []
            for number in range(repeats):
                step = stride if number == 0 else 1
                block = (
                    _Separable(narrow, wide, kernel, step)
                    if expansion == 1
                    else _Inverted(narrow, wide, kernel, step, expansion)
                )
                stage.append(block)
                narrow = wide
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(narrow, _WIDTH)
        self.bn2 = _NormAct(_WIDTH)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 1280, H/32, W/32)."""
        x = self.bn1(self.conv_stem(x))
        return cast(Tensor, self.bn2(self.conv_head(self.blocks(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Average over space: (N, 1280, h, w) to (N, 1280)."""
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to embeddings (N, 1280)."""
        return self.forward_head(self.forward_features(x))
