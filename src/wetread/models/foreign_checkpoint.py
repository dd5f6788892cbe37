"""A timm checkpoint in safetensors, mapped onto our encoder with a linear head, or kept whole where it does not fit.

Decided here: which of the two. Columns that were chosen, and the difference of two exclusive outputs, are folded into
the linear layer, so that such a reader is like our own in every way, heat maps by CAM included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wetread.errors import BundleRefused, expected
from wetread.models.card import ForeignSpec, HeadSpec, ReaderCard
from wetread.models.foreign_networks import ThresholdScores, checkpoint_network, foreign_spec, whole_model
from wetread.models.networks import Network
from wetread.models.registry import resolve_architecture

__all__ = ["Checkpoint", "fitted_network", "outputs_of", "read_checkpoint"]

_THRESHOLDS = "op_threshs"
"""The tensor of operating thresholds in a torchxrayvision model."""

_AGREEMENT = 1e-4
"""How closely encoder and linear layer must reproduce the whole network: share of 1 + logit, float32."""

_WRAPPED = "timm_model."
"""What precedes the names of tensors where Hugging Face's transformers wrapped a timm network."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of tensors with the timm name of its network; ``thresholds`` (outputs,) of torchxrayvision or None."""

    file: Path
    architecture: str
    state: dict[str, Tensor]
    thresholds: Tensor | None


@dataclass(frozen=True)
class _Linear:
    """The classifier of a network: its name, weight (outputs, D) and bias (outputs,)."""

    name: str
    weight: Tensor
    bias: Tensor


def read_checkpoint(source: Path, architecture: str | None, prefix: str = "") -> Checkpoint:
    """Read a .safetensors file, or a folder as Hugging Face lays it out: ``model.safetensors`` and ``config.json``.

    ``architecture`` None: as ``config.json`` says; ``prefix`` is taken off the names of the tensors.

    Raises:
        BundleRefused: damaged, no architecture named, or one of the library transformers.
        UsageError: timm has no such architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = source / "model.safetensors" if source.is_dir() else source
    name = resolve_architecture(architecture or _architecture(_config(source) if source.is_dir() else {}, file))
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleRefused(
            expected(f"safetensors weights in {file.name}", type(error).__name__, "copy them again")
        ) from error
    thresholds = tensors.pop(_THRESHOLDS, None)
    before = _WRAPPED if not prefix and all(key.startswith(_WRAPPED) for key in tensors) else prefix
    state = {key.removeprefix(before): value for key, value in tensors.items() if key.startswith(before)}
    if not state:
        raise BundleRefused(
            expected(f"tensors whose names start with {before!r}", next(iter(tensors), "none"), "correct prefix")
        )
    return Checkpoint(file, name, {key: _wide(value) for key, value in state.items()}, thresholds)


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleRefused(
            expected(f"JSON in config.json of {folder.name}", type(error).__name__, "copy it again")
        ) from error
    return found if isinstance(found, dict) else {}


def _architecture(config: dict[str, Any], file: Path) -> str:
    name = config.get("architecture")
    if isinstance(name, str):
        return name
    if "model_type" in config:
        raise BundleRefused(
            expected(
                "a timm network",
                f"a {config['model_type']} of the library transformers",
                "export it to ONNX where that library is, and import the graph",
            )
        )
    raise BundleRefused(
        expected(
            f"the timm name of the network in {file.name}", "none", "set architecture in the card, e.g. 'resnet50'"
        )
    )


def _classifier_names(architecture: str) -> tuple[str, ...]:
    from timm.models import get_pretrained_cfg

    names = getattr(get_pretrained_cfg(architecture), "classifier", None) or "classifier"
    return (names,) if isinstance(names, str) else tuple(names)


def outputs_of(checkpoint: Checkpoint) -> int:
    """Return the number of outputs of the checkpoint's classifier.

    Raises:
        BundleRefused: it has no classifier where its architecture has it.
    """
    name = _classifier_names(checkpoint.architecture)[0]
    weight = checkpoint.state.get(f"{name}.weight")
    if weight is None:
        near = ", ".join(sorted(checkpoint.state)[:2])
        raise BundleRefused(
            expected(
                f"the classifier {name} of {checkpoint.architecture}",
                f"tensors such as {near}",
                "check architecture and prefix in the card; features without a classifier are no reader",
            )
        )
    return len(weight)


def fitted_network(card: ReaderCard, checkpoint: Checkpoint) -> tuple[ReaderCard, Network]:
    """Build the network of a checkpoint with its weights; return it with the card, which says how it was built.

    Raises:
        BundleRefused: the tensors are not those of the architecture.
        UsageError: an input that the architecture does not take.
    """
    spec = foreign_spec(card)
    thresholds = _chosen_thresholds(checkpoint, spec, card)
    model = whole_model(checkpoint.architecture, card.input, spec.outputs).eval()
    _fill(model, checkpoint)
    linear = _linear(checkpoint)
    apart = None if linear is None else _apart(_changed(card, thresholds=thresholds is not None), model, linear)
    if linear is not None and apart is not None:
        fitted, network = apart
        _set_head(network.head, _folded(linear.weight, spec, card), _folded(linear.bias, spec, card), thresholds)
        return fitted, network
    if thresholds is not None:
        raise BundleRefused(
            expected("operating thresholds on a linear classifier", "another classifier", "export it to ONNX")
        )
    kept = _changed(card, whole=True)
    network = checkpoint_network(kept).eval()
    network.encoder.load_state_dict(model.state_dict())
    return kept, network


def _changed(card: ReaderCard, **changes: object) -> ReaderCard:
    return card.model_copy(update={"foreign": foreign_spec(card).model_copy(update=changes)})


def _fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    what = f"weights of {checkpoint.architecture}"
    try:
        missing, surplus = model.load_state_dict(checkpoint.state, strict=False)
    except RuntimeError as error:  # it names every shape that differs; the first is enough
        line = str(error).splitlines()[-1].strip()
        raise BundleRefused(expected(what, line, "check architecture, [input] and classes in the card")) from error
    wrong = [f"none for {key}" for key in missing] + [f"{key}, which it has not" for key in surplus]
    if wrong:
        raise BundleRefused(expected(what, wrong[0], "check architecture and prefix in the card"))


def _linear(checkpoint: Checkpoint) -> _Linear | None:
    """Return the one linear classifier, as a convolution of 1 x 1 too; None for another kind."""
    names = _classifier_names(checkpoint.architecture)
    weight, bias = (checkpoint.state.get(f"{names[0]}.{part}") for part in ("weight", "bias"))
    if len(names) > 1 or weight is None or weight[0].numel() != weight.shape[1]:
        return None
    return _Linear(names[0], weight.flatten(1), torch.zeros(len(weight)) if bias is None else bias)


def _apart(card: ReaderCard, model: nn.Module, linear: _Linear) -> tuple[ReaderCard, Network] | None:
    """Return card and network with the encoder of ``model``; None unless it gives the same with ``linear``."""
    card = card.model_copy(update={"head": HeadSpec(dropout=0)})
    network = checkpoint_network(card).eval()
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{linear.name}.")}
    if set(state) != set(network.encoder.state_dict()):
        return None
    network.encoder.load_state_dict(state)
    spec = card.input
    noise = torch.randn(2, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, embedded = model(noise), _embedded(network, noise)
        if embedded.ndim != 2 or embedded.shape[1] != linear.weight.shape[1]:
            return None
        apart = nn.functional.linear(embedded, linear.weight, linear.bias)
    same = whole.shape == apart.shape and bool(((whole - apart).abs() <= _AGREEMENT * (1 + whole.abs())).all())
    return (card, network) if same else None


def _embedded(network: Any, batch: Tensor) -> Tensor:
    """What the classifier is given, (N, D): without the card's normalisation, which noise does not need."""
    found: Tensor = network.encoder.forward_head(network.encoder.forward_features(batch), pre_logits=True)
    return found


