"""Precedence, unknown keys and bad values of the settings table."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from wetread.errors import UsageError
from wetread.settings import FILE_NAME, Settings, load_settings, settings_table, user_file


@pytest.fixture(autouse=True)
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _user(text: str) -> None:
    user_file().parent.mkdir(parents=True, exist_ok=True)
    user_file().write_text(text)


def test_each_source_is_overruled_by_the_one_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().runtime.threads == 0
    _user("[runtime]\nthreads = 1\n")
    assert load_settings().runtime.threads == 1
    Path(FILE_NAME).write_text("[runtime]\nthreads = 2\n")
    assert load_settings().runtime.threads == 2
    monkeypatch.setenv("WETREAD_RUNTIME__THREADS", "3")
    assert load_settings().runtime.threads == 3
    assert load_settings({"runtime.threads": 4}).runtime.threads == 4
    assert load_settings({"runtime.threads": None}).runtime.threads == 3


def test_sources_mix_within_one_section(monkeypatch: pytest.MonkeyPatch) -> None:
    _user('[paths]\ncache = "from-user"\nruns = "from-user"\n')
    Path(FILE_NAME).write_text('[paths]\nruns = "from-project"\n')
    paths = load_settings({"paths.readers": Path("from-flag")}).paths
    assert (paths.readers, paths.runs, paths.cache) == (
        Path("from-flag"),
        Path("from-project"),
        Path("from-user"),
    )


def test_default_folders_are_those_of_the_user_at_load_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().paths.cache.is_relative_to(tmp_path / "elsewhere")


def test_unknown_key_in_a_file_names_the_file_and_the_nearest_key() -> None:
    Path(FILE_NAME).write_text("[runtime]\nthread = 2\n")
    with pytest.raises(UsageError, match=r"wetread\.toml, got 'runtime\.thread'; did you mean 'runtime\.threads'\?"):
        load_settings()


def test_unknown_section_lists_what_there_is() -> None:
    _user("[zzz]\nqqq = 1\n")
    with pytest.raises(UsageError, match=r"got 'zzz\.qqq'; use one of paths\.readers, "):
        load_settings()


def test_key_outside_any_section_is_unknown() -> None:
    Path(FILE_NAME).write_text("threads = 2\n")
    with pytest.raises(UsageError, match=r"got 'threads'; did you mean 'runtime\.threads'\?"):
        load_settings()


@pytest.mark.parametrize("name", ["WETREAD_RUNTIME__THREAD", "WETREAD_RUNTIME_THREADS", "WETREAD_RUNTIM__THREADS"])
def test_mistyped_environment_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match=rf"environment, got '{name}'; did you mean 'WETREAD_RUNTIME__THREADS'\?"):
        load_settings()


def test_other_variables_of_the_same_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WETREAD_SHARED_DATA", "/somewhere")
    assert load_settings().runtime.threads == 0


def test_unknown_flag_is_refused() -> None:
    with pytest.raises(UsageError, match=r"in a flag, got 'paths\.reader'; did you mean 'paths\.readers'\?"):
        load_settings({"paths.reader": "x"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[runtime]\nthreads = -1\n", r"'runtime\.threads', got -1 \(input should be greater"),
        ('[runtime]\nthreads = "two"\n', r"'runtime\.threads', got 'two' \(input should be a valid integer"),
        ("[imaging]\nbudget_bytes = 1\n", r"'imaging\.budget_bytes', got 1 "),
        ("runtime = 3\n", r"got 'runtime'"),
        ("[runtime\n", r"expected TOML in wetread\.toml, got .* correct that line"),
    ],
)
def test_bad_values_are_one_line(text: str, message: str) -> None:
    Path(FILE_NAME).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings.runtime, "threads", 5)  # noqa: B010 - the type checker refuses it too
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, "runtime", settings.runtime)  # noqa: B010


def test_every_setting_has_unit_and_help() -> None:
    table = settings_table()
    assert {setting.key.split(".")[0] for setting in table} == set(Settings.model_fields)
    for setting in table:
        assert setting.unit, setting.key
        assert setting.help, setting.key
        assert setting.default, setting.key


CANDIDATES = (
    "refuse",
    "7",
    "1048577",
    "11113",
    "0.25",
    "/elsewhere",
    "true",
    "false",
    '["here"]',
    "{}",
    '{"A": ["192.0.2.1"]}',
)
"""Values that fit one kind of setting or another."""


def fitting(key: str) -> tuple[str, object]:
    """A value for the environment that the setting takes and that is not its default, and what it becomes."""
    section, name = key.split(".")
    default = getattr(getattr(load_settings(), section), name)
    made = type(getattr(load_settings(), section))
    for text in CANDIDATES:
        with contextlib.suppress(ValidationError):
            value = json.loads(text) if text[0] in "[{" else text
            found = getattr(made.model_validate({name: value}), name)
            if found != default:
                return text, found
    raise AssertionError(f"no candidate fits {key}; add one")


def test_table_names_the_environment_variable_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = {"node.remotes", "node.rules"}  # tables of tables, which belong in a file
    for setting in settings_table():
        if setting.key in nested:
            continue
        text, value = fitting(setting.key)
        monkeypatch.setenv(setting.environment, text)
        section, name = setting.key.split(".")
        assert getattr(getattr(load_settings(), section), name) == value
        monkeypatch.delenv(setting.environment)


def test_budget_default_is_that_of_the_imaging_layer() -> None:
    from wetread.imaging import DEFAULT_BUDGET_BYTES

    assert load_settings().imaging.budget_bytes == DEFAULT_BUDGET_BYTES
