"""The shipped reader: what its card must say, how large it may be, and that it reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import wetread
from wetread.audit.result import AuditResult
from wetread.datasets.phantoms import render, sample_spec, write_dicom
from wetread.defaults import DEFAULT_READER
from wetread.models.bundle import AUDIT_FILE, ZOO, list_readers, load_any_card, load_card
from wetread.types import Image, ImageFacts

NAME = "chest-pneumonia"
GUIDED = "chest-pneumonia-lungs"
MOST_BYTES = 10 << 20
RECIPES = Path(__file__).parents[2] / "recipes"


def test_it_is_on_the_shelf_and_small() -> None:
    assert NAME in [card.name for _, card in list_readers()]
    assert sum(file.stat().st_size for file in (ZOO / NAME).iterdir()) <= MOST_BYTES


def test_its_card_says_whom_it_has_seen_and_what_is_known_against_it() -> None:
    card = load_card(ZOO / NAME)
    assert "children aged 1 to 5" in card.data.population
    assert card.data.licence == "CC BY 4.0"
    assert "Research use only" in card.intended_use
    assert any(".956" in limit for limit in card.limits)
    test = [row for row in card.metrics if row.split == "official test"]
    assert {"AUROC PNEUMONIA", "accuracy", "sensitivity", "specificity"} <= {row.name for row in test}
    assert all(row.estimate.n > 0 for row in test)


def test_its_own_audit_is_shipped_with_it_and_failed() -> None:
    card = load_card(ZOO / NAME)
    audit = AuditResult.model_validate_json((ZOO / NAME / AUDIT_FILE).read_text(encoding="utf-8"))
    assert audit.reader.sha256 == card.sha256
    assert audit.verdict == card.audit_verdict == "FAIL T3 on kermany-cxr test"
    answers = {line.code: line.answer for line in audit.lines}
    assert answers["T3"] == "FAIL"  # the label can be told without the lungs
    assert answers["T4"] != "PASS"  # and nothing shows that this reader does without it
    assert card.watermark
    assert card.heat_maps["gradcam"] == "passes"


def test_the_reader_that_is_taken_where_none_is_named_fails_none_of_the_four_questions_that_decide() -> None:
    assert DEFAULT_READER == GUIDED
    card = load_card(ZOO / GUIDED)
    audit = AuditResult.model_validate_json((ZOO / GUIDED / AUDIT_FILE).read_text(encoding="utf-8"))
    assert audit.reader.sha256 == card.sha256
    assert audit.verdict == card.audit_verdict == "OPEN T2 not assessable on kermany-cxr test"
    answers = {line.code: line.answer for line in audit.lines}
    assert (answers["T1"], answers["T3"], answers["T4"]) == ("PASS", "WARN", "PASS")  # a shortcut, and no use of it


@pytest.mark.parametrize(("folder", "ill"), [("NORMAL", False), ("PNEUMONIA", True)])
@pytest.mark.parametrize("name", ["chest-pneumonia", "chest-pneumonia-lungs"])
def test_it_reads_films_of_the_kind_it_was_trained_on(shared_data: Path, name: str, folder: str, ill: bool) -> None:
    films = sorted((shared_data / "kermany-cxr" / "train" / folder).iterdir())[:8]
    reads = [result for result in wetread.load(name).read_many(films) if isinstance(result, wetread.ReadResult)]
    assert len(reads) == len(films)
    assert all(("mask" in [step.name for step in read.read.applied]) == (name == GUIDED) for read in reads)
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


def test_the_guided_twin_differs_in_its_guide_alone() -> None:
    plain, guided = (tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8")) for name in (NAME, GUIDED))
    assert plain.pop("limits") != guided.pop("limits")
    assert {key: value for key, value in guided.items() if plain.get(key) != value} == {
        "guide": "mask",
        "organ": "lungs",
        "segmenter": "lungs",
    }
    assert set(plain) <= set(guided)


def test_the_guided_twin_names_its_segmenter_and_what_it_keeps_without_lungs() -> None:
    card = load_card(ZOO / GUIDED)
    assert sum(file.stat().st_size for file in (ZOO / GUIDED).iterdir()) <= MOST_BYTES
    assert card.guide is not None
    assert card.guide.sha256 == load_any_card(ZOO / "lungs").sha256
    figures = {row.name: row.estimate.value for row in card.metrics if row.split == "official test"}
    whole, hidden = figures["AUROC PNEUMONIA"], figures["AUROC PNEUMONIA, lungs painted over"]
    assert whole is not None
    assert hidden is not None
    assert hidden < whole


def test_the_guided_twin_does_not_answer_where_there_are_no_lungs() -> None:
    noise = np.random.default_rng(0).uniform(0.2, 0.8, (200, 200)).astype(np.float32)
    facts = ImageFacts(name="noise", format="PNG", sha256="", rows=200, columns=200, bits=8)
    read = wetread.load(GUIDED).read(Image(noise, facts))
    assert not read.gate.passed
    assert [label.probability for label in read.labels] == [None]
