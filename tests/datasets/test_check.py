"""The check: every kind of trouble is planted once and found, with the right severity."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tests.datasets.layouts import write_dicom
from tests.datasets.pictures import picture, write
from wetread.datasets import scan as scan_module
from wetread.datasets.check import check, check_scanned, linked_paths, require_clean
from wetread.datasets.check_result import CheckResult, Finding
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.scan import load_scan, save_scan, scan, with_facts
from wetread.datasets.splits import make_split
from wetread.datasets.thumbnails import with_thumbnails
from wetread.errors import DatasetRefused

META = DatasetMeta(name="t", classes=("normal", "sick"))


def dataset(root: Path, n: int = 24, **columns: object) -> Manifest:
    """``n`` different images, one patient each, half of them sick."""
    paths = [write(root / f"{i:02}.png", seed=i).name for i in range(n)]
    table = pd.DataFrame(
        {
            "path": paths,
            "patient": [f"p{i}" for i in range(n)],
            "label": ["sick" if i % 2 else "normal" for i in range(n)],
        }
    ).assign(**columns)  # type: ignore[arg-type]
    return Manifest(table, META.model_copy(update={"root": str(root)}), root)


def found(result: CheckResult) -> dict[str, Finding]:
    return {f.code: f for f in result.findings}


def test_a_clean_dataset_has_no_findings(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    result = check(dataset(tmp_path), lambda done, total: ticks.append((done, total)))
    assert result.findings == ()
    assert ticks == [(i, 24) for i in range(1, 25)]
    require_clean(result)
    assert (result.n_images, result.n_patients, result.n_studies) == (24, 24, None)
    assert CheckResult.model_validate_json(result.model_dump_json()) == result
    assert set(result.seconds) == {"read images", "find copies", "find outliers"}


def test_copies_across_splits_block_and_within_a_split_only_warn(tmp_path: Path) -> None:
    split = ["train" if i < 12 else "test" for i in range(24)]
    manifest = dataset(tmp_path, split=split)
    Image.fromarray(picture(0)).save(tmp_path / "23.png", optimize=True)  # exact copy of 00, test
    Image.fromarray(picture(1)).resize((70, 70)).save(tmp_path / "22.png")  # near copy of 01, test
    ImageOps.mirror(Image.fromarray(picture(2))).save(tmp_path / "21.png")  # mirrored 02, test
    Image.fromarray(picture(3)).save(tmp_path / "05.png", optimize=True)  # exact, both in train
    result = check(manifest)
    got = {code: (f.severity, f.count) for code, f in found(result).items()}
    assert got == {
        "exact-duplicates-across-splits": ("block", 1),
        "near-duplicates-across-splits": ("block", 1),
        "mirrored-copies-across-splits": ("block", 1),
        "exact-duplicates-of-two-patients": ("warn", 1),
        "copies-with-different-labels": ("warn", 2),
        "quality-odd-size": ("warn", 1),  # the one that is 70 x 70
    }
    assert found(result)["near-duplicates-across-splits"].examples[0].paths == ("01.png", "22.png")
    with pytest.raises(DatasetRefused, match=r"without blocking findings, got Identical images in different"):
        require_clean(result)


def test_a_split_made_after_the_check_keeps_near_copies_together(tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    Image.fromarray(picture(1)).resize((70, 70)).save(tmp_path / "22.png")
    linked = linked_paths(manifest, scan(manifest))
    assert linked == [("01.png", "22.png")]
    for seed in range(6):
        split = make_split(manifest, seed=seed, linked=linked).table.set_index("path")["split"]
        assert split["01.png"] == split["22.png"]


def test_patients_and_studies_across_splits_and_changed_splits_block(tmp_path: Path) -> None:
    manifest = make_split(dataset(tmp_path), seed=0)
    table = manifest.table.copy()
    table["study"] = [f"s{i // 2}" for i in range(24)]
    table["patient"] = [f"p{i // 2}" for i in range(24)]
    table["split"] = ["train", "test"] * 2 + ["train"] * 20
    codes = found(check(manifest.with_table(table)))
    assert {c: (f.severity, f.count) for c, f in codes.items() if f.severity == "block"} == {
        "patients-across-splits": ("block", 2),
        "studies-across-splits": ("block", 2),
        "split-changed": ("block", 1),
    }
    assert codes["patients-across-splits"].examples[0].paths == ("00.png", "01.png")


def test_unreadable_and_ambiguous_files_block(tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    (tmp_path / "03.png").write_bytes(b"plain text")
    write_dicom(tmp_path / "04.png", 4, "x", "1", PixelSpacing=[-1, 1])  # DICOM by content
    result = check(manifest)
    codes = found(result)
    assert codes["unreadable"].severity == "block"
    assert codes["unreadable"].examples[0].paths == ("03.png",)
    assert "a text file" in codes["unreadable"].examples[0].detail
    assert codes["ambiguous-pixels"].severity == "block"
    assert codes["ambiguous-pixels"].examples[0].detail
    assert [(r.status, r.count) for r in result.conformance] == [("refused", 1), ("ambiguous", 1), ("ok", 22)]
    assert result.conformance[1].format == "DICOM"
    assert result.conformance[1].bits == 12
    assert result.conformance[2].applied != ()


def test_odd_images_are_found_by_kind(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 60)
    dark = (picture(0) // 8).astype(np.uint8)
    Image.fromarray(dark).save(tmp_path / "00.png")
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(tmp_path / "01.png")
    Image.fromarray(picture(2, 900)).save(tmp_path / "02.png")
    Image.fromarray(picture(3)[:20]).save(tmp_path / "03.png")
    red = np.stack([picture(4), picture(4) // 4, picture(4) // 4], axis=2)
    Image.fromarray(red).save(tmp_path / "04.png")
    codes = found(check(manifest))
    worst = {c: f.examples[0].paths[0] for c, f in codes.items() if c.startswith("quality-")}
    assert worst["quality-dark"] == "00.png"
    assert worst["quality-light"] == "01.png"
    assert worst["quality-low-information"] == "01.png"
    assert worst["quality-odd-size"] == "02.png"
    assert worst["quality-odd-aspect-ratio"] == "03.png"
    assert worst["quality-coloured"] == "04.png"
    assert all(f.severity == "warn" for c, f in codes.items() if c.startswith("quality-") and f.count == 1)


def test_scores_are_those_of_cleanvision_on_the_file(tmp_path: Path) -> None:
    from cleanvision.issue_managers.image_property import BlurrinessProperty, BrightnessProperty, EntropyProperty

    manifest = dataset(tmp_path, 3)
    scanned = scan(manifest)
    for row in scanned.to_dict("records"):
        image = Image.open(tmp_path / row["path"])
        for measure in (BlurrinessProperty(), BrightnessProperty("dark"), EntropyProperty()):
            for name, value in measure.calculate(image).items():
                if name in row:
                    assert row[name] == pytest.approx(value, rel=1e-6), name


def test_label_conflicts_of_studies_and_small_classes(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 16, study=[f"s{i // 2}" for i in range(16)])
    codes = found(check(manifest))
    assert (codes["studies-with-different-labels"].severity, codes["studies-with-different-labels"].count) == (
        "warn",
        8,
    )
    assert codes["few-patients"].title == "Classes with fewer than 10 patients: normal, sick"


def test_a_class_absent_in_a_split_warns_and_a_single_class_blocks(tmp_path: Path) -> None:
    split = ["test" if i in (0, 2) else "train" for i in range(24)]
    codes = found(check(dataset(tmp_path, split=split)))
    assert codes["class-absent-in-test"].title == "Classes without an image in test: sick"
    codes = found(check(dataset(tmp_path, label="sick")))
    assert codes["single-class"].severity == "block"


def test_multilabel_conflicts_need_a_yes_against_a_no(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 24)
    for copy, original in ((22, 0), (23, 1)):
        Image.fromarray(picture(original)).save(tmp_path / f"{copy}.png", optimize=True)
    mass: list[float | None] = [0.0, 1.0] * 12
    mass[22] = None  # unknown against 0: no conflict
    mass[23] = 0.0  # 0 against 1
    table = manifest.table.drop(columns="label").assign(label_mass=pd.Series(mass, dtype="float64"))
    meta = DatasetMeta(name="m", task="multilabel", classes=("mass",), root=str(tmp_path))
    result = check(Manifest(table, meta, tmp_path))
    assert found(result)["copies-with-different-labels"].examples[0].paths == ("01.png", "23.png")
    assert found(result)["copies-with-different-labels"].count == 1
    rows = {row[0]: row[-1] for row in result.counts[0].rows}
    assert rows == {"mass": 11, "none of them": 12, "unknown": 1, "all images": 24}


def test_unknown_patients_and_import_warnings_are_shown_again(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, patient=None)
    codes = found(check(manifest.with_table(manifest.table, warnings=("numbers shared",))))
    assert codes["import-note"].title == "numbers shared"
    assert codes["patient-unknown"].count == 24


def test_counts_by_hand(tmp_path: Path) -> None:
    table = pd.DataFrame(
        [
            ("00.png", "a", "sick", "train", "X"),
            ("01.png", "a", "sick", "train", "X"),
            ("02.png", "b", "normal", "train", "Y"),
            ("03.png", "c", None, "test", None),
        ],
        columns=["path", "patient", "label", "split", "source"],
    )
    manifest = dataset(tmp_path, 4)
    tables = {t.title.split(" (")[0]: t for t in check(manifest.with_table(table)).counts}
    images = tables["images per class and split"]
    assert images.columns == ("class", "train", "test", "all")
    assert images.rows == (("normal", 1, 0, 1), ("sick", 2, 0, 2), ("unknown", 0, 1, 1), ("all images", 3, 1, 4))
    patients = tables["patients per class and split"]
    assert patients.rows == (("normal", 1, 0, 1), ("sick", 1, 0, 1), ("unknown", 0, 1, 1), ("all patients", 2, 1, 3))
    sources = tables["images per source and class"]
    assert sources.columns == ("source", "normal", "sick", "unknown", "all")
    assert sources.rows == (("X", 0, 2, 0, 2), ("Y", 1, 0, 0, 1), ("unknown", 0, 0, 1, 1))


def test_images_with_and_without_masks_are_counted(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 4)
    assert "images with a mask per organ and split" not in [t.title for t in check(manifest).counts]
    table = manifest.table.assign(mask=pd.Series(["a", None, None, None]), mask_heart=pd.Series(["b", "c", None, None]))
    table["split"] = pd.Series(["train", "train", "val", None])
    for organ, named in (("lungs", "lungs"), (None, "mask")):
        result = check(manifest.with_table(table, organ=organ))
        masks = next(t for t in result.counts if t.title == "images with a mask per organ and split")
        assert masks.columns == ("organ", "train", "val", "no split", "all", "without a mask")
        assert masks.rows == ((named, 1, 0, 0, 1, 3), ("heart", 2, 0, 0, 2, 2), ("any of them", 2, 0, 0, 2, 2))
    alone = check(manifest.with_table(table.drop(columns="mask"))).counts
    assert alone[-1].rows == (("heart", 2, 0, 0, 2, 2),)


def test_a_scan_is_used_again_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = dataset(tmp_path / "images", 5)
    first = scan(manifest)
    save_scan(first, tmp_path)
    write(tmp_path / "images" / "02.png", seed=77)
    read: list[str] = []
    original = scan_module._scan_one

    def noted(path: str, file: Path) -> dict[str, Any]:
        read.append(path)
        return original(path, file)

    monkeypatch.setattr(scan_module, "_scan_one", noted)
    again = scan(manifest, previous=load_scan(tmp_path))
    assert read == ["02.png"]
    same = first["path"] != "02.png"
    pd.testing.assert_frame_equal(again[same], first[same])
    assert again["phash"].iloc[2] != first["phash"].iloc[2]


def test_a_damaged_scan_is_made_anew(tmp_path: Path) -> None:
    assert load_scan(tmp_path) is None
    (tmp_path / "scan.parquet").write_bytes(b"PAR1 nonsense")
    assert load_scan(tmp_path) is None


def test_facts_are_filled_into_the_manifest(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 3)
    write_dicom(tmp_path / "01.png", 1, "x", "1", PixelSpacing=[0.5, 0.25])
    table = with_facts(manifest, scan(manifest)).table
    assert table["width"].tolist() == [96, 32, 96]
    assert table["bits"].tolist() == [8, 12, 8]
    assert table["spacing_mm"].fillna("null").tolist() == ["null", "0.5,0.25", "null"]
    assert table["phash"].str.fullmatch("[0-9a-f]{16}").all()
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_thumbnails_show_examples_and_before_and_after(tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    write_dicom(tmp_path / "04.png", 4, "x", "1", PhotometricInterpretation="MONOCHROME1")
    (tmp_path / "05.png").write_bytes(b"text")
    scanned = scan(manifest)
    result = with_thumbnails(check_scanned(manifest, scanned), manifest)
    dicom = next(r for r in result.conformance if r.format == "DICOM")
    assert dicom.before_png is not None
    assert dicom.after_png is not None
    before, after = (decoded(p).astype(int) for p in (dicom.before_png, dicom.after_png))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] < -0.95  # MONOCHROME1 is inverted
    refused = next(r for r in result.conformance if r.status == "refused")
    assert refused.before_png is None
    unreadable = found(result)["unreadable"].examples[0]
    assert unreadable.thumbnails == ()
    json.loads(result.model_dump_json())


def decoded(png: str) -> np.ndarray:
    image = Image.open(BytesIO(base64.b64decode(png)))
    assert max(image.size) <= 128
    return np.asarray(image)


def test_missing_files_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    (tmp_path / "07.png").unlink()
    with pytest.raises(DatasetRefused, match=r"24 image files below .*got 1 that do not exist, e.g. '07.png'"):
        check(manifest)
