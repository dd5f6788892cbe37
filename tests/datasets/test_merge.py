"""Several data sets as one: names, patients, sources, masks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from wetread.datasets.manifest import DatasetMeta, Manifest, load_manifest
from wetread.datasets.merge import merge
from wetread.errors import DatasetRefused, UsageError


def part(folder: Path, name: str, labels: list[str | None], **columns: list[object]) -> Manifest:
    root = folder / name
    root.mkdir(parents=True)
    paths = [f"{i}.png" for i in range(len(labels))]
    table = pd.DataFrame({"path": paths, "label": labels, "patient": [f"p{i}" for i in range(len(labels))], **columns})
    classes = tuple(dict.fromkeys(one for one in labels if one))
    return Manifest(table, DatasetMeta(name=name, classes=classes, root=str(root), organ="lungs"), folder)


@pytest.fixture
def both(tmp_path: Path) -> list[Manifest]:
    first = part(tmp_path, "children", ["NORMAL", "PNEUMONIA", "PNEUMONIA"], source=["A"] * 3, split=["train"] * 3)
    second = part(tmp_path, "adults", ["No Finding", "COVID-19", None], mask=["m0.png", None, None])
    return [first, second]


def test_origin_becomes_the_source_and_patients_stay_apart(both: list[Manifest], tmp_path: Path) -> None:
    merged = merge(both, "three", ["NORMAL", "PNEUMONIA", "COVID-19"], {"No Finding": "NORMAL"})
    table = merged.table
    assert list(table["label"]) == ["NORMAL", "PNEUMONIA", "PNEUMONIA", "NORMAL", "COVID-19"]
    assert list(table["source"]) == ["children"] * 3 + ["adults"] * 2
    assert list(table["site"][:3]) == ["A"] * 3
    assert table["patient"].nunique() == 5  # p0 of one set is not p0 of the other
    assert table["split"].isna().all()
    assert merged.meta.task == "multiclass"
    assert merged.meta.organ == "lungs"
    assert [merged.path_of(path).parent.name for path in table["path"]] == ["children"] * 3 + ["adults"] * 2
    assert merged.mask_path_of(str(table["mask"][3])) == tmp_path / "adults" / "m0.png"
    merged.save(tmp_path / "merged")
    assert load_manifest(tmp_path / "merged").root == tmp_path


def test_a_class_of_one_set_alone_can_be_renamed(both: list[Manifest]) -> None:
    merged = merge(both, "two", ["NORMAL", "ILL"], {
        "children:PNEUMONIA": "ILL", "adults:COVID-19": "ILL", "No Finding": "NORMAL",
    })  # fmt: skip
    assert merged.meta.task == "binary"
    assert sorted(merged.table["label"].value_counts().items()) == [("ILL", 3), ("NORMAL", 2)]


def test_what_cannot_be_merged_is_refused(both: list[Manifest]) -> None:
    with pytest.raises(DatasetRefused, match="expected classes among NORMAL, PNEUMONIA, got COVID-19, No Finding"):
        merge(both, "x", ["NORMAL", "PNEUMONIA"], {})
    with pytest.raises(UsageError, match="expected at least two data sets of different names, got children"):
        merge(both[:1], "x", ["NORMAL", "PNEUMONIA"], {})
    with pytest.raises(UsageError, match="expected at least two classes, got NORMAL"):
        merge(both, "x", ["NORMAL"], {})
