"""Our EfficientNet-lite0 against timm's: same tensors in the same order, same numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from wetread.models.lite0 import EfficientNetLite0


@pytest.fixture(scope="module")
def pair() -> tuple[EfficientNetLite0, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0, pretrained=False)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():  # statistics that do something
            if value.is_floating_point() and ("running" in name or "bn" in name):
                value.uniform_(0.5, 1.5)
    ours = EfficientNetLite0()
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def test_tensors_have_the_same_names_shapes_and_order(pair: tuple[EfficientNetLite0, torch.nn.Module]) -> None:
    ours, theirs = ({key: value.shape for key, value in model.state_dict().items()} for model in pair)
    assert list(ours.items()) == list(theirs.items())


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (65, 101), (320, 256)])
def test_maps_and_embeddings_are_those_of_timm(
    pair: tuple[EfficientNetLite0, torch.nn.Module], size: tuple[int, int]
) -> None:
    ours, theirs = pair
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps, wanted = ours.forward_features(x), theirs.forward_features(x)  # type: ignore[operator]
        torch.testing.assert_close(maps, wanted, rtol=1e-5, atol=1e-6)
        pooled = theirs.forward_head(wanted, pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(ours.forward_head(maps), pooled, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_timm(pair: tuple[EfficientNetLite0, torch.nn.Module]) -> None:
    found = []
    for model in pair:
        model.zero_grad()
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        model(x).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    ours, theirs = found
    assert len(ours) == len(theirs)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


def test_timm_is_not_imported() -> None:
    code = "import sys, wetread.models.lite0; print('timm' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
