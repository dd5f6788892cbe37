"""A guided reader is trained on, judged on and read with the same organ, found by the same segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.support import SIDE_PX, tiny
from wetread.datasets.manifest import Manifest
from wetread.errors import BundleRefused, UsageError
from wetread.imaging import load_image
from wetread.models.bundle import load_reader, load_segmenter, save_reader
from wetread.models.card import DataCard, InputSpec, SegmenterCard
from wetread.models.segmenters import build_segmenter
from wetread.reading.read import ReadOptions, read_image
from wetread.training.data import gather
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest

SPEC = InputSpec(height=32, width=32)


def save_segmenter(shelf: Path, seed: int = 0) -> Path:
    """A network with random weights finds something of every image, the same each time."""
    torch.manual_seed(seed)
    card = SegmenterCard(
        kind="segmenter",
        name="lungs-test",
        version="1",
        created="2026-01-01T00:00:00+00:00",
        architecture="residual-unet",
        input=SPEC,
        organs=("lungs",),
        weights={},
        data=DataCard(name="none", images=1, patients=1, sha256=""),
    )
    save_reader(shelf / "lungs-test", card, [build_segmenter("residual-unet", 1, SPEC).eval()])
    return shelf / "lungs-test"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    save_segmenter(folder)
    return folder


@pytest.fixture(scope="module")
def run(binary: Manifest, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "guided"
    train(binary, tiny(guide="mask", segmenter="lungs-test", margin=0.0), out, shelves=[shelf])
    return out


def test_the_card_names_organ_and_segmenter_by_hash(run: Path, shelf: Path) -> None:
    guide = load_reader(run, [shelf]).card.guide
    assert guide is not None
    assert (guide.organ, guide.segmenter) == ("lungs", "lungs-test")
    assert guide.sha256 == load_segmenter("lungs-test", [shelf]).card.sha256


def test_what_lies_outside_the_organ_changes_nothing(run: Path, shelf: Path, binary: Manifest) -> None:
    reader = load_reader(run, [shelf])
    image = load_image(binary.path_of(str(binary.table["path"].iloc[0])))
    (mask,) = reader.organ_masks([image]) or []
    assert 0.02 < mask.mean() < 0.98  # the test would say nothing of a mask of all or nothing
    other = type(image)(np.where(mask, image.pixels, 1 - image.pixels).astype(np.float32), image.facts)
    torch.testing.assert_close(reader.prepare([image], [mask]), reader.prepare([other], [mask]))


def test_one_file_gets_the_probability_that_the_evaluation_gave_it(run: Path, shelf: Path, binary: Manifest) -> None:
    reader = load_reader(run, [shelf])
    table = predict_manifest(reader, binary, "val")
    row = table.iloc[0]
    read = read_image(reader, load_image(binary.path_of(str(row["image"]))), ReadOptions(heatmaps=False))
    if read.gate.passed:
        assert read.labels[0].probability == pytest.approx(row["probability_ill"], abs=1e-4)  # pixels of 16 bits


def test_guided_pixels_have_a_cache_of_their_own(binary: Manifest, shelf: Path, tmp_path: Path, run: Path) -> None:
    guide = load_reader(run, [shelf]).guide
    spec = InputSpec(height=SIDE_PX, width=SIDE_PX)
    table = binary.table.head(4)
    plain = gather(binary, table, spec, tmp_path)
    guided = gather(binary, table, spec, tmp_path, guide=guide)
    again = gather(binary, table, spec, tmp_path, guide=guide)
    assert (plain.pixels != guided.pixels).any()
    np.testing.assert_array_equal(guided.pixels, again.pixels)
    assert set(plain.names).isdisjoint(guided.names)


def test_another_segmenter_of_that_name_is_refused(run: Path, tmp_path: Path) -> None:
    save_segmenter(tmp_path, seed=1)
    with pytest.raises(BundleRefused, match=r"expected the segmenter lungs-test with sha256 .*; import the segmenter"):
        load_reader(run, [tmp_path])


def test_an_organ_that_the_segmenter_does_not_find_is_refused(binary: Manifest, shelf: Path, tmp_path: Path) -> None:
    config = tiny(guide="mask", organ="heart", segmenter="lungs-test")
    with pytest.raises(UsageError, match="expected a segmenter that finds heart, got one for lungs"):
        train(binary, config, tmp_path / "run", shelves=[shelf])
    assert not (tmp_path / "run").exists()


def test_a_reader_is_no_guide(binary: Manifest, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="expected a segmenter, got the reader chest-pneumonia"):
        train(binary, tiny(guide="mask", segmenter="chest-pneumonia"), tmp_path / "run")
