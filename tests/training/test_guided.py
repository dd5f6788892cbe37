"""A guided reader is trained on, judged on and read with the same organ, found by the same segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.support import SIDE_PX, tiny
from wetread.datasets.manifest import Manifest
from wetread.errors import BundleRefused, DatasetRefused, UsageError
from wetread.explain.base import Explanation, Target
from wetread.explain.cam import explain_batch
from wetread.imaging import load_image
from wetread.models.bundle import load_reader, load_segmenter, save_reader
from wetread.models.card import DataCard, InputSpec, SegmenterCard
from wetread.models.inputs import fit_pixels
from wetread.models.organs import SEEN_BY_ALL
from wetread.models.segmenters import build_segmenter
from wetread.provenance import file_sha256
from wetread.reading.read import ReadOptions, read_image
from wetread.training.data import gather
from wetread.training.fit import train
from wetread.training.predictions import predict_manifest
from wetread.types import Image, ImageFacts

SPEC = InputSpec(height=32, width=32)


def save_segmenter(shelf: Path, seed: int = 0, networks: int = 1, held_out: dict[str, int] | None = None) -> Path:
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
    built = [build_segmenter("residual-unet", 1, SPEC).eval() for _ in range(networks)]
    save_reader(shelf / "lungs-test", card, built, held_out=held_out)
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
    (organs,) = reader.organ_masks([image]) or []
    mask = organs["lungs"]
    assert 0.02 < mask.mean() < 0.98  # the test would say nothing of a mask of all or nothing
    other = type(image)(np.where(mask, image.pixels, 1 - image.pixels).astype(np.float32), image.facts)
    torch.testing.assert_close(reader.prepare([image], [organs]), reader.prepare([other], [organs]))


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


@pytest.mark.parametrize("kind", ["attention", "background"])
def test_a_guide_of_the_training_alone_reads_without_its_segmenter(
    binary: Manifest, shelf: Path, tmp_path: Path, kind: str
) -> None:
    config = tiny(guide=kind, segmenter="lungs-test", mixup=0.3)
    train(binary, config, tmp_path / "run", cache=tmp_path / "cache", shelves=[shelf])
    reader = load_reader(tmp_path / "run")  # no shelf: the segmenter is not looked for
    assert reader.guide is None
    assert reader.card.guide is not None
    assert reader.card.guide.kind == kind
    assert reader.card.head.pooling == ("attention" if kind == "attention" else "mean")
    table = predict_manifest(reader, binary, "val")
    image = load_image(binary.path_of(str(table.iloc[0]["image"])))
    forward = reader.forward(reader.prepare([image]))
    assert reader.probabilities(forward)[0, 0] == pytest.approx(table.iloc[0]["probability_ill"], abs=1e-4)


def test_the_background_guide_changes_what_is_learned_and_plain_training_stays_as_it_was(
    binary: Manifest, shelf: Path, tmp_path: Path
) -> None:
    plain, changed = (
        train(binary, tiny(guide=kind, segmenter="lungs-test"), tmp_path / kind, shelves=[shelf]).card
        for kind in ("none", "background")
    )
    assert plain.sha256 != changed.sha256
    assert plain.guide is None


def test_a_crop_shows_the_box_of_the_organ_and_its_heat_lies_in_it(
    binary: Manifest, shelf: Path, tmp_path: Path
) -> None:
    train(binary, tiny(guide="crop", segmenter="lungs-test", margin=0.0), tmp_path / "run", shelves=[shelf])
    reader = load_reader(tmp_path / "run", [shelf])
    pixels = load_image(binary.path_of(str(binary.table["path"].iloc[0]))).pixels
    mask = np.zeros(pixels.shape, bool)
    mask[4:20, 10:24] = True
    image = Image(pixels, ImageFacts(name="film", format="PNG", sha256="", rows=64, columns=64, bits=8))
    alone = Image(pixels[4:20, 10:24].copy(), image.facts)
    batch = reader.prepare([image], [{"lungs": mask}])
    torch.testing.assert_close(batch[0, 0], torch.from_numpy(fit_pixels(alone.pixels, reader.input)))
    (window,) = reader.windows([{"lungs": mask}]) or []
    assert window == (4, 10, 16, 14)
    target = Target(reader.labels[0])
    found = explain_batch(reader, reader.forward(batch), target, [pixels.shape], batch, [window])[0]
    if isinstance(found, Explanation):
        assert found.size == pixels.shape
        assert found.heat.shape == pixels.shape
        assert not found.heat[~mask].any()


def test_a_frozen_encoder_cannot_learn_where_to_look(binary: Manifest, shelf: Path, tmp_path: Path) -> None:
    config = tiny(guide="attention", segmenter="lungs-test", mode="features", model="tf_efficientnet_lite0")
    with pytest.raises(UsageError, match=r"expected a network that learns for --guide attention, got --mode features"):
        train(binary, config, tmp_path / "run", shelves=[shelf])


def test_attention_needs_averaged_feature_maps(binary: Manifest, shelf: Path, tmp_path: Path) -> None:
    config = tiny(guide="attention", segmenter="lungs-test", model="vit_tiny_patch16_224")
    with pytest.raises(UsageError, match=r"expected an encoder that averages feature maps.*; use a convolutional one"):
        train(binary, config, tmp_path / "run", shelves=[shelf])


def test_a_segmenter_that_learned_the_images_does_not_guide_on_them(
    binary: Manifest, tmp_path: Path, shelf: Path
) -> None:
    first = file_sha256(binary.path_of(str(binary.table["path"].iloc[0])))
    folder = tmp_path / "shelf"
    save_segmenter(folder, held_out={first: SEEN_BY_ALL})
    config = tiny(guide="mask", segmenter="lungs-test")
    with pytest.raises(DatasetRefused, match=r"expected masks from a network of lungs-test that never .* --folds 5"):
        train(binary, config, tmp_path / "run", shelves=[folder])
    assert not (tmp_path / "run").exists()


def test_the_fold_that_did_not_learn_an_image_finds_its_organ(tmp_path: Path) -> None:
    names = {"ab" * 32: 1, "cd" * 32: 0}
    save_segmenter(tmp_path, networks=2, held_out=names)
    segmenter = load_segmenter("lungs-test", [tmp_path])
    assert segmenter.held_out == names
    assert segmenter.unseen("ab" * 32).networks == segmenter.networks[1:]
    assert segmenter.unseen("cd" * 32).networks == segmenter.networks[:1]
    assert segmenter.unseen("ef" * 32) is segmenter  # a new image: all networks
