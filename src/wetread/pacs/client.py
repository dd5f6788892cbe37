"""Calling other DICOM systems: C-ECHO, C-FIND, C-GET, C-STORE and the event of storage commitment.

Decided here: one association for a batch and not one for each file; objects go out in the transfer syntax that they
are stored in, or not at all, so that no pixel is ever re-encoded on the way; a peer that does not answer is one
error, :class:`~wetread.errors.PeerUnreachable`, which names the system and never a patient.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.errors import PeerUnreachable, UsageError, expected
from wetread.imaging.header import quiet
from wetread.pacs.association import COMMITMENT
from wetread.pacs.commitment import IMPLICIT, read_data_set
from wetread.pacs.header import printable
from wetread.provenance import atomic_file
from wetread.settings import NodeRemote

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association

__all__ = [
    "FIND_KEYS",
    "associated",
    "echo",
    "find",
    "get_study",
    "move_study",
    "report_commitment",
    "send_files",
    "texts",
]

_VERIFICATION = "1.2.840.10008.1.1"
_STUDY_FIND, _STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
_STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_UNKNOWN_DESTINATION = 0xA801
_TIMEOUT_S = 30
_MAX_CONTEXTS = 120
_PENDING = (0xFF00, 0xFF01)
_DUPLICATE = 0x0111
FIND_KEYS = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "StudyDescription", "PatientID"),
    *("StudyInstanceUID", "NumberOfStudyRelatedInstances"),
)
"""What a query asks to be told of each study."""

_GETTABLE = (
    *("1", "1.1", "1.1.1", "1.2", "1.2.1", "2", "2.1", "4", "4.1", "6.1", "3.1", "7", "7.2", "7.4", "11.1"),
    *("12.1", "12.2", "20", "30", "66.4", "77.1.5.1", "88.11", "88.22", "88.33", "88.34", "104.1", "128", "481.1"),
)
"""Storage classes that a C-GET proposes to take, below 1.2.840.10008.5.1.4.1.1."""


def echo(remote: NodeRemote, title: str) -> float:
    """Ask whether a system is there; return milliseconds for association and answer.

    Raises:
        PeerUnreachable: no answer.
    """
    began = time.perf_counter()
    with associated(remote, title, {_VERIFICATION: None}) as association:
        _require_success(association.send_c_echo(), remote, "an answer to C-ECHO")
    return (time.perf_counter() - began) * 1e3


def find(remote: NodeRemote, title: str, filters: Mapping[str, str], limit: int = 100) -> list[dict[str, str]]:
    """Query studies; ``filters`` by keyword, with the wildcards of DICOM. Values come back as text.

    Raises:
        UsageError: a keyword that DICOM does not have.
        PeerUnreachable: no answer, or a refusal.
    """
    from pydicom.dataset import Dataset

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    for keyword in FIND_KEYS:
        setattr(query, keyword, "")
    for keyword, value in filters.items():
        _require_keyword(keyword)
        setattr(query, keyword, value)
    found: list[dict[str, str]] = []
    with associated(remote, title, {_STUDY_FIND: None}) as association:
        for status, answer in association.send_c_find(query, _STUDY_FIND):
            if answer is not None and len(found) < limit:
                found.append(texts(answer))
            elif answer is None and "Status" not in status:
                raise _unreachable(remote, "no answer to C-FIND")
            elif status.Status not in (0, *_PENDING):
                raise _unreachable(remote, f"status {status.Status:04X} for C-FIND")
    return found


def get_study(remote: NodeRemote, title: str, study: str, folder: Path) -> list[Path]:
    """Fetch a study by C-GET into ``folder``; names are hashes of instance UIDs. Returns the files.

    Raises:
        PeerUnreachable: no answer, or not all of the study came.
    """
    from pydicom.dataset import Dataset
    from pynetdicom import build_role, evt

    files: list[Path] = []

    def take(event: Any) -> int:
        instance = str(event.request.AffectedSOPInstanceUID)
        path = folder / f"{hashlib.sha256(instance.encode()).hexdigest()}.dcm"
        with atomic_file(path) as part:
            part.write_bytes(event.encoded_dataset())
        files.append(path)
        return 0

    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    classes = [f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in _GETTABLE]
    contexts: dict[str, Sequence[str] | None] = {_STUDY_GET: None} | {uid: _all_syntaxes() for uid in classes}
    roles = [build_role(uid, scu_role=False, scp_role=True) for uid in classes]
    options = {"ext_neg": roles, "evt_handlers": [(evt.EVT_C_STORE, take)]}
    with associated(remote, title, contexts, options) as association:
        for status, _ in association.send_c_get(query, _STUDY_GET):
            if "Status" not in status:
                raise _unreachable(remote, "no answer to C-GET")
            if status.Status not in (0, *_PENDING):
                raise _unreachable(remote, f"status {status.Status:04X} for C-GET after {len(files)} objects")
    return files


def move_study(remote: NodeRemote, title: str, study: str, destination: str) -> tuple[int, int]:
    """Have ``remote`` send a study to the system that it knows as ``destination`` (C-MOVE).

    Returns:
        How many objects arrived there, and how many did not.

    Raises:
        PeerUnreachable: no answer, a refusal, or a destination that the remote does not know.
    """
    from pydicom.dataset import Dataset

    query, sent, failed = Dataset(), 0, 0
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    with associated(remote, title, {_STUDY_MOVE: None}) as association:
        for status, _ in association.send_c_move(query, destination, _STUDY_MOVE):
            if "Status" not in status:
                raise _unreachable(remote, "no answer to C-MOVE")
            if status.Status == _UNKNOWN_DESTINATION:
                cure = f"enter {destination} with its host and port there"
                raise PeerUnreachable(expected(f"a remote that knows {destination}", "one that does not", cure))
            sent = int(status.get("NumberOfCompletedSuboperations") or sent)
            failed = int(status.get("NumberOfFailedSuboperations") or failed)
            if status.Status not in (0, 0xB000, *_PENDING):
                raise _unreachable(remote, f"status {status.Status:04X} for C-MOVE after {sent} objects")
    return sent, failed


def send_files(remote: NodeRemote, title: str, files: Sequence[Path]) -> dict[Path, str]:
    """Send files by C-STORE; return those that were not taken, each with the reason.

    A warning (B000 to BFFF) and 0111 (it is there already) count as taken.

    Raises:
        PeerUnreachable: no association.
    """
    kinds = {path: _kind_of(path) for path in files}
    failed = {path: "no DICOM file" for path, kind in kinds.items() if kind is None}
    wanted: dict[tuple[str, str], list[Path]] = {}
    for path, kind in kinds.items():
        if kind is not None:
            wanted.setdefault(kind, []).append(path)
    pairs = list(wanted)
    for start in range(0, len(pairs), _MAX_CONTEXTS):
        part = pairs[start : start + _MAX_CONTEXTS]
        with associated(remote, title, part) as association:
            for pair in part:
                failed |= {path: why for path in wanted[pair] if (why := _store(association, path))}
    return failed


def report_commitment(remote: NodeRemote, title: str, event_type: int, data: bytes) -> str:
    """Send an N-EVENT-REPORT with the answer to a storage commitment; return why it failed, or nothing.

    ``data``: the event, Implicit VR Little Endian.

    Raises:
        PeerUnreachable: no association.
    """
    from pynetdicom import build_role

    event = read_data_set(data, IMPLICIT)
    options = {"ext_neg": [build_role(COMMITMENT, scu_role=False, scp_role=True)]}
    with associated(remote, title, {COMMITMENT: None}, options) as association:
        status, _ = association.send_n_event_report(event, event_type, COMMITMENT, f"{COMMITMENT}.1")
    if "Status" not in status:
        return "no answer"
    return "" if status.Status == 0 else f"status {status.Status:04X}"


def texts(data: Dataset) -> dict[str, str]:
    """The values of an answer as text, by keyword."""
    with quiet():
        return {element.keyword: printable(str(element.value)) for element in data if element.keyword}


def _store(association: Association, path: Path) -> str:
    from pynetdicom import _config

    _config.STORE_SEND_CHUNKED_DATASET = True  # the bytes of the file, neither parsed nor written anew
    try:
        status = association.send_c_store(path)
    except (ValueError, RuntimeError, OSError, AttributeError) as error:
        return f"{type(error).__name__} before it was sent"
    if "Status" not in status:
        return "no answer"
    code = int(status.Status)
    taken = code in (0, _DUPLICATE) or 0xB000 <= code <= 0xBFFF
    return "" if taken else f"status {code:04X}"


def _kind_of(path: Path) -> tuple[str, str] | None:
    """SOP class and transfer syntax of a file."""
    from pydicom.filereader import read_file_meta_info

    with quiet():
        try:
            meta = read_file_meta_info(path)
            return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
        except Exception:  # pydicom lets many classes escape; whatever it is, this is no file to send
            return None


@contextmanager
def associated(
    remote: NodeRemote,
    title: str,
    contexts: Mapping[str, Sequence[str] | None] | Sequence[tuple[str, str]],
    options: Mapping[str, Any] | None = None,
) -> Iterator[Association]:
    """An association with ``remote`` that is released in the end.

    ``contexts``: abstract syntax -> transfer syntaxes (None: the uncompressed ones), or pairs of the two.

    Raises:
        PeerUnreachable: none.
    """
    from pynetdicom import AE, evt

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what it would say is in our errors
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _TIMEOUT_S
    pairs = contexts.items() if isinstance(contexts, Mapping) else contexts
    for abstract, syntax in pairs:
        given = [syntax] if isinstance(syntax, str) else list(syntax or _uncompressed())
        entity.add_requested_context(abstract, given)
    extra = dict(options or {})
    if remote.tls is not None:
        extra["tls_args"] = (_trusting(remote), remote.host)
    extra["evt_handlers"] = [*extra.get("evt_handlers", ()), (evt.EVT_CONN_OPEN, _without_delay)]
    association = entity.associate(remote.host, remote.port, ae_title=remote.title or "ANY-SCP", **extra)
    if not association.is_established:
        rejected = "it rejected the association" if association.is_rejected else "no association"
        raise _unreachable(remote, rejected)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _without_delay(event: Any) -> None:
    """Send at once: an object goes out as command and data, and the second would wait 40 ms for an acknowledgement."""
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _trusting(remote: NodeRemote) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(remote.tls))
        if remote.tls_certificate is not None:
            context.load_cert_chain(remote.tls_certificate, remote.tls_key)
    except (OSError, ssl.SSLError) as error:
        got = f"{type(error).__name__} at {remote.tls}"
        raise UsageError(expected("certificates in PEM for TLS", got, "check tls, tls_certificate, tls_key")) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _require_success(status: Any, remote: NodeRemote, what: str) -> None:
    if "Status" not in status or status.Status != 0:
        got = f"status {status.Status:04X}" if "Status" in status else "none"
        raise _unreachable(remote, f"{got} where {what} was due")


def _require_keyword(keyword: str) -> None:
    from pydicom.datadict import tag_for_keyword

    if tag_for_keyword(keyword) is None:
        cure = f"use keywords such as {', '.join(FIND_KEYS[:4])}"
        raise UsageError(expected("a DICOM keyword to search by", f"'{keyword}'", cure))


def _unreachable(remote: NodeRemote, got: str) -> PeerUnreachable:
    where = f"{remote.title or 'ANY-SCP'} at {remote.host}:{remote.port}"
    return PeerUnreachable(expected(f"an answer from {where}", got, "check title, host and port on both sides"))


def _uncompressed() -> list[str]:
    from wetread.pacs.classes import UNCOMPRESSED

    return sorted(UNCOMPRESSED)


def _all_syntaxes() -> list[str]:
    from wetread.pacs.classes import TRANSFER_SYNTAXES

    return sorted(TRANSFER_SYNTAXES)
