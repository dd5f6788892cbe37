"""What is reported of each file and of a run: facts without a word of the patient's.

Decided here: a source file is named by its number in the run and by a keyed token of its content; its own name, which
often holds the patient's, stands in the quarantine list alone, which lies outside the result.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from wetread.deid.options import Options
from wetread.types import Record

__all__ = ["DeidReport", "FileResult", "Region", "Status"]

Status = Literal["written", "quarantined", "skipped"]


class Region(Record):
    """A rectangle that was blacked out in every frame, in pixels; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int


class FileResult(Record):
    """One file. ``output`` is relative to the result; None where nothing was written.

    ``reason``: why it was quarantined or skipped. ``searched``: every frame was searched for text.
    ``lossy_source``: its pixels had been compressed with loss before. ``methods``: codes of CID 7050.
    ``removed``, ``replaced``: attributes; ``scrubbed``: texts that stayed by rule and held a string of the patient.
    """

    number: int
    source: str
    status: Status
    reason: str = ""
    output: str | None = None
    kind: str = ""
    modality: str = ""
    rows: int | None = None
    columns: int | None = None
    frames: int = 0
    searched: bool = False
    regions: tuple[Region, ...] = ()
    pixels_rewritten: bool = False
    lossy_source: bool = False
    removed: int = 0
    replaced: int = 0
    scrubbed: int = 0
    private_kept: int = 0
    methods: tuple[str, ...] = ()


class DeidReport(Record):
    """One run. ``key``: eight characters that tell keys apart; ``already``: files that an earlier run had written."""

    schema_version: Literal["1"] = "1"
    created: datetime
    wetread: str
    key: str
    options: Options
    dry_run: bool
    seconds: float
    files: tuple[FileResult, ...]
    disclaimer: str = "Research use only. A person should look at a sample of the result before it is shared."

    def count(self, status: Status) -> int:
        """How many files ended so."""
        return sum(file.status == status for file in self.files)
