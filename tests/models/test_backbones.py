"""Encoders: built by name for a size, with the embedded weights, or with weights from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from wetread.errors import BundleRefused, UsageError
from wetread.models.backbones import build_network, embedding_width, load_encoder_weights, make_encoder
from wetread.models.card import HeadSpec, InputSpec

SMALL = InputSpec(height=64, width=64)
EMBEDDED = "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    "architecture",
    ["cnn", "pixels", EMBEDDED, "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224",
     "swin_tiny_patch4_window7_224", "fastvit_t8", "davit_tiny", "gmlp_ti16_224", "eva02_tiny_patch14_224"],
)  # fmt: skip
def test_the_embedding_has_the_width_that_the_head_expects(architecture: str) -> None:
    spec = InputSpec(height=112, width=112)
    network = build_network(architecture, HeadSpec(), spec, 3, softmax=True).eval()
    batch = torch.rand(2, 3, 112, 112)
    with torch.inference_mode():
        embedded = network.embed(network.features(batch))
        assert embedded.shape == (2, embedding_width(network.encoder))
        assert network(batch).shape == (2, 3)
    assert network.spatial == (architecture != "pixels")


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_follow_the_spec(channels: int) -> None:
    spec = InputSpec(height=64, width=64, channels=channels)
    for architecture in ("cnn", "resnet18"):
        encoder = make_encoder(architecture, spec)
        first = next(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d))
        assert first.in_channels == channels


def test_a_size_that_a_network_does_not_take_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"expected settings that vgg16_bn accepts, got 64x64 input, drop path 0\.2"):
        make_encoder("vgg16_bn", SMALL, drop_path=0.2)


def test_an_unknown_encoder_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"try .*convnext_atto"):
        make_encoder("convnext_ato", SMALL)


def test_the_embedded_weights_are_imagenet_weights() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(EMBEDDED, SMALL)
    assert load_encoder_weights(encoder, EMBEDDED, None) == "ImageNet (embedded)"
    state = encoder.state_dict()
    assert len(state) == 294  # 245 parameters and statistics, 49 counters; no classifier
    assert all(bool(value.isfinite().all()) for value in state.values())
    variances = [value for key, value in state.items() if key.endswith("running_var")]
    assert all(float(value.min()) >= 0 for value in variances)
    assert not any(torch.allclose(value, torch.ones_like(value)) for value in variances)  # learnt, not initial
    other = make_encoder(EMBEDDED, SMALL)
    load_encoder_weights(other, EMBEDDED, None)
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_embedded_weights_of_three_channels_do_not_fit_one() -> None:
    encoder = make_encoder(EMBEDDED, InputSpec(height=64, width=64, channels=1))
    with pytest.raises(BundleRefused, match="expected the embedded weights to fit the encoder, got another shape"):
        load_encoder_weights(encoder, EMBEDDED, None)


@pytest.mark.parametrize(("architecture", "weights"), [("resnet18", None), (EMBEDDED, "random")])
def test_random_weights_are_said_to_be_random(architecture: str, weights: str | None) -> None:
    encoder = make_encoder(architecture, SMALL)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert load_encoder_weights(encoder, architecture, weights) == "random"
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """What timm publishes: all tensors, with a classifier for 1000 classes."""
    torch.manual_seed(9)
    model = timm.create_model("resnet18", num_classes=1000)
    (tmp_path / "resnet18").mkdir()
    save_file(model.state_dict(), tmp_path / "resnet18" / "model.safetensors")
    return tmp_path / "resnet18"


@pytest.mark.parametrize("as_folder", [True, False])
def test_timm_safetensors_are_loaded_from_file_or_folder(downloaded: Path, as_folder: bool) -> None:
    encoder = make_encoder("resnet18", SMALL)
    given = downloaded if as_folder else downloaded / "model.safetensors"
    assert load_encoder_weights(encoder, "resnet18", given) == given.name
    torch.manual_seed(9)
    model = timm.create_model("resnet18", num_classes=1000).eval()
    batch = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.eval().forward_features(batch), model.forward_features(batch))  # type: ignore[operator]


def test_weights_of_another_network_name_the_first_missing_tensor(downloaded: Path) -> None:
    encoder = make_encoder("resnet34", SMALL)
    with pytest.raises(BundleRefused, match=r"weights for all \d+ tensors of the encoder, got \d+, without layer1\.2"):
        load_encoder_weights(encoder, "resnet34", downloaded)


def test_a_refused_file_leaves_the_encoder_alone(downloaded: Path) -> None:
    encoder = make_encoder("resnet34", SMALL)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(BundleRefused, match="without"):
        load_encoder_weights(encoder, "resnet34", downloaded)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_files_that_are_no_weights_are_refused(downloaded: Path, tmp_path: Path) -> None:
    encoder = make_encoder("resnet18", SMALL)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((downloaded / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(BundleRefused, match=r"expected safetensors weights, got a damaged damaged\.safetensors; copy"):
        load_encoder_weights(encoder, "resnet18", damaged)
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04")
    with pytest.raises(BundleRefused, match=r"got weights\.pth; convert it first: pickled weights are never loaded"):
        load_encoder_weights(encoder, "resnet18", tmp_path / "weights.pth")
    with pytest.raises(BundleRefused, match=r"got no such path: nowhere\.safetensors"):
        load_encoder_weights(encoder, "resnet18", tmp_path / "nowhere.safetensors")
    (downloaded / "second.safetensors").write_bytes(b"")
    with pytest.raises(BundleRefused, match=r"expected one \.safetensors file in resnet18, got 2; name the file"):
        load_encoder_weights(encoder, "resnet18", downloaded)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleRefused, match=r"expected one \.safetensors file in empty, got 0"):
        load_encoder_weights(encoder, "resnet18", tmp_path / "empty")
