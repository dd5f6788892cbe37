"""The bytes of the DICOM Upper Layer (PS3.8 section 9) and of command sets (PS3.7 section 6.3).

Decided here: what a peer may make us read. Every length is checked against a limit before a byte of it
is fetched, nothing is parsed recursively, and whatever does not fit is one error, :class:`WireError`.
pynetdicom's own reader allocates what a PDU claims, up to 4 GiB, so the receiver does not use it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = [
    "ABORT",
    "ASSOCIATE_AC",
    "ASSOCIATE_RJ",
    "ASSOCIATE_RQ",
    "MAX_REQUEST_BYTES",
    "P_DATA",
    "RELEASE_RP",
    "RELEASE_RQ",
    "AssociateRequest",
    "Command",
    "PeerGone",
    "Proposal",
    "WireError",
    "abort_pdu",
    "accept_pdu",
    "command_bytes",
    "data_pdus",
    "parse_associate_request",
    "parse_command",
    "read_exactly",
    "reject_pdu",
    "release_pdu",
]

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

MAX_REQUEST_BYTES = 128 << 10
"""An A-ASSOCIATE-RQ with 128 contexts (the most there can be) of 38 transfer syntaxes each is near 250 KiB, but what
real peers send is below 30 KiB."""

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION_CLASS = b"2.25.302498158263105127352217409413517420921"
_MAX_CONTEXTS = 128
_AE_BYTES = 16
_UID_BYTES = 64

_UI = (0x0002, 0x0003, 0x1000, 0x1001)
_US = (0x0100, 0x0110, 0x0120, 0x0600, 0x0700, 0x0800, 0x0900, 0x1002, 0x1008)
_COMMENT = 0x0902
_SIZE = 0x0000


class WireError(Exception):
    """Bytes that are no DICOM Upper Layer, or more of them than is allowed."""


class PeerGone(Exception):
    """The peer closed the connection, or was silent for too long."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One presentation context as proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """What an A-ASSOCIATE-RQ asks for. ``max_pdu_bytes`` is the largest P-DATA the peer takes; 0 means any."""

    called: str
    calling: str
    proposals: tuple[Proposal, ...]
    max_pdu_bytes: int
    roles: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """A command set (group 0000): element number -> raw value."""

    elements: Mapping[int, bytes]

    def number(self, element: int) -> int:
        """The unsigned short of ``element``; :class:`WireError` where there is none."""
        raw = self.elements.get(element, b"")
        if len(raw) != 2:
            raise WireError(f"no number in (0000,{element:04X})")
        return int(struct.unpack("<H", raw)[0])

    def text(self, element: int) -> str:
        """The text of ``element`` without padding; bytes that are not ASCII become question marks."""
        raw = self.elements.get(element, b"")
        return raw.rstrip(b"\0 ").decode("ascii", "replace").replace("\ufffd", "?")

    @property
    def field(self) -> int:
        """Command Field (0000,0100)."""
        return self.number(0x0100)

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110)."""
        return self.number(0x0110)

    @property
    def has_data(self) -> bool:
        """Whether a data set follows (0000,0800)."""
        return self.number(0x0800) != 0x0101


def read_exactly(connection: socket.socket, into: memoryview, deadline: float) -> None:
    """Fill ``into`` from the connection until ``deadline`` (:func:`time.monotonic`).

    Raises:
        PeerGone: closed, reset or too slow.
    """
    done = 0
    while done < len(into):
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerGone("too slow")
        connection.settimeout(left)
        try:
            got = connection.recv_into(into[done:])
        except OSError as error:
            raise PeerGone(type(error).__name__) from None
        if got == 0:
            raise PeerGone("closed")
        done += got


def parse_associate_request(body: bytes) -> AssociateRequest:
    """Parse the body of an A-ASSOCIATE-RQ (what follows the six bytes of PDU type and length)."""
    if len(body) < 68:
        raise WireError("a short A-ASSOCIATE-RQ")
    called, calling = (_ae(body[start : start + _AE_BYTES]) for start in (4, 20))
    proposals: list[Proposal] = []
    user: list[tuple[int, bytes]] = []
    for kind, item in _items(body[68:]):
        if kind == 0x20:
            proposals.append(_proposal(item))
        elif kind == 0x50:
            user.extend(_items(item))
        if len(proposals) > _MAX_CONTEXTS:
            raise WireError("more than 128 presentation contexts")
    lengths = [struct.unpack(">I", item)[0] for kind, item in user if kind == 0x51 and len(item) == 4]
    roles = dict(_role(item) for kind, item in user if kind == 0x54)
    return AssociateRequest(called, calling, tuple(proposals), lengths[0] if lengths else 0, roles)


