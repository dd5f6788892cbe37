"""Our U-Net on EfficientNet-lite0 against segmentation_models_pytorch's: same tensors, same numbers, fewer imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from wetread.models.lite0_unet import Lite0UNet
from wetread.models.registry import EMBEDDED


@pytest.mark.parametrize(("organs", "channels", "widths"), [(1, 3, (128, 64, 48, 32, 16)), (2, 1, (64, 32, 24, 16, 8))])
def test_names_and_numbers_are_those_of_the_package(organs: int, channels: int, widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = smp.Unet(
        f"tu-{EMBEDDED}", encoder_weights=None, in_channels=channels, classes=organs, decoder_channels=widths
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_buffer("running_mean", torch.randn(module.num_features) / 4)
            module.register_buffer("running_var", torch.rand(module.num_features) + 0.5)
    ours = Lite0UNet(organs, channels, widths)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    shown = torch.rand(2, channels, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(shown), theirs.eval()(shown), rtol=1e-5, atol=1e-6)


def test_the_shipped_segmenter_needs_neither_package() -> None:
    code = (
        "import sys; from wetread.models.bundle import load_segmenter; load_segmenter('lungs'); "
        "print('timm' in sys.modules, 'segmentation_models_pytorch' in sys.modules, 'torchvision' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.split() == ["False"] * 3
