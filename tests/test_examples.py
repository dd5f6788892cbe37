"""``examples/full_run.sh``: the whole pipeline once, small, as a person would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from wetread.datasets.manifest import load_manifest
from wetread.types import Read

SMALL = {"IMAGES": "90", "SIZE": "96", "EPOCHS": "2", "RESAMPLES": "200"}
STAGES = 11


@dataclass(frozen=True)
class Ran:
    folder: Path
    stdout: str
    stderr: str
    exit_code: int


def run_script(script: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run with this interpreter's programs first on the path, and a cache of its own."""
    environment = os.environ | SMALL | {"XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", str(script), *arguments], check=False, capture_output=True, text=True, env=environment, cwd=home
    )


@pytest.fixture(scope="module")
def script(repository: Path) -> Path:
    return repository / "examples" / "full_run.sh"


@pytest.fixture(scope="module")
def ran(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("full run")  # a space in the path must not matter
    done = run_script(script, str(home / "out"), home=home)
    return Ran(home / "out", done.stdout, done.stderr, done.returncode)


def test_the_script_is_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_it_runs_to_its_end_and_names_pages_that_exist(ran: Ran) -> None:
    assert ran.exit_code == 0, ran.stderr
    for number in range(1, STAGES + 1):
        assert f"\n== {number}. " in ran.stdout
    pages = [Path(line.strip()) for line in ran.stdout.split("Look at:")[1].splitlines()[1:]]
    assert len(pages) == 6
    assert all(page.is_file() for page in pages)


def test_no_patient_is_in_two_splits_and_the_new_ones_are_in_none(ran: Ran) -> None:
    table = load_manifest(ran.folder / "dataset").table
    assert len(table) == int(SMALL["IMAGES"])
    assert set(table["split"]) == {"train", "val", "test"}
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    new = load_manifest(ran.folder / "inbox").table
    assert set(new["patient"]).isdisjoint(table["patient"])


def test_the_choice_is_made_on_validation_and_the_figures_are_of_test(ran: Ran) -> None:
    aurocs = {
        name: json.loads((ran.folder / name / "results.json").read_text())["metrics"][0]["estimate"]["value"]
        for name in ("features", "finetuned")
    }
    best = "features" if aurocs["features"] >= aurocs["finetuned"] else "finetuned"
    assert f"Chosen on validation: {ran.folder / best}\n" in ran.stdout
    choice = json.loads((ran.folder / "choice" / "results.json").read_text())["facts"]
    final = json.loads((ran.folder / "evaluation" / "results.json").read_text())["facts"]
    splits = load_manifest(ran.folder / "dataset").table["split"].value_counts()
    assert choice["n"] == splits["val"]
    assert (final["split"], final["n"]) == ("test", splits["test"])


def test_every_new_film_is_read_or_has_its_reason(ran: Ran) -> None:
    lines = (ran.folder / "reads" / "reads.jsonl").read_text(encoding="utf-8").splitlines()
    reads = [Read.model_validate_json(line) for line in lines]
    assert len(reads) == len(load_manifest(ran.folder / "inbox").table)
    for read in reads:
        assert read.gate.passed == (read.labels[0].probability is not None)
        assert read.gate.passed or read.gate.reasons


def test_every_film_has_a_map_or_a_reason_why_not(ran: Ran) -> None:
    record = json.loads((ran.folder / "maps" / "explanations.json").read_text())
    assert len(record["maps"]) + len(record["failures"]) == len(load_manifest(ran.folder / "inbox").table)
    assert all((ran.folder / "maps" / one["overlay"]).is_file() for one in record["maps"])


def test_the_zip_holds_a_reader_without_a_pickle(ran: Ran) -> None:
    with zipfile.ZipFile(ran.folder / "reader.zip") as archive:
        assert set(archive.namelist()) == {"card.json", "README.md", "model.safetensors", "gate.safetensors"}


def test_a_folder_that_exists_is_left_alone(script: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    done = run_script(script, str(tmp_path / "out"), home=tmp_path)
    assert done.returncode == 2
    assert "expected a new folder" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_without_a_folder_it_says_what_to_type(script: Path, tmp_path: Path) -> None:
    done = run_script(script, home=tmp_path)
    assert done.returncode != 0
    assert "bash examples/full_run.sh OUT" in done.stderr
