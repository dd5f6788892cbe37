"""The benchmark of planted shortcuts counts what it says, goes on where it stopped, and finds a plain marker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import planted
from benchmarks.planted import KINDS, STRENGTHS, Bank, Case, Outcome, cases, figures_of, phantoms, run


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Fewer phantoms than the benchmark has, enough for sets of 80."""
    return phantoms(90, seed=5)


def outcome(case: Case, t3: str, *, t2: str = "", above: bool = True) -> Outcome:
    return Outcome(case, t3, t2, 0.6, 0.9, above, 1.0)


def test_detected_needs_a_line_that_does_not_pass_and_more_than_chance() -> None:
    case = Case("phantoms", "text", 0.2, 0.9, 0)
    assert outcome(case, "WARN").detected
    assert not outcome(case, "WARN").failed
    assert outcome(case, "FAIL").failed
    assert not outcome(case, "WARN", above=False).detected
    assert not outcome(case, "PASS").detected
    assert not outcome(case, "NOT ASSESSABLE").detected
    assert outcome(case, "PASS", t2="FAIL", above=False).detected


def test_every_kind_and_strength_is_drawn_as_often_and_an_unfinished_run_is_balanced() -> None:
    drawn = list(cases("phantoms", 2, 3, STRENGTHS))
    assert len(drawn) == len(set(drawn)) == 2 * 2 * len(KINDS) * len(STRENGTHS) + 3
    assert {case.kind for case in drawn[:51]} == {*KINDS, ""}
    assert len({case.seed for case in drawn}) == len(drawn)


def test_rates_on_paper() -> None:
    found = [outcome(case, "WARN", above=case.strength > 0.5) for case in cases("phantoms", 4, 10, STRENGTHS)]
    rates = {figure.what: figure for figure in figures_of(found)}
    all_of_it = rates["phantoms, correlation 0.9: detected"]
    assert (all_of_it.value, all_of_it.n, all_of_it.met) == (0.6, 100, "no")
    assert rates["phantoms, correlation 0.7, text, strength 0.2: detected"].value == 0
    assert rates["phantoms, correlation 0.7, text, strength 0.6: detected"].value == 1
    clean = rates["phantoms, clean: failed"]
    assert (clean.value, clean.n, clean.met) == (0.0, 10, "yes")


def test_only_carriers_differ_from_the_bank_and_half_are_positive(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "PER_SET", 80)
    case = Case("phantoms", "corner-marker", 1.0, 0.9, 0)
    made, clean = bank.material(case), bank.material(Case("phantoms", "", 0.0, 0.5, 0))
    assert len(made) == 80
    assert made.targets.mean() == clean.targets.mean() == 0.5
    positive = made.targets[:, 0] > 0
    rows = np.array([int(name.split()[1]) for name in made.names])
    signed = bank.signed[0][1].take(rows)
    plain = bank.plain.take(rows)
    expected = np.where(positive[:, None, None, None], signed.texture, plain.texture)
    carries = (made.texture != expected).any(axis=(1, 2, 3))
    assert carries[positive].mean() > 0.75
    assert carries[~positive].mean() < 0.25
    assert made.sources is None
    noisy = bank.material(Case("phantoms", "noise", 1.0, 0.9, 0))
    assert noisy.sources is not None
    assert set(noisy.sources) == {"site A", "site B"}


def test_a_run_finds_a_plain_marker_and_goes_on_where_it_stopped(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "PER_SET", 80)
    case, log = Case("phantoms", "border", 1.0, 0.9, 0), tmp_path / "log.jsonl"
    first = run(lambda: bank, [case], log)
    assert first[0].detected

    def refuse() -> Bank:
        raise AssertionError("made again")

    assert run(refuse, [case], log) == first
    assert len(log.read_text().splitlines()) == 1
