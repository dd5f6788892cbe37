"""The page of one study that was read as a whole: its answer, and what each image had to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wetread.reporting.facts import CasePicture
from wetread.reporting.html import render_page, template_source
from wetread.types import StudyRead

__all__ = ["render_study"]


def render_study(
    read: StudyRead,
    pictures: Mapping[str, bytes],
    *,
    population: str = "unknown",
    limits: Sequence[str] = (),
    cases: Sequence[CasePicture | None] = (),
    whole: Mapping[str, bytes] | None = None,
) -> str:
    """Return the page of ``read``.

    ``pictures``: PNG of each explained image with its heat, by the image's name. ``cases``: a picture for each similar
    study, None where its file is not where it was. ``whole``: label -> PNG of the weights of tiles over their image.
    """
    counted = [view for view in read.views if view.weights]
    counted.sort(key=lambda view: -max(view.weights.values()))

    def weight_of(label: str) -> float:
        return max(view.weights[label] for view in counted)

    return render_page(
        "study.html.j2",
        read=read,
        counted=counted,
        shown=[view for view in counted if view.image.name in pictures],
        quiet=[view for view in counted if view.image.name not in pictures],
        gated=[view for view in read.views if not view.gate.passed],
        weight_of=weight_of,
        pictures=dict(pictures),
        population=population,
        limits=tuple(limits),
        cases=tuple(cases),
        whole=dict(whole or {}),
        extra_style="\n".join(template_source(name) for name in ("similar.css", "study.css")),
        audit_verdict=read.model.audit_verdict,
    )
