"""What people settled on, as a table of images with labels: the loop from feedback back to training.

Decided here: one row for each image, one column ``label_NAME`` for each finding that anybody judged, 1, 0 or empty;
the newest word on a finding counts; a rejected finding without a correction says only that nobody knows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.datasets.columns import LABEL_PREFIX
from wetread.service.accounts import Principal
from wetread.service.tables import Feedback, Result, Study, StudyImage

__all__ = ["of_seen_studies", "settled_table"]


def of_seen_studies(query: Any, who: Principal) -> Any:
    """Join a selection of feedback with its results, images and studies, those that this user sees."""
    joined = (
        query.select_from(Feedback)
        .join(Result, Result.id == Feedback.result_id)
        .join(StudyImage, StudyImage.id == Result.image_id)
        .join(Study, Study.id == StudyImage.study_id)
    )
    return joined if "*" in who.trays else joined.where(Study.tray.in_(who.trays))


def settled_table(session: Session, who: Principal) -> list[list[str]]:
    """The table, header first. ``path`` is that of the file below the folder ``blobs`` of the service."""
    chosen = select(Feedback, Result, StudyImage, Study).order_by(Feedback.created)
    rows: dict[str, list[str]] = {}
    answers: dict[str, dict[str, str]] = {}
    for feedback, result, image, study in session.execute(of_seen_studies(chosen, who)):
        sha = image.sha256
        rows[sha] = [f"{sha[:2]}/{sha[2:4]}/{sha}", study.patient_id or study.id, study.id, sha]
        answers.setdefault(sha, {})[feedback.label] = _answer(feedback, result)
    labels = sorted({label for given in answers.values() for label in given})
    header = ["path", "patient", "study", "sha256", *(LABEL_PREFIX + label for label in labels)]
    body = [row + [answers[sha].get(label, "") for label in labels] for sha, row in rows.items()]
    return [header, *(row for row in body if any(row[4:]))]


def _answer(feedback: Feedback, result: Result) -> str:
    decided = {one["label"]: one["decision"] for one in result.record["labels"]}
    answer = feedback.corrected or (decided.get(feedback.label) if feedback.action == "accept" else None)
    return {"positive": "1", "negative": "0"}.get(answer or "", "")
