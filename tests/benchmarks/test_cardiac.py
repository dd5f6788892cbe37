"""The cardiac benchmark counts on paper: ten films of ten patients, what ruler and classifier said of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cardiac import Films, beside, settings
from tests.reporting.examples import answer, image_facts, read
from wetread.reading.agreement import agreement_on
from wetread.reading.measures import CARDIOTHORACIC_RATIO
from wetread.types import Measure, Read


def read_of(ratio: float, probability: float, view: str = "PA") -> Read:
    """A read whose classifier is positive from 0.431 on."""
    labels = (answer("cardiomegaly", probability),)
    measures = (Measure(name=CARDIOTHORACIC_RATIO, organ="heart", value=ratio, unit="1"),)
    compared = agreement_on(labels, measures, image_facts("a.dcm", view=view, age_years=60.0))
    return read("a.dcm", labels).model_copy(update={"measures": measures, "agreement": compared})


def films() -> Films:
    """Eight PA films, one AP film and one that the gate refused; the ratio is 0.02 off in every film."""
    both, ruler, classifier, neither = (0.6, 0.9), (0.6, 0.1), (0.4, 0.9), (0.4, 0.1)
    pairs = [both, both, both, ruler, classifier, neither, neither, neither]
    refused = read("b.dcm", (answer("cardiomegaly", 0.9),), reasons=("A colour photograph.",))
    reads = [*(read_of(*pair) for pair in pairs), read_of(0.6, 0.9, "AP"), refused]
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 1], dtype=bool)
    true_ratio = np.array([0.58] * 4 + [0.42] * 4 + [0.58, np.nan])
    return Films(reads, truth, true_ratio, np.array([f"P{i}" for i in range(10)]))


def test_shares_kappa_and_errors_by_hand() -> None:
    found = {one.what: one for one in beside(films())}
    assert {what: (round(one.value, 6), one.n) for what, one in found.items()} == {
        "mean absolute error of the cardiothoracic ratio": (0.02, 9),
        "ratio rule alone: accuracy": (7 / 8, 8),  # the last PA film is ill with a ratio of 0.4
        "guided classifier, same films: accuracy": (5 / 8, 8),
        "ratio rule and guided classifier: share that agrees": (6 / 8, 8),
        "ratio rule and guided classifier: Cohen's kappa": (0.5, 8),  # (6/8 - 1/2) / (1 - 1/2)
        "where they agree: accuracy": (round(5 / 6, 6), 6),
        "where they disagree: accuracy of the ratio rule": (1.0, 2),
        "films that are not compared (AP, refused)": (0.2, 10),
        "films that the gate of the guided reader refuses": (0.1, 10),
    }
    assert found["ratio rule alone: accuracy"].low == pytest.approx(0.5291, abs=1e-4)  # Wilson, 7 of 8
    assert found["mean absolute error of the cardiothoracic ratio"].met == "yes"


def test_readers_differ_in_their_guide_alone() -> None:
    guided, whole = (settings(name, Path("organs")).model_dump() for name in ("guided", "unguided"))
    differing = {key for key in guided if guided[key] != whole[key]}
    assert differing == {"name", "guide", "organ", "segmenter"}
    assert (guided["guide"], guided["organ"], guided["segmenter"]) == ("mask", "heart", "organs")
