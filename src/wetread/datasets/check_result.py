"""The record of one dataset check: facts only, so that a page can be drawn from it alone.

Severity decides what happens next: ``block`` stops splitting, training and evaluation until it is
mended (exit code 3), ``warn`` wants a person's eye, ``info`` is worth knowing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wetread.types import Record

__all__ = [
    "SEVERITIES",
    "CheckResult",
    "ConformanceRow",
    "CountTable",
    "Example",
    "Finding",
    "Severity",
]

Severity = Literal["block", "warn", "info"]
SEVERITIES: tuple[Severity, ...] = ("block", "warn", "info")
"""From the one that stops everything to the one that is only worth knowing."""


class CountTable(Record):
    """One table of counts. ``rows`` are as long as ``columns``; the first cell names the row.

    ``title`` reads as a caption, e.g. ``images per class and split``.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int, ...], ...]


class Example(Record):
    """Images that show one finding: one path, or the two or more paths that belong together.

    ``paths`` are as in the manifest (relative to the dataset's root). ``detail`` says what was
    measured, e.g. ``pHash distance 2, correlation 0.994``. ``thumbnails`` holds one base64 PNG
    (8-bit grey, longest side at most 128 px) per path, or is empty where none was made.
    """

    paths: tuple[str, ...]
    detail: str = ""
    thumbnails: tuple[str, ...] = ()


class Finding(Record):
    """One thing that is wrong or worth knowing, with how often and what to do.

    ``code`` is stable for machines (``near-duplicates-across-splits``), ``title`` is for people,
    ``count`` counts ``unit`` (``images``, ``groups``, ``patients`` ...), ``examples`` are at most
    a handful of them, ``cure`` says what to do next.
    """

    code: str
    severity: Severity
    title: str
    count: int
    unit: str
    cure: str
    examples: tuple[Example, ...] = ()


class ConformanceRow(Record):
    """One kind of file, and what reading it does to its pixels.

    Files are of one kind when format, bit depth, photometric interpretation, transfer syntax,
    the steps applied and the remarks agree. ``count`` files are of this kind; ``example`` is the
    path of the first. ``status``: ``ok`` reads as intended; ``ambiguous`` could be read in two
    ways, which blocks; ``refused`` cannot be read at all. ``applied`` names the steps in order.
    ``remarks`` says what is ambiguous or why it was refused. ``before_png`` (stored values,
    stretched) and ``after_png`` (what a reader sees) are base64 PNGs of at most 128 px, or None.
    """

    status: Literal["ok", "ambiguous", "refused"]
    format: str
    bits: int | None
    photometric_interpretation: str | None
    transfer_syntax: str | None
    count: int
    example: str
    applied: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    before_png: str | None = None
    after_png: str | None = None


class CheckResult(Record):
    """Everything that ``wetread dataset check`` found about one manifest.

    ``n_patients`` and ``n_studies`` are None where the manifest has no such ids. ``thresholds``
    names every limit that was used, with its value. ``seconds`` per stage of the check.
    """

    schema_version: Literal["1"] = "1"
    dataset: str
    task: str
    classes: tuple[str, ...]
    n_images: int
    n_patients: int | None
    n_studies: int | None
    counts: tuple[CountTable, ...]
    findings: tuple[Finding, ...]
    conformance: tuple[ConformanceRow, ...]
    thresholds: dict[str, float]
    seconds: dict[str, float] = Field(default_factory=dict)
    wetread_version: str

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that stop splitting, training and evaluation."""
        return tuple(f for f in self.findings if f.severity == "block")
