"""How often one user or address may ask: token buckets in memory.

They hold for one process; several behind a balancer allow as many times more, which a balancer can limit better.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

__all__ = ["LOGIN_BURST", "LOGIN_PER_S", "RateLimit"]

LOGIN_PER_S, LOGIN_BURST = 0.2, 10
"""Log-ins from one address: ten at once, then twelve a minute."""

_REMEMBERED = 10_000


class RateLimit:
    """``per_s`` on the long run, ``burst`` at once, for each key."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str, clock: float | None = None) -> float:
        """Take one; return 0 where that was allowed, else the seconds until it will be. ``clock``: for tests."""
        moment = time.monotonic() if clock is None else clock
        with self._lock:
            level, at = self._buckets.pop(key, (self._burst, moment))
            level = min(self._burst, level + (moment - at) * self._per_s)
            allowed = level >= 1
            self._buckets[key] = (level - 1 if allowed else level, moment)
            while len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._per_s
