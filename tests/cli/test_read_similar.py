"""``wetread read --index``: past cases in the record, on the page and in the terminal, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import CliResult
from tests.models.support import small_reader
from tests.reading.support import shared_bundle, write_films
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.models.bundle import save_reader
from wetread.types import Read

Cli = Callable[..., CliResult]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Six phantoms of five patients, all with pneumonia, two held back from the index."""
    files = write_films(tmp_path / "films", 6)
    table = pd.DataFrame(
        {
            "path": [file.name for file in files],
            "patient": ["p0", "p0", "p2", "p3", "p4", "p5"],
            "label": "pneumonia",
            "split": ["train"] * 5 + ["test"],
        }
    )
    Manifest(table, DatasetMeta(name="set", classes=("normal", "pneumonia")), tmp_path / "films").save(
        tmp_path / "films"
    )
    return tmp_path / "films"


@pytest.fixture
def index(cli: Cli, films: Path, tmp_path: Path) -> Path:
    words = ("index", "build", tmp_path / "cases", films, "--reader", shared_bundle(), "--where", "split=train")
    assert cli(*words).exit_code == 0
    return tmp_path / "cases"


@pytest.fixture
def read(cli: Cli) -> Cli:
    return lambda *arguments: cli("read", *arguments, "--reader", shared_bundle())


def test_cases_stand_in_the_record_on_the_page_and_in_the_terminal(read: Cli, films: Path, index: Path) -> None:
    out = index.parent / "out"
    done = read(films / "film5.png", films / "film2.dcm", "--index", index, "-k", 3, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "film5.png: 3 cases like it: pneumonia 3 of 3; nearest film" in done.stdout
    first, second = (Read.model_validate_json(line) for line in (out / "reads.jsonl").read_text().splitlines())
    assert first.similar is not None
    assert [case.rank for case in first.similar.cases] == [1, 2, 3]
    assert len({case.patient for case in first.similar.cases}) == 3
    assert second.similar is not None
    assert "film2.dcm" not in {case.path for case in second.similar.cases}  # known by its content
    page = (out / "studies" / "film5.png.html").read_text(encoding="utf-8")
    assert "Cases like this" in page
    assert page.count('class="case-film"') == 3
    assert "no picture" not in page
    assert sorted(one.name for one in out.iterdir()) == [
        "failures.csv", "heatmaps", "index.html", "reads.jsonl", "studies"
    ]  # fmt: skip


def test_command_line_and_python_find_the_same(read: Cli, films: Path, index: Path) -> None:
    import wetread
    from wetread.reading.similar import cases_in

    line = read(films / "film5.png", "--index", index, "-k", 2, "--json").stdout
    search = cases_in(str(index), 2)
    assert wetread.load(shared_bundle(), similar=search).read(films / "film5.png").similar == (
        Read.model_validate_json(line).similar
    )


def test_a_contradiction_is_flagged_everywhere(read: Cli, films: Path, index: Path) -> None:
    out = index.parent / "out"
    done = read(films, "--index", index, "--out", out)
    reads = [Read.model_validate_json(line) for line in (out / "reads.jsonl").read_text().splitlines()]
    negative = [one for one in reads if one.labels[0].decision == "negative"]
    assert negative  # a reader of random weights calls some negative; all cases are positive
    for one in reads:
        assert one.similar is not None
        flagged = "disagree with the classifier" in (out / "studies" / f"{one.image.name}.html").read_text("utf-8")
        assert bool(one.similar.contradictions) == flagged == (one in negative)
    assert f"{negative[0].image.name}: The classifier calls pneumonia negative; " in done.stdout


def test_a_case_whose_file_has_gone_has_no_picture(read: Cli, films: Path, index: Path) -> None:
    film = shutil.copy(films / "film5.png", index.parent / "new.png")
    shutil.rmtree(films)
    out = index.parent / "out"
    assert read(film, "--index", index, "-k", 2, "--out", out).exit_code == 0
    page = (out / "studies" / "new.png.html").read_text(encoding="utf-8")
    assert page.count("no picture: the file is not where it was") == 2


def test_the_same_patient_is_shown_only_when_asked_for(read: Cli, films: Path, index: Path) -> None:
    words = (films / "film5.png", "--index", index, "--json", "-k", 9)
    for more, people in (((), 4), (("--patient", "p0"), 3), (("--patient", "p0", "--same-patient"), 4)):
        similar = json.loads(read(*words, *more).stdout)["similar"]
        assert len({case["patient"] for case in similar["cases"]}) == people
    assert "cases holds only 4 other patients, 9 were asked for" in similar["warnings"]


def test_mistakes_are_refused_with_their_cure_and_nothing_is_written(
    cli: Cli, read: Cli, films: Path, index: Path, tmp_path: Path
) -> None:
    other = small_reader("cnn", 64, labels=("pneumonia",))
    save_reader(tmp_path / "other", other.card, other.networks)
    film, out = films / "film5.png", tmp_path / "out"
    for words, code, message in (
        (("--index", tmp_path / "none"), 3, "expected an index, got none in"),
        (("--index", index, "--where", "lable=ill"), 2, "got 'lable'; did you mean 'label'?"),
        (("--index", index, "--where", "split=test"), 3, "expected cases that fit --where, got none of 5"),
        (("--where", "split=test"), 2, "expected --index with --where, got none; name an index, or leave --where out"),
        (("--same-patient",), 2, "expected --index with --same-patient"),
    ):
        done = read(film, *words, "--out", out)
        assert (done.exit_code, message in done.stderr) == (code, True), (words, done.stderr)
        assert not out.exists()
    done = cli("read", film, "--reader", tmp_path / "other", "--index", index, "--out", out)
    assert done.exit_code == 3
    made_by, given = (json.loads((folder / "card.json").read_text())["weights"]["model.safetensors"]
                      for folder in (shared_bundle(), tmp_path / "other"))  # fmt: skip
    assert f"expected the reader that made the index, {shared_bundle().name} " in done.stderr
    assert f"sha256 {made_by[:12]}…" in done.stderr
    assert f"sha256 {given[:12]}…" in done.stderr
    assert not out.exists()