def _folded(values: Tensor, spec: ForeignSpec, card: ReaderCard) -> Tensor:
    """Rows (outputs, …) of the labels; the positive less the negative one where a binary task has two."""
    rows = values[list(spec.columns)]
    return rows[1:] - rows[:1] if card.task == "binary" and len(rows) == 2 else rows


def _set_head(head: nn.Module, weight: Tensor, bias: Tensor, thresholds: Tensor | None) -> None:
    with torch.no_grad():
        for part in head.modules():
            if isinstance(part, nn.Linear):
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            if isinstance(part, ThresholdScores) and thresholds is not None:
                part.thresholds.copy_(thresholds)


def _chosen_thresholds(checkpoint: Checkpoint, spec: ForeignSpec, card: ReaderCard) -> Tensor | None:
    """Return the operating thresholds of the labels, where the card says that the network gives probabilities."""
    if spec.gives == "logits":
        return None
    if checkpoint.thresholds is None:
        raise BundleRefused(
            expected("gives = 'logits' for a checkpoint, whose classifier gives them", "'probabilities'", "correct it")
        )
    if len(spec.columns) != len(card.labels) or card.task == "multiclass":
        raise BundleRefused(
            expected("one threshold for each label", f"a {card.task} task", "set task and columns for single findings")
        )
    chosen = checkpoint.thresholds.flatten().float()[list(spec.columns)]
    if bool((~((chosen > 0) & (chosen < 1))).any()):
        raise BundleRefused(
            expected(
                "a threshold within (0, 1) for each label",
                "a column without one, for which the original always answers 0.5",
                "leave that class out, and name the others' columns in [output]",
            )
        )
    return chosen
