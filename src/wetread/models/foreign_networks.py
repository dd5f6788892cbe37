"""Networks made elsewhere, as ours: ``features -> embed -> head``, whatever the outputs of the original were.

Decided here: how outputs become logits. Probabilities are turned back into logits, kept :data:`CLIP` away from 0 and 1,
so that temperature, views and decisions work on imported readers as on our own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wetread.errors import BundleRefused, UsageError, WetreadError, expected
from wetread.models.backbones import embedding_width, make_encoder
from wetread.models.card import ForeignSpec, HeadSpec, InputSpec, ReaderCard
from wetread.models.networks import ChannelScale, Encoder, Network, make_head
from wetread.models.registry import resolve_architecture
from wetread.types import Task

__all__ = [
    "CLIP",
    "GRAPH_FILE",
    "HEAD_FILE",
    "Graph",
    "GraphNetwork",
    "LabelScores",
    "ThresholdScores",
    "WholeNetwork",
    "checkpoint_network",
    "foreign_spec",
    "graph_network",
    "onnxruntime",
    "scale_of",
    "whole_model",
]

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1, so logits within 16.2: float32 has no more digits near 1."""

GRAPH_FILE, HEAD_FILE = "model.onnx", "head.onnx"
"""The graph, or where an inner output is the embedding, its part up to there and the part after it."""

_OUTSIDE = 1e-5
"""How far rounding may put a probability outside [0, 1]."""

_SUM_TOLERANCE = 1e-3
"""How far the probabilities of exclusive classes may be from adding up to 1."""

_FLOATS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def onnxruntime() -> Any:
    """Return the module that runs ONNX graphs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime as found
    except ImportError as error:
        raise UsageError(
            expected("onnxruntime, to run an ONNX graph", "no such package", "pip install 'wetread[onnx]'")
        ) from error
    return found


class LabelScores(nn.Module):
    """Turn the outputs of a network made elsewhere, (N, outputs), into logits (N, labels)."""

    def __init__(self, spec: ForeignSpec, task: Task) -> None:
        super().__init__()
        self.columns = list(spec.columns)
        self.probabilities = spec.gives == "probabilities"
        self.pair = task == "binary" and len(spec.columns) == 2
        self.exclusive = task == "multiclass" or self.pair

    def forward(self, raw: Tensor) -> Tensor:
        """Map outputs (N, outputs) to logits (N, labels).

        Raises:
            WetreadError: probabilities outside [0, 1], or of exclusive classes that do not add up to 1.
        """
        chosen = raw[:, self.columns]
        if self.probabilities:
            self._check(chosen)
            chosen = chosen.clamp(CLIP, 1 - CLIP)
            if self.exclusive and not self.pair:
                return chosen.log()
            return torch.logit(chosen[:, -1:] if self.pair else chosen)
        # Of two exclusive classes softmax gives the sigmoid of the difference.
        return chosen[:, 1:] - chosen[:, :1] if self.pair else chosen

    def _check(self, chosen: Tensor) -> None:
        low, high = float(chosen.detach().min()), float(chosen.detach().max())
        if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):
            raise WetreadError(
                expected(
                    "probabilities within [0, 1]",
                    f"{low:.4g} to {high:.4g}",
                    "set gives = 'logits' in its card and import it again",
                )
            )
        total = chosen.detach().sum(1)
        if self.exclusive and bool(((total - 1).abs() > _SUM_TOLERANCE).any()):
            raise WetreadError(
                expected(
                    "probabilities of exclusive classes that add up to 1",
                    f"{float(total[0]):.4g}",
                    "check task, columns and gives in the card, and import the reader again",
                )
            )


class ThresholdScores(nn.Module):
    """Move probabilities so that each operating threshold lies at 0.5, as torchxrayvision answers; as logits.

    Source: ``op_norm`` of torchxrayvision (Cohen et al., MIDL 2022): p / 2t below the threshold t, and
    1 - (1 - p) / 2(1 - t) from there on.
    """

    thresholds: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.full((labels,), 0.5))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (N, labels) to the logits of the moved probabilities, (N, labels)."""
        probability, threshold = logits.sigmoid(), self.thresholds
        below = probability / (2 * threshold)
        above = 1 - (1 - probability) / (2 * (1 - threshold))
        return torch.logit(torch.where(probability < threshold, below, above).clamp(CLIP, 1 - CLIP))


