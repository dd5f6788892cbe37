"""The page of ``wetread similar``: each film asked about beside the cases most like it, and how they vote.

Facts alone: the page is handed the recorded neighbours and pictures, and never looks into an index.
"""

from __future__ import annotations

from pydantic import AwareDatetime

from wetread.reporting import html
from wetread.reporting.facts import CasePicture, FailedFile
from wetread.retrieval.records import Neighbours
from wetread.types import Box, Record

__all__ = ["SimilarItem", "SimilarReport", "render_similar"]


class SimilarItem(Record):
    """One film asked about: its picture, the part asked about, its neighbours and their pictures (None: not found).

    ``contradictions``: sentences where the neighbours' vote contradicts a classifier.
    """

    film: CasePicture
    neighbours: Neighbours
    pictures: tuple[CasePicture | None, ...]
    region: Box | None = None
    contradictions: tuple[str, ...] = ()


class SimilarReport(Record):
    """All films of one call. ``where``: the condition on the cases as it was typed; ``n_cases`` in the index."""

    title: str
    created: AwareDatetime
    items: tuple[SimilarItem, ...]
    failures: tuple[FailedFile, ...] = ()
    index: str
    n_cases: int
    n_patients: int
    classes: tuple[str, ...]
    task: str
    where: str = ""
    audit_verdict: str = "not audited"
    wetread_version: str


def render_similar(report: SimilarReport) -> str:
    """Return the page: for each film its neighbours, nearest first, with labels, distances and paths."""
    return html.render_page(
        "similar.html.j2",
        report=report,
        extra_style=html.template_source("similar.css"),
        audit_verdict=report.audit_verdict,
    )
