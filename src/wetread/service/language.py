"""A language model that may word an answer anew; off unless an address is given.

Decided here: it is given the facts of the plain answer and the kind of question, never the question itself, which
might name a patient, and never a picture; what it says is checked word by word (:mod:`wetread.service.wording`) and
dropped for the plain answer where it is refused, late or away. It cannot call anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from wetread.errors import UsageError, expected
from wetread.service.facts import Fact, Phrase
from wetread.service.wording import objections

__all__ = ["KEY_VARIABLE", "LanguageModel", "Worded", "language_model", "word_answer"]

logger = logging.getLogger(__name__)

KEY_VARIABLE = "WETREAD_LANGUAGE_MODEL_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_INSTRUCTIONS = (
    "You word recorded facts of a machine reading of a medical image for a physician. You get a kind of question and "
    "facts with ids. Write one short English sentence for each fact and cite its id. Use the words and the numbers of "
    "the fact as they stand, each number right after the same word as in the fact, and keep its order. Add no finding, "
    "no side, no size, no advice, no opinion."
)


@dataclass(frozen=True)
class LanguageModel:
    """``url`` of an OpenAI-compatible service, ``name`` of the model there, ``key`` for it (may be empty)."""

    url: str
    name: str
    key: str = field(default="", repr=False)
    timeout_s: float = 20.0


@dataclass(frozen=True)
class Worded:
    """What became of an answer. ``phrases``: None where the plain ones stay, and ``why`` then.

    ``prompt_sha256``: of all that was sent.
    """

    phrases: tuple[Phrase, ...] | None
    why: str
    prompt_sha256: str


class _Sentence(BaseModel):
    text: str = Field(min_length=1, max_length=500)
    fact: str = Field(description="id of the one fact that the sentence is about")


class _Sentences(BaseModel):
    sentences: list[_Sentence] = Field(min_length=1, max_length=64)


def language_model(url: str, name: str) -> LanguageModel | None:
    """The model at ``url``, None for an empty one; its key is read from the environment or the file named there.

    Raises:
        UsageError: no name, an address that sends facts in the clear to another machine, a key file that is not there,
            or the package pydantic_ai is not installed.
    """
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        cure = "give https://… or an address of this machine"
        raise UsageError(expected("a language model behind TLS or on this machine", "another address", cure))
    if not name:
        raise UsageError(expected("the name of the language model", "none", "give --language-model NAME"))
    if find_spec("pydantic_ai") is None:
        raise UsageError(expected("the package pydantic_ai", "an installation without", "install wetread[llm]"))
    return LanguageModel(url, name, _key())


def word_answer(model: LanguageModel, intent: str, plain: Sequence[Phrase], facts: Sequence[Fact]) -> Worded:
    """Ask the model to word the phrases of a plain answer; whatever goes wrong, the plain ones stay."""
    told = [{"id": fact.id, "text": f"{fact.image}: {fact.text}" if fact.image else fact.text} for fact in facts]
    prompt = json.dumps({"kind of question": intent, "facts": told}, ensure_ascii=False)
    digest = hashlib.sha256(f"{_INSTRUCTIONS}\n{prompt}".encode()).hexdigest()
    try:
        made = asyncio.run(_ask(model, prompt))
    except Exception as error:  # of any kind: a network, a server, an answer of another shape
        logger.warning("the language model did not answer: %s", type(error).__name__)
        return Worded(None, type(error).__name__, digest)
    sentences = tuple(Phrase(text=one.text.strip(), facts=(one.fact,)) for one in made.sentences)
    wrong = objections(sentences, plain, facts)
    return Worded(None, "; ".join(wrong)[:300], digest) if wrong else Worded(sentences, "", digest)


async def _ask(model: LanguageModel, prompt: str) -> _Sentences:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    # A key that is empty would be looked for in the environment, under a name that others use.
    client = AsyncOpenAI(base_url=model.url, api_key=model.key or "none", timeout=model.timeout_s, max_retries=0)
    async with client:
        agent = Agent(
            OpenAIChatModel(model.name, provider=OpenAIProvider(openai_client=client)),
            output_type=NativeOutput(_Sentences),
            instructions=_INSTRUCTIONS,
            retries=0,
            model_settings={"temperature": 0.0, "max_tokens": 1500},
        )
        return (await agent.run(prompt)).output


def _key() -> str:
    file = os.environ.get(f"{KEY_VARIABLE}_FILE")
    if not file:
        return os.environ.get(KEY_VARIABLE, "")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            expected("a file with the key of the language model", "none that can be read", f"check {KEY_VARIABLE}_FILE")
        ) from None
