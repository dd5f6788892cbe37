"""An ONNX file from elsewhere, checked and packed into files that hold all of it.

Decided here: what graph can be a reader (one image in, one row of scores out), and that the bundle's files have no
tensors elsewhere. A graph without such tensors is copied byte for byte, so its hash is the one its makers know.
"""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from wetread.errors import BundleRefused, UsageError, expected
from wetread.models.card import InputSpec
from wetread.models.foreign_networks import GRAPH_FILE, HEAD_FILE, Graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

__all__ = ["MAX_GRAPH_BYTES", "Packed", "pack_graph"]

MAX_GRAPH_BYTES = (2 << 30) - 1
"""What a protobuf message can hold, tensors in other files included."""

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
"""Operators of the standard, and those that onnxruntime adds."""

Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class Packed:
    """What was found in a graph: order of its input's axes, number of outputs, and what made the outputs."""

    layout: Layout
    outputs: int
    last_operator: str


def pack_graph(
    source: Path,
    folder: Path,
    spec: InputSpec,
    *,
    layout: Layout | None = None,
    output: str | None = None,
    features: str | None = None,
) -> Packed:
    """Check the ONNX file ``source`` and write it to ``folder``, as one file or split at the inner output ``features``.

    ``layout`` None: as the graph's shape says. ``output``: the name of the scores where there are several outputs.

    Raises:
        BundleRefused: damaged, too large, not an image classifier, or not for images of ``spec``.
        UsageError: the packages that read ONNX are not installed.
    """
    model, alone = _load(source)
    graph = model.graph
    given = _only_input(graph)
    found = layout or _layout(given, spec)
    _refuse_other_shape(given, found, spec)
    scores = _scores_name(graph, output, features)
    maker = next((node.op_type for node in graph.node if scores in node.output), "")
    if features is not None:
        _write(_part(model, given.name, features), folder / GRAPH_FILE)
        _write(_part(model, features, scores), folder / HEAD_FILE)
    elif alone and len(graph.output) == 1:
        (folder / GRAPH_FILE).write_bytes(source.read_bytes())
    else:
        _write(_part(model, given.name, scores), folder / GRAPH_FILE)
    return Packed(found, _count(folder, spec, found, features), maker)


def _load(source: Path) -> tuple[ModelProto, bool]:
    """Return the graph with all its tensors, and whether they were all in the one file."""
    onnx = _onnx()
    if source.stat().st_size > MAX_GRAPH_BYTES:
        raise _too_large(source.stat().st_size)
    try:
        model = onnx.load(str(source), load_external_data=False)
        _refuse_own_operators(model)
        elsewhere = _files_beside(model)
        for name in elsewhere:
            _refuse_place(source, name)
        total = source.stat().st_size + sum((source.parent / name).stat().st_size for name in elsewhere)
        if total > MAX_GRAPH_BYTES:
            raise _too_large(total)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown key of an outside tensor is no reason to guess
            onnx.load_external_data_for_model(model, str(source.parent))
        onnx.external_data_helper.convert_model_from_external_data(model)
        onnx.checker.check_model(model)
    except BundleRefused:
        raise
    except Exception as error:  # the errors of onnx and protobuf share no base
        raise BundleRefused(
            expected(f"a whole ONNX file in {source.name}", type(error).__name__, "copy or export it again")
        ) from error
    return model, not elsewhere


def _onnx() -> Any:
    try:
        import onnx
        import onnx.external_data_helper
    except ImportError as error:
        raise UsageError(
            expected("the package onnx, to check an ONNX file", "no such package", "pip install 'wetread[onnx]'")
        ) from error
    return onnx


def _files_beside(model: ModelProto) -> list[str]:
    """Names of the other files that hold weights of the graph."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    return sorted({ExternalDataInfo(one).location for one in model.graph.initializer if uses_external_data(one)})


def _refuse_place(source: Path, name: str) -> None:
    if Path(name).name != name or not (source.parent / name).is_file():
        raise BundleRefused(
            expected(
                f"the tensors of {source.name} in it or in a file beside it",
                f"{Path(name).name!r}, which is not there",
                "copy the files together, or export the graph as one file",
            )
        )


def _too_large(size: int) -> BundleRefused:
    return BundleRefused(expected("an ONNX graph of at most 2 GiB", f"{size / (1 << 30):.1f} GiB", "import a smaller"))


def _refuse_own_operators(model: ModelProto) -> None:
    """No library of operators is ever loaded: what onnxruntime does not have cannot run."""
    known = {*_DOMAINS, *(function.domain for function in model.functions)}
    own = [f"{node.op_type} of {node.domain}" for node in model.graph.node if node.domain not in known]
    if own:
        raise BundleRefused(expected("standard operators", own[0], "export the graph without operators of one's own"))


def _only_input(graph: GraphProto) -> Any:
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BundleRefused(expected("a graph with one input, the image", names, "export the image classifier alone"))
    return inputs[0]


def _shape(value: Any) -> list[int | None]:
    """The axes of a graph's input; None for one of any length."""
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]


