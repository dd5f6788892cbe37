"""A report as a page to print and as PDF, both from one template.

Decided here: every page of either says that it is for research, and carries the watermark of a reader whose audit
failed, by the verdict of the time of reading or that of now; a draft says that nobody signed it; title and file name
hold no patient data, because title bars, histories and download folders show them. The maker of the PDF is given one
string and may fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service.context import Service
from wetread.service.problems import Problem
from wetread.service.tables import Draft, Result, Study, StudyImage

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["DISCLAIMER", "FAILED", "Printed", "collect", "content_security_policy", "report_html", "report_pdf"]

DISCLAIMER = "Research use only. Not a diagnosis."
FAILED = "AUDIT FAILED: DO NOT TRUST"
_MM = 72 / 25.4


@dataclass(frozen=True)
class Printed:
    """What a report shows. ``about``: (name, value) of patient and study; ``signed``, ``changed``: seconds since 1970.

    ``watermark``: empty unless the audit of a reader failed.
    """

    study_id: str
    about: tuple[tuple[str, str], ...]
    author: str
    text: str
    revision: int
    changed: float
    signed: float | None
    phrases: tuple[dict[str, Any], ...]
    readers: tuple[str, ...]
    watermark: str


def collect(service: Service, session: Session, study: Study, draft: Draft, author: str) -> Printed:
    """Gather what the report of ``author`` about a study shows."""
    chosen = select(Result.record).join(StudyImage, StudyImage.id == Result.image_id)
    records = session.scalars(chosen.where(StudyImage.study_id == study.id, Result.kind == "read")).all()
    models = {model["sha256"]: model for model in (record["model"] for record in records)}
    verdicts = [str(model.get("audit_verdict") or "not audited") for model in models.values()]
    lines = [
        f"{model['name']} {model['version']}, weights {sha256[:12]}, audit when it read: {verdict}"
        for (sha256, model), verdict in zip(models.items(), verdicts, strict=True)
    ]
    now_failed = [_fails_now(service, model["name"]) for model in models.values()]
    failed = any(now_failed) or any(verdict.upper().startswith("FAIL") for verdict in verdicts)
    return Printed(
        study_id=study.id,
        about=_about(study),
        author=author,
        text=draft.text,
        revision=draft.revision,
        changed=draft.changed,
        signed=draft.signed,
        phrases=tuple(draft.phrases),
        readers=tuple(lines),
        watermark=FAILED if failed else "",
    )


def report_html(printed: Printed) -> str:
    """The report as one HTML page that loads nothing."""
    from markupsafe import Markup

    from wetread import __version__

    return _templates().get_template("report.html.j2").render(
        style=Markup(_style(printed.watermark)),  # noqa: S704  our own file
        disclaimer=DISCLAIMER,
        watermark=printed.watermark,
        about=printed.about,
        author=printed.author,
        text=printed.text,
        revision=printed.revision,
        signed_at=_utc(printed.signed),
        changed_at=_utc(printed.changed),
        phrases=printed.phrases,
        readers=printed.readers,
        study_id=printed.study_id,
        version=__version__,
    )  # fmt: skip


def report_pdf(printed: Printed) -> bytes:
    """The report as PDF, A4.

    Raises:
        Problem: ``unavailable``: the package that makes it is not installed.
    """
    try:
        import plutoprint
    except ImportError:
        hint = "Install wetread[service]; the HTML page can be printed meanwhile."
        raise Problem("unavailable", "PDF cannot be made here: plutoprint is not installed.", hint) from None

    class Nothing(plutoprint.ResourceFetcher):
        """Refuses whatever a page asks for."""

        def fetch_url(self, url: str) -> Any:
            raise ValueError("a report loads nothing")

    book = plutoprint.Book(plutoprint.PAGE_SIZE_A4, plutoprint.PAGE_MARGINS_NONE)
    book.custom_resource_fetcher = Nothing()
    book.load_html(report_html(printed))
    book.set_metadata(plutoprint.PDF_METADATA_TITLE, "Report, research use only")
    target = io.BytesIO()
    book.write_to_pdf_stream(target)
    return target.getvalue()


def content_security_policy(printed: Printed) -> str:
    """What a browser may do with the page: show its one style, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style(printed.watermark).encode()).digest()).decode()
    closed = ("default-src", "base-uri", "form-action", "frame-ancestors")
    return "; ".join([*(f"{name} 'none'" for name in closed), f"style-src 'sha256-{digest}'"])


def _about(study: Study) -> tuple[tuple[str, str], ...]:
    age = "" if study.patient_age is None else f"{study.patient_age:g} years"
    rows: Sequence[tuple[str, str | None]] = (
        ("Patient", study.patient_name),
        ("Patient number", study.patient_id),
        ("Sex", study.patient_sex),
        ("Age", age),
        ("Study", study.title),
        ("Date", study.study_date),
        ("Modality", study.modality),
        ("Body part", study.body_part),
        ("Images", str(study.images)),
    )
    return tuple((name, value) for name, value in rows if value)


def _fails_now(service: Service, name: str) -> bool:
    try:
        return bool(service.catalog.find(name).card.watermark)
    except Problem:
        return False


def _utc(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(loader=PackageLoader("wetread.service"), autoescape=True, undefined=StrictUndefined)


def _style(watermark: str) -> str:
    source, _, _ = _templates().loader.get_source(_templates(), "report.css")  # type: ignore[union-attr]
    return source.replace("BANNER", f"{DISCLAIMER} {watermark}".strip())