def accept_pdu(
    request: AssociateRequest, answers: Mapping[int, tuple[int, str]], max_pdu_bytes: int, version: str
) -> bytes:
    """An A-ASSOCIATE-AC. ``answers``: context id -> (result, transfer syntax)."""
    items = _item(0x10, _APPLICATION_CONTEXT)
    for number, (result, syntax) in answers.items():
        items += _item(0x21, bytes((number, 0, result, 0)) + _item(0x40, syntax.encode("ascii")))
    user = _item(0x51, struct.pack(">I", max_pdu_bytes)) + _item(0x52, _IMPLEMENTATION_CLASS)
    for uid, (scu, scp) in request.roles.items():
        user += _item(0x54, struct.pack(">H", len(uid)) + uid.encode("ascii") + bytes((scu, scp)))
    user += _item(0x55, version.encode("ascii")[:_AE_BYTES])
    titles = request.called.ljust(_AE_BYTES).encode("ascii") + request.calling.ljust(_AE_BYTES).encode("ascii")
    return _pdu(ASSOCIATE_AC, struct.pack(">HH", 1, 0) + titles + bytes(32) + items + _item(0x50, user))


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return _pdu(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def release_pdu(kind: int) -> bytes:
    """An A-RELEASE-RQ or A-RELEASE-RP."""
    return _pdu(kind, bytes(4))


def abort_pdu(source: int = 2, reason: int = 0) -> bytes:
    """An A-ABORT; source 2 is the service provider (PS3.8 table 9-26)."""
    return _pdu(ABORT, bytes((0, 0, source, reason)))


def parse_command(data: bytes) -> Command:
    """Parse a command set, which always is Implicit VR Little Endian."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise WireError("a command set that ends in a tag")
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise WireError("a command set that is none")
        elements[element] = data[at : at + length]
        at += length
    return Command(elements)


def command_bytes(values: Mapping[int, int | str]) -> bytes:
    """Encode a command set; the group length is added."""
    body = b"".join(_element(element, values[element]) for element in sorted(values))
    return struct.pack("<HHII", 0, _SIZE, 4, len(body)) + body


def data_pdus(context_id: int, data: bytes, max_pdu_bytes: int, *, command: bool) -> Iterator[bytes]:
    """P-DATA-TF PDUs of one PDV each, none with more than ``max_pdu_bytes`` after its head."""
    room = max(1, (max_pdu_bytes or 1 << 16) - 6)
    starts = range(0, max(1, len(data)), room)
    for start in starts:
        part = data[start : start + room]
        flags = int(command) | (2 if start == starts[-1] else 0)
        yield _pdu(P_DATA, struct.pack(">IBB", len(part) + 2, context_id, flags) + part)


def _element(element: int, value: int | str) -> bytes:
    if isinstance(value, int):
        raw = struct.pack("<H", value)
    else:
        raw = value.encode("ascii", "replace")
        raw += (b"\0" if element in _UI else b" ") * (len(raw) % 2)
    return struct.pack("<HHI", 0, element, len(raw)) + raw


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise WireError("an item that ends in its head")
        kind, _, length = struct.unpack_from(">BBH", data, at)
        at += 4
        if at + length > len(data):
            raise WireError("an item longer than what holds it")
        yield kind, data[at : at + length]
        at += length


def _proposal(item: bytes) -> Proposal:
    if len(item) < 4 or item[0] % 2 == 0:
        raise WireError("a presentation context without an odd id")
    abstract, syntaxes = "", []
    for kind, value in _items(item[4:]):
        if kind == 0x30:
            abstract = _uid(value)
        elif kind == 0x40:
            syntaxes.append(_uid(value))
    return Proposal(item[0], abstract, tuple(syntaxes))


def _role(item: bytes) -> tuple[str, tuple[int, int]]:
    length = struct.unpack_from(">H", item)[0] if len(item) >= 4 else 0
    if not length or len(item) != length + 4:
        raise WireError("a role selection that is none")
    return _uid(item[2 : 2 + length]), (item[-2] & 1, item[-1] & 1)


def _uid(raw: bytes) -> str:
    text = raw.rstrip(b"\0 ").decode("ascii", "replace")
    if len(text) > _UID_BYTES or not text.isascii():
        raise WireError("a UID that is none")
    return text


def _ae(raw: bytes) -> str:
    text = raw.decode("ascii", "replace").strip(" \0")
    if not text or not text.isascii() or not text.isprintable() or "\\" in text:
        raise WireError("an AE title that is none")
    return text
