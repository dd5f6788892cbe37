"""``wetread pacs`` against a node that runs: ask, send, refusals and their exit codes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from tests.pacs.node_support import film, running

Cli = Callable[..., CliResult]


@pytest.fixture(autouse=True)
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_echo_and_send_to_a_node(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for seed in (1, 2):
        film(tmp_path / "films" / f"{seed}.dcm", seed)
    (tmp_path / "films" / "note.txt").write_text("not DICOM")
    with running(tmp_path / "node") as node:
        remote = f"WETREAD@127.0.0.1:{node.port}"
        asked = cli("pacs", "echo", remote)
        assert (asked.exit_code, "answers in" in asked.stdout) == (0, True)
        sent = cli("pacs", "send", remote, tmp_path / "films")
        assert sent.exit_code == 1
        assert f"2 of 3 sent to {remote}" in sent.stdout
        assert "no DICOM file" in sent.stderr
        Path("wetread.toml").write_text(
            f'[node.remotes.near]\ntitle = "WETREAD"\nhost = "127.0.0.1"\nport = {node.port}\n'
        )
        assert cli("pacs", "send", "near", tmp_path / "films" / "1.dcm").exit_code == 0
        assert len(node.rows()) == 2


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of pynetdicom, closed at once
def test_a_system_that_is_not_there_is_exit_code_4(cli: Cli) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = cli("pacs", "echo", f"AWAY@127.0.0.1:{port}")
    assert result.exit_code == 4
    assert f"error: expected an answer from AWAY at 127.0.0.1:{port}, got no association" in result.stderr
    assert cli("pacs", "find", f"http://127.0.0.1:{port}/dicom-web").exit_code == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("echo", "nowhere"), "expected a remote, got 'nowhere'; use TITLE@host:port, a URL, or a name (none is set)"),
        (("echo", "A@b:99999"), "expected a remote, got 'A@b:99999'"),
        (("find", "A@localhost:1", "--query", "PatientID"), "expected --query Keyword=value, got 'PatientID'"),
        (("find", "A@localhost:1", "--query", "Nme=x"), "expected a DICOM keyword to search by, got 'Nme'"),
        (("send", "A@localhost:1", "."), "expected files to send, got none"),
    ],
)
def test_mistakes_are_named_before_anybody_is_called(cli: Cli, words: tuple[str, ...], message: str) -> None:
    result = cli("pacs", *words)
    assert result.exit_code == 2
    assert message in result.stderr
