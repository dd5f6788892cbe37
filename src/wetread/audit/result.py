"""The records of an audit: one line for each question, its figures, its pictures, and the verdict over all.

Decided here: how lines become a verdict. A shortcut of the data that the reader was shown not to use is a warning;
one that it uses, or that nobody could test it for, is a failure.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wetread.models.card import HeatMapStatus
from wetread.types import Estimate, ModelIdentity, Record

__all__ = [
    "DECISIVE",
    "GROUPS",
    "QUESTIONS",
    "Answered",
    "AuditExample",
    "AuditFigure",
    "AuditLine",
    "AuditResult",
    "Verdict",
    "verdict_of",
    "weighed",
]

Answered = Literal["PASS", "WARN", "FAIL", "NOT ASSESSABLE"]

QUESTIONS: dict[str, str] = {
    "T1": "Is any patient or image in two splits?",
    "T2": "Can the source be told without the organ, and is it tied to the label?",
    "T3": "Can the label be told without the organ?",
    "T4": "Does the reader need the organ?",
    "T5": "Do markers, text, borders or tubes move the answer?",
    "T6": "Does it hold in a source that it has not seen?",
    "T7": "Is the heat map about this reader?",
    "T8": "Is the heat map faithful and stable?",
    "T9": "Is the heat map in the right place?",
    "T10": "Are the probabilities honest?",
    "T11": "Does abstaining keep its promise?",
    "T12": "Does it know what it was not built for?",
    "T13": "Who is served worse?",
    "T14": "Is a claimed win real?",
    "T15": "Does it survive compression, exposure, rotation, noise and resizing?",
    "T16": "Is the paperwork complete?",
}
"""The catalogue, in the order of the page."""

DECISIVE = ("T1", "T2", "T3", "T4")
"""Lines whose failure is watermarked on everything that the reader puts out."""


GROUPS: dict[str, tuple[str, ...]] = {
    "Does it read the disease?": ("T1", "T2", "T3", "T4", "T5", "T6"),
    "Can its heat maps be believed?": ("T7", "T8", "T9"),
    "Can its numbers be believed?": ("T10", "T11", "T12", "T13", "T14", "T15"),
    "Is it documented?": ("T16",),
}
"""What the page puts under one heading."""


class AuditFigure(Record):
    """One number behind a line, with its interval; ``what`` names it in words."""

    what: str
    estimate: Estimate


class AuditExample(Record):
    """A picture that shows what a line says: ``picture`` is a PNG path relative to the page, ``caption`` one line."""

    picture: str
    caption: str


class AuditLine(Record):
    """The answer to one question.

    ``sentence`` is what a clinician reads; ``notes`` are for who wants to know more; ``thresholds`` are those that
    decided, by the names of :class:`~wetread.audit.thresholds.Thresholds`. ``cure``: what would change the answer;
    empty where nothing has to. ``n``: images behind it.
    """

    code: str
    question: str
    answer: Answered
    sentence: str
    n: int = 0
    figures: tuple[AuditFigure, ...] = ()
    thresholds: dict[str, float] = Field(default_factory=dict)
    examples: tuple[AuditExample, ...] = ()
    notes: tuple[str, ...] = ()
    cure: str = ""


class AuditResult(Record):
    """One audit, as written to ``audit.json``.

    ``heat_maps``: what the card is to say of each method (T7). ``verdict`` is what the reader's card will say,
    ``headline`` the same for people; ``failed`` are the codes of the failed lines. ``watermark``: the sentence that
    every output of the reader carries, None where nothing has to be said.
    """

    schema_version: Literal["1"] = "1"
    reader: ModelIdentity
    data: str
    split: str | None
    n: int
    patients: int | None
    organ: str | None
    organ_from: str
    lines: tuple[AuditLine, ...]
    heat_maps: dict[str, HeatMapStatus] = Field(default_factory=dict)
    verdict: str
    headline: str
    failed: tuple[str, ...] = ()
    watermark: str | None = None
    thresholds: dict[str, float] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    provenance: dict[str, str] = Field(default_factory=dict)


def weighed(lines: tuple[AuditLine, ...]) -> tuple[AuditLine, ...]:
    """Return the lines with T3 judged in the light of T4.

    T3 speaks of the data and T4 of the reader: a shortcut that the data offer and this reader was shown not to use
    is a warning; with any other answer of T4 it stays a failure.
    """
    found = {line.code: line for line in lines}
    data, reader = found.get("T3"), found.get("T4")
    if data is None or data.answer != "FAIL" or reader is None or reader.answer != "PASS":
        return lines
    spared = "The data have a shortcut; this reader does not use it, as far as tested (T4)."
    told = data.model_copy(update={"answer": "WARN", "sentence": f"{data.sentence} {spared}"})
    return tuple(told if line.code == "T3" else line for line in lines)


class Verdict(Record):
    """What the lines come to: see :class:`AuditResult`."""

    verdict: str
    headline: str
    failed: tuple[str, ...]
    watermark: str | None


def verdict_of(lines: tuple[AuditLine, ...], on: str) -> Verdict:
    """Return what the weighed lines of an audit ``on`` a data set come to.

    A failed decisive line fails the reader. One that could not be assessed, or that was left out, leaves it open:
    nothing passes by not being asked.
    """
    failed = tuple(line.code for line in lines if line.answer == "FAIL")
    decisive = tuple(code for code in failed if code in DECISIVE)
    if decisive:
        watermark = f"Do not trust this reader: shortcut or leak ({_named(decisive)}) on {on}."
        headline = f"Failed: {', '.join(decisive)}"
        return Verdict(
            verdict=f"FAIL {', '.join(decisive)} on {on}", headline=headline, failed=failed, watermark=watermark
        )
    answered = {line.code for line in lines if line.answer in ("PASS", "WARN")}
    unasked = [code for code in DECISIVE if code not in answered]
    weak = [line.code for line in lines if line.answer in ("WARN", "FAIL")]
    if unasked:
        text, headline = f"OPEN {', '.join(unasked)} not assessable", f"Open: {', '.join(unasked)} not assessable"
    elif weak:
        text, headline = f"WARN {', '.join(weak)}", f"Passed with warnings: {', '.join(weak)}"
    else:
        text, headline = "PASS", "Passed"
        later = [code for code in QUESTIONS if code not in answered]
        headline += f", as far as could be asked: {', '.join(later)} not assessable" if later else ""
    return Verdict(verdict=f"{text} on {on}", headline=headline, failed=failed, watermark=None)


def _named(codes: tuple[str, ...]) -> str:
    short = {
        "T1": "T1, images or patients in two splits",
        "T2": "T2, the source gives the label away",
        "T3": "T3, the label can be told without the organ",
        "T4": "T4, the reader does not need the organ",
    }
    return "; ".join(short[code] for code in codes)
