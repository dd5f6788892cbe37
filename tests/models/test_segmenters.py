"""Networks that find organs: shapes, names, first weights; and their bundles on disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.support import image_of, segmenter_card, small_reader, small_segmenter
from wetread.errors import BundleRefused, UsageError
from wetread.models.backbones import load_encoder_weights, make_encoder
from wetread.models.bundle import (
    export_reader,
    import_reader,
    list_bundles,
    list_readers,
    load_any_card,
    load_reader,
    load_segmenter,
    round_weights,
    save_reader,
)
from wetread.models.card import InputSpec, SegmenterCard
from wetread.models.organs import Segmenter
from wetread.models.readme import card_readme
from wetread.models.registry import EMBEDDED
from wetread.models.segmenters import build_segmenter, encoder_parameters, load_pretrained, segmenter_of

SPEC = InputSpec(height=64, width=64)
KINDS = ("unet", "residual-unet", "attention-unet")


def unet(encoder: str = EMBEDDED, spec: InputSpec = SPEC) -> Any:
    return build_segmenter("unet", 1, spec, encoder=encoder, decoder=(8, 8, 8, 8, 8))


def probabilities(segmenter: Segmenter) -> np.ndarray:
    batch = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return segmenter.forward(batch).numpy()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of two networks, and a reader."""
    folder = tmp_path_factory.mktemp("shelf")
    segmenter, reader = small_segmenter(("lungs", "heart"), networks=2), small_reader()
    save_reader(folder / "organs", segmenter.card, segmenter.networks)
    save_reader(folder / "small", reader.card, reader.networks)
    return folder


@pytest.fixture
def bundle(shelf: Path, tmp_path: Path) -> Path:
    """The segmenter on a shelf of its own test, beside the reader."""
    shutil.copytree(shelf, tmp_path / "shelf")
    return tmp_path / "shelf" / "organs"


@pytest.mark.parametrize("organs", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_one_map_for_each_organ(kind: str, organs: int) -> None:
    network = build_segmenter(kind, organs, SPEC, encoder=EMBEDDED).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, organs, 64, 64)
    assert (logits.std((0, 2, 3)) > 0).all()


def test_a_grey_network_takes_one_channel() -> None:
    network = unet(spec=SPEC.model_copy(update={"channels": 1})).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_only_a_unet_has_an_encoder_that_learned() -> None:
    network = unet()
    found = encoder_parameters(network)
    assert 0 < len(found) < len(list(network.parameters()))
    assert encoder_parameters(build_segmenter("residual-unet", 1, SPEC)) == []


@pytest.mark.parametrize(
    ("kind", "encoder", "message"),
    [
        ("u-net", EMBEDDED, r"expected a network among unet, .*, got 'u-net'; did you mean unet\?"),
        ("attention", EMBEDDED, r"got 'attention'; did you mean attention-unet\?"),
        ("unet", "resnet33", r"expected the name of a timm network, .*, got 'resnet33'; try .*resnet34"),
        ("unet", None, rf"got ''; try {EMBEDDED}"),
        (
            "unet",
            "cnn",
            r"expected an encoder with five steps of maps, got cnn; use a convolutional one, e\.g\. resnet34",
        ),
        ("unet", "vit_tiny_patch16_224", r"expected an encoder with five steps of maps, got vit_tiny_patch16_224"),
    ],
)
def test_a_wrong_name_suggests_another(kind: str, encoder: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_segmenter(kind, 1, SPEC, encoder=encoder)


@pytest.mark.parametrize(("size", "near"), [(100, 96), (20, 32), (250, 256)])
def test_a_size_off_the_grid_names_the_nearest(size: int, near: int) -> None:
    wanted = rf"expected an image size that is a multiple of 32, got {size}x{size}; use --image-size {near}"
    with pytest.raises(UsageError, match=wanted):
        build_segmenter("unet", 1, InputSpec(height=size, width=size), encoder=EMBEDDED)


def test_the_encoder_starts_from_the_weights_of_classifiers() -> None:
    network = unet()
    before = {key: value.clone() for key, value in network.encoder.model.state_dict().items()}
    assert load_pretrained(network, EMBEDDED, SPEC, None) == "ImageNet (embedded)"
    classifier = make_encoder(EMBEDDED, SPEC)
    load_encoder_weights(classifier, EMBEDDED, None)
    wanted, found = classifier.state_dict(), network.encoder.model.state_dict()
    assert len(found) > 200
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key], rtol=0, atol=0)
    assert not torch.equal(before["conv_stem.weight"], found["conv_stem.weight"])


