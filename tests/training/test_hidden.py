"""A reader asked again with one organ painted over: what it learned inside is lost, what it learned outside stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.models.test_guide import guide as bright
from tests.training.support import tiny
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused
from wetread.evaluation.hidden import compare_hidden, share_left
from wetread.evaluation.result import EvaluationSpec, HiddenResult
from wetread.models.bundle import load_reader
from wetread.models.guide import Guide, Hidden
from wetread.models.organs import SEEN_BY_ALL, Segmenter
from wetread.provenance import file_sha256
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest

SIDE_PX = 32
ORGAN = (slice(8, 24), slice(8, 24))
CORNER = (slice(0, 6), slice(0, 6))


def drawn(manifest: Manifest, folder: Path, *, inside: bool) -> Manifest:
    """Films with a bright organ, whose label is its brightness, or a grey mark in a corner."""
    random = np.random.default_rng(0)
    for path, label in zip(manifest.table["path"], manifest.table["label"], strict=True):
        pixels = random.uniform(0.15, 0.25, (SIDE_PX, SIDE_PX))
        pixels[ORGAN] = random.uniform(0.68, 0.72, (16, 16))
        pixels[ORGAN if inside else CORNER] += 0.2 if label == "ill" else 0.0
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(folder / path)
    return replace(manifest, folder=folder)


def finder(**changes: object) -> Guide:
    """Finds what is brighter than one half: the organ."""
    return bright(margin=0.06, **changes)


def asked(manifest: Manifest, run: Path) -> HiddenResult:
    train(manifest, tiny(mode="features", model="knn", inputs="pixels", gate=False), run)
    reader = load_reader(run)
    spec = EvaluationSpec(task="binary", classes=("normal", "ill"), split=None, resamples=200)
    # Not those it was trained on: nearest neighbours know their own background by its noise.
    whole, hidden = (predict_manifest(reader, manifest, "val", hide=one) for one in (None, finder()))
    return compare_hidden(whole, hidden, spec, finder().spec)


@pytest.mark.parametrize(("inside", "low", "high"), [(True, 0.2, 0.8), (False, 0.99, 1.0)])
def test_what_was_learned_inside_is_lost_and_what_was_learned_outside_stays(
    binary: Manifest, tmp_path: Path, inside: bool, low: float, high: float
) -> None:
    result = asked(drawn(binary, tmp_path / "films", inside=inside), tmp_path / "run")
    (row,) = result.labels
    assert row.whole.value == pytest.approx(1.0)
    assert row.hidden.value is not None
    assert low <= row.hidden.value <= high
    assert row.left == pytest.approx((row.hidden.value - 0.5) / 0.5)
    assert row.difference.value == pytest.approx(row.hidden.value - 1)
    assert (result.organ, result.segmenter, result.margin) == ("lungs", "bright", 0.06)


def test_share_left_by_hand() -> None:
    assert share_left(0.9, 0.7) == pytest.approx(0.5)
    assert share_left(0.9, 0.4) == pytest.approx(-0.25)
    assert share_left(0.5, 0.7) is None
    assert share_left(None, 0.7) is None


def test_the_reader_is_shown_the_same_place_with_and_without_the_organ(binary: Manifest, tmp_path: Path) -> None:
    """A guided reader still gets the mask of the whole image: only what fills it changes."""
    from wetread.imaging import load_image

    manifest = drawn(binary, tmp_path / "films", inside=True)
    image = load_image(manifest.path_of(str(manifest.table["path"].iloc[0])))
    own = bright(margin=0.0, kind="crop")
    shown = Hidden(finder(), own).pixels(image)
    assert shown.shape == (16, 16)
    assert shown.max() < 0.5  # the bright organ is gone
    rest = ~finder().area(image)
    np.testing.assert_allclose(shown, image.pixels[rest].mean(), atol=1e-5)


def test_an_image_without_the_organ_stays_whole(binary: Manifest, tmp_path: Path) -> None:
    from wetread.imaging import load_image

    manifest = drawn(binary, tmp_path / "films", inside=True)
    path = manifest.path_of(str(manifest.table["path"].iloc[0]))
    PilImage.fromarray(np.full((SIDE_PX, SIDE_PX), 40, np.uint8)).save(path)
    image = load_image(path)
    np.testing.assert_array_equal(Hidden(finder()).pixels(image), image.pixels)


def test_a_finder_that_learned_the_images_is_refused(binary: Manifest, tmp_path: Path) -> None:
    manifest = drawn(binary, tmp_path / "films", inside=True)
    train(manifest, tiny(mode="features", model="knn", inputs="pixels", gate=False), tmp_path / "run")
    reader, plain = load_reader(tmp_path / "run"), finder()
    tests = manifest.table[manifest.table["split"] == "test"]["path"]
    seen = {file_sha256(manifest.path_of(str(path))): SEEN_BY_ALL for path in tests}
    knowing = replace(plain, segmenter=Segmenter(plain.segmenter.card, plain.segmenter.networks, seen))
    with pytest.raises(DatasetRefused, match=r"expected masks from a network of bright that never learned the image"):
        predict_manifest(reader, manifest, "test", hide=knowing)
