"""What balancing did to the odds is undone, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from wetread.training.prior import restore_prior


def test_a_balanced_fit_becomes_the_plain_one() -> None:
    """Logistic regression without penalty: balanced plus the log prior is about the unbalanced fit."""
    rng = np.random.default_rng(0)
    y = (rng.random(4000) < 0.15).astype(np.float32)
    x = (rng.normal(size=(4000, 3)) + 0.8 * y[:, None]).astype(np.float32)
    plain = LogisticRegression(C=1e6).fit(x, y)
    balanced = LogisticRegression(C=1e6, class_weight="balanced").fit(x, y)
    last = nn.Linear(3, 1)
    head = nn.Sequential(nn.Dropout(0.0), last)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(balanced.coef_.astype(np.float32)))
        last.bias.copy_(torch.from_numpy(balanced.intercept_.astype(np.float32)))
    restore_prior(head, y[:, None], softmax=False)
    shares = torch.sigmoid(head(torch.from_numpy(x))).detach().numpy()[:, 0]
    assert shares.mean() == pytest.approx(y.mean(), abs=0.02)
    np.testing.assert_allclose(shares, plain.predict_proba(x)[:, 1], atol=0.05)
    before = balanced.predict_proba(x)[:, 1]
    assert before.mean() > y.mean() + 0.15  # there was something to undo
    assert (np.argsort(shares) == np.argsort(before)).mean() > 0.99  # the ranking stays


def test_known_labels_alone_count_by_hand() -> None:
    """Label 1: 1 of 4 known ill, log(1/3). Label 2: 1 of 2 known, log 1 = 0."""
    targets = np.array([[1, np.nan], [0, 1], [0, 0], [0, np.nan], [np.nan, np.nan]], np.float32)
    last = nn.Linear(2, 2)
    nn.init.zeros_(last.bias)
    restore_prior(nn.Sequential(last), targets, softmax=False)
    np.testing.assert_allclose(last.bias.detach().numpy(), [np.log(1 / 3), 0], atol=1e-6)


def test_exclusive_classes_get_their_shares() -> None:
    targets = np.eye(3, dtype=np.float32)[[0] * 7 + [1] * 2 + [2]]
    head = nn.Linear(2, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    restore_prior(head, np.concatenate([targets, np.full((5, 3), np.nan, np.float32)]), softmax=True)
    shares = head(torch.rand(1, 2)).softmax(1).detach().numpy()[0]
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], rtol=1e-5)


def test_only_the_last_layer_moves_and_a_head_without_one_stays() -> None:
    first, last = nn.Linear(2, 4), nn.Linear(4, 1)
    before = (first.bias.detach().clone(), last.bias.detach().clone())
    restore_prior(nn.Sequential(first, nn.ReLU(), last), np.array([[1], [0], [0]], np.float32), softmax=False)
    assert torch.equal(first.bias, before[0])
    torch.testing.assert_close(last.bias.detach(), before[1] - np.log(2))
    restore_prior(nn.Identity(), np.array([[1], [0]], np.float32), softmax=False)
