"""T4: a reader that looks at the organ passes, one that looks at a corner fails, and the fills give nothing away."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.audit.looking import CORNER, MIDDLE, ORGAN, SIDE_PX, films, looking_at
from tests.models.test_guide import guide as bright
from wetread.audit.organ_need import (
    FILLS,
    _at_chance,
    _Found,
    _most,
    _sentence,
    judge_organ_need,
    organ_variants,
    settled,
    smooth_fill,
)
from wetread.audit.result import AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import OrganSource, read_variants
from wetread.datasets.manifest import Manifest
from wetread.evaluation.auroc import auroc_estimate
from wetread.models.predict import Reader
from wetread.types import Estimate

LUNGS = OrganSource("lungs", margin=0.05)


def asked(reader: Reader, manifest: Manifest, organ: OrganSource | None = LUNGS) -> tuple[AuditLine, dict[str, bytes]]:
    return judge_organ_need(read_variants(reader, manifest, organ_variants(), organ=organ), Thresholds())


def value(line: AuditLine, what: str) -> float:
    (found,) = [one.estimate.value for one in line.figures if what in one.what]
    assert found is not None
    return found


def test_a_reader_of_the_organ_passes(tmp_path: Path) -> None:
    line, pictures = asked(looking_at(MIDDLE, 0.6), films(tmp_path))
    assert (line.code, line.answer, line.n, line.cure) == ("T4", "PASS", 80, "")
    assert value(line, "lungs alone, black") == 1.0
    assert value(line, "lungs painted over, black") == 0.5
    assert value(line, "outline") == 0.5
    assert "Without the lungs the reader is blind" in line.sentence
    assert not any("up to 1.00" in note for note in line.notes)
    assert any("black" in note and "all films get one answer" in note for note in line.notes)
    assert line.thresholds == {"t4_organ_keeps": 0.9}
    assert [one.picture for one in line.examples] == sorted(pictures) == [f"t4-{k}.png" for k in (1, 2, 3, 4)]
    assert [one.caption.split(";")[0] for one in line.examples] == ["ill", "ill", "no ill", "no ill"]


def test_a_pass_by_two_of_three_fills_says_so() -> None:
    chance, more = (Estimate(value=v, low=v - 0.06, high=v + 0.06, n=400, method="", note="") for v in (0.53, 0.64))
    alone = dict.fromkeys(FILLS, Estimate(value=0.98, low=0.97, high=0.99, n=400, method="", note=""))
    found = _Found(
        0, "ill", 200, alone["grey"], dict(zip(FILLS, (more, chance, chance), strict=True)), alone, more, more
    )
    assert found.answer(0.9) == "PASS"
    assert "blind by 2 of 3 fills, and" in _sentence(found, "PASS", "lungs")
    assert "0.53 to 0.64 without the lungs" in _sentence(found, "PASS", "lungs")


def test_answers_that_are_all_alike_tell_nothing_and_those_of_two_heaps_tell_all() -> None:
    truth = np.repeat([True, False], 40)
    alike = auroc_estimate(np.full(80, 0.7), truth)
    assert (alike.value, alike.low) == (0.5, None)
    assert (_at_chance(alike), _most(alike)) == (True, 0.5)
    apart = auroc_estimate(truth.astype(float), truth)
    assert (apart.value, apart.low) == (1.0, None)
    assert (_at_chance(apart), _most(apart)) == (False, 1.0)


def test_answers_that_differ_by_rounding_alone_are_alike() -> None:
    truth = np.repeat([True, False], 40)
    noise = 0.98291477 + 2e-8 * truth  # as seen: one grey for every film
    assert auroc_estimate(noise, truth).value == 1.0
    assert auroc_estimate(settled(noise), truth).value == 0.5
    near = np.array([0.0, 0.001, 0.5, 0.502, 0.999, 1.0])
    assert (np.diff(settled(near)) > 0).all()  # and nothing else is, certain answers included
    assert np.isfinite(settled(near)).all()


def test_a_reader_of_a_corner_fails_although_the_organ_tells_the_label_too(tmp_path: Path) -> None:
    manifest = films(tmp_path, signal=CORNER)
    line, _ = asked(looking_at(CORNER, 0.35), manifest)
    assert line.answer == "FAIL"
    assert not any("one answer" in note for note in line.notes)
    assert "as well without the lungs" in line.sentence
    assert all(value(line, f"painted over, {fill}") == 1.0 for fill in FILLS)
    assert "--guide" in line.cure


def test_a_reader_that_adds_both_is_warned_of(tmp_path: Path) -> None:
    """A mark in the corner goes with the label in four of five films; the organ always does."""
    line, _ = asked(looking_at((slice(0, 46), slice(0, 48)), 0.36), films(tmp_path, step=0.1, marked=0.8))
    assert line.answer == "WARN"
    assert value(line, "whole films") == 1.0
    for fill in FILLS:
        assert 0.7 < value(line, f"painted over, {fill}") < 0.9
        assert value(line, f"lungs alone, {fill}") > 0.95
    assert "still tells films apart in which the lungs are painted over" in line.sentence


def test_few_patients_no_organ_no_mask_and_a_blind_reader_are_not_assessable(tmp_path: Path) -> None:
    reader = looking_at(MIDDLE, 0.6)
    few, _ = asked(reader, films(tmp_path / "few", 40))
    assert few.answer == "NOT ASSESSABLE"
    assert "20 patients of one class" in few.sentence
    assert "at least 30 patients with and 30 without each label" in few.cure

    manifest = films(tmp_path / "bare", masks=False)
    line, pictures = asked(reader, manifest, None)
    assert (line.answer, line.sentence, pictures) == ("NOT ASSESSABLE", "No organ is named.", {})
    line, _ = asked(reader, manifest, OrganSource("lungs"))
    assert (line.answer, line.sentence) == ("NOT ASSESSABLE", "No film has a mask of the lungs.")

    blind, _ = asked(looking_at((slice(50, 64), slice(50, 64)), 0.25), films(tmp_path / "blind"))
    assert blind.answer == "NOT ASSESSABLE"
    assert "whole films are not told above chance" in blind.sentence


def test_the_notes_of_a_guided_reader_say_what_is_left(tmp_path: Path) -> None:
    reader = looking_at(MIDDLE, 0.6)
    own = bright(fill="mean", margin=0.0)
    guided = Reader(reader.card.model_copy(update={"guide": own.spec}), reader.networks, guide=own)
    line, _ = asked(guided, films(tmp_path))
    assert any("what is left is one grey, the outline" in note for note in line.notes)
    assert any("80 annotated, 0 found by a segmenter; 0 films without one" in note for note in line.notes)


def test_a_strip_shows_five_films_with_their_probabilities(tmp_path: Path) -> None:
    _, pictures = asked(looking_at(MIDDLE, 0.6), films(tmp_path))
    with PilImage.open(io.BytesIO(pictures["t4-1.png"])) as strip:
        picture = np.asarray(strip)
    assert picture.shape[1] == 5 * (224 + 8) + 8
    whole, black = (picture[8:232, left : left + 224] for left in (8, 8 + 2 * 232))
    organ = tuple(slice(round(side.start * 3.5) + 2, round(side.stop * 3.5) - 2) for side in ORGAN)
    assert whole[organ].mean() > 150
    assert black[organ].max() == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_smooth_fill_looks_at_nothing_that_it_hides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.random((90, 70), dtype=np.float32)
    kept = np.ones(pixels.shape, np.bool_)
    kept[20:60, 15:50] = False
    other = np.where(kept, pixels, 1 - pixels).astype(np.float32)
    first, second = (smooth_fill(one, kept, np.random.default_rng(7)) for one in (pixels, other))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[kept], pixels[kept])


def test_a_smooth_fill_continues_a_ramp_and_draws_no_edge() -> None:
    ramp = np.tile(np.linspace(0.2, 0.8, SIDE_PX, dtype=np.float32), (SIDE_PX, 1))
    kept = np.ones(ramp.shape, np.bool_)
    kept[ORGAN] = False
    filled = smooth_fill(ramp, kept, np.random.default_rng(0))
    assert np.abs(filled - ramp).max() < 0.12  # grey would be off by .15 at the edges, black by .65
    assert np.corrcoef(filled[ORGAN].mean(0), ramp[ORGAN].mean(0))[0, 1] > 0.98
    edge = np.abs(filled[18:46, 16] - filled[18:46, 15]).mean()
    assert edge < 0.05


def test_a_smooth_fill_of_everything_or_nothing_leaves_the_film(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 0.3, np.float32)
    for kept in (np.ones((20, 20), np.bool_), np.zeros((20, 20), np.bool_)):
        np.testing.assert_array_equal(smooth_fill(pixels, kept, np.random.default_rng(0)), pixels)
