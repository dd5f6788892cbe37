"""COCO files imported with their images: masks, boxes, labels, patients, and a refusal for every doubt."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.datasets.coco_films import SIDE_PX, CocoFilms, film, outline
from tests.datasets.layouts import write_dicom
from wetread.datasets.importers.base import ImportOptions
from wetread.datasets.importers.registry import ImportResult, import_dataset
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.datasets.masks import Mask, load_masks
from wetread.errors import DatasetRefused, UsageError

SQUARE = [[10, 10, 20, 10, 20, 30, 10, 30]]
NODULE = {"bbox": [30.5, 40, 6, 5.25]}


@pytest.fixture
def films(tmp_path: Path) -> CocoFilms:
    """Four listed films: two hearts, one of them without a pixel, a lung, two nodules; one film is not listed."""
    found = CocoFilms(tmp_path / "films")
    for number, name in enumerate(("b/one.png", "b/two.png", "a.png", "none.png")):
        phantom = found.add(name, number, patient_id=f"P{number // 2}", view="PA")
        if name == "b/one.png":
            found.annotate("Heart", outline(phantom.heart), bbox=[1, 2, 3, 4], iscrowd=1)
            found.annotate("left lung", SQUARE)
            found.annotate("nodule", **NODULE)
        if name == "b/two.png":
            found.annotate("Heart", outline(np.zeros((SIDE_PX, SIDE_PX), bool), compressed=False))
            found.annotate("nodule", [], bbox=[-4, 60, 10, 10])
    found.add("loose.png", 9, listed=False)
    return found


def imported(films: CocoFilms, **options: Any) -> ImportResult:
    films.write()
    return import_dataset(films.root, options=ImportOptions(**options))


def saved(result: ImportResult, folder: Path) -> Manifest:
    result.save(folder)
    return load_manifest(folder)


def cells(manifest: Manifest, column: str) -> dict[str, Any]:
    column_of = manifest.table.set_index("path")[column]
    return {str(path): value for path, value in column_of.items() if value == value and value is not None}


def masks_at(manifest: Manifest, path: str, *organs: str) -> dict[str, Mask | None]:
    (row,) = (row for _, row in manifest.table.iterrows() if row["path"] == path)
    return load_masks(manifest, row, organs, SIDE_PX, SIDE_PX)


def test_outlines_become_masks_beside_the_manifest(films: CocoFilms, tmp_path: Path) -> None:
    result = imported(films)
    assert (result.layout, result.reason) == ("coco", "COCO annotations.json")
    manifest = saved(result, tmp_path / "set")
    assert list(manifest.table["path"]) == ["a.png", "b/one.png", "b/two.png", "loose.png", "none.png"]
    hearts = {"b/one.png": "heart/b/one.png.png", "b/two.png": "heart/b/two.png.png"}
    assert cells(manifest, "mask_heart") == hearts
    assert cells(manifest, "mask_lung_left") == {"b/one.png": "lung_left/b/one.png.png"}  # the side comes last
    assert "mask_nodule" not in manifest.table  # it has boxes alone
    masks = masks_at(manifest, "b/one.png", "heart", "lung_left")
    np.testing.assert_array_equal(masks["heart"], film(0).heart)
    square = np.zeros((SIDE_PX, SIDE_PX), bool)
    square[10:30, 10:20] = True
    np.testing.assert_array_equal(masks["lung_left"], square)
    empty = masks_at(manifest, "b/two.png", "heart")["heart"]
    assert empty is not None
    assert not empty.any()  # drawn without a pixel: not there
    assert masks_at(manifest, "a.png", "heart")["heart"] is None  # unknown


def test_what_was_found_is_said(films: CocoFilms) -> None:
    result = imported(films)
    for note in (
        f"images: below {films.root / 'images'}, as written in annotations.json",
        "1 images beside them are not listed: kept, with nothing known about them",
        "mask_heart: masks of 2 of 5 images",
        "boxes: 3 in 2 images",
        "patient <- column 'patient_id' (guessed)",
    ):
        assert note in result.notes
    assert result.warnings == ("1 images name no patient: each counts as one of its own",)


def test_the_data_set_can_be_moved_as_a_whole(films: CocoFilms, tmp_path: Path) -> None:
    saved(imported(films), tmp_path / "set")
    assert 'mask_root = "masks"' in (tmp_path / "set" / "dataset.toml").read_text()
    shutil.move(tmp_path / "set", tmp_path / "elsewhere" / "set")
    manifest = load_manifest(tmp_path / "elsewhere" / "set")
    assert masks_at(manifest, "b/one.png", "heart")["heart"] is not None


def test_boxes_are_kept_and_cut_at_the_edge(films: CocoFilms) -> None:
    boxes = {path: json.loads(text) for path, text in cells(imported(films).manifest, "boxes").items()}
    heart = {"label": "Heart", "x": 1, "y": 2, "width": 3, "height": 4}
    nodule = {"label": "nodule", "x": 30.5, "y": 40, "width": 6, "height": 5.25}
    assert boxes == {
        "b/one.png": [heart, nodule],
        "b/two.png": [{"label": "nodule", "x": 0, "y": 60, "width": 6, "height": 4}],
    }


def test_categories_are_labels_only_where_that_is_asked_for(films: CocoFilms) -> None:
    plain = imported(films)
    assert (plain.manifest.meta.task, plain.manifest.meta.classes) == ("binary", ())
    assert any(note.startswith("labels: none; --label-columns A,B") for note in plain.notes)
    manifest = imported(films, label_columns=("nodule",)).manifest
    assert (manifest.meta.task, manifest.meta.classes) == ("multilabel", ("nodule",))
    assert manifest.meta.label_policy == "a category: 1 annotated, 0 listed without it, null not listed"
    assert cells(manifest, "label_nodule") == {"b/one.png": 1, "b/two.png": 1, "a.png": 0, "none.png": 0}
    with pytest.raises(DatasetRefused, match=r"a category 'mass', got 'Heart', 'left lung', 'nodule' in annotations"):
        imported(films, label_columns=("mass",))


def test_categories_are_chosen_and_renamed(films: CocoFilms) -> None:
    result = imported(films, categories={"cor": "heart"})
    assert list(result.masks) == ["mask_cor"]
    assert {box["label"] for text in cells(result.manifest, "boxes").values() for box in json.loads(text)} == {"cor"}
    for categories, match in (
        (
            {"spleen": "spleen"},
            r"a category 'spleen', got 'Heart', 'left lung', 'nodule' in annotations.json; name one",
        ),
        ({"Left-Lung": "left lung", "lung left": "Heart"}, r"one category for each organ, got several for mask_lung_l"),
        ({"-": "Heart"}, r"a category with letters or digits in its name, got '-'; name it with --category"),
    ):
        with pytest.raises(DatasetRefused, match=match):
            imported(films, categories=categories)
    films.annotations = films.annotations[1:2]
    with pytest.raises(DatasetRefused, match=r"annotations of 'nodule', got none in annotations.json; leave it out"):
        imported(films, categories={"nodule": "nodule"})


def test_a_box_beside_outlines_makes_that_mask_unknown(films: CocoFilms) -> None:
    """Half an organ must not pass as the whole of it."""
    films.annotations.append({"id": 9, "image_id": 10, "category_id": 3, "bbox": [5, 5, 9, 9]})
    result = imported(films)
    assert list(result.masks["mask_heart"]) == ["b/two.png"]
    assert "1 images have boxes of Heart without an outline: their mask_heart is unknown" in result.warnings


def test_patients_come_from_paths_entries_or_nowhere(films: CocoFilms) -> None:
    assert imported(films, patient_pattern=r"([a-z]+)\.png").manifest.table["patient"].tolist() == [
        *("a", "one", "two", "loose", "none"),
    ]
    for image in films.images:
        image["case_no"] = image.pop("patient_id")
    result = imported(films)
    assert result.manifest.table["patient"].isna().all()
    assert result.warnings[0].startswith("no patient is known: images of one patient may land in two splits")
    mapped = imported(films, columns={"patient": "case_no"}).manifest
    assert cells(mapped, "patient") == {"b/one.png": "P0", "b/two.png": "P0", "a.png": "P1", "none.png": "P1"}
    with pytest.raises(DatasetRefused, match=r"images with a key 'id_no' in annotations.json, got 'view', 'case_no'"):
        imported(films, columns={"patient": "id_no"})
    with pytest.raises(UsageError, match=r"--map with one of patient, study, .*, got 'mask'; masks, boxes and labels"):
        imported(films, columns={"mask": "case_no"})


def test_entries_fill_columns_and_licences_have_names(films: CocoFilms) -> None:
    films.licenses = [{"id": 1, "name": "CC BY 4.0"}]
    films.images[0] |= {"license": 1, "split": "training", "mask_spleen": "x.png", "meta": {"deep": 1}, "ward": 7}
    films.images[1]["license"] = [2]
    manifest = imported(films).manifest
    assert cells(manifest, "licence") == {"b/one.png": "CC BY 4.0"}
    assert cells(manifest, "split") == {"b/one.png": "train"}
    assert cells(manifest, "ward") == {"b/one.png": "7"}
    assert cells(manifest, "view")["a.png"] == "PA"
    assert not {"mask_spleen", "meta"} & set(manifest.table.columns)


def test_dicom_files_say_whose_they_are(tmp_path: Path) -> None:
    films = CocoFilms(tmp_path / "films")
    write_dicom(films.root / "images" / "IM1", 1, "pat-a", "5", PatientSex="F")
    films.images.append({"id": 1, "file_name": "IM1", "height": 32, "width": 32})
    films.annotate("Heart", SQUARE)
    row = imported(films).manifest.table.iloc[0]
    assert (row["patient"], row["study"], row["sex"]) == ("pat-a", "1.2.5", "F")


def test_a_new_import_replaces_its_own_masks_alone(films: CocoFilms, tmp_path: Path) -> None:
    out = tmp_path / "set"
    saved(imported(films), out)
    films.annotations = films.annotations[1:2]
    with pytest.raises(UsageError, match=r"a new folder, got .*masks, which exists"):
        imported(films).save(out)
    imported(films).save(out, replace=True)
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["lung_left"]
    theirs = tmp_path / "theirs"
    (theirs / "masks").mkdir(parents=True)
    (theirs / "masks" / "drawn.png").write_text("by hand")
    with pytest.raises(UsageError, match=r"a new folder, got .*masks, which exists"):
        imported(films).save(theirs, replace=True)
    assert (theirs / "masks" / "drawn.png").read_text() == "by hand"
    assert not (theirs / "manifest.parquet").exists()


def test_progress_counts_masks(films: CocoFilms, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    imported(films).save(tmp_path / "set", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# where the file and its images are


def test_the_file_is_found_named_or_given_itself(films: CocoFilms, tmp_path: Path) -> None:
    file = films.write("annotations/instances.json")
    assert len(import_dataset(films.root).masks) == 2
    assert import_dataset(file).manifest.root == films.root / "images"
    other = file.rename(tmp_path / "elsewhere.json")
    assert import_dataset(films.root, options=ImportOptions(coco=other)).reason == "as asked"
    films.write("annotations/a.json")
    films.write("b.json")
    with pytest.raises(DatasetRefused, match=r"one COCO file, got 2: a.json, b.json; name it with --coco FILE"):
        import_dataset(films.root)
    below = ImportOptions(coco=Path("annotations/a.json"))
    assert len(import_dataset(films.root, options=below).masks) == 2
    with pytest.raises(DatasetRefused, match=r"a COCO file, got no such file: absent.json; check the path"):
        import_dataset(films.root, options=ImportOptions(coco=Path("absent.json")))


def test_other_json_is_no_coco(films: CocoFilms) -> None:
    (films.root / "labels.json").write_text(json.dumps({"images": ["a.png"]}))
    with pytest.raises(DatasetRefused, match=r"one of the layouts mura, .*coco"):
        import_dataset(films.root)
    with pytest.raises(DatasetRefused, match=r"one COCO file, got 0 in .*films; name it with --coco FILE"):
        import_dataset(films.root, layout="coco")


def test_coco_flags_need_the_layout(films: CocoFilms) -> None:
    films.write()
    for options in (ImportOptions(coco=Path("annotations.json")), ImportOptions(categories={"a": "a"})):
        with pytest.raises(UsageError, match=r"COCO flags for the layout coco, got --coco or --category for the lay"):
            import_dataset(films.root, layout="files", options=options)


def test_images_may_lie_elsewhere(films: CocoFilms, tmp_path: Path) -> None:
    films.write()
    moved = Path(shutil.move(films.root / "images", tmp_path / "pictures"))
    with pytest.raises(DatasetRefused, match=r"4 image files below .*, got 4 that are not there, e.g. 'b/one.png'; na"):
        import_dataset(films.root)
    assert import_dataset(films.root, options=ImportOptions(images=moved)).manifest.root == moved


# refusals


def test_a_listed_image_that_is_missing_is_named(films: CocoFilms) -> None:
    (films.root / "images" / "a.png").unlink()
    with pytest.raises(DatasetRefused, match=r"got 1 that are not there, e.g. 'a.png'; .*take them out of annotations"):
        imported(films)


def test_a_name_that_no_disk_can_hold_is_missing(films: CocoFilms) -> None:
    films.images[0]["file_name"] = "x" * 5000
    with pytest.raises(DatasetRefused, match=r"4 image files below .*, got 1 that are not there, e.g. 'xxx"):
        imported(films)


@pytest.mark.parametrize("name", ["../one.png", "/etc/passwd", "b\\one.png", "b/../../one.png", ".", "a\0.png"])
def test_a_name_that_leads_out_is_refused(name: str, films: CocoFilms) -> None:
    films.images[0]["file_name"] = name
    with pytest.raises(DatasetRefused, match=r"image names below the folder, got one that leads out of it or has a b"):
        imported(films)


def test_two_names_of_one_file_are_refused(films: CocoFilms) -> None:
    films.images[0]["file_name"] = "./b//two.png"
    with pytest.raises(DatasetRefused, match=r"each image once, got a repeated id or file_name in annotations.json"):
        imported(films)


def test_another_size_than_that_of_the_image_is_refused(films: CocoFilms) -> None:
    picture = Image.fromarray(np.zeros((SIDE_PX, 80), np.uint8) + np.arange(80, dtype=np.uint8))
    picture.save(films.root / "images" / "a.png")
    wanted = r"the size of its image, 80 x 64 pixels, got 64 x 64 pixels in annotations.json for a.png; make it from"
    with pytest.raises(DatasetRefused, match=wanted):
        imported(films)


def test_an_image_that_cannot_be_read_is_named(films: CocoFilms) -> None:
    (films.root / "images" / "b" / "one.png").write_text("no picture")
    with pytest.raises(DatasetRefused, match=r"readable images, got b/one.png \(expected a DICOM, PNG.*a text file"):
        imported(films)


def test_a_claim_over_the_budget_is_refused_before_anything_is_drawn(films: CocoFilms) -> None:
    claim = bytearray((films.root / "images" / "b" / "one.png").read_bytes())
    claim[16:24] = (60_000).to_bytes(4, "big") * 2  # IHDR: width and height, then its checksum
    claim[29:33] = zlib.crc32(claim[12:29]).to_bytes(4, "big")
    (films.root / "images" / "b" / "one.png").write_bytes(claim)
    films.images[0] |= {"width": 60_000, "height": 60_000}
    with pytest.raises(DatasetRefused, match=r"readable images, got b/one.png \(expected .* 60000 x 60000 pixels"):
        imported(films)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image_id": 99}, r"annotations of listed images, got annotation 5 of annotations.json of another; export"),
        ({"category_id": 99}, r"annotations of listed categories, got annotation 5 of annotations.json of another"),
        (
            {"segmentation": outline(np.ones((9, 9), bool))},
            r"run lengths of an image of 64 x 64 pixels, got 9 x 9 in a",
        ),
        ({"segmentation": [[1, 1, 400, 1, 9, 9]]}, r"polygons on an image of 64 x 64 pixels, got points far outside"),
        ({"bbox": [1, 2, 3]}, r"left, top, width and height in pixels, got 3 numbers in annotation 5 of annotations"),
        (
            {"bbox": [0.1, 0.2, 0.3, 0.4]},
            r"got less than a pixel of one on its image of 64 x 64 pixels in annotation 5",
        ),
        ({"bbox": [70, 2, 30, 4]}, r"got less than a pixel of one on its image .*; draw it again, or give pixels"),
        ({"bbox": [9, 9, -3, 4]}, r"got less than a pixel of one"),
    ],
)
def test_an_annotation_that_does_not_fit_is_refused(changes: Any, match: str, films: CocoFilms) -> None:
    films.annotate("Heart", **({"segmentation": SQUARE} | changes))
    with pytest.raises(DatasetRefused, match=match):
        imported(films)


def test_a_file_that_is_cut_short_or_empty_is_refused(films: CocoFilms) -> None:
    file = films.write()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DatasetRefused, match=r"a COCO file, got in the whole: Invalid JSON.*; export it again as COCO"):
        import_dataset(films.root)
    for changes, match in (
        ({"annotations": []}, r"annotated images, got 4 images and 0 annotations in annotations.json; export it with"),
        ({"images": [], "annotations": []}, r"annotated images, got 0 images and 0 annotations"),
        ({"categories": None}, r"a COCO file, got in categories: "),
    ):
        films.write(**changes)
        with pytest.raises(DatasetRefused, match=match):
            import_dataset(films.root)


def test_a_byte_order_mark_does_no_harm(films: CocoFilms) -> None:
    file = films.write()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(import_dataset(films.root).masks) == 2
