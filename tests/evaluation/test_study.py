"""Kappa of studies against scikit-learn, its paired interval, body parts and aggregated image scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from wetread.errors import DatasetRefused, UsageError
from wetread.evaluation.intervals import Resampler
from wetread.evaluation.result import EvaluationSpec
from wetread.evaluation.study import (
    MURA_PUBLISHED,
    Aggregate,
    aggregated,
    compare_kappa,
    evaluate_studies,
    paired_kappa,
    points_for,
    published_for,
)
from wetread.types import Estimate, OperatingPoint

SPEC = EvaluationSpec(task="binary", classes=("negative", "positive"), level="study", resamples=300, split="test")
LABELS = ("positive",)


def studies_of(count: int = 120, seed: int = 0, sharp: float = 2.0) -> pd.DataFrame:
    """Predictions for studies of patients with one or two of them."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.5
    score = 1 / (1 + np.exp(-(sharp * (truth - 0.5) + rng.normal(0, 1, count))))
    names = [f"study{number:03d}" for number in range(count)]
    return pd.DataFrame(
        {
            "image": names,
            "study": names,
            "patient": [f"p{number // 2 if number < 40 else number}" for number in range(count)],
            "split": "test",
            "target": np.where(truth, "positive", "negative"),
            "probability_positive": score,
            "body_part": np.where(np.arange(count) % 3 == 0, "ELBOW", "WRIST"),
            "images": 1 + np.arange(count) % 4,
        }
    )


def point(threshold: float) -> OperatingPoint:
    share = Estimate(value=0.9, n=10)
    return OperatingPoint(
        name="youden", label="positive", threshold=threshold, rule="youden", sensitivity=share, specificity=share
    )


def test_kappa_is_that_of_scikit_learn_at_the_operating_point() -> None:
    table = studies_of()
    found = evaluate_studies(table, SPEC.model_copy(update={"operating_points": (point(0.6),)}))
    called = table["probability_positive"] >= 0.6
    assert found.kappa["positive"].value == pytest.approx(cohen_kappa_score(table["target"] == "positive", called))
    assert found.kappa["positive"].method.startswith("bootstrap over patients")
    assert found.result.facts.level == "study"
    assert found.result.facts.images == int(table["images"].sum())
    assert not any("chosen on single images" in warning for warning in found.result.warnings)


def test_several_classes_have_one_kappa_of_the_highest_probability() -> None:
    rng = np.random.default_rng(1)
    table = studies_of().drop(columns="probability_positive")
    classes = ("normal", "bacteria", "virus")
    table["target"] = rng.choice(classes, len(table))
    shares = rng.dirichlet((1, 1, 1), len(table))
    table[[f"probability_{name}" for name in classes]] = shares
    spec = EvaluationSpec(task="multiclass", classes=classes, level="study", resamples=300)
    found = evaluate_studies(table.drop(columns="split"), spec)
    called = np.array(classes)[shares.argmax(1)]
    assert found.kappa["all classes"].value == pytest.approx(cohen_kappa_score(table["target"], called))


def test_each_body_part_is_evaluated_alone() -> None:
    table = studies_of()
    spec = SPEC.model_copy(update={"operating_points": (point(0.5),)})
    rows = {row.value: row for row in evaluate_studies(table, spec, parts="body_part").parts}
    assert set(rows) == {"ELBOW", "WRIST"}
    elbow = table[table["body_part"] == "ELBOW"]
    called, truth = elbow["probability_positive"] >= 0.5, elbow["target"] == "positive"
    assert rows["ELBOW"].n == len(elbow)
    assert rows["ELBOW"].positives == int(truth.sum())
    assert rows["ELBOW"].kappa.value == pytest.approx(cohen_kappa_score(truth, called))
    assert rows["ELBOW"].sensitivity.value == pytest.approx(float(called[truth].mean()))
    with pytest.raises(UsageError, match="expected a column site of the studies, got none; choose among image, study"):
        evaluate_studies(table, spec, parts="site")


