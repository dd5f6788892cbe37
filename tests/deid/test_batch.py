"""Runs over many files: what reaches the result, what is quarantined, how a run goes on, and the way back."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.deid.support import KEY, grey, header, lettered, setup, written
from tests.pacs.node_support import film
from wetread.deid.batch import JOURNAL, files_below, open_run, quarantine_of
from wetread.deid.key import Key
from wetread.deid.options import Options
from wetread.deid.originals import open_originals, restore, sealed_of
from wetread.deid.process import Setup
from wetread.errors import InputRefused, UsageError

PLAIN = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def _quiet(**values: Any) -> Dataset:
    """A slice whose word is taken that it carries no text, so that no OCR is needed."""
    sop = values.pop("SOPInstanceUID", "1.2.826.0.1.99.1.1.7")
    given = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "BurnedInAnnotation": "NO", **values}
    return grey(header(SOPInstanceUID=sop, **given), PLAIN)


WHOLE = written(_quiet(StudyDescription="knee of Vexhollow"))


def _put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_text_and_names_are_gone_and_the_original_comes_back(tmp_path: Path) -> None:
    pixels = lettered("VEXHOLLOW 4711-0815")
    source = _put(tmp_path / "in", "Vexhollow Tamsin.dcm", written(grey(header(StudyDescription="knee"), pixels)))
    sealed = sealed_of(tmp_path / "out")
    with open_run(setup(), tmp_path / "out", sealed=sealed) as run:
        result = run.take(source)
    assert result.output is not None
    assert (result.status, result.searched, len(result.regions)) == ("written", True, 1)
    path = tmp_path / "out" / result.output
    raw = path.read_bytes()
    assert b"Vexhollow" not in raw
    assert raw[:128] == b"\0" * 128
    assert (dcmread(path).pixel_array == 40).all()
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert b"Vexhollow" not in sealed.read_bytes()
    back = restore(path, open_originals(sealed, KEY))
    before = dcmread(source)
    assert [e for e in before if e.keyword != "PixelData"] == [e for e in back if e.keyword != "PixelData"]
    assert np.array_equal(back.pixel_array, pixels)
    with pytest.raises(UsageError, match="expected originals sealed with this key"):
        open_originals(sealed, Key(b"z" * 32))
    with pytest.raises(InputRefused, match=r"expected the original of .*, got none among the sealed ones"):
        restore(path, {})


def test_two_runs_agree_and_another_key_does_not(tmp_path: Path) -> None:
    _put(tmp_path / "in", "a.dcm", written(_quiet()))
    _put(tmp_path / "in", "b.dcm", written(_quiet(SOPInstanceUID="1.2.826.0.1.99.1.1.8", StudyDate="20240510")))
    found = []
    for name, key, order in (("one", KEY, 1), ("two", KEY, -1), ("three", Key(b"z" * 32), 1)):
        with open_run(Setup(key), tmp_path / name) as run:
            for path in files_below([tmp_path / "in"])[::order]:
                run.take(path)
        files = sorted(file for file in (tmp_path / name).rglob("*.dcm"))
        found.append([(f.relative_to(tmp_path / name), f.read_bytes()) for f in files])
    assert found[0] == found[1]
    assert {place for place, _ in found[0]}.isdisjoint(place for place, _ in found[2])
    first, second = (dcmread(tmp_path / "one" / place) for place, _ in found[0])
    assert first.PatientID == second.PatientID
    assert abs(int(first.StudyDate) - int(second.StudyDate)) > 0


def _pdf() -> Dataset:
    data = header(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    data.EncapsulatedDocument = b"%PDF"
    return data


def _short() -> Dataset:
    data = _quiet()
    data.PixelData = b"\0" * 64
    return data


@pytest.mark.parametrize(
    ("data", "syntax", "why"),
    [
        (_pdf(), "1.2.840.10008.1.2.1", r"an object without pixels \(Encapsulated PDF Storage\) cannot be shown to be"),
        (_short(), "1.2.840.10008.1.2.1", "its pixels cannot be searched for text: expected complete pixel data"),
        (header(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1"), "1.2.840.10008.1.2.1", "an object without pixels"),
    ],
)
def test_what_cannot_be_shown_to_be_clean_is_held(tmp_path: Path, data: Dataset, syntax: str, why: str) -> None:
    source = _put(tmp_path / "in", "Vexhollow.dcm", written(data, syntax))
    with open_run(setup(), tmp_path / "out") as run:
        result = run.take(source)
    assert result.status == "quarantined"
    assert re.match(why, result.reason)
    held = quarantine_of(tmp_path / "out")
    assert held.stat().st_mode & 0o777 == 0o700
    with (held / "quarantine.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"file": f"{result.source}.dcm", "source": str(source), "reason": result.reason}]
    assert (held / rows[0]["file"]).read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == [JOURNAL]


def test_video_is_quarantined(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    data = _quiet()
    data.PixelData = encapsulate([b"\0\0\1\xb3video"])
    source = _put(tmp_path / "in", "a.dcm", written(data, "1.2.840.10008.1.2.4.102"))
    with open_run(setup(), tmp_path / "out") as run:
        assert run.take(source).reason == "video, whose frames are not searched for text"


def test_a_string_that_the_cleaning_missed_is_found_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is left as it was: the search of the written file alone must hold it back."""
    from wetread.deid import process

    monkeypatch.setattr(process, "clean_header", lambda dataset, work: None)
    source = _put(tmp_path / "in", "a.dcm", written(_quiet()))
    with open_run(setup(), tmp_path / "out") as run:
        result = run.take(source)
    assert result.status == "quarantined"
    assert result.reason.startswith(
        "strings of the patient are left in MediaStorageSOPInstanceUID, PatientID, PatientN"
    )
    assert "Vexhollow" not in result.reason
    assert list((tmp_path / "out").rglob("*.dcm")) == []


