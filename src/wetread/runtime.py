"""How this process uses the machine: threads, memory allocator, denormals, seeds.

glibc returns large blocks to the kernel after every training step and pays for it in page
faults; keeping them makes CPU training two to three times faster (``benchmarks/training_speed.py``
shows plain PyTorch beside it). The allocator must be set before torch allocates.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random

import numpy as np

__all__ = ["keep_freed_memory", "prepare_torch", "seed_everything", "thread_count"]

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
