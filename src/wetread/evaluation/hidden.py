"""What a reader makes of images in which one organ is painted over, beside what it makes of whole ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wetread.errors import UsageError, expected
from wetread.evaluation.compare import compare
from wetread.evaluation.result import EvaluationSpec, HiddenLabel, HiddenResult

if TYPE_CHECKING:
    import pandas as pd

    from wetread.models.card import GuideSpec

__all__ = ["compare_hidden", "share_left"]


def compare_hidden(whole: pd.DataFrame, hidden: pd.DataFrame, spec: EvaluationSpec, finder: GuideSpec) -> HiddenResult:
    """Put the AUROC of whole images beside that of the same images without the organ, paired (DeLong).

    ``whole``, ``hidden``: prediction tables of the same reader and images; ``finder`` says what was hidden and by whom.

    Raises:
        UsageError: nothing to compare, because no label is known.
    """
    found = compare(whole, hidden, (spec, spec))
    labels = tuple(
        HiddenLabel(
            label=row.label,
            whole=row.a,
            hidden=row.b,
            difference=row.difference,
            left=share_left(row.a.value, row.b.value),
        )
        for row in found.rows
        if row.metric == "auroc"
    )
    if not labels:
        raise UsageError(expected("images with known labels for --hide", "none", "name another --split"))
    return HiddenResult(
        organ=finder.organ,
        segmenter=finder.segmenter,
        sha256=finder.sha256,
        margin=finder.margin,
        n=found.n,
        patients=found.patients,
        labels=labels,
    )


def share_left(whole: float | None, hidden: float | None) -> float | None:
    """Return (hidden - .5) / (whole - .5); None where there is nothing above chance to begin with."""
    if whole is None or hidden is None or whole <= 0.5:
        return None
    return (hidden - 0.5) / (whole - 0.5)
