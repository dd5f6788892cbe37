"""T14, is a claimed win real: the reader against another on the same images, with the word *better* held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.evaluation.compare import compare

if TYPE_CHECKING:
    import pandas as pd

    from wetread.evaluation.result import ComparisonRow, EvaluationSpec

__all__ = ["claim_line"]


def claim_line(
    predictions: pd.DataFrame, other: pd.DataFrame | None, spec: EvaluationSpec, names: tuple[str, str]
) -> AuditLine:
    """Return the line: PASS where a paired interval excludes 0 after Holm, WARN where *better* is refused.

    ``other``: predictions of the reader that this one is said to beat, None where nothing is claimed. ``names``: of
    the other reader and of this one.

    Raises:
        DatasetRefused: the tables hold other images or another truth.
    """
    line = {"code": "T14", "question": QUESTIONS["T14"], "n": len(predictions)}
    if other is None:
        return AuditLine(
            **line,
            answer="NOT ASSESSABLE",
            sentence="No win over another reader is claimed.",
            cure="to claim one, add --against PREDICTIONS of the other reader",
        )
    rows = compare(other, predictions, (spec, spec), names).rows
    better = [row for row in rows if row.verdict == "B better"]
    worse = [row for row in rows if row.verdict == "A better"]
    answer: Answered = "FAIL" if worse else "PASS" if better else "WARN"
    return AuditLine(
        **line,
        answer=answer,
        sentence=_sentence(better, worse, names),
        figures=tuple(
            AuditFigure(what=f"{row.label}: {row.metric} difference", estimate=row.difference) for row in rows
        ),
        notes=("Paired on the same images; p-values after Holm over all rows.",),
    )


def _sentence(better: list[ComparisonRow], worse: list[ComparisonRow], names: tuple[str, str]) -> str:
    other, this = names
    if worse:
        return f"{other} is better in {_listed(worse)}."
    if better:
        return f"{this} is better than {other} in {_listed(better)}."
    return f"It cannot be said that {this} is better than {other}: every interval includes 0."


def _listed(rows: list[ComparisonRow]) -> str:
    return ", ".join(f"{row.metric} of {row.label}" for row in rows)
