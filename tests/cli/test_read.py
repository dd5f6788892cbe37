"""``wetread read`` on files, folders and everything that is no radiograph: codes, messages, folders."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.conftest import CliResult
from tests.reading.support import (
    colour_photograph,
    grey_png,
    mixed_folder,
    phantom,
    shared_bundle,
    text_page,
    write_films,
)
from wetread.cli import read_folder
from wetread.datasets.phantoms import Identity, write_dicom
from wetread.types import Read

Cli = Callable[..., CliResult]


@pytest.fixture
def read(cli: Cli) -> Cli:
    """``read(path, ...)`` with the small reader."""
    return lambda *arguments: cli("read", *arguments, "--reader", shared_bundle())


def lines(result: CliResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def only(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_one_film_as_a_table(read: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    result = read(film)
    assert result.exit_code == 0
    for word in ("film0.dcm", "pneumonia", "passed", "positive from 0.500", "youden", "Research use only"):
        assert word in result.stdout


def test_one_film_as_json_is_one_line_of_the_schema(read: Cli, tmp_path: Path) -> None:
    result = read(write_films(tmp_path, 1)[0], "--json")
    assert result.exit_code == 0
    found = Read.model_validate_json(result.stdout)
    assert found.image.name == "film0.dcm"
    assert found.labels[0].probability is not None


def test_command_line_python_and_batch_give_the_same_probability(read: Cli, tmp_path: Path) -> None:
    import wetread

    films = write_films(tmp_path, 5)
    batch = [line["labels"][0]["probability"] for line in lines(read(tmp_path, "--json", "--batch-size", "3"))]
    alone = [lines(read(film, "--json"))[0]["labels"][0]["probability"] for film in films]
    loaded = wetread.load(shared_bundle())
    python = [loaded.read(film).labels[0].probability for film in films]
    assert batch == pytest.approx(alone, abs=1e-6)
    assert batch == pytest.approx(python, abs=1e-6)


def test_three_bad_files_among_ten(read: Cli, tmp_path: Path) -> None:
    films = mixed_folder(tmp_path / "films")
    out = tmp_path / "out"
    result = read(films, "--out", out)
    assert result.exit_code == 1
    reads = [Read.model_validate_json(line) for line in (out / "reads.jsonl").read_text().splitlines()]
    assert [one.image.name for one in reads] == [f"film{i}.{'dcm' if i % 2 == 0 else 'png'}" for i in range(7)]
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        failures = list(csv.DictReader(file))
    assert [row["file"] for row in failures] == ["empty.dcm", "half.dcm", "letter.dcm"]
    assert "an empty file" in failures[0]["message"]
    assert all(row["error"] == "ImageRefused" for row in failures)
    for row in failures:
        assert f"not read: {row['file']}" in result.stdout
    assert len(list((out / "studies").glob("*.html"))) == 7
    assert (out / "index.html").is_file()
    assert not list(out.glob(".*"))


def test_failures_are_lines_of_json_too(read: Cli, tmp_path: Path) -> None:
    result = read(mixed_folder(tmp_path), "--json")
    assert result.exit_code == 1
    found = lines(result)
    assert len(found) == 10
    assert [set(line) for line in found if "error" in line] == [{"file", "error", "message"}] * 3


def test_heat_maps_in_the_folder_are_named_in_the_reads(read: Cli, tmp_path: Path) -> None:
    write_films(tmp_path / "films", 4)
    out = tmp_path / "out"
    result = read(tmp_path / "films", "--out", out, "--operating-point", "sensitivity=0.95", "--json")
    assert result.exit_code == 0
    named = [line["labels"][0]["evidence"]["heatmap"] for line in lines(result)]
    named = [name for name in named if name]
    assert named
    assert sorted(named) == sorted(f"heatmaps/{path.name}" for path in (out / "heatmaps").iterdir())
    with PilImage.open(out / named[0]) as picture:
        assert picture.size == (256, 256)
    assert (out / "reads.jsonl").read_text() == result.stdout


def test_no_heatmaps_leaves_the_evidence_out(read: Cli, tmp_path: Path) -> None:
    write_films(tmp_path / "films", 2)
    result = read(tmp_path / "films", "--out", tmp_path / "out", "--no-heatmaps", "--json")
    assert [line["labels"][0]["evidence"] for line in lines(result)] == [None, None]
    assert list((tmp_path / "out" / "heatmaps").iterdir()) == []


def test_films_of_one_study_share_a_page(read: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number in (1, 2):
        write_dicom(phantom(100), films / f"view{number}.dcm", Identity("7", study=1, image=number))
    assert read(films, "--out", tmp_path / "out").exit_code == 0
    pages = list((tmp_path / "out" / "studies").iterdir())
    assert [page.name for page in pages] == ["view1.dcm.html"]
    text = pages[0].read_text(encoding="utf-8")
    assert "view1.dcm" in text
    assert "view2.dcm" in text


def test_pages_carry_everything_and_load_nothing(read: Cli, tmp_path: Path) -> None:
    write_films(tmp_path / "films", 1)
    read(tmp_path / "films", "--out", tmp_path / "out")
    page = (tmp_path / "out" / "studies" / "film0.dcm.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "Research use only. Not a diagnosis." in page


def test_hostile_names_stay_inside_the_folder(read: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    film = write_films(films, 1)[0]
    film.rename(films / "a b<img src=x>.dcm")
    grey_png(films / "a b_img src=x_.dcm.png", phantom(101).image)
    assert read(films, "--out", tmp_path / "out").exit_code == 0
    pages = sorted(path.name for path in (tmp_path / "out" / "studies").iterdir())
    assert len(pages) == 2
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz_.-0123456789") for name in pages)
    assert "<img src=x>" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.dcm", b"", "an empty file: empty.dcm"),
        ("letter.dcm", b"Dear colleague,\n", "a text file: letter.dcm"),
        ("report.pdf", b"%PDF-1.7\n%\xe2\xe3\n", "a PDF document: report.pdf"),
        ("junk.png", bytes(range(256)) * 8, "expected"),
    ],
)
def test_one_bad_file_is_refused_in_one_line(
    read: Cli, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    out = tmp_path / "out"
    result = read(only(tmp_path, name, content), "--out", out)
    assert result.exit_code == 3
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (colour_photograph, "colour picture"),
        (lambda path: grey_png(path, text_page()), "page of text"),
        (lambda path: grey_png(path, np.full((200, 200), 0.3, np.float32)), "blank"),
    ],
    ids=["photograph", "page", "blank"],
)
def test_the_only_image_gated_gives_its_reason_and_code_3(
    read: Cli, tmp_path: Path, make: Callable[[Path], Path], word: str
) -> None:
    path = make(tmp_path / "image.png")
    result = read(path, "--json")
    assert result.exit_code == 3
    (line,) = lines(result)
    assert word in line["gate"]["reasons"][0]
    assert line["labels"][0]["probability"] is None
    table = read(path)
    assert "withheld" in table.stdout
    assert word in " ".join(table.stdout.split())


def test_one_gated_image_in_a_batch_gives_code_1(read: Cli, tmp_path: Path) -> None:
    write_films(tmp_path, 2)
    colour_photograph(tmp_path / "holiday.png")
    result = read(tmp_path, "--json")
    assert result.exit_code == 1
    assert [line["gate"]["passed"] for line in lines(result)] == [True, True, False]


def test_no_such_path(read: Cli, tmp_path: Path) -> None:
    result = read(tmp_path / "nothing.dcm")
    assert result.exit_code == 3
    assert "no such path: nothing.dcm; check the spelling" in result.stderr


def test_an_empty_folder(read: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    result = read(tmp_path / "films")
    assert result.exit_code == 3
    assert "at least one image file, got none in the folder films" in result.stderr


def test_an_unreadable_file(read: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_films(tmp_path, 1)[0]

    def forbidden(path: Path) -> bytes:  # chmod would not stop root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    result = read(film)
    assert result.exit_code == 3
    assert "film0.dcm (Permission denied); check the path and its permissions" in result.stderr


def test_a_dangling_link(read: Cli, tmp_path: Path) -> None:
    (tmp_path / "film.dcm").symlink_to(tmp_path / "gone.dcm")
    result = read(tmp_path / "film.dcm")
    assert result.exit_code == 3
    assert "no such file: film.dcm" in result.stderr


def test_an_unknown_reader_lists_those_there_are(cli: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    for name in ("hip-fracture", tmp_path / "nowhere"):
        result = cli("read", film, "--reader", name)
        assert result.exit_code == 3
        assert "the name or folder of a reader" in result.stderr
        assert str(name) in result.stderr
        assert "choose one of" in result.stderr


def test_an_unknown_operating_point_lists_those_there_are(read: Cli, tmp_path: Path) -> None:
    result = read(write_films(tmp_path, 1)[0], "--operating-point", "best")
    assert result.exit_code == 2
    assert "got 'best'; choose one of: sensitivity=0.95, youden" in result.stderr


def test_an_unknown_method_and_too_many_views(read: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    assert "one of cam, gradcam" in read(film, "--method", "lemon").stderr
    result = read(film, "--views", "9", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "1 to 5 views, got 9" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept_unless_told_otherwise(read: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    result = read(film, "--out", out)
    assert result.exit_code == 2
    assert "a new or empty folder for --out" in result.stderr
    assert "--overwrite" in result.stderr
    assert (out / "mine.txt").read_text() == "keep me"
    assert read(film, "--out", out, "--overwrite").exit_code == 0
    assert not (out / "mine.txt").exists()
    assert (out / "reads.jsonl").is_file()


def test_a_file_in_the_place_of_the_folder(read: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    result = read(film, "--out", film, "--overwrite")
    assert result.exit_code == 2
    assert "a folder for --out, got a file" in result.stderr
    assert film.stat().st_size > 0


@pytest.mark.parametrize("step", ["add", "finish"])
def test_a_full_disk_leaves_nothing_and_keeps_the_old_folder(
    read: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    films = tmp_path / "films"
    write_films(films, 3)
    out = tmp_path / "out"
    assert read(films, "--out", out).exit_code == 0
    before = sorted(path.relative_to(out) for path in out.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(read_folder.ReadFolder, step, full)
    result = read(films, "--out", out, "--overwrite")
    assert result.exit_code == 1
    assert "got a full disk" in result.stderr
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "out"]


def test_help_names_every_flag(cli: Cli) -> None:
    result = cli("read", "--help")
    assert result.exit_code == 0
    for flag in ("--reader", "--operating-point", "--views", "--json", "--out", "--overwrite", "--no-heatmaps"):
        assert flag in result.stdout
