"""The evaluation from table to record: right numbers, levels, subgroups, and every bad table refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from tests.evaluation.tables import binary_table, multiclass_table, multilabel_table, spec_of
from wetread.errors import DatasetRefused, SplitRefused, UsageError, WetreadError
from wetread.evaluation.operating import choose_operating_points
from wetread.evaluation.protocol import NOT_CHECKED, evaluate
from wetread.evaluation.result import EvaluationResult


def value(result: EvaluationResult, name: str, label: int = 0) -> float:
    found = result.labels[label].metrics[name].value
    assert found is not None
    return found


def test_binary_numbers_are_those_of_scikit_learn() -> None:
    table = binary_table()
    point = choose_operating_points([0.3, 0.6, 0.65, 0.9], [0, 0, 1, 1], "pneumonia", ("youden",))[0]
    result = evaluate(table, spec_of(table, operating_points=(point,), prevalence={"pneumonia": 0.05}))
    y, p = table["target"] == "pneumonia", table["probability_pneumonia"]
    assert value(result, "auroc") == pytest.approx(sk.roc_auc_score(y, p), abs=1e-6)
    assert value(result, "auprc") == pytest.approx(sk.average_precision_score(y, p), abs=1e-6)
    assert value(result, "brier") == pytest.approx(sk.brier_score_loss(y, p), abs=1e-6)
    (found,) = result.labels[0].operating_points
    tn, fp, fn, tp = sk.confusion_matrix(y, p >= point.threshold).ravel()
    assert (found.true_negatives, found.false_positives) == (tn, fp)
    assert (found.false_negatives, found.true_positives) == (fn, tp)
    assert result.confusion is not None
    assert result.confusion.counts == ((tn, fp), (fn, tp))
    assert result.confusion.classes == ("normal", "pneumonia")
    assert (found.chosen_on, found.prevalence) == ("validation", 0.05)
    ppv = found.metrics["ppv_at_prevalence"].value
    se, sp = tp / (tp + fn), tn / (tn + fp)
    assert ppv == pytest.approx(se * 0.05 / (se * 0.05 + (1 - sp) * 0.95))


def test_every_number_has_an_interval_around_it_or_says_why_not() -> None:
    table = binary_table()
    result = evaluate(table, spec_of(table, prevalence={"pneumonia": 0.1}))
    label = result.labels[0]
    estimates = label.metrics | label.operating_points[0].metrics
    assert len(estimates) == 18
    for name, estimate in estimates.items():
        assert estimate.method, name
        assert estimate.value is not None, name
        assert estimate.low is not None, name
        assert estimate.high is not None, name
        if name != "ece":  # chance adds to ECE, its interval does not
            assert estimate.low <= estimate.value <= estimate.high, name
    assert label.metrics["auroc"].method == "logit-DeLong, clustered by patient (Obuchowski)"
    assert "patients" in label.metrics["auprc"].method


def test_the_same_seed_gives_the_same_bytes() -> None:
    table = binary_table()
    first, second, other = (evaluate(table, spec_of(table, seed=seed)).model_dump_json() for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert EvaluationResult.model_validate_json(first).model_dump_json() == first


def test_order_of_rows_changes_no_value() -> None:
    table = binary_table()
    mixed = table.sample(frac=1, random_state=3)
    a, b = evaluate(table, spec_of(table)), evaluate(mixed, spec_of(mixed))
    for name in ("auroc", "auprc", "brier", "ece", "slope"):
        assert value(a, name) == pytest.approx(value(b, name), abs=1e-9)


def test_facts_and_curves() -> None:
    table = binary_table()
    table.loc[:19, "target"] = None
    result = evaluate(table, spec_of(table, split="test", leak_checked="checked by hand"))
    facts = result.facts
    assert (facts.n, facts.images, facts.unlabelled, facts.patients) == (280, 300, 20, 140)
    assert sum(facts.per_class.values()) == 280
    assert facts.leak == "checked by hand"
    label = result.labels[0]
    assert label.roc is not None
    assert label.pr is not None
    assert label.reliability is not None
    assert label.histogram is not None
    x, y = np.array(label.roc.false_positive_rate), np.array(label.roc.sensitivity)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(value(result, "auroc"), abs=1e-9)
    band = np.interp(label.roc.grid, x, y)
    inside = (np.array(label.roc.low) <= band + 0.02) & (band - 0.02 <= np.array(label.roc.high))
    assert inside.mean() > 0.9
    assert sum(one.count for one in label.reliability.bins) == 280
    assert label.reliability.ece == pytest.approx(value(result, "ece"))
    assert label.reliability.null_mean < label.reliability.null_p95
    assert sum(label.histogram.positives) == label.positives
    assert sum(label.histogram.negatives) == label.negatives
    assert label.pr.recall[-1] == 1.0


def test_without_a_leak_check_the_result_says_so() -> None:
    table = binary_table()
    result = evaluate(table, spec_of(table))
    assert result.facts.leak == NOT_CHECKED
    assert any("not checked" in warning for warning in result.warnings)
    assert any("0.5 was used" in warning for warning in result.warnings)


def test_multiclass() -> None:
    table = multiclass_table()
    result = evaluate(table, spec_of(table))
    classes = ["normal", "bacterial", "viral"]
    p = table[[f"probability_{name}" for name in classes]].to_numpy()
    truth = table["target"].map(classes.index).to_numpy()
    called = p.argmax(axis=1)
    overall = {name: estimate.value for name, estimate in result.overall.items()}
    assert overall["accuracy"] == pytest.approx(sk.accuracy_score(truth, called), abs=1e-9)
    assert overall["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, called), abs=1e-9)
    assert overall["log_loss"] == pytest.approx(sk.log_loss(truth, p), abs=1e-9)
    macro = sk.roc_auc_score(truth, p, multi_class="ovr", average="macro")
    assert overall["macro_auroc"] == pytest.approx(macro, abs=1e-9)
    assert result.confusion is not None
    np.testing.assert_array_equal(result.confusion.counts, sk.confusion_matrix(truth, called))
    assert [label.operating_points[0].name for label in result.labels] == ["argmax"] * 3
    recalls = [label.operating_points[0].metrics["sensitivity"].value for label in result.labels]
    assert recalls == pytest.approx(list(sk.recall_score(truth, called, average=None)))
    assert result.facts.patients is None
    assert any("no column patient" in warning for warning in result.warnings)


def test_multilabel_masks_the_unknown() -> None:
    table = multilabel_table()
    result = evaluate(table, spec_of(table))
    for number, label in enumerate(("effusion", "nodule")):
        known = table[table["target_" + label].notna()]
        area = sk.roc_auc_score(known["target_" + label], known["probability_" + label])
        assert value(result, "auroc", number) == pytest.approx(area, abs=1e-9)
        assert result.labels[number].unknown == table["target_" + label].isna().sum() - result.facts.unlabelled
    areas = [value(result, "auroc", number) for number in (0, 1)]
    assert result.overall["macro_auroc"].value == pytest.approx(np.mean(areas), abs=1e-9)
    assert result.confusion is None


@pytest.mark.parametrize(("level", "aggregation"), [("study", "mean"), ("patient", "max")])
def test_levels(level: str, aggregation: str) -> None:
    table = binary_table()
    result = evaluate(table, spec_of(table, level=level, aggregation=aggregation, by=("sex",)))
    grouped = table.groupby(level, sort=True)
    p = grouped["probability_pneumonia"].agg(aggregation)
    y = table["target"].eq("pneumonia").groupby(table[level], sort=True).max()
    assert value(result, "auroc") == pytest.approx(sk.roc_auc_score(y, p), abs=1e-9)
    assert (result.facts.n, result.facts.images, result.facts.patients) == (150, 300, 150)
    assert result.labels[0].metrics["auroc"].method == "logit-DeLong"  # one unit per patient


def test_study_with_an_unknown_image_is_positive_or_unknown_never_negative() -> None:
    table = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": list("112233"),
            "study": list("112233"),
            "probability_x": [0.9, 0.1, 0.2, 0.3, 0.4, 0.4],
            "target": ["x", None, "no", None, "no", "no"],
        }
    )
    result = evaluate(table, spec_of(table, level="study"))
    assert result.facts.per_class == {"no": 1, "x": 1}
    assert result.facts.unlabelled == 1


def test_subgroups_are_assessed_or_say_why_not() -> None:
    table = binary_table()
    result = evaluate(table, spec_of(table, by=("sex", "view", "age")))
    groups = {(group.column, group.value): group for group in result.subgroups}
    women = groups["sex", "F"]
    rows = table[table["sex"] == "F"]
    area = sk.roc_auc_score(rows["target"] == "pneumonia", rows["probability_pneumonia"])
    assert women.metrics["pneumonia"]["auroc"].value == pytest.approx(area, abs=1e-9)
    others = groups["sex", "M"].metrics["pneumonia"]["auroc"].value
    assert others is not None
    assert women.gaps["pneumonia"]["auroc"].value == pytest.approx(area - others, abs=1e-9)
    few = groups["view", "PA"]
    assert (few.assessable, few.metrics, few.gaps) == (False, {}, {})
    assert few.reason == "pneumonia: n 20, fewer than 50"
    assert groups["view", "AP"].assessable
    assert groups["view", "AP"].gaps == {}  # the rest is too small to compare with
    assert [group.n for group in result.subgroups if group.column == "age"] == [75] * 4


def test_planted_gap_is_found() -> None:
    table = binary_table(n=1200)
    men = table["sex"] == "M"
    table.loc[men, "probability_pneumonia"] = np.random.default_rng(0).random(int(men.sum()))
    result = evaluate(table, spec_of(table, by=("sex",)))
    gap = result.subgroups[1].gaps["pneumonia"]["auroc"]
    assert gap.high is not None
    assert gap.high < -0.1


def test_single_class_gives_no_auroc_and_says_why() -> None:
    table = binary_table(100)
    table["target"] = "normal"
    result = evaluate(table, spec_of(table, classes=("normal", "pneumonia")))
    label = result.labels[0]
    for name in ("auroc", "auprc", "slope"):
        assert label.metrics[name].value is None
        assert "one class is present" in label.metrics[name].note
    assert label.metrics["brier"].value is not None
    assert (label.roc, label.pr) == (None, None)
    assert label.operating_points[0].metrics["sensitivity"].value is None
    assert label.operating_points[0].metrics["specificity"].low is not None
    assert any("not defined" in warning for warning in result.warnings)


Change = Callable[[pd.DataFrame], pd.DataFrame]

BAD_TABLES: dict[str, tuple[Change, str]] = {
    "no probability": (
        lambda t: t.drop(columns="probability_pneumonia"),
        "a table without probability_pneumonia",
    ),
    "no truth": (lambda t: t.drop(columns="target"), "a table without target"),
    "NaN": (
        lambda t: t.assign(probability_pneumonia=t["probability_pneumonia"].where(t.index != 7)),
        "1 NaN or infinite, first images/0007.png",
    ),
    "above 1": (
        lambda t: t.assign(probability_pneumonia=t["probability_pneumonia"] + (t.index == 3)),
        "expected probability_pneumonia between 0 and 1, got 1.* for images/0003.png",
    ),
    "below 0": (
        lambda t: t.assign(probability_pneumonia=-t["probability_pneumonia"]),
        "apply sigmoid or softmax to the logits",
    ),
    "text": (lambda t: t.assign(probability_pneumonia="high"), "numbers in probability_pneumonia, got text"),
    "other classes": (
        lambda t: t.replace({"target": {"pneumonia": "covid"}}),
        "targets among the reader's classes normal, pneumonia, got covid",
    ),
    "other labels": (lambda t: t.assign(probability_covid=0.5), "also probability_covid"),
    "twice": (
        lambda t: pd.concat([t, t.iloc[:2]], ignore_index=True),
        "each image once, got 2 repeated: images/0000.png, images/0001.png",
    ),
    "empty": (lambda t: t.iloc[:0], "at least one prediction, got none"),
    "unlabelled": (lambda t: t.assign(target=None), "300 images, all unknown"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_refused(name: str) -> None:
    change, message = BAD_TABLES[name]
    table = binary_table()
    with pytest.raises(DatasetRefused, match=message):
        evaluate(change(table), spec_of(table))


def test_bad_multiclass_and_multilabel_tables_are_refused() -> None:
    table = multiclass_table()
    with pytest.raises(DatasetRefused, match="class probabilities that sum to 1"):
        evaluate(table.assign(probability_viral=table["probability_viral"] / 2), spec_of(table))
    patients = table.assign(patient=[f"p{k // 2}" for k in range(len(table))])
    with pytest.raises(UsageError, match="the maxima of classes do not sum to 1"):
        evaluate(patients, spec_of(table, level="patient", aggregation="max"))
    with pytest.raises(DatasetRefused, match="one class for each patient, got images of one patient with 3"):
        evaluate(table.assign(patient="p"), spec_of(table, level="patient"))
    labels = multilabel_table()
    with pytest.raises(DatasetRefused, match="1, 0 or nothing in target_nodule, got -1"):
        evaluate(labels.assign(target_nodule=-1.0), spec_of(labels))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prevalence": {"pneumonia": 1.5}}, UsageError, "a prevalence between 0 and 1 .* got pneumonia=1.5"),
        ({"prevalence": {"covid": 0.5}}, UsageError, "for one of .*'pneumonia'.*, got covid=0.5"),
        ({"split": "val"}, DatasetRefused, r"images of the split val, got splits \['test'\]"),
        ({"by": ("colour",)}, DatasetRefused, "a table without colour"),
        ({"by": ("patient",)}, UsageError, "at most 40 values to form subgroups, got 150 in patient"),
        ({"classes": ("a", "b", "c")}, UsageError, "two classes .negative, positive."),
        ({"classes": ("a", "a")}, UsageError, "classes without repeats"),
    ],
)
def test_bad_requests_are_refused(changes: dict[str, object], error: type[WetreadError], message: str) -> None:
    table = binary_table()
    with pytest.raises(error, match=message):
        evaluate(table, spec_of(table, **changes))


def test_leaking_splits_are_refused() -> None:
    table = binary_table()
    table.loc[0, "split"] = "train"  # its patient's other image is in test
    with pytest.raises(SplitRefused, match="every patient in one split, got 1 patients in more than one"):
        evaluate(table, spec_of(table, split="test"))


def test_several_splits_need_a_choice() -> None:
    table = binary_table()
    table.loc[:99, "split"] = "val"
    with pytest.raises(UsageError, match="one split, got test, val in one table; choose with --split"):
        evaluate(table, spec_of(table))
    assert evaluate(table, spec_of(table, split="val")).facts.n == 100


def test_missing_patients_are_counted_one_by_one_and_said() -> None:
    table = binary_table()
    table.loc[:9, "patient"] = None
    result = evaluate(table, spec_of(table))
    assert result.facts.patients == 145 + 10
    assert any("10 images without a patient" in warning for warning in result.warnings)
