"""The engine: the same film changed in several ways, read once each, with nothing left to chance or company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.audit.looking import CORNER, MIDDLE, films, looking_at
from tests.models.support import small_reader
from tests.models.test_guide import guide as bright
from wetread.audit.variants import UNTOUCHED, Film, OrganSource, Variant, called, read_variants, sampled, worst
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, SplitRefused, UsageError, WetreadError
from wetread.models.organs import SEEN_BY_ALL, Segmenter
from wetread.models.predict import Reader
from wetread.provenance import file_sha256
from wetread.training.predictions import predict_manifest
from wetread.types import Estimate, OperatingPoint

SAME = Variant("same pixels", lambda film, _: film.pixels.copy())
NOISY = Variant("noise", lambda film, rng: film.pixels + rng.normal(0, 0.1, film.pixels.shape).astype(np.float32))


def _darkened(film: Film, _: np.random.Generator) -> np.ndarray:
    assert film.area is not None
    return np.where(film.area, np.float32(0), film.pixels)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return films(tmp_path_factory.mktemp("films"), 37)


@pytest.fixture(scope="module")
def cnn() -> Reader:
    """A convolutional reader, whose last bits do depend on the batch."""
    return small_reader("cnn", 64, ("ill",), classes=("normal", "ill"), views=2)


def test_a_change_of_no_pixel_changes_nothing_at_all(manifest: Manifest, cnn: Reader) -> None:
    one_view = replace(SAME, name="same, one view", views=1)
    found = read_variants(cnn, manifest, [NOISY, SAME, one_view])
    for name in (SAME.name, one_view.name):
        pair = found.pair(name)
        np.testing.assert_array_equal(pair.before, pair.after)
    assert (found.pair(NOISY.name).before != found.pair(NOISY.name).after).all()
    assert not np.array_equal(found.pair(SAME.name).before, found.pair(one_view.name).before)


def test_untouched_films_are_read_as_evaluate_reads_them(manifest: Manifest, cnn: Reader) -> None:
    found = read_variants(cnn, manifest, [SAME])
    table = predict_manifest(cnn, manifest).set_index("image")["probability_ill"]
    paths = sampled(manifest.table, None, 0)["path"]
    np.testing.assert_allclose(found.probabilities(UNTOUCHED)[:, 0], table[paths], atol=1e-4)


def test_order_company_and_number_of_films_change_nothing(manifest: Manifest, cnn: Reader) -> None:
    alone = read_variants(cnn, manifest, [NOISY])
    few = read_variants(cnn, manifest, [SAME, replace(NOISY, limit=9)])
    np.testing.assert_allclose(few.pair("noise").after, alone.pair("noise").after[:9], atol=1e-6)
    assert len(few) == 37
    assert not np.array_equal(alone.logits, read_variants(cnn, manifest, [NOISY], seed=1).logits)


def test_a_limit_keeps_patients_whole(tmp_path: Path) -> None:
    table = films(tmp_path, 12, images_per_patient=3).table
    assert sampled(table, 7, 0)["patient"].value_counts().tolist() == [3, 3]
    assert len(sampled(table, 2, 0)) == 3  # one patient at least
    assert sampled(table, 6, 0).equals(sampled(table, None, 0).head(6))
    drawn = {tuple(sampled(table, 6, seed)["patient"].unique()) for seed in range(8)}
    assert len(drawn) > 3


def test_pictures_show_what_was_read(manifest: Manifest, cnn: Reader) -> None:
    found = read_variants(cnn, manifest, [NOISY])
    (shown,) = found.pixels(5, ["noise"])
    again = cnn.forward(cnn.prepare([replace(found.films.film(5, with_organ=False).image, pixels=shown)]))
    np.testing.assert_allclose(again.logits.numpy()[0], found.logits[5, 1], atol=1e-5)


def test_masks_are_the_data_set_s_where_all_films_have_one(tmp_path: Path) -> None:
    manifest = films(tmp_path, 12)
    hide = Variant("hidden", _darkened, needs_organ=True, found_again=False)
    reader = looking_at(MIDDLE, 0.5)
    whole = read_variants(reader, manifest, [hide], organ=OrganSource("lungs", margin=0.0))
    assert whole.masks == {"annotated": 12, "found": 0, "none": 0}
    np.testing.assert_allclose(whole.pair("hidden").after, 1 / (1 + np.exp(20)), rtol=1e-3)  # black is .5 too dark

    table = manifest.table.assign(mask_lungs=pd.Series([None, *["organ.png"] * 11], dtype=object))
    partly = manifest.with_table(table)
    left_out = read_variants(reader, partly, [hide], organ=OrganSource("lungs", margin=0.0))
    assert left_out.masks == {"annotated": 11, "found": 0, "none": 1}
    assert len(left_out.pair("hidden").rows) == 11
    found = read_variants(reader, partly, [hide], organ=OrganSource("lungs", bright(), margin=0.0))
    assert found.masks == {"annotated": 0, "found": 12, "none": 0}


def test_a_finder_that_learned_the_films_finds_nothing(tmp_path: Path) -> None:
    manifest, plain = films(tmp_path, 4, masks=False), bright()
    seen = {file_sha256(manifest.path_of(str(path))): SEEN_BY_ALL for path in manifest.table["path"]}
    knowing = replace(plain, segmenter=Segmenter(plain.segmenter.card, plain.segmenter.networks, seen))
    hide = Variant("hidden", _darkened, needs_organ=True)
    found = read_variants(looking_at(MIDDLE, 0.5), manifest, [hide], organ=OrganSource("lungs", knowing))
    assert found.masks == {"annotated": 0, "found": 0, "none": 4}


def test_a_guided_reader_finds_its_organ_again_in_an_edited_film_but_not_in_one_without_it(tmp_path: Path) -> None:
    """What is darkened lies in the organ: found again there is none, and black fills the whole film."""
    manifest = films(tmp_path, 4)
    reader = looking_at(CORNER, 0.0)  # what the guide fills is what it sees
    guided = Reader(reader.card, reader.networks, guide=bright(fill="mean", margin=0.0))
    organ = OrganSource("lungs", margin=0.0)
    kept, again = (Variant(name, _halved, needs_organ=True, found_again=name == "again") for name in ("kept", "again"))
    found = read_variants(guided, manifest, [kept, again], organ=organ)
    grey = {
        name: found.logits[:, [one.name for one in found.variants].index(name), 0] / 40 for name in ("kept", "again")
    }
    np.testing.assert_allclose(grey["kept"], np.where(found.targets[:, 0] > 0, 0.35, 0.25), atol=0.02)
    np.testing.assert_allclose(grey["again"], 0.0, atol=1e-6)


def _halved(film: Film, _: np.random.Generator) -> np.ndarray:
    assert film.area is not None
    return np.where(film.area, film.pixels / 2, film.pixels).astype(np.float32)


def test_decisions_are_those_of_a_read() -> None:
    rate = Estimate(value=1.0)
    point = OperatingPoint(name="youden", label="ill", threshold=0.7, rule="", sensitivity=rate, specificity=rate)
    p = np.array([[0.6], [0.7]])
    assert called(looking_at(CORNER, 0.5, operating_points=(point,)), p).tolist() == [[False], [True]]
    assert called(looking_at(CORNER, 0.5), p).tolist() == [[True], [True]]
    several = small_reader(labels=("a", "b", "c"))
    assert called(several, np.array([[0.3, 0.4, 0.3]])).tolist() == [[False, True, False]]


def test_a_leaking_split_and_other_labels_are_refused(tmp_path: Path) -> None:
    manifest = films(tmp_path, 12, images_per_patient=2)
    leaking = manifest.with_table(manifest.table.assign(split=["train", "test"] * 6))
    with pytest.raises(SplitRefused, match=r"expected every patient, study and image in one split, got 6 patients"):
        read_variants(looking_at(CORNER, 0.5), leaking, [SAME])
    other = small_reader("cnn", 64, ("tumour",))
    with pytest.raises(DatasetRefused, match=r"expected a data set with the reader's classes normal, tumour"):
        read_variants(other, manifest, [SAME])
    with pytest.raises(SplitRefused, match=r"expected images in the split 'val', got none"):
        read_variants(looking_at(CORNER, 0.5), manifest, [SAME], split="val")


def test_variants_need_names_of_their_own_and_to_be_there(manifest: Manifest) -> None:
    reader = looking_at(CORNER, 0.5)
    with pytest.raises(UsageError, match="expected variants with names of their own"):
        read_variants(reader, manifest, [SAME, SAME])
    with pytest.raises(UsageError, match="expected at least one variant, got none"):
        read_variants(reader, manifest, [])
    with pytest.raises(UsageError, match="expected a variant among untouched, same pixels, got 'other'"):
        read_variants(reader, manifest, [SAME]).pair("other")


def test_an_unreadable_film_is_named(tmp_path: Path) -> None:
    manifest = films(tmp_path, 4)
    (tmp_path / "002.png").write_bytes(b"no picture")
    with pytest.raises(DatasetRefused, match=r"expected readable images, got 002\.png"):
        read_variants(looking_at(CORNER, 0.5), manifest, [SAME])


def test_scores_that_are_not_finite_are_refused_and_not_left_out(manifest: Manifest) -> None:
    with pytest.raises(WetreadError, match="expected finite scores, got NaN or infinity"):
        read_variants(looking_at(CORNER, float("nan")), manifest, [SAME])


def test_the_worst_of_what_could_be_assessed_decides() -> None:
    assert worst(["PASS", "NOT ASSESSABLE", "WARN"]) == "WARN"
    assert worst(["NOT ASSESSABLE", "PASS"]) == "PASS"
    assert worst(["WARN", "FAIL"]) == "FAIL"
    assert worst([]) == "NOT ASSESSABLE"
