"""Readers whose weights are destroyed from the head down, to see whether their heat maps notice.

Decided here: a layer is destroyed by shuffling the values of each of its tensors, which keeps the layer's own
distribution (no assumption about how it was initialised) and loses all that was learnt about places and channels.
Layers go in the order in which they run, not in which they are declared. Running statistics of batch
normalisation belong to the old weights: with them a shuffled network saturates, and all maps fall apart for
the wrong reason. Those of shuffled layers are therefore measured anew on the given images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wetread.errors import UsageError, expected
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.models.predict import Reader

__all__ = ["layers_from_head", "randomised"]

_BATCH = 32


def layers_from_head(network: Network, shown: Tensor) -> tuple[str, ...]:
    """Names of the modules that hold parameters, the head first, in the reverse of the order in which they run.

    ``shown``: (N, C, H, W), what the network is run on to see that order; parameters of modules that never run by
    themselves (position embeddings) come last.
    """
    return tuple(_in_order(network, shown)[::-1])


def _in_order(network: Network, shown: Tensor) -> list[str]:
    """Modules with parameters of their own in the order in which they finish; those that never run come first."""
    holders = {name: module for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    ran: dict[str, None] = {}

    def note(name: str) -> None:
        ran.pop(name, None)  # a layer that runs twice counts where it runs last
        ran[name] = None

    handles = [
        module.register_forward_hook(lambda _m, _i, _o, name=name: note(name)) for name, module in holders.items()
    ]
    try:
        with torch.inference_mode():
            network(shown[:1])
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in holders if name not in ran] + list(ran)


def randomised(reader: Reader, batch: Tensor, seed: int, share: float = 1.0) -> Reader:
    """Return a copy of ``reader`` in which ``share`` (0-1) of the layers, counted from the head, are destroyed.

    At least the last layer is. ``batch``: (N, 1, height, width) in [0, 1], N >= 2, on which batch normalisation is
    measured anew. The reader itself is not touched.

    Raises:
        UsageError: fewer than two images, or a share outside 0-1.
    """
    if len(batch) < 2:
        raise UsageError(expected("at least 2 images for batch statistics", len(batch), "give more"))
    if not 0 <= share <= 1:
        raise UsageError(expected("a share of the layers from 0 to 1", share, "choose one in that range"))
    shown = normalise(batch, reader.input)
    networks = []
    for number, network in enumerate(reader.networks):
        own = copy.deepcopy(network)
        layers = layers_from_head(own, shown)
        names = set(layers[: max(1, round(share * len(layers)))])
        chosen = [module for name, module in own.named_modules() if name in names]
        _shuffle(chosen, torch.Generator().manual_seed(1000 * seed + number))
        _measure_anew(own, [m for m in chosen if isinstance(m, _BatchNorm) and m.track_running_stats], shown)
        networks.append(own)
    return Reader(reader.card, networks, reader.statistics, reader.guide)


def _shuffle(modules: Sequence[nn.Module], generator: torch.Generator) -> None:
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _measure_anew(network: Network, norms: Sequence[_BatchNorm], shown: Tensor) -> None:
    """Set running mean and variance of ``norms`` to those of the images, each layer seeing what it is now given."""
    if not norms:
        return
    with _averaging(norms), torch.inference_mode(False), torch.no_grad():
        for part in shown.clone().tensor_split(-(-len(shown) // _BATCH)):
            network(part)


@contextmanager
def _averaging(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """While open, the norms take plain averages over all batches that they see; all else stays in evaluation mode."""
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, whatever the number of batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
            norm.eval()