def _layout(given: Any, spec: InputSpec) -> Layout:
    shape = _shape(given)
    last = len(shape) == 4 and shape[3] == spec.channels and shape[1] not in (spec.channels, None)
    return "NHWC" if last else "NCHW"


def _refuse_other_shape(given: Any, layout: Layout, spec: InputSpec) -> None:
    shape = _shape(given)
    axes = {"NCHW": (spec.channels, spec.height, spec.width), "NHWC": (spec.height, spec.width, spec.channels)}[layout]
    if len(shape) != 4:
        raise BundleRefused(
            expected(
                "a graph whose input has 4 axes (images, channels, rows, columns)",
                f"{len(shape)} for {given.name}",
                "export it for a batch of images",
            )
        )
    if shape[0] not in (None, 1):
        raise BundleRefused(
            expected("a batch of any size or of 1", f"exactly {shape[0]}", "export the graph with a dynamic batch axis")
        )
    if any(has is not None and has != wanted for has, wanted in zip(shape[1:], axes, strict=True)):
        takes = " x ".join("any" if has is None else str(has) for has in shape[1:])
        wants = " x ".join(str(wanted) for wanted in axes)
        raise BundleRefused(expected(f"an input of {takes}, as the graph takes", wants, "correct [input] in the card"))
    kinds = {1: "float32", 10: "float16", 11: "float64"}  # TensorProto.DataType
    if given.type.tensor_type.elem_type not in kinds:
        raise BundleRefused(
            expected("an input of floating point numbers", "another type", "export the graph without its decoder")
        )


def _scores_name(graph: GraphProto, output: str | None, features: str | None) -> str:
    names = [str(value.name) for value in graph.output]
    if output is None:
        others = [name for name in names if name != features]
        if len(others) == 1:
            return others[0]
        raise BundleRefused(
            expected("the name of the scores in [output]", f"outputs {', '.join(names)}", "set name to one of them")
        )
    if output not in names:
        raise _unknown_name(output, names, "an output of the graph")
    return output


def _unknown_name(name: str, known: list[str], what: str) -> BundleRefused:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[-3:]
    return BundleRefused(expected(what, repr(name), f"try {', '.join(near)}"))


def _part(model: ModelProto, start: str, end: str) -> ModelProto:
    """Return the part of the graph from the tensor ``start`` to the tensor ``end``."""
    from onnx import TensorProto, helper, shape_inference
    from onnx.utils import Extractor

    known = [name for node in model.graph.node for name in node.output if name]
    for name in (start, end):
        if name not in known and name not in {value.name for value in model.graph.input}:
            raise _unknown_name(name, known, "an inner output of the graph for features")
    inferred = shape_inference.infer_shapes(model)
    named = {value.name for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)}
    for name in {start, end} - named:
        inferred.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    try:
        part: ModelProto = Extractor(inferred).extract_model([start], [end])
    except (ValueError, AssertionError) as error:
        raise BundleRefused(
            expected("a graph that can be split", type(error).__name__, "export it with one output")
        ) from error
    held = {name for node in part.graph.node for name in node.output} | {t.name for t in part.graph.initializer}
    loose = [name for node in part.graph.node for name in node.input if name and name not in held | {start}]
    if loose:
        raise BundleRefused(
            expected("features that every score passes through", f"a way around {start}", "name a later inner output")
        )
    return part


def _write(model: ModelProto, file: Path) -> None:
    file.write_bytes(model.SerializeToString(deterministic=True))


def _count(folder: Path, spec: InputSpec, layout: Layout, features: str | None) -> int:
    """Run the packed graph on a black image and return the number of its outputs."""
    with torch.inference_mode():
        found = Graph(folder / GRAPH_FILE, layout)(torch.zeros(1, spec.channels, spec.height, spec.width))
        if features is not None:
            _refuse_rows(found, f"features {features} with one row of numbers for an image")
            found = Graph(folder / HEAD_FILE)(found)
    _refuse_rows(found, "one row of scores for an image")
    return int(found.shape[1])


def _refuse_rows(found: torch.Tensor, what: str) -> None:
    if found.ndim != 2 or len(found) != 1:
        shape = " x ".join(map(str, found.shape)) or "one number"
        raise BundleRefused(expected(what, shape, "name another output of the graph"))
