"""``wetread models``: listing, showing, moving readers, and what is refused on the way in."""

from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from tests.models.support import small_reader, small_segmenter
from wetread.models import bundle
from wetread.models.bundle import save_reader

Cli = Callable[..., CliResult]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of readers with one in it."""
    reader = small_reader()
    save_reader(tmp_path / "shelf" / "small", reader.card, reader.networks)
    return tmp_path / "shelf"


@pytest.fixture
def archive(cli: Cli, shelf: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.zip"
    assert cli("models", "export", "small", "--readers", shelf, "--out", path).exit_code == 0
    return path


def test_list(cli: Cli, shelf: Path) -> None:
    result = cli("models", "list", "--readers", shelf)
    assert result.exit_code == 0
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("small"))
    assert row[:4] == ["small", "1", "binary", "finding"]


def test_a_name_is_never_cut_in_the_list(cli: Cli, tmp_path: Path) -> None:
    long = "a-reader-with-a-name-of-forty-characters"
    reader = small_reader(labels=("consolidation", "effusion", "cardiomegaly"), name=long)
    save_reader(tmp_path / "shelf" / long, reader.card, reader.networks)
    assert long in cli("models", "list", "--readers", tmp_path / "shelf").stdout


def test_list_as_json_gives_folder_and_card(cli: Cli, shelf: Path) -> None:
    rows = json.loads(cli("models", "list", "--readers", shelf, "--json").stdout)
    row = next(row for row in rows if row["name"] == "small")
    assert row["folder"] == str(shelf / "small")
    assert row["weights"]["model.safetensors"]


def test_list_of_nothing_says_what_to_do(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path / "no-zoo")
    result = cli("models", "list", "--readers", tmp_path / "none")
    assert result.exit_code == 0
    assert "no readers yet; train one" in result.stdout


def test_the_shelf_comes_from_the_settings(cli: Cli, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WETREAD_PATHS__READERS", str(shelf))
    assert "small" in cli("models", "list").stdout


def test_show(cli: Cli, shelf: Path) -> None:
    result = cli("models", "show", "small", "--readers", shelf)
    assert result.exit_code == 0
    for text in ("cnn, 1 of them", "32 x 32 px", "Research use only. Not a diagnosis.", "not audited"):
        assert text in result.stdout


def test_show_of_an_unknown_reader_lists_the_known(cli: Cli, shelf: Path) -> None:
    result = cli("models", "show", "smaal", "--readers", shelf)
    assert result.exit_code == 3
    assert "expected the name or folder of a reader, got 'smaal'; choose one of:" in result.stderr


def test_export_then_import_gives_the_same_weights(cli: Cli, archive: Path, tmp_path: Path) -> None:
    result = cli("models", "import", archive, "--readers", tmp_path / "other", "--name", "copy")
    assert result.exit_code == 0
    assert "Next: wetread read FILE --reader copy" in result.stdout
    card = json.loads((tmp_path / "other" / "copy" / "card.json").read_text())
    with zipfile.ZipFile(archive) as packed:
        original = json.loads(packed.read("card.json"))
    assert card["name"] == "copy"
    assert card["weights"] == original["weights"]


def test_export_to_a_folder(cli: Cli, shelf: Path, tmp_path: Path) -> None:
    assert cli("models", "export", "small", "--readers", shelf, "--out", tmp_path / "copy").exit_code == 0
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"card.json", "README.md", "model.safetensors"}


def test_export_does_not_overwrite(cli: Cli, shelf: Path, archive: Path) -> None:
    before = archive.read_bytes()
    result = cli("models", "export", "small", "--readers", shelf, "--out", archive)
    assert result.exit_code == 3
    assert "expected a new path to export to" in result.stderr
    assert archive.read_bytes() == before


def _repack(archive: Path, change: Callable[[str, bytes], tuple[str, bytes]], extra: dict[str, bytes]) -> None:
    with zipfile.ZipFile(archive) as packed:
        files = dict(change(name, packed.read(name)) for name in packed.namelist())
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in {**files, **extra}.items():
            packed.writestr(name, data)


def _flip_last_byte(name: str, data: bytes) -> tuple[str, bytes]:
    return (name, data[:-1] + bytes([data[-1] ^ 1])) if name.endswith(".safetensors") else (name, data)


def _unknown_key(name: str, data: bytes) -> tuple[str, bytes]:
    return (name, json.dumps({**json.loads(data), "surprise": 1}).encode()) if name == "card.json" else (name, data)


def _same(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data


@pytest.mark.parametrize(
    ("change", "extra", "complaint"),
    [
        (_flip_last_byte, {}, "with sha256"),
        (_unknown_key, {}, "surprise"),
        (_same, {"weights.pt": pickle.dumps([1])}, "weights.pt, which can run code when loaded"),
        (_same, {"../escape.txt": b"x"}, "expected files without folders in the zip"),
    ],
)
def test_a_damaged_or_dangerous_bundle_is_refused_and_leaves_nothing(
    cli: Cli,
    archive: Path,
    tmp_path: Path,
    change: Callable[[str, bytes], tuple[str, bytes]],
    extra: dict[str, bytes],
    complaint: str,
) -> None:
    _repack(archive, change, extra)
    result = cli("models", "import", archive, "--readers", tmp_path / "other", "--name", "copy")
    assert result.exit_code == 3
    assert complaint in result.stderr
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "escape.txt").exists()


def test_a_full_disk_while_importing_is_one_line(
    cli: Cli, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wetread.models.bundle.shutil.copy2", full)
    result = cli("models", "import", archive, "--readers", tmp_path / "other", "--name", "copy")
    assert result.exit_code == 1
    assert "got a full disk" in result.stderr
    assert not list((tmp_path / "other").iterdir())


@pytest.fixture
def with_segmenter(shelf: Path) -> Path:
    """The shelf with a segmenter beside the reader."""
    segmenter = small_segmenter(("lungs", "heart"), limits=("No lateral views.",))
    save_reader(shelf / "organs", segmenter.card, segmenter.networks)
    return shelf


def test_a_segmenter_is_listed_with_its_organs(cli: Cli, with_segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = cli("models", "list", "--readers", with_segmenter).stdout.splitlines()
    row = next(line.split() for line in lines if line.startswith("organs"))
    assert row[:5] == ["organs", "1", "segmentation", "lungs,", "heart"]
    assert any(line.startswith("small") for line in lines)
    cards = json.loads(cli("models", "list", "--readers", with_segmenter, "--json").stdout)
    assert {card["name"]: card["kind"] for card in cards}.items() >= {"organs": "segmenter", "small": "reader"}.items()


def test_show_a_segmenter(cli: Cli, with_segmenter: Path) -> None:
    result = cli("models", "show", "organs", "--readers", with_segmenter)
    assert result.exit_code == 0
    facts = ("segmentation: lungs, heart", "unet, 1 of them", "64 x 64 px", "No lateral views.", "not audited")
    for text in (*facts, "Research use only. Not a diagnosis."):
        assert text in result.stdout
    card = json.loads(cli("models", "show", "organs", "--readers", with_segmenter, "--json").stdout)
    assert (card["organs"], card["encoder"], card["exclusive"]) == (["lungs", "heart"], "tf_efficientnet_lite0", False)


def test_a_segmenter_is_exported_and_imported(cli: Cli, with_segmenter: Path, tmp_path: Path) -> None:
    archive = tmp_path / "organs.zip"
    assert cli("models", "export", "organs", "--readers", with_segmenter, "--out", archive).exit_code == 0
    result = cli("models", "import", archive, "--readers", tmp_path / "other", "--name", "copy")
    assert result.exit_code == 0, result.stderr
    assert "Next: wetread segment FILE --segmenter copy" in result.stdout
    files = {path.name for path in (tmp_path / "other" / "copy").iterdir()}
    assert files == {"card.json", "README.md", "model.safetensors"}
