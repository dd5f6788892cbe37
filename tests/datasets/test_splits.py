"""Splits: nothing that belongs together is divided, shares are met, impossible requests refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.splits import (
    assert_no_leak,
    assignment_sha256,
    groups_of,
    leaks,
    make_folds,
    make_split,
    strata_of,
    stratified_folds,
)
from wetread.errors import SplitRefused, UsageError


def manifest(patients: int = 60, per_patient: int = 3, sick: float = 0.5, **columns: object) -> Manifest:
    rows = [
        {"path": f"p{p}_{i}.png", "patient": f"p{p}", "label": "sick" if p < sick * patients else "normal"}
        for p in range(patients)
        for i in range(per_patient)
    ]
    table = pd.DataFrame(rows).assign(**columns)  # type: ignore[arg-type]
    return Manifest(table, DatasetMeta(name="t", classes=("normal", "sick")), Path())


def shares(done: Manifest) -> dict[str, float]:
    return dict(done.table["split"].value_counts(normalize=True))


def test_shares_are_met_and_patients_and_classes_kept() -> None:
    done = make_split(manifest(200, sick=0.3), {"train": 0.7, "val": 0.15, "test": 0.15}, seed=1)
    assert shares(done) == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.03)
    assert (done.table.groupby("patient")["split"].nunique() == 1).all()
    sick = done.table.groupby("split")["label"].apply(lambda s: (s == "sick").mean())
    assert np.allclose(sick, 0.3, atol=0.05)
    assert_no_leak(done)


def test_shares_that_large_groups_make_impossible_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """60 of 180 images are linked: they fit into no split of 15 %."""
    table = manifest()
    linked = [tuple(table.table["path"][60:120])]
    done = make_split(table, {"train": 0.15, "val": 0.15, "test": 0.7}, seed=0, linked=linked)
    off = {
        name for name, asked in (("train", 0.15), ("val", 0.15), ("test", 0.7)) if abs(shares(done)[name] - asked) > 0.1
    }
    said = {name for name in ("train", "val", "test") if f"images in {name}, got" in caplog.text}
    assert said == off
    caplog.clear()
    make_split(table, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=0)
    assert not caplog.records


def test_a_missed_share_names_the_largest_group(caplog: pytest.LogCaptureFixture) -> None:
    table = manifest(8, 2)
    linked = [("p0_0.png", "p1_0.png", "p4_0.png", "p5_0.png")]
    make_split(table, {"train": 0.2, "val": 0.8}, seed=0, linked=linked)
    assert "expected about 20% of 16 images in train, got" in caplog.text
    assert "8 images of one patient, or linked as near duplicates, stay together" in caplog.text


def test_the_seed_decides() -> None:
    one, same, other = (make_split(manifest(), seed=s).table["split"].tolist() for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_split_is_stored_with_method_seed_and_hash() -> None:
    done = make_split(manifest(), seed=7)
    stored = done.meta.split
    assert stored is not None
    assert stored.seed == 7
    assert "StratifiedGroupKFold" in stored.method
    lines = sorted(f"{p}\t{s}\t" for p, s in zip(done.table["path"], done.table["split"], strict=True))
    assert stored.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert assignment_sha256(done.table.sample(frac=1, random_state=0)) == stored.sha256


def test_a_given_test_split_stays() -> None:
    given_split = ["test" if i % 60 < 12 else "train" for i in range(180)]
    before = manifest(60, 3, split=given_split)
    done = make_split(before, seed=0)
    was = before.table["split"] == "test"
    assert (done.table["split"][was] == "test").all()
    assert set(done.table["split"][~was]) == {"train", "val"}
    assert done.table["split"][~was].eq("val").mean() == pytest.approx(0.15, abs=0.04)
    with pytest.raises(UsageError, match=r"no share for test, which was given .*--reset"):
        make_split(before, {"train": 0.7, "val": 0.1, "test": 0.2})
    anew = make_split(before, {"train": 0.7, "val": 0.1, "test": 0.2}, reset=True)
    assert not (anew.table["split"][was] == "test").all()


def test_dividing_again_keeps_what_was_given_and_remakes_what_was_not() -> None:
    given_split = ["test" if i % 60 < 12 else "train" for i in range(180)]
    first = make_split(manifest(60, 3, split=given_split), seed=0)
    second = make_split(first, seed=1)
    assert first.meta.split is not None
    assert first.meta.split.given == ("test",)
    test = first.table["split"] == "test"
    assert ((second.table["split"] == "test") == test).all()
    assert (second.table["split"] != first.table["split"]).any()
    folds = make_folds(second, 4)
    assert ((folds.table["split"] == "test") == test).all()
    assert make_split(folds, seed=0).table["split"].tolist() == first.table["split"].tolist()


def test_both_given_leaves_nothing_to_do() -> None:
    given_split = [("train", "val", "test")[i // 60] for i in range(180)]
    with pytest.raises(SplitRefused, match="a val or test split that is still to be made, got both given"):
        make_split(manifest(60, 3, split=given_split))


def test_folds_cover_everything_but_test_and_keep_patients() -> None:
    given_split = ["test" if i < 30 else None for i in range(180)]
    done = make_folds(manifest(60, 3, split=given_split), 5, seed=3)
    assert done.table["fold"].isna().sum() == 30
    assert sorted(done.table["fold"].dropna().unique()) == [0, 1, 2, 3, 4]
    assert (done.table.groupby("patient")["fold"].nunique() <= 1).all()
    assert done.meta.split is not None
    assert done.meta.split.folds == 5


def test_identical_files_and_linked_paths_stay_together() -> None:
    sha = [f"{i}" for i in range(180)]
    sha[0] = sha[179] = "same"  # first and last patient
    linked = [("p5_0.png", "p30_0.png"), ("p30_1.png", "p50_2.png")]
    for seed in range(5):
        table = make_split(manifest(60, 3, sha256=sha), seed=seed, linked=linked).table
        split = table.set_index("path")["split"]
        assert split["p0_0.png"] == split["p59_2.png"]
        assert split["p5_2.png"] == split["p30_2.png"] == split["p50_0.png"]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=25))
def test_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    """Against a plain flood fill over rows that share a patient or a study."""
    table = pd.DataFrame(
        {
            "path": [f"{i}" for i in range(len(pairs))],
            "patient": [f"p{a}" for a, _ in pairs],
            "study": [f"s{b}" for _, b in pairs],
            "sha256": pd.Series([None] * len(pairs), dtype="str"),
        }
    )
    groups = groups_of(table)
    for start in range(len(pairs)):
        seen, todo = {start}, [start]
        while todo:
            a, b = pairs[todo.pop()]
            near = {i for i, (x, y) in enumerate(pairs) if x == a or y == b} - seen
            seen |= near
            todo += near
        assert {i for i in range(len(pairs)) if groups[i] == groups[start]} == seen


def test_rare_labels_decide_the_stratum_of_a_multilabel_image() -> None:
    table = pd.DataFrame(
        {
            "label_common": [1, 1, 1, 0, None],
            "label_rare": [1, 0, 0, 0, None],
        }
    )
    assert strata_of(table, "multilabel").tolist() == [
        "label_rare",
        "label_common",
        "label_common",
        "(no finding)",
        "(unlabelled)",
    ]


def test_multilabel_split_has_every_class_everywhere() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(300)],
            "patient": [f"p{i // 2}" for i in range(300)],
            "label_a": rng.integers(0, 2, 300),
            "label_b": (rng.random(300) < 0.05).astype(int),
        }
    )
    meta = DatasetMeta(name="m", task="multilabel", classes=("a", "b"))
    done = make_split(Manifest(table, meta, Path()), seed=0).table
    for column in ("label_a", "label_b"):
        assert (done.groupby("split")[column].sum() > 0).all()


def test_unlabelled_images_are_divided_too() -> None:
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(40)], "patient": [f"p{i}" for i in range(40)]})
    done = make_split(Manifest(table, DatasetMeta(name="u"), Path()), seed=0)
    assert shares(done) == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.03)


def test_few_unlabelled_images_do_not_hinder() -> None:
    done = manifest(60, 1)
    table = done.table.assign(label=done.table["label"].where(done.table.index != 0))
    assert set(make_split(done.with_table(table), seed=0).table["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.7, "val": 0.2}, "shares between 0 and 1 that sum to 1, got train 0.7, val 0.2"),
        ({"train": 1.2, "val": -0.2}, "shares between 0 and 1 that sum to 1"),
        ({"train": 0.0}, "sum to 1, got none"),
    ],
)
def test_shares_that_make_no_sense(shares: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_split(manifest(), shares)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(SplitRefused, match="at least 3 patients of every class for 3 folds, got 2 with"):
        make_folds(manifest(4, 3), 3)
    with pytest.raises(SplitRefused, match="at least 10 patients of every class for 10 folds, got 6 with 'normal'"):
        make_folds(manifest(60, 3, sick=0.9), 10)
    with pytest.raises(SplitRefused, match=r"at least 3 patients of every class .*got 2 with 'sick'"):
        make_split(manifest(40, 3, sick=0.05))
    with pytest.raises(UsageError, match="at least 2 folds, got 1"):
        make_folds(manifest(), 1)
    with pytest.raises(SplitRefused, match="at least two classes to divide, got only 'sick'"):
        make_split(manifest(60, 3, sick=1.0))


def test_a_patient_in_two_given_splits_is_refused() -> None:
    given_split = ["test" if i % 3 == 0 else "train" for i in range(180)]
    with pytest.raises(SplitRefused, match=r"given splits that keep patients.* whole, got 60 groups"):
        make_split(manifest(60, 3, split=given_split))


def test_leaks_are_counted_by_kind() -> None:
    table = pd.DataFrame(
        {
            "path": list("abcdef"),
            "patient": ["1", "1", "2", "3", None, None],
            "study": ["s", "t", "u", "u", None, None],
            "sha256": ["x", "y", "z", "w", "v", "v"],
            "split": ["train", "test", "train", "val", "train", "test"],
        }
    )
    bad = Manifest(table, DatasetMeta(name="t"), Path())
    assert leaks(bad.table) == {"patient": ["1"], "study": ["u"], "sha256": ["v"]}
    with pytest.raises(SplitRefused, match="got 1 patients, 1 studies, 1 identical files in more than one"):
        assert_no_leak(bad)


def test_a_split_changed_by_hand_is_noticed() -> None:
    done = make_split(manifest(), seed=0)
    table = done.table.assign(split=done.table["split"].replace({"val": "test", "test": "val"}))
    with pytest.raises(SplitRefused, match="another assignment in the table"):
        assert_no_leak(done.with_table(table))


def test_stratified_folds_balance_a_hand_made_case() -> None:
    """Four groups of one class and four of the other into two folds: two of each in either."""
    strata = np.array(["a"] * 8 + ["b"] * 8)
    groups = np.repeat(np.arange(8), 2).astype(np.int64)
    fold = stratified_folds(strata, groups, 2, seed=0)
    for name in ("a", "b"):
        assert [int(np.sum(fold[strata == name] == f)) for f in (0, 1)] == [4, 4]