def test_text_that_stays_after_three_rounds_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.deid import process

    monkeypatch.setattr(process, "black_out", lambda frames, boxes, dataset: None)
    source = _put(tmp_path / "in", "a.dcm", written(grey(header(), lettered("VEXHOLLOW 4711"))))
    with open_run(setup(), tmp_path / "out") as run:
        result = run.take(source)
    assert result.reason == "text is still read in the pixels after 3 rounds, the name among it"


def test_two_files_with_one_instance_uid_are_not_both_claimed(tmp_path: Path) -> None:
    paths = [
        _put(tmp_path / "in", "a.dcm", written(_quiet())),
        _put(tmp_path / "in", "b.dcm", written(_quiet(StudyTime="111111"))),
        _put(tmp_path / "in", "c.dcm", written(_quiet())),
        _put(tmp_path / "in", "d.txt", b"Vexhollow\n" * 20),
    ]
    with open_run(setup(), tmp_path / "out") as run:
        found = [run.take(path) for path in paths]
    assert [one.status for one in found] == ["written", "quarantined", "skipped", "skipped"]
    assert found[1].reason == "another file of the result has the same SOP Instance UID"
    assert [one.reason for one in found[2:]] == ["the same file again", "a text file, not DICOM"]


def test_a_run_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    paths = [_put(tmp_path / "in", f"{n}.dcm", written(_quiet(SOPInstanceUID=f"1.2.826.0.1.99.{n}"))) for n in (11, 12)]
    with open_run(setup(), tmp_path / "out") as run:
        first = run.take(paths[0])
    with (tmp_path / "out" / JOURNAL).open("a") as journal:
        journal.write('{"number": 2, "sou')
    assert first.output is not None
    before = (tmp_path / "out" / first.output).stat().st_mtime_ns
    with open_run(setup(), tmp_path / "out") as run:
        again = [run.take(path) for path in paths]
    assert [one.status for one in again] == ["written", "written"]
    assert (tmp_path / "out" / first.output).stat().st_mtime_ns == before
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert not list(tmp_path.glob(".deid-*"))


@pytest.mark.parametrize(
    "other", [Setup(Key(b"z" * 32)), Setup(KEY, Options(retain_dates=False))], ids=["key", "options"]
)
def test_a_result_of_another_key_or_other_options_is_not_gone_on_with(tmp_path: Path, other: Setup) -> None:
    with open_run(setup(), tmp_path / "out"):
        pass
    with (
        pytest.raises(UsageError, match="expected a result of the same key and options"),
        open_run(other, tmp_path / "out"),
    ):
        pass


def test_folders_that_would_mix_things_up_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something").write_text("else")
    with pytest.raises(UsageError, match="which holds something else"), open_run(setup(), tmp_path / "out"):
        pass
    with (
        pytest.raises(UsageError, match="expected a quarantine outside the result"),
        open_run(setup(), tmp_path / "new", quarantine=tmp_path / "new" / "q"),
    ):
        pass
    with pytest.raises(InputRefused, match="expected a file or folder, got nothing at"):
        files_below([tmp_path / "none"])


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = _put(tmp_path / "in", "a.dcm", written(_quiet()))
    _put(tmp_path / "in", "b.dcm", written(_pdf()))
    with open_run(setup(), tmp_path / "out", dry_run=True, sealed=tmp_path / "sealed") as run:
        found = [run.take(path).status for path in files_below([tmp_path / "in"])]
    assert found == ["written", "quarantined"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert source.is_file()


def test_the_journal_names_nobody(tmp_path: Path) -> None:
    _put(tmp_path / "in", "Vexhollow 4711.dcm", written(_quiet()))
    _put(tmp_path / "in", "Vexhollow.dcm", written(_pdf()))
    with open_run(setup(), tmp_path / "out") as run:
        for path in files_below([tmp_path / "in"]):
            run.take(path)
    lines = (tmp_path / "out" / JOURNAL).read_text()
    assert "vexhollow" not in lines.lower()
    assert "4711" not in lines
    assert json.loads(lines.splitlines()[0])["key"] == KEY.identity


def test_a_film_breaks_no_rule_that_it_kept_before(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    source = film(tmp_path / "a.dcm", 1, BurnedInAnnotation="NO", StationName="ROOM3", ProtocolName="chest")
    with open_run(setup(), tmp_path / "out") as run:
        result = run.take(source)
    assert result.output is not None
    assert _errors(tmp_path / "out" / result.output) <= _errors(source)


def _errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert "CRImage" in done.stderr  # it was recognised, not just opened
    return {line for line in done.stderr.splitlines() if line.startswith("Error")}


@given(st.data())
@settings(max_examples=60)
def test_damaged_files_are_judged_and_never_break_a_run(data: st.DataObject) -> None:
    """Bytes of the header are changed or cut: whatever comes of it, no exception, and no name in what is written."""
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(132, len(raw) - 64 * 64 * 2 - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(raw), len(raw), len(raw) - 7, 700]))
    with TemporaryDirectory() as name, open_run(setup(), Path(name) / "out") as run:
        source = _put(Path(name) / "in", "a.dcm", bytes(raw[:cut]))
        result = run.take(source)
        assert result.status in ("written", "quarantined", "skipped")
        assert "Vexhollow" not in result.reason
        for path in (Path(name) / "out").rglob("*.dcm"):
            assert b"Vexhollow" not in path.read_bytes()
