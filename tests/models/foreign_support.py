"""ONNX graphs that paper and pencil can follow, and cards for them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PilImage
from torch import nn

__all__ = ["CARD", "Ramp", "card_text", "export", "save_card", "small_cnn", "write_image"]

End = Literal["Sigmoid", "Softmax"]


@dataclass(frozen=True)
class Ramp:
    """A graph whose outputs are linear in the mean of each channel under a ramp: ``mean(x * ramp) @ weight + bias``."""

    outputs: int = 1
    channels: int = 3
    size: int = 32
    end: End | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    batch: int | str = "n"

    @property
    def ramp(self) -> NDArray[np.float32]:
        return np.linspace(0, 4, self.size**2, dtype=np.float32).reshape(self.size, self.size)

    @property
    def weight(self) -> NDArray[np.float32]:
        shape = (self.channels, self.outputs)
        return np.random.default_rng(7).normal(0, 1, shape).astype(np.float32)

    @property
    def bias(self) -> NDArray[np.float32]:
        return np.linspace(-0.3, 0.2, self.outputs, dtype=np.float32)

    def logits(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """What the graph gives before its end, for (N, C, H, W)."""
        return np.asarray((x.astype(np.float64) * self.ramp).mean((2, 3)) @ self.weight + self.bias)

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """What the graph gives, for (N, C, H, W)."""
        z = self.logits(x)
        if self.end == "Sigmoid":
            return np.asarray(1 / (1 + np.exp(-z)))
        return np.asarray(np.exp(z) / np.exp(z).sum(1, keepdims=True)) if self.end else z

    def model(self, **changes: Any) -> Any:
        """The graph as ONNX; ``changes``: shape of the input, further outputs, a domain of one node."""
        axes = (self.channels, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, self.channels)
        first = [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])]
        turned = self.layout == "NHWC"
        last = "raw" if self.end else "scores"
        nodes = [
            *(first if turned else []),
            helper.make_node("Mul", ["turned" if turned else "image", "ramp"], ["weighed"]),
            helper.make_node("GlobalAveragePool", ["weighed"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"]),
            helper.make_node("Gemm", ["embedding", "weight", "bias"], [last]),
            *([helper.make_node(self.end, [last], ["scores"])] if self.end else []),
        ]
        stored = {"ramp": self.ramp[None, None], "weight": self.weight, "bias": self.bias}
        outputs = {"scores": [None, self.outputs], **changes.get("outputs", {})}
        graph = helper.make_graph(
            [*nodes, *changes.get("nodes", [])],
            "ramp",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, changes.get("shape", [self.batch, *axes]))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(value, name) for name, value in stored.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def save(self, path: Path, **changes: Any) -> Path:
        onnx.save(self.model(**changes), str(path))
        return path


CARD: dict[str, dict[str, Any]] = {
    "": {"name": "elsewhere", "task": "binary", "classes": ["normal", "finding"]},
    "input": {
        "height": 32,
        "width": 32,
        "fit": "pad",
        "channels": 3,
        "normalisation": "fixed",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "output": {"gives": "logits"},
}


def card_text(*references: dict[str, Any], **changes: dict[str, Any]) -> str:
    """The TOML of :data:`CARD` with ``changes`` for each table; None takes a key away, ``top`` is the first table."""
    lines: list[str] = []
    for table, keys in CARD.items():
        lines += [f"[{table}]"] if table else []
        lines += _lines({**keys, **changes.get(table or "top", {})})
    for table in set(changes) - {*CARD, "top"}:
        lines += [f"[{table}]", *_lines(changes[table])]
    for reference in references:
        lines += ["[[reference]]", *_lines(reference)]
    return "\n".join(lines) + "\n"


def _lines(keys: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in keys.items() if value is not None]


def _toml(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return f"'{value}'" if isinstance(value, str | Path) else repr(value)


def save_card(folder: Path, *references: dict[str, Any], **changes: dict[str, Any]) -> Path:
    path = folder / "card.toml"
    path.write_text(card_text(*references, **changes), encoding="utf-8")
    return path


def write_image(path: Path, rows: int = 32, columns: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Write 8-bit noise as PNG; return what another framework would make of it: float (rows, columns) in [0, 1]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    PilImage.fromarray(pixels).save(path)
    return np.asarray(pixels / 255)


def small_cnn(outputs: int = 2, channels: int = 3) -> nn.Sequential:
    """A network of torch that is none of ours."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(channels, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, outputs)).eval()


def export(network: nn.Module, path: Path, channels: int = 3, size: int = 32) -> Path:
    """Write the network as ONNX by torch's own exporter, with a batch of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter needs onnxscript
        torch.onnx.export(
            network,
            (torch.zeros(1, channels, size, size),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        )
    return path
