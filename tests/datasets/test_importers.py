"""One contract that every importer keeps, then what each layout means."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from tests.datasets import layouts
from tests.datasets.layouts import LAYOUTS, write_dicom
from tests.datasets.pictures import class_tree, write
from wetread.datasets.importers.base import ImportOptions, age_years, sex_letter, split_word
from wetread.datasets.importers.registry import IMPORTERS, import_dataset, recognise
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.errors import DatasetRefused, UsageError


def imported(source: Path, layout: str = "auto", **options: object) -> Manifest:
    return import_dataset(source, layout=layout, options=ImportOptions(**options)).manifest  # type: ignore[arg-type]


def test_every_importer_has_an_example() -> None:
    assert set(LAYOUTS) == set(IMPORTERS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_contract(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    source = layout.build(tmp_path / "source")
    before = {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*"))}
    result = import_dataset(source, layout=name, options=layout.options)
    manifest = result.manifest
    assert len(manifest.table) == layout.images
    assert manifest.meta.importer == name
    assert result.reason
    manifest.require_files()
    for row in manifest.table.to_dict("records"):
        file = manifest.path_of(row["path"])
        assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert not row["path"].startswith(("/", "."))
        assert "\\" not in row["path"]
    if manifest.meta.task != "multilabel":
        assert set(manifest.table["label"].dropna()) <= set(manifest.meta.classes)
    assert before == {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*"))}, "the source is only read"
    manifest.save(tmp_path / "set")
    pd.testing.assert_frame_equal(load_manifest(tmp_path / "set").table, manifest.table)
    again = import_dataset(source, layout=name, options=layout.options).manifest
    pd.testing.assert_frame_equal(again.table, manifest.table)


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n != "files"])
def test_layouts_are_recognised(name: str, tmp_path: Path) -> None:
    importer, reason = recognise(LAYOUTS[name].build(tmp_path))
    assert importer.name == name
    assert reason


@pytest.mark.parametrize("name", IMPORTERS)
def test_nothing_is_recognised_in_an_empty_folder_and_reading_it_is_refused(name: str, tmp_path: Path) -> None:
    assert IMPORTERS[name].recognise(tmp_path) is None
    with pytest.raises((DatasetRefused, FileNotFoundError), match="expected"):
        import_dataset(tmp_path, layout=name)


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="a folder or table, got nothing at"):
        import_dataset(tmp_path / "absent")
    with pytest.raises(DatasetRefused, match=r"one of the layouts mura, .*without a file"):
        import_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetRefused, match=r"one of the layouts .*none of them in .*--layout"):
        import_dataset(tmp_path)
    with pytest.raises(UsageError, match=r"a layout among auto, mura.*got 'yolo'"):
        import_dataset(tmp_path, layout="yolo")


# class folders


def test_folder_classes_and_splits(tmp_path: Path) -> None:
    for split in ("training", "valid", "Test"):
        class_tree(tmp_path / split, per_class=2)
    manifest = imported(tmp_path)
    assert manifest.meta.classes == ("normal", "sick")
    assert sorted(manifest.table["split"].unique()) == ["test", "train", "val"]
    assert manifest.meta.split is not None
    assert manifest.meta.split.method == "given with the data"


def test_folder_patients_come_from_a_pattern(tmp_path: Path) -> None:
    class_tree(tmp_path)
    result = import_dataset(tmp_path, options=ImportOptions(patient_pattern=r"/(p\d+)_"))
    assert result.manifest.table["patient"].nunique() == 6
    assert result.notes == ("patient: 6 from the paths of 12 of 12 images",)
    assert result.warnings == ()
    assert "no patient is known" in import_dataset(tmp_path).warnings[0]


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(", UsageError, "a regular expression in --patient-pattern"),
        ("p.*", UsageError, r"one group \(...\) in --patient-pattern, got 0"),
        ("(zebra)", DatasetRefused, r"to match paths, got no match among 12, e.g. 'normal/p00_0.png'"),
    ],
)
def test_folder_bad_pattern(pattern: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    class_tree(tmp_path)
    with pytest.raises(error, match=message):
        imported(tmp_path, patient_pattern=pattern)


def test_folder_with_one_class_or_loose_images_is_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, classes=("only",))
    with pytest.raises(DatasetRefused, match=r"at least two class folders with images, got 1 \(only\)"):
        imported(tmp_path, "folder")
    class_tree(tmp_path)
    write(tmp_path / "loose.png", 7)
    with pytest.raises(DatasetRefused, match=r"inside a class folder, got 1 outside, e.g. 'loose.png'"):
        imported(tmp_path, "folder")


# Kermany


def test_kermany_patients_splits_and_subtypes(tmp_path: Path) -> None:
    result = import_dataset(layouts.kermany(tmp_path))
    table = result.manifest.table.set_index("path")
    patient = table["patient"]
    assert patient["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "train/person1"
    assert patient["train/PNEUMONIA/person1_virus_2.jpeg"] == "train/person1"
    assert patient["test/PNEUMONIA/person1_bacteria_7.jpeg"] == "test/person1"
    assert patient["train/NORMAL/IM-0115-0001-0002.jpeg"] == "train/IM-0115"
    assert patient["train/NORMAL/NORMAL2-IM-0115-0001.jpeg"] == "train/NORMAL2-IM-0115"
    assert table["subtype"]["train/PNEUMONIA/person3_virus_15_1.jpeg"] == "virus"
    assert table["subtype"].isna()["train/NORMAL/IM-0115-0001.jpeg"]
    assert result.manifest.meta.classes == ("NORMAL", "PNEUMONIA")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("1 patient numbers occur in more than one split, e.g. person1;")
    assert result.manifest.meta.warnings == result.warnings


def test_kermany_with_a_foreign_name_is_refused(tmp_path: Path) -> None:
    write(layouts.kermany(tmp_path) / "train" / "NORMAL" / "holiday.jpeg", 9)
    with pytest.raises(DatasetRefused, match=r"1 other files, e.g. \['train/NORMAL/holiday.jpeg'\]"):
        imported(tmp_path, "kermany")


# MURA


def test_mura_studies_splits_and_body_parts(tmp_path: Path) -> None:
    result = import_dataset(layouts.mura(tmp_path))
    row = result.manifest.table.iloc[0]
    assert row["path"] == "MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/image1.png"
    assert (row["patient"], row["study"]) == ("patient00011", "patient00011/XR_ELBOW/study1")
    assert (row["label"], row["split"], row["body_part"]) == ("negative", "train", "ELBOW")
    assert set(result.manifest.table["split"]) == {"train", "test"}
    assert "split: the published 'valid' set is used as test" in result.notes
    inner = import_dataset(tmp_path / "MURA-v1.1").manifest
    pd.testing.assert_frame_equal(inner.table, result.manifest.table)


def test_mura_label_that_contradicts_the_csv_is_refused(tmp_path: Path) -> None:
    file = layouts.mura(tmp_path) / "MURA-v1.1" / "train_labeled_studies.csv"
    file.write_text(file.read_text().replace("study1_negative/,0", "study1_negative/,1", 1))
    with pytest.raises(DatasetRefused, match=r"agree on the label, got 1 studies that differ.*patient00011"):
        imported(tmp_path)


def test_mura_missing_images_are_noted(tmp_path: Path) -> None:
    first = layouts.mura(tmp_path) / "MURA-v1.1/train/XR_WRIST/patient00012/study1_negative/image2.png"
    first.unlink()
    notes = import_dataset(tmp_path).notes
    assert "train_image_paths.csv lists 6 images: 1 of them are not on disk, 0 on disk are not listed" in notes


# covid-chestxray-dataset


def test_covid_cxr_findings_studies_and_masks(tmp_path: Path) -> None:
    result = import_dataset(layouts.covid_cxr(tmp_path))
    table = result.manifest.table.set_index("path")
    assert table["label"].fillna("null").to_dict() == {
        "images/a.jpg": "COVID-19",
        "images/b.jpg": "COVID-19",
        "images/c.jpg": "null",
        "images/d.jpg": "Other pneumonia",
        "images/e.jpg": "No Finding",
    }
    assert table["study"].fillna("null").tolist() == ["2/day0", "2/day3", "null", "8/day0", "9/day0"]
    assert table["mask"].fillna("null").tolist() == ["lung_masks/a.png", "null", "null", "null", "null"]
    assert table["view"].isna().tolist() == [False, False, True, False, False]
    assert table["sex"].fillna("null").tolist() == ["M", "M", "F", "null", "F"]
    assert table["age"].isna().tolist() == [False, False, True, False, False]
    assert table["finding"]["images/b.jpg"] == "COVID-19, ARDS"
    assert '"label": "Left Lung", "x": 0.1' in table["lung_boxes"].iloc[0]
    assert result.notes[0].startswith("1 rows of another modality and 1 radiographs that are not on disk")


# tables


def test_table_guesses_are_shown(tmp_path: Path) -> None:
    result = import_dataset(layouts.table(tmp_path))
    table, meta = result.manifest.table, result.manifest.meta
    assert meta.task == "multilabel"
    assert meta.classes == ("Edema", "Mass")
    assert table["label_Edema"].tolist() == [0, 1, 1, 0]
    assert table["label_Mass"].tolist() == [0, 1, 0, 0]
    assert table["patient"].tolist() == ["001", "001", "2", "3"]
    assert table["age"].tolist()[:2] == [58, 58]
    assert table["age"].iloc[3] == pytest.approx(1.5)
    assert table["sex"].tolist() == ["M", "M", "F", "F"]
    assert table["Follow-up #"].tolist() == ["0", "1", "0", "0"]
    assert table["path"].iloc[1] == "images_001/images/1.png"
    assert "path <- column 'Image Index' (guessed)" in result.notes
    assert "patient <- column 'Patient ID' (guessed)" in result.notes
    assert any("separated by '|'" in n for n in result.notes)


def write_table(folder: Path, text: str, images: int = 2) -> Path:
    for i in range(images):
        write(folder / f"{i}.png", i)
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


def test_table_columns_by_flag(tmp_path: Path) -> None:
    file = write_table(tmp_path, "where,who,what\n0.png,a,ill\n1.png,b,well\n")
    columns = {"path": "where", "patient": "who", "label": "what"}
    result = import_dataset(file, options=ImportOptions(columns=columns, negative="well"))
    assert result.manifest.meta.classes == ("well", "ill")
    assert result.manifest.table["patient"].tolist() == ["a", "b"]
    assert "patient <- column 'who'" in result.notes


def test_table_without_the_named_column_lists_them_and_suggests(tmp_path: Path) -> None:
    file = write_table(tmp_path, "path,PatientID,label\n0.png,a,x\n1.png,b,normal\n")
    message = r"expected a column 'PatientId', got the columns 'path', 'PatientID', 'label'; did you mean 'PatientID'\?"
    with pytest.raises(DatasetRefused, match=message):
        imported(file, columns={"patient": "PatientId"})
    with pytest.raises(UsageError, match=r"--map with one of path, .*got 'pateint'; did you mean 'patient'\?"):
        imported(file, columns={"pateint": "PatientID"})
    with pytest.raises(DatasetRefused, match=r"a label column 'Mass', got the columns"):
        imported(file, label_columns=("Mass",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.png,sick\n1.png,sick\n", "at least two classes, got only 'sick'"),
        ("path,label\n0.png,sick\n0.png,normal\n", "each path once, got 1 repeated paths: '0.png'"),
        ("path,label\n0.png,sick\n9.png,normal\n", r"2 image files below .*got 1 that are not there, e.g. '9.png'"),
        ("path,label\n0.png,sick\n,normal\n", "a file name in every row, got 1 rows without one"),
        ("a,b\n1,2\n", "a column with the image files, got only 'a', 'b'; name it with --map path=COLUMN"),
    ],
)
def test_table_refuses(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match=message):
        imported(write_table(tmp_path, text))


def test_table_with_one_name_for_two_files_is_refused(tmp_path: Path) -> None:
    for side in ("left", "right"):
        write(tmp_path / side / "0.png", 1)
    file = write_table(tmp_path, "path,label\n0.png,a\n", images=0)
    with pytest.raises(DatasetRefused, match=r"one file for '0.png', got 2, e.g. left/0.png, right/0.png"):
        imported(file)


def test_table_multilabel_columns_with_uncertain_cells(tmp_path: Path) -> None:
    file = write_table(tmp_path, "Path,Edema,Mass\n0.png,1.0,-1.0\n1.png,0,\n")
    table = imported(file, label_columns=("Edema", "Mass")).table
    assert table["label_Edema"].tolist() == [1, 0]
    assert table["label_Mass"].isna().all()
    bad = write_table(tmp_path, "Path,Edema\n0.png,1\n1.png,maybe\n")
    with pytest.raises(DatasetRefused, match=r"in label column 'Edema', got 1 other cells, e.g. 'maybe'"):
        imported(bad, label_columns=("Edema",))


def test_table_split_words_and_images_folder(tmp_path: Path) -> None:
    write(tmp_path / "pics" / "0.png", 0)
    write(tmp_path / "pics" / "1.png", 1)
    file = write_table(tmp_path, "image_id,class,subset\n0,normal,training\n1,sick,holdout\n", images=0)
    result = import_dataset(file, options=ImportOptions(images=tmp_path / "pics"))
    assert result.manifest.table["split"].fillna("null").tolist() == ["train", "null"]
    assert "splits that are not train, val or test are left empty: holdout" in result.warnings
    assert result.manifest.table["path"].tolist() == ["0.png", "1.png"]


def test_parquet_with_numbers(tmp_path: Path) -> None:
    write_table(tmp_path, "")
    frame = pd.DataFrame({"path": ["0.png", "1.png"], "age": [50, 61.5], "label": [0, 1], "patient": [7, 8]})
    frame.to_parquet(tmp_path / "t.parquet")
    manifest = imported(tmp_path / "t.parquet")
    assert manifest.meta.classes == ("0", "1")
    assert manifest.table["age"].tolist() == [50, 61.5]
    assert manifest.table["patient"].tolist() == ["7", "8"]


# DICOM


def test_dicom_headers(tmp_path: Path) -> None:
    result = import_dataset(layouts.dicom(tmp_path))
    table = result.manifest.table
    assert table["patient"].tolist() == ["pat-a", "pat-a", "pat-b"]
    assert table["study"].tolist() == ["1.2.5", "1.2.5", "1.2.6"]
    assert table["view"].fillna("null").tolist() == ["PA", "LL", "null"]
    assert table["age"].iloc[0] == 61
    assert table["sex"].iloc[0] == "F"
    assert table["laterality"].iloc[2] == "L"
    assert not result.manifest.meta.labelled
    assert "1 files that are not DICOM left out" in result.notes


@pytest.mark.parametrize(
    ("key", "column", "values"),
    [
        ("study", "StudyInstanceUID", ("1.2.5", "1.2.6")),
        ("patient", "who", ("pat-a", "pat-b")),
        ("instance", "sop", ("1.2.9.1", "1.2.9.3")),
        ("path", "file", ("A/IM1", "B/IM3.dcm")),
    ],
)
def test_dicom_labels_by_any_key(key: str, column: str, values: tuple[str, str], tmp_path: Path) -> None:
    source = layouts.dicom(tmp_path / "tree")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{column},diagnosis\n{values[0]},sick\n{values[1]},normal\n")
    result = import_dataset(source, options=ImportOptions(labels=labels))
    table = result.manifest.table
    assert (table["label"].iloc[0], table["label"].iloc[2]) == ("sick", "normal")
    assert result.manifest.meta.classes == ("normal", "sick")
    n = 3 if key in {"study", "patient"} else 2
    assert f"labels: by {key} from column '{column}', {n} of 3 images found" in result.notes
    assert bool(table["label"].isna().iloc[1]) == (n == 2)


def test_dicom_labels_that_fit_nothing_or_contradict_are_refused(tmp_path: Path) -> None:
    source = layouts.dicom(tmp_path / "tree")
    labels = tmp_path / "labels.csv"
    labels.write_text("patient,label\nnobody,sick\n")
    with pytest.raises(DatasetRefused, match=r"a column of labels.csv with paths.*of which none fits"):
        imported(source, labels=labels)
    labels.write_text("patient,label\npat-a,sick\npat-a,normal\npat-b,normal\n")
    with pytest.raises(DatasetRefused, match="one label for each value of 'patient', got 1 values"):
        imported(source, labels=labels)


def test_dicom_without_patient_or_rows_is_warned_of(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "a.dcm", 1, "", "5").read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:200])  # cut inside the header
    result = import_dataset(tmp_path)
    assert len(result.manifest.table) == 1
    assert result.warnings == (
        "1 DICOM files without rows and columns left out, e.g. b.dcm: reports and the like, or damaged",
        "1 images name no patient: only their study keeps them together",
    )


@pytest.mark.parametrize(
    ("text", "years"),
    [("072Y", 72), ("018M", 1.5), ("65", 65), ("65.5", 65.5), ("", None), ("old", None), (None, None)],
)
def test_ages(text: str | None, years: float | None) -> None:
    assert age_years(text) == (pytest.approx(years) if years is not None else None)


def test_words() -> None:
    assert [sex_letter(v) for v in ("female", "M", " o", "unknown", "", None)] == ["F", "M", "O", None, None, None]
    assert [split_word(v) for v in ("Training", "valid", "test", "holdout")] == ["train", "val", "test", None]
