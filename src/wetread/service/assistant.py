"""Questions in plain words, answered from the recorded facts of the open study: no language model, no guess.

Decided here: a question is matched to one of :data:`INTENTS` by words and answered by a template over facts; one that
matches nothing is answered with what can be asked; a question for treatment is declined. The same tools can be given
to a language model later, whose every number and label must then match a fact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wetread.service.facts import Fact, Phrase

__all__ = ["INTENTS", "Answer", "answer", "intent_of"]


@dataclass(frozen=True)
class Answer:
    """``actions``: what the page may do or offer, by name, e.g. ``{"do": "show_heat_map", "result": …}``."""

    intent: str
    phrases: tuple[Phrase, ...]
    actions: tuple[dict[str, str], ...] = ()
    plain: str = ""

    @property
    def text(self) -> str:
        """The whole answer."""
        return " ".join(phrase.text for phrase in self.phrases) or self.plain


INTENTS: dict[str, tuple[str, ...]] = {
    "treatment": (r"\btreat", r"\btherap", r"\bprescri", r"\bmedica(tion|ment)", r"\bdose\b", r"\bantibiotic",
                  r"tratamiento", r"receta", r"should i (give|operate)"),
    "abstain": (r"abstain", r"withh(e|o)ld", r"\brefuse", r"not (read|answer)", r"no answer", r"por que no",
                r"abstien"),
    "where": (r"\bwhere\b", r"\blook(ed|ing)?\b(?! like)", r"heat ?map", r"\bevidence\b", r"\bdonde\b", r"mapa"),
    "similar": (r"similar", r"\blike this\b", r"look like", r"other cases", r"neighbou?r", r"parecid"),
    "compare": (r"\bcompare", r"\bchange[ds]?\b", r"\b(better|worse)\b", r"compara", r"cambi", r"(mejor|peor)"),
    "prior": (r"\bprior\b", r"previous", r"earlier", r"anterior"),
    "limits": (r"\bbad at\b", r"\blimit", r"weak", r"trust", r"\baudit", r"\bfail", r"fiable", r"confia"),
    "sure": (r"\bsure\b", r"certain", r"confiden", r"probab", r"how likely", r"segur", r"likelihood"),
    "size": (r"\bsize\b", r"\bmeasur", r"\blarge\b", r"\bratio\b", r"how big", r"\bheart\b", r"tamano", r"medida"),
    "who": (r"which (reader|model|network)", r"who read", r"version", r"que modelo"),
    "findings": (r"finding", r"what (do|did|is|are)\b", r"\bresult", r"summar", r"hallazgo", r"resum", r"que (hay|ves)"),  # noqa: E501
}  # fmt: skip
"""Intent -> words (English and Spanish, without accents) that mean it; the first that matches counts."""

_CAN = (
    "I answer from what was recorded: ask for the findings, how sure the reader is, where it looked, sizes, "
    "why it abstained, similar cases, the prior, or what this reader is bad at."
)
_NO_PRIOR = "No other study of this patient is in your worklists."
_DECLINED = "I do not advise on treatment. I can say what was recorded of this study."


def intent_of(question: str) -> str:
    """Which of :data:`INTENTS` a question means; ``unknown`` for none."""
    plain = unicodedata.normalize("NFKD", question.lower())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    for intent, patterns in INTENTS.items():
        if any(re.search(pattern, plain) for pattern in patterns):
            return intent
    return "unknown"


def answer(question: str, facts: Sequence[Fact], limits: Sequence[Fact] = ()) -> Answer:
    """Answer a question from facts; ``limits``: what the cards and audits of the readers say, as facts."""
    intent = intent_of(question)
    if intent == "treatment":
        return Answer(intent, (), plain=_DECLINED)
    maker = _MAKERS.get(intent)
    if maker is None:
        return Answer("unknown", (), plain=_CAN)
    return maker(facts, limits)


def _phrases(facts: Sequence[Fact]) -> tuple[Phrase, ...]:
    several = len({fact.image for fact in facts if fact.image}) > 1
    return tuple(
        Phrase(
            text=f"{fact.image.capitalize()}: {fact.text}" if several and fact.image else fact.text, facts=(fact.id,)
        )
        for fact in facts
    )


def _of(facts: Sequence[Fact], *kinds: str) -> list[Fact]:
    return [fact for fact in facts if fact.kind in kinds]


def _findings(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    return Answer("findings", _phrases(_of(facts, "gate", "finding")), plain="Nothing has been read yet.")


def _sure(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    return Answer("sure", _phrases(_of(facts, "gate", "finding", "set")), plain="There is no probability yet.")


def _where(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    found = _of(facts, "evidence")
    actions = tuple({"do": "show_heat_map", "result": fact.result, "label": fact.label} for fact in found if fact.value)
    return Answer("where", _phrases(found), actions, "No heat map was made: a negative or withheld answer has none.")


def _similar(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    found = _of(facts, "case", "vote")
    actions = tuple({"do": "show_case", "result": fact.result} for fact in found[:1]) or ({"do": "ask_similar"},)
    return Answer("similar", _phrases(found), actions, "Similar cases were not looked for yet; I can start that.")


def _prior(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    found = _of(facts, "prior")
    actions = tuple({"do": "open_beside", "study": fact.result} for fact in found)
    return Answer("prior", _phrases(found), actions, _NO_PRIOR)


def _compare(facts: Sequence[Fact], limits: Sequence[Fact]) -> Answer:
    """The findings of now before those of the other studies; whether something changed is for a person to say."""
    other = _prior(facts, limits)
    if not other.phrases:
        return Answer("compare", (), plain=_NO_PRIOR)
    now = _phrases(_of(facts, "gate", "finding"))
    return Answer("compare", (*now, *other.phrases), other.actions)


def _abstain(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    found = [*_of(facts, "gate"), *(fact for fact in _of(facts, "set") if fact.text.startswith("abstains"))]
    found += [fact for fact in _of(facts, "finding") if fact.value is None]
    return Answer("abstain", _phrases(found), plain="The reader did not abstain on this study.")


def _size(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    found = _of(facts, "measure", "organ", "agreement")
    actions = () if found else ({"do": "ask_masks"},)
    return Answer("size", _phrases(found), actions, "Nothing was measured yet; I can ask for organ masks.")


def _limits(_facts: Sequence[Fact], limits: Sequence[Fact]) -> Answer:
    return Answer("limits", _phrases(limits), plain="No reader has read this study yet.")


def _who(facts: Sequence[Fact], _limits: Sequence[Fact]) -> Answer:
    return Answer("who", _phrases(_of(facts, "model")), plain="No reader has read this study yet.")


_MAKERS: dict[str, Callable[[Sequence[Fact], Sequence[Fact]], Answer]] = {
    "findings": _findings,
    "sure": _sure,
    "where": _where,
    "similar": _similar,
    "compare": _compare,
    "prior": _prior,
    "abstain": _abstain,
    "size": _size,
    "limits": _limits,
    "who": _who,
}
