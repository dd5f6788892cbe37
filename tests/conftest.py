"""What every test gets: one thread, no user files, no network settings, the shared data or a skip.

The environment is set before torch, matplotlib or wetread are imported, hence at module level.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
_SHARED_DATA = Path(os.environ.get("WETREAD_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
_ASKED = {"WETREAD_UPDATE_SCREENSHOTS"}  # asks a test to write docs/images; the product reads no such setting
for _name in [name for name in os.environ if name.startswith("WETREAD_") and name not in _ASKED]:
    del os.environ[_name]  # a developer's own settings must not decide a test
for _name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[_name] = "1"

settings.register_profile(
    "wetread",
    deadline=None,  # timing decides nothing here
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("wetread")


@dataclass(frozen=True)
class CliResult:
    """What one run of the command line gave."""

    exit_code: int
    stdout: str
    stderr: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest: at the end it would keep one core busy and the others waiting."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_examples.py"))


@pytest.fixture(autouse=True)
def _own_user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep user configuration, data and cache of the machine out of every test."""
    home = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data, used in place; skips where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {_SHARED_DATA}: set WETREAD_SHARED_DATA to its folder")
    return _SHARED_DATA


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., CliResult]:
    """``cli("read", path, "--json")`` runs the command line in this process."""

    def run_command(*arguments: object) -> CliResult:
        from wetread.cli.main import run

        capsys.readouterr()
        exit_code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return CliResult(exit_code, captured.out, captured.err)

    return run_command
