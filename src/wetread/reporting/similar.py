"""The page of ``wetread similar``: each film asked about beside the cases most like it, and how they vote.

Facts alone: the page is handed the recorded neighbours and pictures, and never looks into an index.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import AwareDatetime, field_validator

from wetread.datasets.columns import NEGATIVE_WORDS
from wetread.reporting import html
from wetread.reporting.facts import FailedFile, picture_type
from wetread.retrieval.records import Neighbour, Neighbours
from wetread.types import Box, Record

__all__ = ["CasePicture", "SimilarItem", "SimilarReport", "render_similar"]

_UNKNOWN = "label unknown"
_NONE = "none of the labels"


class CasePicture(Record):
    """A small picture of one film: PNG or JPEG bytes, with the ``rows`` and ``columns`` of the original."""

    data: bytes
    rows: int
    columns: int

    @field_validator("data")
    @classmethod
    def _a_picture(cls, value: bytes) -> bytes:
        picture_type(value)
        return value


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


@dataclass(frozen=True, slots=True)
class _Tag:
    """A label as a pill shows it: ``tone`` is positive, negative, info or withheld."""

    text: str
    tone: str


def render_similar(report: SimilarReport) -> str:
    """Return the page: for each film its neighbours, nearest first, with labels, distances and paths."""
    return html.render_page(
        "similar.html.j2",
        report=report,
        tags={one.path: _tags(one, report) for item in report.items for one in item.neighbours.neighbours},
        words=_distance_words,
        extra_style=html.template_source("similar.css"),
        audit_verdict=report.audit_verdict,
    )


def _tags(case: Neighbour, report: SimilarReport) -> list[_Tag]:
    if case.labels is None:
        return [_Tag(_UNKNOWN, "withheld")]
    if not case.labels:
        return [_Tag(_NONE, "negative")]
    return [_Tag(label, _tone(label, report)) for label in case.labels]


def _tone(label: str, report: SimilarReport) -> str:
    """Two classes are positive and negative; of several only what means *nothing found* is negative."""
    if report.task == "binary" and report.classes:
        return "negative" if label == report.classes[0] else "positive"
    quiet = label.strip().lower().replace(" ", "_").replace("-", "_") in NEGATIVE_WORDS
    return "negative" if quiet else "info"


def _distance_words(distance: float) -> str:
    """Three decimals, and never 0 for two films that are only very alike."""
    return "<\N{NARROW NO-BREAK SPACE}0.001" if 0 < distance < 0.0005 else f"{distance:.3f}"
