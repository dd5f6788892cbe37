"""Curves, sensitivity and infidelity of functions whose answers are known on paper, and against captum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError
from wetread.evaluation.intervals import wilson
from wetread.explain.quality import (
    CurveSettings,
    Faithfulness,
    aopc,
    cells_of,
    curves,
    faithfulness_of,
    incompleteness,
    infidelity,
    max_sensitivity,
    order_of,
    summarise_faithfulness,
)

SIDE = 16
WEIGHTS = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
IMAGE = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
CELLS = cells_of(SIDE, SIDE, 4)


def linear(batch: Tensor) -> Tensor:
    return (batch[:, 0] * WEIGHTS).sum((1, 2))


def contributions() -> NDArray[np.float64]:
    """What each of the 16 cells adds to the score."""
    parts = (IMAGE[0, 0] * WEIGHTS).double().numpy()
    return np.asarray(np.bincount(CELLS.ravel(), parts.ravel()), dtype=np.float64)


def test_cells_are_square_and_number_the_image() -> None:
    assert CELLS.max() == 15
    assert np.bincount(CELLS.ravel()).tolist() == [16] * 16
    wide = cells_of(10, 20, 4)
    assert wide.shape == (10, 20)
    assert wide.max() + 1 == 2 * 4
    with pytest.raises(UsageError, match="expected at most 16 cells a side, got 17"):
        cells_of(16, 16, 17)


def test_order_is_by_mean_heat_and_ties_are_drawn() -> None:
    heat = np.zeros((SIDE, SIDE), dtype=np.float32)
    heat[12:, 12:] = 1.0
    heat[:4, :4] = -1.0
    orders = [order_of(heat, CELLS, seed).tolist() for seed in range(5)]
    assert {order[0] for order in orders} == {15}
    assert {order[-1] for order in orders} == {0}
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    with pytest.raises(UsageError, match=r"expected heat of \(16, 16\), got \(8, 8\)"):
        order_of(heat[:8, :8], CELLS)


def test_deletion_of_a_linear_model_in_closed_form() -> None:
    parts = contributions()
    changed = np.arange(6)
    best = np.argsort(-parts)
    random = [np.random.default_rng(seed).permutation(16) for seed in range(100)]
    black = torch.zeros_like(IMAGE)
    found = curves(linear, IMAGE, black, CELLS, [best, *random], changed)
    for order, curve in zip([best, *random], found, strict=True):
        lost = np.concatenate([[0], parts[order[:5]].cumsum()])
        np.testing.assert_allclose(curve.scores, parts.sum() - lost, atol=1e-4)
        assert aopc(curve) == pytest.approx(lost.mean(), abs=1e-4)
        assert aopc(curve) <= aopc(found[0]) + 1e-6  # the order of w * x is the best there is
    shown = curves(linear, black, IMAGE, CELLS, [best], changed)[0]
    assert -aopc(shown) == pytest.approx(aopc(found[0]), abs=1e-4)  # of a linear model, insertion mirrors deletion


def test_curves_run_from_the_image_to_the_fill() -> None:
    settings = CurveSettings(side=4, steps=4, until=1.0, orders=2, fills=("black", "mean"))
    heat = (IMAGE[0, 0] * WEIGHTS).numpy()
    black, mean = faithfulness_of(linear, IMAGE, heat, settings)
    assert (black.fill, mean.fill) == ("black", "mean")
    assert black.score == pytest.approx(float(linear(IMAGE)), abs=1e-5)
    assert black.fill_score == 0.0
    assert black.fill_raises == (float(linear(IMAGE)) <= 0)
    assert black.deletion > black.deletion_random > black.deletion_worst
    assert black.insertion > black.insertion_random > black.insertion_worst
    assert mean.fill_score == pytest.approx(float(IMAGE.mean() * WEIGHTS.sum()), abs=1e-4)


def test_a_fill_that_raises_the_score_is_told() -> None:
    (found,) = faithfulness_of(
        lambda batch: -batch.sum((1, 2, 3)), IMAGE, np.ones((SIDE, SIDE)), CurveSettings(side=4, fills=("black",))
    )
    assert found.fill_raises
    assert found.deletion < 0


def test_heat_that_says_nothing_is_no_better_than_chance() -> None:
    settings = CurveSettings(side=8, steps=5, orders=8, fills=("black",))
    images = torch.rand(30, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    rng = np.random.default_rng(0)
    noise = [faithfulness_of(linear, image[None], rng.normal(size=(SIDE, SIDE)), settings)[0] for image in images]
    truth = [faithfulness_of(linear, image[None], (image[0] * WEIGHTS).numpy(), settings)[0] for image in images]
    names = [f"p{i}" for i in range(30)]
    chance, right = summarise_faithfulness(noise, names), summarise_faithfulness(truth, names)
    assert (chance.above_random.low or 0) < 0.5 < (chance.above_random.high or 1)
    assert (chance.p or 0) > 0.01
    assert right.above_random == wilson(30, 30)
    assert (right.p or 1) < 1e-6
    assert (right.gain.low or 0) > 0


def figures(deletion: float, random: float = 0.0, *, raises: bool = False) -> Faithfulness:
    return Faithfulness(
        fill="mean",
        deletion=deletion,
        deletion_random=random,
        deletion_worst=-1,
        insertion=2 * deletion,
        insertion_random=random,
        insertion_worst=-1,
        score=1,
        fill_score=0,
        fill_raises=raises,
    )


def test_the_smallest_p_of_six_pairs() -> None:
    six = [figures(float(i), raises=i > 4) for i in range(1, 7)]
    summary = summarise_faithfulness(six, list("abcdef"))
    assert summary.p == pytest.approx(1 / 64)  # one of the 2^6 patterns of signs
    assert summary.aopc.value == pytest.approx(3.5)
    assert summary.fill_raises == 2
    assert summarise_faithfulness(six, list("abcdef"), "insertion").aopc.value == pytest.approx(7)
    assert summarise_faithfulness(six, list("aabbcc")).p is None  # three patients
    assert summarise_faithfulness([figures(0.0)] * 6, list("abcdef")).p == 1.0


def test_what_a_summary_refuses() -> None:
    with pytest.raises(UsageError, match="expected curves of one fill, got none"):
        summarise_faithfulness([], [])
    with pytest.raises(UsageError, match="expected 1 patients"):
        summarise_faithfulness([figures(1.0)], ["a", "b"])
    with pytest.raises(UsageError, match=r"expected a share of the cells above 0, up to 1, got 1\.5"):
        CurveSettings(until=1.5)
    with pytest.raises(UsageError, match="at least, got 14, 0, 3, 3"):
        CurveSettings(steps=0)


def squares(batch: Tensor) -> Tensor:
    return batch**2


def test_sensitivity_of_no_change_and_of_a_constant_map_is_zero() -> None:
    batch = IMAGE.expand(2, -1, -1, -1)
    assert max_sensitivity(squares, batch, radius=0.0).tolist() == [0.0, 0.0]
    assert max_sensitivity(torch.ones_like, batch).tolist() == [0.0, 0.0]
    assert np.isnan(max_sensitivity(torch.zeros_like, batch)).all()
    with pytest.raises(UsageError, match="expected a radius of 0 or more and a sample, got -1"):
        max_sensitivity(squares, batch, radius=-1)


def test_sensitivity_stays_below_its_bound_and_repeats() -> None:
    batch = torch.full((1, 1, SIDE, SIDE), 0.5)
    found = max_sensitivity(lambda images: images, batch, radius=0.1, samples=200)
    assert 0.1 < found[0] <= 0.2  # the identity moves by at most radius / 0.5
    assert found == max_sensitivity(lambda images: images, batch, radius=0.1, samples=200)


def test_sensitivity_agrees_with_captum() -> None:
    captum: Any = pytest.importorskip("captum.metrics")
    inside = 0.2 + 0.6 * IMAGE  # so that nothing is cut
    generator = torch.Generator().manual_seed(5)
    draws: Iterator[Tensor] = iter([0.05 * (2 * torch.rand(inside.shape, generator=generator) - 1) for _ in range(8)])

    def only(images: Any) -> Tensor:  # captum 0.9 hands over a tuple of tensors at first, a tensor later
        found: Tensor = images[0] if isinstance(images, tuple) else images
        return found

    theirs = captum.sensitivity_max(
        lambda images: (squares(only(images)),),
        inside,
        perturb_func=lambda images, _radius: torch.cat([image[None] + next(draws) for image in only(images)]),
        n_perturb_samples=8,
    )
    ours = max_sensitivity(squares, inside, radius=0.05, samples=8, seed=5)
    assert ours[0] == pytest.approx(float(theirs), rel=1e-6)


def test_infidelity_of_a_linear_model_is_zero_for_its_gradient_alone() -> None:
    assert infidelity(linear, IMAGE, WEIGHTS[None])[0] == pytest.approx(0, abs=1e-8)
    assert infidelity(linear, IMAGE, 0.9 * WEIGHTS[None])[0] > 0.01
    with pytest.raises(UsageError, match=r"expected maps of \(1, 16, 16\) and a sample"):
        infidelity(linear, IMAGE, WEIGHTS[None, :8])


def test_infidelity_agrees_with_captum() -> None:
    captum: Any = pytest.importorskip("captum.metrics")

    def curved(batch: Tensor) -> Tensor:
        return linear(batch) + (batch**3).sum((1, 2, 3))

    generator = torch.Generator().manual_seed(4)
    noise = torch.cat([0.1 * torch.randn(IMAGE.shape, generator=generator) for _ in range(12)])
    theirs = captum.infidelity(
        curved, lambda images: (noise, images - noise), IMAGE, WEIGHTS[None, None], n_perturb_samples=12
    )
    ours = infidelity(curved, IMAGE, WEIGHTS[None], samples=12, seed=4)
    assert ours[0] == pytest.approx(float(theirs), rel=1e-4)


def test_completeness() -> None:
    exact = (IMAGE[0, 0] * WEIGHTS).double().numpy()  # integrated gradients of a linear model against black
    score = float(exact.sum())
    assert incompleteness(exact, score, 0.0) == pytest.approx(0, abs=1e-9)
    assert incompleteness(exact, score, 1.5) == pytest.approx(1.5)
    with pytest.raises(ExplanationFailed, match="expected a finite map, got NaN"):
        incompleteness(exact * np.nan, score, 0.0)
