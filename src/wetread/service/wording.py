"""Whether the words that a language model put together say what the facts say, and nothing else.

Decided here: a sentence cites one fact and stands for it alone; its words are those of the fact or plain connecting
words, so that it can name no other finding, side, organ or treatment; the words that turn a meaning round (positive,
negative, not, left, right, withheld, failed, …) are the same ones, as often; it has all numbers of the fact or none,
in their order, each after the same word as in the fact; and every fact that the plain answer cites is cited once. This
refuses true sentences too. That costs nothing but style: the plain answer is given instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from wetread.service.facts import Fact, Phrase

__all__ = ["CONNECTING", "TURNING", "objection", "objections"]

CONNECTING = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "for", "from", "had", "has", "have", "here", "in",
    "is", "it", "its", "machine", "of", "on", "our", "read", "reader", "reading", "recorded", "says", "shows",
    "so", "that", "the", "there", "this", "to", "was", "were", "which", "with", "found", "finding", "findings",
    "result", "answer", "called", "gave", "given", "gives", "reported", "states",
})  # fmt: skip
"""Words that a sentence may have beside those of its fact: none of them says anything of a patient."""

TURNING = frozenset({
    "positive", "negative", "withheld", "abstain", "abstains", "abstained", "not", "no", "none", "never",
    "nothing", "without", "normal", "abnormal", "left", "right", "bilateral", "upper", "lower", "increased",
    "decreased", "large", "small", "larger", "smaller", "more", "less", "most", "least", "above", "below",
    "failed", "fail", "passed", "pass", "warn", "open", "unknown", "absent", "present", "only", "both", "neither",
    "either", "but", "except", "unless", "earlier",
    "later",
})  # fmt: skip
"""Words that turn the meaning of a sentence round."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*", re.UNICODE)
_NUMBER = re.compile(r"(?:(?<![\w.])-)?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(rf"{_NUMBER.pattern}|{_WORD.pattern}|%", re.UNICODE)


def objections(sentences: Sequence[Phrase], plain: Sequence[Phrase], facts: Sequence[Fact]) -> list[str]:
    """Why sentences must not stand for the ``plain`` phrases of an answer; empty where they may.

    The objections are for logs and tests: they name rules and places, never words that were refused.
    """
    by_id = {fact.id: fact for fact in facts}
    wanted = Counter(identifier for phrase in plain for identifier in phrase.facts)
    found = [f"sentence {number}: cites not one known fact" for number, sentence in enumerate(sentences, 1)
             if len(sentence.facts) != 1 or sentence.facts[0] not in by_id]  # fmt: skip
    if found:
        return found
    if Counter(sentence.facts[0] for sentence in sentences) != wanted:
        found.append("the sentences do not cite each fact of the plain answer once")
    for number, sentence in enumerate(sentences, 1):
        wrong = objection(sentence.text, by_id[sentence.facts[0]])
        if wrong:
            found.append(f"sentence {number}: {wrong}")
    return found


def objection(text: str, fact: Fact) -> str:
    """Why a sentence does not say what its fact says; empty where it does."""
    source = f"{fact.image}: {fact.text}"
    said, known = _tokens(text), _tokens(source)
    allowed = CONNECTING | set(known)
    if any(token not in allowed for token in said if not _is_number(token)):
        return "a word that is not of the fact"
    if Counter(token for token in said if token in TURNING) != Counter(token for token in known if token in TURNING):
        return "a word that turns the meaning round was added or left out"
    content = [token for token in known if token not in CONNECTING and not _is_number(token)]
    if fact.label and not set(_tokens(fact.label)) <= set(said):
        return "the label is left out"
    numbers, right = _anchored(said, content), _anchored(known, content)
    about_image = [pair for pair in right if pair[1] == "image"]
    if numbers and numbers not in (right, [pair for pair in right if pair not in about_image]):
        return "a number that is not of the fact, or not in its place"
    if not numbers and len(right) > len(about_image):
        return "the numbers are left out"
    return ""


def _anchored(tokens: Sequence[str], content: Sequence[str]) -> list[tuple[str, str]]:
    """(number, the nearest word of the fact before it, with a unit of percent after it) in order."""
    found, before, known = [], "", set(content)
    for place, token in enumerate(tokens):
        if _is_number(token):
            following = tokens[place + 1] if place + 1 < len(tokens) else ""
            found.append((token + ("%" if following == "%" else ""), before))
        elif token in known:
            before = token
    return found


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(text)]


def _is_number(token: str) -> bool:
    return token[-1:].isdigit()
