"""Which images are a study, and what its label is when they do not agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.support import meta_of
from wetread.datasets.columns import conform
from wetread.datasets.manifest import DatasetMeta
from wetread.errors import DatasetRefused
from wetread.training.study_data import MIXED, Bags, bags_of

BINARY = meta_of("binary", ("negative", "positive"))
CLASSES = meta_of("multiclass", ("normal", "bacteria", "virus"))


def table_of(studies: str, labels: Sequence[str | None], **columns: Any) -> pd.DataFrame:
    """One image for each letter, which is its study."""
    count = len(studies)
    rows = {"path": [f"{number}.png" for number in range(count)], "study": list(studies), "label": list(labels)}
    return conform(pd.DataFrame(rows | {"patient": list(studies)} | columns))


def target(labels: list[str | None], policy: Any, meta: DatasetMeta = BINARY) -> list[float]:
    """Target of one study with these images."""
    found: list[float] = bags_of(table_of("a" * len(labels), labels), meta, "study", policy).targets[0].tolist()
    return found


def test_images_of_a_study_are_gathered_in_any_order() -> None:
    labels: list[str | None] = ["positive", "negative", "positive", "negative", "negative"]
    bags = bags_of(table_of("babcc", labels), BINARY)
    assert bags.table["path"].tolist() == ["a", "b", "c"]
    assert [rows.tolist() for rows in bags.rows] == [[1], [0, 2], [3, 4]]
    assert bags.targets[:, 0].tolist() == [0, 1, 0]
    assert bags.lengths == [1, 2, 2]
    assert bags.table["label"].tolist() == ["negative", "positive", "negative"]
    assert bags.take(np.array([2, 0])).table["path"].tolist() == ["c", "a"]


def test_two_patients_may_have_a_study_of_the_same_name() -> None:
    table = table_of("aab", ["positive", "negative", "negative"], patient=["1", "2", "2"])
    assert bags_of(table, BINARY).table["path"].tolist() == ["1/a", "2/a", "2/b"]
    assert bags_of(table, BINARY, "patient").table["path"].tolist() == ["1", "2"]


def test_a_study_takes_what_its_images_share() -> None:
    table = table_of("aabb", ["positive"] * 2 + ["negative"] * 2, view=["AP", "PA", "AP", "AP"], age=[30, 32, 50, 50])
    bags = bags_of(table, BINARY)
    assert bags.table["view"].tolist() == [MIXED, "AP"]
    assert bags.table["age"].tolist() == [31, 50]


def test_labels_that_contradict_each_other_are_refused_with_two_of_the_images() -> None:
    with pytest.raises(DatasetRefused, match=r"one label for all images of a study, got 1 studies .* 1.png and 0.png;"):
        bags_of(table_of("aab", ["negative", "positive", "negative"]), BINARY)
    with pytest.raises(DatasetRefused, match="--label-policy any or majority"):
        target(["bacteria", "virus"], "refuse", CLASSES)


def test_any_makes_a_study_positive_by_one_image_and_negative_only_by_all() -> None:
    assert target(["negative", "positive", "negative"], "any") == [1]
    assert target(["negative", "negative"], "any") == [0]
    assert np.isnan(target(["negative", None], "any")).all()  # the unknown image might be positive
    assert target(["positive", None], "refuse") == [1]
    with pytest.raises(DatasetRefused, match="expected labels of which one is positive, for --label-policy any"):
        target(["bacteria", "virus"], "any", CLASSES)


def test_majority_takes_the_label_of_most_images() -> None:
    assert target(["negative", "negative", "positive"], "majority") == [0]
    assert target(["negative", "positive"], "majority") == [1]  # a tie is a finding
    assert target(["virus", "virus", "normal"], "majority", CLASSES) == [0, 0, 1]
    assert np.isnan(target([None, None], "majority", CLASSES)).all()


def test_independent_labels_are_resolved_one_by_one() -> None:
    table = table_of("aab", [None] * 3, label_x=[1, 0, None], label_y=[0, 0, 1])
    bags = bags_of(table, meta_of("multilabel", ("x", "y")), "study", "any")
    assert np.array_equal(bags.targets, np.array([[1, 0], [np.nan, 1]]), equal_nan=True)


def test_a_table_without_studies_is_refused_with_the_cure() -> None:
    none = table_of("ab", ["negative", "positive"], study=[None, None])
    with pytest.raises(DatasetRefused, match=r"a study for each of 2 images, got 2 without; .*--level patient"):
        bags_of(none, BINARY)
    some = table_of("ab", ["negative", "positive"], patient=[None, "p"])
    with pytest.raises(DatasetRefused, match=r"a patient for each of 2 images, got 1 without; .*--level study"):
        bags_of(some, BINARY, "patient")


def test_patients_without_a_name_are_their_own() -> None:
    bags: Bags = bags_of(table_of("ab", ["negative", "positive"], patient=[None, None]), BINARY)
    assert bags.patients.tolist() == ["a", "b"]
