"""Encoders of our own and heads, against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from wetread.models.card import HeadSpec
from wetread.models.networks import KnnHead, Network, PixelEncoder, SmallCnn, make_head

PRIOR = 0.5


def knn_head(references: torch.Tensor, targets: torch.Tensor, neighbours: int, *, softmax: bool = False) -> KnnHead:
    spec = HeadSpec(kind="knn", neighbours=neighbours, references=len(references))
    head = make_head(spec, references.shape[1], targets.shape[1], softmax)
    assert isinstance(head, KnnHead)
    head.references.copy_(torch.nn.functional.normalize(references, dim=1))
    head.targets.copy_(targets)
    return head.eval()


def similarities(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - distances, 0)


@pytest.mark.parametrize(("classes", "neighbours"), [(2, 5), (3, 7), (4, 1)])
def test_neighbour_votes_are_those_of_scikit_learn(classes: int, neighbours: int) -> None:
    rng = np.random.default_rng(classes)
    references, queries = rng.normal(size=(60, 8)), rng.normal(size=(20, 8))
    labels = np.arange(60) % classes
    model = KNeighborsClassifier(neighbours, metric="cosine", weights=similarities).fit(references, labels)
    weight = similarities(model.kneighbors(queries)[0]).sum(1, keepdims=True)
    # the head adds half a vote for and half a vote against every class
    share = (model.predict_proba(queries) * weight + PRIOR) / (weight + 2 * PRIOR)
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    given = torch.from_numpy(queries).float()
    tensors = torch.from_numpy(references).float()
    sigmoid = torch.sigmoid(knn_head(tensors, targets, neighbours)(given))
    np.testing.assert_allclose(sigmoid.numpy(), share, rtol=1e-4)
    softmax = torch.softmax(knn_head(tensors, targets, neighbours, softmax=True)(given), dim=1)
    np.testing.assert_allclose(softmax.numpy(), share / share.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(softmax.numpy().argmax(1), model.predict_proba(queries).argmax(1))


def test_unknown_labels_do_not_vote() -> None:
    references = torch.eye(3)
    targets = torch.tensor([[1.0, float("nan")], [1.0, 0.0], [0.0, 1.0]])
    logits = knn_head(references, targets, 2)(torch.tensor([[3.0, 3.0, 0.0]]))
    # neighbours 0 and 1, each of similarity 1 / sqrt 2; the second label is known of one of them
    weight = 2**-0.5
    first, second = (2 * weight + 0.5) / (2 * weight + 1), 0.5 / (weight + 1)
    np.testing.assert_allclose(torch.sigmoid(logits)[0], [first, second], rtol=1e-5)


def test_more_neighbours_than_cases_take_all_cases() -> None:
    head = knn_head(torch.eye(2), torch.tensor([[1.0], [0.0]]), 15)
    assert torch.sigmoid(head(torch.tensor([[1.0, 1.0]]))).item() == pytest.approx(0.5)


def test_opposite_cases_do_not_count_against_their_label() -> None:
    head = knn_head(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0]]), 1)
    assert torch.sigmoid(head(torch.tensor([[-1.0, 0.0]]))).item() == pytest.approx(0.5)


def test_heads_have_the_parts_of_their_kind() -> None:
    linear = make_head(HeadSpec(dropout=0.3), 16, 2, softmax=False)
    assert [type(part).__name__ for part in linear.children()] == ["Dropout", "Linear"]
    mlp = make_head(HeadSpec(kind="mlp", hidden=8), 16, 2, softmax=False)
    kinds = [type(part).__name__ for part in mlp.children()]
    assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    for head in (linear, mlp):
        assert head.eval()(torch.randn(3, 16)).shape == (3, 2)


def test_a_fresh_linear_head_starts_near_even_odds() -> None:
    torch.manual_seed(0)
    head = make_head(HeadSpec(), 1280, 1, softmax=False).eval()
    assert torch.sigmoid(head(torch.randn(200, 1280))).std() < 0.1


def test_the_small_cnn_keeps_its_last_map_at_a_sixteenth() -> None:
    encoder = SmallCnn(1).eval()
    maps = encoder.forward_features(torch.rand(2, 1, 96, 64))
    assert maps.shape == (2, 256, 6, 4)
    np.testing.assert_allclose(encoder.forward_head(maps).detach(), maps.detach().numpy().mean((2, 3)), rtol=1e-5)
    assert 0.5e6 < sum(p.numel() for p in encoder.parameters()) < 1.5e6


def test_the_pixel_encoder_averages_blocks() -> None:
    image = torch.rand(2, 3, 64, 64)
    grey = image.mean(1).reshape(2, 32, 2, 32, 2).mean((2, 4)).flatten(1)
    features = PixelEncoder().forward_features(image)
    torch.testing.assert_close(features, grey)
    assert PixelEncoder().forward_head(features) is features


def test_a_network_is_features_then_embedding_then_head() -> None:
    network = Network(SmallCnn(1), make_head(HeadSpec(), 256, 3, softmax=True)).eval()
    batch = torch.rand(2, 1, 32, 32)
    embedded = network.embed(network.features(batch))
    assert embedded.shape == (2, 256)
    torch.testing.assert_close(network(batch), network.head(embedded))
