"""Segmentation losses against smp, formulas in numpy, paper and pencil, and with unknown organs."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import UsageError
from wetread.training.segment_losses import SEGMENT_LOSSES, _signed_distance, segment_loss

SIDE = 20
S = 1e-3 * SIDE**2
"""The smoothing in pixels for images of that side."""

SURE = 20.0
"""A logit whose sigmoid is 0 or 1 in float32, or nearly."""


def square(left: int, top: int = 6, size: int = 8, side: int = SIDE) -> Tensor:
    mask = torch.zeros(side, side)
    mask[top : top + size, left : left + size] = 1
    return mask


def sure(mask: Tensor) -> Tensor:
    return (2 * mask - 1) * SURE


def one(mask: Tensor) -> Tensor:
    return mask[None, None]


def scene(images: int = 3, organs: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits and overlapping masks of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, organs, SIDE, SIDE, generator=generator) * 2
    masks = [square(2 + i + c, top=3 + c, size=4 + 2 * c) for i in range(images) for c in range(organs)]
    return logits, torch.stack(masks).view(images, organs, SIDE, SIDE)


def exclusive(images: int = 3) -> tuple[Tensor, Tensor]:
    """Logits and one-hot targets of background and two organs."""
    logits, _ = scene(images, 3)
    classes = torch.stack([square(1 + i, size=5) + 2 * square(10 + i, size=6) for i in range(images)]).long()
    return logits, F.one_hot(classes, 3).permute(0, 3, 1, 2).float()


def value(name: str, logits: Tensor, targets: Tensor, **options: object) -> float:
    return float(segment_loss(name, logits, targets, **{"softmax": False} | options))  # type: ignore[arg-type]


def logit(p: list[float], side: int = 2) -> Tensor:
    return torch.logit(torch.tensor(p)).view(1, -1, side, side)


def test_the_names_are_in_the_order_of_the_documents() -> None:
    names = (
        "dice squared-dice generalised-dice dice-ce dice-focal tversky focal-tversky log-cosh-dice boundary region-dice"
    )
    assert list(SEGMENT_LOSSES) == names.split()


# Contracts of every loss.


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("surer", [1, 10])
def test_perfect_is_zero(name: str, softmax: bool, surer: int) -> None:
    """Ten times as sure, p is 0 or 1 to the last bit: where a root would have an infinite slope."""
    targets = exclusive()[1] if softmax else scene()[1]
    logits = (sure(targets) * surer).requires_grad_()
    loss = segment_loss(name, logits, targets, softmax=softmax)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.ndim == 0
    assert float(loss.detach()) == pytest.approx(0, abs=2e-5)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_further_off_is_worse(name: str) -> None:
    found = [value(name, one(sure(square(2 + shift))), one(square(2))) for shift in (0, 1, 2, 4, 7)]
    assert all(later > earlier + 0.005 for earlier, later in pairwise(found)), found


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
@pytest.mark.parametrize("softmax", [False, True])
def test_the_gradient_is_finite_and_goes_downhill(name: str, softmax: bool) -> None:
    logits, targets = exclusive() if softmax else scene()
    logits.requires_grad_()
    loss = segment_loss(name, logits, targets, softmax=softmax)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any())
    step = 0.05 * gradient / gradient.norm()
    assert value(name, logits.detach() - step, targets, softmax=softmax) < float(loss.detach())


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
@pytest.mark.parametrize("softmax", [False, True])
def test_a_small_network_learns(name: str, softmax: bool) -> None:
    targets = exclusive()[1] if softmax else scene()[1]
    generator = torch.Generator().manual_seed(3)
    weights = torch.arange(1.0, 4.0).view(1, 3, 1, 1)
    images = (targets * weights).sum(1, keepdim=True) + 0.1 * torch.randn(3, 1, SIDE, SIDE, generator=generator)
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    found = []
    for _ in range(25):
        loss = segment_loss(name, network(images), targets, softmax=softmax)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.9 * found[0], found


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_an_empty_mask_empties_the_prediction(name: str) -> None:
    targets = torch.zeros(1, 1, SIDE, SIDE)
    logits = torch.zeros_like(targets).requires_grad_()
    loss = segment_loss(name, logits, targets, softmax=False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert math.isfinite(float(loss.detach()))
    assert bool((gradient > 1e-9).all())
    found = [value(name, torch.full_like(targets, z), targets) for z in (0.0, -4.0, -8.0, -SURE)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0, abs=1e-4)
    assert found[0] > 0.3


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_an_empty_organ_beside_a_present_one_is_emptied_too(name: str) -> None:
    logits, targets = exclusive()
    targets[:, 0] += targets[:, 2]
    targets[:, 2] = 0
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(segment_loss(name, logits, targets, softmax=True), logits)
    assert bool(gradient.isfinite().all())
    assert float(gradient[:, 2].sum()) > 0


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_a_full_mask_fills_the_prediction(name: str) -> None:
    targets = torch.ones(1, 1, SIDE, SIDE)
    logits = torch.zeros_like(targets).requires_grad_()
    (gradient,) = torch.autograd.grad(segment_loss(name, logits, targets, softmax=False), logits)
    assert bool((gradient < 0).all())
    assert value(name, sure(targets), targets) == pytest.approx(0, abs=2e-5)


# Unknown organs.


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
@pytest.mark.parametrize("garbage", [0.0, 255.0, math.nan])
def test_an_unknown_organ_is_as_if_left_out(name: str, garbage: float) -> None:
    logits, targets = scene()
    logits.requires_grad_()
    alone = segment_loss(name, logits[:, [0, 2]], targets[:, [0, 2]], softmax=False)
    (wanted,) = torch.autograd.grad(alone, logits)
    targets[:, 1] = garbage
    known = torch.tensor([[True, False, True]]).expand(3, 3)
    loss = segment_loss(name, logits, targets, softmax=False, known=known)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, alone, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, wanted, atol=1e-8, rtol=1e-4)
    assert bool((gradient[:, 1] == 0).all())


KNOWN = torch.tensor([[True, False, True], [False, False, False], [True, True, False]])


@pytest.mark.parametrize("name", sorted(set(SEGMENT_LOSSES) - {"generalised-dice"}))
def test_the_mean_is_over_known_organs(name: str) -> None:
    logits, targets = scene()
    cells = [(i, c) for i in range(3) for c in range(3) if KNOWN[i, c]]
    each = [value(name, one(logits[i, c]), one(targets[i, c])) for i, c in cells]
    assert value(name, logits, targets, known=KNOWN) == pytest.approx(sum(each) / 4, abs=1e-6)


def test_generalised_dice_counts_images_by_their_known_organs() -> None:
    known = KNOWN.clone()
    known[2] = torch.tensor([False, True, False])
    logits, targets = scene()
    first = value("generalised-dice", logits[:1, [0, 2]], targets[:1, [0, 2]])
    third = value("generalised-dice", logits[2:, [1]], targets[2:, [1]])
    found = value("generalised-dice", logits, targets, known=known)
    assert found == pytest.approx((2 * first + third) / 3, abs=1e-6)


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_an_unknown_image_is_as_if_left_out_with_softmax(name: str) -> None:
    logits, targets = exclusive()
    logits.requires_grad_()
    alone = segment_loss(name, logits[[0, 2]], targets[[0, 2]], softmax=True)
    targets[1] = 0
    known = torch.tensor([[True], [False], [True]]).expand(3, 3)
    loss = segment_loss(name, logits, targets, softmax=True, known=known)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, alone, atol=1e-6, rtol=1e-6)
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[[0, 2]] != 0).any())


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
@pytest.mark.parametrize("softmax", [False, True])
def test_nothing_known_is_zero_with_a_graph(name: str, softmax: bool) -> None:
    logits, targets = scene()
    logits.requires_grad_()
    loss = segment_loss(name, logits, targets, softmax=softmax, known=torch.zeros(3, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert bool((gradient == 0).all())


# Values.

P = [0.8, 0.6, 0.2, 0.4]
T = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # TP = 1.4, P = 2, T = 2, s = 0.004.
        ("dice", 1 - 2.804 / 4.004),
        # Σp² = 0.64 + 0.36 + 0.04 + 0.16 = 1.2.
        ("squared-dice", 1 - 2.804 / 3.204),
        # One organ: its weight cancels out.
        ("generalised-dice", 1 - 2.804 / 4.004),
        # FP = FN = 0.6, and 0.3 + 0.7 = 1.
        ("tversky", 1 - 1.402 / 2.002),
        ("focal-tversky", (0.6 / 2.002) ** 0.75),
        ("log-cosh-dice", math.log(math.cosh(1.2 / 4.004))),
        ("dice-ce", 1.2 / 4.004 - (2 * math.log(0.8) + 2 * math.log(0.6)) / 4),
        ("dice-focal", 1.2 / 4.004 - (2 * 0.04 * math.log(0.8) + 2 * 0.16 * math.log(0.6)) / 4),
        # Each centre is half a pixel, a quarter of the side, from the edge; the mistakes add up to 1.2.
        ("boundary", 1.2 / 4.004 + 10 * 0.25 * 1.2 / 4),
        # The region reaches one pixel further, so nothing is outside; P = T.
        ("region-dice", 1.2 / 4.004),
    ],
)
def test_two_by_two_by_hand(name: str, wanted: float) -> None:
    assert value(name, logit(P), T) == pytest.approx(wanted, abs=1e-6)


def test_tversky_by_hand_where_misses_cost_more() -> None:
    """TP = 1: one pixel too many, 1.002 / 1.302; one missed, 1.002 / 1.702."""
    just_one = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert value("tversky", sure(T), just_one) == pytest.approx(1 - 1.002 / 1.302, abs=1e-6)
    assert value("tversky", sure(just_one), T) == pytest.approx(1 - 1.002 / 1.702, abs=1e-6)


def test_generalised_dice_by_hand() -> None:
    """Areas 2 and 1 give relative weights 1/4 and 1.

    Organ 1: TP 1.4, P + T = 4. Organ 2 (first pixel, p = .5 everywhere): TP .5, P + T = 3.
    """
    targets = torch.cat([T, torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)], 1)
    above, below = 2 * (1.4 / 4 + 0.5) + 0.004, 4 / 4 + 3 + 0.004
    assert value("generalised-dice", logit([*P, 0.5, 0.5, 0.5, 0.5]), targets) == pytest.approx(
        1 - above / below, abs=1e-6
    )
    # An empty organ beside it (p = .1 everywhere, P = .4) weighs as much as the smallest.
    three = torch.cat([targets, torch.zeros(1, 1, 2, 2)], 1)
    found = value("generalised-dice", logit([*P, *[0.5] * 4, *[0.1] * 4]), three)
    assert found == pytest.approx(1 - above / (below + 0.4), abs=1e-6)


def test_dice_and_tversky_are_those_of_segmentation_models() -> None:
    from segmentation_models_pytorch.losses import DiceLoss, TverskyLoss

    # One image: smp sums over the batch. Its smoothing counts half, as TI is Dice divided by 2 above and below.
    logits, targets = scene(images=1)
    theirs = DiceLoss("multilabel", smooth=S / 2)(logits, targets)
    assert value("dice", logits, targets) == pytest.approx(float(theirs), abs=1e-6)
    theirs = TverskyLoss("multilabel", smooth=S / 2, alpha=0.3, beta=0.7)(logits, targets)
    assert value("tversky", logits, targets) == pytest.approx(float(theirs), abs=1e-6)
    logits, targets = exclusive(1)
    theirs = DiceLoss("multiclass", smooth=S / 2)(logits, targets.argmax(1))
    assert value("dice", logits, targets, softmax=True) == pytest.approx(float(theirs), abs=1e-6)


Formula = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def _dice64(p: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    return float(1 - (2 * (p * t).sum() + S) / (p.sum() + t.sum() + S))


def _index64(p: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    both, extra, missed = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return float((both + S / 2) / (both + 0.3 * extra + 0.7 * missed + S / 2))


def _entropy64(p: NDArray[np.float64], t: NDArray[np.float64], gamma: int) -> float:
    true = np.where(t == 1, p, 1 - p)
    return float((-((1 - true) ** gamma) * np.log(true)).mean())


def _boundary64(p: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    """Distances to every pixel of the other kind, one by one."""
    places = np.argwhere(t >= 0), np.argwhere(t == 1), np.argwhere(t == 0)
    gaps = [np.sqrt(((places[0][:, None] - other[None]) ** 2).sum(2)).min(1).reshape(t.shape) for other in places[1:]]
    signed = np.where(t == 1, 0.5 - gaps[1], gaps[0] - 0.5) / SIDE
    return _dice64(p, t) + 10 * float((signed * (p - t)).mean())


def _region64(p: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    rows, columns = np.nonzero(t)
    outside = np.ones_like(t)
    outside[max(rows.min() - 2, 0) : rows.max() + 3, max(columns.min() - 2, 0) : columns.max() + 3] = 0
    share = (p * outside).sum() / (p.sum() + S)
    return _dice64(p, t) + float(share + 0.1 * abs(np.log((p.sum() + S) / (t.sum() + S))))


FORMULAS: dict[str, Formula] = {
    "dice": _dice64,
    "squared-dice": lambda p, t: float(1 - (2 * (p * t).sum() + S) / ((p**2).sum() + (t**2).sum() + S)),
    "generalised-dice": _dice64,
    "dice-ce": lambda p, t: _dice64(p, t) + _entropy64(p, t, 0),
    "dice-focal": lambda p, t: _dice64(p, t) + _entropy64(p, t, 2),
    "tversky": lambda p, t: 1 - _index64(p, t),
    "focal-tversky": lambda p, t: (1 - _index64(p, t)) ** 0.75,
    "log-cosh-dice": lambda p, t: math.log(math.cosh(_dice64(p, t))),
    "boundary": _boundary64,
    "region-dice": _region64,
}


@pytest.mark.parametrize("name", SEGMENT_LOSSES)
def test_each_is_its_formula_in_numpy(name: str) -> None:
    logits, targets = scene()
    for i, c in [(0, 0), (1, 2), (2, 1)]:
        p = 1 / (1 + np.exp(-logits[i, c].double().numpy()))
        wanted = FORMULAS[name](p, targets[i, c].double().numpy())
        assert value(name, one(logits[i, c]), one(targets[i, c])) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_cross_entropy_with_softmax_is_that_of_torch() -> None:
    logits, targets = exclusive()
    entropy = value("dice-ce", logits, targets, softmax=True) - value("dice", logits, targets, softmax=True)
    assert entropy == pytest.approx(float(F.cross_entropy(logits, targets.argmax(1))), abs=1e-6)
    focal = value("dice-focal", logits, targets, softmax=True) - value("dice", logits, targets, softmax=True)
    true = (logits.softmax(1) * targets).sum(1)
    assert focal == pytest.approx(float((-((1 - true) ** 2) * true.log()).mean()), abs=1e-6)


@pytest.mark.parametrize("name", ["dice", "squared-dice", "generalised-dice", "tversky"])
def test_a_soft_mask_is_best_met_by_itself(name: str) -> None:
    soft = one(square(6)) * 0.6 + 0.2
    found = [value(name, torch.logit((soft + shift).clamp(0.01, 0.99)), soft) for shift in (-0.1, 0.0, 0.1)]
    assert found[1] == pytest.approx(0, abs=1e-5)
    assert min(found[0], found[2]) > 0.005


def test_float16_logits_do_not_overflow() -> None:
    """The squares of 512 x 512 ones add up to more than float16 holds."""
    targets = torch.ones(1, 1, 512, 512)
    assert value("squared-dice", sure(targets).half(), targets) == pytest.approx(0, abs=1e-5)


# Boundary.


def test_signed_distances_of_a_small_square() -> None:
    """A 3 x 3 square in 5 x 5: corners are √2 from its corner pixels, half a pixel is taken off."""
    corner = math.sqrt(2) - 0.5
    wanted = torch.tensor(
        [
            [corner, 0.5, 0.5, 0.5, corner],
            [0.5, -0.5, -0.5, -0.5, 0.5],
            [0.5, -0.5, -1.5, -0.5, 0.5],
            [0.5, -0.5, -0.5, -0.5, 0.5],
            [corner, 0.5, 0.5, 0.5, corner],
        ]
    )
    targets = torch.stack([square(1, top=1, size=3, side=5), torch.zeros(5, 5), torch.ones(5, 5)])[None]
    found = _signed_distance(targets)
    torch.testing.assert_close(found[0, 0], wanted / 5)
    assert bool((found[0, 1] == 0.5).all())
    assert bool((found[0, 2] == -0.5).all())


def test_the_boundary_term_means_the_same_at_any_size() -> None:
    """A film twice as large with everything twice as large: only the pixel grid differs."""
    found = []
    for scale in (2, 4):
        target = square(6 * scale, top=6 * scale, size=8 * scale, side=SIDE * scale)
        wrong = square(9 * scale, top=6 * scale, size=8 * scale, side=SIDE * scale)
        logits, targets = one(sure(wrong)), one(target)
        found.append(value("boundary", logits, targets) - value("dice", logits, targets))
    assert found[0] > 0.05
    assert found[1] == pytest.approx(found[0], rel=0.05)


# Region.


def with_blob(left: int) -> Tensor:
    """The organ, and 9 pixels that do not belong to it."""
    return one(sure(square(1, top=6) + square(left, top=8, size=3)))


def test_a_blob_far_away_costs_more_than_one_nearby() -> None:
    targets = one(square(1))
    near, far = with_blob(9), with_blob(16)
    assert value("dice", far, targets) == pytest.approx(value("dice", near, targets), abs=1e-6)
    assert value("region-dice", far, targets) > value("region-dice", near, targets) + 0.05
    clean = one(sure(square(1)))
    extra = value("region-dice", far, targets) - value("region-dice", clean, targets)
    assert extra > 2 * (value("dice", far, targets) - value("dice", clean, targets))


def test_region_dice_by_hand_with_a_given_region() -> None:
    """T = first pixel, p = P, so P = 2 and TP = .8. Outside a region of .5 in the last two: .5 (.2 + .4)."""
    targets = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    region = torch.tensor([0.0, 1.0, 0.5, 0.5]).view(1, 2, 2)
    wanted = 1 - 1.604 / 3.004 + 0.3 / 2.004 + 0.1 * math.log(2.004 / 1.004)
    # The true pixel is never outside, though the region leaves it out.
    assert value("region-dice", logit(P), targets, region=region) == pytest.approx(wanted, abs=1e-6)
    assert value("region-dice", logit(P), targets, region=region[None]) == pytest.approx(wanted, abs=1e-6)
    assert value("dice", logit(P), targets, region=region) == value("dice", logit(P), targets)


def test_too_small_costs_as_much_area_as_too_large() -> None:
    """|log| of half and of double the area, s aside; Dice and outside are the same as without."""
    whole, half = square(4, top=4, size=8), square(4, top=4, size=8)
    half[8:] = 0
    for predicted, true in ((whole, half), (half, whole)):
        logits, targets = one(sure(predicted)), one(true)
        region = torch.ones(1, SIDE, SIDE)
        found = value("region-dice", logits, targets, region=region) - value("dice", logits, targets)
        assert found == pytest.approx(0.1 * math.log((64 + S) / (32 + S)), abs=1e-6)


# Refusals.


@pytest.mark.parametrize(
    ("name", "near"), [("generalized-dice", "generalised-dice"), ("Dice", "dice"), ("tverski", "tversky")]
)
def test_an_unknown_name_gets_the_nearest(name: str, near: str) -> None:
    wanted = f"expected the name of a segmentation loss, got '{name}'; use '{near}', or another of dice, squared-dice"
    with pytest.raises(UsageError, match=wanted):
        segment_loss(name, *scene(), softmax=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": torch.ones(3, 3)}, r"known as bool \(3, 3\), got torch.float32"),
        ({"known": torch.ones(3, dtype=torch.bool)}, r"known as bool \(3, 3\), got torch.bool \(3,\)"),
        ({"known": KNOWN, "softmax": True}, "got 2 of 3 in image 0 of the batch; use softmax=False"),
        ({"softmax": True}, "add up to 1 in each pixel with softmax, got other sums; add a background class"),
        ({"region": torch.ones(2, SIDE, SIDE)}, r"region of shape .* got \(2, 20, 20\); give one map for each organ"),
        ({"region": torch.full((3, SIDE, SIDE), 2.0)}, r"region in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        segment_loss("region-dice", *scene(), **{"softmax": False} | options)  # type: ignore[arg-type]


def test_rounding_is_not_refused() -> None:
    logits, targets = exclusive()
    assert value("dice", logits, targets * (1 + 1e-6), softmax=True) == pytest.approx(
        value("dice", logits, targets, softmax=True), abs=1e-5
    )


def test_masks_that_do_not_fit_are_refused() -> None:
    logits, targets = scene()
    with pytest.raises(UsageError, match=r"one shape \(N, C, H, W\), got \(3, 3, 20, 20\) and \(3, 2, 20, 20\)"):
        value("dice", logits, targets[:, :2])
    for wrong in (targets * 255, targets * math.nan):
        with pytest.raises(UsageError, match=r"targets in \[0, 1\], got values outside or NaN; divide 8-bit masks"):
            value("dice", logits, wrong)
    with pytest.raises(UsageError, match="2 or more classes with softmax, got 1; use softmax=False"):
        value("dice", logits[:, :1], targets[:, :1], softmax=True)
