"""Targets from manifests, and pixels that are decoded once for each content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as PilImage

from tests.training.support import copied, meta_of
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.inputs import fit_pixels, to_batch
from wetread.training import data as module
from wetread.training.data import gather, labels_of, targets_of, to_float

NAN = float("nan")
HALF_A_STEP = 0.5 / 65535
"""Rounding to uint16 moves a pixel in [0, 1] by at most half of one of 65535 steps."""
FLOAT32 = 6e-8
"""Rounding of a float32 in [0.5, 1)."""
SPEC = InputSpec(height=24, width=32)


def test_targets_of_a_binary_task_are_the_positive_class() -> None:
    table = pd.DataFrame({"path": list("abcd"), "label": ["normal", "ill", None, "ill"]})
    manifest = Manifest(table, meta_of("binary", ("normal", "ill")), Path())
    assert labels_of(manifest.meta) == ("ill",)
    found = targets_of(manifest.table, manifest.meta)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0], [1], [NAN], [1]])


def test_targets_of_exclusive_classes_are_one_hot() -> None:
    table = pd.DataFrame({"path": list("abcd"), "label": ["b", "c", None, "a"]})
    manifest = Manifest(table, meta_of("multiclass", ("a", "b", "c")), Path())
    assert labels_of(manifest.meta) == ("a", "b", "c")
    wanted = [[0, 1, 0], [0, 0, 1], [NAN, NAN, NAN], [1, 0, 0]]
    np.testing.assert_array_equal(targets_of(manifest.table, manifest.meta), wanted)


@pytest.mark.parametrize("kind", ["float64", "Int64", "object"])
def test_targets_of_independent_labels_keep_each_unknown(kind: str) -> None:
    table = pd.DataFrame(
        {
            "path": list("abc"),
            "label_y": pd.Series([1, None, 0], dtype=kind),
            "label_x": pd.Series([0, 1, None], dtype=kind),
        }
    )
    manifest = Manifest(table, meta_of("multilabel", ("x", "y")), Path())
    assert labels_of(manifest.meta) == ("x", "y")
    found = targets_of(manifest.table, manifest.meta)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 1], [1, NAN], [NAN, 0]])


def test_images_without_labels_are_refused_before_any_is_decoded(
    binary: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_image", None)
    unlabelled = binary.with_table(binary.table.assign(label=None), classes=())
    with pytest.raises(DatasetRefused, match="expected a labelled data set, got no classes; import it with a label"):
        gather(unlabelled, unlabelled.table, SPEC, None)


def test_pixels_are_those_of_the_reader_up_to_half_a_step(binary: Manifest) -> None:
    table = binary.table.head(6)
    images = gather(binary, table, SPEC, None)
    assert images.pixels.dtype == np.uint16
    batch = to_float(images.pixels)
    direct = to_batch([load_image(binary.path_of(path)).pixels for path in table["path"]], SPEC)
    assert batch.shape == direct.shape == (6, 1, 24, 32)
    assert float((batch - direct.clamp(0, 1)).abs().max()) <= HALF_A_STEP + FLOAT32
    assert float((batch - direct).abs().max()) > 0  # rounding does happen: the bound is not idle


def test_every_stored_value_comes_back() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    back = to_float(every)
    assert back.dtype == torch.float32
    assert (float(back.min()), float(back.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(np.rint(back[0].numpy() * 65535).astype(np.uint16), every)


def test_rows_patients_and_selection(binary: Manifest) -> None:
    table = binary.table.head(4).copy()
    table.loc[1, "patient"] = None
    images = gather(binary, table, SPEC, None)
    assert images.patients.tolist() == [table["patient"][0], table["path"][1], table["patient"][2], table["patient"][3]]
    taken = images.take(np.array([2, 0]))
    assert len(taken) == 2
    assert taken.names == (images.names[2], images.names[0])
    np.testing.assert_array_equal(taken.pixels, images.pixels[[2, 0]])
    np.testing.assert_array_equal(taken.targets, images.targets[[2, 0]])
    assert taken.table["path"].tolist() == table["path"].iloc[[2, 0]].tolist()


class Decodes:
    """Counts the decoding of images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []

        def load(path: Path) -> object:
            self.names.append(path.name)
            return load_image(path)

        monkeypatch.setattr(module, "load_image", load)

    def since(self) -> list[str]:
        seen, self.names = sorted(self.names), []
        return seen


@pytest.mark.parametrize("hashes", ["of the manifest", "unknown"])
def test_a_changed_file_is_decoded_again_and_no_other(
    binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: str
) -> None:
    manifest = copied(binary.with_table(binary.table.head(5), split=None), tmp_path / "set")
    if hashes == "unknown":
        manifest = manifest.with_table(manifest.table.assign(sha256=None))
    decodes = Decodes(monkeypatch)
    first = gather(manifest, manifest.table, SPEC, tmp_path / "cache")
    assert len(decodes.since()) == 5
    gather(manifest, manifest.table, SPEC, tmp_path / "cache")
    assert decodes.since() == []

    changed = manifest.path_of(manifest.table["path"][2])
    PilImage.fromarray(np.full((40, 40), 200, np.uint8)).save(changed)
    again = gather(manifest, manifest.table, SPEC, tmp_path / "cache")
    assert decodes.since() == [changed.name]
    np.testing.assert_array_equal(again.pixels[2], to_stored(changed))
    assert not np.array_equal(again.pixels[2], first.pixels[2])
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(again.pixels[others], first.pixels[others])


def to_stored(path: Path) -> np.ndarray:
    stored: np.ndarray = np.rint(fit_pixels(load_image(path).pixels, SPEC).clip(0, 1) * 65535).astype(np.uint16)
    return stored


def test_another_geometry_is_another_cache(binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = binary.table.head(3)
    decodes = Decodes(monkeypatch)
    gather(binary, table, SPEC, tmp_path)
    for changes, count in (({"fit": "stretch"}, 3), ({"width": 40}, 3), ({"standardise": "fixed"}, 0)):
        decodes.since()
        gather(binary, table, SPEC.model_copy(update=changes), tmp_path)
        assert len(decodes.since()) == count, changes


@pytest.mark.parametrize("position", [0, 2, 3])
@pytest.mark.parametrize("harm", ["no image", "no file"])
def test_an_unreadable_image_is_refused_by_name(binary: Manifest, tmp_path: Path, position: int, harm: str) -> None:
    manifest = copied(binary.with_table(binary.table.head(4), split=None), tmp_path / "set")
    file = manifest.path_of(manifest.table["path"][position])
    file.unlink()
    if harm == "no image":
        file.write_bytes(b"GIF89a, or so it says")
    with pytest.raises(
        DatasetRefused,
        match=rf"expected 4 readable images, got one that is not: {file.name} .*"
        "; run `wetread dataset check` and leave it out",
    ):
        gather(manifest, manifest.table, SPEC, tmp_path / "cache")


def test_progress_counts_to_the_end(binary: Manifest, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    gather(binary, binary.table.head(3), SPEC, tmp_path, lambda *step: seen.append(step))
    assert seen == [("decoding images", done, 3) for done in (1, 2, 3)]
