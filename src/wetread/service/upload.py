"""A multipart upload, straight from the network into quarantine: counted, hashed and cut off as it comes.

Decided here: a part's file name is never looked at, because file names tell of patients and content says what a
file is; at most :data:`_FIELD_BYTES` of a plain field are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from wetread.service.blobs import BlobStore, Quarantined
from wetread.service.problems import Problem
from wetread.service.unpack import Limits

__all__ = ["Received", "receive"]

_FIELD_BYTES = 256
_FIELDS = ("tray", "reader")


@dataclass
class Received:
    """The files of an upload, in quarantine, and its plain fields."""

    files: list[Quarantined] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def receive(
    body: AsyncIterator[bytes], content_type: str, store: BlobStore, limits: Limits, stack: contextlib.ExitStack
) -> Received:
    """Read a body of ``multipart/form-data``; what ``stack`` closes empties the quarantine.

    Raises:
        Problem: another content type, a body that is cut short or damaged, too much, too many files.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Problem("bad_request", "expected a body of multipart/form-data", "Send files in fields named 'files'.")
    parts = _Parts(store, limits, stack)
    parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError:
        raise Problem("bad_request", "The upload is damaged or was cut short.", "Send it again.") from None
    if not parts.ended:
        raise Problem("bad_request", "The upload was cut short.", "Send it again.")
    return parts.received


class _Parts:
    """Takes the parser's events."""

    def __init__(self, store: BlobStore, limits: Limits, stack: contextlib.ExitStack) -> None:
        self.received = Received()
        self.ended = False
        self._store, self._limits, self._stack = store, limits, stack
        self._left = limits.total_bytes
        self._header = [b"", b""]
        self._disposition: dict[bytes, bytes] = {}
        self._file: Quarantined | None = None
        self._field = ""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._start,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._header, self._disposition, self._file, self._field = [b"", b""], {}, None, ""

    def _add(self, which: int, data: bytes) -> None:
        self._header[which] += data

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = parse_options_header(self._header[1])[1]
        self._header = [b"", b""]

    def _start(self) -> None:
        name = self._disposition.get(b"name", b"").decode("latin-1")
        if b"filename" not in self._disposition:
            self._field = name if name in _FIELDS else ""
            return
        if len(self.received.files) >= self._limits.files:
            raise Problem("too_large", f"expected at most {self._limits.files} files, got more")
        self._file = self._stack.enter_context(self._store.quarantine(self._left))
        self.received.files.append(self._file)

    def _data(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._left -= len(data)
        elif self._field:
            text = self.received.fields.get(self._field, "") + data.decode("utf-8", "replace")
            self.received.fields[self._field] = text[:_FIELD_BYTES]

    def _part_end(self) -> None:
        self._file = None

    def _end(self) -> None:
        self.ended = True
