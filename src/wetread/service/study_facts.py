"""What is known of one study, as facts: for the page, the draft, the questions and the tools of other programs."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service.accounts import Principal
from wetread.service.assistant import Answer, answer
from wetread.service.context import Service
from wetread.service.facts import Fact, facts_of_result, numbered
from wetread.service.problems import Problem
from wetread.service.tables import Result, Study, StudyImage

__all__ = ["answer_about", "cited", "facts_of_study", "limits_of_readers"]

_PRIORS = 5


def facts_of_study(session: Session, who: Principal, study: Study) -> tuple[Fact, ...]:
    """All recorded facts of a study, numbered f1, f2, …; other studies of the patient only as far as ``who`` sees."""
    rows = session.execute(
        select(Result, StudyImage.number)
        .join(StudyImage, StudyImage.id == Result.image_id)
        .where(StudyImage.study_id == study.id)
        .order_by(StudyImage.number, Result.created)
    )
    found: list[Fact] = []
    for result, number in rows:
        found += facts_of_result(result.kind, result.record, f"image {number}", result.id)
    if study.patient_id is not None:
        same = select(Study).where(Study.patient_id == study.patient_id, Study.id != study.id)
        newest = session.scalars(same.order_by(Study.created.desc()).limit(_PRIORS))
        for row in newest:
            if who.sees(row.tray):
                text = f"Another study of this patient: {row.finding or row.status}."
                found.append(Fact(kind="prior", image="", text=text, result=row.id))
    return numbered(found)


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
