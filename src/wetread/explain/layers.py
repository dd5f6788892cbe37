"""Which layer is explained, and its activations with the gradients of the target logit.

Two ways to the same tensors: from features that the reader has already computed (backward only
through the head), or from any named layer by running the network once more (backward only down
to that layer). Neither touches parameters, their ``.grad``, or the caller's tensors.
"""

from __future__ import annotations

import difflib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.models.card import InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network

__all__ = [
    "FINE",
    "LAST",
    "Activations",
    "default_layer",
    "finer_layers",
    "from_features",
    "from_layer",
    "from_layers",
    "has_finer_layers",
    "needs_encoder",
]

FINE = "fine"
"""Given as a layer: the last feature maps together with those of twice and four times as many cells each way."""

LAST = "last"
"""Given as a layer: the last feature maps alone."""

_UNNAMED = "last feature maps"
_NAMES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""Name of each network's last feature maps; found once, by one forward of a blank image."""

_FINER_NAMES: WeakKeyDictionary[nn.Module, tuple[str, ...] | str] = WeakKeyDictionary()
"""Names of each network's finer layers, or why it has none; found once, by one forward of a blank image."""

_FINER = 2
"""How many sizes above the last are looked at; still earlier layers see edges, which are everywhere."""


@dataclass(frozen=True, slots=True)
class Activations:
    """``maps`` and ``gradients``: (N, D, h, w); ``logits``: (N,) of the target; ``tokens``: from a transformer."""

    maps: Tensor
    gradients: Tensor
    logits: Tensor
    layer: str
    tokens: bool


def needs_encoder(network: Network) -> bool:
    """Whether the usual layer lies inside the encoder, so that it has to be run again.

    In a ViT the class token alone is read after the last block, so the gradient at its other
    tokens is zero there: the usual layer is ``norm1`` of the last block.
    """
    return _last_norm(network) is not None


def _last_norm(network: Network) -> str | None:
    """Name of ``norm1`` in the last block of a ViT, None for other encoders."""
    encoder: Any = network.encoder
    blocks = getattr(encoder, "blocks", None)
    if not hasattr(encoder, "num_prefix_tokens") or not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return None
    last = len(blocks) - 1
    return f"blocks.{last}.norm1" if isinstance(getattr(blocks[last], "norm1", None), nn.Module) else None


def default_layer(network: Network, spec: InputSpec) -> str:
    """Return the name of the usual target layer: the last feature maps, or a ViT's last ``norm1``."""
    name = _last_norm(network)
    if name is not None:
        return name
    if network not in _NAMES:
        _NAMES[network] = _find_name(network, spec)
    return _NAMES[network]


def _find_name(network: Network, spec: InputSpec) -> str:
    """Find the outermost module whose output is the encoder's output, by one blank forward."""
    seen: list[tuple[str, ref[Any]]] = []  # weak, so that activations are freed on the way
    features = _watched(network, spec, lambda name, result: seen.append((name, ref(result))))
    names = [name for name, result in reversed(seen) if result() is features]
    return min(names, key=lambda name: name.count("."), default=_UNNAMED)


def _watched(network: Network, spec: InputSpec, note: Callable[[str, Tensor], None]) -> Tensor:
    """Tell ``note`` what each layer of the encoder gives for a blank image, in order; return its last features."""
    mine = threading.get_ident()

    def told(name: str, result: object) -> None:
        if isinstance(result, Tensor) and threading.get_ident() == mine:
            note(name, result)

    handles = [
        module.register_forward_hook(lambda _m, _i, result, name=name: told(name, result))
        for name, module in network.encoder.named_modules()
        if name and not isinstance(module, nn.Identity)
    ]
    try:
        with torch.inference_mode():
            return network.features(normalise(torch.zeros(1, 1, spec.height, spec.width), spec))
    finally:
        for handle in handles:
            handle.remove()


def finer_layers(network: Network, spec: InputSpec) -> tuple[str, ...]:
    """Return the layers that end each size of feature maps above the last, the nearest size first, two at most.

    A size ends where the encoder's blocks go on to a smaller one; what lies inside a block is not looked at.

    Raises:
        ExplanationFailed: the encoder has tokens, or one size alone.
    """
    found = _finer_layers(network, spec)
    if isinstance(found, str):
        raise ExplanationFailed(
            expected(f"feature maps of several sizes for --layer {FINE}", found, "leave --layer out")
        )
    return found


def has_finer_layers(network: Network, spec: InputSpec) -> bool:
    """Whether :func:`finer_layers` returns any."""
    return not isinstance(_finer_layers(network, spec), str)


def _finer_layers(network: Network, spec: InputSpec) -> tuple[str, ...] | str:
    """The names, or in words what the encoder has instead."""
    if network not in _FINER_NAMES:
        _FINER_NAMES[network] = _find_finer(network, spec)
    return _FINER_NAMES[network]


def _find_finer(network: Network, spec: InputSpec) -> tuple[str, ...] | str:
    last: dict[int, str] = {}  # cells -> layer; what runs later replaces what ran before

    def note(name: str, result: Tensor) -> None:
        if result.ndim == 4 and name.count(".") <= 1:
            last.pop(cells := result.shape[2] * result.shape[3], None)
            last[cells] = name

    features = _watched(network, spec, note)
    if features.ndim != 4 or getattr(network.encoder, "output_fmt", "NCHW") == "NHWC":
        return "tokens of a transformer"
    finer = sorted(cells for cells in last if cells > features.shape[2] * features.shape[3])
    return tuple(last[cells] for cells in finer[:_FINER]) or "one size"


