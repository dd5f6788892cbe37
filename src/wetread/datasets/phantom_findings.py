"""Findings as changes of the path through soft tissue, each with its mask.

A finding of the lung replaces air by tissue, so it is bounded by the lung itself, which reaches
behind the heart and the diaphragm. Its mask is every pixel that it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.phantom_anatomy import Body, Fields, Grid
from wetread.datasets.phantom_sampling import cloud
from wetread.datasets.phantom_spec import Finding

__all__ = ["Planted", "plant"]

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

FAINT_SHARE = 0.07
"""What is fainter than this share of the densest part is cut away, so that the mask holds all there is."""


@dataclass(frozen=True)
class Planted:
    """Extra soft tissue in cm (n, n), the share (0-1) of vessels that it hides, and the mask."""

    extra_cm: Array
    hides: Array
    mask: Mask


def plant(finding: Finding, body: Body, grid: Grid, fields: Fields, rng: np.random.Generator) -> Planted:
    """Plant one finding; cardiomegaly is anatomy already and only gets its mask: the heart's."""
    if finding.kind == "cardiomegaly":
        nothing = np.zeros_like(fields.lung)
        return Planted(nothing, nothing, fields.heart)
    field = fields.left if finding.side == "left" else fields.right
    make = {"consolidation": _consolidation, "nodule": _nodule, "effusion": _effusion}[finding.kind]
    extra = make(finding, body, grid, fields, field, rng)
    extra *= (grid.x < 0) == (finding.side == "right")
    extra = np.maximum(extra - np.float32(FAINT_SHARE) * extra.max(), 0.0)
    mask = extra > 0
    hides = np.clip(extra * np.float32(1.6 / fields.air_cm), 0, 0.95)
    return Planted(extra, hides, mask)


def _place(finding: Finding, grid: Grid, field: Mask) -> tuple[float, float]:
    """The point (x, y) at the asked (u, v) of a lung field."""
    rows = np.flatnonzero(field.any(axis=1))
    row = rows[round(finding.position[1] * (len(rows) - 1))]
    columns = np.flatnonzero(field[row])
    if finding.side == "right":
        columns = columns[::-1]
    column = columns[round(finding.position[0] * (len(columns) - 1))]
    x = np.broadcast_to(grid.x, field.shape)[row, column]
    y = np.broadcast_to(grid.y, field.shape)[row, column]
    return float(x), float(y)


def _consolidation(
    finding: Finding, body: Body, grid: Grid, fields: Fields, field: Mask, rng: np.random.Generator
) -> Array:
    """Fluffy filling of air spaces: a blob without a sharp edge, patchy inside."""
    x0, y0 = _place(finding, grid, field)
    size = 0.20 + 0.20 * finding.severity
    turn, ratio = rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = grid.x - np.float32(x0), grid.y - np.float32(y0)
    a, b = (dx * cos + dy * sin) / np.float32(size), (dy * cos - dx * sin) / np.float32(size * ratio)
    n = len(field)
    reach = np.sqrt(a * a + b * b) - cloud(n, rng, ((7, 0.28), (14, 0.32), (28, 0.34)))
    fill = np.clip((np.float32(1.35) - reach) * np.float32(0.85), 0.0, 1.0)
    fill *= fill * (3 - 2 * fill)
    patchy = np.clip(1.0 + cloud(n, rng, ((24, 0.40), (48, 0.50))), 0.4, 1.4)
    share = np.float32(0.24 + 0.36 * finding.severity)
    filled: Array = fill * patchy * share * fields.lung * np.float32(fields.air_cm)
    return filled


def _nodule(finding: Finding, body: Body, grid: Grid, fields: Fields, field: Mask, rng: np.random.Generator) -> Array:
    """A solid, slightly lobed ball of 0.9 to 3.4 cm in an adult (smaller in a child)."""
    x0, y0 = _place(finding, grid, field)
    radius = (0.45 + 1.25 * finding.severity) / 14.0
    dx, dy = grid.x - np.float32(x0), grid.y - np.float32(y0)
    around = np.arctan2(dy, dx)
    lobes = sum(rng.uniform(0.02, 0.07) * np.cos(k * around + np.float32(rng.uniform(0, 6.28))) for k in (2, 3, 5))
    reach = np.sqrt(dx * dx + dy * dy) / (np.float32(radius) * (1 + lobes))
    depth = np.clip(1.0 - reach * reach, 0.0, 1.0)
    ball: Array = np.sqrt(depth) * np.float32(2 * radius * body.unit_cm + 0.4)
    return ball.astype(np.float32)


def _effusion(finding: Finding, body: Body, grid: Grid, fields: Fields, field: Mask, rng: np.random.Generator) -> Array:
    """Free fluid: the angle is filled, the upper edge a meniscus that climbs the chest wall."""
    low = body.dome_left if finding.side == "left" else body.dome_right
    level = low + 0.10 - 0.62 * finding.severity
    climb = np.float32(0.16 + 0.16 * finding.severity)
    meniscus = np.float32(level + 0.12) - climb * np.exp(-np.clip(fields.margin, 0, None) * (1 / 0.16))
    meniscus -= np.float32(rng.uniform(0.02, 0.10)) * np.clip(fields.margin - 0.5, 0, 1)
    fill = np.clip((grid.y - meniscus) * (1 / 0.20), 0.0, 1.0)
    filled: Array = fill * (2 - fill) * np.float32(0.88) * fields.lung * np.float32(fields.air_cm)
    return filled
