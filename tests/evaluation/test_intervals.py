"""Wilson against scipy and by hand; the bootstrap draws whole patients and refuses to mislead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from wetread.errors import StatisticRefused
from wetread.evaluation.intervals import Resampler, bootstrap, proportion, summarise, wilson

Floats = NDArray[np.float64]


def test_wilson_by_hand() -> None:
    """8 of 10: z2 = 3.841459; centre (0.8 + 0.192073) / 1.384146 = 0.716740; half 0.226578."""
    found = wilson(8, 10)
    assert found.low == pytest.approx(0.490162, abs=1e-6)
    assert found.high == pytest.approx(0.943318, abs=1e-6)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    found, other = wilson(*counts), binomtest(*counts).proportion_ci(method="wilson")
    assert found.low == pytest.approx(other.low, abs=1e-12)
    assert found.high == pytest.approx(other.high, abs=1e-12)
    assert found.low is not None
    assert found.value is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert wilson(0, 0).value is None
    assert wilson(0, 0).note == "no cases"
    with pytest.raises(StatisticRefused, match="between 0 and 3 successes among 3, got 4"):
        wilson(4, 3)


def test_proportion_of_single_cases_is_wilson() -> None:
    hits = np.array([True] * 8 + [False] * 2)
    assert proportion(hits) == wilson(8, 10)
    assert proportion(hits, np.arange(10)) == wilson(8, 10)
    assert proportion([]).value is None


def test_copies_of_a_patient_add_no_certainty() -> None:
    hits = np.repeat([True] * 30 + [False] * 10, 7)
    found, plain = proportion(hits, np.repeat(np.arange(40), 7)), wilson(30, 40)
    # the design effect is 7 * 40 / 39: patients are a sample too
    assert found.low == pytest.approx(plain.low, abs=0.005)
    assert found.high == pytest.approx(plain.high, abs=0.005)
    assert "280 cases of 40 patients, design effect 7.18" in found.note


def test_all_alike_counts_patients() -> None:
    found = proportion(np.ones(50), np.repeat(np.arange(10), 5))
    assert found.low == pytest.approx(binomtest(10, 10).proportion_ci(method="wilson").low, abs=1e-12)
    assert found.high == 1.0


def test_patients_are_drawn_whole_and_alike_for_one_seed() -> None:
    groups = np.array(["a", "b", "b", "c", "c", "c"] * 3)
    first = np.concatenate(list(Resampler(18, groups, 50, seed=4).blocks()))
    again = np.concatenate(list(Resampler(18, groups, 50, seed=4).blocks()))
    other = np.concatenate(list(Resampler(18, groups, 50, seed=5).blocks()))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for name in "abc":
        inside = first[:, groups == name]
        assert (inside == inside[:, :1]).all()
    # 3 draws of a patient in each resample
    assert (first[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_bootstrap_of_a_mean_has_the_textbook_width() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap(lambda w: {"mean": w @ values / w.sum(axis=1)}, Resampler(400, None, 2000))["mean"]
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    assert found.method == "bootstrap over cases, 2000 resamples, percentile"


def test_bootstrap_over_patients_is_wider() -> None:
    patients = np.random.default_rng(1).normal(0, 1, 60)
    values, groups = np.repeat(patients, 6), np.repeat(np.arange(60), 6)

    def mean(weights: Floats) -> dict[str, Floats]:
        return {"mean": weights @ values / weights.sum(axis=1)}

    plain, clustered = (bootstrap(mean, Resampler(360, g))["mean"] for g in (None, groups))
    assert plain.low is not None
    assert plain.high is not None
    assert clustered.low is not None
    assert clustered.high is not None
    assert (clustered.high - clustered.low) / (plain.high - plain.low) == pytest.approx(6**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("value", "samples", "n", "note"),
    [
        (float("nan"), np.ones(10), 50, "not defined on these cases"),
        (0.5, np.arange(10.0), 9, "9 cases, fewer than 10"),
        (0.5, np.r_[np.full(2, np.nan), np.arange(8.0)], 50, "not defined in 20% of the resamples"),
        (1.0, np.ones(10), 50, "the same value in (almost) every resample"),
    ],
)
def test_misleading_intervals_are_refused(value: float, samples: Floats, n: int, note: str) -> None:
    found = summarise(value, samples, Resampler(n))
    assert found.low is None
    assert note in found.note


def test_biased_statistic_gets_the_basic_interval() -> None:
    samples = np.linspace(0.1, 0.3, 1001)
    found = summarise(0.15, samples, Resampler(50), biased=True)
    assert found.low == pytest.approx(0.30 - 0.295)
    assert found.high == pytest.approx(0.30 - 0.105)
    assert "chance adds to the value" in found.note


def test_subset_keeps_patients() -> None:
    groups = np.array(["a", "a", "b", "c"])
    part = Resampler(4, groups).subset(np.array([True, False, True, True]))
    assert (part.n, part.patients) == (3, 3)
    assert Resampler(4).subset(np.array([True, False, False, True])).groups is None
