"""From the outputs of others to logits: paper-and-pencil values and round trips."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.foreign_support import Ramp
from tests.models.support import card_for, small_reader
from wetread.errors import BundleRefused, UsageError, WetreadError
from wetread.models.bundle import load_reader, save_reader
from wetread.models.card import ForeignSpec, InputSpec
from wetread.models.foreign_networks import (
    CLIP,
    Graph,
    LabelScores,
    ThresholdScores,
    foreign_spec,
    graph_network,
)


def spec(gives: Any = "logits", columns: tuple[int, ...] = (0,), outputs: int = 3, **changes: Any) -> ForeignSpec:
    fields = {"kind": "onnx", "file": "net.onnx", "sha256": "0" * 64, "gives": gives}
    return ForeignSpec.model_validate(fields | {"outputs": outputs, "columns": columns} | changes)


def test_logits_of_two_exclusive_classes_are_their_difference() -> None:
    scores = LabelScores(spec(columns=(2, 0)), "binary")  # column 2 is the negative class
    assert scores(torch.tensor([[1.0, 9.0, 4.0]])).tolist() == [[-3.0]]


def test_probabilities_come_back_from_their_logits() -> None:
    given = torch.tensor([[0.1, 0.7, 0.2]])
    sigmoids = LabelScores(spec("probabilities", (0, 1, 2)), "multilabel")(given)
    assert torch.allclose(sigmoids.sigmoid(), given)
    softmax = LabelScores(spec("probabilities", (0, 1, 2)), "multiclass")(given)
    assert torch.allclose(softmax.softmax(1), given)
    pair = LabelScores(spec("probabilities", (0, 1), outputs=2), "binary")(torch.tensor([[0.2, 0.8]]))
    assert torch.allclose(pair.sigmoid(), torch.tensor([[0.8]]))


def test_certainty_is_kept_finite() -> None:
    found = LabelScores(spec("probabilities", (0, 1)), "multilabel")(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert torch.allclose(found, torch.tensor([[-1.0, 1.0]], dtype=torch.float64) * np.log((1 - CLIP) / CLIP))


@pytest.mark.parametrize(
    ("task", "given", "complaint"),
    [
        ("multilabel", [0.2, 1.3], r"probabilities within \[0, 1\], got 0.2 to 1.3; set gives = 'logits'"),
        ("multilabel", [0.2, float("nan")], r"probabilities within \[0, 1\], got nan"),
        ("multiclass", [0.2, 0.3], r"exclusive classes that add up to 1, got 0.5; check task, columns and gives"),
        ("binary", [0.9, 0.8], r"exclusive classes that add up to 1, got 1.7"),
    ],
)
def test_impossible_probabilities(task: Any, given: list[float], complaint: str) -> None:
    scores = LabelScores(spec("probabilities", (0, 1), outputs=2), task)
    with pytest.raises(WetreadError, match=complaint):
        scores(torch.tensor([given]))


def test_thresholds_lie_at_one_half() -> None:
    scores = ThresholdScores(3)
    scores.thresholds.copy_(torch.tensor([0.2, 0.2, 0.2]))
    moved = scores(torch.logit(torch.tensor([[0.1, 0.2, 0.6]]))).sigmoid()
    # 0.1 / 0.4, the threshold itself, and 1 - 0.4 / 1.6
    assert torch.allclose(moved, torch.tensor([[0.25, 0.5, 0.75]]), atol=1e-6)


def test_inner_features_are_the_embedding_and_views_and_storing_work(tmp_path: Path) -> None:
    from wetread.models.foreign_onnx import pack_graph

    ramp, size = Ramp(), InputSpec(height=32, width=32, standardise="fixed", mean=0, std=1)
    pack_graph(ramp.save(tmp_path / "net.onnx"), tmp_path, size, features="embedding")
    foreign = spec(outputs=1, features="embedding", mean=(0.4, 0.5, 0.6), std=(1.0, 2.0, 4.0))
    card = card_for(input=size, architecture="ONNX graph", foreign=foreign)
    save_reader(tmp_path / "stored", card, [graph_network(card, tmp_path)])
    reader = load_reader(tmp_path / "stored")
    assert set(reader.card.weights) == {"model.onnx", "head.onnx"}
    batch = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x = (batch.numpy() - np.reshape(foreign.mean, (1, 3, 1, 1))) / np.reshape(foreign.std, (1, 3, 1, 1))
    forward = reader.forward(batch)
    np.testing.assert_allclose(forward.logits.numpy(), ramp(x), atol=1e-5)
    np.testing.assert_allclose(forward.embeddings.numpy(), (x * ramp.ramp).mean((2, 3)), atol=1e-5)
    assert reader.forward(batch, views=3).logits.shape == (4, 1)
    assert not torch.equal(reader.forward(batch, views=3).logits, forward.logits)

    again = save_reader(tmp_path / "stored", reader.card, reader.networks)  # in its own place
    assert again.weights == reader.card.weights
    assert torch.equal(load_reader(tmp_path / "stored").forward(batch).logits, forward.logits)


def test_our_own_readers_give_gradients_and_were_not_imported() -> None:
    reader = small_reader()
    assert reader.differentiable
    reader.require_gradients("gradcam")
    assert reader.networks[0].files == {}
    with pytest.raises(BundleRefused, match=r"expected the card of an imported reader, got that of small"):
        foreign_spec(reader.card)


def test_without_onnxruntime_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Ramp().save(tmp_path / "net.onnx")
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == "onnxruntime":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(
        UsageError, match=r"expected onnxruntime, to run an ONNX graph, .*pip install 'wetread\[onnx\]'"
    ):
        Graph(file)
