"""Questions and drafts: nothing is said that no fact says."""

from __future__ import annotations

import re

import pytest

from wetread.service.assistant import INTENTS, answer, intent_of
from wetread.service.facts import Fact, draft_of, facts_of_result, numbered

IMAGE = {"name": "x", "format": "PNG", "sha256": "0" * 64, "rows": 9, "columns": 9, "bits": 8, "patient": "SECRET"}
MODEL = {"name": "r", "version": "1", "sha256": "1" * 64, "audit_verdict": "WARN T8 on x"}


def read(**changes: object) -> dict[str, object]:
    label = {"label": "a", "probability": 0.81, "decision": "positive"}
    made = {"image": IMAGE, "applied": [], "gate": {"passed": True}, "labels": [label], "model": MODEL}
    return {**made, "timings_ms": {}, **changes}


GATED = read(
    gate={"passed": False, "reasons": ["a colour photograph"]},
    labels=[{"label": "a", "probability": None, "decision": "withheld", "reason": "a colour photograph"}],
)


@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("Where did you look?", "where"),
        ("where is the finding", "where"),
        ("How sure are you?", "sure"),
        ("show similar positives", "similar"),
        ("which cases look like this one", "similar"),
        ("compare with the prior", "compare"),
        ("Is there a prior study?", "prior"),
        ("¿Ha cambiado algo?", "compare"),
        ("Why did you abstain?", "abstain"),
        ("what is this reader bad at?", "limits"),
        ("can I trust it?", "limits"),
        ("How big is the heart?", "size"),
        ("what are the findings", "findings"),
        ("¿Qué tan seguro estás?", "sure"),
        ("¿Dónde está el hallazgo?", "where"),
        ("muéstrame casos parecidos", "similar"),
        ("which model read this", "who"),
        ("should I give antibiotics?", "treatment"),
        ("tell me a joke", "unknown"),
    ],
)
def test_questions_are_understood(question: str, intent: str) -> None:
    assert intent_of(question) == intent


def test_facts_hold_no_patient() -> None:
    facts = numbered(facts_of_result("read", read(), "image 1"))
    assert [fact.id for fact in facts] == ["f1", "f2"]
    assert "SECRET" not in str(facts)


def test_a_draft_cites_a_fact_for_every_phrase_and_every_number() -> None:
    facts = numbered([*facts_of_result("read", read(), "image 1"), *facts_of_result("read", GATED, "image 2")])
    by_id = {fact.id: fact for fact in facts}
    phrases = draft_of(facts)
    assert [phrase.text for phrase in phrases] == [
        "Image 1: a positive, probability 0.81.",
        "Image 2: not read: a colour photograph",
        "Read by r 1 (111111111111, WARN T8 on x).",
    ]
    for phrase in phrases:
        cited = " ".join(by_id[one].text + by_id[one].image for one in phrase.facts)
        assert all(number in cited for number in re.findall(r"\d+(?:\.\d+)?", phrase.text))


def test_answers_are_made_of_facts_alone() -> None:
    facts = numbered(facts_of_result("read", read(), "image 1"))
    found = answer("How sure are you?", facts)
    assert found.text == "a positive, probability 0.81."
    assert found.phrases[0].facts == ("f2",)
    assert answer("Should I treat?", facts).phrases == ()
    assert "I answer from what was recorded" in answer("hm", facts).text
    gated = numbered(facts_of_result("read", GATED, "image 1"))
    assert answer("why did you abstain", gated).text == "not read: a colour photograph"
    assert answer("why did you abstain", facts).text == "The reader did not abstain on this study."


def test_every_intent_has_an_answer_without_any_fact() -> None:
    for intent in (*INTENTS, "unknown"):
        words = {
            "treatment": "treat",
            "abstain": "abstain",
            "prior": "prior",
            "compare": "compare",
            "limits": "trust",
            "size": "size",
        }
        assert answer(words.get(intent, intent), ()).text


def test_similar_cases_and_their_vote_become_facts() -> None:
    neighbour = {"rank": 1, "labels": ["a"], "distance": 0.1234}
    record = {"neighbours": [neighbour], "vote": {"a": {"positive": 1, "known": 1, "share": 0.75}}}
    facts = numbered(facts_of_result("similar", record, "image 1"))
    assert [fact.text for fact in facts] == [
        "Similar case 1: a, distance 0.123.",
        "1 of the 1 most similar cases with a known outcome have a.",
    ]
    assert isinstance(facts[0], Fact)
    assert answer("similar cases?", facts).actions == ({"do": "show_case", "result": ""},)
