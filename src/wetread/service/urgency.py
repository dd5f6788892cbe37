"""The order of the worklist: how soon a study should be looked at, from its reads.

Decided here: urgency = trust x (1 + p)/2 for a positive finding, trust x p/2 for a negative one, 0 where the answer
is withheld; p is the calibrated probability, trust that of :data:`wetread.service.catalog.TRUST`. Positive studies
thus stand before negative ones of the same reader, and an untrusted reader cannot push a study to the top.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.reporting.facts import most_urgent
from wetread.service.catalog import trust_in
from wetread.service.ingest import search_words
from wetread.service.tables import Result, Study, StudyImage, now
from wetread.types import LabelReading, Read

__all__ = ["note_read", "urgency_of"]

_NORMAL = ("normal", "Normal", "NORMAL", "healthy", "negative", "no finding", "No Finding", "no_finding")


def urgency_of(reading: LabelReading | None, verdict: str) -> float:
    """How soon, 0 to 1."""
    if reading is None or reading.probability is None or reading.decision == "withheld":
        return 0.0
    trust = trust_in(verdict)
    share = (1 + reading.probability) / 2 if reading.decision == "positive" else reading.probability / 2
    return round(trust * share, 6)


def note_read(session: Session, result: Result) -> None:
    """Let a new read raise the urgency of its study; the highest one over all reads counts."""
    read = Read.model_validate(result.record)
    reading = most_urgent((read,), _NORMAL)
    urgency = urgency_of(reading, read.model.audit_verdict)
    study = session.scalars(
        select(Study)
        .join(StudyImage, StudyImage.study_id == Study.id)
        .where(StudyImage.id == result.image_id)
        .with_for_update(of=Study)
    ).one()
    study.changed = now()
    if study.finding is None or urgency > study.urgency:
        study.urgency = urgency
        study.finding = reading.label if reading is not None else "withheld"
        study.decision = reading.decision if reading is not None else "withheld"
        words = (study.patient_id, study.patient_name, study.title, study.modality, study.body_part, study.finding)
        study.search = search_words(*words)
