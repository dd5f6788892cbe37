"""Lengths and angles that a person drew, in true units where the file states a spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wetread.service.problems import Problem

__all__ = ["measured"]

Point = tuple[float, float]
_POINTS = {"length": 2, "angle": 3, "box": 2, "arrow": 2, "text": 1}


def measured(kind: str, points: Sequence[Point], spacing_mm: Sequence[float] | None) -> tuple[float | None, str]:
    """Value and unit of a measurement; ``points`` are (column, row), ``spacing_mm`` (row, column).

    A length is in mm, or in pixels (``px``) without spacing; an angle in degrees at its middle point, on the square
    grid of millimetres where pixels are not square.

    Raises:
        Problem: ``invalid``: a wrong number of points, points that coincide, numbers that are none.
    """
    if len(points) != _POINTS[kind] or not all(math.isfinite(value) for point in points for value in point):
        raise Problem("invalid", f"expected {_POINTS[kind]} points of finite numbers for {kind}", "Draw it again.")
    row, column = (float(spacing_mm[0]), float(spacing_mm[1])) if spacing_mm else (1.0, 1.0)
    scaled = [(x * column, y * row) for x, y in points]
    if kind == "length":
        return round(math.dist(*scaled), 3), "mm" if spacing_mm else "px"
    if kind == "angle":
        return _angle(scaled), "deg"
    return None, ""


def _angle(points: Sequence[Point]) -> float:
    (ax, ay), (bx, by), (cx, cy) = points
    first, second = (ax - bx, ay - by), (cx - bx, cy - by)
    if not any(first) or not any(second):
        raise Problem("invalid", "expected three points apart for an angle", "Draw it again.")
    cross = first[0] * second[1] - first[1] * second[0]
    dot = first[0] * second[0] + first[1] * second[1]
    return round(math.degrees(math.atan2(abs(cross), dot)), 2)
