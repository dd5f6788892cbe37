"""Facts of a study, the draft report made of them, and questions about it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from wetread.service import audit_log
from wetread.service.access import Annotator, Here, Reader, actor, own_draft, seen_study
from wetread.service.accounts import Principal
from wetread.service.assistant import Answer
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.export import Printed, collect, content_security_policy, report_html, report_pdf
from wetread.service.facts import Fact, Phrase, draft_of
from wetread.service.language import word_answer
from wetread.service.problems import Problem
from wetread.service.schemas import AnswerOut, Ask, DraftBody, DraftOut, FactOut, PhraseOut
from wetread.service.study_facts import answer_about, cited, facts_of_study
from wetread.service.tables import Draft, Study, now

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["reports"])
_HTML = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_PDF = {200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}}
Id = Annotated[str, Path(max_length=32)]


@router.get("/studies/{study_id}/facts")
def facts(study_id: Id, service: Here, who: Reader) -> list[FactOut]:
    """All recorded facts of a study, without patient data."""
    with service.database.read() as session:
        return _out(facts_of_study(session, who, seen_study(session, who, study_id)))


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
        row = _draft_at(session, who, study_id, body.revision)
        row.text, row.revision, row.changed = body.text, row.revision + 1, now()
        audit_log.append(session, actor(request, who), "edit draft", row.id, {"revision": row.revision})
        return _draft(row)


@router.post("/studies/{study_id}/draft/renew")
def renew_draft(study_id: Id, service: Here, who: Annotator, request: Request) -> DraftOut:
    """Make the machine's phrases again from the facts of now; your own text is replaced by them."""
    with service.database.write() as session:
        row = _open_draft(session, who, study_id)
        _fill(row, facts_of_study(session, who, seen_study(session, who, study_id)))
        row.revision += 1
        audit_log.append(session, actor(request, who), "renew draft", row.id)
        return _draft(row)


@router.post("/studies/{study_id}/draft/sign")
def sign_draft(study_id: Id, body: DraftBody, service: Here, who: Annotator, request: Request) -> DraftOut:
    """Sign the text as your own; a signed report is not changed any more."""
    with service.database.write() as session:
        row = _draft_at(session, who, study_id, body.revision)
        row.text, row.revision, row.signed = body.text, row.revision + 1, now()
        audit_log.append(session, actor(request, who), "sign draft", row.id, {"revision": row.revision})
        return _draft(row)


@router.get("/studies/{study_id}/report.html", response_class=Response, responses=_HTML)  # type: ignore[arg-type]
def print_report(study_id: Id, service: Here, who: Annotator, request: Request) -> Response:
    """Your report as a page to print: patient, text, signature, what the machine proposed. Not before the draft."""
    page = _printed(service, who, study_id, request, "html")
    headers = {"Content-Security-Policy": content_security_policy(page)}
    return HTMLResponse(report_html(page), headers=headers)


@router.get("/studies/{study_id}/report.pdf", response_class=Response, responses=_PDF)  # type: ignore[arg-type]
def report_file(study_id: Id, service: Here, who: Annotator, request: Request) -> Response:
    """Your report as PDF, the same page."""
    page = _printed(service, who, study_id, request, "pdf")
    headers = {"Content-Disposition": f'attachment; filename="report-{study_id}.pdf"'}
    return Response(report_pdf(page), media_type="application/pdf", headers=headers)


@router.post("/studies/{study_id}/ask")
def ask(study_id: Id, body: Ask, service: Here, who: Reader, request: Request) -> AnswerOut:
    """Ask about the study; the answer is made of recorded facts alone, and each phrase cites them."""
    with service.database.write() as session:
        study = seen_study(session, who, study_id)
        found, known = answer_about(service, session, who, study, body.question)
        audit_log.append(session, actor(request, who), "ask", study.id, {"intent": found.intent})
    facts = cited(found, known)
    phrases = _worded(service, found, facts, study_id, actor(request, who))
    return AnswerOut(
        intent=found.intent,
        text=" ".join(phrase.text for phrase in phrases) if phrases else found.text,
        phrases=[PhraseOut(text=phrase.text, facts=list(phrase.facts)) for phrase in phrases or found.phrases],
        facts=_out(facts),
        actions=list(found.actions),
        worded_by=service.language.name if service.language and phrases else "",
    )


def _worded(
    service: Service, found: Answer, facts: tuple[Fact, ...], study_id: str, by: Actor
) -> tuple[Phrase, ...] | None:
    """The phrases of an answer as the language model words them; None where there is no model, or it is refused."""
    if service.language is None or not found.phrases:
        return None
    worded = word_answer(service.language, found.intent, found.phrases, facts)
    detail = {"model": service.language.name, "prompt": worded.prompt_sha256, "taken": worded.phrases is not None}
    with service.database.write() as session:
        audit_log.append(session, by, "word answer", study_id, {**detail, "why": worded.why})
    return worded.phrases


def _printed(service: Service, who: Principal, study_id: str, request: Request, kind: str) -> Printed:
    """What the report shows; that it is handed out is a line of the audit log, in the transaction that reads it."""
    with service.database.write() as session:
        study = seen_study(session, who, study_id)
        row = own_draft(session, who, study.id)
        if row is None:
            raise Problem("not_found", "You have no report of this study yet.", "Open its draft first.")
        detail = {"format": kind, "revision": row.revision, "signed": row.signed is not None}
        audit_log.append(session, actor(request, who), "export report", row.id, detail)
        return collect(service, session, study, row, who.name)


def _new_draft(session: Session, who: Principal, study: Study) -> Draft:
    row = Draft(study_id=study.id, user_id=who.user_id, phrases=[], facts=[], text="")
    _fill(row, facts_of_study(session, who, study))
    session.add(row)
    session.flush()
    return row


def _fill(row: Draft, facts: tuple[Fact, ...]) -> None:
    phrases = draft_of(facts)
    row.phrases = [phrase.model_dump(mode="json") for phrase in phrases]
    row.facts = [fact.model_dump(mode="json") for fact in facts]
    row.text, row.changed = "\n".join(phrase.text for phrase in phrases), now()


def _draft_at(session: Session, who: Principal, study_id: str, revision: int) -> Draft:
    """Your draft that is not signed; refused where it changed since ``revision``."""
    row = _open_draft(session, who, study_id)
    if row.revision != revision:
        raise Problem("conflict", f"The draft is at revision {row.revision}, not {revision}.")
    return row


def _open_draft(session: Session, who: Principal, study_id: str) -> Draft:
    study = seen_study(session, who, study_id)
    row = own_draft(session, who, study.id) or _new_draft(session, who, study)
    session.refresh(row, with_for_update=True)  # two windows that save at the same moment come one after the other
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
