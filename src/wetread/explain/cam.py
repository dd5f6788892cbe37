"""Class activation maps: CAM, Grad-CAM, Grad-CAM++ and HiResCAM, for one image or many at once.

Decided here: the target is the logit of the label (binary: of the positive class); ensembles
average the raw maps of their networks, because the reader averages their logits and CAM,
Grad-CAM and HiResCAM maps are in logit units; the raw map stays signed, and the ReLU of the
articles is applied when the map becomes heat. At the layer ``fine``, the usual one of Grad-CAM, the map is multiplied
by HiResCAM maps of earlier, finer layers: they can only take heat away, so the evidence stays where the last layer has
it. On planted lesions and by deletion that is better by far (docs/explanation/heat-maps.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.explain.base import Explanation, Method, RawMap, Target, made
from wetread.explain.layers import (
    FINE,
    LAST,
    Activations,
    default_layer,
    finer_layers,
    from_features,
    from_layer,
    from_layers,
    has_finer_layers,
    needs_encoder,
)
from wetread.models.guide import Window
from wetread.models.networks import Network
from wetread.models.predict import Forward, Reader

__all__ = ["explain", "explain_batch", "gradcam", "gradcam_plus_plus", "hirescam", "require_label"]

_POOLING_TOLERANCE = 1e-3
"""Relative: how far an embedding may lie from the mean of the feature maps to count as their mean."""

_PLACE = "Shows where the score came from, not where disease is."
_LIMITS: dict[Method, str] = {
    "cam": "Adds up to the score only for this kind of head; it says nothing about earlier layers.",
    "gradcam": "One weight for each feature map: places can light up that did not raise the score "
    "(Draelos and Carin 2020).",
    "gradcam++": "Keeps only the gradients that raise the score and assumes features >= 0; its values "
    "are no share of the score.",
    "hirescam": "Local gradients: for a head that is not linear the map does not add up to the score.",
}
_FINE_LIMIT = "Sharpened by earlier layers: its values are no share of the score."
_FINE_PASSES = 4
"""The reading, one more forward pass, and a backward pass that stops before the first layers."""

_TOKENS = "Attention mixes tokens before this layer: a place in the map need not show what lies there."


def gradcam(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM before its ReLU; arguments (N, D, h, w), result (N, h, w).

    Source: Selvaraju et al., ICCV 2017, eq. 1-2: weight of map k is the mean of its gradient.
    """
    weights = gradients.mean((2, 3), keepdim=True)  # (N, D, 1, 1)
    return (weights * maps).sum(1)


def gradcam_plus_plus(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ before its ReLU; arguments (N, D, h, w), result (N, h, w).

    Source: Chattopadhay et al., WACV 2018, eq. 19 with Y = exp(S):
    alpha = g^2 / (2 g^2 + g^3 sum A) = 1 / (2 + g sum A), weight = sum(alpha relu(g)); the
    common factor exp(S) is left out. The article has A >= 0; for other activations (SiLU, GELU)
    the sum is over the positive part, which keeps the denominator >= 2 wherever relu(g) > 0.
    """
    rising = gradients.clamp(min=0)
    total = maps.clamp(min=0).sum((2, 3), keepdim=True)  # (N, D, 1, 1)
    weights = (rising / (2 + rising * total)).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1)


def hirescam(maps: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM before its ReLU; arguments (N, D, h, w), result (N, h, w).

    Source: Draelos & Carin, arXiv 2011.08891, eq. 4: gradient times activation, place by place.
    """
    return (gradients * maps).sum(1)


_FORMULAS: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
}


def _linear_head(network: Network) -> nn.Linear | None:
    """Return the head's linear layer if there is nothing else in it but dropout."""
    parts = [m for m in network.head.modules() if not isinstance(m, nn.Sequential | nn.Dropout | nn.Identity)]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], nn.Linear) else None


def _pooled_linear(network: Network, features: Tensor, maps: Tensor) -> nn.Linear | None:
    """Return the linear layer if the logit is linear in the mean of ``maps``, else None."""
    linear = _linear_head(network)
    if linear is None:
        return None
    with torch.inference_mode(False), torch.no_grad():
        embedded = network.embed(features.clone())
        mean = maps.mean((2, 3))  # (N, D)
        if embedded.shape != mean.shape:
            return None
        far = (embedded - mean).abs().max() > _POOLING_TOLERANCE * mean.abs().max()
    return None if bool(far) else linear