def test_image_scores_become_those_of_studies() -> None:
    views = pd.DataFrame({"study": ["b", "a", "a"], "probability_positive": [0.2, 0.4, 0.8]})
    assert aggregated(views, LABELS, "mean", "binary")["probability_positive"].tolist() == pytest.approx([0.6, 0.2])
    assert aggregated(views, LABELS, "max", "binary")["probability_positive"].tolist() == [0.8, 0.2]
    three = pd.DataFrame({"study": ["a", "a"], "probability_x": [0.9, 0.0], "probability_y": [0.1, 1.0]})
    found = aggregated(three, ("x", "y"), "max", "multiclass")
    assert found[["probability_x", "probability_y"]].iloc[0].tolist() == pytest.approx([0.9 / 1.9, 1 / 1.9])


def test_a_better_reader_is_called_better_and_the_same_one_is_not() -> None:
    table, weak = studies_of(sharp=4.0), studies_of(sharp=0.0)
    weak["target"] = table["target"]
    (row,) = compare_kappa(table, Aggregate("mean of images", weak), SPEC)
    assert row.verdict == "better"
    assert row.difference.low is not None
    assert row.difference.low > 0
    assert row.difference.value == pytest.approx((row.reader.value or 0) - (row.baseline.value or 0))
    (back,) = compare_kappa(weak, Aggregate("mean of images", table), SPEC)
    assert back.verdict == "worse"
    (same,) = compare_kappa(table, Aggregate("itself", table), SPEC)
    assert (same.verdict, same.difference.value) == ("no difference shown", 0)


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 3)
    truth = rng.integers(0, 3, 90)
    a, b = (np.where(rng.random(90) < share, truth, rng.integers(0, 3, 90)) for share in (0.8, 0.4))
    resampler = Resampler(90, groups.astype(str), 150, 7)
    found = paired_kappa(truth, (a, b), resampler, ("other", "all"), 3)
    differences = []
    for weights in resampler.blocks():
        for counts in weights.astype(int):
            rows = np.repeat(np.arange(90), counts)
            differences.append(cohen_kappa_score(truth[rows], a[rows]) - cohen_kappa_score(truth[rows], b[rows]))
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found.difference.low == pytest.approx(low, abs=1e-9)
    assert found.difference.high == pytest.approx(high, abs=1e-9)


def test_thresholds_of_aggregated_scores_are_chosen_on_their_own_validation() -> None:
    validation = studies_of(seed=3, sharp=4.0)
    low = validation.assign(probability_positive=validation["probability_positive"] / 4)
    spec = SPEC.model_copy(update={"split": None})
    (chosen,) = points_for(low, validation, spec, "youden")
    (usual,) = points_for(validation, validation, spec, "youden")
    assert chosen.threshold < 0.25 < usual.threshold
    test = studies_of(seed=4, sharp=4.0)
    scaled = test.assign(probability_positive=test["probability_positive"] / 4)
    (fair,) = compare_kappa(test, Aggregate("scaled", scaled, (chosen,)), SPEC)
    (unfair,) = compare_kappa(test, Aggregate("scaled", scaled), SPEC)
    assert (fair.baseline.value or 0) > 0.5
    assert unfair.baseline.value == 0  # everything is negative at 0.5


def test_other_studies_are_not_compared() -> None:
    table = studies_of()
    with pytest.raises(DatasetRefused, match="expected the same studies in both tables, got 1 missing and 0 others"):
        compare_kappa(table, Aggregate("less", table.iloc[1:]), SPEC)


def test_published_figures_stand_beside_mura_alone() -> None:
    assert published_for("mura") == MURA_PUBLISHED
    assert [row.kappa for row in MURA_PUBLISHED] == [".705", ".778", ".645"]
    assert all(row.source and row.protocol for row in MURA_PUBLISHED)
    assert published_for("kermany") == published_for(None) == ()


def test_unknown_labels_are_left_out_of_a_comparison() -> None:
    classes: Any = ("x", "y")
    table = studies_of()
    rng = np.random.default_rng(9)
    for name in classes:
        table[f"probability_{name}"] = rng.random(len(table))
        table[f"target_{name}"] = (table[f"probability_{name}"] > 0.5).astype(float)
    table.loc[:9, "target_x"] = np.nan
    spec = EvaluationSpec(task="multilabel", classes=classes, level="study", resamples=300)
    plain = table.drop(columns=["probability_positive", "target", "split"])
    rows = compare_kappa(plain, Aggregate("itself", plain), spec)
    assert [(row.label, row.reader.n) for row in rows] == [("x", 110), ("y", 120)]
    assert all(row.reader.value == pytest.approx(1) for row in rows)