def test_random_weights_stay_as_they_are() -> None:
    network = unet()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_pretrained(network, EMBEDDED, SPEC, "random") == "random"
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("encoder", ["mobilenetv3_small_050", "convnext_atto"])
def test_a_file_of_weights_fits_whatever_timm_calls_its_tensors(tmp_path: Path, encoder: str) -> None:
    """As a list of maps timm calls the tensors of convnext ``stages_0``, in the classifier ``stages.0``."""
    source = make_encoder(encoder, SPEC)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    network = unet(encoder)
    assert load_pretrained(network, encoder, SPEC, str(tmp_path)) == tmp_path.name
    wanted = {key.replace(".", "_"): value for key, value in source.state_dict().items()}
    for key, value in network.encoder.model.state_dict().items():
        torch.testing.assert_close(value, wanted[key.replace(".", "_")], rtol=0, atol=0)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    save_file(make_encoder("mobilenetv3_small_050", SPEC).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(BundleRefused, match=r"expected weights for all \d+ tensors of the encoder, got"):
        load_pretrained(unet(), EMBEDDED, SPEC, str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_rebuilds_the_network(kind: str) -> None:
    encoder = EMBEDDED if kind == "unet" else None
    built = build_segmenter(kind, 2, SPEC, encoder=encoder)
    card = segmenter_card(("lungs", "heart"), architecture=kind, encoder=encoder, decoder=())
    found = {key: value.shape for key, value in segmenter_of(card).state_dict().items()}
    assert found == {key: value.shape for key, value in built.state_dict().items()}


def test_a_stored_segmenter_gives_what_it_gave_after_rounding(bundle: Path) -> None:
    segmenter = small_segmenter(("lungs", "heart"), networks=2)
    exact = probabilities(segmenter)
    for network in segmenter.networks:
        round_weights(network)
    rounded = Segmenter(segmenter.card, segmenter.networks)
    loaded = load_segmenter(bundle)
    assert loaded.card.organs == ("lungs", "heart")
    assert len(loaded.networks) == 2
    np.testing.assert_allclose(probabilities(loaded), probabilities(rounded), rtol=0, atol=1e-6)
    assert np.abs(exact - probabilities(rounded)).max() > 1e-6  # else the line above would prove nothing


def test_storing_again_changes_no_hash(bundle: Path, tmp_path: Path) -> None:
    loaded = load_segmenter(bundle)
    again = save_reader(tmp_path / "again", loaded.card, loaded.networks)
    assert again == loaded.card
    assert (tmp_path / "again" / "card.json").read_bytes() == (bundle / "card.json").read_bytes()


def test_reader_and_segmenter_are_not_taken_for_each_other(bundle: Path) -> None:
    with pytest.raises(BundleRefused, match="expected a reader in organs, got the segmenter organs; use `wetread seg"):
        load_reader(bundle)
    with pytest.raises(BundleRefused, match="expected a segmenter, got the reader small; use `wetread read`, or train"):
        load_segmenter("small", [bundle.parent])


@pytest.mark.parametrize("name", ["model.safetensors", "model-2.safetensors"])
def test_altered_weights_are_refused(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleRefused, match=rf"expected {name} with sha256 [0-9a-f]{{12}}…, got [0-9a-f]{{12}}…"):
        load_segmenter(bundle)


def test_weights_of_other_organs_do_not_fit(bundle: Path) -> None:
    card = load_any_card(bundle).model_copy(update={"organs": ("lungs",)})
    (bundle / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleRefused, match=r"expected weights of unet, got others in model\.safetensors"):
        load_segmenter(bundle)


def test_a_card_without_organs_is_refused(bundle: Path) -> None:
    card = load_any_card(bundle).model_copy(update={"organs": ()})
    (bundle / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleRefused, match="expected a reader card in organs, got organs: Tuple should have at least"):
        load_any_card(bundle)


def test_lists_tell_readers_from_segmenters(bundle: Path) -> None:
    shelf = bundle.parent
    kinds = {folder.name: card.kind for folder, card in list_bundles([shelf]) if folder.parent == shelf}
    assert kinds == {"organs": "segmenter", "small": "reader"}
    assert [folder.name for folder, _ in list_readers([shelf]) if folder.parent == shelf] == ["small"]
    assert not any(isinstance(card, SegmenterCard) for _, card in list_readers([shelf]))


@pytest.mark.parametrize("target", ["moved.zip", "moved"])
def test_a_segmenter_moves_as_a_file_and_as_a_folder(bundle: Path, tmp_path: Path, target: str) -> None:
    moved = export_reader(bundle, tmp_path / target)
    folder = import_reader(moved, tmp_path / "other", "copy")
    original, copied = load_segmenter(bundle), load_segmenter(folder)
    assert copied.card == original.card.model_copy(update={"name": "copy"})
    np.testing.assert_array_equal(probabilities(copied), probabilities(original))
    assert "# copy 1" in (folder / "README.md").read_text(encoding="utf-8")


def test_weights_that_do_not_fit_are_not_imported(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    card = load_any_card(other).model_copy(update={"decoder": (16, 8, 8, 8, 8)})
    (other / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleRefused, match="expected weights of unet"):
        import_reader(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_readme_says_what_it_finds() -> None:
    text = card_readme(segmenter_card(("lungs", "heart"), weights={"model.safetensors": "a" * 64}))
    for line in ("pipeline_tag: image-segmentation", "- Finds: lungs, heart", "- Network: unet, 1 network(s)"):
        assert line in text
    for word in ("Operating points", "Reads:"):
        assert word not in text


def test_the_image_decides_the_size_of_the_masks(bundle: Path) -> None:
    masks = load_segmenter(bundle).masks(image_of(90, 120))
    assert {organ: (mask.shape, mask.dtype) for organ, mask in masks.items()} == {
        "lungs": ((90, 120), np.dtype(bool)),
        "heart": ((90, 120), np.dtype(bool)),
    }


def test_networks_are_in_evaluation_mode(bundle: Path) -> None:
    assert not any(part.training for network in load_segmenter(bundle).networks for part in network.modules())
