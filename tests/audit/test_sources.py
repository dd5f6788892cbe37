"""T2 and leaving sources out: a source is a shortcut only if it can be told and goes with the label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats.contingency import association

from tests.audit.films import material
from wetread.audit.material import Material
from wetread.audit.sources import OTHERS, cramers_v, grouped_sources, outside_sources, sources_line
from wetread.audit.thresholds import Thresholds

LIMITS = Thresholds()


def from_two(found: Material, second: NDArray[np.bool_], *, visible: bool) -> Material:
    """Images of two sources; the films of the second have another grain if that is to be visible."""
    texture = found.texture.copy()
    if visible:
        texture[second, :, :, 5] += 1.0
    return replace(found, texture=texture, sources=np.where(second, "south", "north"))


def test_cramers_v_is_scipys_in_large_tables_and_corrected_in_small_ones() -> None:
    table = np.array([[300, 100], [100, 200], [50, 250]])
    assert cramers_v(table) == pytest.approx(association(table, method="cramer"), abs=0.005)
    assert cramers_v(1000 * table) == pytest.approx(association(table, method="cramer"), abs=1e-5)
    assert cramers_v(np.array([[6, 4], [5, 5], [4, 6], [5, 5]])) == 0.0
    assert cramers_v(np.array([[50, 0], [0, 50]])) == pytest.approx(1.0, abs=1e-9)
    assert cramers_v(np.array([[50, 0], [20, 0]])) == 0.0


def test_a_source_that_is_told_and_goes_with_the_label_fails() -> None:
    found, positive = material(120)
    tied = positive ^ (np.random.default_rng(0).random(120) < 0.1)
    line, pictures = sources_line(from_two(found, tied, visible=True), LIMITS)
    assert line.answer == "FAIL"
    assert "can be told without the organ" in line.sentence
    sorting = next(f.estimate for f in line.figures if "sorting by source" in f.what)
    by_hand = (tied[positive].mean() + (~tied)[~positive].mean()) / 2  # the area under a curve of one corner
    assert sorting.value == pytest.approx(by_hand, abs=0.02)
    assert any("north: " in note and "south: " in note for note in line.notes)
    assert {example.picture for example in line.examples} == set(pictures)


def test_a_source_that_is_told_but_not_tied_passes_and_one_that_is_not_told_does() -> None:
    found, positive = material(120)
    order = np.argsort(positive, kind="stable")
    free = np.zeros(120, np.bool_)
    free[order[::2]] = True  # as many positives in each
    assert sources_line(from_two(found, free, visible=True), LIMITS)[0].answer == "PASS"
    line = sources_line(from_two(found, positive, visible=False), LIMITS)[0]
    assert line.answer == "PASS"
    assert "no shortcut by source" in line.sentence


def test_one_source_or_none_is_not_assessable() -> None:
    found, _ = material(80)
    for sources in (None, np.full(80, "north"), np.where(np.arange(80) < 20, "south", "north")):
        line, pictures = sources_line(replace(found, sources=sources), LIMITS)
        assert (line.answer, pictures) == ("NOT ASSESSABLE", {})
        assert "fewer than two sources" in line.sentence


def test_small_sources_are_judged_together_and_unknown_ones_not_at_all() -> None:
    found, _ = material(120)
    names = np.array(["large"] * 60 + ["a"] * 20 + ["b"] * 20 + [""] * 20)
    grouped = grouped_sources(replace(found, sources=names))
    assert grouped is not None
    assert grouped[0] == ("large", OTHERS)
    assert np.bincount(grouped[1] + 1).tolist() == [20, 60, 40]


def test_three_sources_are_asked_one_against_the_rest() -> None:
    found, _ = material(120)
    texture = found.texture.copy()
    first = np.arange(120) % 3 == 0
    texture[first, :, :, 5] += 1.0
    names = np.array([f"site {i % 3}" for i in range(120)])
    line, _ = sources_line(replace(found, texture=texture, sources=names), LIMITS)
    told = next(f.estimate for f in line.figures if f.what.startswith("AUROC of the source from what lies outside"))
    assert told.value is not None
    assert 0.6 < told.value < 0.9  # one is told, the other two only from it
    assert any("mean over sources" in note for note in line.notes)


def test_a_sign_that_means_the_opposite_elsewhere_is_lost_in_the_source_left_out() -> None:
    """In the south, whose films are striped, a light patch is negative; one label in ten is wrong everywhere."""
    found, _ = material(240, sign=False)
    where, light = np.arange(240) % 3, np.arange(240) // 3 % 2 == 0
    positive = np.where(where == 2, ~light, light) ^ (np.random.default_rng(0).random(240) < 0.1)
    grey = found.grey.astype(int)
    grey[light, 30:80, 40:90] += 60
    grey[where == 2, ::4] -= 100
    changed = replace(
        found,
        grey=np.clip(grey, 0, 255).astype(np.uint8),
        targets=positive[:, None].astype(np.float32),
        sources=np.array(["north", "west", "south"])[where],
    )
    drops = {one.source: one for one in outside_sources(changed)}
    south, north = drops["south"], drops["north"]
    assert south.outside.value is not None
    assert south.outside.value < 0.2
    assert south.drop.low is not None
    assert south.drop.low > 0.5
    assert north.drop.low is not None
    assert north.drop.low < 0.05
    assert (north.label, north.n) == ("positive", 80)
    assert outside_sources(found) == ()


def test_a_source_of_one_class_has_a_reason_and_no_figures() -> None:
    found, positive = material(160)
    drops = outside_sources(replace(found, sources=np.where(positive, "south", "north")))
    assert [one.reason for one in drops]
    assert all(one.drop.value is None and "fewer than 30 of one" in one.reason for one in drops)
