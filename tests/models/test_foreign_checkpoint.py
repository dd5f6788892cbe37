"""timm checkpoints: the original's own forward is what the imported reader answers, with heat maps where it can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tests.models.foreign_support import CARD, save_card, write_image
from wetread.errors import BundleRefused, UsageError
from wetread.explain.base import Target
from wetread.explain.cam import explain
from wetread.imaging import load_image
from wetread.models.bundle import load_reader
from wetread.models.card import ReaderCard
from wetread.models.foreign import ForeignSource, import_foreign

SIZE = 64
INPUT = {"height": SIZE, "width": SIZE}
MEAN, STD = (torch.tensor(CARD["input"][key])[None, :, None, None] for key in ("mean", "std"))


def timm_model(name: str, outputs: int = 2, **options: Any) -> nn.Module:
    """A network with random weights and normalisation statistics that matter."""
    torch.manual_seed(5)
    model: nn.Module = timm.create_model(name, num_classes=outputs, **options).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return model


def weights(path: Path, model: nn.Module, prefix: str = "", **extra: torch.Tensor) -> Path:
    state = {f"{prefix}{key}": value.contiguous() for key, value in model.state_dict().items()}
    path.parent.mkdir(exist_ok=True)
    save_file({**state, **extra}, path)
    return path


def given(model: nn.Module, pixels: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the original gives for an image, after its own preprocessing."""
    x = torch.from_numpy(pixels).float()[None, None]
    with torch.inference_mode():
        return np.asarray(model((x - MEAN) / STD)[0].numpy(), dtype=np.float64)


def bring(folder: Path, source: Path, **keys: Any) -> ReaderCard:
    return import_foreign(ForeignSource(source, folder / "card.toml", **keys), folder / "shelf")


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("test_resnet", False),
        ("test_efficientnet", False),
        ("test_convnext", False),
        ("test_vit", False),
        ("deit_tiny_distilled_patch16_224", True),
    ],
)
def test_a_checkpoint_gives_here_what_it_gave_there_and_can_be_explained(
    tmp_path: Path, name: str, whole: bool
) -> None:
    options = {"img_size": SIZE} if "vit" in name or "deit" in name else {}
    model = timm_model(name, 3, **options)
    there = given(model, write_image(tmp_path / "a.png", SIZE, SIZE))
    top = {"task": "multiclass", "classes": ["a", "b", "c"], "architecture": name}
    save_card(tmp_path, {"image": "a.png", "outputs": there}, top=top, input=INPUT)
    card = bring(tmp_path, weights(tmp_path / "net.safetensors", model))
    assert card.foreign is not None
    assert card.foreign.whole == whole
    assert card.head.kind == ("none" if whole else "linear")
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    assert reader.differentiable
    image = load_image(tmp_path / "a.png")
    batch = reader.prepare([image])
    forward = reader.forward(batch)
    np.testing.assert_allclose(forward.logits[0].numpy(), there, atol=1e-4)
    label = "abc"[int(there.argmax())]
    found = explain(
        reader, forward, 0, Target(label, "gradcam++" if "resnet" in name else "gradcam"), (SIZE, SIZE), batch
    )
    assert found.heat.shape == (SIZE, SIZE)


def test_two_exclusive_outputs_are_folded_into_one(tmp_path: Path) -> None:
    model = timm_model("test_resnet")
    there = given(model, write_image(tmp_path / "a.png", SIZE, SIZE))
    save_card(tmp_path, {"image": "a.png", "outputs": there}, top={"architecture": "test_resnet"}, input=INPUT)
    bring(tmp_path, weights(tmp_path / "net.safetensors", model))
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    forward = reader.forward(reader.prepare([load_image(tmp_path / "a.png")]))
    assert forward.logits.shape == (1, 1)
    softmax = np.exp(there) / np.exp(there).sum()
    np.testing.assert_allclose(reader.probabilities(forward)[0, 0], softmax[1], atol=1e-6)
    linear = [part for part in reader.networks[0].head.modules() if isinstance(part, nn.Linear)]
    assert linear[0].out_features == 1


def test_weights_are_stored_as_they_are_and_not_rounded(tmp_path: Path) -> None:
    model = timm_model("test_resnet")
    save_card(tmp_path, top={"architecture": "test_resnet"}, input=INPUT)
    bring(tmp_path, weights(tmp_path / "net.safetensors", model), without_reference=True)
    stored = load_reader(tmp_path / "shelf" / "elsewhere").networks[0].encoder.state_dict()
    for key, value in stored.items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_a_folder_of_hugging_face_names_the_architecture_itself(tmp_path: Path) -> None:
    model = timm_model("test_resnet")
    weights(tmp_path / "hub" / "model.safetensors", model, prefix="timm_model.")
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(b"never opened")
    (tmp_path / "hub" / "config.json").write_text(json.dumps({"architecture": "test_resnet"}), encoding="utf-8")
    there = given(model, write_image(tmp_path / "a.png", SIZE, SIZE))
    save_card(tmp_path, {"image": "a.png", "outputs": there}, input=INPUT)
    assert bring(tmp_path, tmp_path / "hub").architecture == "test_resnet"