def _raw_maps(activations: Activations, target: Target, linear: nn.Linear | None, output: int) -> Tensor:
    """Apply the method to one network's activations; (N, h, w)."""
    if target.method == "cam":
        if linear is None:
            raise ExplanationFailed(
                expected(
                    "a linear head on globally averaged feature maps for CAM",
                    f"another head after {activations.layer}",
                    "use --method gradcam",
                )
            )
        # Zhou et al., CVPR 2016, eq. 2: the head's weights, summed over the maps.
        weights = linear.weight.detach()[output][:, None, None]  # (D, 1, 1)
        return (weights * activations.maps).sum(1)
    if target.method == "gradcam++" and activations.tokens:
        raise ExplanationFailed(
            expected("feature maps of a convolution for gradcam++", "tokens of a transformer", "use --method gradcam")
        )
    return _FORMULAS[target.method](activations.maps, activations.gradients)


def _error(raw: Tensor, activations: Activations, target: Target, bias: Tensor | None) -> Tensor | None:
    """How far a map is from adding up to the logit, (N,); None where it need not."""
    if bias is None or target.method == "gradcam++":
        return None
    total = raw.mean((1, 2)) if target.method == "cam" else raw.sum((1, 2))
    return (total + bias - activations.logits).abs()


def _one_network(
    reader: Reader, forward: Forward, index: int, target: Target, batch: Tensor | None
) -> tuple[Tensor, Tensor | None, Activations]:
    """Return raw maps (N, h, w), their numerical error and the activations of network ``index``."""
    network, output = reader.networks[index], reader.labels.index(target.label)
    if target.layer == FINE:
        return _sharpened(reader, forward, index, target, batch)
    named = None if target.layer == LAST else target.layer
    layer = named or default_layer(network, reader.input)
    usual = named is None and not needs_encoder(network)
    if usual:
        activations = from_features(network, forward.features[index], output, reader.input)
    elif batch is None:
        raise UsageError(expected(f"the batch, to explain the inner layer {layer}", "None", "pass batch="))
    else:
        activations = from_layer(network, batch, layer, output, reader.input)
    at_end = layer == default_layer(network, reader.input) and not needs_encoder(network)
    linear = _pooled_linear(network, forward.features[index], activations.maps) if at_end else None
    raw = _raw_maps(activations, target, linear, output)
    bias = None if linear is None else linear.bias.detach()[output]
    return raw, _error(raw, activations, target, bias), activations


def _with_layer(reader: Reader, target: Target, batch: Tensor | None) -> Target:
    """Name the layer ``fine`` where it is the usual one: for Grad-CAM of networks that all have finer layers.

    Without the batch there is nothing to run again, and the last feature maps serve.
    """
    if target.layer is not None or target.method != "gradcam" or batch is None:
        return target
    fine = all(has_finer_layers(network, reader.input) for network in reader.networks)
    return replace(target, layer=FINE) if fine else target


def _sharpened(
    reader: Reader, forward: Forward, index: int, target: Target, batch: Tensor | None
) -> tuple[Tensor, Tensor | None, Activations]:
    """As :func:`_one_network`, for the layer ``fine``: the usual map times the heat of finer layers, at the finest.

    Each finer map is HiResCAM's, positive part over its maximum. Multiplying coarse maps by finer ones is Poly-CAM's
    way (Englebert et al., arXiv 2204.13359); its maps of single layers are others.
    """
    network, output = reader.networks[index], reader.labels.index(target.label)
    layers = finer_layers(network, reader.input)
    if batch is None:
        raise UsageError(expected(f"the batch, to explain the inner layer {layers[0]}", "None", "pass batch="))
    usual, _, activations = _one_network(reader, forward, index, replace(target, layer=LAST), batch)
    # One image at a time, so that no map depends on what else is in the batch, not even by rounding.
    parts = [from_layers(reader.folded[index], one, layers, output, reader.input) for one in batch.split(1)]
    sharpened = torch.cat([_product(one, part) for one, part in zip(usual.split(1), parts, strict=True)])
    layer = " x ".join((activations.layer, *layers))
    return sharpened, None, replace(parts[0][-1], layer=layer)


def _product(usual: Tensor, finer: Sequence[Activations]) -> Tensor:
    """A usual map (1, h, w) times the heat of finer layers, at the finest; where it has no heat, as it is."""
    product = usual.clamp(min=0)
    for one in finer:
        heat = hirescam(one.maps, one.gradients).clamp(min=0)
        product = _resized(product, heat) * heat / heat.amax().clamp(min=torch.finfo(heat.dtype).tiny)
    # Where no place speaks for the label the map stays negative, so that it is refused for that reason.
    return product if usual.amax() > 0 else _resized(usual, product)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    """Bring maps (N, h, w) to the size of others."""
    return F.interpolate(maps[:, None], list(like.shape[1:]), mode="bilinear", align_corners=False)[:, 0]


