"""The localisation benchmark draws what it says, multiplies maps, and counts hits on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.localisation import KINDS, METHODS, SLOW, Films, drawn, heats_of, measured, placed, summary, trained
from tests.models.support import small_reader
from wetread.explain.base import Target
from wetread.explain.localisation import Localisation
from wetread.models.predict import Reader


def reader() -> Reader:
    return small_reader("cnn", 32)


@pytest.fixture(scope="module")
def films() -> Films:
    return drawn(14, seed=5)


def test_films_are_phantoms_with_one_lesion_or_none(films: Films) -> None:
    assert len(films.pixels) == len(films.masks) == len(films.kinds) == len(films.patients) == 14
    assert set(films.kinds) == {*KINDS, ""}
    assert [mask.any() for mask in films.masks] == [bool(kind) for kind in films.kinds]
    assert all(mask.shape == one.shape for mask, one in zip(films.masks, films.pixels, strict=True))
    again = drawn(14, seed=5)
    assert all(np.array_equal(one, other) for one, other in zip(films.pixels, again.pixels, strict=True))


def test_every_method_can_be_asked_for() -> None:
    assert set(SLOW) < set(METHODS)
    for method, layer in METHODS.values():
        Target("finding", method, layer)  # type: ignore[arg-type]


def test_heat_lies_on_the_whole_film_and_fine_stays_within_the_usual_map(films: Films) -> None:
    some = [one for one, kind in zip(films.pixels, films.kinds, strict=True) if kind]
    usual = heats_of(reader(), some, "gradcam", None)
    fine = heats_of(reader(), some, "gradcam", "fine")
    assert any(one.any() for one in fine)
    for film, one, other in zip(some, usual, fine, strict=True):
        assert one.shape == other.shape == film.shape
        assert one.max() <= 1
        assert not other.any() or one.any()


def test_films_without_a_map_have_no_place(films: Films) -> None:
    rows = np.flatnonzero([bool(kind) for kind in films.kinds])
    found = placed(reader(), films, rows, np.ones(14, np.bool_), "gradcam", None)
    assert len(found) == len(rows)
    assert all(one is None or 0 <= one.hit <= 1 for one in found)


def test_hits_are_counted_by_hand() -> None:
    def place(hit: float) -> Localisation:
        return Localisation(
            hit=hit, tolerant_hit=1, tolerance_px=15, mass=0.2, rank=0.1, area=0.05, lift=4, overlap=0.1
        )

    kinds = ["nodule", "consolidation", "", "nodule", "consolidation"]
    films = Films([], [], kinds, list("abcde"))
    rows, called = np.array([0, 1, 3, 4]), np.array([True, True, True, False, True])
    found = summary("m (default)", films, rows, called, [place(1), place(0), None, place(1)], "how")
    by_name = {one.what.removeprefix("m (default): "): one for one in found}
    wanted = {
        "hit rate": (0.5, 4),  # the film without a map is a miss
        "hit rate, called": (2 / 3, 3),
        "lift, called": (4, 3),
        "mIoU": (0.075, 4),
        "hit rate, called, nodule": (1, 1),
        "hit rate, called, consolidation": (0.5, 2),
    }
    for name, (value, count) in wanted.items():
        assert by_name[name].value == pytest.approx(value)
        assert by_name[name].n == count
    assert [by_name[name].met for name in ("hit rate, called", "lift, called", "mIoU")] == ["no", "no", ""]


def test_a_run_from_nothing_to_figures(tmp_path: Path) -> None:
    settings = {"model": "logistic", "image_size": 64, "name": "lesions", "tensorboard": False, "threads": 1}
    made = trained(tmp_path, settings, count=40)
    assert made.labels == ("abnormal",)
    found = measured(made, drawn(16, seed=6), ["gradcam (default)"])
    assert found[0].what == "the reader itself: AUROC"
    assert {one.what for one in found if one.bar} == {
        f"gradcam (default): {what}" for what in ("hit rate", "hit rate, called", "lift", "lift, called")
    }
    assert (tmp_path / "lesions" / "reader" / "card.json").is_file()
