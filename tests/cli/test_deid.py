"""``wetread deid`` as typed: results, refusals, exit codes, and no patient in anything that it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.conftest import CliResult
from tests.deid.support import grey, header, lettered, written

Cli = Callable[..., CliResult]
NAMES = ("vexhollow", "tamsin", "4711", "19610304", "hinterwald")


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One film with text in it, one document that is held back, and a note; the folder is named for the patient."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "films" / "Vexhollow^Tamsin 4711-0815"
    folder.mkdir(parents=True)
    film = grey(header(InstitutionName="Hinterwald", StudyDescription="knee"), lettered("VEXHOLLOW 4711-0815"))
    (folder / "a.dcm").write_bytes(written(film))
    document = header(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", SOPInstanceUID="1.2.826.0.1.99.4")
    document.EncapsulatedDocument = b"%PDF Vexhollow"
    (folder / "b.dcm").write_bytes(written(document))
    (folder / "c.txt").write_text("Vexhollow\n")
    return tmp_path / "films"


def _says_nobody(*texts: str) -> None:
    together = "\n".join(texts).lower()
    assert [name for name in NAMES if name in together] == []


def test_a_folder_goes_in_and_nobody_comes_out(cli: Cli, films: Path, tmp_path: Path) -> None:
    first = cli("deid", "films", "--out", "clean", "--reversible")
    assert first.exit_code == 1  # one file is held back
    assert "1 file written to clean" in first.stdout
    assert "quarantined: file 2: an object without pixels (Encapsulated PDF Storage)" in first.stderr
    assert "A new key was written to" in first.stderr
    result = tmp_path / "clean"
    names = [path.relative_to(result).as_posix() for path in result.rglob("*")]
    texts = [path.read_text() for path in result.iterdir() if path.suffix in (".json", ".jsonl", ".html")]
    assert len(texts) == 3
    _says_nobody(first.stdout, first.stderr, *names, *texts)
    (written_file,) = result.rglob("*.dcm")
    assert dcmread(written_file).PatientIdentityRemoved == "YES"
    held = (tmp_path / "clean-quarantine" / "quarantine.csv").read_text()
    assert "b.dcm" in held
    again = cli("deid", "run", "films", "--out", "clean", "--reversible", "--json")
    assert again.exit_code == 1
    report = json.loads(again.stdout)
    assert [file["status"] for file in report["files"]] == ["written", "quarantined", "skipped"]
    assert "A new key" not in again.stderr
    back = cli("deid", "restore", "clean", "--out", "back")
    assert back.exit_code == 0, back.stderr
    (restored,) = (tmp_path / "back").iterdir()
    (source,) = films.rglob("a.dcm")
    assert dcmread(restored).PatientName == dcmread(source).PatientName
    assert np.array_equal(dcmread(restored).pixel_array, dcmread(source).pixel_array)


def test_a_dry_run_writes_nothing_but_the_key(cli: Cli, films: Path, tmp_path: Path) -> None:
    done = cli("deid", "run", "films", "--out", "clean", "--dry-run", "--key", "keys/deid.key")
    assert done.exit_code == 1
    assert "1 file would be written to clean" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "keys"]
    _says_nobody(done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("run", "none", "--out", "x"), 3, "expected a file or folder, got nothing at none; check the path"),
        (("run", "films", "--out", "films/x"), 2, "expected a result outside the source, got films/x and films"),
        (
            ("run", "films", "--out", "x", "--key", "x/k"),
            2,
            "expected a key file outside the folders of images, got x/k",
        ),
        (("run", "films", "--out", "x", "--key", "films/k"), 2, "expected a key file outside the folders of images"),
        (("restore", "films", "--out", "x"), 2, "expected a key file, got FileNotFoundError"),
    ],
)
def test_refusals(cli: Cli, films: Path, words: tuple[str, ...], code: int, message: str) -> None:
    result = cli("deid", *words)
    assert result.exit_code == code
    assert message in result.stderr
    assert not Path("x").exists()


def test_a_folder_without_dicom_is_exit_code_3(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("nothing")
    result = cli("deid", "in", "--out", "clean")
    assert result.exit_code == 3
    assert "expected DICOM objects, got 1 file without one" in result.stderr


def test_a_readable_key_is_refused(cli: Cli, films: Path, tmp_path: Path) -> None:
    assert cli("deid", "films", "--out", "x", "--key", "k", "--dry-run").exit_code == 1
    (tmp_path / "k").chmod(0o644)
    result = cli("deid", "films", "--out", "x", "--key", "k")
    assert result.exit_code == 2
    assert "that its owner alone may read, got mode 0644 of k; run: chmod 600 k" in result.stderr


def test_an_unexpected_error_quotes_nothing(cli: Cli, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.deid import batch

    def broken(data: bytes, setup: object) -> None:
        raise ValueError("Vexhollow^Tamsin")

    monkeypatch.setattr(batch, "clean", broken)
    result = cli("deid", "films", "--out", "x")
    assert result.exit_code == 1
    assert "it could not be processed (ValueError)" in result.stderr
    _says_nobody(result.stdout, result.stderr)
