"""A language model may choose words and nothing else: one that tells the truth is heard, one that lies is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.service.test_api import CANARY, as_role, do_jobs, film, upload
from wetread.errors import UsageError
from wetread.service.context import Service
from wetread.service.facts import Fact, Phrase
from wetread.service.language import LanguageModel, language_model, word_answer
from wetread.service.tables import AuditEntry, Study
from wetread.service.wording import objection, objections

FINDING = Fact(
    id="f1", kind="finding", image="image 1", label="pneumonia", value=0.81,
    text="pneumonia positive, probability 0.812, positive from 0.500 (balanced).",
)  # fmt: skip
SIDE = Fact(id="f2", kind="measure", image="image 1", label="left lung area", text="area of left lung 21.50 mm2.")
GATE = Fact(id="f3", kind="gate", image="image 2", text="not read: a colour photograph")
SHARE = Fact(id="f4", kind="organ", image="image 1", label="heart", text="heart covers 12.5% of it; nothing odd.")

TRUE = [
    (
        FINDING,
        "On image 1 the reader has pneumonia positive, with probability 0.812, positive from 0.500 (balanced).",
    ),
    (FINDING, "Pneumonia is positive with probability 0.812 and positive from 0.500."),
    (SIDE, "The area of the left lung is 21.50 mm2."),
    (SIDE, "In image 1 the area of the left lung was 21.50 mm2."),
    (GATE, "Image 2 was not read: a colour photograph."),
    (SHARE, "The heart of image 1 covers 12.5% of it; nothing odd."),
]
FALSE = [
    (FINDING, "Pneumonia is positive with probability 0.912 and positive from 0.500.", "number"),
    (FINDING, "Pneumonia is positive with probability 0.500 and positive from 0.812.", "number"),
    (FINDING, "Pneumonia is positive with probability 0.812, positive from 0.500, image 2.", "number"),
    (FINDING, "Pneumonia is positive with probability 81.2%, positive from 0.500.", "not of the fact"),
    (FINDING, "Pneumonia is positive, positive.", "numbers are left out"),
    (FINDING, "Pneumonia is positive, probability 0.812.", "turns the meaning"),
    (FINDING, "Pneumothorax is positive with probability 0.812 and positive from 0.500.", "not of the fact"),
    (FINDING, "Pneumonia is negative with probability 0.812 and negative from 0.500.", "not of the fact"),
    (FINDING, "Pneumonia is not positive, with probability 0.812, positive from 0.500.", "not of the fact"),
    (FINDING, "The answer is positive, probability 0.812, positive from 0.500.", "label is left out"),
    (FINDING, "Pneumonia positive, probability 0.812, positive from 0.500. Give amoxicillin.", "not of the fact"),
    (FINDING, "Pneumonia positive, probability 0.812, positive from 0.500, on two films.", "not of the fact"),
    (SIDE, "The area of the right lung is 21.50 mm2.", "not of the fact"),
    (SIDE, "The area of the lung is 21.50 mm2.", "turns the meaning"),
    (SIDE, "The area of the left lung is -21.50 mm2.", "number"),
    (GATE, "Image 2 was read: a colour photograph.", "turns the meaning"),
    (SHARE, "The heart covers 12.5 of it; nothing odd.", "number"),
]


@pytest.mark.parametrize(("fact", "text"), TRUE)
def test_true_words_pass(fact: Fact, text: str) -> None:
    assert objection(text, fact) == ""


@pytest.mark.parametrize(("fact", "text", "why"), FALSE)
def test_false_words_are_objected_to(fact: Fact, text: str, why: str) -> None:
    assert why in objection(text, fact)


def test_every_fact_is_told_once_by_a_sentence_of_its_own() -> None:
    plain = [Phrase(text=fact.text, facts=(fact.id,)) for fact in (SIDE, SHARE)]
    good = [Phrase(text="The area of left lung is 21.50 mm2.", facts=("f2",)), Phrase(text=SHARE.text, facts=("f4",))]
    assert objections(good, plain, [SIDE, SHARE]) == []
    assert "each fact of the plain answer once" in objections(good[:1], plain, [SIDE, SHARE])[0]
    assert objections([*good, good[0]], plain, [SIDE, SHARE]) != []
    both = [Phrase(text=SHARE.text, facts=("f2", "f4"))]
    assert objections(both, plain, [SIDE, SHARE]) == ["sentence 1: cites not one known fact"]
    swapped = [Phrase(text=good[0].text, facts=("f4",)), Phrase(text=good[1].text, facts=("f2",))]
    assert len(objections(swapped, plain, [SIDE, SHARE])) == 2


Teller = Callable[[list[dict[str, str]]], Any]


class Endpoint:
    """A local service that speaks as OpenAI's does. ``tell`` makes sentences, or anything else, of the facts."""

    def __init__(self) -> None:
        self.tell: Teller = truth
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(body.decode())
                messages = json.loads(body)["messages"]
                facts = json.loads(messages[-1]["content"])["facts"]
                content = json.dumps({"sentences": outer.tell(facts)})
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                told = {
                    "id": "x", "object": "chat.completion", "created": 1, "model": "liar", "choices": [choice],
                    "usage": usage,
                }  # fmt: skip
                data = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def truth(facts: list[dict[str, str]]) -> Any:
    return [{"text": f"The reader says: {fact['text']}", "fact": fact["id"]} for fact in facts]


