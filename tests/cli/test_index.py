"""``wetread index`` and ``wetread similar`` from films on disk to answers, pages, failures and refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import CliResult
from tests.models.support import small_reader
from tests.retrieval.support import manifest_of, write_film
from wetread.models.bundle import save_reader

Cli = Callable[..., CliResult]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers") / "small"
    made = small_reader("cnn", 32)
    save_reader(folder, made.card, made.networks)
    return folder


@pytest.fixture
def films(tmp_path: Path) -> Path:
    manifest_of(tmp_path / "films").save(tmp_path / "films")
    return tmp_path / "films"


@pytest.fixture
def index(cli: Cli, films: Path, reader: Path, tmp_path: Path) -> Path:
    assert cli("index", "build", tmp_path / "cases", films, "--reader", reader).exit_code == 0
    return tmp_path / "cases"


def test_build_add_delete_and_show(cli: Cli, films: Path, reader: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    built = cli("index", "build", cases, films, "--reader", reader, "--where", "split=train")
    assert (built.exit_code, built.stdout.replace("\n", "")) == (0, f"6 added; 6 images of 5 patients: {cases}")
    added = json.loads(cli("index", "add", cases, films, "--json").stdout)
    assert (added["added"], added["known"], added["skipped"], added["index"]["count"]) == (2, 6, [], 8)
    assert cli("index", "delete", cases, "3.png", "--where", "label=ill").stdout.startswith("5 deleted, 3 left")
    shown = cli("index", "show", cases, "--verify")
    assert "3 (images) of 2 patients" in shown.stdout
    assert "every case compared" in shown.stdout
    assert json.loads(cli("index", "show", cases, "--json").stdout)["generation"] == 3
    taken = cli("index", "build", cases, films, "--reader", reader)
    assert (taken.exit_code, taken.stderr) == (
        2,
        f"error: expected a new folder for the index, got {cases}, which exists; name another, or add --overwrite\n",
    )


def test_similar_writes_a_page_with_pictures_and_leaves_the_patient_out(cli: Cli, index: Path, tmp_path: Path) -> None:
    film = index.parent / "films" / "0.png"
    done = cli("similar", film, "--index", index, "-k", 3, "--out", tmp_path / "look")
    assert done.exit_code == 0
    assert "the patient of 0.png is in cases: 2 rows left out" in " ".join(done.stderr.split())
    (found,) = json.loads((tmp_path / "look" / "neighbours.json").read_text(encoding="utf-8"))
    assert len(found["neighbours"]) == 3
    assert {"0.png", "1.png"}.isdisjoint(one["path"] for one in found["neighbours"])
    page = (tmp_path / "look" / "similar.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert "Research use only. Not a diagnosis." in page
    assert "p2" not in page.split("<main")[1].replace("base64", "")  # paths and labels, not patients


def test_search_gives_one_line_of_json_for_each_film(cli: Cli, index: Path, tmp_path: Path) -> None:
    films = tmp_path / "new"
    write_film(films / "a.png", 5)
    write_film(films / "b.png", 65)
    done = cli("index", "search", index, films, "-k", 2, "--where", "label=ill", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == ["a.png", "b.png"]
    assert all(one["labels"] == ["ill"] for line in lines for one in line["neighbours"])


def test_unreadable_films_are_listed_and_the_exit_code_is_1(
    cli: Cli, films: Path, reader: Path, tmp_path: Path
) -> None:
    (films / "2.png").write_bytes(b"no image")
    cases, failures = tmp_path / "cases", tmp_path / "failures.csv"
    built = cli("index", "build", cases, films, "--reader", reader, "--failures", failures)
    assert built.exit_code == 1
    assert "7 added, 1 not read; 7 images" in built.stdout
    (row,) = csv.DictReader(failures.read_text(encoding="utf-8").splitlines())
    assert (Path(row["file"]).name, row["error"]) == ("2.png", "ImageRefused")
    asked = cli("similar", films / "0.png", films / "2.png", "--index", cases, "--json")
    assert asked.exit_code == 1
    document = json.loads(asked.stdout)
    assert len(document["neighbours"]) == len(document["failures"]) == 1
    assert cli("similar", films / "2.png", "--index", cases).exit_code == 3


def test_mistakes_are_refused_with_their_cure(cli: Cli, index: Path, films: Path, tmp_path: Path) -> None:
    other = small_reader("cnn", 32)
    other.networks[0].encoder.blocks[0].weight.data += 1  # type: ignore[index, union-attr]
    save_reader(tmp_path / "other", other.card, other.networks)
    film = films / "0.png"
    for words, code, message in (
        (("similar", film, "--index", tmp_path / "none"), 3, "expected an index, got none in"),
        (("similar", film, "--index", index, "--reader", tmp_path / "other"), 3, "expected the reader that made the"),
        (("similar", film, "--index", index, "--where", "lable=ill"), 2, "got 'lable'; did you mean 'label'?"),
        (("similar", film, "--index", index, "-k", 0), 2, "expected at least 1 case, got 0; raise -k"),
        (("similar", film, "--index", index, "--region", "1,2"), 2, "expected --region X,Y,W,H, got '1,2'"),
        (("similar", film, "--index", index, "--region", "1,2,3,4"), 2, "expected an index of local embeddings"),
        (("index", "build", tmp_path / "x", films, "--level", "patient"), 2, "expected --level image or study"),
        (("index", "delete", index), 2, "expected what to delete, got nothing"),
    ):
        done = cli(*words)
        assert (done.exit_code, message in done.stderr) == (code, True), (words, done.stderr)
    (vectors,) = index.glob("*.npy")
    vectors.write_bytes(vectors.read_bytes()[:-4] + b"abcd")
    done = cli("similar", film, "--index", index)
    assert done.exit_code == 3
    assert f"build it again: wetread index build {index} DATASET --overwrite" in done.stderr


def test_a_part_of_a_film_is_asked_about_and_the_parts_like_it_are_marked(
    cli: Cli, films: Path, reader: Path, tmp_path: Path
) -> None:
    assert cli("index", "build", tmp_path / "cases", films, "--reader", reader, "--local").exit_code == 0
    words = ("--region", "0,0,16,16", "--out", tmp_path / "look", "--json")
    done = cli("similar", films / "7.png", "--index", tmp_path / "cases", "-k", 2, *words)
    for one in json.loads(done.stdout)["neighbours"][0]["neighbours"]:
        assert one["box"]["width"] == one["box"]["height"] == 16  # 2 x 2 places of a film of 32 pixels
    page = (tmp_path / "look" / "similar.html").read_text(encoding="utf-8")
    assert page.count('<rect class="box"') == 3


def test_evaluate_judges_with_intervals_beside_chance(cli: Cli, index: Path, films: Path, tmp_path: Path) -> None:
    table, result = tmp_path / "knn.parquet", tmp_path / "result.json"
    words = ("--predictions", table, "--knn", 3, "--resamples", 200, "--out", result)
    done = cli("index", "evaluate", index, films, "--split", "test", "-k", 3, *words)
    assert done.exit_code == 0
    assert "2 queries (set) of 2 patients against 8 cases of cases; relevant: the same class" in done.stdout
    document = json.loads(result.read_text(encoding="utf-8"))
    assert set(document["overall"]) >= {"map", "map_found", "precision", "recall", "ndcg", "knn_accuracy"}
    assert document["leakage"]["queries"] == 0
    known = pd.read_parquet(table)
    assert known["image"].tolist() == ["6.png", "7.png"]
    assert known["probability_ill"].between(0, 1).all()
    own = json.loads(cli("index", "evaluate", index, "-k", 2, "--resamples", 200, "--json").stdout)
    assert (own["n"], own["leakage"]["queries"]) == (8, 2)  # both films of p0 have each other
    assert cli("index", "evaluate", "postgresql://nobody@localhost/none#x").exit_code == 2


def test_no_embedding_is_computed_twice(cli: Cli, films: Path, reader: Path, tmp_path: Path) -> None:
    first = cli("index", "build", tmp_path / "one", films, "--reader", reader)
    again = cli("index", "build", tmp_path / "two", films, "--reader", reader)
    assert "Embedding images: 8 of 8" in first.stderr
    assert "Embedding images" not in again.stderr


def test_more_cases_than_there_are_is_a_warning_and_all_of_them(cli: Cli, index: Path) -> None:
    film = index.parent / "films" / "0.png"
    done = cli("similar", film, "--index", index, "-k", 100, "--json")
    assert done.exit_code == 0
    (found,) = json.loads(done.stdout)["neighbours"]
    assert len(found["neighbours"]) == 6  # of seven patients all but the one asked about
    assert "cases holds only 6 other patients, 100 were asked for" in found["warnings"]


def test_a_second_writer_waits_for_the_first(index: Path) -> None:
    from wetread.retrieval.store import Folder

    code = "from wetread.cli.main import main; main()"
    words = [sys.executable, "-c", code, "index", "delete", str(index), "3.png", "--json"]
    with Folder(index).writing():
        second = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(6)  # it would have been done in less
        assert json.loads((index / "index.json").read_text(encoding="utf-8"))["count"] == 8
    out, err = second.communicate(timeout=120)
    assert (second.returncode, err) == (0, "")
    assert json.loads(out) == {"deleted": 1, "count": 7}
    assert json.loads((index / "index.json").read_text(encoding="utf-8"))["count"] == 7


@pytest.mark.parametrize("ending", [".rows.parquet", ".vectors.npy", "index.json"])
def test_every_verb_finds_a_damaged_file_and_names_the_command_that_mends_it(
    cli: Cli, index: Path, films: Path, reader: Path, ending: str
) -> None:
    (file,) = index.glob(f"*{ending}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    for words in (
        ("similar", films / "0.png", "--index", index),
        ("index", "search", index, films / "0.png"),
        ("index", "add", index, films),
        ("index", "show", index),
        ("index", "evaluate", index),
        ("index", "delete", index, "3.png"),
        ("read", films / "0.png", "--reader", reader, "--index", index),
    ):
        done = cli(*words)
        assert done.exit_code == 3, (words, done.stderr)
        assert f"expected a whole {file.name} in the index {index}" in done.stderr
        assert f"build it again: wetread index build {index} DATASET --overwrite" in done.stderr
