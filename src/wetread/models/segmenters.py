"""Networks that find organs: a U-Net on any timm encoder, a residual U-Net and an attention U-Net.

Each maps (N, C, H, W) to logits (N, organs, H, W). Sources: U-Net, Ronneberger et al., MICCAI 2015; residual
units with long skips, Zhang et al., IEEE GRSL 2018 and Drozdzal et al., DLMIA 2016; attention gates, Oktay et al.,
MIDL 2018.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, cast

from torch import nn

from wetread.errors import UsageError, expected
from wetread.models.backbones import load_encoder_weights, make_encoder
from wetread.models.card import InputSpec, SegmenterCard
from wetread.models.lite0_unet import Lite0UNet
from wetread.models.registry import EMBEDDED, resolve_architecture

__all__ = [
    "DECODER",
    "STRIDE",
    "SegmenterKind",
    "build_segmenter",
    "encoder_parameters",
    "load_pretrained",
    "segmenter_of",
]

SegmenterKind = Literal["unet", "residual-unet", "attention-unet"]

STRIDE = 32
"""The coarsest grid of the networks: input sides must be multiples of it."""

DECODER = (128, 64, 48, 32, 16)
"""Channels of the U-Net's decoder, coarse to fine: half of the usual, so that a segmenter stays below 8 MB."""

_WIDTHS = (16, 32, 64, 128, 256, 256)
"""Channels of the two networks without a learned encoder, fine to coarse."""


def build_segmenter(
    kind: str, organs: int, spec: InputSpec, *, encoder: str | None = None, decoder: tuple[int, ...] = DECODER
) -> nn.Module:
    """Build a network with random weights; ``encoder`` is the timm network of a ``unet``.

    Raises:
        UsageError: unknown kind or encoder, an encoder without a pyramid of maps, or sides that are no
            multiples of :data:`STRIDE`.
    """
    if spec.height % STRIDE or spec.width % STRIDE:
        near = max(STRIDE, round(spec.height / STRIDE) * STRIDE)
        cure = f"use --image-size {near}"
        raise UsageError(expected(f"an image size that is a multiple of {STRIDE}", f"{spec.height}x{spec.width}", cure))
    if kind == "unet":
        return _unet(encoder or "", organs, spec, decoder)
    if kind in ("residual-unet", "attention-unet"):
        return _monai(kind, organs, spec)
    kinds = ["unet", "residual-unet", "attention-unet"]
    near_kind = difflib.get_close_matches(kind, kinds, n=1, cutoff=0.3) or kinds[:1]
    raise UsageError(expected(f"a network among {', '.join(kinds)}", repr(kind), f"did you mean {near_kind[0]}?"))


def segmenter_of(card: SegmenterCard) -> nn.Module:
    """Build the network that a card describes, to be given the bundle's weights and read with."""
    decoder = card.decoder or DECODER
    if card.architecture == "unet" and card.encoder == EMBEDDED and len(decoder) == len(DECODER):
        return Lite0UNet(len(card.organs), card.input.channels, decoder)
    return build_segmenter(card.architecture, len(card.organs), card.input, encoder=card.encoder, decoder=decoder)


def load_pretrained(network: nn.Module, encoder: str, spec: InputSpec, weights: str | None) -> str:
    """Give the encoder of a U-Net the weights that a classifier of that name starts from; return their origin.

    Raises:
        BundleRefused: the file is no safetensors file or does not fit.
    """
    whole = make_encoder(encoder, spec)
    origin = load_encoder_weights(whole, encoder, weights)
    if origin != "random":
        own = cast(nn.Module, cast(Any, network).encoder.model)
        # timm flattens some encoders into a list of maps, and `stages.0.x` is then called `stages_0.x`.
        given = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
        own.load_state_dict({key: given[key.replace(".", "_")] for key in own.state_dict()})
    return origin


def encoder_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Parameters of the learned encoder; none for the networks that have no such part."""
    encoder = getattr(network, "encoder", None)
    return list(encoder.parameters()) if isinstance(encoder, nn.Module) else []


def _unet(encoder: str, organs: int, spec: InputSpec, decoder: tuple[int, ...]) -> nn.Module:
    import segmentation_models_pytorch as smp

    name = resolve_architecture(encoder)
    try:
        network = smp.Unet(
            f"tu-{name}",
            encoder_weights=None,
            in_channels=spec.channels,
            classes=organs,
            decoder_channels=decoder,
        )
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            expected("an encoder with five steps of maps", name, "use a convolutional one, e.g. resnet34")
        ) from error
    return cast(nn.Module, network)


def _monai(kind: str, organs: int, spec: InputSpec) -> nn.Module:
    from monai.networks.nets.attentionunet import AttentionUnet
    from monai.networks.nets.unet import UNet

    strides = (2,) * (len(_WIDTHS) - 1)
    if kind == "residual-unet":
        # Batch norm: the default instance norm cannot train where the coarsest map is one pixel.
        return UNet(2, spec.channels, organs, channels=_WIDTHS, strides=strides, num_res_units=2, norm="batch")
    return AttentionUnet(2, spec.channels, organs, channels=_WIDTHS, strides=strides)
