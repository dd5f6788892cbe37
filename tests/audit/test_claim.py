"""T14: *better* only where a paired interval excludes 0; a loss is a failure; without a claim nothing is said."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wetread.audit.claim import claim_line
from wetread.evaluation.result import EvaluationSpec

SPEC = EvaluationSpec(task="binary", classes=("well", "ill"), resamples=200)


def predictions(noise: float, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    ill = np.arange(n) % 2
    score = ill + rng.normal(0, noise, n)
    return pd.DataFrame({
        "image": [f"{i}" for i in range(n)], "patient": [f"{i}" for i in range(n)],
        "target": np.where(ill == 1, "ill", "well"), "probability_ill": 1 / (1 + np.exp(-4 * (score - 0.5))),
    })  # fmt: skip


def test_a_real_win_passes_a_loss_fails_and_a_tie_is_refused_the_word() -> None:
    sharp, dull = predictions(0.4), predictions(1.5)
    won = claim_line(sharp, dull, SPEC, ("old", "new"))
    assert won.answer == "PASS"
    assert won.sentence.startswith("new is better than old in auroc of ill")
    lost = claim_line(dull, sharp, SPEC, ("old", "new"))
    assert lost.answer == "FAIL"
    assert lost.sentence.startswith("old is better in")
    tie = claim_line(sharp, sharp, SPEC, ("old", "new"))
    assert tie.answer == "WARN"
    assert tie.sentence == "It cannot be said that new is better than old: every interval includes 0."


def test_no_claim_no_judgement() -> None:
    line = claim_line(predictions(0.4), None, SPEC, ("", "new"))
    assert line.answer == "NOT ASSESSABLE"
    assert "--against" in line.cure
