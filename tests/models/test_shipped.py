"""The shipped reader: what its card must say, how large it may be, and that it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wetread
from wetread.datasets.phantoms import render, sample_spec, write_dicom
from wetread.models.bundle import ZOO, list_readers, load_card

NAME = "chest-pneumonia"
MOST_BYTES = 10 << 20


def test_it_is_on_the_shelf_and_small() -> None:
    assert NAME in [card.name for _, card in list_readers()]
    assert sum(file.stat().st_size for file in (ZOO / NAME).iterdir()) <= MOST_BYTES


def test_its_card_says_whom_it_has_seen_and_what_is_known_against_it() -> None:
    card = load_card(ZOO / NAME)
    assert "children aged 1 to 5" in card.data.population
    assert card.data.licence == "CC BY 4.0"
    assert "Research use only" in card.intended_use
    assert any(".956" in limit for limit in card.limits)
    assert card.audit_verdict == "not audited"
    test = [row for row in card.metrics if row.split == "official test"]
    assert {"AUROC PNEUMONIA", "accuracy", "sensitivity", "specificity"} <= {row.name for row in test}
    assert all(row.estimate.n > 0 for row in test)


@pytest.mark.parametrize(("folder", "ill"), [("NORMAL", False), ("PNEUMONIA", True)])
def test_it_reads_films_of_the_kind_it_was_trained_on(shared_data: Path, folder: str, ill: bool) -> None:
    films = sorted((shared_data / "kermany-cxr" / "train" / folder).iterdir())[:8]
    reads = [result for result in wetread.load(NAME).read_many(films) if isinstance(result, wetread.ReadResult)]
    assert len(reads) == len(films)
    answers = [read.read.labels[0].decision for read in reads]
    assert answers.count("positive" if ill else "negative") >= 6


def test_another_body_part_gets_a_reason_and_no_probability(tmp_path: Path) -> None:
    import pydicom

    path = write_dicom(render(sample_spec(np.random.default_rng(1), size_px=256)), tmp_path / "hand.dcm")
    header = pydicom.dcmread(path)
    header.BodyPartExamined = "HAND"
    header.save_as(path)
    read = wetread.load(NAME).read(path)
    assert not read.gate.passed
    assert any("HAND" in reason for reason in read.gate.reasons)
    assert [label.probability for label in read.labels] == [None]
