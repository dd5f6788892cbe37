"""Bundles on disk: exact round trips, and every way in which one can be wrong."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.models.support import card_for, image_of, reader_of, small_reader
from wetread.errors import BundleRefused, WetreadError
from wetread.models.bundle import (
    ZOO,
    export_reader,
    find_reader,
    import_reader,
    list_readers,
    load_card,
    load_reader,
    network_file,
    save_reader,
)
from wetread.models.card import HeadSpec
from wetread.models.outlier import fit_statistics
from wetread.models.predict import Reader


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    reader = small_reader("cnn", labels=("a", "b", "c"), networks=2)
    features = np.random.default_rng(0).normal(size=(60, 256)).astype(np.float32)
    save_reader(tmp_path / "shelf" / "small", reader.card, reader.networks, fit_statistics(features))
    return tmp_path / "shelf" / "small"


def probabilities(reader: Reader) -> NDArray[np.float64]:
    images = [image_of(40, 50, seed) for seed in range(3)]
    return reader.probabilities(reader.forward(reader.prepare(images)))


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def zip_of(folder: Path, target: Path, **extra: bytes) -> Path:
    """A zip of a bundle with additional entries; ``__`` in a name stands for a dot."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        for name, data in extra.items():
            archive.writestr(name.replace("__", "."), data)
    return target


def test_a_reader_comes_back_as_it_was_stored(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md",
        "card.json",
        "gate.safetensors",
        "model-2.safetensors",
        "model.safetensors",
    ]
    reader = load_reader(bundle)
    assert reader.card == load_card(bundle)
    assert reader.statistics is not None
    original = small_reader("cnn", labels=("a", "b", "c"), networks=2)
    np.testing.assert_allclose(probabilities(reader), probabilities(original), atol=2e-3)  # float16
    np.testing.assert_array_equal(probabilities(reader), probabilities(load_reader(bundle)))


def test_storing_again_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    reader = load_reader(bundle)
    again = save_reader(tmp_path / "again", reader.card, reader.networks, reader.statistics)
    assert again.weights == reader.card.weights
    for name in again.weights:
        assert (tmp_path / "again" / name).read_bytes() == (bundle / name).read_bytes()


