"""The files of deploy/: that they are well formed, and that what they name exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wetread.cli.main import load_verb
from wetread.settings import settings_table

UNITS = ("wetread.service", "wetread-worker@.service")


@pytest.fixture
def deploy(repository: Path) -> Path:
    return repository / "deploy"


def options_of(verb: str) -> set[str]:
    return {name for parameter in load_verb(verb).params for name in (*parameter.opts, *parameter.secondary_opts)}


def check_command(words: list[str]) -> None:
    """A command line of wetread names a verb and options that there are."""
    verb, *rest = words
    used = {word for word in rest if word.startswith("--")}
    assert used <= options_of(verb), f"{verb}: {used - options_of(verb)}"


def check_variables(names: set[str]) -> None:
    known = {setting.environment for setting in settings_table()}
    ours = {name for name in names if name.startswith("WETREAD_")}
    assert ours <= known, ours - known


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_names_verbs_options_and_settings_that_exist(deploy: Path, name: str) -> None:
    text = (deploy / name).read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    program, *words = shlex.split(command)
    assert Path(program).name == "wetread"
    check_command(words)
    check_variables({line.partition("=")[0] for line in re.findall(r"^Environment=(.*)$", text, re.M)})


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(deploy: Path, tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt install systemd")
    text = (deploy / name).read_text().replace("/opt/wetread/.venv/bin/wetread", sys.executable)
    assert "/opt/wetread" not in text
    unit = tmp_path / name
    unit.write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.M))
    run = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    if "Failed to" in run.stderr and "bus" in run.stderr:
        pytest.skip("systemd-analyze does not run here")
    assert run.returncode == 0, run.stderr
    assert name.partition("@")[0] not in run.stderr, run.stderr


def test_the_compose_file_is_whole(deploy: Path) -> None:
    yaml = pytest.importorskip("yaml")
    document: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text())
    services = document["services"]
    assert set(services) == {"database", "server", "worker"}
    for name, service in services.items():
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(document["volumes"]), name
    for name in ("server", "worker"):
        check_command(services[name]["command"])
        check_variables(set(services[name]["environment"]))
        assert services[name]["read_only"] is True
        assert services[name]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert all(port.startswith("127.0.0.1:") for port in services["server"]["ports"])
    assert "${DATABASE_PASSWORD" in services["server"]["environment"]["WETREAD_SERVICE__DATABASE_URL"]
    assert services["database"]["environment"]["POSTGRES_PASSWORD"] == "${DATABASE_PASSWORD}"  # none is written here


def test_the_image_is_built_from_what_is_locked(deploy: Path, repository: Path) -> None:
    text = (deploy / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock" in text
    assert "USER wetread" in text
    version = re.search(r"^UV_VERSION := (\S+)$", (repository / "Makefile").read_text(), re.M)
    assert version is not None
    assert f"uv=={version.group(1)}" in text
