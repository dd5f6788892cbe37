"""How numbers are written, in one place: never more digits than the interval supports.

An interval decides the digits by the rule of the Particle Data Group (Review of Particle Physics,
section 5.3): the half-width keeps two significant digits if they are below 35, else one.
Probabilities are whole percents and are never written as 0 % or 100 %.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from wetread.types import Estimate

__all__ = [
    "MISSING",
    "count",
    "decimals_for",
    "distance",
    "duration",
    "estimate",
    "estimate_value",
    "interval",
    "p_value",
    "percent",
    "percent_beside",
    "percent_point",
    "percent_share",
    "plain",
    "utc",
]

MISSING = "\N{EM DASH}"
_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_NARROW = "\N{NARROW NO-BREAK SPACE}"
_MAX_DECIMALS = 3
_NO_INTERVAL_DECIMALS = 2
_Z95 = 1.96


def decimals_for(half_width: float) -> int:
    """Decimals (0 to 3) that a 95 % half-width supports."""
    if not math.isfinite(half_width) or half_width <= 0:
        return _MAX_DECIMALS
    exponent = math.floor(math.log10(half_width))
    two_digits = round(half_width / 10 ** (exponent - 1))  # 10..100
    decimals = -exponent + (1 if two_digits < 36 or two_digits >= 95 else 0)
    if two_digits >= 95:  # rounds up to the next power of ten
        decimals -= 1
    return min(max(decimals, 0), _MAX_DECIMALS)


def distance(value: float) -> str:
    """Three decimals, and never 0 for two films that are only very alike."""
    return f"<{_NARROW}0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def _estimate_decimals(e: Estimate) -> int:
    if e.low is not None and e.high is not None:
        return decimals_for((e.high - e.low) / 2)
    if e.n > 0:
        return min(decimals_for(_Z95 * 0.5 / math.sqrt(e.n)), _NO_INTERVAL_DECIMALS)
    return _NO_INTERVAL_DECIMALS


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def estimate_value(e: Estimate) -> str:
    """Return ``0.953``: as many decimals as the interval, or the n where there is none, supports."""
    if e.value is None or not math.isfinite(e.value):
        return MISSING
    return _fixed(e.value, _estimate_decimals(e))


def estimate(e: Estimate | None) -> str:
    """Return ``0.953 (0.941-0.965)`` with an en dash, ``0.95`` without interval, a dash for None."""
    if e is None or e.value is None:
        return MISSING
    around = interval(e)
    return f"{estimate_value(e)} ({around})" if around else estimate_value(e)


def interval(e: Estimate) -> str:
    """Return ``0.941-0.965`` with an en dash (``to`` where a bound is negative), or an empty text."""
    if e.low is None or e.high is None:
        return ""
    decimals = _estimate_decimals(e)
    joiner = " to " if e.low < 0 else _DASH
    return f"{_fixed(e.low, decimals)}{joiner}{_fixed(e.high, decimals)}"


def percent(probability: float | None, decimals: int = 0) -> str:
    """Return a probability (0-1) as ``87 %``; ``< 1 %`` and ``> 99 %`` at the ends."""
    if probability is None:
        return MISSING
    step = 10.0**-decimals
    value = 100 * probability
    if value < step:
        return f"<{_NARROW}{step:.{decimals}f}{_NARROW}%"
    if value > 100 - step:
        return f">{_NARROW}{100 - step:.{decimals}f}{_NARROW}%"
    return f"{value:.{decimals}f}{_NARROW}%"


def percent_share(share: float) -> str:
    """Return a counted share (0-1) as ``8.1 %``; unlike a probability it can be 0 % or 100 %."""
    return f"{100 * share:.{0 if share in (0.0, 1.0) else 1}f}{_NARROW}%"


def p_value(p: float | None) -> str:
    """Return a p-value with two digits; ``< 0.001`` below that."""
    if p is None:
        return MISSING
    return f"<{_NARROW}0.001" if p < 0.001 else f"{p:.2g}"


def percent_point(threshold: float) -> str:
    """Return a threshold on the probability with one decimal: ``43.1 %``."""
    return percent(threshold, 1)


def percent_beside(probability: float, threshold: float) -> tuple[str, str]:
    """Return both as percents, with decimals added (up to 3) until they read differently."""
    if probability == threshold:
        return percent(probability), percent(threshold)
    for decimals in range(_MAX_DECIMALS + 1):
        pair = percent(probability, decimals), percent(threshold, decimals)
        if pair[0] != pair[1]:
            break
    return pair


def count(n: int | None) -> str:
    """Return ``5 856`` with a narrow space between thousands from 10 000 on, else ``5856``."""
    if n is None:
        return MISSING
    return f"{n:,}".replace(",", _NARROW) if abs(n) >= 10_000 else str(n)


def plain(value: object) -> str:
    """Return a setting or a detail for people: floats in at most 5 significant digits."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", _MINUS) if abs(value) >= 1e-4 or value == 0 else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or MISSING
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or MISSING
    return str(value)


def duration(milliseconds: float) -> str:
    """Return ``38 ms``, ``4.2 s`` or ``3 min 20 s``."""
    if milliseconds < 1:
        return f"<{_NARROW}1{_NARROW}ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f}{_NARROW}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f}{_NARROW}s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes}{_NARROW}min {seconds}{_NARROW}s"


def utc(moment: datetime) -> str:
    """Return ``2026-11-21 04:10 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
