"""``wetread dataset``: the four verbs from end to end, their exit codes and what they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.datasets.layouts import LAYOUTS
from tests.datasets.pictures import class_tree, picture, write
from wetread.datasets.manifest import load_manifest

if TYPE_CHECKING:
    from tests.conftest import CliResult

Cli = Callable[..., "CliResult"]
PATTERN = r"/(p\d+)_"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return class_tree(tmp_path / "films", per_class=24)


@pytest.fixture
def dataset(source: Path, tmp_path: Path, cli: Cli) -> Path:
    out = tmp_path / "set"
    assert cli("dataset", "import", source, "--out", out, "--patient-pattern", PATTERN).exit_code == 0
    return out


def test_import_check_split_show(source: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "set"
    made = cli("dataset", "import", source, "--out", out, "--patient-pattern", PATTERN)
    assert made.exit_code == 0
    assert "48 images, layout folder (class folders normal, sick)" in " ".join(made.stdout.split())
    assert f"wetread dataset check {out}" in made.stdout.replace("\n", "")
    checked = cli("dataset", "check", out)
    assert checked.exit_code == 0, checked.stderr
    assert "48 of 48 images" in checked.stderr
    page = (out / "check.html").read_text(encoding="utf-8")
    assert "films" in page
    assert json.loads((out / "check.json").read_text(encoding="utf-8"))["n_images"] == 48
    assert load_manifest(out).table["phash"].notna().all()
    divided = cli("dataset", "split", out, "--seed", "3")
    assert divided.exit_code == 0
    assert "seed 3, sha256" in " ".join(divided.stdout.split())
    shown = cli("dataset", "show", out)
    assert shown.exit_code == 0
    assert "48 images, binary: normal, sick" in shown.stdout
    assert "last check: 0 blocking findings" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_imports_as_json(name: str, tmp_path: Path, cli: Cli) -> None:
    made = LAYOUTS[name].build(tmp_path / "source")
    layout = [] if name != "files" else ["--layout", "files"]
    result = cli("dataset", "import", made, "--out", tmp_path / "set", "--json", *layout)
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["layout"], facts["images"]) == (name, LAYOUTS[name].images)
    assert result.stderr.startswith("Writing masks: 1 of 1 masks") if facts["masks"] else result.stderr == ""


def test_json_of_check_split_and_show(dataset: Path, cli: Cli) -> None:
    checked = json.loads(cli("dataset", "check", dataset, "--json").stdout)
    assert checked["schema_version"] == "1"
    assert checked == json.loads((dataset / "check.json").read_text(encoding="utf-8"))
    divided = json.loads(cli("dataset", "split", dataset, "--folds", "4", "--json").stdout)
    assert divided["split"]["folds"] == 4
    shown = json.loads(cli("dataset", "show", dataset, "--json").stdout)
    assert shown["split"] == divided["split"]
    assert shown["check"]["findings"]["block"] == 0


def test_a_blocking_finding_exits_3_with_one_line_and_still_writes_the_page(tmp_path: Path, cli: Cli) -> None:
    films = tmp_path / "films"
    for split in ("train", "test"):
        class_tree(films / split, per_class=4)  # the same pictures in both
    out = tmp_path / "set"
    assert cli("dataset", "import", films, "--out", out).exit_code == 0
    result = cli("dataset", "check", out)
    assert result.exit_code == 3
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: expected a dataset without blocking findings, got Identical images in different splits"
    )
    assert (out / "check.html").is_file()
    assert "block" in result.stdout


def test_near_duplicates_are_kept_together_after_a_check(dataset: Path, source: Path, cli: Cli) -> None:
    Image.fromarray(picture(0)).resize((70, 70)).save(source / "sick" / "p10_0.png")  # was another picture
    assert "near duplicates are not known yet" in cli("dataset", "split", dataset).stderr
    assert cli("dataset", "check", dataset).exit_code in (0, 3)
    for seed in range(3):
        again = cli("dataset", "split", dataset, "--seed", seed)
        assert again.exit_code == 0
        assert "near duplicates" in " ".join(again.stdout.split())
        split = load_manifest(dataset).table.set_index("path")["split"]
        assert split["normal/p00_0.png"] == split["sick/p10_0.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("import", "{tmp}/absent"), 3, "error: expected a folder or table, got nothing at"),
        (("import", "{tmp}/empty"), 3, "error: expected one of the layouts mura,"),
        (("import", "{tmp}/films", "--layout", "yolo"), 2, "got 'yolo'; choose one of them"),
        (("import", "{tmp}/t.csv", "--map", "patient"), 2, "expected --map OURS=THEIRS, got 'patient'"),
        (("import", "{tmp}/t.csv", "--map", "patient=PatientId"), 3, "did you mean 'PatientID'?"),
        (("import", "{tmp}/films", "--out", "{tmp}/set"), 3, "expected a new dataset folder"),
        (("check", "{tmp}/films"), 3, "expected a dataset folder with manifest.parquet"),
        (("split", "{tmp}/set", "--train", "0.9"), 2, "that sum to 1, got train 0.9"),
        (("split", "{tmp}/set", "--folds", "3", "--val", "0.1"), 2, "expected --folds alone"),
        (("split", "{tmp}/set", "--folds", "40"), 3, "at least 40 patients of every class for 40 folds"),
        (("split", "{tmp}/t.csv"), 3, "expected a dataset folder, where the split is stored"),
        (("show", "{tmp}/absent"), 3, "expected a dataset folder or manifest, got nothing at"),
    ],
)
def test_refusals_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, dataset: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "0.png", 0)
    (tmp_path / "t.csv").write_text("path,PatientID,label\n0.png,a,normal\n")
    result = cli("dataset", *(a.format(tmp=tmp_path) for a in arguments))
    assert result.exit_code == code, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert message in said[0]


def test_a_refused_import_writes_nothing(tmp_path: Path, cli: Cli) -> None:
    class_tree(tmp_path / "films", classes=("only",))
    result = cli("dataset", "import", tmp_path / "films", "--layout", "folder", "--out", tmp_path / "set")
    assert result.exit_code == 3
    assert not (tmp_path / "set").exists()


def test_a_split_that_is_refused_leaves_the_old_one(dataset: Path, cli: Cli) -> None:
    cli("dataset", "split", dataset, "--seed", "1")
    before = (dataset / "dataset.toml").read_bytes(), (dataset / "manifest.parquet").read_bytes()
    assert cli("dataset", "split", dataset, "--folds", "40").exit_code == 3
    assert before == ((dataset / "dataset.toml").read_bytes(), (dataset / "manifest.parquet").read_bytes())


def test_missing_files_are_named(dataset: Path, source: Path, cli: Cli) -> None:
    (source / "sick" / "p10_0.png").unlink()
    result = cli("dataset", "check", dataset)
    assert result.exit_code == 3
    assert "got 1 that do not exist, e.g. 'sick/p10_0.png'" in result.stderr
    assert not (dataset / "check.json").exists()


@pytest.mark.parametrize("verb", ["import", "check", "split", "show"])
def test_help_has_an_example(verb: str, cli: Cli) -> None:
    result = cli("dataset", verb, "--help")
    assert result.exit_code == 0
    assert f"wetread dataset {verb}" in result.stdout
    assert "Example: wetread dataset" in result.stdout


def slide(folder: Path, name: str, tissue: slice) -> None:
    """A scanned slide: glass with a block of tissue, tiles of 64 pixels in JPEG, as scanners write them."""
    pixels = np.full((256, 320, 3), (244, 243, 245), np.uint8)
    pixels[64:192, tissue] = (200, 120, 170)
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / name, pixels, tile=(64, 64), photometric="rgb", compression="jpeg")


def test_slides_become_bags_of_tiles(cli: Cli, tmp_path: Path) -> None:
    slide(tmp_path / "slides" / "normal", "a.svs", slice(64, 192))
    slide(tmp_path / "slides" / "tumour", "b.svs", slice(0, 256))
    out = tmp_path / "set"
    done = cli("dataset", "import", tmp_path / "slides", "--tiles", 64, "--tissue", 0.9, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 4 + 8
    table = load_manifest(out).table
    assert table.groupby("label")["path"].count().to_dict() == {"normal": 4, "tumour": 8}
    assert table.groupby("label")["study"].nunique().to_dict() == {"normal": 1, "tumour": 1}
    places = json.loads((out / "tiles" / str(table["study"].iloc[0]) / "tiles.json").read_text(encoding="utf-8"))
    assert (places["image"], places["rows"], places["columns"]) == ("a.svs", 256, 320)
    assert sorted(places["tiles"].values()) == [[64, 64], [64, 128], [128, 64], [128, 128]]
    assert "Cutting tiles" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--tiles", 8), 2, "expected tiles of 16 to 4096 pixels, got 8; set --tiles in that range"),
        (("--tiles", 64, "--tissue", 2), 2, "expected a tissue share from 0 to 1, got 2.0"),
        (("--tiles", 256), 3, "expected a tile with 25% tissue, got none in glass.svs of 320 x 256 pixels"),
    ],
)
def test_slides_that_cannot_be_cut_leave_nothing_behind(
    cli: Cli, tmp_path: Path, flags: tuple[object, ...], code: int, message: str
) -> None:
    slide(tmp_path / "slides" / "normal", "glass.svs", slice(0, 0))
    slide(tmp_path / "slides" / "tumour", "b.svs", slice(0, 256))
    done = cli("dataset", "import", tmp_path / "slides", *flags, "--out", tmp_path / "set")
    assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "set" / "manifest.parquet").exists()
    assert not (tmp_path / "set" / "tiles").exists()
