"""Storage commitment (PS3.4 annex J): a promise that is checked against the disk before it is given.

Decided here: each object named in a request is hashed again from its file, so a promise rests on bytes and not
on the index. The request is written down before it is answered. The event goes back on the association that
asked, or, for a peer whose address is in the settings, on one of our own, with retries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wetread.pacs.store import ObjectStore, data_digest

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["IMPLICIT", "MAX_OBJECTS", "CommitmentDesk", "read_data_set", "write_data_set"]

IMPLICIT = "1.2.840.10008.1.2"
_ALL_THERE, _SOME_FAILED = 1, 2
_NO_SUCH_OBJECT, _PROCESSING_FAILURE, _CLASS_CONFLICT = 0x0112, 0x0110, 0x0119
_INVALID_ARGUMENT = 0x0115
MAX_OBJECTS = 20_000

Defer = Callable[[str, str, int, bytes], bool]
"""Called with (calling title, transaction, event type, data set); True where it takes over the report."""


class CommitmentDesk:
    """Answers N-ACTION requests; see :class:`wetread.pacs.association.Answerer`."""

    def __init__(self, store: ObjectStore, defer: Defer = lambda *_: False) -> None:
        self._store = store
        self._defer = defer

    def request(self, calling: str, data: bytes, transfer_syntax: str) -> tuple[int, tuple[int, bytes] | None]:
        """Check the objects of a request; status 0115 for a request that cannot be understood."""
        try:
            asked = read_data_set(data, transfer_syntax)
            transaction = str(asked.TransactionUID)
            wanted = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ]
        except Exception:  # pydicom lets AttributeError, struct and more escape for a broken request
            return _INVALID_ARGUMENT, None
        if not wanted or len(wanted) > MAX_OBJECTS:
            return _INVALID_ARGUMENT, None
        event_type, event = self.answer(transaction, wanted)
        detail = {"transaction": transaction, "calling": calling, "asked": len(wanted), "type": event_type}
        self._store.ledger.write(lambda change: change.event("commitment", **detail))
        encoded = write_data_set(event, transfer_syntax)
        if self._defer(calling, transaction, event_type, write_data_set(event, IMPLICIT)):
            return 0, None
        return 0, (event_type, encoded)

    def answer(self, transaction: str, wanted: list[tuple[str, str]]) -> tuple[int, Dataset]:
        """The event for ``wanted`` (class, instance): type 1 if all are there, else 2."""
        from pydicom.dataset import Dataset

        event = Dataset()
        event.TransactionUID = transaction
        good: list[Dataset] = []
        bad: list[Dataset] = []
        for sop_class, instance in wanted:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            reason = self._failure(sop_class, instance)
            if reason:
                item.FailureReason = reason
            (bad if reason else good).append(item)
        if good:
            event.ReferencedSOPSequence = good
        if bad:
            event.FailedSOPSequence = bad
        return (_SOME_FAILED if bad else _ALL_THERE), event

    def _failure(self, sop_class: str, instance: str) -> int:
        versions = self._store.versions(instance)
        if not versions:
            return _NO_SUCH_OBJECT
        if any(version.sop_class != sop_class for version in versions):
            return _CLASS_CONFLICT
        whole = all(data_digest(version) == version.digest for version in versions)
        return 0 if whole else _PROCESSING_FAILURE


def read_data_set(data: bytes, transfer_syntax: str) -> Dataset:
    """Parse an uncompressed little endian data set that a peer sent.

    Raises:
        OverBudget: it has more parts than any real one.
        ImageRefused: it cannot be parsed.
    """
    from wetread.imaging.header import read_bounded

    return read_bounded(data, implicit=transfer_syntax == IMPLICIT)


def write_data_set(data: Dataset, transfer_syntax: str) -> bytes:
    """Encode a data set, little endian."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, transfer_syntax == IMPLICIT
    write_dataset(buffer, data)
    return buffer.getvalue()
