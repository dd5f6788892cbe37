"""The soft parts of the chest as path lengths along the ray: body, lungs, heart, diaphragm.

Lengths are in units of half the inner width of the chest; x runs to the image's right (the
patient's left), y down, z to the front. Every organ is the share (0-1) of the ray that it takes,
so that the path through air is a product of shares and edges fall off as they do for round bodies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.phantom_sampling import resize
from wetread.datasets.phantom_spec import PhantomSpec, generator

__all__ = ["Body", "Fields", "Grid", "draw_body", "make_grid", "soft_fields"]

Array = NDArray[np.floating[Any]]

TABLE_REACH, TABLE_STEPS = 2.6, 1300
"""Curves along one axis are tables from -2.6 to 2.6 units in steps of 0.004, a third of a pixel at 512 px."""
AIR_SHARE = 0.78
"""Share of air in inflated lung (density near 0.25 g/cm3)."""


@dataclass(frozen=True)
class Body:
    """One patient in one pose. Lengths in units except where the name says cm."""

    unit_cm: float
    field: float
    growth: float
    depth_cm: float
    apex: float
    dome_right: float
    dome_left: float
    ratio: float
    globular: float
    wall: float
    knob: float
    trunk: float
    breast: float
    arms_up: float
    stomach: tuple[float, float, float, float]
    sway: tuple[float, float]
    turn: float
    lean: float
    roll: float
    centre: tuple[float, float]
    wide: tuple[float, float]
    barrel: float


@dataclass(frozen=True)
class Grid:
    """Where each pixel's centre lies in the body: x, y, and table indices of both."""

    x: Array
    y: Array
    ix: NDArray[np.intp]
    iy: NDArray[np.intp]

    def band(self, low: float, high: float) -> tuple[Grid, slice]:
        """The columns that hold every point with low < x < high: a part of the grid and its slice."""
        hit = np.flatnonzero(((self.x > low) & (self.x < high)).any(axis=0))
        part = slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0)
        return Grid(self.x[:, part], self.y[:, part], self.ix[:, part], self.iy[:, part]), part


@dataclass(frozen=True)
class Fields:
    """Shares and lengths on one grid, each float32 (n, n).

    ``lung``: share of the chest's depth that is lung. ``soft_cm``: path through soft tissue
    without vessels. ``right``, ``left``, ``heart``: masks. ``margin``: distance inside the chest wall.
    """

    lung: Array
    soft_cm: Array
    air_cm: float
    right: NDArray[np.bool_]
    left: NDArray[np.bool_]
    heart: NDArray[np.bool_]
    margin: Array


def draw_body(spec: PhantomSpec) -> Body:
    """Draw the patient's proportions from the seed and put him in his pose.

    Children have a shorter, rounder chest, a wider heart and thinner walls; the ratio of heart to
    chest stays below 0.48 without cardiomegaly and above 0.53 with it.
    """
    rng = generator(spec, "body")
    grown = float(np.clip((spec.age_years - 1.0) / 16.0, 0.0, 1.0)) ** 0.8
    female = spec.sex == "F"
    adult_cm = (12.9 if female else 14.4) * rng.uniform(0.95, 1.05)
    unit_cm = 6.4 + (adult_cm - 6.4) * grown
    pose, supine = spec.pose, spec.view == "AP"
    breath = (pose.inspiration - 0.8) * 0.35 - (0.08 if supine else 0.0)
    low = 0.55 + 0.15 * grown + rng.uniform(-0.04, 0.04) + breath
    ratio = 0.445 - 0.02 * grown + rng.uniform(-0.03, 0.03) + (0.008 if supine else 0.0)
    large = spec.has("cardiomegaly")
    rng_pose = generator(spec, "pose", exposure=True)
    turn, lean = np.sin(np.radians(pose.rotation_deg)), np.sin(np.radians(pose.tilt_deg))
    field_half = 1.42 + 0.1 * (1 - grown) + rng.uniform(-0.04, 0.05)
    return Body(
        unit_cm=unit_cm,
        field=field_half,
        growth=grown,
        depth_cm=unit_cm * (1.42 + 0.2 * (1 - grown)) * rng.uniform(0.93, 1.1),
        apex=-0.86 - 0.24 * grown + rng.uniform(-0.04, 0.04),
        dome_right=low,
        dome_left=low + rng.uniform(0.02, 0.09),
        ratio=ratio if large is None else 0.535 + 0.115 * large.severity,
        globular=0.0 if large is None else 0.4 + 0.6 * large.severity,
        wall=0.09 + 0.06 * grown + rng.uniform(0.0, 0.1) * grown,
        knob=rng.uniform(0.0, 1.0) * grown + (0.6 if spec.age_years > 60 else 0.0),
        trunk=rng.uniform(0.0, 1.0),
        breast=rng.uniform(0.45, 1.0) if female and spec.age_years > 13 else 0.0,
        arms_up=1.0 - grown if spec.age_years < 8 else 0.0,
        stomach=(rng.uniform(0.38, 0.62), rng.uniform(0.12, 0.24), rng.uniform(0.05, 0.13), rng.uniform(0.2, 1.0)),
        sway=(rng.uniform(-0.025, 0.025), rng.uniform(0.0, 6.28)),
        turn=float(turn),
        lean=float(lean),
        roll=float(np.radians(pose.roll_deg)),
        centre=(
            -2 * field_half * pose.shift[0] + rng_pose.uniform(-0.02, 0.02),
            -0.10 + 0.05 * (1 - grown) - 2 * field_half * pose.shift[1] + rng_pose.uniform(-0.02, 0.02),
        ),
        barrel=rng.uniform(2.0, 3.0),
        wide=(1.0 - 0.25 * float(turn), 1.0 + 0.25 * float(turn)),
    )


