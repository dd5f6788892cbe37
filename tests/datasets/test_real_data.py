"""Layouts and checks on the real public sets, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wetread.datasets.check import check
from wetread.datasets.importers.base import ImportOptions
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.splits import assert_no_leak, make_split
from wetread.errors import DatasetRefused


@pytest.fixture
def real(shared_data: Path) -> Path:
    return shared_data


def need(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} in the shared data")
    return folder


def on_disk(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def test_kermany_counts_patients_and_shared_numbers(real: Path) -> None:
    source = need(real / "kermany-cxr")
    result = import_dataset(source)
    table = result.manifest.table
    assert result.layout == "kermany"
    train, test = (table[table["split"] == s] for s in ("train", "test"))
    assert len(train) == 5216
    assert train["label"].value_counts().to_dict() == {"PNEUMONIA": 3875, "NORMAL": 1341}
    assert len(test) == on_disk(source / "test")
    assert train["patient"].nunique() == 2846  # 1,635 personN and 1,211 IM-A and NORMAL2-IM-A
    numbers = [set(s["patient"].str.split("/").str[1]) for s in (train, test)]
    n = len(numbers[0] & numbers[1])
    assert n > 100
    assert result.warnings[0].startswith(f"{n} patient numbers occur in more than one split")
    assert_no_leak(result.manifest)


def test_covid_cxr_imports_checks_and_divides(real: Path) -> None:
    source = need(real / "covid-cxr")
    result = import_dataset(source)
    assert result.layout == "covid-cxr"
    table = result.manifest.table
    assert len(table) == on_disk(source / "images")
    assert table["label"].isna().sum() >= (table["finding"] == "todo").sum()
    assert set(table["finding"][table["label"] == "COVID-19"]) == {"COVID-19", "COVID-19, ARDS"}
    assert set(table["finding"][table["label"].isna()]) <= {"todo", "Unknown", "ARDS"}
    assert all((result.manifest.root / m).is_file() for m in table["mask"].dropna())
    done = make_split(result.manifest, seed=0)
    assert (done.table.groupby("patient")["split"].nunique() == 1).all()


def test_covid_cxr_has_the_same_films_under_two_patients(real: Path) -> None:
    """One published case was collected twice: the check finds its four films."""
    manifest = import_dataset(need(real / "covid-cxr")).manifest
    case = manifest.table["path"].str.contains("16660_|rapidly-progressive")
    if case.sum() < 8:
        pytest.skip("that case is not in this part of the set")
    found = {f.code: f for f in check(manifest.with_table(manifest.table[case])).findings}
    assert found["near-duplicates-of-two-patients"].count >= 4


def test_covid_ct_class_folders_with_papers_as_patients(real: Path) -> None:
    source = need(real / "covid-ct")
    pattern = r"([^/]+?)(?:-p\d.*|%.*|\.(?:png|jpe?g))$"
    result = import_dataset(source, options=ImportOptions(patient_pattern=pattern))
    assert result.layout == "folder"
    assert result.manifest.meta.classes == ("CT_NonCOVID", "CT_COVID")
    assert len(result.manifest.table) == on_disk(source)
    assert 0 < result.manifest.table["patient"].nunique() < len(result.manifest.table)


def test_mr_dicom_tree_has_its_series(real: Path) -> None:
    source = need(real / "mr-dicom")
    result = import_dataset(source)
    table = result.manifest.table
    assert result.layout == "dicom"
    assert (table["patient"].nunique(), table["study"].nunique(), table["series"].nunique()) == (1, 1, 2)
    assert set(table["modality"]) == {"MR"}
    with pytest.raises(DatasetRefused, match="at least 3 patients of every class for 3 splits, got 1 in all"):
        make_split(result.manifest)
