"""The table of verbs, and what every kind of failure looks like to a person and to a script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer

from tests.conftest import CliResult
from wetread import __version__, errors
from wetread.cli import main as cli_main
from wetread.cli.main import VERBS, Verb, load_verb, overview

Cli = Callable[..., CliResult]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """``plant(function)`` makes it the verb ``planted``."""

    def plant_verb(function: Callable[..., object]) -> None:
        module = ModuleType("planted_verb")
        module.command = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "planted_verb", module)
        monkeypatch.setitem(VERBS, "planted", Verb("planted_verb:command", "For a test."))

    return plant_verb


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_overview(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result == CliResult(0, overview() + "\n", "")
    for name, verb in VERBS.items():
        assert name in result.stdout
        assert verb.help in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_version(cli: Cli) -> None:
    assert cli("--version") == CliResult(0, f"wetread {__version__}\n", "")


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_verb_explains_itself(cli: Cli, verb: str, flag: str) -> None:
    result = cli(verb, flag)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: wetread {verb} ")
    assert result.stderr == ""


@pytest.mark.parametrize("verb", list(VERBS))
def test_an_unknown_flag_is_a_usage_error(cli: Cli, verb: str) -> None:
    result = cli(verb, "--no-such-flag")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--no-such-flag" in result.stderr or "Usage:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("typed", "cure"), [("raed", "did you mean 'read'?"), ("xyz", "use one of read, dataset, train")]
)
def test_an_unknown_verb_gets_a_suggestion(cli: Cli, typed: str, cure: str) -> None:
    result = cli(typed)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: expected a verb of wetread, got '{typed}'; {cure}")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if isinstance(getattr(errors, name), type)])
def test_every_error_is_one_line_with_its_exit_code(
    cli: Cli, plant: Callable[[Callable[..., object]], None], name: str
) -> None:
    error = getattr(errors, name)

    def fail() -> None:
        raise error("expected a,\n got b; do c")

    plant(fail)
    assert cli("planted") == CliResult(error.exit_code, "", "error: expected a, got b; do c\n")


def test_an_unexpected_error_shows_its_class_and_nothing_of_its_text(
    cli: Cli, plant: Callable[[Callable[..., object]], None]
) -> None:
    def fail() -> None:
        raise ValueError("PatientName Doe^Jane")

    plant(fail)
    result = cli("planted")
    assert result == CliResult(1, "", "error: unexpected ValueError; run again with --debug to see where\n")


@pytest.mark.parametrize("place", [["--debug", "planted"], ["planted", "--debug"]])
def test_debug_shows_the_traceback(cli: Cli, plant: Callable[[Callable[..., object]], None], place: list[str]) -> None:
    def fail() -> None:
        raise errors.InputRefused("expected a, got b; do c")

    plant(fail)
    result = cli(*place)
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("error: expected a, got b; do c\n")


def test_debug_after_two_dashes_is_an_argument(cli: Cli, plant: Callable[[Callable[..., object]], None]) -> None:
    def show(name: str) -> None:
        typer.echo(name)

    plant(show)
    assert cli("planted", "--", "--debug") == CliResult(0, "--debug\n", "")


def test_interruption(cli: Cli, plant: Callable[[Callable[..., object]], None]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    plant(fail)
    assert cli("planted") == CliResult(130, "", "interrupted\n")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (5, 5), (True, 0), ("text", 0)])
def test_a_verb_may_return_its_exit_code(
    cli: Cli, plant: Callable[[Callable[..., object]], None], returned: object, code: int
) -> None:
    plant(lambda: returned)
    assert cli("planted").exit_code == code


def test_a_verb_may_raise_exit(cli: Cli, plant: Callable[[Callable[..., object]], None]) -> None:
    def stop() -> None:
        raise typer.Exit(1)

    plant(stop)
    assert cli("planted") == CliResult(1, "", "")


def test_a_missing_argument_names_the_help(cli: Cli) -> None:
    result = cli("models", "show")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Missing argument")
    assert result.stderr.endswith("See 'wetread models show --help'.\n")


def test_a_group_without_a_command_explains_itself(cli: Cli) -> None:
    result = cli("models")
    assert result.exit_code == 2
    assert "Usage: wetread models" in result.stdout + result.stderr


def test_each_verb_lives_in_a_module_of_its_own() -> None:
    modules = [verb.target.split(":")[0] for verb in VERBS.values()]
    assert len(set(modules)) == len(modules)
    for name in VERBS:
        assert load_verb(name).name == name


def test_a_closed_pipe_is_no_traceback() -> None:
    code = "import sys; from wetread.cli.main import run; sys.exit(run(['--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert complaint == b""


def test_a_full_stdout_is_an_error_not_a_silence() -> None:
    code = "import sys; from wetread.cli.main import run; sys.exit(run(['--version']))"
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0
    assert b"error: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wetread", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        cli_main.main()
