"""Studies that the node receives, in the worklist: taken in once, read once, answered from what the worklist shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID
from sqlalchemy import func, select

from tests.pacs.test_answer import AWAY, _timeless
from wetread.cli.node import study_reader
from wetread.datasets.phantoms import render, sample_spec, write_dicom
from wetread.pacs import client
from wetread.pacs.node import Node
from wetread.service import reception
from wetread.service.catalog import Catalog
from wetread.service.context import Service, open_service
from wetread.service.problems import Problem
from wetread.service.reception import USER, Reception
from wetread.service.removal import remove_study
from wetread.service.tables import AuditEntry, Job, Result, Study, StudyImage, User
from wetread.service.worker import Worker
from wetread.settings import NodeRemote, NodeRule, NodeSettings, Settings

RULE = NodeRule(name="films", reader="chest-pneumonia", to=("pacs",))


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three films of three patients."""
    folder = tmp_path_factory.mktemp("films")
    drawn = [render(sample_spec(np.random.default_rng(seed), size_px=128)) for seed in (1, 2, 3)]
    return [write_dicom(one, folder / f"{number}.dcm") for number, one in enumerate(drawn)]


@contextmanager
def received(
    service: Service, folder: Path, films: Sequence[Path], read: Any = None, **changes: Any
) -> Iterator[tuple[Node, NodeRemote]]:
    """A node beside the service that has received ``films``, reads when told and sends nothing."""
    chosen = {"remotes": {"pacs": AWAY}, "rules": (RULE,)} | changes
    settings = NodeSettings(folder=folder / "node", reserve_bytes=0, port=0, quiet_s=600.0, **chosen)
    node = Node(settings, read or Reception(service))
    try:
        own = NodeRemote(title=settings.title, host="127.0.0.1", port=node.start(work=False))
        assert client.send_files(own, "CT1", list(films)) == {}
        yield node, own
    finally:
        node.stop()


def take_up(node: Node) -> int:
    return node._read_due(time.time() + 6000)


def studies(service: Service) -> list[tuple[str, int]]:
    with service.database.read() as session:
        rows = session.execute(select(Study.status, Study.images).order_by(Study.created, Study.id))
        return [(status, images) for status, images in rows]


def counted(service: Service, table: Any) -> int:
    with service.database.read() as session:
        return int(session.scalar(select(func.count()).select_from(table)) or 0)


def ledger(node: Node) -> list[tuple[bool, int, str]]:
    rows = node.store.ledger.read("SELECT done >= arrivals, tries, error FROM studies ORDER BY last_arrival")
    return [(bool(done), tries, error or "") for done, tries, error in rows]


def letters(node: Node) -> list[Path]:
    return sorted(node.outbox.folder.glob("*.dcm"))


def test_a_study_is_in_the_worklist_read_once_and_answered_from_there(
    service: Service, tmp_path: Path, films: list[Path]
) -> None:
    with received(service, tmp_path, films[:2]) as (node, _):
        assert take_up(node) == 0
        assert studies(service) == [("open", 1)] * 2
        assert take_up(node) == 0  # not read yet, and not asked for twice
        assert counted(service, Job) == 2
        assert Worker(service).drain() == 2
        assert take_up(node) == 2
        assert take_up(node) == 0
        assert studies(service) == [("read", 1)] * 2
        assert (counted(service, Job), counted(service, Result)) == (2, 2)
        reports = [pydicom.dcmread(path) for path in letters(node)]
        assert {one.StudyInstanceUID for one in reports} == {
            pydicom.dcmread(path).StudyInstanceUID for path in films[:2]
        }
    with service.database.read() as session:
        assert {one.facts["received_from"] for one in session.scalars(select(StudyImage))} == {"CT1"}
        lines = session.scalars(select(AuditEntry).where(AuditEntry.action == "receive")).all()
        assert [(one.actor, one.detail["sender"], one.detail["images"]) for one in lines] == [(USER, "CT1", 1)] * 2
        user = session.scalars(select(User).where(User.name == USER)).one()
        assert (user.disabled, user.password_hash) == (True, None)


