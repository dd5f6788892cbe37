"""COCO annotations: polygons and run lengths as masks, written once, and a refusal for every doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as pycoco

from tests.datasets.mask_support import COLUMNS, ROWS, Mask, corner
from wetread.datasets.masks import coco_masks, read_mask, write_coco_masks
from wetread.errors import DatasetRefused, OverBudget, UsageError


def coco_file(folder: Path, *segmentations: Any, **changes: Any) -> Path:
    """One image of 30 x 20 pixels with those annotations of lungs, and another without any."""
    images = [{"id": 4, "file_name": "a/one.png", "height": ROWS, "width": COLUMNS}]
    images.append({"id": 5, "file_name": "two.png", "height": ROWS, "width": COLUMNS})
    annotations = [{"id": n, "image_id": 4, "category_id": 2, "segmentation": s} for n, s in enumerate(segmentations)]
    categories = [{"id": 1, "name": "heart"}, {"id": 2, "name": "Lungs"}]
    whole = {"images": images, "categories": categories, "annotations": annotations} | changes
    path = folder / "coco.json"
    path.write_text(json.dumps(whole))
    return path


def rle(mask: Mask, *, compressed: bool) -> dict[str, Any]:
    found = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": [ROWS, COLUMNS], "counts": found["counts"].decode()}
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.r_[False, flat, False])) if flat.any() else np.array([], int)
    return {"size": [ROWS, COLUMNS], "counts": np.diff(np.r_[0, edges, flat.size]).tolist()}


class TestCoco:
    @pytest.mark.parametrize("compressed", [False, True])
    def test_run_lengths(self, compressed: bool, tmp_path: Path) -> None:
        found = coco_masks(coco_file(tmp_path, rle(corner(), compressed=compressed)), category="lungs")
        assert list(found) == ["a/one.png"]  # two.png is unknown, not empty
        assert found["a/one.png"].dtype == np.bool_
        assert np.array_equal(found["a/one.png"], corner())

    def test_compressed_run_lengths_of_noise(self, tmp_path: Path) -> None:
        """Long and short runs, and differences of both signs."""
        rng = np.random.default_rng(3)
        for share in (0.01, 0.5, 0.97, 1.0):
            mask = rng.random((ROWS, COLUMNS)) < share
            found = coco_masks(coco_file(tmp_path, rle(mask, compressed=True)), category="Lungs")
            assert np.array_equal(found["a/one.png"], mask)

    def test_union_of_polygons_and_run_lengths(self, tmp_path: Path) -> None:
        square = [10.0, 10.0, 14.0, 10.0, 14.0, 14.0, 10.0, 14.0]
        past_the_edge = [-5, -5, 3, -5, 3, 3, -5, 3]
        path = coco_file(tmp_path, [square, past_the_edge], rle(corner(), compressed=True))
        wanted = corner()
        wanted[10:14, 10:14] = wanted[:3, :3] = True
        assert np.array_equal(coco_masks(path, category="lungs")["a/one.png"], wanted)

    def test_other_categories_are_left_alone(self, tmp_path: Path) -> None:
        path = coco_file(tmp_path, rle(corner(), compressed=True))
        assert len(coco_masks(path, category="heart")) == 0

    def test_written_as_masks_of_a_manifest(self, tmp_path: Path) -> None:
        path = coco_file(tmp_path, rle(corner(), compressed=False))
        written = write_coco_masks(path, tmp_path / "masks", category="lungs")
        assert written == {"a/one.png": tmp_path / "masks" / "a" / "one.png.png"}
        assert np.array_equal(read_mask(written["a/one.png"], ROWS, COLUMNS), corner())
        with pytest.raises(UsageError, match=r"a new folder, got .*masks, which exists"):
            write_coco_masks(path, tmp_path / "masks", category="lungs")

    @pytest.mark.parametrize("name", ["../one.png", "/one.png", "a\\one.png", "a/../../one.png"])
    def test_image_name_that_leads_out(self, name: str, tmp_path: Path) -> None:
        images = [{"id": 4, "file_name": name, "height": ROWS, "width": COLUMNS}]
        path = coco_file(tmp_path, rle(corner(), compressed=False), images=images)
        with pytest.raises(DatasetRefused, match=r"image names below the folder, got one that leads out"):
            write_coco_masks(path, tmp_path / "masks", category="lungs")
        assert not (tmp_path / "masks").exists()

    @pytest.mark.parametrize(
        ("segmentation", "match"),
        [
            (None, r"a polygon or run lengths, got only a box in annotation 0 of coco\.json; annotate an outline"),
            ([], r"got only a box"),
            ([[1, 1, 5, 5]], r"at least three points x, y, got 4 numbers in annotation 0"),
            ([[1, 1, 5, 5, 9, 9, 2]], r"got 7 numbers"),
            ([[1, 1, 5, 5, 1e6, 9]], r"on an image of 30 x 20 pixels, got points far outside"),
            ([[1, -21, 5, 5, 9, 9]], r"got points far outside"),
            ({"size": [30, 20], "counts": [600]}, r"an image of 30 x 20 pixels, got 20 x 30 in annotation 0"),
            ({"size": [20, 30], "counts": [5, 5]}, r"add up to 600 pixels, got 10 in annotation 0"),
            ({"size": [20, 30], "counts": [5, 596]}, r"add up to 600 pixels, got 601"),
            ({"size": [20, 30], "counts": [700, -100]}, r"add up to 600 pixels, got 600"),
            ({"size": [20, 30], "counts": []}, r"add up to 600 pixels, got 0"),
            ({"size": [20, 30], "counts": ""}, r"add up to 600 pixels, got 0"),
            ({"size": [20, 30], "counts": "0"}, r"add up to 600 pixels, got 0"),
            ({"size": [20, 30], "counts": "oooo"}, r"add up to 600 pixels, got 0"),
            ({"size": [20, 30], "counts": "é é"}, r"add up to 600 pixels, got 0"),
        ],
    )
    def test_annotation_that_does_not_fit(self, segmentation: Any, match: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetRefused, match=match):
            coco_masks(coco_file(tmp_path, segmentation), category="lungs")

    def test_file_of_another_shape(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetRefused, match=r"a COCO file, got no such file: coco\.json"):
            coco_masks(tmp_path / "coco.json", category="lungs")
        path = tmp_path / "coco.json"
        for text, where in (("[", "the whole: Invalid JSON"), ("{}", "images: Field required")):
            path.write_text(text)
            with pytest.raises(DatasetRefused, match=rf"a COCO file, got in {where}.*; export it again as COCO"):
                coco_masks(path, category="lungs")
        path.write_text("[" * 100_000)
        with pytest.raises(DatasetRefused, match=r"a COCO file, got in the whole: Invalid JSON"):
            coco_masks(path, category="lungs")
        with pytest.raises(DatasetRefused, match=r"in annotations\.0\.segmentation.*finite"):
            coco_masks(coco_file(tmp_path, [[float("nan"), 1, 5, 5, 9, 9]]), category="lungs")

    def test_category_image_and_repeated_image(self, tmp_path: Path) -> None:
        path = coco_file(tmp_path, rle(corner(), compressed=True))
        with pytest.raises(DatasetRefused, match=r"a category 'lung', got 'heart', 'Lungs' in coco\.json; name one"):
            coco_masks(path, category="lung")
        one = {"id": 4, "file_name": "one.png", "height": ROWS, "width": COLUMNS}
        with pytest.raises(DatasetRefused, match=r"each image once, got a repeated id or file_name"):
            coco_masks(coco_file(tmp_path, images=[one, one | {"id": 5}]), category="lungs")
        path = coco_file(tmp_path, rle(corner(), compressed=True), images=[one | {"id": 5}])
        with pytest.raises(DatasetRefused, match=r"of listed images, got annotation 0 of coco\.json of another"):
            coco_masks(path, category="lungs")
        path = coco_file(tmp_path, [[1, 1, 5, 5, 9, 9]], images=[one | {"height": 60_000, "width": 60_000}])
        with pytest.raises(OverBudget, match=r"got 60000 x 60000 pixels"):
            coco_masks(path, category="lungs")