def changed(old: str, new: str) -> Teller:
    return lambda facts: [{"text": fact["text"].replace(old, new), "fact": fact["id"]} for fact in facts]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    pytest.importorskip("pydantic_ai", reason="uv pip install 'pydantic-ai-slim[openai]'")
    opened = Endpoint()
    yield opened
    opened.close()


@pytest.fixture
def asked(service: Service, endpoint: Endpoint) -> tuple[TestClient, str]:
    """A client of a service with that model, and a read study of a patient whose texts are canaries."""
    client = as_role(replace(service, language=LanguageModel(endpoint.url, "liar", "key")), "admin")
    study = str(upload(client, film(1)).json()["studies"][0]["id"])
    do_jobs(service)
    with service.database.write() as session:
        row = session.get_one(Study, study)
        row.patient_name = row.patient_id = row.title = CANARY
    return client, study


def ask(client: TestClient, study: str) -> dict[str, Any]:
    answer = client.post(f"/api/v1/studies/{study}/ask", json={"question": f"How sure are you about {CANARY}?"})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_the_truth_is_heard(asked: tuple[TestClient, str], endpoint: Endpoint, service: Service) -> None:
    found = ask(*asked)
    assert found["worded_by"] == "liar"
    assert found["text"] == "The reader says: image 1: pneumonia positive, probability 0.90."
    assert [phrase["facts"] for phrase in found["phrases"]] == [[fact["id"]] for fact in found["facts"]]
    assert CANARY not in "".join(endpoint.asked)  # neither of the study nor of the question
    with service.database.read() as session:
        (line,) = session.scalars(select(AuditEntry).where(AuditEntry.action == "word answer")).all()
    assert line.detail["taken"] is True
    assert len(line.detail["prompt"]) == 64


LIES: dict[str, Teller] = {
    "number": changed("0.90", "0.99"),
    "label": changed("pneumonia", "pneumothorax"),
    "decision": changed("positive", "negative"),
    "side": changed("pneumonia", "left pneumonia"),
    "advice": changed("0.90.", "0.90. Give amoxicillin."),
    "another fact": lambda facts: [{"text": facts[0]["text"], "fact": "f99"}],
    "nothing": lambda facts: [],
    "no list": lambda facts: "pneumonia",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_not(asked: tuple[TestClient, str], endpoint: Endpoint, lie: str) -> None:
    endpoint.tell = LIES[lie]
    found = ask(*asked)
    assert endpoint.asked
    assert found["worded_by"] == ""
    assert found["text"] == "pneumonia positive, probability 0.90."


def test_a_model_that_is_away_costs_nothing_but_style() -> None:
    pytest.importorskip("pydantic_ai", reason="uv pip install 'pydantic-ai-slim[openai]'")
    plain = [Phrase(text=SIDE.text, facts=("f2",))]
    worded = word_answer(LanguageModel("http://127.0.0.1:1/v1", "none", timeout_s=2), "size", plain, [SIDE])
    assert worded.phrases is None
    assert "Error" in worded.why


def test_there_is_no_model_unless_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert language_model("", "x") is None
    with pytest.raises(UsageError, match="behind TLS or on this machine, got another address"):
        language_model("http://models.example/v1", "x")
    with pytest.raises(UsageError, match="the name of the language model, got none; give --language-model NAME"):
        language_model("http://127.0.0.1:1/v1", "")
    pytest.importorskip("pydantic_ai", reason="uv pip install 'pydantic-ai-slim[openai]'")
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("WETREAD_LANGUAGE_MODEL_KEY_FILE", str(tmp_path / "key"))
    found = language_model("https://models.example/v1", "x")
    assert found is not None
    assert found.key == "secret"
    assert "secret" not in repr(found)
