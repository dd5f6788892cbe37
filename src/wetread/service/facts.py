"""From results to facts, from facts to phrases: every phrase names the facts that it is made of.

Decided here: facts are de-identified (they say ``image 1``, never whose); a phrase is a template filled from facts,
so that a draft cannot say what was not recorded; a read that the gate refused gives its reasons and no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from wetread.reading.organs import OrganReading
from wetread.types import Read, Record

__all__ = ["Fact", "Phrase", "draft_of", "facts_of_result", "numbered"]


class Fact(Record):
    """One recorded fact. ``kind``: finding, withheld, gate, evidence, set, measure, agreement, model, organ, case."""

    id: str = ""
    kind: str
    image: str
    label: str = ""
    value: float | None = None
    unit: str = ""
    text: str
    result: str = ""


class Phrase(Record):
    """Words and the ids of the facts behind them."""

    text: str
    facts: tuple[str, ...] = Field(min_length=1)


def numbered(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Give facts their ids, f1, f2, … in order."""
    return tuple(fact.model_copy(update={"id": f"f{number}"}) for number, fact in enumerate(facts, 1))


def facts_of_result(kind: str, record: dict[str, Any], image: str, result: str = "") -> list[Fact]:
    """The facts of one result, without ids."""
    if kind == "read":
        found = _of_read(Read.model_validate(record), image)
    elif kind == "segment":
        found = _of_organs(OrganReading.model_validate(record), image)
    elif kind == "similar":
        found = _of_similar(record, image)
    else:
        found = [_evidence(record["evidence"], image)]
    return [fact.model_copy(update={"result": result}) for fact in found]


def draft_of(facts: Sequence[Fact]) -> tuple[Phrase, ...]:
    """The phrases of a draft, image by image: findings, sizes, what is withheld, and by whom it was read."""
    order = ("gate", "finding", "set", "agreement", "measure", "organ")
    phrases = []
    for image in dict.fromkeys(fact.image for fact in facts):
        own = [fact for fact in facts if fact.image == image]
        for kind in order:
            phrases += [Phrase(text=_sentence(image, fact), facts=(fact.id,)) for fact in own if fact.kind == kind]
    models = {fact.text: fact.id for fact in facts if fact.kind == "model"}
    phrases += [Phrase(text=text, facts=(identifier,)) for text, identifier in models.items()]
    return tuple(phrases)


def _sentence(image: str, fact: Fact) -> str:
    return f"{image.capitalize()}: {fact.text}"


def _of_read(read: Read, image: str) -> list[Fact]:
    model = read.model
    about = f"Read by {model.name} {model.version} ({model.sha256[:12]}, {model.audit_verdict})."
    facts = [Fact(kind="model", image=image, text=about)]
    if not read.gate.passed:
        facts += [Fact(kind="gate", image=image, text=f"not read: {reason}") for reason in read.gate.reasons]
        return facts
    for label in read.labels:
        facts.append(_finding(label.model_dump(), image))
        if label.evidence is not None:
            facts.append(_evidence(label.evidence.model_dump(), image))
    chosen = read.prediction_set
    if chosen is not None:
        words = f"abstains: {chosen.reason}" if chosen.abstains else f"answer set {{{', '.join(chosen.classes)}}}"
        facts.append(Fact(kind="set", image=image, value=chosen.alpha, text=f"{words} (error rate {chosen.alpha:g})."))
    facts += [
        Fact(kind="measure", image=image, label=one.name, value=one.value, unit=one.unit, text=_size(one.model_dump()))
        for one in read.measures
    ]
    if read.agreement is not None:
        facts.append(Fact(kind="agreement", image=image, label=read.agreement.label, text=read.agreement.sentence))
    return facts


def _finding(label: dict[str, Any], image: str) -> Fact:
    name, probability = label["label"], label["probability"]
    if probability is None:
        return Fact(kind="finding", image=image, label=name, text=f"{name} withheld: {label['reason']}")
    point = label["operating_point"]
    limit = f", positive from {point['threshold']:.3f} ({point['name']})" if point else ""
    digits = 3 if point else 2  # as many as the threshold, which it may lie close to
    text = f"{name} {label['decision']}, probability {probability:.{digits}f}{limit}."
    return Fact(kind="finding", image=image, label=name, value=round(probability, digits), unit="1", text=text)


def _evidence(evidence: dict[str, Any], image: str) -> Fact:
    name, method = evidence["target"], evidence["method"]
    if evidence["status"] != "made":
        return Fact(kind="evidence", image=image, label=name, text=f"No heat map for {name}: {evidence['status']}.")
    boxes = evidence["boxes"]
    places = "; ".join(
        f"{box['width']:.0f} x {box['height']:.0f} pixels at column {box['x']:.0f}, row {box['y']:.0f}" for box in boxes
    )
    text = f"Heat map for {name} by {method}: {places or 'no single place stands out'}."
    return Fact(kind="evidence", image=image, label=name, value=float(len(boxes)), text=text)


def _size(measure: dict[str, Any]) -> str:
    name, organ = measure["name"].replace("_", " "), measure["organ"].replace("_", " ")
    if measure["value"] is None:
        return f"{name} of {organ} not measured: {measure['reason']}."
    unit = "" if measure["unit"] == "1" else f" {measure['unit']}"
    return f"{name} of {organ} {measure['value']:.2f}{unit}."


def _of_organs(reading: OrganReading, image: str) -> list[Fact]:
    facts = [
        Fact(kind="organ", image=image, label=one.organ, value=round(one.image_share, 3), unit="1",
             text=f"{one.organ} covers {one.image_share:.1%} of the image; {', '.join(one.flags) or 'nothing odd'}.")
        for one in reading.organs
    ]  # fmt: skip
    return facts + [
        Fact(kind="measure", image=image, label=one.name, value=one.value, unit=one.unit, text=_size(one.model_dump()))
        for one in reading.measures
    ]


def _of_similar(record: dict[str, Any], image: str) -> list[Fact]:
    facts = []
    for one in record["neighbours"]:
        labels = "unknown outcome" if one["labels"] is None else " + ".join(one["labels"]) or "none of the labels"
        text = f"Similar case {one['rank']}: {labels}, distance {one['distance']:.3f}."
        facts.append(Fact(kind="case", image=image, label=labels, value=round(one["distance"], 3), text=text))
    for label, vote in record["vote"].items():
        text = f"{vote['positive']} of the {vote['known']} most similar cases with a known outcome have {label}."
        facts.append(Fact(kind="vote", image=image, label=label, value=round(vote["share"], 2), unit="1", text=text))
    return facts