def test_weights_are_float16_on_disk_and_float32_in_memory(bundle: Path) -> None:
    stored = load_file(bundle / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    loaded = load_reader(bundle).networks[0].state_dict()
    assert {value.dtype for value in loaded.values() if value.is_floating_point()} == {torch.float32}


def test_values_beyond_float16_are_kept_in_float32(tmp_path: Path) -> None:
    reader = small_reader("cnn")
    norm = reader.networks[0].encoder.get_submodule("blocks.1")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var.fill_(1e6)
    save_reader(tmp_path / "large", reader.card, reader.networks)
    loaded = load_reader(tmp_path / "large")
    np.testing.assert_allclose(probabilities(loaded), probabilities(reader), atol=2e-3)
    assert loaded.networks[0].state_dict()["encoder.blocks.1.running_var"].max() == 1e6


def test_a_neighbour_head_with_unknown_labels_survives(tmp_path: Path) -> None:
    reader = small_reader("cnn", head=HeadSpec(kind="knn", references=4, neighbours=2))
    reader.networks[0].state_dict()["head.targets"].copy_(torch.tensor([[1.0], [0.0], [float("nan")], [1.0]]))
    save_reader(tmp_path / "knn", reader.card, reader.networks)
    targets = load_reader(tmp_path / "knn").networks[0].state_dict()["head.targets"]
    np.testing.assert_array_equal(targets[:, 0], [1, 0, np.nan, 1])


def test_the_card_holds_the_hash_of_every_file(bundle: Path) -> None:
    import hashlib

    card = load_card(bundle)
    assert set(card.weights) == {"model.safetensors", "model-2.safetensors", "gate.safetensors"}
    for name, wanted in card.weights.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == wanted
    assert [network_file(0), network_file(1)] == ["model.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "model-2.safetensors", "gate.safetensors"])
def test_one_changed_byte_is_noticed(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleRefused, match=rf"expected {name} with sha256 [0-9a-f]{{12}}…, got [0-9a-f]{{12}}…"):
        load_reader(bundle)


def test_a_network_without_a_hash_is_not_loaded(bundle: Path) -> None:
    weights = {name: digest for name, digest in load_card(bundle).weights.items() if name != "model-2.safetensors"}
    edit_card(bundle, weights=weights)
    with pytest.raises(BundleRefused, match=r"expected a sha256 for model-2\.safetensors in .* small, got none"):
        load_reader(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "model-2.safetensors").unlink()
    with pytest.raises(BundleRefused, match=r"expected model-2\.safetensors in small, got no such file"):
        load_reader(bundle)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/x.safetensors", "weights.pt", "sub/x.safetensors"])
def test_a_card_cannot_point_elsewhere(bundle: Path, name: str) -> None:
    edit_card(bundle, weights=load_card(bundle).weights | {name: "0" * 64})
    with pytest.raises(BundleRefused, match=r"expected plain \.safetensors names in the card"):
        load_reader(bundle)


def test_weights_of_another_network_are_refused(bundle: Path) -> None:
    edit_card(bundle, architecture="resnet18")
    with pytest.raises(BundleRefused, match=r"expected weights of resnet18, got others in model\.safetensors"):
        load_reader(bundle)


def test_a_file_that_is_no_safetensors_is_refused_even_with_its_hash(bundle: Path) -> None:
    import hashlib

    (bundle / "model.safetensors").write_bytes(b"\x80\x04pickle")
    digest = hashlib.sha256(b"\x80\x04pickle").hexdigest()
    edit_card(bundle, weights=load_card(bundle).weights | {"model.safetensors": digest})
    with pytest.raises(BundleRefused, match=r"got others in model\.safetensors"):
        load_reader(bundle)


def test_readers_are_found_by_name_folder_and_run(bundle: Path, tmp_path: Path) -> None:
    shelf = bundle.parent
    shutil.copytree(bundle, tmp_path / "run" / "reader")
    assert find_reader("small", [shelf]) == bundle
    assert find_reader(bundle) == bundle
    assert find_reader(tmp_path / "run") == tmp_path / "run" / "reader"
    with pytest.raises(BundleRefused, match=r"folder of a reader, got 'smal'; choose one of: .*small"):
        find_reader("smal", [shelf])
    with pytest.raises(BundleRefused, match="name or folder of a reader"):
        find_reader("../shelf/small", [shelf / "none"])


def test_shelves_are_listed_by_name_with_the_package(bundle: Path, tmp_path: Path) -> None:
    reader = small_reader("cnn")
    save_reader(bundle.parent / "other", card_for(name="another"), reader.networks)
    listed = list_readers([bundle.parent, tmp_path / "absent"])
    names = [card.name for _, card in listed]
    assert names == sorted(names)
    assert {"another", "small"} <= set(names)
    assert all(folder.parent in (bundle.parent, ZOO) for folder, _ in listed)


def test_a_broken_card_hides_no_other_reader(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = bundle.parent / "broken"
    broken.mkdir()
    (broken / "card.json").write_text("{}", encoding="utf-8")
    listed = [folder.name for folder, _ in list_readers([bundle.parent])]
    assert "small" in listed
    assert "broken" not in listed
    assert "broken is no reader: expected a reader card in broken" in caplog.text


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match=r"expected a readable card\.json in .*, got FileNotFoundError"):
        load_card(tmp_path)
    (tmp_path / "card.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleRefused, match="got UnicodeDecodeError"):
        load_card(tmp_path)


@pytest.mark.parametrize("target", ["copy.zip", "copy"])
def test_export_and_import_are_exact(bundle: Path, tmp_path: Path, target: str) -> None:
    exported = export_reader("small", tmp_path / target, [bundle.parent])
    shelf = tmp_path / "new"
    folder = import_reader(exported, shelf)
    assert folder == shelf / "small"
    assert load_card(folder) == load_card(bundle)
    assert (folder / "README.md").read_text(encoding="utf-8") == (bundle / "README.md").read_text(encoding="utf-8")
    np.testing.assert_array_equal(probabilities(load_reader(folder)), probabilities(load_reader(bundle)))
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
    with pytest.raises(BundleRefused, match=f"expected a new path to export to, got {target} exists"):
        export_reader(bundle, tmp_path / target)


def test_a_damaged_reader_is_not_exported(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleRefused, match="with sha256"):
        export_reader(bundle, tmp_path / "copy.zip")
    assert not (tmp_path / "copy.zip").exists()


def test_a_taken_name_is_refused_and_another_can_be_given(bundle: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "new"
    import_reader(bundle, shelf)
    with pytest.raises(BundleRefused, match="expected a new reader name, got small, which exists; give --name"):
        import_reader(bundle, shelf)
    second = import_reader(bundle, shelf, "second")
    assert load_card(second).name == "second"
    assert "# second 1" in (second / "README.md").read_text(encoding="utf-8")
    for bad in ("../outside", "", "a b"):
        if bad:
            with pytest.raises(BundleRefused, match="name: String should match pattern"):
                import_reader(bundle, shelf, bad)
    assert sorted(path.name for path in shelf.iterdir()) == ["second", "small"]


@pytest.mark.parametrize("name", ["weights.pt", "data.PKL", "model.bin", "x.joblib", "a.npy", "b.ckpt"])
def test_a_pickle_in_a_zip_or_folder_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    archive = zip_of(bundle, tmp_path / "bad.zip", **{name.replace(".", "__"): b"cos\nsystem\n."})
    with pytest.raises(BundleRefused, match=f"expected safetensors weights only, got {name}, which can run code"):
        import_reader(archive, tmp_path / "new")
    (bundle / name).write_bytes(b"cos\nsystem\n.")
    with pytest.raises(BundleRefused, match=f"got {name}, which can run code"):
        import_reader(bundle, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../../outside.txt", "/outside.txt", "folder/inside.txt", "folder/"])
def test_paths_in_a_zip_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    archive = zip_of(bundle, tmp_path / "bad.zip", **{name: b"x"})
    with pytest.raises(BundleRefused, match="expected files without folders in the zip, got paths"):
        import_reader(archive, tmp_path / "new")
    assert not (tmp_path / "outside.txt").exists()
    assert not (tmp_path / "new").exists()


def test_a_zip_that_claims_too_much_is_refused_unread(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(bundle, tmp_path / "big.zip")
    monkeypatch.setattr("wetread.models.bundle._MAX_BUNDLE_BYTES", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: pytest.fail("unpacked before the check"))
    with pytest.raises(BundleRefused, match="expected at most 8 GiB of weights"):
        import_reader(archive, tmp_path / "new")


def test_a_zip_without_a_card_or_with_a_bomb_is_refused_unread(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: pytest.fail("unpacked before the check"))
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.safetensors", bytes(65 << 20))
    with pytest.raises(BundleRefused, match=r"expected an archive with card\.json in it, got one without"):
        import_reader(bomb, tmp_path / "new")
    with zipfile.ZipFile(bomb, "a") as archive:
        archive.write(bundle / "card.json", "card.json")
    with pytest.raises(BundleRefused, match="and no bomb, got 65 MiB packed into 0; check the archive"):
        import_reader(bomb, tmp_path / "new")


def test_a_damaged_zip_is_refused(bundle: Path, tmp_path: Path) -> None:
    archive = export_reader(bundle, tmp_path / "copy.zip")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(BundleRefused, match=r"expected a whole zip file, got a damaged or locked copy\.zip"):
        import_reader(archive, tmp_path / "new")
    archive.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(BundleRefused, match=r"expected a zip file made by `wetread models export`, got copy\.zip"):
        import_reader(archive, tmp_path / "new")
    with pytest.raises(BundleRefused, match=r"got absent\.zip"):
        import_reader(tmp_path / "absent.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_imported_bundle_must_fit_its_schema_and_hashes(bundle: Path, tmp_path: Path) -> None:
    edit_card(bundle, schema_version="9")
    with pytest.raises(BundleRefused, match="schema_version: Input should be '1'"):
        import_reader(zip_of(bundle, tmp_path / "schema.zip"), tmp_path / "new")
    edit_card(bundle, schema_version="1")
    save_file({"other": torch.zeros(2)}, bundle / "model.safetensors")
    with pytest.raises(BundleRefused, match=r"expected model\.safetensors with sha256"):
        import_reader(zip_of(bundle, tmp_path / "hash.zip"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failed_save_leaves_the_old_reader(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = small_reader("cnn")
    before = (bundle / "card.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WetreadError, match=r"expected room to write .*, got a full disk"):
        save_reader(bundle, reader.card, reader.networks)
    assert (bundle / "card.json").read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir()] == ["small"]


def test_saving_replaces_a_reader_but_nothing_else(bundle: Path, tmp_path: Path) -> None:
    reader = small_reader("cnn")
    save_reader(bundle, reader.card, reader.networks)
    assert not (bundle / "model-2.safetensors").exists()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(BundleRefused, match="expected a new folder or that of a reader, got papers with other files"):
        save_reader(tmp_path / "papers", reader.card, reader.networks)
    assert (tmp_path / "papers" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    save_reader(tmp_path / "empty", reader.card, reader.networks)
    assert load_reader(tmp_path / "empty").card.name == "small"


def test_two_copies_of_one_reader_agree(bundle: Path) -> None:
    one, other = load_reader(bundle), reader_of(load_reader(bundle).networks, ("a", "b", "c"))
    np.testing.assert_array_equal(probabilities(one), probabilities(other))
