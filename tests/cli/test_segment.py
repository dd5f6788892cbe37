"""``wetread segment`` on films, folders and what is no film: masks, pages, codes, messages."""

from __future__ import annotations

import csv
import errno
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image as PilImage

from tests.conftest import CliResult
from tests.models.support import small_segmenter
from tests.reading.support import grey_png, mixed_folder, phantom, shared_bundle, write_films
from tests.reporting.markup import Page
from wetread.cli import segment_folder
from wetread.datasets.masks import read_dicom_seg
from wetread.models.bundle import load_any_card, save_reader
from wetread.reading.organs import OrganReading

Cli = Callable[..., CliResult]
ORGANS = ("lungs", "heart")


@functools.cache
def bundle(bias: float | None) -> Path:
    """A segmenter whose masks are all full (5), all empty (-5), or whatever random weights find (None)."""
    segmenter = small_segmenter(ORGANS, bias=bias, limits=("It knows <nothing>.",))
    folder = Path(tempfile.mkdtemp(prefix="wetread-segmenter-")) / "organs"
    save_reader(folder, segmenter.card, segmenter.networks)
    return folder


@pytest.fixture
def segment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``segment(path, ...)`` with the segmenter whose masks are full."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, bias=5.0: cli("segment", *arguments, "--segmenter", bundle(bias))


