"""``wetread dataset plant``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.datasets.pictures import class_tree
from wetread.datasets.manifest import load_manifest
from wetread.datasets.plant import KINDS

if TYPE_CHECKING:
    from tests.conftest import CliResult

Cli = Callable[..., "CliResult"]


@pytest.fixture
def dataset(tmp_path: Path, cli: Cli) -> Path:
    class_tree(tmp_path / "films", per_class=24)
    out = tmp_path / "set"
    films = tmp_path / "films"
    assert cli("dataset", "import", films, "--out", out, "--patient-pattern", r"/(p\d+)_").exit_code == 0
    assert cli("dataset", "split", out).exit_code == 0
    return out


def test_plant_show_and_check(dataset: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "planted"
    made = cli("dataset", "plant", dataset, "--kind", "corner-marker", "--label", "sick", "--out", out, "--preview")
    assert made.exit_code == 0, made.stderr
    assert "48 of 48 images" in made.stderr
    table = load_manifest(out).table
    sick = table["label"] == "sick"
    carry = int(table.loc[sick, "planted"].sum())
    words = " ".join(made.stdout.split())
    assert f"sick * │ 12 │ {carry // 2} ({carry / 24:.0%}) │ 24 │ {carry} ({carry / 24:.0%})" in words
    assert f"{np.corrcoef(sick, table['planted'])[0, 1]:+.2f}" in words
    assert "planted: corner-marker of strength 0.5, correlation 0.9 with sick" in words
    with Image.open(out / "preview.png") as sheet:
        assert sheet.size[0] > 6 * 256
        assert sheet.size[1] > 2 * 256
        assert len(np.unique(np.asarray(sheet))) > 50
    checked = cli("dataset", "check", out)
    assert checked.exit_code == 0, checked.stderr
    assert "planted: corner-marker" in (out / "check.html").read_text(encoding="utf-8")
    assert "never; wetread" not in cli("dataset", "show", out).stdout


def test_json_and_the_control(dataset: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "planted"
    given = ("--kind", "resolution", "--label", "random", "--split", "train", "--strength", "0.5", "--seed", "2")
    facts = json.loads(cli("dataset", "plant", dataset, *given, "--out", out, "--json").stdout)
    table = load_manifest(out).table
    assert facts["label"] == facts["spec"]["label"] == "random"
    assert facts["images"] == int((table["split"] == "train").sum())
    assert facts["left_out"] == 48 - facts["images"]
    assert facts["images_with"] == int(table["planted"].sum()) == sum(c["images_with"] for c in facts["classes"])
    assert facts["preview"] is None
    assert not (out / "preview.png").exists()
    assert set(table.loc[table["planted"], "width"]) == {48}
    kept = cli("dataset", "plant", dataset, *given, "--out", tmp_path / "kept", "--keep-size")
    assert "sick │" in " ".join(kept.stdout.split())
    assert "* carries it" not in kept.stdout
    assert set(load_manifest(tmp_path / "kept").table["width"]) == {96}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--kind", "corner-maker"), 2, "got 'corner-maker'; did you mean 'corner-marker'?"),
        (("--kind", "noise", "--correlation", "0.4"), 2, "expected a correlation from 0.5 to 1, got 0.4"),
        (("--kind", "noise", "--strength", "2"), 2, "expected a strength from 0 to 1, got 2.0"),
        (("--kind", "noise", "--label", "sck"), 2, "got 'sck'; did you mean 'sick'?"),
        (("--kind", "noise", "--split", "dev"), 2, "expected splits among train, val, test, got 'dev'"),
        (("--kind", "organ-blob"), 3, "expected a mask of lungs for each image, got 48 of 48 images without one"),
        (("--kind", "organ-blob", "--masks", "{tmp}"), 3, "expected masks of lungs below"),
        (("--kind", "noise", "--out", "{tmp}/set"), 2, "expected a new folder"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    arguments: tuple[str, ...], code: int, message: str, dataset: Path, tmp_path: Path, cli: Cli
) -> None:
    out = () if "--out" in arguments else ("--out", tmp_path / "new")
    result = cli("dataset", "plant", dataset, *(a.format(tmp=tmp_path) for a in arguments), *out)
    assert result.exit_code == code, result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == 1
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_help_names_every_kind_and_has_an_example(cli: Cli) -> None:
    text = " ".join(cli("dataset", "plant", "--help").stdout.split())
    assert all(f"{kind}," in text or f"{kind};" in text or f"{kind}." in text for kind in KINDS)
    assert "Example: wetread dataset plant" in text
