"""The page of one study that was read as a whole: its answer, and what each image had to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wetread.reporting.html import render_page
from wetread.types import StudyRead

__all__ = ["render_study"]


def render_study(
    read: StudyRead, pictures: Mapping[str, bytes], *, population: str = "unknown", limits: Sequence[str] = ()
) -> str:
    """Return the page of ``read``; ``pictures``: PNG of each explained image with its heat, by the image's name."""
    counted = [view for view in read.views if view.weights]
    counted.sort(key=lambda view: -max(view.weights.values()))
    return render_page(
        "study.html.j2",
        read=read,
        counted=counted,
        gated=[view for view in read.views if not view.gate.passed],
        pictures=dict(pictures),
        population=population,
        limits=tuple(limits),
        audit_verdict=read.model.audit_verdict,
    )