def _grid(tokens: int, spec: InputSpec) -> tuple[int, int] | None:
    """Rows and columns of ``tokens`` patches with the input's aspect ratio; None if they do not fit."""
    rows = max(1, round(math.sqrt(tokens * spec.height / spec.width)))
    return (rows, tokens // rows) if tokens % rows == 0 else None


def _as_maps(values: Tensor, network: Network, spec: InputSpec, module: nn.Module | None) -> tuple[Tensor, bool]:
    """Bring maps or tokens to (N, D, h, w), without class tokens; tell whether they were tokens."""
    encoder: Any = network.encoder
    if values.ndim == 4:
        last = getattr(encoder, "output_fmt", "NCHW") == "NHWC" and not isinstance(module, nn.Conv2d)
        return (values.movedim(3, 1), True) if last else (values, False)
    if values.ndim == 3:  # (N, T, D)
        for prefix in dict.fromkeys((int(getattr(encoder, "num_prefix_tokens", 0)), 0)):
            grid = _grid(values.shape[1] - prefix, spec)
            if grid is not None:
                return values[:, prefix:].movedim(2, 1).unflatten(2, grid), True
    raise ExplanationFailed(
        expected(
            "feature maps or a grid of tokens to explain", f"shape {tuple(values.shape)}", "choose another --layer"
        )
    )


def _activations(
    leaf: Tensor, gradient: Tensor | None, logits: Tensor, where: tuple[Network, InputSpec, str, nn.Module | None]
) -> Activations:
    """Lay out a layer's values and gradients as maps."""
    network, spec, layer, module = where
    if gradient is None:
        raise ExplanationFailed(expected("a layer that the score depends on", layer, "choose another --layer"))
    maps, tokens = _as_maps(leaf.detach(), network, spec, module)
    gradients, _ = _as_maps(gradient, network, spec, module)
    if maps.shape[2] * maps.shape[3] < 2:
        raise ExplanationFailed(
            expected(
                "feature maps of more than one cell", f"1x1 at {layer}", "use a larger input or an earlier --layer"
            )
        )
    return Activations(maps, gradients, logits.detach(), layer, tokens)


def from_features(network: Network, features: Tensor, output: int, spec: InputSpec) -> Activations:
    """Take the encoder's last features, as ``Reader.forward`` gives them; the encoder is not run.

    The logits of all images are summed for one backward: in evaluation mode no layer mixes
    images, so each image gets its own gradient.
    """
    layer = default_layer(network, spec)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.detach().clone().requires_grad_()
        logits = network.head(network.embed(leaf.clone()))[:, output]  # clone: heads may work in place
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    return _activations(leaf, gradient, logits, (network, spec, layer, None))


def _find_layer(network: Network, name: str) -> nn.Module:
    """Return the encoder's module of that name."""
    modules: dict[str, nn.Module] = dict(network.encoder.named_modules())
    if name and name in modules:
        return modules[name]
    known = [known for known in modules if known]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[-3:]
    raise UsageError(expected("the name of a layer in the encoder", repr(name), f"try {', '.join(near) or 'none'}"))


def from_layer(network: Network, batch: Tensor, name: str, output: int, spec: InputSpec) -> Activations:
    """Run the network on ``batch``, (N, 1, H, W) in [0, 1], and take the layer called ``name``."""
    return from_layers(network, batch, (name,), output, spec)[0]


def from_layers(
    network: Network, batch: Tensor, names: Sequence[str], output: int, spec: InputSpec
) -> tuple[Activations, ...]:
    """Run the network once on ``batch``, (N, 1, H, W) in [0, 1], and take the layers called ``names``, in that order.

    No graph is kept above the first of them to run: gradients are switched on as its output passes.
    Several threads may do so on one network at once: each looks at its own pass alone.
    """
    modules = {name: _find_layer(network, name) for name in names}
    caught: dict[str, Tensor] = {}
    mine = threading.get_ident()

    def catch(name: str, result: object) -> Tensor | None:
        if threading.get_ident() != mine:
            return None  # another thread's pass of the same network: left as it is
        if not isinstance(result, Tensor) or name in caught:
            problem = "several outputs" if name not in caught else "several calls"
            raise ExplanationFailed(
                expected("a layer with one output, called once", f"{name} with {problem}", "choose another --layer")
            )
        torch.set_grad_enabled(True)  # until the no_grad below ends
        caught[name] = result if result.requires_grad else result.detach().clone().requires_grad_()
        return caught[name].clone()  # the next layer may work in place

    handles = [
        module.register_forward_hook(lambda _module, _inputs, result, name=name: catch(name, result))
        for name, module in modules.items()
    ]
    try:
        with torch.inference_mode(False), torch.no_grad():
            logits = network(normalise(batch.clone(), spec))[:, output]
            for name in names:
                if name not in caught:
                    raise ExplanationFailed(
                        expected("a layer that runs", f"{name}, never called", "choose another --layer")
                    )
            leaves = [caught[name] for name in names]
            unreached = [None] * len(names)
            gradients = torch.autograd.grad(logits.sum(), leaves, allow_unused=True) if logits.requires_grad else None
    finally:
        for handle in handles:
            handle.remove()
    return tuple(
        _activations(leaf, gradient, logits, (network, spec, name, modules[name]))
        for name, leaf, gradient in zip(names, leaves, gradients or unreached, strict=True)
    )