def require_label(reader: Reader, label: str) -> None:
    """Refuse a label that the reader does not have.

    Raises:
        UsageError: the message lists the labels and suggests the nearest.
    """
    if label not in reader.labels:
        near = difflib.get_close_matches(label, reader.labels, n=1, cutoff=0.3) or reader.labels
        raise UsageError(
            expected(f"one of the labels {', '.join(reader.labels)}", repr(label), f"try --label {near[0]}")
        )


def _check(reader: Reader, forward: Forward, target: Target, sizes: Sequence[tuple[int, int]]) -> None:
    require_label(reader, target.label)
    reader.require_gradients(target.method)
    if not all(network.spatial for network in reader.networks):
        raise ExplanationFailed(
            expected("a network with feature maps", f"{reader.card.architecture}, which has none", "train another")
        )
    if len(sizes) != len(forward.logits):
        raise UsageError(expected("one size for each image", f"{len(sizes)} for {len(forward.logits)}", "pass all"))


def _limits(reader: Reader, target: Target, activations: Activations) -> tuple[str, ...]:
    """Sentences that hold for every map of this call."""
    rows, columns = activations.maps.shape[2:]
    spec = reader.input
    limits = [_PLACE, _LIMITS[target.method]]
    if target.layer == FINE:
        limits.append(_FINE_LIMIT)
    limits.append(f"Coarse: {rows}x{columns} cells over an input of {spec.height}x{spec.width} pixels.")
    if activations.tokens:
        limits.append(_TOKENS)
    if len(reader.networks) > 1:
        limits.append(f"Mean of {len(reader.networks)} networks, which may look at different places.")
    return tuple(limits)


def explain_batch(
    reader: Reader,
    forward: Forward,
    target: Target,
    sizes: Sequence[tuple[int, int]],
    batch: Tensor | None = None,
    windows: Sequence[Window | None] | None = None,
) -> list[Explanation | ExplanationFailed]:
    """Explain ``target`` for all N images of ``forward``; one map or one reason for each image.

    ``forward`` comes from ``reader.forward(batch)``; the encoder is run again only for a ViT, a named layer and
    ``fine``, which need ``batch``; without it Grad-CAM is that of the last feature maps. ``sizes``: (rows,
    columns) of the original images; ``windows``: the parts of them that the reader was shown, None for all of it.
    Averaged views are not explained: the map is that of the unzoomed view.

    Raises:
        UsageError: unknown label or layer, or ``batch`` missing.
        ExplanationFailed: this reader allows no such map for any image.
    """
    _check(reader, forward, target, sizes)
    target = _with_layer(reader, target, batch)
    raws: list[Tensor] = []
    errors: list[Tensor | None] = []
    for index in range(len(reader.networks)):
        raw, error, activations = _one_network(reader, forward, index, target, batch)
        raws.append(raw)
        errors.append(error)
    mean = torch.stack(raws).mean(0).float().numpy()
    known = [error for error in errors if error is not None]
    worst = torch.stack(known).amax(0).tolist() if known else [None] * len(sizes)
    limits = _limits(reader, target, activations)
    passes = _FINE_PASSES if target.layer == FINE else 1
    results: list[Explanation | ExplanationFailed] = []
    for row, size, window, error_of in zip(mean, sizes, windows or [None] * len(sizes), worst, strict=True):
        seen = window[2:] if window else size
        try:
            one = RawMap(np.ascontiguousarray(row), error_of, passes=passes, limits=limits, layer=activations.layer)
            results.append(made(one, target, seen, reader.input).seen_through(window, size))
        except ExplanationFailed as failure:
            results.append(failure)
    return results


def explain(
    reader: Reader,
    forward: Forward,
    index: int,
    target: Target,
    size: tuple[int, int],
    batch: Tensor | None = None,
    window: Window | None = None,
) -> Explanation:
    """Explain ``target`` for image ``index`` of ``forward``, originally of ``size`` (rows, columns).

    ``window``: the part of the image that the reader was shown; None for all of it.

    Raises:
        UsageError: as :func:`explain_batch`.
        ExplanationFailed: no map can be made; the message says why.
    """
    if not 0 <= index < len(forward.logits):
        raise UsageError(expected(f"an index below {len(forward.logits)}", index, "name an image of this forward"))
    part = slice(index, index + 1)
    one = Forward(forward.logits[part], tuple(maps[part] for maps in forward.features), forward.embeddings[part])
    (result,) = explain_batch(reader, one, target, [size], None if batch is None else batch[part], [window])
    if isinstance(result, ExplanationFailed):
        raise result
    return result
