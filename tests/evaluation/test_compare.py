"""Paired comparison: tests by hand, no false winner, refusal of tables that are no pair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.evaluation.tables import binary_table, multilabel_table, spec_of
from wetread.errors import DatasetRefused, UsageError
from wetread.evaluation.auroc import delong
from wetread.evaluation.compare import compare, holm, mcnemar_exact
from wetread.evaluation.result import ComparisonResult


def rows_of(result: ComparisonResult, label: str = "pneumonia") -> dict[str, str]:
    return {row.metric: row.verdict for row in result.rows if row.label == label}


def test_mcnemar_by_hand() -> None:
    """1 against 6 discordant: 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128."""
    assert mcnemar_exact(1, 6) == pytest.approx(0.125)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(4, 4) == 1.0
    assert mcnemar_exact(13, 29) == pytest.approx(binomtest(13, 42).pvalue)


def test_holm_by_hand() -> None:
    """.01 * 4, max(.04, .02 * 3), max(.06, .03 * 2), .5; None is not counted."""
    found = holm([0.5, 0.01, None, 0.03, 0.02])
    assert found[2] is None
    assert [p for p in found if p is not None] == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_worse_reader_loses_on_every_count() -> None:
    good, bad = binary_table(600), binary_table(600, noise=4.0)
    mixed = bad.sample(frac=1, random_state=0)  # order of rows is no matter
    result = compare(good, mixed, (spec_of(good), spec_of(good)), ("good", "bad"))
    verdicts = rows_of(result)
    for metric in ("auroc", "accuracy", "auprc", "brier", "kappa", "mcc"):
        assert verdicts[metric] == "A better", metric
    area = next(row for row in result.rows if row.metric == "auroc")
    scores = np.stack([good["probability_pneumonia"], bad["probability_pneumonia"]])
    found = delong(scores, good["target"] == "pneumonia", good["patient"])
    assert area.difference.value == pytest.approx(found.areas[1] - found.areas[0])
    assert area.test == "DeLong, paired, clustered by patient"
    assert (result.name_a, result.n, result.patients) == ("good", 600, 300)
    reverse = compare(bad, good, (spec_of(good), spec_of(good)))
    assert rows_of(reverse)["brier"] == rows_of(reverse)["auroc"] == "B better"


def test_identical_readers_differ_in_nothing() -> None:
    table = binary_table()
    assert set(rows_of(compare(table, table, (spec_of(table),) * 2)).values()) == {"no difference shown"}


def test_equally_good_readers_rarely_win() -> None:
    """Two readers with the same noise: over 20 pairs at most a few of 11 verdicts may claim a winner."""
    claims = 0
    for seed in range(20):
        a = binary_table(200, seed=seed, noise=1.0)
        noise = np.random.default_rng(seed + 5000).normal(size=200)
        logits = np.log(binary_table(200, seed=seed)["probability_pneumonia"].pipe(lambda p: p / (1 - p)))
        b = a.assign(probability_pneumonia=1 / (1 + np.exp(-(logits + noise))))
        verdicts = rows_of(compare(a, b, (spec_of(a), spec_of(a)))).values()
        claims += any("better" in verdict for verdict in verdicts)
    assert claims <= 3


def test_single_images_use_mcnemar() -> None:
    table = binary_table(400).assign(patient=[f"p{k}" for k in range(400)])
    other = table.assign(probability_pneumonia=table["probability_pneumonia"] ** 3)
    result = compare(table, other, (spec_of(table),) * 2)
    row = next(row for row in result.rows if row.metric == "accuracy")
    y = table["target"] == "pneumonia"
    right_a = (table["probability_pneumonia"] >= 0.5) == y
    right_b = (other["probability_pneumonia"] >= 0.5) == y
    assert row.test == "McNemar, exact"
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert row.p_value == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert row.difference.value == pytest.approx(right_b.mean() - right_a.mean())
    area = next(row for row in result.rows if row.metric == "auroc")
    assert area.difference.value == 0.0  # the third power ranks alike
    assert area.verdict == "no difference shown"


def test_several_labels_are_adjusted_together_and_can_still_win() -> None:
    good = multilabel_table(500)
    noise = np.random.default_rng(0).random(500)
    bad = good.assign(probability_nodule=noise)
    result = compare(good, bad, (spec_of(good),) * 2)
    assert rows_of(result, "nodule")["brier"] == "A better"
    assert set(rows_of(result, "effusion").values()) == {"no difference shown"}
    assert len(result.rows) == 22


def test_too_few_cases_are_not_assessable() -> None:
    table = binary_table(24)
    result = compare(table, binary_table(24, noise=3.0), (spec_of(table),) * 2)
    row = next(row for row in result.rows if row.metric == "auroc")
    assert row.verdict == "not assessable"
    assert "no interval" in row.difference.note


def test_tables_that_are_no_pair_are_refused() -> None:
    table = binary_table()
    specs = spec_of(table), spec_of(table)
    with pytest.raises(DatasetRefused, match="got 0 only in the first and 1 only in the second"):
        compare(table.iloc[1:], table, specs)
    with pytest.raises(DatasetRefused, match="the same truth in both tables"):
        compare(table, table.assign(target=table["target"].to_numpy()[::-1]), specs)
    with pytest.raises(DatasetRefused, match="each image once"):
        compare(table, table.iloc[[0, *range(300)]], specs)
    with pytest.raises(UsageError, match="the same level for both readers, got image and study"):
        compare(table, table, (specs[0], spec_of(table, level="study")))
    with pytest.raises(DatasetRefused, match="a column image in both tables"):
        compare(table, table.drop(columns="image"), specs)
