"""Facts of a study, the draft report made of them, and questions about it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service import audit_log
from wetread.service.access import Annotator, Here, Reader, actor, own_draft, seen_study
from wetread.service.accounts import Principal
from wetread.service.assistant import answer
from wetread.service.context import Service
from wetread.service.facts import Fact, draft_of, facts_of_result, numbered
from wetread.service.problems import Problem
from wetread.service.schemas import AnswerOut, Ask, DraftBody, DraftOut, FactOut, PhraseOut
from wetread.service.tables import Draft, Result, Study, StudyImage, now

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["reports"])
Id = Annotated[str, Path(max_length=32)]


@router.get("/studies/{study_id}/facts")
def facts(study_id: Id, service: Here, who: Reader) -> list[FactOut]:
    """All recorded facts of a study, without patient data."""
    with service.database.read() as session:
        return _out(_facts(session, who, seen_study(session, who, study_id)))


@router.get("/studies/{study_id}/draft")
def draft(study_id: Id, service: Here, who: Annotator) -> DraftOut:
    """Your draft report of a study; made from its facts when you first ask."""
    with service.database.write() as session:
        study = seen_study(session, who, study_id)
        row = own_draft(session, who, study.id) or _new_draft(session, who, study)
        return _draft(row)


@router.put("/studies/{study_id}/draft")
def save_draft(study_id: Id, body: DraftBody, service: Here, who: Annotator, request: Request) -> DraftOut:
    """Save your text; refused where the draft changed meanwhile in another window."""
    with service.database.write() as session:
        row = _open_draft(session, who, study_id)
        if row.revision != body.revision:
            raise Problem("conflict", f"The draft is at revision {row.revision}, not {body.revision}.")
        row.text, row.revision, row.changed = body.text, row.revision + 1, now()
        audit_log.append(session, actor(request, who), "edit draft", row.id, {"revision": row.revision})
        return _draft(row)


@router.post("/studies/{study_id}/draft/renew")
def renew_draft(study_id: Id, service: Here, who: Annotator, request: Request) -> DraftOut:
    """Make the machine's phrases again from the facts of now; your own text is replaced by them."""
    with service.database.write() as session:
        row = _open_draft(session, who, study_id)
        _fill(row, _facts(session, who, seen_study(session, who, study_id)))
        row.revision += 1
        audit_log.append(session, actor(request, who), "renew draft", row.id)
        return _draft(row)


@router.post("/studies/{study_id}/draft/sign")
def sign_draft(study_id: Id, body: DraftBody, service: Here, who: Annotator, request: Request) -> DraftOut:
    """Sign the text as your own; a signed report is not changed any more."""
    with service.database.write() as session:
        row = _open_draft(session, who, study_id)
        if row.revision != body.revision:
            raise Problem("conflict", f"The draft is at revision {row.revision}, not {body.revision}.")
        row.text, row.revision, row.signed = body.text, row.revision + 1, now()
        audit_log.append(session, actor(request, who), "sign draft", row.id, {"revision": row.revision})
        return _draft(row)


@router.post("/studies/{study_id}/ask")
def ask(study_id: Id, body: Ask, service: Here, who: Reader, request: Request) -> AnswerOut:
    """Ask about the study; the answer is made of recorded facts alone, and each phrase cites them."""
    with service.database.write() as session:
        study = seen_study(session, who, study_id)
        known = _facts(session, who, study)
        limits = numbered(_limits(service, session, study))
        limits = tuple(fact.model_copy(update={"id": f"m{fact.id}"}) for fact in limits)
        found = answer(body.question, known, limits)
        audit_log.append(session, actor(request, who), "ask", study.id, {"intent": found.intent})
    cited = {identifier for phrase in found.phrases for identifier in phrase.facts}
    return AnswerOut(
        intent=found.intent,
        text=found.text,
        phrases=[PhraseOut(text=phrase.text, facts=list(phrase.facts)) for phrase in found.phrases],
        facts=_out([fact for fact in (*known, *limits) if fact.id in cited]),
        actions=list(found.actions),
    )


def _facts(session: Session, who: Principal, study: Study) -> tuple[Fact, ...]:
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
        priors = [row for row in session.scalars(same.order_by(Study.created.desc()).limit(5)) if who.sees(row.tray)]
        found += [
            Fact(
                kind="prior",
                image="",
                text=f"Another study of this patient: {row.finding or row.status}.",
                result=row.id,
            )
            for row in priors
        ]
    return numbered(found)


def _limits(service: Service, session: Session, study: Study) -> list[Fact]:
    """What the cards and audits of the readers of this study say."""
    chosen = select(Result.reader).join(StudyImage, StudyImage.id == Result.image_id)
    names = session.scalars(chosen.where(StudyImage.study_id == study.id, Result.kind == "read").distinct())
    facts = []
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
    return facts


def _new_draft(session: Session, who: Principal, study: Study) -> Draft:
    row = Draft(study_id=study.id, user_id=who.user_id, phrases=[], facts=[], text="")
    _fill(row, _facts(session, who, study))
    session.add(row)
    session.flush()
    return row


def _fill(row: Draft, facts: tuple[Fact, ...]) -> None:
    phrases = draft_of(facts)
    row.phrases = [phrase.model_dump(mode="json") for phrase in phrases]
    row.facts = [fact.model_dump(mode="json") for fact in facts]
    row.text, row.changed = "\n".join(phrase.text for phrase in phrases), now()


def _open_draft(session: Session, who: Principal, study_id: str) -> Draft:
    study = seen_study(session, who, study_id)
    row = own_draft(session, who, study.id) or _new_draft(session, who, study)
    if row.signed is not None:
        raise Problem("conflict", "This report was signed.", "A signed report is not changed any more.")
    return row


def _draft(row: Draft) -> DraftOut:
    return DraftOut.model_validate(
        {
            "id": row.id, "study_id": row.study_id, "text": row.text, "revision": row.revision, "signed": row.signed,
            "phrases": row.phrases, "facts": row.facts,
        },
        extra="ignore",
    )  # fmt: skip


def _out(facts: tuple[Fact, ...] | list[Fact]) -> list[FactOut]:
    return [FactOut.model_validate(fact.model_dump(), extra="ignore") for fact in facts]
