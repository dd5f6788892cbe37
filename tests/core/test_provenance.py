"""The run record, the hashes, and that nothing half-written is left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wetread import provenance
from wetread.errors import TrainingFailed, UsageError, WetreadError


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_record_holds_what_a_reader_needs_to_repeat_the_run() -> None:
    run = provenance.record(
        seed=7, device="cpu", threads=3, hashes={"data": "ab"}, command=["/opt/bin/wetread", "train", "/data/x"]
    )
    assert run.command == ("wetread", "train", "/data/x")
    assert (run.seed, run.threads, run.hashes) == (7, 3, {"data": "ab"})
    assert run.created.endswith("+00:00")
    assert run.python == ".".join(str(part) for part in sys.version_info[:3])
    assert run.libraries["numpy"] == np.__version__
    assert run.cores >= 1
    assert provenance.Provenance.model_validate_json(run.model_dump_json()) == run


def test_record_keeps_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET_TOKEN", "do-not-keep-7421")
    assert "do-not-keep-7421" not in provenance.record().model_dump_json()


def test_recording_imports_nothing_heavy() -> None:
    code = "import sys, wetread.provenance as p; p.record(); print({'torch', 'pandas', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_commit_is_that_of_the_checkout(repository: Path) -> None:
    git = shutil.which("git")
    if git is None or not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run([git, "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = provenance.source_commit()
    assert commit is not None
    assert commit.removesuffix("+changes") == head.stdout.strip()


def test_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "wetread" / "provenance.py"))
    assert provenance.source_commit() is None


def test_missing_libraries_are_left_out() -> None:
    assert provenance.library_versions(["numpy", "no-such-library-here"]) == {"numpy": np.__version__}


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")  # FIPS 180-4, example B.1
    assert provenance.file_sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_folder_hash_sees_names_and_contents_only(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return provenance.folder_sha256(tmp_path / name)

    first = make("one", {"a": "1", "b/c": "2"})
    assert make("two", {"b/c": "2", "a": "1"}) == first
    assert make("three", {"a": "1", "b/d": "2"}) != first
    assert make("four", {"a": "1", "b/c": "3"}) != first


def test_rows_hash_worked_by_hand() -> None:
    assert provenance.rows_sha256([("a", 1), ("é", None)]) == hashlib.sha256(b'["a",1]\n["\\u00e9",null]\n').hexdigest()


def test_rows_hash_is_of_values_not_of_their_container() -> None:
    table = pd.DataFrame({"n": np.array([1, 2]), "x": [0.5, np.nan], "s": pd.array(["a", pd.NA], dtype="string")})
    plain = [(1, 0.5, "a"), (2, None, None)]
    assert provenance.rows_sha256(table.itertuples(index=False)) == provenance.rows_sha256(plain)
    assert provenance.rows_sha256(plain[::-1]) != provenance.rows_sha256(plain)


def test_json_is_whole_and_readable(tmp_path: Path) -> None:
    provenance.write_json_atomically(tmp_path / "new" / "a.json", {"ä": [1, 2.5, None]})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"ä": [1, 2.5, None]}
    run = provenance.record()
    provenance.write_json_atomically(tmp_path / "run.json", run)
    assert provenance.Provenance.model_validate_json((tmp_path / "run.json").read_text()) == run


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        provenance.write_json_atomically(tmp_path / "a.json", 1)
        with provenance.atomic_folder(tmp_path / "f"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}])
def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises((ValueError, TypeError), match="JSON"):
        provenance.write_json_atomically(file, value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_full_disk_while_writing_json_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    monkeypatch.setattr(Path, "write_text", _full)
    with pytest.raises(
        WetreadError, match=r"expected room to write .*a\.json, got a full disk \(\d+ MiB free\); free some space"
    ):
        provenance.write_json_atomically(file, {"a": 1})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_folder_appears_only_when_done(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with provenance.atomic_folder(target) as part:
        (part / "a").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["run"]
    assert (target / "a").read_text() == "1"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_failed_folder_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), provenance.atomic_folder(tmp_path / "run") as part:  # noqa: PT012
        (part / "a").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_a_folder_is_the_failure_asked_for(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(TrainingFailed, match="full disk"),
        provenance.atomic_folder(tmp_path / "run", failure=TrainingFailed) as part,
    ):
        (part / "a").write_text("1")
        _full()
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_unless_it_is_empty_or_to_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    with provenance.atomic_folder(target) as part:
        (part / "first").touch()
    with (
        pytest.raises(UsageError, match=r"expected a new folder, got .*run, which exists; name another"),
        provenance.atomic_folder(target),
    ):
        pass
    with provenance.atomic_folder(target, replace=True) as part:
        (part / "second").touch()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_replacing_that_fails_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    monkeypatch.setattr(Path, "replace", _full)
    with (
        pytest.raises(WetreadError, match="full disk"),
        provenance.atomic_folder(target, replace=True) as part,
    ):
        (part / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_forbidden_place_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(WetreadError, match=r"allowed to write .*x, got 'Permission denied'; write elsewhere"),
        provenance.disk_errors(tmp_path / "x"),
    ):
        raise PermissionError(errno.EACCES, "denied")


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), provenance.disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(UsageError, match="ours"), provenance.disk_errors(tmp_path, TrainingFailed):
        raise UsageError("ours")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("needs root and mount to make a real full disk")
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this machine does not let a test mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


def test_really_full_disk(tiny_disk: Path) -> None:
    with (
        pytest.raises(TrainingFailed, match=r"room to write .*run, got a full disk \(0 MiB free\)"),
        provenance.atomic_folder(tiny_disk / "run", failure=TrainingFailed) as part,
    ):
        (part / "big").write_bytes(b"x" * 1_000_000)
    assert list(tiny_disk.iterdir()) == []


def test_really_full_disk_met_by_safetensors(tiny_disk: Path) -> None:
    from safetensors.numpy import save_file

    with (
        pytest.raises(TrainingFailed, match="got a full disk"),
        provenance.atomic_file(tiny_disk / "model.safetensors", TrainingFailed) as part,
    ):
        save_file({"w": np.zeros(1_000_000, np.float32)}, part)
    assert list(tiny_disk.iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with (
        pytest.raises(UsageError, match=r"expected the name of a file, got .*results, which is a folder; name a"),
        provenance.atomic_file(tmp_path / "results"),
    ):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "results"]
