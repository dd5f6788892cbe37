"""LIME on scores whose truth is known: sums over pixels, noise, scores that hiding raises."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from tests.explain.test_superpixels import film_like
from tests.explain.toys import Formula
from tests.models.support import reader_of
from wetread.errors import ExplanationFailed
from wetread.explain.base import Options, RawMap
from wetread.explain.lime import (
    GROUPS,
    Sampling,
    draw_masks,
    explained,
    fit_surrogate,
    jaccard,
    jaccard_by_chance,
    leading,
    lime,
)
from wetread.explain.score import Score
from wetread.explain.superpixels import divide
from wetread.models.card import InputSpec
from wetread.models.networks import Network

SIDE = 48
SPEC = InputSpec(height=SIDE, width=SIDE, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)


class Pixels(nn.Module):
    """Encoder that embeds an image as its pixels."""

    num_features = head_hidden_size = SIDE * SIDE

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.flatten(1)


def score_of(function: Callable[[Tensor], Tensor]) -> Score:
    """The log-odds are any function (N, H, W) -> (N,) of the pixels."""
    head = Formula(lambda x: function(x.view(-1, SIDE, SIDE))[:, None])
    return Score(reader_of([Network(Pixels(), head)], input=SPEC), "finding")


def a_film() -> NDArray[np.float32]:
    """A body of 48 x 42 pixels beside a black frame."""
    return np.asarray(np.pad(film_like(SIDE, SIDE - 6), ((0, 0), (6, 0))), dtype=np.float32)


def batch_of(*films: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.stack(films))[:, None]


def explain_one(score: Score, options: Options, film: NDArray[np.float32] | None = None) -> RawMap:
    (found,) = lime(score, batch_of(a_film() if film is None else film), options)
    assert isinstance(found, RawMap), found
    return found


def refused(score: Score, options: Options) -> ExplanationFailed:
    (found,) = lime(score, batch_of(a_film()), options)
    assert isinstance(found, ExplanationFailed), found
    return found


def refusal(score: Score, options: Options) -> str:
    return str(refused(score, options))


def pixel_weights() -> NDArray[np.float32]:
    """Evidence for in one half, against in the other, all different."""
    raw = np.random.default_rng(1).normal(size=(SIDE, SIDE)) + np.linspace(-0.6, 1.2, SIDE)
    return (raw / 20).astype(np.float32)


def added_up(x: Tensor) -> Tensor:
    return (x * torch.from_numpy(pixel_weights())).sum((1, 2))


def noise(x: Tensor) -> Tensor:
    """A score that has nothing to do with any sum, between 9 and 11; 0 for a film without a body."""
    return (10 + torch.sin(1e4 * x.sum((1, 2)))) * (x.mean((1, 2)) > 0.1)


def test_a_sum_over_pixels_is_found_exactly() -> None:
    film = a_film()
    pieces = divide(film)
    truth = np.array([(film * pixel_weights())[pieces.labels == i].sum() for i in range(pieces.count)])
    found = explain_one(score_of(added_up), Options(fill="black"))
    weights = np.bincount(pieces.labels[pieces.body], found.map[pieces.body], pieces.count)
    np.testing.assert_allclose(weights, truth, atol=1e-3)
    assert found.map.sum() == pytest.approx(truth.sum(), abs=1e-2)
    assert found.details["drop"] == pytest.approx(truth.sum(), abs=1e-3)
    assert found.details["r2"] == pytest.approx(1, abs=1e-6)
    assert found.details["jaccard"] == found.details["jaccard_corrected"] == 1
    assert found.details["segments"] == pieces.count
    assert found.map.dtype == np.float32
    assert "black" in found.baseline


def test_sampling_ends_as_soon_as_both_halves_agree_twice_and_every_pass_is_counted() -> None:
    found = explain_one(score_of(added_up), Options(fill="black"))
    segments = found.details["segments"]
    assert 6 * segments <= found.details["samples"] <= 6 * segments + 20
    assert found.passes == found.details["samples"] + 2


def test_what_lies_outside_the_body_is_never_changed() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return added_up(x)

    image = np.maximum(a_film(), 0.01)
    explain_one(score_of(spy), Options(fill="black", samples=120, accept_weak=True), image)
    shown, film = torch.cat(seen), torch.from_numpy(image)
    assert len(shown) > 120
    assert torch.equal(shown[:, :, :6], film[None, :, :6].expand(len(shown), -1, -1))
    changed = (shown != film).float().mean((1, 2))
    assert changed[2:].mean() == pytest.approx(0.2 * 42 / 48, abs=0.02)  # a fifth of the body


def test_refused_where_hiding_raises_the_score() -> None:
    message = refusal(score_of(lambda x: 3 - x.sum((1, 2)) / 100), Options())
    assert message.startswith("expected a fill that lowers the log-odds of 'finding'")
    assert "by 0.69 or more, got blur " in message
    assert all(name in message for name in ("mean", "black 3.00"))
    assert "read the score as" in message


def test_the_first_fill_that_lowers_the_score_is_taken_and_the_others_are_named() -> None:
    """Texture speaks against the finding and brightness for it: only black takes more than it gives."""

    def smooth_and_bright(x: Tensor) -> Tensor:
        return 20 * x.mean((1, 2)) - 200 * x[:, :, 6:].diff(dim=2).abs().mean((1, 2))

    found = explain_one(score_of(smooth_and_bright), Options(samples=150, accept_weak=True))
    assert found.baseline.startswith("black")
    assert any("blur or mean" in limit for limit in found.limits)
    assert "got blur " in refusal(score_of(smooth_and_bright), Options(fill="blur"))


def test_fewer_samples_than_superpixels_are_refused() -> None:
    segments = divide(a_film()).count
    message = refusal(score_of(added_up), Options(samples=segments, fill="black"))
    assert message.startswith(f"expected at least {int(np.ceil(1.1 * segments))} samples for {segments} superpixels")
    assert f"got {segments}; ask for more" in message


def test_a_score_that_does_not_add_up_is_refused_after_the_first_round() -> None:
    found = refused(score_of(noise), Options(fill="black"))
    assert str(found).startswith("expected a line that explains at least 85% of what hiding superpixels does, got ")
    assert "the score does not add up over superpixels; take a method that fits no line" in str(found)
    assert found.details["r2"] < 0.1
    assert found.details["samples"] <= 3 * found.details["segments"] + 20


def test_a_weak_map_that_is_accepted_says_so_and_stops_at_the_cap() -> None:
    found = explain_one(score_of(noise), Options(fill="black", accept_weak=True))
    assert found.details["r2"] < 0.1
    assert 29 * found.details["segments"] <= found.details["samples"] <= 30 * found.details["segments"] + 100
    assert any("may mislead" in limit for limit in found.limits)
    assert any("do not rely on their order" in limit for limit in found.limits)


def test_a_line_that_fits_but_names_other_leaders_with_another_seed_is_refused() -> None:
    """Many superpixels matter nearly alike, and what does not add up decides which lead."""
    score = score_of(lambda x: x.sum((1, 2)) / 10 + 0.5 * torch.sin(1e4 * x.sum((1, 2))))
    found = refused(score, Options(fill="black"))
    assert found.details["r2"] > 0.85
    assert str(found).startswith("expected two halves of the samples that name the same leading superpixels")
    assert "(Jaccard 0.85), got 0." in str(found)


def test_what_more_samples_would_bring_is_judged_from_few() -> None:
    """A line with 60 slopes and noise: the R2 of 180 samples foretells that of 6,000."""
    generator = np.random.default_rng(0)
    slopes = generator.normal(1, 1, 60)

    def sampling(count: int) -> Sampling:
        off = draw_masks(np.zeros((60, 60), dtype=np.bool_), count, generator)
        drops = off @ slopes + generator.normal(0, 1.5, count)
        line = fit_surrogate(off, drops)
        return Sampling((line, line), off, drops, np.arange(count) // GROUPS % 5, settled=True)

    few, many = sampling(180), sampling(6000)
    assert few.r2() < many.r2() - 0.03
    assert few.r2_in_the_limit() == pytest.approx(many.r2(), abs=0.06)


def test_seeds_decide_everything() -> None:
    score = score_of(lambda x: added_up(x) + added_up(x) ** 2 / 50)
    maps = [
        explain_one(score, Options(seed=seed, samples=150, fill="black", accept_weak=True)).map for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 0


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    score = score_of(lambda x: added_up(x) + added_up(x) ** 2 / 50)
    other = np.ascontiguousarray(a_film()[::-1])
    alone = explain_one(score, Options(samples=150, fill="black", accept_weak=True), other)
    together = lime(score, batch_of(a_film(), other), Options(samples=150, fill="black", accept_weak=True))[1]
    assert isinstance(together, RawMap)
    np.testing.assert_allclose(together.map, alone.map, atol=1e-6)


def test_a_reader_without_gradients_works() -> None:
    def table(x: Tensor) -> Tensor:
        return torch.from_numpy(np.rint(x.numpy().sum((1, 2))) / 50)

    score = score_of(table)
    with pytest.raises(RuntimeError, match="requires grad"):
        table(torch.ones(1, SIDE, SIDE, requires_grad=True))
    assert explain_one(score, Options(fill="black")).details["r2"] > 0.95


def test_saturated_samples_are_counted() -> None:
    options = Options(samples=120, fill="black", accept_weak=True)
    low = explain_one(score_of(lambda x: x.sum((1, 2)) / 500), options)
    high = explain_one(score_of(lambda x: 20 + x.sum((1, 2)) / 500), options)
    assert (low.details["saturated"], high.details["saturated"]) == (0, 1)


def test_masks_hide_each_superpixel_once_in_five_and_neighbours_apart() -> None:
    neighbours = divide(a_film()).neighbours
    masks = draw_masks(neighbours, 200, np.random.default_rng(0))
    assert masks.shape == (200, len(neighbours))
    np.testing.assert_array_equal(masks.reshape(40, GROUPS, -1).sum(1), 1)
    assert masks.mean() == pytest.approx(0.2)
    pairs = np.mean([mask @ neighbours @ mask / 2 for mask in masks.astype(float)])
    by_chance = neighbours.sum() / 2 / GROUPS**2
    assert pairs < 0.15 * by_chance
    assert len(np.unique(masks, axis=0)) == 200


def test_neighbours_are_those_that_share_an_edge() -> None:
    from wetread.explain.superpixels import Superpixels

    pieces = Superpixels(np.array([[0, 0, 1], [2, -1, 1]], dtype=np.int32))
    np.testing.assert_array_equal(pieces.neighbours, [[0, 1, 1], [1, 0, 0], [1, 0, 0]])


def test_the_ridge_agrees_with_scikit_learn_and_keeps_the_sum() -> None:
    generator = np.random.default_rng(0)
    off = draw_masks(np.zeros((20, 20), dtype=np.bool_), 100, generator)
    drops = off @ generator.normal(1, 0.5, 20) + generator.normal(0, 0.3, 100)
    found = fit_surrogate(off, drops)
    level = drops.mean() / off.sum(1).mean()  # every mask hides four
    peer = Ridge(alpha=found.strength, fit_intercept=False).fit(off, drops - 4 * level)
    np.testing.assert_allclose(found.weights, level + peer.coef_, atol=1e-9)
    assert found.weights.sum() == pytest.approx(GROUPS * drops.mean())


def test_the_strength_of_the_penalty_has_the_least_error_of_leaving_one_out_nearly() -> None:
    """Generalised cross-validation stands in for leaving out each sample once."""
    generator = np.random.default_rng(0)
    off = draw_masks(np.zeros((60, 60), dtype=np.bool_), 100, generator)
    drops = off @ generator.normal(0, 0.2, 60) + generator.normal(0, 1, 100)

    def left_out(strength: float) -> float:
        x, rest = off.astype(float), drops - drops.mean() / 12 * off.sum(1)
        hat = x @ np.linalg.solve(x.T @ x + strength * np.eye(60), x.T)
        return float(np.square((rest - hat @ rest) / (1 - np.diag(hat))).mean())

    chosen = left_out(fit_surrogate(off, drops).strength)
    assert chosen < 1.05 * min(left_out(strength) for strength in np.logspace(-3, 4, 50))
    assert chosen < 0.8 * left_out(1e-6)


@pytest.mark.parametrize(("count", "chosen"), [(6, 2), (7, 3), (5, 4), (9, 5)])
def test_the_jaccard_index_by_chance_is_that_of_all_pairs_of_sets(count: int, chosen: int) -> None:
    sets = [frozenset(some) for some in combinations(range(count), chosen)]
    mean = np.mean([jaccard(sets[0], other) for other in sets])
    assert jaccard_by_chance(count, chosen) == pytest.approx(mean)


def test_five_in_a_hundred_lead_and_never_fewer_than_five() -> None:
    assert leading(np.arange(140.0)) == frozenset(range(133, 140))
    assert leading(np.arange(60.0) + 60) == frozenset(range(55, 60))
    assert leading(-np.arange(60.0) - 1) == {0}  # all speak against it


def test_behind_a_lone_finding_nobody_leads() -> None:
    assert leading(np.array([0.09, 1.0, 0.11, 0.01, 0.05, 0.02])) == {1, 2}


def test_r2_is_0_for_the_mean_and_1_for_the_truth() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert explained(values, np.full(3, 3.0)) == 0
    assert explained(values, values) == 1
    assert explained(np.ones(3), np.zeros(3)) == 1  # nothing varies, nothing is left to explain