@lru_cache(maxsize=8)
def _plain_grid(n: int) -> tuple[Array, Array]:
    at = ((np.arange(n, dtype=np.float32) + 0.5) * (2.0 / n) - 1.0).astype(np.float32)
    return at[None, :], at[:, None]


def make_grid(body: Body, n: int) -> Grid:
    """The grid of an n x n picture of this body, turned and shifted by its pose."""
    a, b = _plain_grid(n)
    cos, sin = np.float32(np.cos(body.roll) * body.field), np.float32(np.sin(body.roll) * body.field)
    x = a * cos - b * sin + np.float32(body.centre[0])
    y = a * sin + b * cos + np.float32(body.centre[1])
    return Grid(x, y, _index(x), _index(y))


def _index(values: Array) -> NDArray[np.intp]:
    scaled = (values + np.float32(TABLE_REACH)) * np.float32(TABLE_STEPS / (2 * TABLE_REACH))
    index: NDArray[np.intp] = np.clip(scaled, 0, TABLE_STEPS - 1).astype(np.intp)
    return index


@lru_cache(maxsize=1)
def _axis() -> Array:
    at = (np.arange(TABLE_STEPS) + 0.5) * (2 * TABLE_REACH / TABLE_STEPS) - TABLE_REACH
    return at.astype(np.float32)


@lru_cache(maxsize=4)
def _kernel(width: float) -> Array:
    half = int(3 * width * TABLE_STEPS / (2 * TABLE_REACH))
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) * (2 * TABLE_REACH / TABLE_STEPS) / width) ** 2)
    kernel: Array = (weights / weights.sum()).astype(np.float32)
    return kernel


def _curve(points: list[tuple[float, float]], width: float = 0.04) -> Array:
    """A smooth table through (position, value) pairs."""
    at, values = zip(*points, strict=True)
    return np.convolve(np.interp(_axis(), at, values).astype(np.float32), _kernel(width), "same")


def _at(table: Array, index: NDArray[np.intp]) -> Array:
    """The table's values at the indices of a grid; quicker than ``table[index]``."""
    return np.take(table, index, mode="clip")


def _round(depth: Array) -> Array:
    """Share of a ray at ``depth`` (0 at the edge, 1 at the middle) below the surface of a round body."""
    d = np.clip(depth, 0.0, 1.0)
    share: Array = np.sqrt(d * (2.0 - d))
    return share


def chest_outline(body: Body) -> Array:
    """Half-width of the inner chest for each y of the table; negative above the apex."""
    y = _axis()
    widest, tip = 0.42, 0.34
    up = np.clip((widest - y) / (widest - body.apex), 0.0, 2.0)
    upper = tip + (1 - tip) * np.sqrt(np.clip(1.0 - up**body.barrel, 0.0, 1.0))
    lower = 1.0 - 0.05 * np.clip((y - widest) / 0.6, 0.0, 2.0) ** 2
    outline = np.where(y < widest, upper, lower)
    tapered: Array = np.where(up > 1.0, tip - 3.0 * (up - 1.0), outline).astype(np.float32)
    return tapered


