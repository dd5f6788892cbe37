"""T13, who is served worse: gaps between subgroups of the predictions, each with its interval."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.evaluation.protocol import evaluate
from wetread.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from wetread.evaluation.result import EvaluationSpec, Subgroup

__all__ = ["COLUMNS", "groups_line"]

COLUMNS = ("sex", "age group", "view", "source")
"""Columns that are looked at where the predictions have them; ages become groups."""

_AGES = (0, 18, 40, 60, 80, 150)
"""Edges of the age groups, years."""


def groups_line(predictions: pd.DataFrame, spec: EvaluationSpec, limits: Thresholds) -> AuditLine:
    """Return the line: every gap of AUROC, sensitivity and specificity of a group to everybody else.

    ``predictions``: a table as :func:`~wetread.evaluation.protocol.evaluate` reads it. A group with fewer than 50
    images or 10 of either class is not assessable; a gap only fails where its interval excludes 0.
    """
    table = _with_age_groups(predictions)
    columns = tuple(name for name in COLUMNS if name in table and table[name].nunique() > 1)
    names = ("t13_gap_pass", "t13_gap_fail")
    line = {"code": "T13", "question": QUESTIONS["T13"], "n": len(table), "thresholds": limits.of(*names)}
    if not columns:
        return AuditLine(
            **line,
            answer="NOT ASSESSABLE",
            sentence="No column tells groups of patients apart.",
            cure=f"add one of the columns {', '.join(COLUMNS)} to the manifest",
        )
    filled = table.assign(**{name: table[name].fillna("unknown").astype(str) for name in columns})
    found = evaluate(filled, spec.model_copy(update={"by": columns})).subgroups
    gaps = [(group, label, metric, gap) for group in found for label, metric, gap in _gaps(group)]
    unclear = [f"{group.column} {group.value}: {group.reason}" for group in found if not group.gaps]
    if not gaps:
        return AuditLine(
            **line,
            answer="NOT ASSESSABLE",
            sentence="No group is large enough to be compared.",
            notes=tuple(unclear),
            cure="audit on more images",
        )
    answer, worst = _judged([gap for *_, gap in gaps], limits)
    group, label, metric, gap = gaps[worst]
    figures = tuple(AuditFigure(what=f"{g.column} {g.value}, {la}: {m} gap", estimate=e) for g, la, m, e in gaps)
    return AuditLine(
        **line,
        answer=answer,
        sentence=_sentence(answer, f"{metric} of {label} for {group.column} {group.value}", gap),
        figures=figures,
        notes=(*unclear, f"{len(gaps)} gaps were looked at: one in twenty excludes 0 by chance alone."),
    )


def _with_age_groups(table: pd.DataFrame) -> pd.DataFrame:
    if "age" not in table or table["age"].isna().all():
        return table
    import pandas as pd

    names = [f"{low} to {high - 1} years" for low, high in pairwise(_AGES)]
    return table.assign(**{"age group": pd.cut(table["age"], _AGES, right=False, labels=names).astype("object")})


def _gaps(group: Subgroup) -> list[tuple[str, str, Estimate]]:
    return [
        (label, metric, gap)
        for label, each in group.gaps.items()
        for metric, gap in each.items()
        if gap.low is not None
    ]


def _judged(gaps: list[Estimate], limits: Thresholds) -> tuple[Answered, int]:
    """The answer, and the place of the gap that gave it."""
    sizes = [abs(gap.value or 0.0) for gap in gaps]
    real = [(gap.low or 0.0) > 0 or (gap.high or 0.0) < 0 for gap in gaps]
    failing = [i for i, size in enumerate(sizes) if real[i] and size > limits.t13_gap_fail]
    warning = [i for i, size in enumerate(sizes) if real[i] and size > limits.t13_gap_pass]
    if failing or warning:
        return ("FAIL" if failing else "WARN"), max(failing or warning, key=sizes.__getitem__)
    return "PASS", max(range(len(gaps)), key=sizes.__getitem__)


def _sentence(answer: str, what: str, gap: Estimate) -> str:
    size = f"{gap.value:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
    if answer == "PASS":
        return f"No group differs from the others for certain; the largest difference is {size} in {what}."
    return f"One group is served differently: {size} in {what}."
