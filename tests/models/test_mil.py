"""Pooling by paper and pencil, order and padding that change nothing, and the study reader around it."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.models.support import card_for
from wetread.errors import BundleRefused, UsageError
from wetread.models.backbones import make_encoder
from wetread.models.bundle import load_reader, load_study_reader, round_weights, save_reader
from wetread.models.card import HeadSpec, InputSpec, ReaderCard, StudySpec
from wetread.models.mil import (
    StudyNetwork,
    StudyPool,
    StudyReader,
    ViewHead,
    build_study_network,
    padded,
    position_numbers,
    study_network_of,
)
from wetread.models.predict import Reader

POOLINGS = get_args(StudySpec.model_fields["pooling"].annotation)
WIDTH, OUTPUTS = 256, 2


def spec_of(pooling: str = "attention", **changes: Any) -> StudySpec:
    return StudySpec.model_validate({"pooling": pooling, "hidden": 16, "attention": 8, **changes})


def network_with(spec: StudySpec, seed: int = 0, outputs: int = OUTPUTS) -> StudyNetwork:
    torch.manual_seed(seed)
    encoder = make_encoder("cnn", InputSpec(height=32, width=32))
    network = build_study_network(("cnn", spec), encoder, outputs, dropout=0.3)
    torch.nn.init.normal_(network.head.classifier.weight)  # type: ignore[union-attr, arg-type]
    return network.eval()


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def pooled(pooling: str, scores: list[float], **changes: Any) -> tuple[float, list[float]]:
    """Logit and weights of one study whose images have these logits."""
    views = torch.tensor(scores)[None, :, None]
    found = StudyPool(spec_of(pooling, **changes), 1)(views, views, torch.ones(1, len(scores), dtype=torch.bool))
    return float(found.logits[0, 0]), found.weights[0, :, 0].tolist()


def test_mean_and_maximum_are_those_of_the_logits() -> None:
    logit, weights = pooled("mean", [1.0, 2.0, 6.0])
    assert logit == pytest.approx(3.0)
    assert weights == pytest.approx([1 / 3] * 3)
    assert pooled("max", [1.0, 6.0, 2.0]) == (6.0, [0.0, 1.0, 0.0])
    assert pooled("max", [4.0, 4.0])[1] == [0.5, 0.5]  # a tie is shared, whatever the order


def test_noisy_or_is_the_chance_that_one_image_is_positive() -> None:
    chances = np.array([0.5, 0.2, 0.1])
    logit, weights = pooled("noisy-or", np.log(chances / (1 - chances)).tolist())
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(1 - 0.5 * 0.8 * 0.9)
    assert weights == pytest.approx((-np.log1p(-chances) / -np.log1p(-chances).sum()).tolist())


def test_noisy_or_stays_finite_where_a_probability_is_almost_0_or_1() -> None:
    assert pooled("noisy-or", [-40.0, -40.0])[0] == pytest.approx(-40 + np.log(2), abs=1e-3)
    assert pooled("noisy-or", [60.0, 0.0])[0] == pytest.approx(60 + np.log(2), rel=1e-5)


def test_log_sum_exp_lies_between_mean_and_maximum() -> None:
    scores = [0.0, 1.0, 3.0]
    expected = np.log(np.mean(np.exp(np.array(scores) * 4))) / 4
    assert pooled("log-sum-exp", scores, sharpness=4.0)[0] == pytest.approx(expected, rel=1e-6)
    assert pooled("log-sum-exp", scores, sharpness=1e-3)[0] == pytest.approx(4 / 3, abs=1e-2)
    assert pooled("log-sum-exp", scores, sharpness=200.0)[0] == pytest.approx(3.0, abs=1e-2)


@pytest.mark.parametrize("pooling", ["attention", "gated-attention"])
def test_attention_is_the_formula_of_the_article(pooling: str) -> None:
    """Ilse et al. 2018, eq. 8 and 9, written out for one study."""
    pool = network_with(spec_of(pooling)).pool
    hidden, views = torch.randn(1, 5, 16), torch.randn(1, 5, OUTPUTS)
    found = pool(hidden, views, torch.ones(1, 5, dtype=torch.bool))
    score = []
    for k in range(5):
        looked = torch.tanh(pool.look.weight @ hidden[0, k] + pool.look.bias)
        if pooling == "gated-attention":
            looked = looked * torch.sigmoid(pool.gate.weight @ hidden[0, k] + pool.gate.bias)
        score.append((pool.score.weight[0] @ looked).item())
    share = np.exp(score) / np.exp(score).sum()
    assert np.allclose(found.weights[0, :, 0].detach().numpy(), share, atol=1e-6)
    assert np.allclose(found.logits[0].detach().numpy(), share @ views[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_order_of_the_images_changes_nothing(pooling: str) -> None:
    network, images = network_with(spec_of(pooling)), vectors(7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = network.study(images, [7]), network.study(images[order], [7])
    assert torch.allclose(one.logits, other.logits, atol=1e-5)
    assert torch.allclose(one.weights[0, order], other.weights[0], atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_and_other_studies_of_the_batch_change_nothing(pooling: str) -> None:
    network, images = network_with(spec_of(pooling)), vectors(10)
    lengths = [2, 7, 1]
    with torch.no_grad():
        together = network.study(images, lengths)
        alone = [network.study(part, [len(part)]) for part in images.split(lengths)]
    for number, one in enumerate(alone):
        assert torch.allclose(together.logits[number], one.logits[0], atol=1e-5)
        assert torch.allclose(together.weights[number, : lengths[number]], one.weights[0], atol=1e-6)
        assert bool((together.weights[number, lengths[number] :] == 0).all())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_weights_add_up_to_1_and_a_study_of_one_image_is_that_image(pooling: str) -> None:
    network, images = network_with(spec_of(pooling)), vectors(5)
    with torch.no_grad():
        assert torch.allclose(network.study(images, [5]).weights.sum(1), torch.ones(1, OUTPUTS), atol=1e-5)
        single = network.study(images[:1], [1]).logits
        assert torch.allclose(single, network.head(images[:1]), atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_teaches_the_head(pooling: str) -> None:
    network = network_with(spec_of(pooling)).train()
    network.study(vectors(6), [2, 4]).logits.sum().backward()
    gradients = [p.grad for p in [*network.head.parameters(), *network.pool.parameters()]]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients)
    assert any(bool((grad != 0).any()) for grad in gradients if grad is not None)


def test_a_gradient_is_finite_where_padding_meets_attention() -> None:
    network = network_with(spec_of("attention"))
    images = vectors(9).requires_grad_()
    network.study(images, [1, 8]).logits.sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())


def test_empty_studies_are_refused() -> None:
    for lengths in ([], [3, 0], [2]):
        with pytest.raises(UsageError, match="expected studies of 1 image or more, 3 in all"):
            padded(vectors(3), lengths)


def test_a_feature_that_hardly_varied_is_not_blown_up_where_the_encoder_learns() -> None:
    """Spreads of 0, 1 and 2 before learning: a step of 0.1 in the first is 100 in its units, or 0.1 of the median."""
    embeddings = np.array([[5.0, -1.0, -2.0], [5.0, 1.0, 2.0]], np.float32)
    head = ViewHead(StudySpec(hidden=0), 3, 1, 0.0)
    for learning, spreads in ((False, [0.0, 1.0, 2.0]), (True, [1.0, 1.0, 2.0])):
        head.standardise(embeddings, learning=learning)
        assert head.std.tolist() == pytest.approx([spread + 1e-3 for spread in spreads])
        assert head.mean.tolist() == [5.0, 0.0, 0.0]


def test_each_view_has_its_own_layer_and_unknown_views_the_common_one() -> None:
    spec = spec_of(positions=("FRONTAL", "LATERAL"))
    assert position_numbers(["Lateral", None, "frontal", "oblique"], spec.positions).tolist() == [2, 0, 1, 0]
    network, images = network_with(spec), vectors(3)
    with torch.no_grad():
        known = network.study(images, [3], torch.tensor([1, 2, 0])).views[0]
        for number, position in enumerate((1, 2, 0)):
            assert torch.allclose(known[number], network.at(position).head(images)[number], atol=1e-5)
        assert not torch.allclose(known[0], network.head(images)[0], atol=1e-3)
        moved = network.study(images[[2, 0, 1]], [3], torch.tensor([0, 1, 2]))
        assert torch.allclose(moved.views[0], known[[2, 0, 1]], atol=1e-5)


def study_card(spec: StudySpec | None, **changes: Any) -> ReaderCard:
    return card_for(("normal", "ill"), study=spec, head=HeadSpec(dropout=0.3), **changes)


def test_a_bundle_of_studies_comes_back_as_it_was(tmp_path: Any) -> None:
    spec = spec_of("gated-attention", positions=("AP",))
    networks = [round_weights(network_with(spec, seed)) for seed in (1, 2)]
    card = save_reader(tmp_path / "mil", study_card(spec), networks)
    again = load_study_reader(tmp_path / "mil")
    assert again.card == card
    batch = torch.rand(4, 1, 32, 32)
    before = StudyReader(Reader(card, networks)).judge(again.embed(batch).vectors, ["AP", "PA", None, "ap"])
    after = again.judge(again.embed(batch).vectors, ["AP", "PA", None, "ap"])
    assert np.array_equal(before.logits, after.logits)
    assert np.array_equal(before.weights, after.weights)


def test_a_study_of_one_image_is_that_image_and_a_study_reader_is_no_reader_of_images(tmp_path: Any) -> None:
    spec = spec_of("noisy-or")
    save_reader(tmp_path / "mil", study_card(spec), [network_with(spec)])
    mil, batch = load_study_reader(tmp_path / "mil"), torch.rand(3, 1, 32, 32)
    one = mil.judge(mil.embed(batch[:1]).vectors)
    assert np.allclose(mil.reader.forward(batch[:1]).logits.numpy()[0], one.logits, atol=1e-5)
    with pytest.raises(BundleRefused, match=r"a reader of single images, got .*, which answers for whole studies"):
        load_reader(tmp_path / "mil")


def test_networks_with_one_encoder_run_it_once() -> None:
    spec = spec_of("mean", one_encoder=True)
    shared = StudyReader(Reader(study_card(spec, networks=2), [network_with(spec, 1), network_with(spec, 1)]))
    own = spec.model_copy(update={"one_encoder": False})
    each = StudyReader(Reader(study_card(own, networks=2), [network_with(own, 1), network_with(own, 1)]))
    batch = torch.rand(2, 1, 32, 32)
    assert shared.embed(batch).vectors.shape == (2, 1, WIDTH)
    assert each.embed(batch).vectors.shape == (2, 2, WIDTH)
    assert np.allclose(shared.judge(shared.embed(batch).vectors).logits, each.judge(each.embed(batch).vectors).logits)


def test_a_reader_of_images_is_no_reader_of_studies() -> None:
    with pytest.raises(BundleRefused, match="expected a reader of studies, got small, a reader of single images"):
        study_network_of(study_card(None))
