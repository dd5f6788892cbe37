"""Bone phantoms in MURA's layout: what the importer reads, what each view shows, and the same pixels each time."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.phantom_mura import BONE_PARTS, TRUTH, BoneView, MuraPlan, bone_views, draw_bone, make_mura
from wetread.errors import UsageError

PLAN = MuraPlan(patients=42, size_px=64)


def test_the_importer_reads_it_as_mura(tmp_path: Path) -> None:
    result = import_dataset(make_mura(tmp_path / "set", PLAN))
    assert result.layout == "mura"
    assert not any("not on disk" in note or "not listed" in note for note in result.notes)
    table = result.manifest.table
    assert table["study"].nunique() == table["patient"].nunique() == 42
    assert set(table["body_part"]) == set(BONE_PARTS)
    per_study = table.groupby("study")
    assert per_study.size().between(1, 4).all()
    assert (per_study["label"].nunique() == 1).all()
    studies = per_study[["label", "split"]].first()
    assert set(studies["split"]) == {"train", "test"}
    assert 0.4 <= (studies["label"] == "positive").mean() <= 0.6


def test_the_truth_names_the_views_that_show_the_finding(tmp_path: Path) -> None:
    folder = make_mura(tmp_path / "set", replace(PLAN, key_views=True, fewest=2))
    with (folder / TRUTH).open(encoding="utf-8") as file:
        shows = {row["path"]: int(row["shows"]) for row in csv.DictReader(file)}
    table = import_dataset(folder).manifest.table
    found = table.assign(shows=table["path"].map(shows)).groupby(["study", "label"])["shows"].sum().reset_index()
    assert set(found.loc[found["label"] == "positive", "shows"]) == {1}
    assert set(found.loc[found["label"] == "negative", "shows"]) == {0}


def test_labels_follow_neither_part_nor_split() -> None:
    views = list(bone_views(replace(PLAN, patients=700)))
    studies = {view.patient: view for view in views}.values()
    for part in BONE_PARTS:
        share = np.mean([view.positive for view in studies if view.part == part])
        assert 0.35 <= share <= 0.65
    valid = [view for view in studies if view.valid]
    assert 0.25 <= len(valid) / 700 <= 0.35
    assert 0.4 <= np.mean([view.positive for view in valid]) <= 0.6


def test_the_same_view_gives_the_same_pixels_and_another_does_not() -> None:
    view = BoneView("ELBOW", 3, 1, positive=True, valid=False)
    film = draw_bone(view)
    assert film.dtype == np.float32
    assert film.shape == (192, 192)
    assert film.min() >= 0
    assert film.max() <= 1
    assert np.array_equal(film, draw_bone(view))
    assert not np.array_equal(film, draw_bone(replace(view, view=2)))
    assert not np.array_equal(film, draw_bone(replace(view, patient=4)))


@pytest.mark.parametrize("part", BONE_PARTS)
def test_a_plate_is_brighter_than_any_bone_and_a_fracture_changes_the_bone_alone(part: str) -> None:
    plain = BoneView(part, 5, 1, positive=True, valid=False, severity=0.8, place=(0.3, 0.5))
    film = draw_bone(plain)
    plate = draw_bone(replace(plain, finding="hardware"))
    changed = np.abs(plate - film) > 0.1
    assert 0.001 < changed.mean() < 0.2
    assert plate[changed].mean() > film.max() - 0.1
    broken = np.abs(draw_bone(replace(plain, finding="fracture")) - film) > 0.05
    assert 0.001 < broken.mean() < 0.25


def test_a_worse_fracture_moves_more() -> None:
    plain = BoneView("HUMERUS", 5, 1, positive=True, valid=False)
    film = draw_bone(plain)
    apart = [
        float(np.abs(draw_bone(replace(plain, finding="fracture", severity=severity)) - film).mean())
        for severity in (0.3, 1.0)
    ]
    assert apart[0] < apart[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patients": 1}, "expected 2 patients with 1 view or more, got 1 of 1 to 4; raise it"),
        ({"fewest": 5}, "got 42 of 5 to 4"),
        ({"parts": ("KNEE",)}, "expected parts among ELBOW, FINGER"),
        ({"findings": ()}, "expected findings among fracture, hardware"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(PLAN, **changes)  # type: ignore[arg-type]
