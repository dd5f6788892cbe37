"""Which rule takes a study, and why: the same words for the dry run and for the log.

Decided here: rules are tried in order, the first that fits takes the study, and a rule fits when every condition
that it states holds. Text is compared without case; a condition on a fact that the study does not state fails,
because a child without an age must not be read by a reader of adults.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wetread.pacs.ledger import Ledger
from wetread.settings import NodeRule

__all__ = ["READABLE", "Condition", "StudyFacts", "Verdict", "choose", "explain", "study_facts"]

READABLE = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray, for presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray, for processing",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound",
}
"""Classes of images that a reader is given. Secondary Capture is not among them: our own results come as such."""


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What rules may ask about a study; values of several images are gathered."""

    study: str
    sender: str
    called: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    descriptions: tuple[str, ...]
    age_years: float | None
    images: int


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule against one study."""

    name: str
    wanted: str
    got: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.name}: wants {self.wanted}, study has {self.got or 'nothing'}: {'yes' if self.holds else 'no'}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule against one study. ``reached`` is False for rules after the one that took it."""

    rule: NodeRule
    conditions: tuple[Condition, ...]
    reached: bool = True

    @property
    def fits(self) -> bool:
        """Whether all conditions hold."""
        return all(condition.holds for condition in self.conditions)


def study_facts(ledger: Ledger, study: str) -> StudyFacts | None:
    """The facts of a study in the index; None where it has no object."""
    head = ledger.read("SELECT sender, called FROM studies WHERE study = ?", (study,))
    rows = ledger.read(
        "SELECT sop_class, modality, body_part, study_description, series_description, age_years FROM objects "
        "WHERE study = ? AND state = 'stored' ORDER BY id",
        (study,),
    )
    if not head or not rows:
        return None
    images = [row for row in rows if row[0] in READABLE]
    ages = [row[5] for row in images if row[5] is not None]
    return StudyFacts(
        study=study,
        sender=head[0][0],
        called=head[0][1],
        modalities=_distinct(row[1] for row in images),
        body_parts=_distinct(row[2] for row in images),
        descriptions=_distinct(text for row in images for text in row[3:5]),
        age_years=ages[0] if ages else None,
        images=len(images),
    )


def explain(rules: Sequence[NodeRule], facts: StudyFacts) -> list[Verdict]:
    """Every rule in order with its conditions; the first that fits is the one that takes the study."""
    verdicts: list[Verdict] = []
    taken = False
    for rule in rules:
        verdict = Verdict(rule, _conditions(rule, facts), reached=not taken)
        taken = taken or verdict.fits
        verdicts.append(verdict)
    return verdicts


def choose(rules: Sequence[NodeRule], facts: StudyFacts) -> NodeRule | None:
    """The rule that takes the study, if any."""
    return next((verdict.rule for verdict in explain(rules, facts) if verdict.fits), None)


def _conditions(rule: NodeRule, facts: StudyFacts) -> tuple[Condition, ...]:
    found = [Condition("images that can be read", "at least 1", str(facts.images), facts.images > 0)]
    listed = (
        ("sender", rule.senders, (facts.sender,)),
        ("called title", rule.called, (facts.called,)),
        ("modality", rule.modalities, facts.modalities),
        ("body part", rule.body_parts, facts.body_parts),
    )
    for name, wanted, got in listed:
        if wanted:
            same = {text.upper() for text in wanted} & {text.upper() for text in got}
            found.append(Condition(name, " or ".join(wanted), ", ".join(got), bool(same)))
    if rule.description_has:
        texts = [text.upper() for text in facts.descriptions]
        holds = any(part.upper() in text for part in rule.description_has for text in texts)
        found.append(Condition("description", " or ".join(rule.description_has), ", ".join(facts.descriptions), holds))
    return (*found, *_age_conditions(rule, facts.age_years))


def _age_conditions(rule: NodeRule, age: float | None) -> list[Condition]:
    got = "" if age is None else f"{age:g} years"
    found = []
    if rule.age_from is not None:
        holds = age is not None and age >= rule.age_from
        found.append(Condition("age", f"from {rule.age_from:g} years", got, holds))
    if rule.age_below is not None:
        holds = age is not None and age < rule.age_below
        found.append(Condition("age", f"below {rule.age_below:g} years", got, holds))
    return found


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