def test_results_are_those_that_the_node_makes_by_itself(service: Service, tmp_path: Path, films: list[Path]) -> None:
    chosen: dict[str, Any] = {
        "remotes": {"pacs": AWAY.model_copy(update={"results": ("sr", "seg", "heat", "gsps", "sc", "pdf")})},
        "rules": (RULE.model_copy(update={"segmenter": "lungs"}),),
    }
    with received(service, tmp_path / "service", films, **chosen) as (node, _):
        assert take_up(node) == 0
        assert Worker(service).drain() == 6
        assert take_up(node) == 3
        through_service = {path.name: _timeless(path) for path in letters(node)}
    with received(service, tmp_path / "alone", films, study_reader(), **chosen) as (node, _):
        assert take_up(node) == 3
        alone = {path.name: _timeless(path) for path in letters(node)}
    assert len(alone) >= 12
    assert {one["(0008,0060)"] for one in alone.values()} >= {"SR", "SEG", "PR", "OT", "DOC"}
    assert through_service == alone


def test_without_heat_maps_the_worker_makes_none(service: Service, tmp_path: Path, films: list[Path]) -> None:
    rules = (RULE.model_copy(update={"heat_maps": False}),)
    with received(service, tmp_path, films, rules=rules) as (node, _):
        assert take_up(node) == 0
        assert Worker(service).drain() == 3
        assert take_up(node) == 3
    with service.database.read() as session:
        labels = [label for one in session.scalars(select(Result)) for label in one.record["labels"]]
        assert {label["evidence"] for label in labels} == {None}


def test_a_study_that_no_rule_takes_is_seen_and_not_read(service: Service, tmp_path: Path, films: list[Path]) -> None:
    with received(service, tmp_path, films[:1], rules=()) as (node, _):
        assert take_up(node) == 1
        assert ledger(node) == [(True, 0, "")]
    assert studies(service) == [("open", 1)]
    assert counted(service, Job) == 0


def test_a_late_image_is_added_and_only_it_is_read(service: Service, tmp_path: Path, films: list[Path]) -> None:
    first = pydicom.dcmread(films[0])
    late = pydicom.dcmread(films[1])
    late.StudyInstanceUID, late.PatientID = first.StudyInstanceUID, first.PatientID
    late.save_as(tmp_path / "late.dcm")
    with received(service, tmp_path, films[:1]) as (node, own):
        take_up(node)
        Worker(service).drain()
        assert take_up(node) == 1
        assert client.send_files(own, "CT1", [tmp_path / "late.dcm"]) == {}
        assert take_up(node) == 0
        assert studies(service) == [("open", 2)]
        assert Worker(service).drain() == 1
        assert take_up(node) == 1
        assert len(letters(node)) == 2
    assert studies(service) == [("read", 2)]


def test_a_restart_in_between_asks_for_nothing_twice(service: Service, tmp_path: Path, films: list[Path]) -> None:
    with received(service, tmp_path, films[:1]) as (node, _):
        assert take_up(node) == 0
    Worker(service).drain()
    with received(service, tmp_path, []) as (node, _):  # the same folder, and nothing new came
        assert take_up(node) == 0  # it looks what there is
        assert take_up(node) == 1
        assert len(letters(node)) == 1
    assert (counted(service, StudyImage), counted(service, Job), counted(service, Result)) == (1, 1, 1)


