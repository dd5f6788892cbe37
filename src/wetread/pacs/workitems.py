"""Work that another system lists: Unified Procedure Steps over DIMSE, as a performer that pulls (PS3.4 annex CC).

These are RAD-81 to RAD-85 of IHE's AI Workflow for Imaging. Decided here: the transaction UID that locks a workitem
is written down before it is asked for, so that a node that crashed goes on with what it had claimed and leaves nothing
in progress for ever; a workitem whose study no rule takes, or that cannot be read, is cancelled with the reason.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from wetread.errors import PeerUnreachable, expected
from wetread.pacs.client import associated
from wetread.pacs.header import printable
from wetread.pacs.performed import Output, performed
from wetread.settings import NodeRemote

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association

__all__ = ["PULL", "Output", "Workitem", "Worklist", "new_transaction"]

PUSH, PULL = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.3"
_CHANGE_STATE = 1
_TAKEN = (0xC301, 0xC302)
"""To a claim of ours: the lock of another performer holds (PS3.4 table CC.1.1-2), or it is in progress already."""
_PENDING = (0xFF00, 0xFF01)
_MOST = 100


@dataclass(frozen=True, slots=True)
class Workitem:
    """One thing to do: read ``study``, which lies at the system with the title ``source`` (empty: not said)."""

    uid: str
    study: str
    source: str = ""
    label: str = ""


class Worklist:
    """The worklist of one remote; every call is an association of its own."""

    def __init__(self, remote: NodeRemote, title: str) -> None:
        self._remote, self._title = remote, title

    def scheduled(self) -> list[Workitem]:
        """Workitems that wait and name a study (C-FIND, RAD-81).

        Raises:
            PeerUnreachable: no answer, or a refusal.
        """
        from pydicom.dataset import Dataset

        query = Dataset()
        query.ProcedureStepState = "SCHEDULED"
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "ProcedureStepLabel"):
            setattr(query, keyword, "")
        query.InputInformationSequence = []
        found: list[Workitem] = []
        with self._open() as association:
            for status, answer in association.send_c_find(query, PULL):
                if answer is not None and len(found) < _MOST:
                    found += [one for one in [_workitem(answer)] if one is not None]
                elif answer is None and ("Status" not in status or status.Status not in (0, *_PENDING)):
                    raise self._refused("a query", status)
        return found

    def claim(self, uid: str, transaction: str) -> bool:
        """Lock a workitem for us (N-ACTION, RAD-82); False where another performer was faster."""
        status = self._change(uid, transaction, "IN PROGRESS")
        if status.get("Status") in (0, *_TAKEN):
            return bool(status.Status == 0)
        raise self._refused("a claim", status)

    def finish(self, item: Workitem, transaction: str, outputs: Sequence[Output], reason: str = "") -> None:
        """Tell what was made and complete it, or cancel it for ``reason`` (N-SET and N-ACTION, RAD-84 and 85).

        Raises:
            PeerUnreachable: no answer, or a refusal, such as of a lock that is not ours.
        """
        now = datetime.now().strftime("%Y%m%d%H%M%S")
        told = performed(self._title, item.label or "Read by an algorithm", (now, now), outputs, reason)
        told.TransactionUID = transaction
        with self._open() as association:
            status, _ = association.send_n_set(told, PUSH, item.uid, meta_uid=PULL)
        if status.get("Status") != 0 and not 0xB000 <= status.get("Status", 0) <= 0xBFFF:
            raise self._refused("an update", status)
        status = self._change(item.uid, transaction, "CANCELED" if reason else "COMPLETED")
        if status.get("Status") not in (0, 0xB304, 0xB306):  # it is in that state already
            raise self._refused("an end", status)

    def _change(self, uid: str, transaction: str, state: Literal["IN PROGRESS", "COMPLETED", "CANCELED"]) -> Any:
        from pydicom.dataset import Dataset

        change = Dataset()
        change.TransactionUID, change.ProcedureStepState = transaction, state
        with self._open() as association:
            status, _ = association.send_n_action(change, _CHANGE_STATE, PUSH, uid, meta_uid=PULL)
        return status

    @contextmanager
    def _open(self) -> Iterator[Association]:
        with associated(self._remote, self._title, {PULL: None}) as association:
            yield association

    def _refused(self, what: str, status: Any) -> PeerUnreachable:
        got = f"status {status.Status:04X}" if "Status" in status else "no answer"
        where = f"the worklist of {self._remote.title or 'ANY-SCP'}"
        return PeerUnreachable(expected(f"{where} to take {what}", got, "check it at the manager of the worklist"))


def new_transaction() -> str:
    """A transaction UID that nobody can guess: whoever knows it may change the workitem."""
    return f"2.25.{uuid.uuid4().int}"


def _workitem(answer: Dataset) -> Workitem | None:
    """The workitem of an answer; None where it names no study or no UID."""
    try:
        inputs = list(answer.get("InputInformationSequence") or [])
        first = inputs[0] if inputs else answer
        study = str(first.get("StudyInstanceUID") or answer.get("StudyInstanceUID") or "")
        retrieval = list(first.get("DICOMRetrievalSequence") or [])
        source = str(retrieval[0].get("RetrieveAETitle") or "") if retrieval else ""
        uid, label = str(answer.get("SOPInstanceUID") or ""), str(answer.get("ProcedureStepLabel") or "")
    except Exception:  # pydicom converts on access, and each VR fails in its own way
        return None
    if not (_is_uid(uid) and _is_uid(study)):
        return None
    return Workitem(uid, study, printable(source), printable(label))


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and set(text) <= set("0123456789.")
