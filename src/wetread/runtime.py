"""How this process uses the machine: threads, work in order, memory allocator, denormals, seeds.

glibc returns large blocks to the kernel after every training step and pays for it in page
faults; keeping them makes CPU training two to three times faster (``benchmarks/training_speed.py``
shows plain PyTorch beside it). The allocator must be set before torch allocates.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

__all__ = ["in_order", "keep_freed_memory", "prepare_torch", "seed_everything", "side_by_side", "thread_count"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 64
"""Items of :func:`in_order` in flight at most: bounds memory whatever the number of items."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 << 20
"""Grown in steps of 256 MiB: about one batch of activations at 224 px."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks; return whether it did (False where glibc is absent)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    limit = 2**31 - 1
    done = (
        libc.mallopt(_M_MMAP_MAX, 0),
        libc.mallopt(_M_TRIM_THRESHOLD, limit),
        libc.mallopt(_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all(done)


def thread_count(workers: int = 1) -> int:
    """Threads for one of ``workers`` processes: ``OMP_NUM_THREADS`` if set, else cores / workers."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return max(1, len(os.sched_getaffinity(0)) // max(1, workers))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in their order, done by threads; ``workers`` 0 is one per core.

    Pays where ``work`` releases the interpreter: decoding, resampling, writing. What waits is
    dropped when the caller stops early or an item fails. Until the end matrix products take one thread
    each: two threads that each wake two more would halve the speed of both.
    """
    from threadpoolctl import threadpool_limits

    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
    waiting: deque[Future[Result]] = deque()
    with threadpool_limits(1, "blas"):
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return ``work(item)`` for each item, in their order; ``work`` runs networks, and each runs on one core.

    As many items at a time as torch has threads. Two images on a core each take two thirds of the time of two images
    one after the other on both cores: the networks that read films are made of many small layers. And an image gives
    the same bits on any number of cores, alone or beside others.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads made from now on take it over
    try:
        if threads == 1 or len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads, "wetread-network", torch.set_flush_denormal, (True,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def prepare_torch(threads: int = 0) -> None:
    """Set allocator, thread count (0: :func:`thread_count`) and denormals for torch on the CPU."""
    keep_freed_memory()
    import torch

    torch.set_num_threads(threads or thread_count())
    torch.set_flush_denormal(True)


def seed_everything(seed: int) -> np.random.Generator:
    """Seed Python, numpy and torch; return the generator that new code should draw from."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # libraries that still use the global state
    torch.manual_seed(seed)
    return np.random.default_rng(seed)
