"""The tools for other programs: as an MCP client meets them over stdio, without patient data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.service.test_api import CANARY, as_role, client, do_jobs, film, upload
from wetread.service.accounts import add_user, make_token
from wetread.service.context import Service
from wetread.service.problems import Problem
from wetread.service.tables import AuditEntry, Study, Token
from wetread.service.tools import Tools

__all__ = ["client"]

PROGRAM = "import sys; from wetread.cli.mcp import command; import typer; typer.run(command)"


def token_of(service: Service, scopes: tuple[str, ...], trays: tuple[str, ...] = ("*",)) -> str:
    with service.database.write() as session:
        user = add_user(session, f"robot {len(session.scalars(select(Token)).all())}", "reader", None, trays)
        return make_token(session, user, "mcp", list(scopes), 3600)[1]


@pytest.fixture
def study(service: Service) -> str:
    """A read study of a patient whose every text is a canary."""
    made = str(upload(as_role(service, "admin"), film(1)).json()["studies"][0]["id"])
    do_jobs(service)
    with service.database.write() as session:
        row = session.get_one(Study, made)
        row.patient_name = row.patient_id = row.title = row.study_date = row.patient_sex = CANARY
        row.patient_age, row.study_uid, row.search = 77.5, CANARY, CANARY
    return made


def test_over_stdio_the_tools_say_what_the_assistant_says(service: Service, study: str) -> None:
    pytest.importorskip("mcp", reason="uv pip install mcp")
    import anyio
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", PROGRAM, "--root", str(service.root)],
        env={"WETREAD_TOKEN": token_of(service, ("read",)), "OMP_NUM_THREADS": "1"},
    )
    said: dict[str, Any] = {}

    async def talk() -> None:
        async with Client(server, read_timeout_seconds=120) as found:
            said["tools"] = {tool.name for tool in (await found.list_tools()).tools}
            said["instructions"] = found.instructions
            for name, arguments in (
                ("list_studies", {}),
                ("facts", {"study_id": study}),
                ("ask", {"study_id": study, "question": "How sure are you?"}),
                ("readers", {}),
                ("request_masks", {"study_id": study}),
                ("facts", {"study_id": CANARY}),
            ):
                answer = await found.call_tool(name, arguments)
                text = "\n".join(part.text for part in answer.content if part.type == "text")
                said[f"{name} {answer.is_error}"] = text

    anyio.run(talk)
    assert said["tools"] == {"list_studies", "facts", "ask", "readers", "request_masks", "request_similar", "job"}
    assert "without patient data" in said["instructions"]
    assert json.loads(said["list_studies False"])["studies"][0]["finding"] == "pneumonia"
    assert "pneumonia positive, probability 0.90" in said["facts False"]
    assert json.loads(said["ask False"])["intent"] == "sure"
    assert "chest-pneumonia" in said["readers False"]
    assert "forbidden: This needs a token with the scope write." in said["request_masks True"]
    assert "not_found: No such study." in said["facts True"]
    assert CANARY not in str(said)
    assert "77.5" not in str(said)


def test_a_token_sees_its_own_worklists_and_ends_when_it_is_revoked(service: Service, study: str) -> None:
    stranger = Tools(service, token_of(service, ("read",), ("ward",)))
    assert stranger.list_studies() == {"total": 0, "studies": []}
    with pytest.raises(Problem, match="No such study"):
        stranger.facts(study)
    with pytest.raises(Problem, match="unknown, expired or revoked"):
        Tools(service, "wr_nonsense").list_studies()
    with service.database.write() as session:
        for token in session.scalars(select(Token)):
            token.revoked = True
    with pytest.raises(Problem, match="unknown, expired or revoked"):
        stranger.list_studies()


def test_work_is_asked_for_once_and_noted(service: Service, study: str) -> None:
    tools = Tools(service, token_of(service, ("read", "write")))
    (asked,) = tools.request_masks(study)
    assert tools.request_masks(study) == [asked]
    assert tools.job(asked["job"]) == {"job": asked["job"], "kind": "segment", "state": "queued", "code": None}
    with pytest.raises(Problem, match="no index of past cases"):
        tools.request_similar(study)
    tools.facts(study)
    tools.ask(study, f"Is {CANARY} ill? How sure?")
    with service.database.read() as session:
        lines = session.scalars(select(AuditEntry).where(AuditEntry.request_id == "mcp")).all()
    assert [line.action for line in lines] == ["ask segment", "ask segment", "view facts", "ask"]
    assert CANARY not in str([line.detail for line in lines])


def test_without_a_token_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.cli.mcp import command
    from wetread.errors import UsageError

    monkeypatch.delenv("WETREAD_TOKEN", raising=False)
    with pytest.raises(UsageError, match="expected a token of the service, got none; make one with POST"):
        command(root=tmp_path / "service")
    with pytest.raises(UsageError, match="one that cannot be read; check --token-file"):
        command(root=tmp_path / "service", token_file=tmp_path / "none")
    assert not (tmp_path / "service").exists()
