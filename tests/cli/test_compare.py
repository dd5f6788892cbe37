"""``wetread compare``: one table, one page and one sheet for each reader; going on; and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wetread.datasets.phantoms import DatasetPlan, make_dataset

SETTINGS = """
networks = ["cnn", "knn"]
seeds = [0]
[settings]
image_size = 32
tensorboard = false
epochs = 1
head_epochs = 0
batch_size = 8
gate = false
[of.cnn]
weights = "random"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "set"
    plan = DatasetPlan(60, task="binary", format="png", size_px=64, masks=False)
    make_dataset(folder, plan)
    return folder


@pytest.fixture(scope="module")
def compared(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wetread.cli.main import run

    folder = tmp_path_factory.mktemp("grid")
    (folder / "grid.toml").write_text(SETTINGS, encoding="utf-8")
    out = folder / "runs"
    asked = ["compare", str(films), "--config", str(folder / "grid.toml"), "--out", str(out), "--images", "2"]
    assert run(asked) == 0
    return out


def test_one_row_for_each_reader_with_intervals_and_cost(compared: Path) -> None:
    with (compared / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["reader"] for row in rows] == ["cnn-seed0", "knn-seed0"]
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        assert int(row["n"]) > 5
        assert row["audit_verdict"] == "not audited"
    assert int(rows[0]["parameters"]) > 100_000
    assert rows[0]["against_first"] == "the one compared with"
    assert "cnn-seed0" in rows[1]["against_first"]


def test_the_page_holds_table_confusion_and_sheets(compared: Path) -> None:
    page = (compared / "compare.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") >= 3  # the icon and two matrices
    assert page.count("data:image/png") == 2
    assert "2 readers on" in page
    assert (compared / "cnn-seed0.sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_goes_on_where_it_stopped(cli: Callable[..., Any], films: Path, compared: Path) -> None:
    before = (compared / "cnn-seed0" / "reader" / "model.safetensors").stat().st_mtime_ns
    asked = ("--config", compared.parent / "grid.toml", "--out", compared, "--images", 0, "--json")
    result = cli("compare", films, *asked)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["name"] for row in rows] == ["cnn-seed0", "knn-seed0"]
    assert (compared / "cnn-seed0" / "reader" / "model.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_compared_is_refused(cli: Callable[..., Any], films: Path, tmp_path: Path) -> None:
    nothing = cli("compare", films, "--out", tmp_path / "a")
    assert nothing.exit_code == 2
    assert "expected networks to compare, got none; name them with --network" in nothing.stderr
    wrong = cli("compare", films, "--network", "no-such-net", "--out", tmp_path / "b")
    assert wrong.exit_code == 1
    assert "expected at least one finished reader, got 1 failures" in wrong.stderr
