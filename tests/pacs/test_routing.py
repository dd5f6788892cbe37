"""Rules and completion: which rule takes a study, the words for it, and when a study is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pacs.node_support import data_set, film
from tests.pacs.test_store import keep
from wetread.pacs.completion import MAX_TRIES, done, due_studies, failed
from wetread.pacs.header import ObjectHeader, object_header
from wetread.pacs.routing import StudyFacts, choose, explain, study_facts
from wetread.pacs.store import ObjectStore
from wetread.settings import NodeRule

FACTS = StudyFacts(
    study="1.2",
    sender="CT1",
    called="WETREAD",
    modalities=("CR",),
    body_parts=("CHEST",),
    descriptions=("CHEST PA", "Thorax"),
    age_years=45.0,
    images=2,
)


def rule(**changes: Any) -> NodeRule:
    return NodeRule(**({"name": "chest", "reader": "chest-pneumonia", "to": ("pacs",)} | changes))


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"senders": ("ct1",)}, True),
        ({"senders": ("CT2",)}, False),
        ({"modalities": ("DX", "cr")}, True),
        ({"modalities": ("DX",)}, False),
        ({"body_parts": ("ABDOMEN",)}, False),
        ({"description_has": ("thor",)}, True),
        ({"description_has": ("knee",)}, False),
        ({"age_from": 45.0}, True),
        ({"age_from": 46.0}, False),
        ({"age_below": 45.0}, False),
        ({"called": ("WETREAD",), "age_from": 18, "age_below": 90}, True),
    ],
)
def test_a_rule_fits_when_all_its_conditions_hold(changes: dict[str, Any], fits: bool) -> None:
    (verdict,) = explain([rule(**changes)], FACTS)
    assert verdict.fits is fits
    assert (choose([rule(**changes)], FACTS) is not None) is fits


def test_a_fact_that_the_study_does_not_state_fails_the_condition() -> None:
    unknown = StudyFacts("1.2", "CT1", "WETREAD", ("CR",), (), (), None, 1)
    for changes in ({"age_below": 18.0}, {"age_from": 18.0}, {"body_parts": ("CHEST",)}, {"description_has": ("x",)}):
        (verdict,) = explain([rule(**changes)], unknown)
        assert not verdict.fits
        assert "study has nothing: no" in str(verdict.conditions[-1])


def test_a_study_without_an_image_fits_no_rule() -> None:
    reports = StudyFacts("1.2", "CT1", "WETREAD", (), (), (), None, 0)
    (verdict,) = explain([rule()], reports)
    assert str(verdict.conditions[0]) == "images that can be read: wants at least 1, study has 0: no"


def test_the_first_rule_that_fits_takes_the_study_and_later_ones_are_not_reached() -> None:
    rules = [rule(name="knee", body_parts=("KNEE",)), rule(name="adults", age_from=18), rule(name="all")]
    verdicts = explain(rules, FACTS)
    assert [(one.rule.name, one.fits, one.reached) for one in verdicts] == [
        ("knee", False, True),
        ("adults", True, True),
        ("all", True, False),
    ]
    assert str(verdicts[0].conditions[1]) == "body part: wants KNEE, study has CHEST: no"


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", 45.0), ("006M", 0.5), ("", None), ("45Y", None), ("abcY", None), ("045X", None)]
)
def test_ages_are_read_as_the_standard_writes_them(age: str, years: float | None) -> None:
    assert ObjectHeader(age=age).age_years == years


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    opened = ObjectStore(tmp_path / "store", reserve_bytes=0)
    yield opened
    opened.close()


def test_facts_are_gathered_from_the_stored_headers(store: ObjectStore, tmp_path: Path) -> None:
    path = film(tmp_path / "film.dcm", StudyDescription="Röntgen", SpecificCharacterSet="ISO_IR 192")
    keep(store, data_set(path))
    ((study,),) = store.ledger.read("SELECT study FROM studies")
    facts = study_facts(store.ledger, study)
    assert facts == StudyFacts(study, "CT1", "WETREAD", ("CR",), ("CHEST",), ("Röntgen", "PA"), 45.0, 1)
    assert study_facts(store.ledger, "9.9") is None


def test_a_study_is_due_when_quiet_and_again_when_an_image_comes_late(store: ObjectStore, tmp_path: Path) -> None:
    data = data_set(film(tmp_path / "film.dcm"))
    keep(store, data, "1.2.1")
    ((last,),) = store.ledger.read("SELECT last_arrival FROM studies")
    assert due_studies(store.ledger, 30, last + 29) == []
    (due,) = due_studies(store.ledger, 30, last + 31)
    keep(store, data, "1.2.2")  # while it is being read
    store.ledger.write(done(due))
    (again,) = due_studies(store.ledger, 30, last + 1000)
    assert (due.arrivals, again.arrivals) == (1, 2)
    store.ledger.write(done(again))
    assert due_studies(store.ledger, 30, last + 9999) == []
    keep(store, data, "1.2.2")  # the same object again is nothing new
    assert due_studies(store.ledger, 30, last + 9999) == []


def test_a_failure_is_tried_again_later_and_not_for_ever(store: ObjectStore, tmp_path: Path) -> None:
    keep(store, data_set(film(tmp_path / "film.dcm")), "1.2.1")
    ((last,),) = store.ledger.read("SELECT last_arrival FROM studies")
    for tries in range(MAX_TRIES):
        assert due_studies(store.ledger, 30, last + 30 * 2**tries - 1) == []
        (due,) = due_studies(store.ledger, 30, last + 30 * 2**tries + 1)
        store.ledger.write(failed(due, "no reader"))
    assert due_studies(store.ledger, 30, last + 1e9) == []
    kinds = [row[0] for row in store.ledger.read("SELECT kind FROM events ORDER BY number")]
    assert kinds == ["study failed"] * (MAX_TRIES - 1) + ["study given up"]
    keep(store, data_set(film(tmp_path / "2.dcm")), "1.2.1")  # another study: the first stays given up
    assert len(due_studies(store.ledger, 0, last + 1e9)) == 1


def test_a_clock_that_was_set_back_delays_nothing(store: ObjectStore, tmp_path: Path) -> None:
    keep(store, data_set(film(tmp_path / "film.dcm")), "1.2.1")
    ((last,),) = store.ledger.read("SELECT last_arrival FROM studies")
    assert len(due_studies(store.ledger, 30, last - 86400)) == 1


def test_a_header_without_a_study_has_an_empty_one(tmp_path: Path) -> None:
    path = film(tmp_path / "film.dcm")
    data = data_set(path)
    (tmp_path / "raw").write_bytes(data[:60])
    assert object_header(tmp_path / "raw", 0, "1.2.840.10008.1.2.1").study == ""
