"""From a COCO file to a segmenter by the command line alone, and what a person is told on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.datasets.coco_films import CocoFilms, film, outline
from wetread.datasets.manifest import load_manifest
from wetread.datasets.masks import read_mask

if TYPE_CHECKING:
    from tests.conftest import CliResult

Cli = Callable[..., "CliResult"]
TINY = ("--image-size", "32", "--epochs", "1", "--batch-size", "4", "--augment", "none", "--threads", "1")


@pytest.fixture
def films(tmp_path: Path) -> CocoFilms:
    """Twelve films of six patients: hearts on eight of the ten that are listed."""
    found = CocoFilms(tmp_path / "films")
    for number in range(12):
        name = f"p{number // 2}_{number}.png"
        phantom = found.add(name, number, listed=number < 10)
        if number < 8:
            rows, columns = np.nonzero(phantom.heart)
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            found.annotate("Heart", outline(phantom.heart, compressed=bool(number % 2)), bbox=box)
    found.write()
    return found


def test_from_a_coco_file_to_a_segmenter(cli: Cli, films: CocoFilms, tmp_path: Path) -> None:
    data, run = tmp_path / "set", tmp_path / "run"
    patients = ("--patient-pattern", r"(p\d+)_")
    made = cli("dataset", "import", films.root, "--coco", films.root / "annotations.json", "--out", data, *patients)
    assert made.exit_code == 0, made.stderr
    said = " ".join(made.stdout.split())
    assert "12 images, layout coco (as asked)" in said
    assert "2 images beside them are not listed: kept, with nothing known about them" in said
    assert "mask_heart: masks of 8 of 12 images" in said
    assert "images with a mask per organ and split" in said
    assert "Writing masks: 8 of 8 masks" in made.stderr
    for number in range(8):
        name = f"p{number // 2}_{number}.png"
        stored = read_mask(data / "masks" / "heart" / f"{name}.png", *film(number).heart.shape)
        np.testing.assert_array_equal(stored, film(number).heart)

    checked = cli("dataset", "check", data)
    assert checked.exit_code == 0, checked.stderr
    assert "without a mask" in checked.stdout
    (counts,) = [t for t in json.loads((data / "check.json").read_text())["counts"] if t["columns"][0] == "organ"]
    assert counts["rows"] == [["heart", 8, 8, 4]]
    assert "images with a mask per organ and split" in (data / "check.html").read_text()
    assert cli("dataset", "split", data, "--train", "0.6", "--val", "0.4").exit_code == 0

    flags = ("--task", "segment", "--organs", "heart", *TINY, "--no-tensorboard", "--json")
    trained = cli("train", data, *flags, "--out", run)
    assert trained.exit_code == 0, trained.stderr
    assert "4 of 12 images have no mask and are left out" in trained.stderr
    images = {"used": 8, "without_mask": 4, "masks": {"heart": 8}}
    assert json.loads(trained.stdout)["images"] == images
    assert json.loads((run / "results.json").read_text())["images"] == images
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "4 of 12 images have no mask and were left out." in page
    assert "no mask, left out" in page

    judged = cli("evaluate", run, "--data", data, "--out", tmp_path / "evaluation")
    assert "8 images with masks; 4 without any left out" in judged.stdout
    assert json.loads((tmp_path / "evaluation" / "results.json").read_text())["n_without_mask"] == 4
    assert "without a mask" in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")


def test_json_of_an_import(cli: Cli, films: CocoFilms, tmp_path: Path) -> None:
    data = tmp_path / "set"
    flags = ("--category", "cor=heart", "--label-columns", "heart", "--json")
    made = cli("dataset", "import", films.root, "--out", data, *flags)
    assert made.exit_code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["masks"] == {"mask_cor": 8}
    assert (facts["task"], facts["classes"], facts["layout"]) == ("multilabel", ["heart"], "coco")
    assert Path(facts["mask_root"]) == data / "masks"
    assert load_manifest(data).table["label_heart"].value_counts().to_dict() == {1.0: 8, 0.0: 2}


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (
            ("--category", "spleen"),
            3,
            "expected a category 'spleen', got 'Heart', 'left lung', 'nodule' in annotations",
        ),
        (
            ("--category", "heart="),
            2,
            "expected --category THEIRS or OURS=THEIRS, each once, got 'heart='; e.g. --cate",
        ),
        (("--category", "a=heart", "--category", "a=nodule"), 2, "OURS=THEIRS, each once, got 'a=nodule'"),
        (("--coco", "absent.json"), 3, "expected a COCO file, got no such file: absent.json"),
        (("--coco", "annotations.json", "--layout", "files"), 2, "expected COCO flags for the layout coco, got --coco"),
    ],
)
def test_a_refused_import_is_one_line_and_writes_nothing(
    cli: Cli, films: CocoFilms, tmp_path: Path, flags: tuple[str, ...], code: int, message: str
) -> None:
    result = cli("dataset", "import", films.root, "--out", tmp_path / "set", *flags)
    assert result.exit_code == code, result.stderr
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert message in said
    assert not (tmp_path / "set").exists()


def test_an_existing_data_set_is_replaced_only_when_asked(cli: Cli, films: CocoFilms, tmp_path: Path) -> None:
    flags = ("dataset", "import", films.root, "--out", tmp_path / "set")
    assert cli(*flags).exit_code == 0
    assert "expected a new dataset folder" in cli(*flags).stderr
    assert cli(*flags, "--category", "new=heart", "--overwrite").exit_code == 0
    assert [path.name for path in (tmp_path / "set" / "masks").iterdir()] == ["new"]
