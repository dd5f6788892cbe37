"""Batch normalisation folded into convolutions: the same answers, or the network itself."""

from __future__ import annotations

from typing import cast

import pytest
import timm
import torch
from torch import Tensor, nn

from wetread.models.folding import folded
from wetread.models.lite0 import EfficientNetLite0


def _lived_in(network: nn.Module) -> nn.Module:
    """Give running statistics and scales values that a wrong fold would not survive."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_buffer("running_mean", torch.randn(module.num_features, generator=generator) / 4)
            module.register_buffer("running_var", torch.rand(module.num_features, generator=generator) + 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
    return network.eval()


def test_one_pair_by_hand() -> None:
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
    nn.init.constant_(conv.weight, 3.0)
    norm.running_mean, norm.running_var = torch.tensor([2.0]), torch.tensor([4.0])
    nn.init.constant_(norm.weight, 5.0)
    nn.init.constant_(norm.bias, 7.0)
    one = folded(nn.Sequential(conv, norm).eval(), 1)
    assert cast(nn.Conv2d, one[0]).weight.item() == pytest.approx(7.5)  # 3 * 5 / sqrt(4)
    assert cast(Tensor, one[0].bias).item() == pytest.approx(2.0)  # 7 - 2 * 5 / sqrt(4)
    assert isinstance(one[1], nn.Identity)


@pytest.mark.parametrize("name", ["lite0", "densenet121", "resnetv2_18", "mobilenetv3_small_100", "resnet10t"])
def test_the_answers_stay(name: str) -> None:
    torch.manual_seed(0)
    made = EfficientNetLite0() if name == "lite0" else timm.create_model(name, num_classes=2)
    network = _lived_in(made)
    one = folded(network)
    assert one is not network
    assert sum(isinstance(m, nn.BatchNorm2d) for m in one.modules()) < sum(
        isinstance(m, nn.BatchNorm2d) for m in network.modules()
    )
    assert [n for n, _ in network.named_modules() if n.startswith("blocks")][:5] == [
        n for n, _ in one.named_modules() if n.startswith("blocks")
    ][:5]
    shown = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(one(shown), network(shown), rtol=1e-3, atol=1e-4)


class _OutOfOrder(nn.Module):
    """Declares a pair that does not run as a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        seen: Tensor = self.conv(normed.relu())
        return seen


def test_a_network_that_the_fold_would_change_is_kept() -> None:
    network = _lived_in(_OutOfOrder())
    assert folded(network) is network


def test_nothing_to_fold_and_training_networks_are_kept() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    assert folded(plain) is plain
    learning = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    assert folded(learning) is learning
