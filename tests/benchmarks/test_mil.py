"""The benchmark of studies from its command line to its rows, on data small enough for a test."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import mil
from wetread.training.study_config import StudyConfig
from wetread.types import Estimate


def picture(file: Path, seed: int, bright: int) -> None:
    """A soft pattern; brightness tells the classes apart."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 60, (6, 6)).astype(np.uint8) + np.uint8(bright)
    Image.fromarray(coarse).resize((48, 48)).save(file)


@pytest.fixture
def kermany(tmp_path: Path) -> Path:
    """Nine patients of each class with one or two films; number 3 has both causes."""
    root = tmp_path / "kermany"
    for number in range(9):
        films = 1 + number % 2
        for film in range(films):
            seed = 10 * number + film
            picture(root / "train" / "NORMAL" / f"IM-{number:04d}-{film:04d}.jpeg", seed, 10)
            name = f"person{number}_bacteria_{seed}.jpeg"
            picture(root / "train" / "PNEUMONIA" / name, seed + 100, 90)
            virus = 3 if number == 0 else number + 100
            picture(root / "test" / "PNEUMONIA" / f"person{virus}_virus_{seed}.jpeg", seed + 200, 170)
    return root


@pytest.fixture
def covid_ct(tmp_path: Path) -> Path:
    """Nine papers of each class with two slices each."""
    root = tmp_path / "ct"
    for number in range(9):
        for cut in range(2):
            picture(root / "CT_COVID" / f"2020.01.{number}-p{cut}-7.png", 10 * number + cut, 150)
            picture(root / "CT_NonCOVID" / f"{number}%{cut}.jpg", 10 * number + cut + 100, 20)
    return root


def test_a_study_is_one_number_with_one_cause_and_the_patient_is_the_number(kermany: Path) -> None:
    table = mil.kermany_patients(kermany).table
    assert table["label"].value_counts().to_dict() == {"NORMAL": 13, "bacteria": 13, "virus": 13}
    third = table[table["patient"] == "person3"]
    assert sorted(third["label"].unique()) == ["bacteria", "virus"]
    assert third["study"].nunique() == 2
    assert table.groupby("study")["label"].nunique().eq(1).all()


def test_a_paper_is_a_study(covid_ct: Path) -> None:
    table = mil.ct_papers(covid_ct).table
    assert table.groupby("study")["path"].count().tolist() == [2] * 18
    assert mil.single_images(mil.ct_papers(covid_ct)).table["study"].nunique() == 36


@pytest.mark.parametrize(("low", "met"), [(0.01, "yes"), (-0.01, "no"), (None, "no")])
def test_a_difference_is_met_by_its_lower_end_alone(low: float | None, met: str) -> None:
    found = Estimate(value=0.02, low=low, high=0.05, n=9)
    row, bound = mil.difference_rows("a minus b", found, "p", ">= 0")
    assert (row.met, bound.met) == ("", met)
    assert len(mil.difference_rows("a minus b", found, "p", "")) == 1


SHORT = {"epochs": 2, "patience": 2}
KEYS = {"frozen features": {**SHORT, "image_size": 64}, "end to end": {**SHORT, "mode": "finetune", "image_size": 32}}


def test_the_command_writes_every_row(
    kermany: Path, covid_ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mil.configuration

    def short(name: str, pooling: str, **changes: object) -> StudyConfig:
        return plain(name, pooling, **{"image_size": 48, **changes, "epochs": 2})

    monkeypatch.setattr(mil, "configuration", short)
    monkeypatch.setattr(mil, "KEY_SETTINGS", KEYS)
    monkeypatch.setattr(mil, "KEYS", replace(mil.KEYS, patients=30, size_px=64, fewest=2, most=3))
    monkeypatch.setattr(mil, "FOLDS", 3)
    monkeypatch.setattr(mil, "KERMANY_POOLINGS", ("attention",))
    monkeypatch.setattr(mil, "SLICES", 5)
    monkeypatch.setattr(mil, "_RESAMPLES", 200)
    out = tmp_path / "mil.csv"
    data = ["--kermany", str(kermany), "--covid-ct", str(covid_ct)]
    monkeypatch.setattr(sys, "argv", ["mil", *data, "--work", str(tmp_path / "work"), "--out", str(out)])
    mil.main()
    with out.open(encoding="utf-8") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    for scope in ("all studies", "studies of 2 images or more"):
        for how in ("mean", "max"):
            difference = f"kermany, {scope}, MIL attention minus {how} of image scores"
            assert rows[difference]["low"] <= rows[difference]["high"]
            assert rows[f"{difference}: lower end of the interval"]["bar"] == ">= 0"
            assert f"kermany, {scope}, {how} of image scores: kappa" in rows
    bars = {name: row["bar"] for name, row in rows.items() if row["bar"] and "lower end" not in name}
    assert bars == {
        "covid-ct, MIL attention: AUROC of studies": ">= 0.90",
        "key views, frozen features: AUROC of studies": ">= 0.98",
        "key views, frozen features: attention ranks the right view first": ">= 0.95",
        "key views, end to end: AUROC of studies": ">= 0.98",
        "key views, end to end: attention ranks the right view first": ">= 0.95",
        "study of 300 slices: peak memory": "<= 1.5",
    }
    assert all(row["protocol"] for row in rows.values())
