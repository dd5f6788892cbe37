"""Short forms of the long fault runs: lost power, a failing disk, a kill at random; and that a loss would be seen."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from benchmarks import node_faults
from benchmarks.node_faults import FAULTS, POWERED, Tally, one_cut, one_disk_fault, one_kill
from benchmarks.node_peers import make_objects


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    files = make_objects(tmp_path_factory.mktemp("faults") / "objects", 40, side=16)
    return [(str(pydicom.dcmread(path).SOPInstanceUID), node_faults.data_set(path)) for path in files]


def test_nothing_that_was_acknowledged_is_lost_with_the_power(tmp_path: Path, objects: list[tuple[str, bytes]]) -> None:
    tally = Tally()
    one_cut(tmp_path / "node", objects, (120, 3), tally)
    assert tally.acknowledged > 5
    assert (tally.lost, tally.unreadable, tally.partial) == (0, 0, 0)


def test_a_receiver_that_does_not_sync_its_folders_would_be_found_out(
    tmp_path: Path, objects: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = "from wetread.pacs import ledger\nledger.sync_directory = lambda _: None\nstore = ObjectStore"
    monkeypatch.setattr(node_faults, "POWERED", POWERED.replace("store = ObjectStore", careless))
    tally = Tally()
    one_cut(tmp_path / "node", objects, (120, 3), tally)
    assert tally.acknowledged > 5
    assert tally.unreadable == tally.acknowledged  # the names are gone


@pytest.mark.parametrize("fault", FAULTS[:2])
def test_a_disk_that_fails_and_then_does_not_loses_nothing(
    tmp_path: Path, objects: list[tuple[str, bytes]], fault: str
) -> None:
    tally = Tally()
    one_disk_fault(tmp_path / "node", objects, (fault, 2), tally)
    assert tally.refused > 0
    assert tally.acknowledged >= 20
    assert (tally.lost, tally.unreadable, tally.partial, tally.deaf) == (0, 0, 0, 0)


def test_a_kill_at_random_loses_nothing(tmp_path: Path, objects: list[tuple[str, bytes]]) -> None:
    tally = Tally()
    one_kill(tmp_path / "node", objects, ("random", 130, 3), tally)
    assert tally.acknowledged > 5
    assert (tally.lost, tally.unreadable, tally.partial) == (0, 0, 0)
