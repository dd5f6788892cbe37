"""What the LIME benchmark measures, on scores that are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lime import (
    DELETED,
    FILMS,
    Measured,
    _figures_of_maps,
    _figures_of_refusals,
    agreement,
    aopc,
    measure,
    ratio_of,
    subset,
    the_usual_way,
    weights_of,
)
from tests.explain.test_lime import a_film, added_up, batch_of, score_of
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantom_dataset import DatasetPlan, make_dataset
from wetread.explain.base import Options, RawMap
from wetread.explain.lime import Chosen, Hider, choose_fill, lime
from wetread.explain.superpixels import Superpixels, divide

SIZES = np.array([1, 1, 2, 1, 5])


def strip() -> Chosen:
    """One row of ten pixels in five superpixels of 1, 1, 2, 1 and 5 pixels."""
    pieces = Superpixels(np.repeat(np.arange(5), SIZES)[None].astype(np.int32))
    image = np.ones((1, 10), dtype=np.float32)
    return Chosen("black", Hider(image, pieces, 0 * image), 0.0, 1.0, (), 0)


def drops(off: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hiding the superpixels takes 4, 3, 2, 1 and 0 from the score."""
    return np.asarray(off @ np.array([4.0, 3, 2, 1, 0]), dtype=np.float64)


def test_aopc_on_paper() -> None:
    """30 % of ten pixels is three: superpixels 0 and 1 fit, 2 does not."""
    assert DELETED == 0.3
    assert aopc(drops, strip(), np.array([0, 1, 2, 3, 4])) == pytest.approx((0 + 4 + 7) / 3)
    assert aopc(drops, strip(), np.array([2, 3, 0, 1, 4])) == pytest.approx((0 + 2 + 3) / 3)
    assert aopc(drops, strip(), np.array([4, 0, 1, 2, 3])) == 0  # half of the film at once: nothing fits


def test_no_order_of_a_sum_beats_that_of_its_weights() -> None:
    one_each = Superpixels(np.repeat(np.arange(5), 2)[None].astype(np.int32))
    chosen = replace(strip(), hider=replace(strip().hider, pieces=one_each))
    best = aopc(drops, chosen, np.arange(5))
    assert all(aopc(drops, chosen, np.array(order)) <= best for order in permutations(range(5)))


def test_agreement_is_the_mean_over_pairs_of_seeds() -> None:
    first, second = np.arange(60.0), np.arange(60.0)
    second[[59, 0]] = second[[0, 59]]  # one of five leaders differs: 4 / 6
    mean, corrected = agreement([first, second, first])
    assert mean == pytest.approx((4 / 6 + 4 / 6 + 1) / 3)
    assert 0 < corrected < mean


def test_a_sum_passes_every_bar_and_beats_the_usual_way() -> None:
    score, film = score_of(added_up), a_film()
    found = measure(score, film, ("film.png", "somebody"), usual=True)
    assert not found.reason
    assert found.jaccard == 1
    assert min(found.r2) > 0.999
    assert found.aopc > 3 * found.aopc_random
    assert found.usual is not None
    assert found.usual["aopc"] < found.aopc


def test_the_usual_numbering_hides_the_wrong_superpixel() -> None:
    """With equal evidence in all but one superpixel, labels that start at 1 blame its neighbour in number."""
    film = a_film()
    pieces = divide(film)
    lone = 30
    inside = pieces.labels == lone
    score = score_of(lambda x: x[:, inside].sum(1) / 8)
    chosen = choose_fill(score, film, pieces, "black")
    (found,) = lime(score, batch_of(film), Options(fill="black"))
    assert isinstance(found, RawMap)
    assert int(np.argmax(weights_of(pieces, found))) == lone
    assert the_usual_way(score, chosen)["aopc"] < 0.5 * measure(score, film, ("", ""), usual=False).aopc


def test_refusals_are_counted_with_their_reason() -> None:
    found = measure(score_of(lambda x: 30 - x.sum((1, 2)) / 100), a_film(), ("film.png", "somebody"), usual=True)
    assert found.reason == "no fill lowers the score of finding"
    assert found.score > 0
    assert not found.samples


def test_a_weak_map_is_refused_and_its_figures_are_kept() -> None:
    def noise(x: Tensor) -> Tensor:
        return (10 + torch.sin(1e4 * x.sum((1, 2)))) * (x.mean((1, 2)) > 0.1)

    found = measure(score_of(noise), a_film(), ("film.png", "somebody"), usual=True)
    assert found.reason == "the line explains too little"
    assert len(found.r2) == 1
    assert found.r2[0] < 0.85
    assert found.weak is not None
    assert found.weak["r2"] < 0.85
    assert measure(score_of(noise), a_film(), ("film.png", "somebody"), usual=False).weak is None
    rows = {row.what: row.value for row in _figures_of_refusals("net", [found] * 12, "protocol")}
    assert rows["net: R2 of refused lines"] == pytest.approx(found.r2[0])


def films(n: int = 12) -> list[Measured]:
    one = Measured(
        "", "", "finding", 3.0, r2=(0.9,), saturated=(0.0,), samples=(900.0,), cpu_seconds=(2.0,), jaccard=0.9
    )
    return [replace(one, patient=f"p{i}", aopc=4.0 + i / 10, aopc_random=1.0) for i in range(n)]


def test_the_ratio_is_that_of_the_means_and_not_defined_where_hiding_does_not_lower_the_score() -> None:
    maps = films()
    patients = np.array([film.patient for film in maps])
    assert ratio_of(maps, patients).value == pytest.approx(4.55)
    below = [replace(film, aopc_random=-0.1) for film in maps]
    assert ratio_of(below, patients).value is None


def test_every_bar_has_its_row() -> None:
    rows = {row.what: row for row in _figures_of_maps("EfficientNet-lite0", films(), "protocol")}
    bars = {what.split(": ")[1]: row.met for what, row in rows.items() if row.bar}
    assert bars == {
        "seed Jaccard": "yes",
        "R2, out of sample": "yes",
        "AOPC less three times that of random orders": "yes",
        "AOPC over random": "yes",
        "CPU time": "yes",
    }


def test_networks_learn_whole_patients_and_the_test_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = DatasetPlan(n=60, size_px=64, masks=False, format="png", fractions={"train": 0.5, "val": 0.2, "test": 0.3})
    manifest = make_dataset(tmp_path / "set", plan)
    monkeypatch.setitem(FILMS, "train", 10)
    monkeypatch.setitem(FILMS, "val", 5)
    small = subset(manifest)

    def films_of(one: Manifest, split: str) -> set[str]:
        return set(one.table.loc[one.table["split"] == split, "path"])

    assert films_of(small, "test") == films_of(manifest, "test")
    assert 10 <= len(films_of(small, "train")) <= 14
    chosen = small.table[small.table["split"] == "train"]
    left = manifest.table[~manifest.table["path"].isin(chosen["path"])]
    assert not set(chosen["patient"]) & set(left["patient"])