@pytest.mark.parametrize(
    ("config", "top", "prefix", "complaint"),
    [
        (
            {"model_type": "vit"},
            {},
            "",
            "expected a timm network, got a vit of the library transformers; export it to ONNX",
        ),
        (None, {}, "", "expected the timm name of the network in model.safetensors, got none; set architecture"),
        (
            None,
            {"architecture": "test_resnet"},
            "net.",
            "expected the classifier fc of test_resnet, got tensors such as",
        ),
        (None, {"architecture": "test_resnet", "prefix": "mod."}, "", "expected tensors whose names start with 'mod.'"),
        (None, {"architecture": "resnet18"}, "", "expected weights of resnet18, got size mismatch for"),
        (None, {"architecture": "test_byobnet"}, "", "expected the classifier head.fc of test_byobnet"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, config: dict[str, str] | None, top: dict[str, str], prefix: str, complaint: str
) -> None:
    weights(tmp_path / "hub" / "model.safetensors", timm_model("test_resnet"), prefix)
    if config is not None:
        (tmp_path / "hub" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_card(tmp_path, top=top, input=INPUT)
    with pytest.raises(BundleRefused) as refused:
        bring(tmp_path, tmp_path / "hub", without_reference=True)
    assert complaint in str(refused.value)
    assert not (tmp_path / "shelf").exists()


def test_an_unknown_architecture_and_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    save_card(tmp_path, top={"architecture": "test_resnot"}, input=INPUT)
    with pytest.raises(UsageError, match=r"got 'test_resnot'; try test_resnet"):
        bring(tmp_path, tmp_path / "net.safetensors", without_reference=True)
    save_card(tmp_path, top={"architecture": "test_resnet"}, input=INPUT)
    with pytest.raises(BundleRefused, match=r"expected safetensors weights in net.safetensors"):
        bring(tmp_path, tmp_path / "net.safetensors", without_reference=True)


class XrayVision(nn.Module):
    """DenseNet-121 for one channel whose probabilities are moved by thresholds, written after torchxrayvision."""

    op_threshs: torch.Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = torchvision.models.densenet121(num_classes=outputs)
        self.net.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        nn.init.normal_(self.net.features.conv0.weight, std=0.05 / 1024)  # for pixels from -1024 to 1024
        self.op_threshs = torch.linspace(0.35, 0.65, outputs)
        self.op_threshs[1] = torch.nan
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p, moved = self.net(x).sigmoid()[0], []
        for probability, threshold in zip(p.tolist(), self.op_threshs.tolist(), strict=True):
            if np.isnan(threshold):
                moved.append(0.5)
            elif probability < threshold:
                moved.append(probability / (threshold * 2))
            else:
                moved.append(1 - (1 - probability) / ((1 - threshold) * 2))
        return torch.tensor([moved], dtype=torch.float64)


def test_a_network_of_torchxrayvision(tmp_path: Path) -> None:
    model = XrayVision(4)
    pixels = torch.from_numpy((2 * write_image(tmp_path / "a.png", SIZE, SIZE) - 1) * 1024).float()[None, None]
    with torch.inference_mode():
        there = model(pixels)[0].tolist()
    assert 0.05 < min(there) < max(there) < 0.95
    file = weights(tmp_path / "xrv.safetensors", model.net, op_threshs=model.op_threshs)
    classes = ["Atelectasis", "Effusion", "Pneumonia"]
    top = {"task": "multilabel", "classes": classes, "architecture": "densenet121"}
    scaled = {"channels": 1, "normalisation": "range", "range": [-1024, 1024], "mean": None, "std": None, **INPUT}
    output = {"gives": "probabilities", "columns": [0, 2, 3]}
    save_card(tmp_path, {"image": "a.png", "outputs": there}, top=top, input=scaled, output=output)
    card = bring(tmp_path, file)
    assert card.foreign is not None
    assert card.foreign.thresholds
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    here = reader.probabilities(reader.forward(reader.prepare([load_image(tmp_path / "a.png")])))
    np.testing.assert_allclose(here[0], [there[i] for i in (0, 2, 3)], atol=1e-5)

    save_card(
        tmp_path,
        {"image": "a.png", "outputs": there},
        top=top | {"name": "other"},
        input=scaled,
        output=output | {"columns": [0, 1, 2]},
    )
    with pytest.raises(BundleRefused, match=r"expected a threshold within \(0, 1\).*always answers 0.5"):
        bring(tmp_path, file)


def test_a_checkpoint_gives_logits_and_has_no_named_outputs(tmp_path: Path) -> None:
    file = weights(tmp_path / "net.safetensors", timm_model("test_resnet"))
    top = {"architecture": "test_resnet"}
    for output, complaint in (
        ({"gives": "probabilities"}, r"expected gives = 'logits' for a checkpoint"),
        ({"gives": "logits", "features": "pool"}, r"expected name and features in \[output\] for an ONNX graph alone"),
    ):
        save_card(tmp_path, top=top, input=INPUT, output=output)
        with pytest.raises(BundleRefused, match=complaint):
            bring(tmp_path, file, without_reference=True)
