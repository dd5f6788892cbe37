"""Losses against torch, against paper and pencil, and with unknown labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import DatasetRefused
from wetread.training.losses import class_weights, classification_loss

NAN = float("nan")


def logits_of(rows: int, outputs: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(seed)) * 2


def one_hot(classes: list[int], count: int) -> Tensor:
    return torch.eye(count)[torch.tensor(classes)]


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.1, None), (0.0, [0.5, 1.0, 3.0])])
def test_softmax_is_that_of_torch(smoothing: float, weights: list[float] | None) -> None:
    """With both, torch weighs each smoothed term by its own class and wetread by the true one: next test."""
    classes = [0, 1, 2, 2, 1, 0, 2]
    logits = logits_of(7, 3)
    tensor = None if weights is None else torch.tensor(weights)
    ours = classification_loss(logits, one_hot(classes, 3), softmax=True, weights=tensor, smoothing=smoothing)
    theirs = F.cross_entropy(logits, torch.tensor(classes), weight=tensor, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


def test_softmax_with_weights_and_smoothing_by_hand() -> None:
    """Logits 0 give -log(1/2) for each class, so smoothing changes nothing and weights cancel out."""
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = classification_loss(
        torch.zeros(2, 2), targets, softmax=True, weights=torch.tensor([1.0, 9.0]), smoothing=0.2
    )
    assert float(loss) == pytest.approx(math.log(2))
    # Rows of loss log 2 (weight 1) and -(.9 log p + .1 log(1-p)) with p = .8 (weight 3); mean over 4.
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(4)]])
    loss = classification_loss(logits, targets, softmax=True, weights=torch.tensor([1.0, 3.0]), smoothing=0.2)
    second = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2))
    assert float(loss) == pytest.approx((math.log(2) + 3 * second) / 4, rel=1e-6)


def test_sigmoid_is_that_of_torch() -> None:
    logits = logits_of(8, 3)
    targets = (logits_of(8, 3, seed=1) > 0).float()
    ours = classification_loss(logits, targets, softmax=False)
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(logits, targets))
    weights = torch.tensor([[1.0, 2.0, 0.5], [4.0, 1.0, 2.0]])
    each = torch.where(targets == 1, weights[1], weights[0])
    ours = classification_loss(logits, targets, softmax=False, weights=weights)
    theirs = F.binary_cross_entropy_with_logits(logits, targets, weight=each, reduction="sum") / each.sum()
    torch.testing.assert_close(ours, theirs)


def test_sigmoid_smoothing_by_hand() -> None:
    """A positive with p = .8 and smoothing .05: -(.95 log .8 + .05 log .2)."""
    loss = classification_loss(torch.tensor([[math.log(4)]]), torch.ones(1, 1), softmax=False, smoothing=0.05)
    assert float(loss) == pytest.approx(-(0.95 * math.log(0.8) + 0.05 * math.log(0.2)), rel=1e-6)


def test_focal_by_hand_and_with_gamma_zero() -> None:
    """p_true = .8 and gamma 2: (1 - .8)^2 * -log .8; the same through one sigmoid or two classes."""
    wanted = 0.04 * -math.log(0.8)
    sigmoid = classification_loss(torch.tensor([[math.log(4)]]), torch.ones(1, 1), softmax=False, focal_gamma=2)
    softmax = classification_loss(
        torch.tensor([[0.0, math.log(4)]]), torch.tensor([[0.0, 1.0]]), softmax=True, focal_gamma=2
    )
    negative = classification_loss(torch.tensor([[-math.log(4)]]), torch.zeros(1, 1), softmax=False, focal_gamma=2)
    for loss in (sigmoid, softmax, negative):
        assert float(loss) == pytest.approx(wanted, rel=1e-5)
    logits, targets = logits_of(6, 3), one_hot([0, 1, 2, 0, 1, 2], 3)
    plain = classification_loss(logits, targets, softmax=True)
    torch.testing.assert_close(classification_loss(logits, targets, softmax=True, focal_gamma=0.0), plain)
    almost = classification_loss(logits, targets, softmax=True, focal_gamma=1e-7)
    torch.testing.assert_close(almost, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_unknown_labels_add_nothing(softmax: bool, gamma: float) -> None:
    targets = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0]])
    logits = logits_of(3, 2).requires_grad_()
    weights = torch.tensor([1.0, 3.0]) if softmax else torch.tensor([[1.0, 1.0], [3.0, 2.0]])
    options = {"softmax": softmax, "weights": weights, "smoothing": 0.1, "focal_gamma": gamma}
    loss = classification_loss(logits, targets, **options)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[[0, 2]] != 0).all())
    known = [0, 2]
    alone = classification_loss(logits[known], targets[known], **options)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, alone)


def test_one_unknown_cell_leaves_the_others_of_its_image() -> None:
    logits = logits_of(2, 2).requires_grad_()
    loss = classification_loss(logits, torch.tensor([[1.0, NAN], [0.0, 1.0]]), softmax=False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == 0).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("softmax", [True, False])
def test_nothing_known_is_zero_and_finite(softmax: bool) -> None:
    logits = logits_of(3, 2).requires_grad_()
    loss = classification_loss(logits, torch.full((3, 2), NAN), softmax=softmax)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert bool((gradient == 0).all())


def test_class_weights_by_hand() -> None:
    """8 images: 6, 1, 1 of three classes: 8/(3*6), 8/3, 8/3. One label: 2 of 8 ill: 8/12 and 8/4."""
    many = np.eye(3, dtype=np.float32)[[0] * 6 + [1, 2]]
    np.testing.assert_allclose(class_weights(many, softmax=True).numpy(), [8 / 18, 8 / 3, 8 / 3], rtol=1e-6)
    one = np.array([[1], [1], [0], [0], [0], [0], [0], [0]], dtype=np.float32)
    np.testing.assert_allclose(class_weights(one, softmax=False).numpy(), [[8 / 12], [2.0]], rtol=1e-6)


def test_class_weights_count_only_what_is_known() -> None:
    """Label 1: 1 ill and 3 well of 4 known. Label 2: 1 and 1 of 2 known. Every class weighs the same in all."""
    targets = np.array([[1, NAN], [0, 1], [0, 0], [0, NAN], [NAN, NAN]], dtype=np.float32)
    weights = class_weights(targets, softmax=False).numpy()
    np.testing.assert_allclose(weights, [[4 / 6, 1.0], [2.0, 1.0]], rtol=1e-6)
    for column in range(2):
        known = targets[~np.isnan(targets[:, column]), column]
        assert (known == 0).sum() * weights[0, column] == pytest.approx((known == 1).sum() * weights[1, column])


@pytest.mark.parametrize(
    ("targets", "softmax"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], True),
        ([[1.0], [1.0]], False),
        ([[0.0], [NAN]], False),
        ([[NAN], [NAN]], False),
        ([[1.0, 0.0], [0.0, 0.0]], False),
    ],
)
def test_a_class_without_images_is_refused(targets: list[list[float]], softmax: bool) -> None:
    with pytest.raises(DatasetRefused, match="expected training images of every class, got a class with none"):
        class_weights(np.array(targets, dtype=np.float32), softmax=softmax)
