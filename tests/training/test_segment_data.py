"""What a segmenter trains on: unknown and empty masks, geometry, exclusive organs, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as PilImage

from tests.training.support import SIDE_PX, with_masks_copied
from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import read_mask
from wetread.errors import DatasetRefused
from wetread.models.card import InputSpec
from wetread.training.segment_data import MaskCounts, annotated_rows, count_masks, gather_masks, load_annotated

SPEC = InputSpec(height=SIDE_PX, width=SIDE_PX)
BOTH = ("lungs", "heart")
SIDES = ("lung_left", "lung_right")


def without(manifest: Manifest, column: str, rows: slice) -> Manifest:
    """The manifest with cells of a mask column emptied."""
    table = manifest.table.copy()
    table.loc[table.index[rows], column] = None
    return manifest.with_table(table)


def harmed(films: Manifest, folder: Path, organ_column: str) -> tuple[Manifest, Path]:
    """A copy of four films, and the file of the first mask of a column."""
    copy = with_masks_copied(films, folder / "copy")
    copy = copy.with_table(copy.table.head(4).reset_index(drop=True))
    return copy, copy.path_of(str(copy.table[organ_column].iloc[0]))


def test_images_without_any_mask_are_counted_and_left_out(films: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    fewer = without(without(films, "mask", slice(0, 5)), "mask_heart", slice(0, 3))
    rows = annotated_rows(fewer, BOTH)
    assert list(rows["path"]) == list(films.table["path"][3:])
    assert "3 of 24 images have no mask and are left out" in caplog.text
    caplog.clear()
    assert len(annotated_rows(films, BOTH)) == 24
    assert caplog.text == ""


def test_images_are_counted_in_the_splits_that_a_run_uses(films: Manifest) -> None:
    splits: list[str | None] = ["train"] * 10 + ["val"] * 4 + ["test"] * 6 + [None] * 4
    table = films.table.assign(split=pd.Series(splits))
    manifest = films.with_table(table, split=None)
    fewer = without(without(manifest, "mask", slice(8, 22)), "mask_heart", slice(9, 16))
    used = annotated_rows(fewer, BOTH)
    split = used[used["split"].isin(("train", "val"))]
    found = count_masks(fewer, split, BOTH, folds=0)
    assert found == MaskCounts(used=9, without_mask=5, masks={"lungs": 8, "heart": 9})
    folds = used[used["split"] != "test"]
    found = count_masks(fewer, folds, BOTH, folds=3)
    assert found == MaskCounts(used=13, without_mask=5, masks={"lungs": 10, "heart": 13})


def test_an_organ_without_masks_names_the_columns_there_are(films: Manifest) -> None:
    wanted = r"expected masks of spleen, got the mask columns mask, .*mask_heart.*; add a column mask_spleen, or name"
    with pytest.raises(DatasetRefused, match=wanted):
        annotated_rows(films, ("lungs", "spleen"))
    empty = without(films, "mask_heart", slice(None))
    with pytest.raises(DatasetRefused, match="expected masks of heart, got the mask columns"):
        annotated_rows(empty, BOTH)


def test_an_unknown_mask_is_not_an_empty_one(films: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    fewer = without(films, "mask_heart", slice(0, 1))
    images = gather_masks(fewer, fewer.table.head(2), BOTH, SPEC)
    assert images.known.tolist() == [[True, False], [True, True]]
    assert images.empty == 0
    assert "empty" not in caplog.text
    assert not images.masks[0, 1].any()


def test_empty_masks_are_known_and_counted(films: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy, file = harmed(films, tmp_path, "mask_heart")
    PilImage.fromarray(np.zeros((SIDE_PX, SIDE_PX), bool)).save(file)
    images = gather_masks(copy, copy.table, BOTH, SPEC)
    assert images.empty == 1
    assert images.known.all()
    assert not images.masks[0, 1].any()
    assert images.masks[1, 1].any()
    assert "1 masks are empty: taken as organs that are not there" in caplog.text


def test_pixels_and_masks_are_those_of_the_files(films: Manifest) -> None:
    table = films.table.head(3)
    images = gather_masks(films, table, BOTH, SPEC)
    assert [str(kind.dtype) for kind in (images.pixels, images.masks)] == ["uint16", "bool"]
    for index, (_, row) in enumerate(table.iterrows()):
        image, masks = load_annotated(films, row, BOTH)
        np.testing.assert_allclose(images.pixels[index] / 65535, image.pixels, atol=1e-5)
        for channel, (organ, column) in enumerate((("lungs", "mask"), ("heart", "mask_heart"))):
            stored = read_mask(films.path_of(str(row[column])), SIDE_PX, SIDE_PX)
            assert stored.any()
            np.testing.assert_array_equal(masks[organ], stored)
            np.testing.assert_array_equal(images.masks[index, channel], stored)


def test_masks_are_padded_like_their_images(films: Manifest, tmp_path: Path) -> None:
    copy, file = harmed(films, tmp_path, "mask")
    tall, box = (128, 64), (slice(16, 112), slice(8, 56))
    mask = np.zeros(tall, bool)
    mask[box] = True
    PilImage.fromarray(mask).save(file)
    PilImage.fromarray(mask.astype(np.uint8) * 200).save(copy.path_of(str(copy.table["path"].iloc[0])))
    images = gather_masks(copy, copy.table.head(1), ("lungs",), SPEC)
    wanted = np.zeros((SIDE_PX, SIDE_PX), bool)
    wanted[8:56, 16 + 4 : 16 + 28] = True
    np.testing.assert_array_equal(images.masks[0, 0], wanted)
    np.testing.assert_array_equal(images.pixels[0] > images.pixels[0].max() // 2, wanted)


def test_progress_ends_at_its_total(films: Manifest) -> None:
    seen: list[tuple[str, int, int]] = []
    gather_masks(films, films.table.head(3), BOTH, SPEC, lambda *step: seen.append(step))
    assert seen == [("decoding images and masks", done, 3) for done in (1, 2, 3)]


def test_a_missing_mask_file_is_named(films: Manifest, tmp_path: Path) -> None:
    copy, file = harmed(films, tmp_path, "mask")
    file.unlink()
    with pytest.raises(DatasetRefused, match=rf"got no such file: {file.name}; check the path and the root folder"):
        gather_masks(copy, copy.table, BOTH, SPEC)


def test_a_mask_of_another_size_is_named(films: Manifest, tmp_path: Path) -> None:
    copy, file = harmed(films, tmp_path, "mask_heart")
    PilImage.fromarray(np.ones((30, 40), bool)).save(file)
    with pytest.raises(DatasetRefused, match=rf"expected .*64 x 64.*, got 40 x 30 pixels in {file.name}"):
        gather_masks(copy, copy.table, BOTH, SPEC)


def test_an_unreadable_image_is_named(films: Manifest, tmp_path: Path) -> None:
    copy, _ = harmed(films, tmp_path, "mask")
    image = copy.path_of(str(copy.table["path"].iloc[0]))
    image.write_bytes(b"no picture")
    with pytest.raises(DatasetRefused, match=rf"expected readable images, got {image.name} .*leave it out"):
        gather_masks(copy, copy.table, BOTH, SPEC)


def test_exclusive_masks_that_overlap_are_refused_before_training(films: Manifest) -> None:
    name = Path(films.table["path"].iloc[0]).name
    wanted = rf"expected exclusive masks without a common pixel, got \d+ shared by lungs and lung_left in {name}; mend"
    with pytest.raises(DatasetRefused, match=wanted):
        gather_masks(films, films.table, ("lungs", "lung_left"), SPEC, exclusive=True)
    both = gather_masks(films, films.table.head(2), ("lungs", "lung_left"), SPEC)
    assert both.masks.all(1).any()


def test_exclusive_masks_that_meet_share_no_pixel_of_the_input(films: Manifest, tmp_path: Path) -> None:
    """At half the size the common border lies in the middle of a pixel, and both halves round up."""
    copy, left = harmed(films, tmp_path, "mask_lung_left")
    right = copy.path_of(str(copy.table["mask_lung_right"].iloc[0]))
    columns = np.broadcast_to(np.arange(SIDE_PX) < 31, (SIDE_PX, SIDE_PX))
    PilImage.fromarray(columns.copy()).save(left)
    PilImage.fromarray(~columns).save(right)
    small = InputSpec(height=32, width=32)
    loose = gather_masks(copy, copy.table.head(1), SIDES, small).masks[0]
    assert loose.all(0).any()
    masks = gather_masks(copy, copy.table.head(1), SIDES, small, exclusive=True).masks[0]
    np.testing.assert_array_equal(masks.sum(0), np.ones((32, 32)))


def test_exclusive_organs_need_whole_annotations(films: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    fewer = without(films, "mask_lung_left", slice(0, 2))
    images = gather_masks(fewer, fewer.table.head(4), SIDES, SPEC, exclusive=True)
    assert images.known.all(1).tolist() == [False, False, True, True]
    assert "2 images lack a mask of some exclusive organ: nothing is learned from them" in caplog.text
    with pytest.raises(DatasetRefused, match="expected images with masks of all of lung_left, lung_right, got none"):
        gather_masks(fewer, fewer.table.head(2), SIDES, SPEC, exclusive=True)
