"""Work done by threads comes back in order, in bounded numbers, and stops with its caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from wetread.runtime import _AHEAD, in_order


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
