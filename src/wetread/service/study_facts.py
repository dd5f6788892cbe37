"""What is known of one study, as facts: for the page, the draft, the questions and the tools of other programs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service.accounts import Principal
from wetread.service.assistant import Answer, answer
from wetread.service.context import Service
from wetread.service.facts import Fact, facts_of_result, numbered
from wetread.service.problems import Problem
from wetread.service.tables import Result, Study, StudyImage

__all__ = ["answer_about", "cited", "days_between", "facts_of_study", "limits_of_readers"]

_PRIORS = 5


def facts_of_study(session: Session, who: Principal, study: Study) -> tuple[Fact, ...]:
    """All recorded facts of a study, numbered f1, f2, …; other studies of the patient only as far as ``who`` sees."""
    rows = session.execute(
        select(Result, StudyImage.number, StudyImage.facts)
        .join(StudyImage, StudyImage.id == Result.image_id)
        .where(StudyImage.study_id == study.id)
        .order_by(StudyImage.number, StudyImage.created, Result.created)
    )
    found: list[Fact] = []
    for result, number, about in rows:
        place = f"image {number}, frame {about['frame']}" if "frame" in about else f"image {number}"
        found += facts_of_result(result.kind, result.record, place, result.id)
    return numbered([*found, *_priors(session, who, study)])


def days_between(earlier: str | None, later: str | None) -> int | None:
    """Days from one date of DICOM (DA, YYYYMMDD) to another, negative backwards; None where one is missing or wrong."""
    try:
        first, second = (datetime.strptime(text or "", "%Y%m%d").date() for text in (earlier, later))
    except ValueError:
        return None
    return (second - first).days


def _priors(session: Session, who: Principal, study: Study) -> list[Fact]:
    """Other studies of the patient, as far as ``who`` sees: how long before or after, and what was found.

    The interval is told and no date: facts leave the service, and a date points at a person.
    """
    if study.patient_id is None:
        return []
    same = select(Study).where(Study.patient_id == study.patient_id, Study.id != study.id)
    newest = session.scalars(same.order_by(Study.study_date.desc(), Study.created.desc()).limit(_PRIORS)).all()
    return [
        Fact(kind="prior", image="", text=f"{_when(row, study)}: {_found(session, row)}", result=row.id)
        for row in newest
        if who.sees(row.tray)
    ]


def _when(row: Study, study: Study) -> str:
    days = days_between(row.study_date, study.study_date)
    if days is None:
        return "Another study of this patient, at an unknown interval"
    if days == 0:
        return "Another study of this patient of the same day"
    return f"Another study of this patient, {abs(days)} {'day' if abs(days) == 1 else 'days'} " + (
        "earlier" if days > 0 else "later"
    )


def _found(session: Session, row: Study) -> str:
    """The findings of the newest read of each image, in one sentence."""
    chosen = select(Result).join(StudyImage, StudyImage.id == Result.image_id).order_by(Result.created)
    reads = {
        one.image_id: one for one in session.scalars(chosen.where(StudyImage.study_id == row.id, Result.kind == "read"))
    }
    told = []
    for read in list(reads.values())[:_PRIORS]:
        facts = facts_of_result("read", read.record, "")
        told += [fact.text.rstrip(".") for fact in facts if fact.kind in ("finding", "gate")]
    return ("; ".join(told) or row.status) + "."


def limits_of_readers(service: Service, session: Session, study: Study) -> tuple[Fact, ...]:
    """What the cards and audits of the readers of this study say against them, numbered mf1, mf2 and so on."""
    chosen = select(Result.reader).join(StudyImage, StudyImage.id == Result.image_id)
    names = session.scalars(chosen.where(StudyImage.study_id == study.id, Result.kind == "read").distinct())
    facts: list[Fact] = []
    for name in sorted(names):
        try:
            entry = service.catalog.find(name)
        except Problem:
            continue
        card = entry.card
        facts.append(Fact(kind="audit", image="", text=f"{card.name}, audit: {card.audit_verdict}."))
        facts += [Fact(kind="limit", image="", text=f"{card.name}: {limit}") for limit in card.limits]
        lines = (entry.audit or {}).get("lines", [])
        facts += [
            Fact(kind="audit", image="", text=f"{line['code']} {line['answer']}: {line['sentence']}")
            for line in lines
            if line["answer"] in ("FAIL", "WARN")
        ]
    return tuple(fact.model_copy(update={"id": f"m{fact.id}"}) for fact in numbered(facts))


def answer_about(
    service: Service, session: Session, who: Principal, study: Study, question: str
) -> tuple[Answer, tuple[Fact, ...]]:
    """Answer a question about a study; return the answer and all facts that it was made from."""
    known, limits = facts_of_study(session, who, study), limits_of_readers(service, session, study)
    return answer(question, known, limits), (*known, *limits)


def cited(found: Answer, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """The facts behind the phrases of an answer."""
    ids = {identifier for phrase in found.phrases for identifier in phrase.facts}
    return tuple(fact for fact in facts if fact.id in ids)
