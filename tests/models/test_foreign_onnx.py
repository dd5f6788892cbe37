"""ONNX files on their way into a bundle: what is packed runs alone, and a graph that is no reader is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from tests.models.foreign_support import Ramp
from wetread.errors import BundleRefused, WetreadError
from wetread.models import foreign_onnx
from wetread.models.card import InputSpec
from wetread.models.foreign_networks import Graph
from wetread.models.foreign_onnx import pack_graph

SPEC = InputSpec(height=32, width=32, channels=3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


def noise(count: int = 3, channels: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(0, 1, (count, channels, 32, 32)).astype(np.float32)


def run(graph: Graph, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(graph(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("ramp", [Ramp(outputs=2), Ramp(outputs=2, batch=1), Ramp(outputs=2, layout="NHWC")])
def test_a_graph_runs_as_it_was_written(tmp_path: Path, bundle: Path, ramp: Ramp) -> None:
    packed = pack_graph(ramp.save(tmp_path / "net.onnx"), bundle, SPEC)
    assert (packed.outputs, packed.layout, packed.last_operator) == (2, ramp.layout, "Gemm")
    assert (bundle / "model.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    np.testing.assert_allclose(run(Graph(bundle / "model.onnx", packed.layout), noise()), ramp(noise()), atol=1e-5)


def test_a_named_inner_output_is_the_embedding_and_the_rest_follows_from_it(tmp_path: Path, bundle: Path) -> None:
    ramp = Ramp(outputs=2, end="Softmax")
    packed = pack_graph(ramp.save(tmp_path / "net.onnx"), bundle, SPEC, features="embedding")
    assert (packed.outputs, packed.last_operator) == (2, "Softmax")
    embedded = run(Graph(bundle / "model.onnx"), noise())
    np.testing.assert_allclose(embedded, (noise() * ramp.ramp).mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(run(Graph(bundle / "head.onnx"), embedded), ramp(noise()), atol=1e-5)


def test_features_that_a_score_does_not_pass_through_are_refused(tmp_path: Path, bundle: Path) -> None:
    around = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Add", ["scores", "column"], ["total"]),
    ]
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[1])
    file = Ramp().save(tmp_path / "net.onnx", nodes=[axis, *around], outputs={"total": [None, 1]})
    with pytest.raises(BundleRefused, match=r"features that every score passes through, got a way around embedding"):
        pack_graph(file, bundle, SPEC, output="total", features="embedding")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ({}, r"the name of the scores in \[output\], got outputs scores, half; set name to one of them"),
        ({"output": "score"}, r"expected an output of the graph, got 'score'; try scores"),
        (
            {"output": "scores", "features": "embeding"},
            r"an inner output of the graph for features, got 'embeding'; try embedding",
        ),
        ({"output": "scores", "features": "pooled"}, r"one row of numbers for an image, got 1 x 3 x 1 x 1"),
    ],
)
def test_names_of_outputs(tmp_path: Path, bundle: Path, names: dict[str, Any], complaint: str) -> None:
    half = helper.make_node("Relu", ["scores"], ["half"])
    file = Ramp().save(tmp_path / "net.onnx", nodes=[half], outputs={"half": [None, 1]})
    with pytest.raises(BundleRefused, match=complaint):
        pack_graph(file, bundle, SPEC, **names)


def test_of_several_outputs_the_named_one_is_kept_alone(tmp_path: Path, bundle: Path) -> None:
    half = helper.make_node("Relu", ["scores"], ["half"])
    file = Ramp().save(tmp_path / "net.onnx", nodes=[half], outputs={"half": [None, 1]})
    pack_graph(file, bundle, SPEC, output="half")
    np.testing.assert_allclose(run(Graph(bundle / "model.onnx"), noise()), Ramp()(noise()).clip(0), atol=1e-5)


def _outside(folder: Path, location: str = "net.data") -> Path:
    model = Ramp().model()
    onnx.save(model, str(folder / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    if location != "net.data":
        changed = onnx.load(str(folder / "net.onnx"), load_external_data=False)
        for tensor in changed.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = location
        (folder / "net.onnx").write_bytes(changed.SerializeToString())
    return folder / "net.onnx"


def test_weights_in_a_file_beside_it_are_packed_into_the_graph(tmp_path: Path, bundle: Path) -> None:
    pack_graph(_outside(tmp_path), bundle, SPEC)
    assert [file.name for file in bundle.iterdir()] == ["model.onnx"]
    np.testing.assert_allclose(run(Graph(bundle / "model.onnx"), noise()), Ramp()(noise()), atol=1e-5)


@pytest.mark.parametrize("location", ["gone.data", "../net.data"])
def test_weights_elsewhere_are_refused(tmp_path: Path, bundle: Path, location: str) -> None:
    with pytest.raises(BundleRefused, match=r"expected the tensors of net.onnx in it or in a file beside it"):
        pack_graph(_outside(tmp_path, location), bundle, SPEC)


def test_a_stored_graph_reads_no_other_file(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match=r"expected an ONNX graph in net.onnx that onnxruntime [\d.]+ can load"):
        Graph(_outside(tmp_path))


def test_too_large(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _outside(tmp_path)
    monkeypatch.setattr(foreign_onnx, "MAX_GRAPH_BYTES", file.stat().st_size + 10)  # the weights beside it count too
    with pytest.raises(BundleRefused, match=r"expected an ONNX graph of at most 2 GiB"):
        pack_graph(file, bundle, SPEC)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shape": ["n", 3, 32]}, r"input has 4 axes \(images, channels, rows, columns\), got 3 for image"),
        ({"outputs": {"weighed": ["n", 3, 32, 32]}}, r"one row of scores for an image, got 1 x 3 x 32 x 32"),
        (
            {"nodes": [helper.make_node("Twist", ["scores"], ["own"], domain="my.shop")], "outputs": {"own": [1, 1]}},
            r"standard operators, got Twist of my.shop",
        ),
    ],
)
def test_a_graph_that_is_no_reader_is_refused(
    tmp_path: Path, bundle: Path, changes: dict[str, Any], complaint: str
) -> None:
    file = Ramp().save(tmp_path / "net.onnx", **changes)
    name = next(iter(changes.get("outputs", {"scores": 0})))
    with pytest.raises(BundleRefused, match=complaint):
        pack_graph(file, bundle, SPEC, output=name)


def test_two_inputs_are_no_image(tmp_path: Path, bundle: Path) -> None:
    model = Ramp().model()
    model.graph.input.append(helper.make_tensor_value_info("age", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises(BundleRefused, match=r"expected a graph with one input, the image, got image, age"):
        pack_graph(tmp_path / "net.onnx", bundle, SPEC)


def test_a_graph_that_fails_says_on_what(tmp_path: Path) -> None:
    graph = Graph(Ramp().save(tmp_path / "net.onnx"))
    with pytest.raises(WetreadError, match=r"expected net.onnx to run, got \w+ for an input of shape \(1, 3, 8, 8\)"):
        run(graph, np.zeros((1, 3, 8, 8), np.float32))