def silhouette(body: Body) -> tuple[Array, Array]:
    """Right and left border of mediastinum and heart for each y, as distances from the midline."""
    low = body.dome_left
    top = body.apex
    right, left = 2 * body.ratio * (0.335 + 0.02 * body.globular), 2 * body.ratio * (0.665 - 0.02 * body.globular)
    base = -0.30 + 0.12 * (1 - body.growth)
    round_ = body.globular
    xr = _curve(
        [
            (top - 0.3, 0.24), (top + 0.12, 0.205), (base - 0.3, 0.20), (base, 0.195 + 0.02 * round_),
            (base + 0.2, 0.6 * right + 0.05), (0.55 * low + 0.45 * base, 0.93 * right),
            (0.78 * low + 0.22 * base, right), (low, 0.93 * right), (low + 0.16, 0.75 * right), (low + 0.5, 0.3),
        ]
    )  # fmt: skip
    bulge = 0.055 * body.knob
    xl = _curve(
        [
            (top - 0.3, 0.23), (top + 0.14, 0.185), (base - 0.34, 0.195), (base - 0.22, 0.23 + bulge),
            (base - 0.13, 0.24 + bulge), (base - 0.04, 0.205 + 0.4 * bulge),
            (base + 0.08, 0.235 + 0.04 * body.trunk), (base + 0.2, 0.27 + 0.03 * body.trunk + 0.03 * round_),
            (0.45 * low + 0.55 * base, 0.58 * left + 0.04 + 0.04 * round_),
            (0.72 * low + 0.28 * base, 0.9 * left), (0.88 * low + 0.12 * base, left),
            (low + 0.04, 0.96 * left), (low + 0.17, 0.7 * left), (low + 0.5, 0.3),
        ],
        0.05,
    )  # fmt: skip
    return xr, xl


def dome_curve(body: Body) -> Array:
    """Height (y) of the diaphragm for each x of the table."""
    x = _axis()
    middle = 0.46
    side = np.abs(x) - middle
    lateral = 0.40 * np.clip(side / (1 - middle), 0.0, 2.0) ** 2.4
    medial = 0.09 * np.clip(-side / middle, 0.0, 1.0) ** 2
    return (np.where(x < 0, body.dome_right, body.dome_left) + lateral + medial).astype(np.float32)


def soft_fields(body: Body, grid: Grid) -> Fields:
    """All soft parts on one grid; see :class:`Fields`."""
    x, y = grid.x, grid.y
    across = np.abs(x) / _wider(body, x)
    margin = _at(chest_outline(body), grid.iy) - across
    inner = _curve([(body.apex - 0.05, 0.36), (body.apex + 0.1, 0.18), (body.apex + 0.3, -0.1), (0.0, -0.3)])
    deep = _curve([(body.apex - 0.1, 0.3), (body.apex + 0.25, 0.72), (0.1, 1.0), (0.6, 1.0), (1.2, 0.9)], 0.1)
    cavity = _round(margin * (1 / 0.42)) * _round((across - _at(inner, grid.iy)) * (1 / 0.22)) * _at(deep, grid.iy)
    xr, xl = silhouette(body)
    shifted = x - np.float32(0.25 * body.turn)
    half, middle = 0.5 * (xl + xr), 0.5 * (xl - xr)
    inside = 1.0 - ((shifted - _at(middle, grid.iy)) / _at(half, grid.iy)) ** 2
    organ = np.sqrt(np.sqrt(np.clip(inside, 0.0, 1.0))) * np.float32(0.92)
    below = y - _at(dome_curve(body), grid.ix)
    liver = _round(below * (1 / 0.22)) * np.float32(0.97)
    lung = cavity * (1.0 - organ) * (1.0 - liver)
    air_cm = AIR_SHARE * 0.74 * body.depth_cm
    soft = _body_cm(body, len(lung)) - np.float32(air_cm) * lung
    middle_part, columns = grid.band(-0.36, 0.36)
    soft[:, columns] -= _windpipe_cm(body, middle_part)
    left_part, columns = grid.band(body.stomach[0] - body.stomach[1], body.stomach[0] + body.stomach[1])
    soft[:, columns] -= _stomach_cm(body, left_part, below[:, columns])
    seen = (margin > 0.012) & (cavity > 0.06) & (below < 0)
    field_ = seen & (inside < 0.02)
    return Fields(
        lung=lung,
        soft_cm=np.maximum(soft, 0.0),
        air_cm=air_cm,
        right=field_ & (x < 0),
        left=field_ & (x >= 0),
        heart=_heart(body, grid, inside),
        margin=margin,
    )


def _wider(body: Body, x: Array) -> Array:
    """How much wider a turned chest shows on each side."""
    return np.where(x < 0, np.float32(body.wide[0]), np.float32(body.wide[1]))


def _heart(body: Body, grid: Grid, inside: Array) -> NDArray[np.bool_]:
    """The heart's silhouette: below the line from the right atrium to the pulmonary trunk."""
    base = -0.30 + 0.12 * (1 - body.growth)
    roof = np.float32(base + 0.22) - np.float32(0.30) * grid.x
    floor = np.float32(body.dome_left + 0.09) - np.float32(0.16) * (grid.x - np.float32(body.ratio)) ** 2
    return (inside > 0.0) & (grid.y > roof) & (grid.y < floor)


