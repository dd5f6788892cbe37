"""Workitems: pulled from a manager that keeps the states of the standard, done, told; and C-MOVE."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.pacs.node_support import film
from tests.pacs.test_node import answer, events, started
from wetread.errors import PeerUnreachable, UsageError
from wetread.pacs import client
from wetread.pacs.node import Node
from wetread.pacs.workitems import PULL, PUSH, Workitem, Worklist
from wetread.settings import NodeRemote, NodeRule, NodeSettings

GET, MOVE = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.2"
CR = "1.2.840.10008.5.1.4.1.1.1"


class Manager:
    """A task manager by pynetdicom: workitems with the states and locks of PS3.4 CC.2.1, and an archive beside."""

    def __init__(self, image: Dataset) -> None:
        self.image = image
        self.items: dict[str, Dataset] = {}
        self.locks: dict[str, str] = {}
        self.moved_to: list[str] = []

    def schedule(self, uid: str, study: str) -> None:
        item, source, retrieval = Dataset(), Dataset(), Dataset()
        item.SOPClassUID, item.SOPInstanceUID = PUSH, uid
        item.ProcedureStepState, item.ProcedureStepLabel = "SCHEDULED", "Read the chest"
        retrieval.RetrieveAETitle = "MANAGER"
        source.StudyInstanceUID, source.DICOMRetrievalSequence = study, [retrieval]
        item.InputInformationSequence = [source]
        self.items[uid] = item

    def found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for item in self.items.values():
            if item.ProcedureStepState == event.identifier.ProcedureStepState:
                yield 0xFF00, item
        yield 0, None

    def acted(self, event: Any) -> tuple[int, Dataset | None]:
        uid, asked = str(event.request.RequestedSOPInstanceUID), event.action_information
        item = self.items.get(uid)
        if item is None:
            return 0xC307, None
        if asked.ProcedureStepState == "IN PROGRESS":
            if item.ProcedureStepState != "SCHEDULED":
                return 0xC302, None
            self.locks[uid] = str(asked.TransactionUID)
        elif self.locks.get(uid) != asked.TransactionUID:
            return 0xC301, None
        elif asked.ProcedureStepState == "COMPLETED" and "UnifiedProcedureStepPerformedProcedureSequence" not in item:
            return 0xC304, None
        item.ProcedureStepState = asked.ProcedureStepState
        return 0, None

    def changed(self, event: Any) -> tuple[int, Dataset | None]:
        uid, told = str(event.request.RequestedSOPInstanceUID), event.modification_list
        if self.locks.get(uid) != told.TransactionUID:
            return 0xC301, None
        del told.TransactionUID
        self.items[uid].update(told)
        return 0, None

    def fetched(self, event: Any) -> Iterator[Any]:
        yield 1
        yield 0xFF00, self.image

    def moved(self, event: Any) -> Iterator[Any]:
        self.moved_to.append(event.move_destination)
        yield None, None  # we know no destination


@contextlib.contextmanager
def managed(tmp_path: Path) -> Iterator[tuple[Manager, NodeRemote]]:
    manager = Manager(pydicom.dcmread(film(tmp_path / "film.dcm")))
    entity = AE(ae_title="MANAGER")
    for uid in (PULL, GET, MOVE):
        entity.add_supported_context(uid)
    entity.add_supported_context(CR, scu_role=True, scp_role=True)
    handlers: Any = [
        (evt.EVT_C_FIND, manager.found),
        (evt.EVT_N_ACTION, manager.acted),
        (evt.EVT_N_SET, manager.changed),
        (evt.EVT_C_GET, manager.fetched),
        (evt.EVT_C_MOVE, manager.moved),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        port = server.socket.getsockname()[1]  # type: ignore[union-attr]
        yield manager, NodeRemote(title="MANAGER", host="127.0.0.1", port=port, results=("sr",))
    finally:
        server.shutdown()  # type: ignore[union-attr]


@contextlib.contextmanager
def performing(tmp_path: Path, remote: NodeRemote, **rule: Any) -> Iterator[Node]:
    rules = (NodeRule(name="all", reader="any", to=("peer",), **rule),)
    with started(tmp_path / "peer") as (_, peer):
        remotes = {"manager": remote, "peer": peer.model_copy(update={"results": ("sr", "gsps")})}
        with started(tmp_path / "node", answer, remotes=remotes, rules=rules, worklists=("manager",)) as (node, _):
            yield node


def test_a_workitem_is_claimed_its_study_fetched_and_read_and_its_output_told(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote), performing(tmp_path, remote) as node:
        study = str(manager.image.StudyInstanceUID)
        manager.schedule("1.2.3.1", study)
        assert node.work_once() == (0, 2)  # no study came by itself; report and marks arrived
        item = manager.items["1.2.3.1"]
        assert item.ProcedureStepState == "COMPLETED"
        (performed,) = item.UnifiedProcedureStepPerformedProcedureSequence
        told = {one.ReferencedSOPSequence[0].ReferencedSOPClassUID: one for one in performed.OutputInformationSequence}
        assert set(told) == {"1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.11.1"}
        assert {one.StudyInstanceUID for one in told.values()} == {study}
        (kept,) = node.store.study(study)
        assert kept.sop_instance == manager.image.SOPInstanceUID
        assert node.work_once() == (0, 0)  # nothing twice
        assert events(node)[:3] == ["node started", "workitem claimed", "workitem completed"]


def test_a_workitem_whose_study_no_rule_takes_is_cancelled_with_the_reason(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote), performing(tmp_path, remote, modalities=("MG",)) as node:
        manager.schedule("1.2.3.1", str(manager.image.StudyInstanceUID))
        node.work_once()
        item = manager.items["1.2.3.1"]
        assert item.ProcedureStepState == "CANCELED"
        (progress,) = item.ProcedureStepProgressInformationSequence
        assert progress.ReasonForCancellation == "no rule takes the study"


def test_a_workitem_that_another_performer_has_is_left_alone(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote), performing(tmp_path, remote) as node:
        manager.schedule("1.2.3.1", str(manager.image.StudyInstanceUID))
        real = manager.acted

        def faster(event: Any) -> tuple[int, Dataset | None]:
            manager.items["1.2.3.1"].ProcedureStepState = "IN PROGRESS"
            return real(event)

        manager.acted = faster  # type: ignore[method-assign]
        worklist = Worklist(remote, "WETREAD")
        assert worklist.claim("1.2.3.1", "2.25.1") in (True, False)
        manager.items["1.2.3.1"].ProcedureStepState, manager.locks["1.2.3.1"] = "IN PROGRESS", "2.25.9"
        assert not worklist.claim("1.2.3.1", "2.25.1")
        manager.acted = lambda event: (0xC301, None)  # type: ignore[method-assign]  # as the standard has it
        assert not worklist.claim("1.2.3.1", "2.25.1")
        manager.acted = faster  # type: ignore[method-assign]
        with pytest.raises(PeerUnreachable, match="the worklist of MANAGER to take an update, got status C301"):
            worklist.finish(Workitem("1.2.3.1", "1.2"), "2.25.1", [])
        with pytest.raises(PeerUnreachable, match="to take a claim, got status C307"):
            worklist.claim("1.2.3.99", "2.25.1")
        assert node.work_once() == (0, 0)


def test_a_crash_between_claim_and_end_is_made_up_for(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote), performing(tmp_path, remote) as node:
        manager.schedule("1.2.3.1", str(manager.image.StudyInstanceUID))
        performer = node._performer
        assert performer is not None
        performer._claim_new("manager", Worklist(remote, "WETREAD"))  # and then the power went
        assert manager.items["1.2.3.1"].ProcedureStepState == "IN PROGRESS"
        assert node.store.ledger.read("SELECT state, lock FROM workitems") == [("claimed", manager.locks["1.2.3.1"])]
        node.work_once()
        assert manager.items["1.2.3.1"].ProcedureStepState == "COMPLETED"


def test_a_crash_before_the_claim_leaves_the_workitem_to_who_has_it(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote), performing(tmp_path, remote) as node:
        manager.schedule("1.2.3.1", str(manager.image.StudyInstanceUID))
        assert node._performer is not None
        node._performer._remember("manager", Workitem("1.2.3.1", str(manager.image.StudyInstanceUID)))
        manager.items["1.2.3.1"].ProcedureStepState, manager.locks["1.2.3.1"] = "IN PROGRESS", "2.25.9"
        node.work_once()
        assert manager.items["1.2.3.1"].ProcedureStepState == "IN PROGRESS"
        assert node.store.ledger.read("SELECT state FROM workitems") == [("lost",)]


def test_a_worklist_must_be_a_remote_with_a_port(tmp_path: Path) -> None:
    settings = NodeSettings(folder=tmp_path, worklists=("manager",))
    with pytest.raises(UsageError, match=r"expected a remote with a port for each of node\.worklists, got 'manager'"):
        Node(settings)


def test_a_destination_that_the_archive_does_not_know_is_told(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, remote):
        with pytest.raises(PeerUnreachable, match="expected a remote that knows ELSEWHERE, got one that does not"):
            client.move_study(remote, "WETREAD", "1.2.3", "ELSEWHERE")
        assert manager.moved_to == ["ELSEWHERE"]
