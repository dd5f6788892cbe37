"""Rows computed once, found again by content, and computed again where a shard is damaged."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wetread.errors import TrainingFailed, WetreadError
from wetread.training import store as module
from wetread.training.store import Array, ArrayStore


class Source:
    """Computes the row of a name from the name; remembers what it was asked for."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, wanted: list[int]) -> Iterator[Array]:
        for position in wanted:
            self.asked.append(self.names[position])
            yield row_of(self.names[position])


def row_of(name: str) -> Array:
    return np.array([len(name), ord(name[0])], dtype=np.uint16)


def check(store: ArrayStore, names: list[str], computed: list[str]) -> None:
    source = Source(names)
    rows = store.rows(names, source)
    np.testing.assert_array_equal(rows, np.stack([row_of(name) for name in names]))
    assert rows.dtype == np.uint16
    assert source.asked == computed


def test_rows_are_computed_once_and_then_found(tmp_path: Path) -> None:
    check(ArrayStore(tmp_path / "s"), ["a", "bb", "ccc"], ["a", "bb", "ccc"])
    check(ArrayStore(tmp_path / "s"), ["ccc", "a", "bb"], [])
    check(ArrayStore(tmp_path / "s"), ["bb"], [])


def test_only_what_is_missing_is_added(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "s")
    check(store, ["a", "bb"], ["a", "bb"])
    check(store, ["dddd", "bb", "eeeee", "a"], ["dddd", "eeeee"])
    assert len(list((tmp_path / "s").glob("*.safetensors"))) == 2
    check(store, ["a", "bb", "dddd", "eeeee"], [])


def test_shards_are_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed before an interruption is not lost."""
    monkeypatch.setattr(module, "_SHARD_ROWS", 2)
    names = ["a", "bb", "ccc", "dddd", "eeeee"]

    def stopped(wanted: list[int]) -> Iterator[Array]:
        for position in wanted[:3]:
            yield row_of(names[position])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ArrayStore(tmp_path).rows(names, stopped)
    check(ArrayStore(tmp_path), names, ["ccc", "dddd", "eeeee"])
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_a_name_that_comes_twice_is_computed_once(tmp_path: Path) -> None:
    check(ArrayStore(tmp_path), ["bb", "a", "bb", "bb"], ["bb", "a"])
    check(ArrayStore(tmp_path), ["a", "a", "bb"], [])
    check(ArrayStore(None), ["bb", "a", "bb"], ["bb", "a"])


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    store = ArrayStore(None)
    check(store, ["a"], ["a"])
    check(store, ["a"], ["a"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "no names"])
def test_a_damaged_shard_is_computed_again_and_said_so(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(ArrayStore(tmp_path), ["a", "bb"], ["a", "bb"])
    (shard,) = tmp_path.glob("*.safetensors")
    if damage == "no names":
        from safetensors.numpy import save

        shard.write_bytes(save({"rows": np.zeros((2, 2), np.uint16)}))
    else:
        shard.write_bytes({"truncated": shard.read_bytes()[:-3], "empty": b"", "text": b"not a shard"}[damage])
    with caplog.at_level(logging.WARNING):
        check(ArrayStore(tmp_path), ["a", "bb"], ["a", "bb"])
    assert f"cache shard {shard.name} is damaged and is computed again" in caplog.text
    assert not shard.exists()
    caplog.clear()
    check(ArrayStore(tmp_path), ["a", "bb"], [])
    assert not caplog.text


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WetreadError, match=r"expected room to write .*, got a full disk .*; free some space"):
        ArrayStore(tmp_path / "s").rows(["a"], Source(["a"]))
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize(("given", "got"), [(1, "1"), (0, "0"), (4, "more")])
def test_another_number_of_rows_is_a_failure(tmp_path: Path, given: int, got: str) -> None:
    store = ArrayStore(tmp_path)
    with pytest.raises(TrainingFailed, match=f"expected 3 computed rows, got {got}; report this as a defect"):
        store.rows(["a", "bb", "ccc"], lambda _: [row_of("a")] * given)
    check(store, ["a", "bb", "ccc"], ["a", "bb", "ccc"])  # nothing wrong was kept


def test_the_computation_runs_to_its_end(tmp_path: Path) -> None:
    """A generator that checks something after its last row is heard."""

    def refusing(wanted: list[int]) -> Iterator[Array]:
        yield from (row_of("a") for _ in wanted)
        raise TrainingFailed("the last word")

    with pytest.raises(TrainingFailed, match="the last word"):
        ArrayStore(tmp_path).rows(["a", "bb"], refusing)