def _body_cm(body: Body, n: int) -> Array:
    """Thickness of the whole body: trunk, shoulders, neck, arms, breasts. Smooth: made at half of ``n``."""
    grid = make_grid(body, n // 2)
    x, y = grid.x, grid.y
    side = np.abs(x)
    across = side / _wider(body, x)
    wide = _curve(
        [(-1.5, 0.9), (-0.9, 1.15), (-0.35, 1.02 + body.wall), (0.45, 1.0 + body.wall), (1.6, 0.99 + body.wall)], 0.08
    )
    flank = np.clip(1.0 - (across / _at(wide, grid.iy)) ** 2, 0.0, 1.0)
    tall = _curve([(body.apex - 0.42, 0.0), (body.apex - 0.1, 0.5), (-0.35, 0.92), (0.2, 1.0), (2.0, 1.0)], 0.09)
    total = np.sqrt(flank) * _at(tall, grid.iy) * np.float32(body.depth_cm)
    top = np.float32(body.apex - 0.21)
    girdle = (y - top - np.float32(0.16) * side**2 - 0.36 + 0.03) * (1 / 0.40)
    shoulder = np.sqrt(np.clip(1.0 - girdle**2, 0.0, 1.0)) * np.clip((1.56 - side) * 2.5, 0.0, 1.0)
    total = np.maximum(total, shoulder * np.float32(0.52 * body.depth_cm))
    thick = _curve([(body.apex - 0.5, 0.42), (body.apex - 0.16, 0.47), (body.apex + 0.1, 0.95), (1.0, 1.2)], 0.05)
    neck = np.sqrt(np.clip(1.0 - (x / _at(thick, grid.iy)) ** 2, 0.0, 1.0))
    neck *= np.clip((body.apex + 0.45 - y) * 1.8, 0.0, 1.0)
    total = np.maximum(total, neck * np.float32(0.55 * body.depth_cm))
    total = np.maximum(total, _arm_cm(body, side, y))
    return resize(total + _breast_cm(body, side, y) if body.breast else total, n)


def _arm_cm(body: Body, side: Array, y: Array) -> Array:
    """Upper arms: hanging and a little abducted in adults, raised beside the head in small children."""
    up = body.arms_up
    x0, y0 = 1.30, body.apex + 0.14
    dx, dy = 0.56 * (1 - up) + 0.45 * up, 1.61 * (1 - up) - 1.04 * up
    a, b = side - np.float32(x0), y - np.float32(y0)
    along = np.clip((a * np.float32(dx) + b * np.float32(dy)) * np.float32(1 / (dx * dx + dy * dy)), 0.0, 1.0)
    gap = (a - along * np.float32(dx)) ** 2 + (b - along * np.float32(dy)) ** 2
    arm: Array = np.sqrt(np.clip(1.0 - gap * np.float32(1 / 0.255**2), 0.0, 1.0)) * np.float32(0.5 * body.depth_cm)
    return arm


def _breast_cm(body: Body, side: Array, y: Array) -> Array:
    size = 0.34 + 0.12 * body.breast
    r2 = ((side - 0.60) / np.float32(size)) ** 2 + ((y - np.float32(0.30)) / np.float32(size)) ** 2
    upper = np.clip((y + 0.25) * 2.2, 0.0, 1.0)
    breast: Array = np.sqrt(np.clip(1.0 - r2, 0.0, 1.0)) * upper * np.float32(3.2 * body.breast)
    return breast


def _windpipe_cm(body: Body, grid: Grid) -> Array:
    """Air in the trachea and the main bronchi, as missing soft tissue."""
    x, y = grid.x - np.float32(0.20 * body.turn), grid.y
    fork = np.float32(-0.42 + 0.1 * (1 - body.growth))
    pipe = np.sqrt(np.clip(1.0 - (x / np.float32(0.066)) ** 2, 0.0, 1.0))
    pipe *= np.clip((fork - y) * 9.0, 0.0, 1.0)
    drop = y - fork + np.float32(0.04)
    bronchus = np.where(x < 0, np.float32(0.75), np.float32(1.15)) * drop
    tube = 1.0 - ((np.abs(x) - bronchus) / np.float32(0.052)) ** 2
    pipe += np.sqrt(np.clip(tube, 0.0, 1.0)) * np.clip(drop * 12, 0, 1) * np.clip((0.24 - drop) * 7, 0, 1)
    air: Array = pipe * np.float32(0.115 * body.depth_cm)
    return air


def _stomach_cm(body: Body, grid: Grid, below: Array) -> Array:
    """The air bubble under the left dome, as missing soft tissue."""
    at, width, height, full = body.stomach
    r2 = ((grid.x - np.float32(at)) / np.float32(width)) ** 2
    r2 += ((below - np.float32(height + 0.075)) / np.float32(height)) ** 2
    air: Array = np.sqrt(np.clip(1.0 - r2, 0.0, 1.0)) * np.float32(0.30 * full * body.depth_cm)
    return air
