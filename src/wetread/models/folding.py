"""Batch normalisation folded into the convolution before it: the same function in fewer passes over memory.

Decided here: two layers are a pair where one is declared right after the other and their widths match, which is the
order in which they run in every network that wetread knows. Because that is a habit and no law, the folded copy must
give the answers of the original, or the original is kept.
"""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["folded"]

Net = TypeVar("Net", bound=nn.Module)

_PROBE_PX = 64
_TOLERANCE = 1e-4
"""Largest difference between the answers, relative to the largest answer: rounding of some fifty layers."""


def folded(network: Net, channels: int = 3) -> Net:
    """Return a copy of ``network`` for inference, its pairs of convolution and normalisation made one.

    Names of modules stay: a folded normalisation leaves its activation, or nothing, in its place. ``channels``: of the
    input. The network itself is returned where nothing can be folded, where it has no such input, or where the copy
    does not give the same answers. Source: Jacob et al., CVPR 2018, section 3.2.
    """
    if network.training or not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network
    with torch.inference_mode(False), torch.no_grad():  # heat maps need tensors that autograd may keep
        one = copy.deepcopy(network).requires_grad_(False)
        if not sum(_fold_pairs(module) for module in list(one.modules())):
            return network
        one.to(memory_format=torch.channels_last)
        return one if _alike(network, one, channels) else network


def _fold_pairs(parent: nn.Module) -> int:
    """Fold the pairs among the direct children of ``parent``; return how many there were."""
    count = 0
    children = list(parent.named_children())
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if conv.out_channels != norm.num_features or not norm.track_running_stats:
            continue
        activation = _activation_of(norm)
        if activation is None:
            continue
        setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(parent, norm_name, activation)
        count += 1
    return count


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What a normalisation does after normalising; None where that is not known."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    act = getattr(norm, "act", None)
    if isinstance(act, bool):  # wetread.models.lite0: ReLU6 or nothing
        return nn.ReLU6() if act else nn.Identity()
    return act if isinstance(act, nn.Module) else None  # timm's BatchNormAct2d


def _alike(network: nn.Module, other: nn.Module, channels: int) -> bool:
    shown = torch.rand(1, channels, _PROBE_PX, _PROBE_PX, generator=torch.Generator().manual_seed(0))
    try:
        wanted: Tensor = network(shown)
    except RuntimeError:  # a network of another input size
        return False
    far = (other(shown) - wanted).abs().max()
    return bool(far <= _TOLERANCE * wanted.abs().max().clamp(min=1.0))
