"""Probabilities against scipy, and the one forward that everything shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from tests.models.support import image_of, reader_of, small_reader
from wetread.errors import UsageError, WetreadError
from wetread.models.inputs import normalise, views_of
from wetread.models.outlier import fit_statistics
from wetread.models.predict import Forward, Reader, probabilities_of

LOGITS = np.random.default_rng(0).normal(scale=5, size=(20, 4))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.7])
def test_probabilities_are_scipys(temperature: float) -> None:
    np.testing.assert_allclose(
        probabilities_of(LOGITS, temperature, softmax=True), softmax(LOGITS / temperature, axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(
        probabilities_of(LOGITS, temperature, softmax=False), expit(LOGITS / temperature), rtol=1e-12
    )


def test_extreme_logits_neither_overflow_nor_leave_the_range() -> None:
    extreme = np.array([[1e5, -1e5], [-1e5, 1e5]])
    for as_classes in (True, False):
        found = probabilities_of(extreme, 1.0, softmax=as_classes)
        np.testing.assert_allclose(found, [[1, 0], [0, 1]], atol=1e-12)


def test_scores_that_are_not_finite_are_an_error() -> None:
    reader = small_reader()
    bad = Forward(torch.tensor([[float("nan")]]), (), torch.zeros(1, 256))
    with pytest.raises(WetreadError, match="expected finite scores, got NaN or infinity; check the weights of small"):
        reader.probabilities(bad)


@pytest.mark.parametrize("architecture", ["cnn", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_an_image_alone_and_among_eight_has_the_same_probability(architecture: str) -> None:
    reader = small_reader(architecture, 64)
    images = [image_of(90 + seed, 80, seed) for seed in range(8)]
    together = reader.probabilities(reader.forward(reader.prepare(images)))
    for index in (0, 3, 7):
        alone = reader.probabilities(reader.forward(reader.prepare([images[index]])))
        np.testing.assert_allclose(alone[0], together[index], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(together, reader.probabilities(reader.forward(reader.prepare(images))))


def test_forward_gives_logits_maps_and_embeddings_of_every_network() -> None:
    reader = small_reader("cnn", labels=("a", "b", "c"), networks=3)
    batch = torch.rand(4, 1, 32, 32)
    forward = reader.forward(batch)
    with torch.inference_mode():
        singles = [network(normalise(batch, reader.input)) for network in reader.networks]
    torch.testing.assert_close(forward.logits, torch.stack(singles).mean(0))
    assert [tuple(maps.shape) for maps in forward.features] == [(4, 256, 2, 2)] * 3
    torch.testing.assert_close(forward.embeddings, forward.features[0].mean((2, 3)))
    assert not forward.logits.requires_grad
    assert not any(network.training for network in reader.networks)


def test_views_average_zooms_about_the_centre_and_flip_nothing() -> None:
    reader = small_reader("cnn", 64)
    seen: list[torch.Tensor] = []
    run = reader.folded[0]
    original = run.features

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return original(x)

    run.features = watched  # type: ignore[method-assign]
    batch = torch.zeros(1, 1, 64, 64)
    batch[..., 32, 8] = 1  # left of the centre
    forward = reader.forward(batch, views=5)
    shown = torch.cat(seen)
    assert len(shown) == 5
    columns = []
    for view in shown:
        where = torch.nonzero(view[0] == view[0].max())
        columns.append(float(where[:, 1].float().mean()))
    assert all(column < 16 for column in columns)  # nothing was mirrored
    # Each shows less than the whole image, so that what is left of the centre moves further to the left.
    assert columns[0] > columns[2] > columns[1] > columns[3] > columns[4]
    with torch.inference_mode():
        logits = reader.networks[0](shown).mean(0, keepdim=True)
    torch.testing.assert_close(forward.logits, logits)
    torch.testing.assert_close(reader.forward(batch).logits, reader.forward(batch, views=1).logits)


@pytest.mark.parametrize("views", [0, 6, -1])
def test_impossible_views_are_refused(views: int) -> None:
    with pytest.raises(UsageError, match=f"expected 1 to 5 views, got {views}; set --views"):
        small_reader().forward(torch.rand(1, 1, 32, 32), views)


def test_a_reader_without_networks_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a reader with networks, got none"):
        Reader(small_reader().card, []).forward(torch.rand(1, 1, 32, 32))


def test_distances_need_statistics() -> None:
    reader = small_reader()
    forward = reader.forward(torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert reader.distances(forward) is None
    with_gate = reader_of(reader.networks, statistics=fit_statistics(forward.embeddings.numpy()))
    found = with_gate.distances(forward)
    assert found is not None
    assert found.shape == (40,)
    assert np.median(found) == pytest.approx(1, abs=0.5)


def test_labels_input_and_task_come_from_the_card() -> None:
    classes = small_reader(labels=("a", "b"))
    assert classes.labels == ("a", "b")
    assert classes.softmax
    assert not small_reader(labels=("a", "b"), task="multilabel").softmax
    assert small_reader(size=48).input.height == 48
    assert small_reader(size=48).prepare([image_of(100, 70)]).shape == (1, 1, 48, 48)


def test_the_card_says_how_many_views_are_averaged() -> None:
    plain = small_reader("cnn", 64)
    several = Reader(plain.card.model_copy(update={"views": 3}), plain.networks)
    batch = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(several.forward(batch).logits, plain.forward(batch, views=3).logits)
    torch.testing.assert_close(several.forward(batch, views=1).logits, plain.forward(batch).logits)
    assert not torch.allclose(several.forward(batch).logits, plain.forward(batch).logits)


def test_no_view_shows_more_than_the_image() -> None:
    views = views_of(torch.ones(1, 1, 64, 64), 5)
    assert all(float(view.min()) == pytest.approx(1.0, abs=1e-6) for view in views)
