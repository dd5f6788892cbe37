"""What a program may ask of the service as the assistant does: worklist, facts, questions, two kinds of work.

Decided here: every call shows a token of the service again, so that a revoked one ends at once, and its user sees the
worklists of that user only; nothing that leaves is patient data: no names, numbers, dates, ages, titles or pixels,
and no search, because what one searches for are names. What is handed out is a line of the audit log.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service import accounts, audit_log
from wetread.service.access import seen_job, seen_study
from wetread.service.accounts import Principal
from wetread.service.audit_log import Actor
from wetread.service.context import Service
from wetread.service.facts import Fact
from wetread.service.jobs import Asked, enqueue
from wetread.service.problems import Problem
from wetread.service.study_facts import answer_about, cited, facts_of_study
from wetread.service.tables import StudyImage
from wetread.service.worklist import Filter, page

__all__ = ["MOST_STUDIES", "Tools"]

MOST_STUDIES = 100
_PLAIN = ("id", "modality", "body_part", "images", "status", "finding", "decision", "urgency")
_FACT = {"id", "kind", "image", "label", "value", "unit", "text"}
_NEIGHBOURS = 6


class Tools:
    """The tools of one token. Each returns plain JSON and raises :class:`Problem` where it may or can not."""

    def __init__(self, service: Service, token: str) -> None:
        self._service = service
        self._token = token

    def list_studies(self, status: str = "", decision: str = "", limit: int = 20) -> dict[str, Any]:
        """The most urgent studies. ``status``: open, read, failed; ``decision``: positive, negative, withheld."""
        chosen = Filter(status=status, decision=decision)
        with self._service.database.write() as session:
            who = self._who(session, "read")
            rows, _, total = page(session, who, chosen, "", max(1, min(limit, MOST_STUDIES)))
            self._note(session, who, "list studies", "", {"studies": len(rows)})
            return {"total": total, "studies": [{name: getattr(row, name) for name in _PLAIN} for row in rows]}

    def facts(self, study_id: str) -> list[dict[str, Any]]:
        """All recorded facts of a study, each with the id by which phrases cite it."""
        with self._service.database.write() as session:
            who = self._who(session, "read")
            study = seen_study(session, who, study_id)
            self._note(session, who, "view facts", study.id)
            return [_shown(fact) for fact in facts_of_study(session, who, study)]

    def ask(self, study_id: str, question: str) -> dict[str, Any]:
        """Answer a question about a study from its facts alone; treatment is declined."""
        with self._service.database.write() as session:
            who = self._who(session, "read")
            study = seen_study(session, who, study_id)
            found, known = answer_about(self._service, session, who, study, question[:500])
            self._note(session, who, "ask", study.id, {"intent": found.intent})
        phrases = [{"text": phrase.text, "facts": list(phrase.facts)} for phrase in found.phrases]
        shown = [_shown(fact) for fact in cited(found, known)]
        return {"intent": found.intent, "text": found.text, "phrases": phrases, "facts": shown}

    def readers(self) -> list[dict[str, Any]]:
        """The readers and segmenters: what they are for, whether their audit passed, what they are bad at."""
        with self._service.database.read() as session:
            self._who(session, "read")
        return [
            {
                "name": entry.card.name, "version": entry.card.version, "audit": entry.card.audit_verdict,
                "watermark": entry.card.watermark, "limits": list(entry.card.limits),
            }
            for entry in self._service.catalog.entries()
        ]  # fmt: skip

    def request_masks(self, study_id: str) -> list[dict[str, Any]]:
        """Ask for organ masks and sizes of every image of a study; asked twice, it is asked once."""
        entry = self._service.catalog.segmenter(self._service.settings.service.segmenter)
        return self._request(study_id, Asked("segment", entry))

    def request_similar(self, study_id: str) -> list[dict[str, Any]]:
        """Ask for similar past cases of every image of a study; asked twice, it is asked once."""
        chosen = self._service.settings.service
        if not chosen.index:
            raise Problem("unavailable", "There is no index of past cases.", "Set service.index.")
        return self._request(
            study_id, Asked("similar", self._service.catalog.reader(chosen.reader), {"k": _NEIGHBOURS})
        )

    def job(self, job_id: str) -> dict[str, Any]:
        """The state of something that was asked for."""
        with self._service.database.read() as session:
            who = self._who(session, "read")
            job = seen_job(session, who, job_id)
            return {"job": job.id, "kind": job.kind, "state": job.state, "code": job.code}

    def _request(self, study_id: str, asked: Asked) -> list[dict[str, Any]]:
        with self._service.database.write() as session:
            who = self._who(session, "write")
            study = seen_study(session, who, study_id)
            images = session.scalars(select(StudyImage).where(StudyImage.study_id == study.id)).all()
            single = [image for image in images if image.facts.get("frames", 1) == 1]
            jobs = [enqueue(session, asked, image, who.user_id) for image in single]
            self._note(session, who, f"ask {asked.kind}", study.id, {"jobs": len(jobs)})
            told = [{"job": job.id, "kind": job.kind, "state": job.state} for job in jobs]
        self._service.bell.ring()
        return told

    def _who(self, session: Session, scope: str) -> Principal:
        who = accounts.of_token(session, self._token)
        if who is None:
            raise Problem("not_logged_in", "The token is unknown, expired or revoked.", "Make a new token.")
        if not who.may("reader", scope):
            raise Problem("forbidden", f"This needs a token with the scope {scope}.")
        return who

    def _note(
        self, session: Session, who: Principal, action: str, target: str, detail: dict[str, Any] | None = None
    ) -> None:
        audit_log.append(session, Actor(who.name, "mcp"), action, target, detail)


def _shown(fact: Fact) -> dict[str, Any]:
    return fact.model_dump(mode="json", include=_FACT)
