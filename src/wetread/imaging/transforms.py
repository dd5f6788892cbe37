"""Grey value formulas of DICOM as pure numpy functions.

Decided here: the arithmetic of the Modality LUT, the VOI LUT, the windows, the inversion and the
percentile window. Outputs of the display stages lie in [0, 1]. Which of them a file asks for is
decided in :mod:`wetread.imaging.grayscale`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PERCENTILES",
    "apply_lut",
    "invert",
    "percentile_limits",
    "ramp",
    "rescale",
    "window_linear",
    "window_linear_exact",
    "window_sigmoid",
]

PERCENTILES = (0.5, 99.5)
"""Robust range in percent: drops lead markers and collimator edges, which cover well under 0.5 %."""


def rescale(values: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float64]:
    """Return ``slope * values + intercept``: Rescale Slope and Intercept, PS3.3 C.11.1.1.2.

    Args:
        values: Stored values, any shape and real dtype.
        slope: Rescale Slope (0028,1053).
        intercept: Rescale Intercept (0028,1052).

    Returns:
        float64 of the same shape, in the units of Rescale Type (0028,1054).
    """
    return np.asarray(values, np.float64) * slope + intercept


def apply_lut(values: NDArray[Any], table: NDArray[Any], first: int) -> NDArray[np.float64]:
    """Look values up in a LUT: PS3.3 C.11.1.1.1 (Modality LUT) and C.11.2.1.1 (VOI LUT).

    Values up to ``first`` give the first entry, values from ``first + len(table) - 1`` on the
    last one; values that are no integers are truncated towards zero first.

    Args:
        values: Any shape and real dtype.
        table: LUT Data (0028,3006), shape (entries,), at least one entry.
        first: Second value of LUT Descriptor (0028,3002): the first value mapped.

    Returns:
        float64 of the shape of ``values``, in the units of the table.
    """
    whole = np.trunc(values) if np.issubdtype(values.dtype, np.floating) else values
    index = np.clip(whole.astype(np.int64) - first, 0, len(table) - 1)
    return np.asarray(table, np.float64)[index]


def window_linear(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float64]:
    """Window with VOI LUT Function LINEAR, the default: PS3.3 C.11.2.1.2.1.

    ``y = 0`` for ``x <= c - 0.5 - (w-1)/2``; ``y = 1`` for ``x > c - 0.5 + (w-1)/2``; else
    ``y = (x - (c - 0.5)) / (w-1) + 0.5``. A width of 1 is a threshold.

    Args:
        values: Modality values, any shape.
        centre: Window Center (0028,1050).
        width: Window Width (0028,1051), >= 1.

    Returns:
        float64 in [0, 1], same shape.

    Raises:
        ValueError: If ``width`` is below 1.
    """
    if not width >= 1:
        raise ValueError(f"expected a window width of 1 or more for LINEAR, got {width}; use LINEAR_EXACT")
    if width == 1:
        return (np.asarray(values, np.float64) > centre - 0.5).astype(np.float64)
    return np.clip((np.asarray(values, np.float64) - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def window_linear_exact(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float64]:
    """Window with VOI LUT Function LINEAR_EXACT: PS3.3 C.11.2.1.3.2.

    ``y = 0`` for ``x <= c - w/2``; ``y = 1`` for ``x > c + w/2``; else ``y = (x - c) / w + 0.5``.

    Args:
        values: Modality values, any shape.
        centre: Window Center (0028,1050).
        width: Window Width (0028,1051), > 0.

    Returns:
        float64 in [0, 1], same shape.

    Raises:
        ValueError: If ``width`` is not above 0.
    """
    _require_positive(width)
    return np.clip((np.asarray(values, np.float64) - centre) / width + 0.5, 0.0, 1.0)


def window_sigmoid(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float64]:
    """Window with VOI LUT Function SIGMOID: PS3.3 C.11.2.1.3.1, ``y = 1 / (1 + exp(-4 (x-c) / w))``.

    Args:
        values: Modality values, any shape.
        centre: Window Center (0028,1050).
        width: Window Width (0028,1051), > 0.

    Returns:
        float64 in (0, 1), same shape.

    Raises:
        ValueError: If ``width`` is not above 0.
    """
    _require_positive(width)
    # exp(700) is the largest power of ten that float64 holds; beyond it the sigmoid is 0 anyway.
    exponent = np.clip(-4.0 * (np.asarray(values, np.float64) - centre) / width, -700.0, 700.0)
    return np.asarray(1.0 / (1.0 + np.exp(exponent)), np.float64)


def ramp(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Map ``low`` to 0 and ``high`` to 1 linearly, clipped; all zeros where ``high == low``.

    Args:
        values: Any shape and real dtype.
        low: Value that becomes 0.
        high: Value that becomes 1, >= ``low``.

    Returns:
        float64 in [0, 1], same shape.

    Raises:
        ValueError: If ``high`` is below ``low``.
    """
    if high < low:
        raise ValueError(f"expected low <= high, got {low} and {high}; swap them")
    if high == low:
        return np.zeros(np.shape(values), np.float64)
    return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0.0, 1.0)


def invert(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``1 - values``: MONOCHROME1 shows its lowest value white, PS3.3 C.7.6.3.1.2."""
    return 1 - values


def percentile_limits(
    counts: NDArray[np.int64], values: NDArray[np.float64], percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float]:
    """Return the values at two percentiles of a histogram.

    A percentile ``p`` is the smallest value at which the cumulative share reaches ``p`` percent
    (``numpy.percentile(..., method="inverted_cdf")``).

    Args:
        counts: How often each value occurs, shape (n,), at least one above 0.
        values: The values, shape (n,), in any order.
        percentiles: In percent, 0-100.

    Returns:
        The low and the high value.

    Raises:
        ValueError: If every count is 0.
    """
    present = np.flatnonzero(counts)
    if present.size == 0:
        raise ValueError("expected at least one pixel to take percentiles of, got none; check the padding")
    order = present[np.argsort(values[present], kind="stable")]
    cumulative = np.cumsum(counts[order])
    ranks = np.ceil(np.asarray(percentiles) / 100.0 * cumulative[-1]).clip(min=1)
    low, high = values[order][np.searchsorted(cumulative, ranks)]
    return float(low), float(high)


def _require_positive(width: float) -> None:
    if not width > 0:
        raise ValueError(f"expected a window width above 0, got {width}; drop the window")
