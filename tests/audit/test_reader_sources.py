"""T6: what a reader has seen is known from the hash on its card; one source proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models.support import card_for
from wetread.audit.reader_sources import difference, judge_sources, seen_sources
from wetread.audit.result import AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.models.card import DataCard, MetricRow, ReaderCard
from wetread.provenance import rows_sha256
from wetread.training.parts import fold_pairs, used_rows
from wetread.types import Estimate

HERE, THERE = "Here", "There"


def manifest(sources: Sequence[str] = (HERE,), trained: Sequence[str] = (HERE,)) -> Manifest:
    """100 training rows of ``trained`` and 200 test rows of ``sources``, one patient each."""
    rows = [("train", trained[k % len(trained)]) for k in range(100)]
    rows += [("test", sources[k % len(sources)]) for k in range(200)]
    table = pd.DataFrame(rows, columns=["split", "source"])
    table["path"] = [f"{k}.png" for k in range(len(table))]
    table["patient"] = [f"p{k}" for k in range(len(table))]
    table["label"] = np.where(np.arange(len(table)) // 2 % 2, "ill", "normal")
    return Manifest(table, DatasetMeta(name="set", classes=("normal", "ill")), Path())


def card_of(trained: Manifest, **changes: Any) -> ReaderCard:
    rows = trained.table[trained.table["split"] == "train"]
    sha256 = rows_sha256(zip(rows["path"], rows["patient"], strict=True))
    learned = DataCard(name=trained.meta.name, images=100, patients=100, sha256=sha256)
    return card_for(("ill",), classes=("normal", "ill"), **{"data": learned, **changes})


def predicted(data: Manifest, strength: dict[str, float], seed: int = 0) -> pd.DataFrame:
    """Scores of the test rows: ``strength`` standard deviations apart, by source."""
    rows = data.table[data.table["split"] == "test"]
    apart = np.array([strength[source] for source in rows["source"]]) * (rows["label"] == "ill")
    scores = apart + np.random.default_rng(seed).normal(0, 1, len(rows))
    return pd.DataFrame(
        {
            "image": rows["path"],
            "patient": rows["patient"],
            "source": rows["source"],
            "target": rows["label"],
            "probability_ill": 1 / (1 + np.exp(-scores)),
        }
    ).reset_index(drop=True)


def asked(data: Manifest, card: ReaderCard, strength: dict[str, float]) -> AuditLine:
    return judge_sources(predicted(data, strength), card, data, Thresholds())[0]


@pytest.mark.parametrize(
    ("there", "answer"),
    [(0.0, "FAIL"), (3.0, "PASS")],
)
def test_an_unseen_source_is_compared_with_seen_ones(there: float, answer: str) -> None:
    data = manifest((HERE, THERE))
    line = asked(data, card_of(data), {HERE: 3.0, THERE: there})
    assert (line.code, line.answer) == ("T6", answer)
    assert line.sentence.startswith("In There, which it has not seen, its AUROC for ill is")
    assert [one.what for one in line.figures] == [
        "AUROC ill, There",
        "AUROC ill, seen sources",
        "loss of AUROC ill, There",
    ]
    assert any("trained on: Here." in note for note in line.notes)


def test_one_source_or_none_unseen_is_never_a_pass() -> None:
    one = manifest()
    line = asked(one, card_of(one), {HERE: 4.0})
    assert (line.answer, line.sentence) == (
        "NOT ASSESSABLE",
        "All films are of 1 source: nothing shows how it does in another.",
    )
    both = manifest((HERE, THERE), trained=(HERE, THERE))
    line = asked(both, card_of(both), {HERE: 4.0, THERE: 4.0})
    assert line.answer == "NOT ASSESSABLE"
    assert "none is unseen" in line.sentence


def test_another_data_set_is_unseen_and_compared_with_the_card() -> None:
    validated = MetricRow(
        name="AUROC ill", split="validation", estimate=Estimate(value=0.95, low=0.94, high=0.96, n=900)
    )
    learned = DataCard(name="other", images=1, patients=1, sha256="0" * 64)
    data = manifest((THERE,))
    line = asked(data, card_of(data, data=learned, metrics=(validated,)), {THERE: 0.3})
    assert line.answer == "FAIL"
    assert any("the reader's own validation" in note for note in line.notes)
    line = asked(data, card_of(data, data=learned), {THERE: 0.3})
    assert line.answer == "NOT ASSESSABLE"  # the card has no figure to compare with


def test_another_version_of_the_same_data_set_is_not_known_to_be_unseen() -> None:
    data = manifest((HERE, THERE))
    renumbered = replace(data, table=data.table.assign(patient=data.table["patient"] + "x"))
    assert seen_sources(card_of(data), renumbered) is None
    line = asked(renumbered, card_of(data), {HERE: 3.0, THERE: 3.0})
    assert line.answer == "NOT ASSESSABLE"
    assert "another version of set" in line.sentence


def test_a_source_with_few_patients_is_named_and_not_judged() -> None:
    data = manifest((HERE, THERE))
    test_rows = data.table.index[data.table["split"] == "test"]
    table = data.table.copy()
    table.loc[test_rows[12:], "source"] = HERE
    few = replace(data, table=table)
    line = asked(few, card_of(few), {HERE: 3.0, THERE: 3.0})
    assert line.answer == "NOT ASSESSABLE"
    assert any("ill in There" in note for note in line.notes)


def test_folds_have_seen_all_rows_outside_the_test() -> None:
    data = manifest((HERE, THERE), trained=(HERE, "Third"))
    rows = used_rows(fold_pairs(data, 3, 0))
    sha256 = rows_sha256(zip(rows["path"], rows["patient"], strict=True))
    learned = DataCard(name="set", images=100, patients=100, sha256=sha256)
    card = card_of(data, data=learned, training={"settings": {"folds": 3, "seed": 0}})
    assert seen_sources(card, data) == frozenset({HERE, "Third"})


def test_a_difference_by_hand() -> None:
    first, second = Estimate(value=0.9, low=0.86, high=0.93, n=100), Estimate(value=0.8, low=0.77, high=0.84, n=50)
    found = difference(first, second)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - np.hypot(0.04, 0.04))
    assert found.high == pytest.approx(0.1 + np.hypot(0.03, 0.03))
    assert found.n == 150
    assert difference(first, Estimate(value=None, note="no cases")).note == "no cases"
    assert difference(first, Estimate(value=0.8, note="too few")).low is None
