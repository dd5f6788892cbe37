"""The networks of published radiograph classifiers build, take a training step, and explain."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from tests.models.support import reader_of
from wetread.explain import Explanation, Target, explain_batch
from wetread.models.backbones import build_network
from wetread.models.card import HeadSpec, InputSpec
from wetread.models.inputs import normalise

SIZE = 64
LABELS = ("COVID-19", "pneumonia", "normal")
NETWORKS = {
    "vgg16": 134e6,  # the article's 138 M less the classifier of 1000 classes
    "resnet152v2": 58e6,
    "mobilenetv3": 4.2e6,
    "cnn": 0.7e6,
    "densenet201": 18e6,
}


@pytest.fixture(autouse=True)
def _give_memory_back() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_builds_takes_a_step_and_explains(name: str) -> None:
    torch.manual_seed(0)
    spec = InputSpec(height=SIZE, width=SIZE)
    network = build_network(name, HeadSpec(dropout=0.0), spec, len(LABELS), softmax=True)
    parameters = sum(parameter.numel() for parameter in network.encoder.parameters())
    assert parameters == pytest.approx(NETWORKS[name], rel=0.1)

    batch, targets = torch.rand(2, 1, SIZE, SIZE), torch.tensor([0, 2])
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4)
    before = {key: value.detach().clone() for key, value in network.head.named_parameters()}
    first = next(network.encoder.parameters())
    at_first = first.detach().clone()
    loss = torch.nn.functional.cross_entropy(network.train()(normalise(batch, spec)), targets)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    assert bool(loss.isfinite())
    assert all(not torch.equal(value, before[key]) for key, value in network.head.named_parameters())
    assert not torch.equal(first, at_first)  # the gradient reached the first layer

    reader = reader_of([network], LABELS, architecture=name, input=spec)
    forward = reader.forward(batch)
    results = (  # lazily: one map will do
        result
        for method in ("gradcam++", "gradcam")
        for label in LABELS
        for result in explain_batch(reader, forward, Target(label, method), [(SIZE, SIZE)] * 2)
    )
    assert any(isinstance(result, Explanation) for result in results)
