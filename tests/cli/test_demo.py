"""The demo once, small: all steps, all files, and a folder that is not its own stays as it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import CliResult
from wetread.cli import demo
from wetread.datasets.manifest import load_manifest
from wetread.types import Read

Cli = Callable[..., CliResult]
SMALL = demo.DemoPlan(images=90, size_px=96, seed=3, resamples=200)


@dataclass(frozen=True)
class Shown:
    folder: Path
    text: str
    pages: tuple[Path, ...]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    stream = io.StringIO()
    pages = demo.run_demo(folder, SMALL, Console(file=stream, width=100, highlight=False))
    return Shown(folder, stream.getvalue(), pages)


def test_each_step_is_told_with_its_verb(shown: Shown) -> None:
    for step in range(1, 7):
        assert f"{step} of 6" in shown.text
    for verb in ("dataset import", "train", "evaluate", "read"):
        assert f"$ wetread {verb} " in shown.text
    assert "AUROC" in shown.text
    assert "wetread dataset import FOLDER" in shown.text  # the next thing to type
    assert "Research use only. Not a diagnosis." in shown.text


def test_the_pages_exist_and_are_named(shown: Shown) -> None:
    assert [page.relative_to(shown.folder).as_posix() for page in shown.pages] == [
        "reads/index.html",
        "evaluation/report.html",
    ]
    assert all(page.is_file() for page in shown.pages)


def test_three_studies_are_read_and_the_letter_is_refused(shown: Shown) -> None:
    lines = (shown.folder / "reads" / "reads.jsonl").read_text(encoding="utf-8").splitlines()
    reads = {read.image.name: read for read in map(Read.model_validate_json, lines)}
    assert sorted(reads) == ["letter.png", "study-1.dcm", "study-2.dcm", "study-3.dcm"]
    assert "page of text" in reads["letter.png"].gate.reasons[0]
    assert reads["letter.png"].labels[0].probability is None
    assert all(reads[f"study-{n}.dcm"].image.modality == "CR" for n in (1, 2, 3))


def test_the_new_studies_are_of_new_patients(shown: Shown) -> None:
    lines = (shown.folder / "reads" / "reads.jsonl").read_text(encoding="utf-8").splitlines()
    new = {json.loads(line)["image"]["patient"] for line in lines} - {None}
    assert len(new) == 3
    assert new.isdisjoint(load_manifest(shown.folder / "dataset").table["patient"])


def test_the_split_keeps_patients_whole_and_has_two_sources(shown: Shown) -> None:
    table = load_manifest(shown.folder / "dataset").table
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "val", "test"}
    assert table["source"].nunique() == 2


def test_the_card_says_what_it_was_made_of(shown: Shown) -> None:
    text = (shown.folder / "run" / "reader" / "README.md").read_text(encoding="utf-8")
    assert "Synthetic phantoms" in text
    assert "knows nothing about people" in text


def test_a_folder_of_somebody_else_is_left_alone(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("years of work")
    result = cli("demo")
    assert result.exit_code == 2
    assert "a new folder for the demo, got demo, which exists; name another with --keep" in result.stderr
    assert (tmp_path / "demo" / "thesis.tex").read_text() == "years of work"
    assert cli("demo", "--keep", tmp_path / "demo").exit_code == 2


def test_an_earlier_demo_is_replaced_and_pages_are_opened(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(
        demo, "run_demo", lambda folder, *_: ((folder / ".wetread-demo").touch(), (folder / "x.html",))[1]
    )
    assert cli("demo").exit_code == 0
    (tmp_path / "demo" / "old.txt").touch()
    assert opened == []
    assert cli("demo", "--open").exit_code == 0
    assert not (tmp_path / "demo" / "old.txt").exists()
    assert opened == [(tmp_path / "demo" / "x.html").as_uri()]
