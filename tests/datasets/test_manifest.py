"""The manifest: what it refuses, and that saving and loading lose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.datasets.pictures import write
from wetread.datasets.manifest import DatasetMeta, Manifest, SplitMeta, infer_classes, load_manifest
from wetread.errors import DatasetRefused

META = DatasetMeta(name="t", classes=("normal", "sick"))


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"path": ["a.png", "b.png"], **columns})


def test_known_columns_come_first_with_their_types_and_extra_ones_stay(tmp_path: Path) -> None:
    given = table(ward=["x", "y"], age=["65", ""], label=["sick", " "], width=[10, None])
    done = Manifest(given, META, tmp_path).table
    assert list(done.columns)[:5] == ["path", "patient", "study", "series", "label"]
    assert done.columns[-1] == "ward"
    assert done["age"].dtype == np.float64
    assert done["age"].iloc[0] == 65
    assert done["age"].isna().iloc[1]
    assert done["label"].isna().tolist() == [False, True]
    assert str(done["width"].dtype) == "Int64"
    assert done["patient"].isna().all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["sick", "odd"]}, r"labels among the classes .*got 1 other labels: 'odd'"),
        ({"split": ["train", "holdout"]}, r"train, val, test or empty, got 1 other values: 'holdout'"),
        ({"path": ["a.png", "a.png"]}, r"expected each path once, got 1 repeated paths: 'a.png'"),
        ({"path": ["a.png", None]}, r"a path in every row, got 1 rows without one, the first is row 2"),
        ({"age": ["65", "old"]}, r"numbers in column 'age', got 1 cells that are not numbers"),
    ],
)
def test_refuses(columns: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match=message):
        Manifest(table(**columns), META, tmp_path)


def test_refuses_a_table_without_paths_and_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match=r"a column 'path', got the columns 'image', 'label'"):
        Manifest(pd.DataFrame({"image": ["a"], "label": ["sick"]}), META, tmp_path)


def test_refuses_an_empty_table(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="at least one image, got an empty table"):
        Manifest(table().iloc[:0], META, tmp_path)


def test_multilabel_needs_its_columns_and_only_takes_0_1_and_null(tmp_path: Path) -> None:
    meta = DatasetMeta(name="m", task="multilabel", classes=("mass", "edema"))
    with pytest.raises(DatasetRefused, match="a column 'label_edema' for the class 'edema'"):
        Manifest(table(label_mass=[1, 0]), meta, tmp_path)
    with pytest.raises(DatasetRefused, match="1, 0 or empty in 'label_mass', got 1 rows"):
        Manifest(table(label_mass=[1, 0.5], label_edema=[0, 1]), meta, tmp_path)
    done = Manifest(table(label_mass=["1", ""], label_edema=[0, None]), meta, tmp_path).table
    assert done["label_mass"].iloc[0] == 1
    assert done["label_mass"].isna().tolist() == [False, True]


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    manifest = Manifest(table(), META, tmp_path)
    with pytest.raises(DatasetRefused, match=r"got 1 that do not exist, e.g. 'b.png'"):
        manifest.require_files()


def test_saving_and_loading_lose_nothing(tmp_path: Path) -> None:
    meta = DatasetMeta(
        name='quo"te\\ and ünïcode',
        classes=("normal", "sick"),
        root=str(tmp_path / "images"),
        licence="CC BY 4.0",
        warnings=("first [line]", "second = line"),
        split=SplitMeta(method="given", seed=3, sha256="ab", fractions={"train": 0.85, "val": 0.15}),
    )
    manifest = Manifest(table(label=["sick", None], patient=["007", "8"], ward=["x", "y"]), meta, tmp_path)
    manifest.save(tmp_path / "set")
    again = load_manifest(tmp_path / "set")
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert again.meta == meta
    assert again.path_of(again.table.iloc[0]) == tmp_path / "images" / "a.png"
    assert not list((tmp_path / "set").glob("*.part"))


def test_a_root_below_the_dataset_moves_with_it(tmp_path: Path) -> None:
    write(tmp_path / "set" / "images" / "a.png", 1)
    meta = DatasetMeta(name="t", root=str(tmp_path / "set" / "images"))
    Manifest(pd.DataFrame({"path": ["a.png"]}), meta, tmp_path).save(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "moved")
    load_manifest(tmp_path / "moved").require_files()


def test_masks_start_from_a_folder_of_their_own(tmp_path: Path) -> None:
    """Images stay where they are; masks beside the manifest move with it."""
    meta = DatasetMeta(name="t", root=str(tmp_path / "images"), mask_root=str(tmp_path / "set" / "masks"))
    manifest = Manifest(table(mask=["a.png", None]), meta, tmp_path)
    assert manifest.mask_path_of("a.png") == tmp_path / "set" / "masks" / "a.png"
    manifest.save(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "moved")
    again = load_manifest(tmp_path / "moved")
    assert (again.meta.root, again.meta.mask_root) == (str(tmp_path / "images"), "masks")
    assert again.mask_path_of("a.png") == tmp_path / "moved" / "masks" / "a.png"
    plain = again.with_table(again.table, mask_root=None)
    assert plain.mask_path_of("a.png") == tmp_path / "images" / "a.png"


def test_csv_keeps_leading_zeros_and_classes_called_none(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,patient,label\na.png,007,None\nb.png,08,NA\nc.png,9,\n")
    manifest = load_manifest(tmp_path / "m.csv", root=tmp_path / "elsewhere")
    assert manifest.table["patient"].tolist() == ["007", "08", "9"]
    assert manifest.meta.classes == ("None", "NA")
    assert manifest.table["label"].isna().tolist() == [False, False, True]
    assert manifest.root == tmp_path / "elsewhere"


def test_csv_written_from_a_manifest_reads_back_the_same(tmp_path: Path) -> None:
    manifest = Manifest(table(label=["sick", "normal"], age=[3.5, None], width=[5, None]), META, tmp_path)
    manifest.table.to_csv(tmp_path / "m.csv", index=False)
    pd.testing.assert_frame_equal(load_manifest(tmp_path / "m.csv").table, manifest.table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a CSV, TSV or Parquet table in m.csv, got .*; open it"),
        ("path,label\na.png,x,y,z\nb.png,1,2,3,4\n", r"a CSV, TSV or Parquet table in m.csv"),
    ],
)
def test_broken_csv_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DatasetRefused, match=message) as caught:
        load_manifest(tmp_path / "m.csv")
    assert "\n" not in str(caught.value)


def test_broken_toml_is_refused(tmp_path: Path) -> None:
    Manifest(table(), META, tmp_path).save(tmp_path)
    (tmp_path / "dataset.toml").write_text('name = "t"\ntask = "regression"\n')
    with pytest.raises(DatasetRefused, match=r"a valid dataset.toml, got in task: Input should be"):
        load_manifest(tmp_path)
    (tmp_path / "dataset.toml").write_text("name = \n")
    with pytest.raises(DatasetRefused, match=r"a valid dataset.toml, got in its syntax"):
        load_manifest(tmp_path)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="import first: wetread dataset import"):
        load_manifest(tmp_path)
    with pytest.raises(DatasetRefused, match="nothing at"):
        load_manifest(tmp_path / "absent")


def labels(*values: str | None) -> pd.DataFrame:
    return pd.DataFrame({"label": pd.Series(values, dtype="str")})


def test_the_negative_class_comes_first() -> None:
    assert infer_classes(labels("Pneumonia", "NORMAL", None)) == ("binary", ["NORMAL", "Pneumonia"])
    assert infer_classes(labels("z", "No Finding", "a")) == ("multiclass", ["No Finding", "a", "z"])
    assert infer_classes(labels("b", "a"), negative="b") == ("binary", ["b", "a"])
    assert infer_classes(labels("CT_COVID", "CT_NonCOVID")) == ("binary", ["CT_NonCOVID", "CT_COVID"])
    assert infer_classes(labels("tumour", "No Tumour")) == ("binary", ["No Tumour", "tumour"])
    assert infer_classes(labels(None)) == ("binary", [])
    multi = pd.DataFrame({"label_b": [1], "label_a": [0]})
    assert infer_classes(multi) == ("multilabel", ["b", "a"])


def test_unclear_labels_are_refused() -> None:
    with pytest.raises(DatasetRefused, match="at least two classes, got only 'sick'"):
        infer_classes(labels("sick", "sick"))
    with pytest.raises(DatasetRefused, match=r"which class is the negative one, .*--negative 'dog'|'cat'"):
        infer_classes(labels("dog", "cat"))
    with pytest.raises(DatasetRefused, match=r"a negative class among the labels, got 'x'"):
        infer_classes(labels("dog", "cat"), negative="x")


def test_a_binary_task_has_two_classes() -> None:
    with pytest.raises(ValueError, match="2 classes"):
        DatasetMeta(name="t", task="binary", classes=("a", "b", "c"))
