"""One association with a sender: negotiation, C-ECHO, C-STORE, N-ACTION, and every limit on them.

Decided here: the statuses. An object is answered with 0000 only after :meth:`ObjectStore.keep`; A700 for
anything that the disk did; A900 for UIDs that are none or do not match; C000 for a header that cannot be read;
B000 where another version of the instance was kept, 0111 where it was refused. A peer that breaks the protocol
or its limits gets an A-ABORT.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from wetread.errors import ImageRefused, WetreadError
from wetread.pacs import wire
from wetread.pacs.header import ObjectHeader, object_header
from wetread.pacs.store import DiskReserve, Incoming, ObjectStore, Outcome, Part
from wetread.pacs.wire import Command, PeerGone, WireError

__all__ = ["Answerer", "Association", "Limits", "Policy"]

_LOG = logging.getLogger("wetread.pacs")

_VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
_C_STORE_RQ, _C_ECHO_RQ, _N_ACTION_RQ, _N_EVENT_RQ, _RESPONSE = 0x0001, 0x0030, 0x0130, 0x0100, 0x8000
_NO_DATA, _DATA = 0x0101, 0x0001
_MAX_COMMAND_BYTES = 16 << 10
_MAX_ACTION_BYTES = 8 << 20
_MAX_OTHER_PDU_BYTES = 1024
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_SUCCESS, _DISK, _MISMATCH, _UNREADABLE, _OTHER_KEPT, _OTHER_REFUSED = 0x0000, 0xA700, 0xA900, 0xC000, 0xB000, 0x0111
_OUTCOMES: dict[Outcome, tuple[int, str]] = {
    "stored": (_SUCCESS, ""),
    "same": (_SUCCESS, ""),
    "other kept": (_OTHER_KEPT, "another version of this instance is kept too"),
    "other refused": (_OTHER_REFUSED, "this instance is known with other content"),
}
_VERSION = "WETREAD"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may use. Times in seconds, sizes in bytes.

    ``evictable_s``: so long an association must have been idle to give way to another when there are too many.
    """

    pdu_bytes: int = 128 << 10
    object_bytes: int = 4 << 30
    handshake_s: float = 5.0
    pdu_s: float = 30.0
    idle_s: float = 60.0
    associations: int = 100
    per_address: int = 80
    half_open_per_address: int = 16
    evictable_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call. ``callers`` None: anyone; a title to None or to the addresses it may come from."""

    title: str
    any_called: bool = False
    callers: dict[str, tuple[str, ...]] | None = None

    def rejects(self, called: str, calling: str, address: str) -> tuple[int, int, int] | None:
        """Result, source and reason of a rejection (PS3.8 table 9-21), None where the peer may come in."""
        if called != self.title and not self.any_called:
            return 1, 1, 7
        if self.callers is None:
            return None
        places = self.callers.get(calling)
        return None if places is not None and (not places or address in places) else (1, 1, 3)


class Answerer(Protocol):
    """What answers a request for storage commitment."""

    def request(self, calling: str, data: bytes, transfer_syntax: str) -> tuple[int, tuple[int, bytes] | None]:
        """Return the status, and the event (type id, data set) to report on this association, if any."""


@dataclass(slots=True)
class _Message:
    """A message whose data set is still coming."""

    command: Command
    context_id: int
    part: Part | None = None
    data: bytearray | None = None
    status: int = _SUCCESS
    comment: str = ""
    received: int = 0


class Association:
    """One connection, served until it ends. ``state`` is read by the server's eviction."""

    def __init__(
        self, connection: socket.socket, address: str, store: ObjectStore, policy: Policy, limits: Limits
    ) -> None:
        self.connection = connection
        self.address = address
        self.state: Literal["opening", "idle", "busy"] = "opening"
        self.since = time.monotonic()
        self._store, self._policy, self._limits = store, policy, limits
        self._contexts: dict[int, tuple[str, str]] = {}
        self._request = wire.AssociateRequest("", "", (), 0)
        self._accepted = False
        self._buffer = bytearray(256)
        self._command = bytearray()
        self._message: _Message | None = None
        self._event_id = 0

    def serve(self, admit: Callable[[], bool], answerer: Answerer | None = None) -> None:
        """Run to the end; never raises for what a peer does. ``admit`` says whether there is room for one more."""
        try:
            self._open(admit, answerer is not None)
            while self._accepted and self._next(answerer):
                pass
        except PeerGone:
            pass
        except WireError as error:
            _LOG.warning("aborted %s: %s", self.address, error)
            self._send_quietly(wire.abort_pdu(2, 6))
        except Exception as error:  # one peer must never take the node down
            _LOG.error("aborted %s: unexpected %s", self.address, type(error).__name__)
            self._send_quietly(wire.abort_pdu(2, 0))
        finally:
            if self._message is not None and self._message.part is not None:
                self._message.part.discard()

    def _open(self, admit: Callable[[], bool], commitment: bool) -> None:
        kind, body = self._read_pdu(time.monotonic() + self._limits.handshake_s)
        if kind != wire.ASSOCIATE_RQ:
            raise WireError("something else than an A-ASSOCIATE-RQ")
        request = wire.parse_associate_request(bytes(body))
        rejected = self._policy.rejects(request.called, request.calling, self.address)
        if rejected is None and not admit():
            rejected = (2, 3, 2)
        if rejected is not None:
            _LOG.warning("rejected %s from %s: %s", request.calling, self.address, rejected)
            if rejected[0] == 1:  # on record before the peer hears of it
                detail = {"calling": request.calling, "called": request.called, "address": self.address}
                self._store.ledger.write(lambda change: change.event("association rejected", **detail))
            self._send(wire.reject_pdu(*rejected))
            return
        answers = {}
        for proposal in request.proposals:
            syntax = _chosen(proposal, commitment)
            answers[proposal.context_id] = (0 if syntax else 3, syntax or _any_syntax(proposal))
            if syntax:
                self._contexts[proposal.context_id] = (proposal.abstract_syntax, syntax)
        self.state, self.since = "idle", time.monotonic()  # it counts from now on
        self._send(wire.accept_pdu(request, answers, self._limits.pdu_bytes, _VERSION))
        self._request, self._accepted = request, True

    def _next(self, answerer: Answerer | None) -> bool:
        """Take one PDU; False when the association is over."""
        within = self._message is not None or self._command
        self.state, self.since = ("busy" if within else "idle"), time.monotonic()
        kind, body = self._read_pdu(self.since + (self._limits.pdu_s if within else self._limits.idle_s))
        if kind == wire.P_DATA:
            self.state = "busy"
            self._take(body, answerer)
            return True
        if kind == wire.RELEASE_RQ:
            self._send_quietly(wire.release_pdu(wire.RELEASE_RP))
            return False
        if kind == wire.ABORT:
            return False
        raise WireError(f"PDU type {kind} where data or a release belongs")

    def _read_pdu(self, deadline: float) -> tuple[int, memoryview]:
        head = memoryview(self._buffer)[:6]
        wire.read_exactly(self.connection, head, deadline)
        kind, length = head[0], int.from_bytes(head[2:6], "big")
        most = {wire.P_DATA: self._limits.pdu_bytes, wire.ASSOCIATE_RQ: wire.MAX_REQUEST_BYTES}
        if not 1 <= kind <= 7 or length > most.get(kind, _MAX_OTHER_PDU_BYTES):
            raise WireError(f"PDU type {kind} of {length} bytes")
        if kind == wire.P_DATA and not self._accepted:
            raise WireError("data before an association")
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        wire.read_exactly(self.connection, body, max(deadline, time.monotonic() + self._limits.handshake_s))
        return kind, body

    def _take(self, body: memoryview, answerer: Answerer | None) -> None:
        at = 0
        while at < len(body):
            length = int.from_bytes(body[at : at + 4], "big")
            if length < 2 or at + 4 + length > len(body):
                raise WireError("a PDV longer than its PDU")
            context_id, flags = body[at + 4], body[at + 5]
            if context_id not in self._contexts:
                raise WireError("a presentation context that was not accepted")
            data = body[at + 6 : at + 4 + length]
            if flags & 1:
                self._take_command(context_id, data, last=bool(flags & 2))
            else:
                self._take_data(context_id, data, last=bool(flags & 2), answerer=answerer)
            at += 4 + length

    def _take_command(self, context_id: int, data: memoryview, *, last: bool) -> None:
        if self._message is not None or len(self._command) + len(data) > _MAX_COMMAND_BYTES:
            raise WireError("a command inside a data set, or one too long")
        self._command += data
        if not last:
            return
        command = wire.parse_command(bytes(self._command))
        self._command.clear()
        kind = command.field
        if kind == _C_ECHO_RQ and not command.has_data:
            self._respond(_Message(command, context_id))
        elif kind == _C_STORE_RQ and command.has_data:
            self._message = self._begin_object(command, context_id)
        elif command.has_data and (kind == _N_ACTION_RQ or kind & _RESPONSE):
            self._message = _Message(command, context_id, data=bytearray())
        elif not kind & _RESPONSE:  # a response to our event needs no answer
            raise WireError(f"command {kind:04X}, which is not served")

    def _begin_object(self, command: Command, context_id: int) -> _Message:
        message = _Message(command, context_id)
        abstract, syntax = self._contexts[context_id]
        sop_class, instance = command.text(0x0002), command.text(0x1000)
        if not (_is_uid(sop_class) and _is_uid(instance)) or abstract in (_VERIFICATION, COMMITMENT):
            message.status, message.comment = _MISMATCH, "no valid UID or not a storage context"
            return message
        title = (self._request.calling, self._request.called)
        try:
            message.part = self._store.begin(Incoming(sop_class, instance, syntax, *title, self.address))
        except (DiskReserve, OSError):
            message.status, message.comment = _DISK, "out of resources"
        return message

    def _take_data(self, context_id: int, data: memoryview, *, last: bool, answerer: Answerer | None) -> None:
        message = self._message
        if message is None or message.context_id != context_id:
            raise WireError("data without a command")
        message.received += len(data)
        if message.data is not None:
            if message.received > _MAX_ACTION_BYTES:
                raise WireError("a data set too long for its command")
            message.data += data
        else:
            self._write(message, data)
        if not last:
            return
        self._message = None
        if message.command.field & _RESPONSE:
            return
        if message.data is not None:
            self._act(message, bytes(message.data), answerer)
        else:
            self._finish_object(message)
            self._respond(message)

    def _write(self, message: _Message, data: memoryview) -> None:
        if message.received > self._limits.object_bytes:
            if message.received > 2 * self._limits.object_bytes:
                raise WireError("an object without end")
            self._give_up(message, "larger than this node takes")
        if message.part is None:
            return
        try:
            message.part.write(data)
        except (DiskReserve, OSError):
            self._give_up(message, "out of resources")

    def _give_up(self, message: _Message, comment: str) -> None:
        if message.part is not None:
            message.part.discard()
            message.part = None
            message.status, message.comment = _DISK, comment

    def _finish_object(self, message: _Message) -> None:
        part = message.part
        if part is None:
            return
        try:
            header = object_header(part.path, part.offset, part.incoming.transfer_syntax)
            wrong = _mismatch(part.incoming, header)
            if wrong:
                message.status, message.comment = _MISMATCH, wrong
                return
            message.status, message.comment = _OUTCOMES[self._store.keep(part, header)]
        except ImageRefused:
            message.status, message.comment = _UNREADABLE, "the header cannot be read"
        except (OSError, WetreadError):
            message.status, message.comment = _DISK, "out of resources"
        finally:
            part.discard()

    def _act(self, message: _Message, data: bytes, answerer: Answerer | None) -> None:
        abstract, syntax = self._contexts[message.context_id]
        event = None
        if answerer is None or abstract != COMMITMENT:
            message.status = 0x0112
        else:
            message.status, event = answerer.request(self._request.calling, data, syntax)
        self._respond(message)
        if event is not None:
            self._report(message.context_id, *event)

    def _report(self, context_id: int, event_type: int, data: bytes) -> None:
        """Send an N-EVENT-REPORT-RQ on this association; its response is taken by the loop."""
        self._event_id += 1
        values: dict[int, int | str] = {0x0002: COMMITMENT, 0x0100: _N_EVENT_RQ, 0x0110: self._event_id, 0x0800: _DATA}
        values |= {0x1000: f"{COMMITMENT}.1", 0x1002: event_type}
        most = self._request.max_pdu_bytes
        for pdu in wire.data_pdus(context_id, wire.command_bytes(values), most, command=True):
            self._send(pdu)
        for pdu in wire.data_pdus(context_id, data, most, command=False):
            self._send(pdu)

    def _respond(self, message: _Message) -> None:
        command = message.command
        values: dict[int, int | str] = {
            0x0100: command.field | _RESPONSE,
            0x0120: command.message_id,
            0x0800: _NO_DATA,
            0x0900: message.status,
        }
        for asked, answered in ((0x0002, 0x0002), (0x0003, 0x0002), (0x1000, 0x1000), (0x1001, 0x1000)):
            if command.text(asked):
                values[answered] = command.text(asked)
        if command.field == _N_ACTION_RQ:
            values[0x1008] = command.number(0x1008)
        if message.comment:
            values[0x0902] = message.comment
        for pdu in wire.data_pdus(
            message.context_id, wire.command_bytes(values), self._request.max_pdu_bytes, command=True
        ):
            self._send(pdu)
        self._store.step("answered")

    def _send(self, data: bytes) -> None:
        self.connection.settimeout(self._limits.pdu_s)
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise PeerGone(type(error).__name__) from None

    def _send_quietly(self, data: bytes) -> None:
        try:
            self._send(data)
        except PeerGone:
            return


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _mismatch(incoming: Incoming, header: ObjectHeader) -> str:
    if header.sop_instance != incoming.sop_instance or header.sop_class != incoming.sop_class:
        return "the data set is of another class or instance"
    if not (_is_uid(header.study) and _is_uid(header.series)):
        return "no valid study or series UID"
    return ""


def _chosen(proposal: wire.Proposal, commitment: bool) -> str | None:
    """The first proposed transfer syntax that is known, where the class is served."""
    from wetread.pacs.classes import STORAGE_CLASSES, TRANSFER_SYNTAXES, UNCOMPRESSED

    if proposal.abstract_syntax in STORAGE_CLASSES:
        known = TRANSFER_SYNTAXES
    elif proposal.abstract_syntax == _VERIFICATION or (commitment and proposal.abstract_syntax == COMMITMENT):
        known = UNCOMPRESSED
    else:
        return None
    return next((syntax for syntax in proposal.transfer_syntaxes if syntax in known), None)


def _any_syntax(proposal: wire.Proposal) -> str:
    """What stands in the answer to a rejected context, where it means nothing (PS3.8 table 9-18)."""
    return proposal.transfer_syntaxes[0] if proposal.transfer_syntaxes else "1.2.840.10008.1.2"