def test_what_is_no_image_is_left_out_and_what_cannot_be_read_is_told(
    service: Service, tmp_path: Path, films: list[Path]
) -> None:
    note = pydicom.dcmread(films[0])
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.11")
    note.SOPInstanceUID = note.file_meta.MediaStorageSOPInstanceUID = UID(f"{note.SOPInstanceUID}.1")
    del note.PixelData, note.Rows, note.Columns
    note.save_as(tmp_path / "note.dcm")
    bad = pydicom.dcmread(films[1])
    bad.PixelData = bad.PixelData[: len(bad.PixelData) // 2]
    bad.save_as(tmp_path / "bad.dcm")
    with received(service, tmp_path, [films[0], tmp_path / "note.dcm", tmp_path / "bad.dcm"]) as (node, _):
        take_up(node)
        Worker(service).drain()
        assert take_up(node) == 2
        assert [done for done, _, _ in ledger(node)] == [True, True]
        assert len(letters(node)) == 1
        told = [row[0] for row in node.store.ledger.read("SELECT detail FROM events WHERE kind = 'study read'")]
        assert sorted('"not_read": 1' in line for line in told) == [False, True]


def test_a_database_that_is_away_costs_no_try(
    service: Service, tmp_path: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Problem("unavailable", "The database does not answer.")

    with received(service, tmp_path, films[:1]) as (node, _):
        with monkeypatch.context() as patch:
            patch.setattr(reception, "ingest", away)
            assert [take_up(node) for _ in range(7)] == [0] * 7
        assert ledger(node) == [(False, 0, "")]
        take_up(node)
        Worker(service).drain()
        assert take_up(node) == 1


def test_a_reader_that_is_not_there_keeps_no_study_from_being_seen(
    installation: Settings, service: Service, tmp_path: Path, films: list[Path], reader_folder: Path
) -> None:
    rules = (RULE.model_copy(update={"reader": "mine"}),)
    with received(service, tmp_path, films[:1], rules=rules) as (node, _):
        assert take_up(node) == 1
        ((done, tries, error),) = ledger(node)
        assert (done, tries, "No reader of that name" in error) == (False, 1, True)
        assert studies(service) == [("open", 1)]
        installation.paths.readers.mkdir()
        (installation.paths.readers / "mine").symlink_to(reader_folder)
        assert take_up(node) == 0
        assert Worker(service).drain() == 1
        assert take_up(node) == 1
        assert len(letters(node)) == 1


def test_a_study_that_was_deleted_meanwhile_is_not_waited_for(
    service: Service, tmp_path: Path, films: list[Path]
) -> None:
    with received(service, tmp_path, films[:1]) as (node, _):
        take_up(node)
        with service.database.write() as session:
            remove_study(session, service.blobs, session.scalars(select(Study)).one())
        assert take_up(node) == 1
        assert ledger(node) == [(True, 0, "")]
        assert letters(node) == []
    assert studies(service) == []


def test_a_read_in_the_dead_letters_is_asked_for_again(service: Service, tmp_path: Path, films: list[Path]) -> None:
    with received(service, tmp_path, films[:1]) as (node, _):
        take_up(node)
        with service.database.write() as session:
            job = session.scalars(select(Job)).one()
            job.state, job.message = "dead", "The worker was lost 5 times at this job."
        assert take_up(node) == 1
        assert ledger(node) == [(False, 1, "The worker was lost 5 times at this job.")]
        assert take_up(node) == 0
        assert Worker(service).drain() == 1
        assert take_up(node) == 1
        assert len(letters(node)) == 1


def test_rules_name_readers_by_folder_and_a_missing_one_hides_no_other(
    installation: Settings, tmp_path: Path, reader_folder: Path
) -> None:
    rules = (RULE.model_copy(update={"reader": str(reader_folder)}), RULE.model_copy(update={"reader": "nowhere"}))
    node = NodeSettings(folder=tmp_path / "node", rules=rules, remotes={"pacs": AWAY})
    opened = open_service(installation.model_copy(update={"node": node}))
    try:
        assert opened.catalog.reader(str(reader_folder)).folder == reader_folder
        names = {entry.card.name for entry in opened.catalog.entries()}
        assert opened.catalog.reader(str(reader_folder)).card.name in names
        plain = Catalog((installation.paths.readers,), ("chest-pneumonia",))
        with pytest.raises(Problem, match="No reader of that name"):
            plain.reader(str(reader_folder))
    finally:
        opened.close()
