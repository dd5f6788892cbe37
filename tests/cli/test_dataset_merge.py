"""``wetread dataset merge`` from the command line: counts per source, next step, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def dataset(folder: Path, name: str, labels: list[str]) -> Path:
    place = folder / name
    place.mkdir()
    pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels}).to_parquet(
        place / "manifest.parquet"
    )
    classes = json.dumps(sorted(set(labels)))
    place.joinpath("dataset.toml").write_text(f'name = "{name}"\nroot = "."\nclasses = {classes}\n', encoding="utf-8")
    return place


def test_two_sets_become_one(cli: Callable[..., Any], tmp_path: Path) -> None:
    first = dataset(tmp_path, "here", ["ill", "well", "well"])
    second = dataset(tmp_path, "there", ["normal", "ill"])
    out = tmp_path / "both"
    asked = ("--classes", "well,ill", "--rename", "there:normal=well", "--out", out)
    result = cli("dataset", "merge", first, second, *asked)
    assert result.exit_code == 0, result.stderr
    assert "here: 2 well, 1 ill" in result.stdout
    assert "there: 1 well, 1 ill" in result.stdout
    assert f"Next: wetread dataset split {out}" in " ".join(result.stdout.split())
    again = cli("dataset", "merge", first, second, *asked)
    assert again.exit_code == 3
    assert "which exists; name another" in again.stderr
    wrong = cli(
        "dataset", "merge", first, second, "--classes", "well,ill", "--rename", "normal", "--out", tmp_path / "x"
    )
    assert wrong.exit_code == 2
    assert "expected --rename as THEIRS=OURS, got 'normal'" in wrong.stderr
