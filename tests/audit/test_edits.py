"""T5: what is laid into a film is there and small, and moves the readers that look at it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.audit.looking import CORNER, MIDDLE, films, looking_at
from tests.models.support import small_reader
from wetread.audit.edits import CONTROL, CORNERS, Corner, edit_variants, judge_edits, marker_at, tube, without_marks
from wetread.audit.thresholds import Thresholds, thresholds_of
from wetread.audit.variants import Readings, read_variants
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantoms import render, sample_spec
from wetread.models.predict import Reader

SIDE = 200


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return films(tmp_path_factory.mktemp("films"), 60)


def readings(reader: Reader, manifest: Manifest) -> Readings:
    return read_variants(reader, manifest, edit_variants())


@pytest.mark.parametrize("corner", CORNERS)
def test_a_letter_stands_in_its_corner_and_leaves_the_rest(corner: Corner) -> None:
    grey = np.full((SIDE, 2 * SIDE), 0.3, np.float32)
    for seed in range(6):
        changed = marker_at(grey, corner, np.random.default_rng(seed)) != grey
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert (rows.max() < SIDE * 0.25) if corner.startswith("upper") else (rows.min() > SIDE * 0.75)
        assert (columns.max() < SIDE * 0.25) if corner.endswith("left") else (columns.min() > SIDE * 1.75)
        assert 0.001 < changed.mean() * 2 < 0.03


def test_a_letter_of_no_size_is_no_letter() -> None:
    grey = np.full((SIDE, SIDE), 0.3, np.float32)
    np.testing.assert_array_equal(marker_at(grey, "upper left", np.random.default_rng(0), 0.0), grey)


def test_a_tube_is_a_thin_bright_line_that_comes_from_above() -> None:
    film = tube(np.full((SIDE, SIDE), 0.3, np.float32), np.random.default_rng(1))
    line = film > 0.35
    assert 0.002 < line.mean() < 0.03
    assert line[0].any()
    assert not line[:, 0].any()
    assert film.min() >= 0.3 - 1e-6
    assert film.max() < 0.65


def test_marks_are_taken_out_and_bones_stay() -> None:
    """Letters laid into phantoms vanish; a film without them changes hardly."""
    left, kept = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        film = render(sample_spec(rng, size_px=256)).image
        lettered = marker_at(film, "upper left", rng)
        letter = np.abs(lettered - film) > 0.2
        cleaned = without_marks(lettered, rng)
        left.append(np.abs(cleaned - film)[letter].mean() / np.abs(lettered - film)[letter].mean())
        kept.append((without_marks(film, rng) != film)[~letter].mean())
    assert np.mean(left) < 0.35
    assert max(kept) < 0.02


def test_a_film_without_marks_stays_as_it_is() -> None:
    smooth = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (SIDE, 1))
    np.testing.assert_array_equal(without_marks(smooth, np.random.default_rng(0)), smooth)


def test_a_reader_of_a_corner_fails(manifest: Manifest) -> None:
    """Its corner is just dark enough in all films: a letter in it turns the answer of every one."""
    line, pictures = judge_edits(readings(looking_at(CORNER, 0.26), manifest), Thresholds())
    assert (line.code, line.answer, line.n) == ("T5", "FAIL", 60)
    assert line.sentence.startswith("With a letter, upper left,")
    shares = {one.what: one.estimate for one in line.figures}
    turned = shares["a letter, upper left: decisions on ill that change"]
    assert turned.value is not None
    assert turned.value > 0.5
    assert turned.method == "Wilson"
    towards = shares["a letter, upper left: mean change of p(ill), towards it if above 0"].value
    assert towards is not None
    assert towards > 0.1
    assert shares["a letter, lower right: mean change of p(ill), either way"].value == 0.0
    assert "the decision changes" in line.examples[0].caption
    assert set(pictures) == {one.picture for one in line.examples}


def test_a_reader_of_the_organ_passes(manifest: Manifest) -> None:
    line, _ = judge_edits(readings(looking_at(MIDDLE, 0.6), manifest), Thresholds())
    assert (line.answer, line.cure) == ("PASS", "")
    assert any("a letter of no size changes the probability by 0 at most" in note for note in line.notes)


def test_limits_decide(manifest: Manifest) -> None:
    found = readings(looking_at(CORNER, 0.26), manifest)
    lenient = thresholds_of(["t5_flips_fail=1", "t5_change_fail=1"])
    line, _ = judge_edits(found, lenient)
    assert line.answer == "WARN"
    assert line.thresholds["t5_flips_fail"] == 1.0


def test_few_films_and_a_restless_reader_are_not_assessable(manifest: Manifest, tmp_path: Path) -> None:
    few, _ = judge_edits(readings(looking_at(CORNER, 0.26), films(tmp_path, 20)), Thresholds())
    assert (few.answer, few.sentence) == ("NOT ASSESSABLE", "20 films are too few to say whether decisions change.")
    found = readings(looking_at(MIDDLE, 0.6), manifest)
    logits = found.logits.copy()
    logits[:, [one.name for one in found.variants].index(CONTROL)] += 1e-3
    line, _ = judge_edits(replace(found, logits=logits), Thresholds())
    assert line.answer == "NOT ASSESSABLE"
    assert "differently when asked twice" in line.sentence


def test_of_many_labels_the_one_that_moves_most_is_shown(tmp_path: Path) -> None:
    manifest, labels = films(tmp_path, 50), ("a", "b", "c", "d")
    table = manifest.table.assign(**{f"label_{one}": np.arange(50) % 2 for one in labels})
    meta = manifest.meta.model_copy(update={"task": "multilabel", "classes": labels})
    reader = small_reader("cnn", 32, labels, task="multilabel")
    line, _ = judge_edits(readings(reader, replace(manifest, table=table, meta=meta)), Thresholds())
    assert len(line.figures) == 3 * (len(edit_variants()) - 1)
