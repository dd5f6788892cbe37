"""``wetread evaluate --hide``: the same reader without the organ, on terminal, in JSON, in files and on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from tests.reporting.markup import Page
from tests.training.support import organ_films, tiny
from wetread.datasets.manifest import Manifest
from wetread.training.fit import train

Cli = Callable[..., CliResult]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return organ_films(tmp_path_factory.mktemp("films") / "set", 40)


@pytest.fixture(scope="module")
def reader(films: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    train(films, tiny(name="plain", gate=False), out)
    return out


@pytest.fixture(autouse=True)
def _wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def evaluate(cli: Cli, reader: Path, films: Manifest, *more: object) -> CliResult:
    return cli("evaluate", reader, "--data", films.folder, "--split", "train", "--resamples", 200, *more)


def test_the_page_and_the_files_show_both(
    cli: Cli, reader: Path, films: Manifest, segmenter: Path, tmp_path: Path
) -> None:
    result = evaluate(cli, reader, films, "--hide", "heart", "--segmenter", segmenter, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "The same reader with the heart painted over" in result.stdout
    found = json.loads((tmp_path / "out" / "hidden.json").read_text(encoding="utf-8"))
    assert found["organ"] == "heart"
    assert found["labels"][0]["whole"]["n"] == found["n"]
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.problems == []
    assert "With the heart painted over" in page.one("main").words
    assert found["sha256"][:12] in html


def test_json_holds_the_record(cli: Cli, reader: Path, films: Manifest, segmenter: Path) -> None:
    result = evaluate(cli, reader, films, "--hide", "lungs", "--segmenter", segmenter, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["hidden"]["organ"] == "lungs"
    assert found["hidden"]["labels"][0]["whole"]["value"] == found["labels"][0]["metrics"]["auroc"]["value"]


def test_what_cannot_be_hidden_is_refused_before_anything_is_read(
    cli: Cli, reader: Path, films: Manifest, segmenter: Path
) -> None:
    spleen = evaluate(cli, reader, films, "--hide", "spleen", "--segmenter", segmenter)
    assert spleen.exit_code == 2
    assert "expected a segmenter that finds spleen, got one for lungs, heart" in spleen.stderr
    no_organ = evaluate(cli, reader, films, "--segmenter", segmenter)
    assert no_organ.exit_code == 2
    assert "expected an organ for --segmenter to find, got none; add --hide ORGAN" in no_organ.stderr
    table = cli("evaluate", reader, "--hide", "lungs")
    assert table.exit_code == 2
    assert "expected images to hide an organ in, got a table of predictions; add --data DATASET" in table.stderr
