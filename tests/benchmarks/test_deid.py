"""The benchmark of de-identification in short, and a proof that its search can find something."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.deid import Tally, _search, measure
from benchmarks.deid_files import plant


@pytest.fixture(scope="module")
def values() -> dict[str, float]:
    return {figure.what: figure.value for figure in measure(2, ("CR", "US"), size_px=200)}


def test_nothing_is_left_of_anybody(values: dict[str, float]) -> None:
    kept = {what: value for what, value in values.items() if "left" in what or "read in pixels" in what}
    assert kept == dict.fromkeys(
        (
            "strings left in bytes and names of files",
            "strings left in elements",
            "strings read in pixels",
            "burned-in texts with letters left",
        ),
        0,
    )
    assert values["files written"] == 4


def test_two_runs_agree(values: dict[str, float]) -> None:
    agreed = {what: value for what, value in values.items() if "differ" in what or "several" in what or "share" in what}
    assert len(agreed) == 8
    assert set(agreed.values()) == {0}


def test_the_search_finds_what_is_in_a_file_that_was_not_touched(tmp_path: Path) -> None:
    planted = plant("CR", 0, size_px=200)
    path = tmp_path / "Quarkwhistle.dcm"
    path.write_bytes(planted.data)
    tally = Tally()
    _search(planted, path, Path("Quarkwhistle.dcm"), "CR", tally)
    assert len(tally.in_bytes) == len(planted.strings)
    assert len(tally.in_elements) >= len(planted.strings) - 1
    assert len(tally.read_by_ocr) >= 2
    assert tally.ink == ["CR"]
