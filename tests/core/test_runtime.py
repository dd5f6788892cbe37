"""Work done by threads comes back in order, in bounded numbers, and stops with its caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from wetread.runtime import _AHEAD, in_order, side_by_side


def test_results_keep_the_order_of_the_items() -> None:
    def slow_when_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * item

    assert list(in_order(slow_when_even, range(150), workers=4)) == [i * i for i in range(150)]


def test_nothing_to_do_is_no_result() -> None:
    assert list(in_order(str, [])) == []


def test_only_so_many_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(10 * _AHEAD):
            taken.append(i)
            yield i

    results = in_order(str, items(), workers=2)
    assert next(results) == "0"
    assert len(taken) == _AHEAD
    results.close()  # type: ignore[attr-defined]


def test_two_workers_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    assert list(in_order(lambda _: both.wait() >= 0, range(2), workers=2)) == [True, True]


def test_failure_reaches_the_caller_and_drops_what_waits() -> None:
    done = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("item 3 is broken")
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(ValueError, match="item 3 is broken"):
        list(in_order(work, range(_AHEAD), workers=1))
    assert len(done) < _AHEAD - 1


def test_networks_side_by_side_take_one_core_each_and_keep_their_order() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        met = threading.Barrier(3, timeout=20)

        def work(item: int) -> tuple[int, int]:
            met.wait()  # passes only where three run at the same time
            return item * item, torch.get_num_threads()

        assert side_by_side(work, range(6)) == [(item * item, 1) for item in range(6)]
        assert torch.get_num_threads() == 3
        assert side_by_side(lambda item: (item, torch.get_num_threads()), [7]) == [(7, 1)]
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda item: 1 // item, [1, 0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
