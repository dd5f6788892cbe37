"""``wetread explain`` from files on disk to overlays, maps, boxes and a failures file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image as PilImage
from typer.testing import CliRunner, Result

from tests.conftest import CliResult
from tests.models.support import small_reader
from wetread.cli.explain import command
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import BundleRefused, DatasetRefused, ExplanationFailed, ImageRefused, UsageError, WetreadError
from wetread.explain import METHODS
from wetread.explain.sheet import COLUMNS, PICTURE_PX
from wetread.models.bundle import save_reader

LABELS = ("a", "b", "c")


def save_small(folder: Path, architecture: str = "cnn", size: int = 64) -> Path:
    reader = small_reader(architecture, size, LABELS)
    save_reader(folder, reader.card, reader.networks)
    return folder


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    return save_small(tmp_path / "small")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, name, shape in (("one", "film.png", (90, 70)), ("two", "film.png", (64, 100))):
        (tmp_path / "films" / folder).mkdir(parents=True)
        film = rng.integers(0, 256, shape, dtype=np.uint8)
        PilImage.fromarray(film).save(tmp_path / "films" / folder / name)
    return tmp_path / "films"


def run(*arguments: object, error: type[WetreadError] | None = None) -> Result:
    """Run the verb; a wetread error must be ``error``, and nothing else may be raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if error is not None:
        assert isinstance(result.exception, error), result.output
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_every_map_becomes_an_overlay_a_raw_map_and_a_record(reader: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    result = run(films, "--reader", reader, "--method", "gradcam++", "--out", out, "--json")
    document = json.loads(result.stdout)
    assert json.loads((out / "explanations.json").read_text(encoding="utf-8")) == document
    assert document["model"]["name"] == "small"
    assert len(document["model"]["sha256"]) == 64
    assert len(document["maps"]) + len(document["failures"]) == 6
    assert document["maps"]
    assert result.exit_code == (1 if document["failures"] else 0)
    sizes = {(90, 70), (64, 100)}
    for record in document["maps"]:
        assert (record["rows"], record["columns"]) in sizes
        assert 0 <= record["probability"] <= 1
        assert record["layer"] == "blocks"
        assert (record["baseline"], record["passes"], record["details"]) == ("", 1, {})
        with PilImage.open(out / record["overlay"]) as overlay:
            assert overlay.size == (record["columns"], record["rows"])
        raw = np.load(out / record["map"], allow_pickle=False)
        assert raw.dtype == np.float32
        assert list(raw.shape) == record["map_shape"] == [4, 4]
        assert raw.max() == pytest.approx(record["scale"])
        for box in record["boxes"]:
            assert 0 <= box["x"] < box["x"] + box["width"] <= record["columns"]
            assert 0 <= box["y"] < box["y"] + box["height"] <= record["rows"]
    names = [record["overlay"] for record in document["maps"]]
    assert len(set(names)) == len(names)
    assert any(name.startswith("film-2.") for name in names)  # the same name in another folder


def test_the_table_names_image_label_layer_and_folder(reader: Path, films: Path, tmp_path: Path) -> None:
    result = run(films / "one" / "film.png", "--reader", reader, "--method", "gradcam++", "--out", tmp_path / "maps")
    assert "film.png" in result.stdout
    assert "blocks" in result.stdout
    assert re.search(r"\d maps, \d failures: ", result.stdout)


def test_the_same_map_comes_alone_and_in_a_folder(reader: Path, films: Path, tmp_path: Path) -> None:
    common = ("--reader", reader, "--method", "gradcam++", "--label", "b", "--json", "--out")
    folder = json.loads(run(films, *common, tmp_path / "all").stdout)
    alone = json.loads(run(films / "one" / "film.png", *common, tmp_path / "alone").stdout)
    assert alone["maps"][0]["probability"] == pytest.approx(folder["maps"][0]["probability"], abs=1e-6)
    np.testing.assert_allclose(
        np.load(tmp_path / "alone" / alone["maps"][0]["map"]),
        np.load(tmp_path / "all" / folder["maps"][0]["map"]),
        rtol=1e-4,
        atol=1e-7,
    )


def test_bad_files_among_good_ones_are_listed(reader: Path, films: Path, tmp_path: Path) -> None:
    (films / "empty.png").touch()
    (films / "text.dcm").write_text("not an image", encoding="utf-8")
    out = tmp_path / "maps"
    result = run(films, "--reader", reader, "--method", "gradcam++", "--out", out, "--json")
    assert result.exit_code == 1
    with (out / "failures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"empty.png", "text.dcm"} <= {row["image"] for row in rows}
    assert all(row["reason"].startswith("expected ") for row in rows)
    assert json.loads(result.stdout)["maps"]


def test_one_bad_file_alone_is_refused_and_nothing_is_written(reader: Path, tmp_path: Path) -> None:
    bad = tmp_path / "empty.png"
    bad.touch()
    with pytest.raises(ImageRefused, match=r"empty\.png"):
        run(bad, "--reader", reader, "--out", tmp_path / "maps", error=ImageRefused)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.png", "small"]


def test_all_methods_leave_out_what_the_network_does_not_allow_and_are_compared_on_a_sheet(
    films: Path, tmp_path: Path
) -> None:
    reader, out = save_small(tmp_path / "mobile", "mobilenetv3_small_050"), tmp_path / "maps"
    result = run(films / "one" / "film.png", "--reader", reader, "--method", "all", "--label", "b",
                 "--samples", "20", "--json", "--out", out)  # fmt: skip
    assert "left out: expected a linear head on globally averaged" in result.stderr
    document = json.loads(result.stdout)
    methods = {record["method"] for record in document["maps"] + document["failures"]}
    assert methods == set(METHODS) - {"cam"}
    assert document["sheets"] == ["film.b.sheet.png"]
    with PilImage.open(out / "film.b.sheet.png") as sheet:
        assert sheet.width == COLUMNS * (PICTURE_PX + 16) + 16
        assert sheet.height > 3 * PICTURE_PX  # the film, ten methods and the one left out: three rows
        pixels = np.asarray(sheet)
    titles = (pixels == (240, 180, 90)).all(2)  # of what could not be made
    columns = {x // (PICTURE_PX + 16) for x in np.flatnonzero(titles.any(0))}
    assert len(columns) >= min(COLUMNS, 1 + len(document["failures"]))


def test_a_costly_method_says_what_it_cost_and_against_what(reader: Path, films: Path, tmp_path: Path) -> None:
    film, out = films / "one" / "film.png", tmp_path / "maps"
    result = run(film, "--reader", reader, "--method", "rise", "--samples", "30", "--fill", "mean", "--json",
                 "--out", out)  # fmt: skip
    document = json.loads(result.stdout)
    assert document["sheets"] == []
    assert "cases" not in document
    for record in document["maps"]:
        assert (record["method"], record["layer"], record["baseline"]) == ("rise", "input", "its mean grey")
        assert record["passes"] == 30 + 4
        assert record["milliseconds"] > 0
        assert record["details"]["monte_carlo_error"] > 0
        assert any("From 30 random masks" in limit for limit in record["limits"])
        assert record["map_shape"] == [64, 64]
    assert document["maps"]
    assert "Explaining by rise: 3 of 3 maps" in result.stderr


def test_the_seed_decides_what_is_drawn(reader: Path, films: Path, tmp_path: Path) -> None:
    film = films / "one" / "film.png"
    common = (film, "--reader", reader, "--method", "smoothgrad", "--label", "a", "--samples", "2", "--json", "--seed")
    maps = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        (record,) = json.loads(run(*common, seed, "--out", tmp_path / name).stdout)["maps"]
        maps.append(np.load(tmp_path / name / record["map"]))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_a_reader_without_feature_maps_is_explained_by_what_needs_none(films: Path, tmp_path: Path) -> None:
    reader = save_small(tmp_path / "pixels", "pixels")
    result = run(films / "one" / "film.png", "--reader", reader, "--method", "gradient-x-input", "--json",
                 "--out", tmp_path / "maps")  # fmt: skip
    assert {record["method"] for record in json.loads(result.stdout)["maps"]} == {"gradient-x-input"}


@pytest.fixture
def cases(films: Path, tmp_path: Path) -> Path:
    """A data set of the two films, of other patients, and two noise images."""
    rng = np.random.default_rng(1)
    for name in ("x.png", "y.png"):
        PilImage.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(films / name)
    paths = ["one/film.png", "two/film.png", "x.png", "y.png"]
    table = pd.DataFrame({"path": paths, "patient": list("pqrs"), "label": ["a", "b", "a", "b"], "split": "train"})
    meta = DatasetMeta(name="set", classes=("a", "b"), root=str(films))
    return Manifest(table, meta, tmp_path).save(tmp_path / "cases").parent


def test_similar_cases_are_named_beside_the_maps(reader: Path, films: Path, cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    arguments = (films / "one" / "film.png", "--reader", reader, "--method", "gradcam++", "--cases", cases,
                 "--neighbours", "2", "--out")  # fmt: skip
    document = json.loads(run(*arguments, out, "--json").stdout)
    (similar,) = document["cases"]
    assert similar["image"] == "film.png"
    assert similar["warnings"] == ["film.png is itself in set: its patient was left out"]
    paths = [example["path"] for example in similar["examples"]]
    assert len(paths) == 2
    assert "one/film.png" not in paths
    assert [example["rank"] for example in similar["examples"]] == [1, 2]
    assert sum(similar["shares"].values()) == pytest.approx(1)
    assert document["sheets"] == ["film.cases.png"]
    with PilImage.open(out / "film.cases.png") as sheet:
        assert sheet.width == 3 * (PICTURE_PX + 16) + 16  # the film and two cases
    shown = run(*arguments, tmp_path / "again").stdout
    assert re.search(r"film\.png: cases like this are a \d+%, b \d+%", shown)
    assert re.search(r"1\. [ab], split train, distance 0\.\d+: ", shown)


def test_wrong_questions_are_usage_errors_and_write_nothing(reader: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    common = (films, "--reader", reader, "--out", out)
    with pytest.raises(UsageError, match=r"expected one of the labels a, b, c, got 'd'"):
        run(*common, "--label", "d", error=UsageError)
    with pytest.raises(UsageError, match=r"expected one of cam, .*, rise, lime, got 'magic'; set --method"):
        run(*common, "--method", "magic", error=UsageError)
    with pytest.raises(UsageError, match="expected no --layer for occlusion, got blocks"):
        run(*common, "--method", "occlusion", "--layer", "blocks", error=UsageError)
    with pytest.raises(UsageError, match="expected --samples of at least 1, got 0"):
        run(*common, "--samples", "0", error=UsageError)
    with pytest.raises(UsageError, match="expected --seed of 0 or more, got -1"):
        run(*common, "--seed", "-1", error=UsageError)
    with pytest.raises(UsageError, match="expected --fill among blur, mean, black, got 'white'"):
        run(*common, "--fill", "white", error=UsageError)
    with pytest.raises(UsageError, match="expected --neighbours of at least 1, got 0"):
        run(*common, "--neighbours", "0", error=UsageError)
    with pytest.raises(UsageError, match="expected at least 9 samples for occlusion, got 4"):
        run(*common, "--method", "occlusion", "--samples", "4", error=UsageError)
    with pytest.raises(DatasetRefused, match="expected a dataset folder or manifest, got nothing at"):
        run(*common, "--cases", tmp_path / "nowhere", error=DatasetRefused)
    with pytest.raises(UsageError, match=r"name of a layer in the encoder, got 'layer9'"):
        run(*common, "--layer", "layer9", error=UsageError)
    with pytest.raises(UsageError, match="--threshold between 0 and 1, got 2"):
        run(*common, "--threshold", "2", error=UsageError)
    with pytest.raises(BundleRefused, match="name or folder of a reader"):
        run(films, "--reader", "nobody", "--out", out, error=BundleRefused)
    with pytest.raises(ImageRefused, match="no such path"):
        run(tmp_path / "nowhere", "--reader", reader, "--out", out, error=ImageRefused)
    assert not out.exists()


def test_an_existing_folder_is_not_overwritten(reader: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(UsageError, match="expected a new folder"):
        run(films, "--reader", reader, "--out", tmp_path / "maps", error=UsageError)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["mine.txt"]


def test_a_reader_without_maps_is_an_error(films: Path, tmp_path: Path) -> None:
    reader = save_small(tmp_path / "pixels", "pixels")
    with pytest.raises(ExplanationFailed, match="expected a network with feature maps, got pixels"):
        run(films, "--reader", reader, "--out", tmp_path / "maps", error=ExplanationFailed)
    assert not (tmp_path / "maps").exists()


def test_help_shows_an_example() -> None:
    assert "wetread explain films/" in run("--help").stdout


def test_readers_on_the_shelf_are_found_by_name(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path / "shelf" / "small")
    monkeypatch.setenv("WETREAD_PATHS__READERS", str(tmp_path / "shelf"))
    result = run(films, "--reader", "small", "--method", "gradcam++", "--out", tmp_path / "maps", "--json")
    assert json.loads(result.stdout)["model"]["name"] == "small"


def test_through_the_command_line_a_refusal_is_one_line_with_its_exit_code(
    cli: Callable[..., CliResult], reader: Path, films: Path, tmp_path: Path
) -> None:
    wrong = cli("explain", films, "--reader", reader, "--label", "d", "--out", tmp_path / "maps")
    assert wrong.exit_code == 2
    assert "expected one of the labels a, b, c, got 'd'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    (films / "bad.png").touch()
    assert cli("explain", films / "bad.png", "--reader", reader, "--out", tmp_path / "maps").exit_code == 3