class Graph(nn.Module):
    """An ONNX graph with one input and one output, run by onnxruntime on the CPU.

    Nothing but the file itself is read: neither custom operators nor tensors in other files.
    """

    num_features = 0

    def __init__(self, file: Path, layout: str = "NCHW") -> None:
        super().__init__()
        self.file = file
        self._nhwc = layout == "NHWC"
        self._session = _session(file)
        given = self._session.get_inputs()[0]
        self._input, self._type = given.name, _FLOATS.get(given.type, np.float32)
        self._one = bool(given.shape) and given.shape[0] == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), or (N, D) after an embedding, to outputs, float32 (N, outputs).

        Raises:
            WetreadError: onnxruntime cannot run the graph on it.
        """
        array = x.detach().numpy()
        array = np.ascontiguousarray(np.moveaxis(array, 1, 3) if self._nhwc else array, dtype=self._type)
        parts = np.split(array, len(array)) if self._one and len(array) > 1 else [array]
        return torch.from_numpy(np.concatenate([self._run(part) for part in parts]))

    def forward_features(self, x: Tensor) -> Tensor:
        """As :meth:`forward`; there is no map to explain."""
        return cast(Tensor, self(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the embedding itself."""
        return x

    def _run(self, array: NDArray[np.floating]) -> NDArray[np.float32]:
        try:
            (found,) = self._session.run(None, {self._input: array})
        except Exception as error:  # onnxruntime's errors share no base; their text may quote values
            what = f"{type(error).__name__} for an input of shape {tuple(array.shape)}"
            raise WetreadError(
                expected(f"{self.file.name} to run", what, "export the graph again and import it")
            ) from error
        return np.asarray(found, dtype=np.float32)


def _session(file: Path) -> Any:
    """Load the graph from its bytes: a tensor in another file would have been checked by no hash."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions; the rest is about its own optimiser
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return runtime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise BundleRefused(
            expected(
                f"an ONNX graph in {file.name} that onnxruntime {runtime.__version__} can load",
                type(error).__name__,
                "export it again as one file with standard operators",
            )
        ) from error


class GraphNetwork(Network):
    """An ONNX graph as a network: scores and embeddings, no maps and no gradients."""

    differentiable = False

    @property
    def files(self) -> Mapping[str, Path]:
        """The files of the graph."""
        return {part.file.name: part.file for part in self.modules() if isinstance(part, Graph)}


class _ScoredGraph(Graph):
    """A graph whose outputs are the embedding too, as logits."""

    def __init__(self, file: Path, spec: ForeignSpec, task: Task) -> None:
        super().__init__(file, spec.layout)
        self.scores = LabelScores(spec, task)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, labels)."""
        return cast(Tensor, self.scores(super().forward(x)))


def graph_network(card: ReaderCard, folder: Path) -> GraphNetwork:
    """Build the network of an imported ONNX reader from the files of its bundle.

    Raises:
        BundleRefused: onnxruntime cannot load a file.
        UsageError: onnxruntime is not installed.
    """
    spec = foreign_spec(card)
    encoder: Graph
    if spec.features is None:
        encoder, head = _ScoredGraph(folder / GRAPH_FILE, spec, card.task), nn.Sequential()
    else:
        encoder = Graph(folder / GRAPH_FILE, spec.layout)
        head = nn.Sequential(Graph(folder / HEAD_FILE), LabelScores(spec, card.task))
    network = GraphNetwork(encoder, head, spatial=False)
    network.scale = scale_of(spec)
    return network


class WholeNetwork(Network):
    """A timm network that keeps its own classifier; its embedding is its logits."""

    def __init__(self, model: nn.Module, spec: ForeignSpec, task: Task) -> None:
        super().__init__(model, nn.Sequential())
        self.scores = LabelScores(spec, task)

    def embed(self, features: Tensor) -> Tensor:
        """Map features to logits (N, labels)."""
        return cast(Tensor, self.scores(cast(Encoder, self.encoder).forward_head(features)))


def whole_model(architecture: str, spec: InputSpec, outputs: int) -> Any:
    """Build a timm network with its own classifier and random weights.

    Raises:
        UsageError: unknown name, or an input that it does not take.
    """
    import timm

    name = resolve_architecture(architecture)
    options: dict[str, Any] = {"num_classes": outputs, "in_chans": spec.channels, "pretrained": False}
    try:
        try:
            return timm.create_model(name, img_size=(spec.height, spec.width), **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, **options)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise UsageError(
            expected(f"an input that {name} takes", f"{spec.height}x{spec.width}", f"correct [input] ({error})")
        ) from error


def checkpoint_network(card: ReaderCard) -> Network:
    """Build the network of an imported timm checkpoint, to be given the bundle's weights."""
    spec = foreign_spec(card)
    if spec.whole:
        network: Network = WholeNetwork(whole_model(card.architecture, card.input, spec.outputs), spec, card.task)
    else:
        encoder = make_encoder(card.architecture, card.input, lean=True)
        linear = make_head(HeadSpec(dropout=0), embedding_width(encoder), len(card.labels), softmax=False)
        parts = [*linear.children(), *([ThresholdScores(len(card.labels))] if spec.thresholds else [])]
        network = Network(encoder, nn.Sequential(*parts))
    network.scale = scale_of(spec)
    return network


def scale_of(spec: ForeignSpec) -> ChannelScale | None:
    """Return what standardises the channels apart; None where ``input`` says all."""
    return ChannelScale(spec.mean, spec.std) if spec.mean else None


def foreign_spec(card: ReaderCard) -> ForeignSpec:
    """Return what a card says of an import.

    Raises:
        BundleRefused: the reader was not imported.
    """
    if card.foreign is None:
        raise BundleRefused(expected("the card of an imported reader", f"that of {card.name}", "import it again"))
    return card.foreign
