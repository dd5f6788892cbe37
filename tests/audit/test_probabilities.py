"""T10 and T11: honest probabilities pass, overconfident ones fail, broken promises are found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.audit.probabilities import Answers, abstaining_line, probability_line
from wetread.evaluation.conformal import fit_sets
from wetread.models.bundle import find_reader, load_card
from wetread.models.card import ReaderCard

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def card() -> ReaderCard:
    return load_card(find_reader("chest-pneumonia")).model_copy(update={"conformal": None})


def answers(n: int, sharpen: float = 1.0, seed: int = 0) -> Answers:
    """Logits that are right by construction, times ``sharpen``: above 1 is overconfident."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 1.5, n)
    truth = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    p = 1 / (1 + np.exp(-sharpen * logits))
    return Answers(p[:, None], truth[:, None], np.array([f"p{i}" for i in range(n)]))


def test_honest_probabilities_pass_and_overconfident_ones_fail(card: ReaderCard) -> None:
    honest = probability_line(card, answers(1500))
    assert honest.answer == "PASS"
    assert "honest as far as can be told" in honest.sentence
    sure = probability_line(card, answers(1500, sharpen=4))
    assert sure.answer == "FAIL"
    assert "wetread calibrate" in sure.cure
    slope = next(figure for figure in sure.figures if "slope" in figure.what).estimate
    assert slope.value == pytest.approx(0.25, abs=0.05)


def test_too_few_images_are_not_judged(card: ReaderCard) -> None:
    line = probability_line(card, answers(30))
    assert line.answer == "NOT ASSESSABLE"
    assert "at least 50 cases" in line.notes[0]


def with_sets(card: ReaderCard, calibration: Answers) -> ReaderCard:
    spec = fit_sets(
        calibration.probabilities, calibration.targets, card.task, card.classes, patients=calibration.patients
    )
    return card.model_copy(update={"conformal": spec})


def test_a_kept_promise_passes_and_a_broken_one_fails(card: ReaderCard) -> None:
    own = with_sets(card, answers(800, seed=1))
    kept = abstaining_line(own, answers(1200, seed=2))
    assert kept.answer == "PASS"
    assert kept.sentence.startswith("It keeps its promise of 90%")
    shifted = answers(1200, seed=3)
    wrong = Answers(1 - shifted.probabilities, shifted.targets, shifted.patients)  # another place: answers reversed
    broken = abstaining_line(own, wrong)
    assert broken.answer == "FAIL"
    assert "It breaks its promise" in broken.sentence
    assert {figure.what for figure in broken.figures} == {"coverage of NORMAL sets", "coverage of PNEUMONIA sets"}


def test_no_promise_and_too_few_images_are_not_judged(card: ReaderCard) -> None:
    assert abstaining_line(card, answers(500)).sentence == (
        "The reader makes no promise: its card has no conformal quantiles."
    )
    few = abstaining_line(with_sets(card, answers(800)), answers(30))
    assert few.answer == "NOT ASSESSABLE"
    assert few.sentence == "No class has enough images to judge the promise."