def lines(result: CliResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_film_as_a_table(segment: Cli, tmp_path: Path) -> None:
    result = segment(write_films(tmp_path, 1)[0])
    assert result.exit_code == 0, result.stderr
    for text in ("film0.dcm", "lungs", "heart", "1.00", "too large", "1 image, 1 with an odd mask", "cm2"):
        assert text in result.stdout
    sha = load_any_card(bundle(5.0)).sha256
    assert f"Segmenter organs 1, {sha[:12]}, not audited. Research use only. Not a diagnosis." in result.stdout


def test_one_film_as_json_is_one_line_of_the_schema(segment: Cli, tmp_path: Path) -> None:
    result = segment(write_films(tmp_path, 1)[0], "--json")
    assert result.exit_code == 0
    found = OrganReading.model_validate_json(result.stdout)
    assert found.image.name == "film0.dcm"
    assert [organ.organ for organ in found.organs] == list(ORGANS)
    assert [organ.image_share for organ in found.organs] == [1, 1]
    assert found.model.sha256 == load_any_card(bundle(5.0)).sha256


def test_every_format_of_a_dicom_file_holds_the_same_masks(segment: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    out = tmp_path / "out"
    formats = [word for kind in ("nifti", "png", "dicom-seg") for word in ("--format", kind)]
    result = segment(film, "--out", out, *formats)
    assert result.exit_code == 0, result.stderr
    assert f"Page: {out / 'index.html'}" in result.stdout
    assert files_of(out) == {
        *("index.html", "organs.jsonl", "failures.csv", "overlays/film0.dcm.png", "masks/film0.dcm.seg.dcm"),
        *(f"masks/film0.dcm.{organ}.{end}" for organ in ORGANS for end in ("png", "nii.gz")),
    }
    for organ in ORGANS:
        with PilImage.open(out / "masks" / f"film0.dcm.{organ}.png") as picture:
            assert picture.size == (256, 256)
            assert np.asarray(picture).all()
        assert read_dicom_seg(out / "masks" / "film0.dcm.seg.dcm", 256, 256, organ=organ).all()
        stored: Any = nibabel.loadsave.load(out / "masks" / f"film0.dcm.{organ}.nii.gz")
        assert np.asarray(stored.dataobj).sum() == 256 * 256
    (line,) = (out / "organs.jsonl").read_text().splitlines()
    for finding in OrganReading.model_validate_json(line).organs:
        assert set(finding.files) == {"overlay", "png", "nifti", "dicom-seg"}
        assert set(finding.files.values()) <= files_of(out)


def test_masks_of_a_png_are_of_its_own_size_and_no_seg(segment: Cli, tmp_path: Path) -> None:
    film = grey_png(tmp_path / "film.png", phantom(100).image[:200, :120])
    out = tmp_path / "out"
    assert segment(film, "--out", out, "--format", "dicom-seg", "--format", "png", bias=None).exit_code == 0
    assert files_of(out / "masks") == {"film.png.lungs.png", "film.png.heart.png"}
    reading = OrganReading.model_validate_json((out / "organs.jsonl").read_text())
    assert reading.warnings == ("No DICOM SEG was written: the image is no DICOM file.",)
    for organ in reading.organs:
        with PilImage.open(out / organ.files["png"]) as picture:
            mask = np.asarray(picture)
        assert mask.shape == (200, 120)
        assert int((mask > 0).sum()) == organ.area_px
    assert any(organ.area_px for organ in reading.organs)


def test_png_is_the_format_unless_told_otherwise(segment: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    assert segment(film, "--out", tmp_path / "out").exit_code == 0
    assert files_of(tmp_path / "out" / "masks") == {f"film0.dcm.{organ}.png" for organ in ORGANS}


def test_empty_masks_make_no_seg_and_are_said(segment: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    out = tmp_path / "out"
    result = segment(film, "--out", out, "--format", "dicom-seg", "--json", bias=-5.0)
    assert result.exit_code == 0, result.stderr
    (line,) = lines(result)
    assert line["warnings"] == ["No DICOM SEG was written: all masks are empty."]
    assert [organ["flags"] for organ in line["organs"]] == [["empty"]] * 2
    assert files_of(out / "masks") == set()


def test_raw_masks_are_not_cleaned(segment: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    changed = [
        sum(organ["changed_px"] for organ in lines(segment(film, "--json", flag, bias=None))[0]["organs"])
        for flag in ("--clean", "--raw")
    ]
    assert changed[0] > 0
    assert changed[1] == 0


def test_bad_files_among_films(segment: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = segment(mixed_folder(tmp_path / "films"), "--out", out, "--json")
    assert result.exit_code == 1
    found = lines(result)
    names = [f"film{i}.{'dcm' if i % 2 == 0 else 'png'}" for i in range(7)]
    assert [line["image"]["name"] for line in found if "image" in line] == names
    assert [set(line) for line in found if "error" in line] == [{"file", "error", "message"}] * 3
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        failures = list(csv.DictReader(file))
    assert [row["file"] for row in failures] == ["empty.dcm", "half.dcm", "letter.dcm"]
    assert "an empty file" in failures[0]["message"]
    kept = [line for line in result.stdout.splitlines(keepends=True) if '"error"' not in line]
    assert (out / "organs.jsonl").read_text() == "".join(kept)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    tiles = [one.words for one in page.all("dd")]
    assert {"7", "3"} <= set(tiles)
    table = segment(tmp_path / "films")
    for row in failures:
        assert f"not read: {row['file']}" in table.stdout


def test_the_page_is_well_formed_and_loads_nothing(segment: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_films(films, 1)[0].rename(films / "a b<img src=x onerror=alert(1)>.dcm")
    grey_png(films / "a b_img src=x onerror=alert(1)_.dcm.png", phantom(101).image)
    out = tmp_path / "out"
    assert segment(films, "--out", out).exit_code == 0
    html = (out / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.problems == []
    assert all(address.startswith(("data:image/", "#")) for _, _, address in page.loads)
    assert len([one for one in page.all("img") if one.attributes["src"].startswith("data:image/jpeg")]) == 2
    assert "a b<img src=x onerror=alert(1)>.dcm" in [one.words for one in page.all("h2")]
    assert not any(key.startswith("on") for one in page.elements for key in one.attributes)
    assert "It knows <nothing>." in [one.words for one in page.all("li")]
    assert "Research use only. Not a diagnosis." in html
    allowed = set("abcdefghijklmnopqrstuvwxyz_.-0123456789")
    assert len(files_of(out / "overlays")) == 2
    assert all(set(name) <= allowed for part in ("masks", "overlays") for name in files_of(out / part))


def test_one_bad_file_is_refused_in_one_line(segment: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"Dear colleague,\n")
    result = segment(bad, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "a text file: letter.dcm" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["letter.dcm"]


def test_a_reader_is_no_segmenter(cli: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    result = cli("segment", film, "--segmenter", shared_bundle())
    assert result.exit_code == 2
    assert "expected a segmenter, got the reader small; use `wetread read`" in result.stderr


def test_a_segmenter_is_no_reader(cli: Cli, tmp_path: Path) -> None:
    result = cli("read", write_films(tmp_path, 1)[0], "--reader", bundle(5.0))
    assert result.exit_code == 3
    assert "expected a reader in organs, got the segmenter organs; use `wetread segment`" in result.stderr


def test_an_unknown_segmenter_lists_those_there_are(cli: Cli, tmp_path: Path) -> None:
    result = cli("segment", write_films(tmp_path, 1)[0], "--segmenter", "spleen")
    assert result.exit_code == 3
    assert "expected the name or folder of a reader, got 'spleen'; choose one of: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--format", "jpeg"), 2, "expected a mask format among png, dicom-seg, nifti, got 'jpeg'; repeat --format"),
        (("--format", "png,nifti"), 2, "got 'png,nifti'; repeat --format for several"),
        (("--formats", "png"), 2, "No such option: --formats"),
    ],
)
def test_a_wrong_flag_writes_nothing(
    segment: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    result = segment(film, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_such_path(segment: Cli, tmp_path: Path) -> None:
    result = segment(tmp_path / "nothing.dcm")
    assert result.exit_code == 3
    assert "no such path: nothing.dcm; check the spelling" in result.stderr


def test_an_existing_folder_is_kept_unless_told_otherwise(segment: Cli, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    result = segment(film, "--out", out)
    assert result.exit_code == 2
    assert (
        f"expected a new or empty folder for --out, got {out}, which has files; name another, or add" in result.stderr
    )
    assert files_of(out) == {"mine.txt"}
    assert segment(film, "--out", out, "--overwrite").exit_code == 0
    assert "mine.txt" not in files_of(out)
    assert "organs.jsonl" in files_of(out)
    refused = segment(film, "--out", film, "--overwrite")
    assert refused.exit_code == 2
    assert "expected a folder for --out, got a file" in refused.stderr


@pytest.mark.parametrize("step", ["add", "finish"])
def test_a_full_disk_leaves_nothing_and_keeps_the_old_folder(
    segment: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    out = tmp_path / "out"
    assert segment(film, "--out", out).exit_code == 0
    before = files_of(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment_folder.SegmentFolder, step, full)
    result = segment(film, "--out", out, "--overwrite")
    assert result.exit_code == 1
    assert "got a full disk" in result.stderr
    assert files_of(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "out"]


def test_help_names_every_flag_and_imports_nothing_heavy() -> None:
    """In a process of its own: torch alone costs a second and more."""
    code = (
        "import sys; from wetread.cli.main import run; run(['segment', '--help']);"
        "heavy = {'torch', 'timm', 'pandas', 'scipy', 'monai', 'highdicom', 'nibabel'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for flag in ("--segmenter", "--out", "--overwrite", "--format", "--clean", "--raw", "--json"):
        assert flag in done.stdout
    assert "Example: wetread segment films/ --out organs --format png --format dicom-seg" in done.stdout
