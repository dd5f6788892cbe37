"""Bones and vessels: tubes sampled as points in space and projected onto the film.

Each point carries a piece of volume, so a tube that runs along the ray casts a denser shadow,
as the ribs do where they turn at the side of the chest. Coordinates come first: (3, ...) arrays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.phantom_anatomy import Body, chest_outline

__all__ = ["bone_cm", "splat", "vessel_cm"]

Array = NDArray[np.floating[Any]]
Cloud = tuple[Array, Array]
"""Points (3, n) in units and their volumes (n,) in cubic units."""

RIBS = 12
SHELL, MARROW = 6, 2
"""Points on the section of a bone, at each step of about a pixel."""
MAGNIFY = 0.05
"""Parts one unit further from the detector look 5 % larger (focus at 180 cm)."""
VESSEL_LEVELS = 6


def splat(body: Body, n: int, clouds: list[Cloud]) -> Array:
    """Project clouds of points onto an n x n film: path lengths in units, float32 (n, n).

    Each point is shared between its four nearest pixels; what falls off the film lands on a
    frame that is cut away.
    """
    x, y, z = np.concatenate([points for points, _ in clouds], axis=1)
    weight = np.concatenate([volume for _, volume in clouds])
    scale = np.float32(1.0) - np.float32(MAGNIFY) * z
    x = (x * np.float32(np.sqrt(1 - body.turn**2)) + z * np.float32(body.turn)) * scale - np.float32(body.centre[0])
    y = (y + z * np.float32(body.lean)) * scale - np.float32(body.centre[1])
    half = n / (2 * body.field)
    cos, sin = np.float32(np.cos(body.roll) * half), np.float32(np.sin(body.roll) * half)
    column = np.clip(x * cos + y * sin + np.float32(n / 2 + 0.5), 0, n + 1)
    row = np.clip(y * cos - x * sin + np.float32(n / 2 + 0.5), 0, n + 1)
    j, i = np.floor(column), np.floor(row)
    u, v = column - j, row - i
    at = i.astype(np.intp)
    at *= n + 2
    at += j.astype(np.intp)
    right = u * weight
    left = weight - right
    low_left, low_right = left * v, right * v
    share = np.concatenate([left - low_left, right - low_right, low_left, low_right])
    index = np.concatenate([at, at + 1, at + (n + 2), at + (n + 3)])
    film = np.bincount(index, share, minlength=(n + 3) * (n + 2))
    framed = film[: (n + 2) ** 2].reshape(n + 2, n + 2)
    area = (2.0 * body.field / n) ** 2
    return (framed[1 : n + 1, 1 : n + 1] * (1.0 / area)).astype(np.float32)


def bone_cm(body: Body, n: int, rng: np.random.Generator) -> Array:
    """Path through compact bone in cm for ribs, clavicles, scapulae and upper arms."""
    return splat(body, n, [_ribs(body, n, rng), *_girdle(body, n, rng)]) * np.float32(body.unit_cm)


@lru_cache(maxsize=8)
def _section(steps: int) -> tuple[Array, Array, Array]:
    """Shell and marrow points of a round bone for each step along it: offsets along two axes and weights.

    Each step is turned by the golden section against the last, so that few points leave no lines.
    """
    golden = 0.6180339887 * np.arange(steps)[:, None]
    shell = 2 * np.pi * (np.arange(SHELL) + golden) / SHELL  # (steps, SHELL)
    core = 2 * np.pi * (np.arange(MARROW) + golden) / MARROW
    a = np.concatenate([np.cos(shell), 0.5 * np.cos(core)], axis=1)
    b = np.concatenate([np.sin(shell), 0.5 * np.sin(core)], axis=1)
    w = np.concatenate([np.full(SHELL, 0.66 / SHELL), np.full(MARROW, 0.34 / MARROW)])
    return a.astype(np.float32), b.astype(np.float32), w.astype(np.float32)


def _tube(line: Array, tall: Array, thin: Array, density: Array) -> Cloud:
    """Points and volumes of hollow bones.

    ``line`` (3, k, m): k centre lines; ``tall``, ``thin`` (3, k, m): half-axes of the section, as
    long as the bone is thick; ``density`` (k, m) relative to compact bone.
    """
    a, b, w = _section(line.shape[2])
    points = tall[..., None] * a
    points += thin[..., None] * b
    points += line[..., None]  # (3, k, m, section)
    step = _length(np.diff(line, axis=2, append=2 * line[:, :, -1:] - line[:, :, -2:-1]))
    volume = np.float32(np.pi) * _length(tall) * _length(thin) * step * density
    return points.reshape(3, -1), (volume[..., None] * w).reshape(-1)


def _length(a: Array) -> Array:
    length: Array = np.sqrt((a * a).sum(0))
    return length


def _unit(a: Array) -> Array:
    return a / np.maximum(_length(a), np.float32(1e-9))


def _cross(a: Array, b: Array) -> Array:
    """Cross product over the first axis; numpy's own is several times slower on small arrays."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _along(line: Array) -> Array:
    """Directions of lines (3, k, m) by central differences."""
    out = np.empty_like(line)
    out[..., 1:-1] = line[..., 2:] - line[..., :-2]
    out[..., 0], out[..., -1] = line[..., 1] - line[..., 0], line[..., -1] - line[..., -2]
    return _unit(out)


def _ribs(body: Body, n: int, rng: np.random.Generator) -> Cloud:
    """Twelve pairs of ribs: from the spine outward, round the chest wall, down to the cartilage."""
    count = np.arange(RIBS)
    pitch = (1.02 * body.dome_right - body.apex) / 10.2
    slope = (0.62 + 0.38 * body.growth) * rng.uniform(0.9, 1.1)
    drop = np.tile(np.interp(count, [0, 1, 4, 8, 11], [0.33, 0.42, 0.58, 0.66, 0.36]) * slope, 2)
    rise = np.tile(np.interp(count, [0, 2, 5], [0.0, 0.10, 0.20]), 2)
    end = np.tile(np.interp(count, [0, 1, 5, 8, 9, 10, 11], [0.86, 0.84, 0.79, 0.72, 0.66, 0.55, 0.42]), 2) * np.pi
    start = np.tile(body.apex - 0.03 + pitch * count, 2) + rng.uniform(-0.012, 0.012, 2 * RIBS)
    side = np.repeat([-1.0, 1.0], RIBS)
    outline = chest_outline(body)
    at = np.clip(((start + 0.42 * drop + 2.6) * 250).astype(int), 0, len(outline) - 1)
    half = (np.clip(outline[at], 0.40, 1.0) + 0.02)[:, None]
    t = (np.linspace(0.05, 1.0, max(60, int(0.65 * n))) * end[:, None]).astype(np.float32)  # (24, steps)
    sin, cos = np.sin(t), np.cos(t)
    fall = ((1 - cos) / 2) ** 1.15 - rise[:, None] * sin**2
    across = (side * np.where(side < 0, *body.wide))[:, None] * (0.06 + (half - 0.06) * sin**0.9)
    line = np.stack([across, start[:, None] + drop[:, None] * fall, -0.66 * cos * half]).astype(np.float32)
    tangent = _along(line)
    wall = np.stack([side[:, None] * sin, np.zeros_like(t), -cos]).astype(np.float32)
    tall = _unit(_cross(tangent, wall))
    thin = _cross(tall, tangent)
    high = (0.86 + 0.14 * body.growth) * np.tile(np.interp(count, [0, 2, 7, 11], [0.05, 0.046, 0.047, 0.034]), 2)
    narrow = high[:, None] / (1.0 + 0.16 * np.cos(t * 1.3 + 0.4))  # narrow at the neck, broad in front
    front = np.clip((t - 1.5) * 1.1, 0.0, 1.0)
    density = np.clip((end[:, None] - t) * 5.0, 0.0, 1.0) * (1 - 0.42 * front) * (1 - 0.35 * sin**6)
    return _tube(
        line,
        tall * narrow.astype(np.float32),
        thin * (0.5 * high[:, None]).astype(np.float32),
        density.astype(np.float32),
    )


def _girdle(body: Body, n: int, rng: np.random.Generator) -> list[Cloud]:
    """Clavicles, scapulae and the bones of the upper arms, on both sides."""
    top, young = body.apex, 1 - body.growth
    lift = rng.uniform(-0.03, 0.05) - 0.05 * body.arms_up
    out = rng.uniform(-0.05, 0.05) - 0.05 * young
    hanging, raised = np.array([1.80, top + 1.7]), np.array([1.70, top - 0.9])
    far = hanging * (1 - body.arms_up) + raised * body.arms_up
    upper, inner, tip = (1.30 + out, top + 0.13), (0.97 + out, top + 0.14), (1.03 + out, top + 0.84)
    parts = [  # corner points, half-height, half-depth, density
        ([(0.11, top + 0.33, 0.5), (0.30, top + 0.27, 0.6), (0.62, top + 0.19 + lift, 0.5),
          (0.92, top + 0.06 + lift, 0.3), (1.22, top + 0.01 + lift, 0.05)], 0.047, 0.04, 0.66),
        ([(*inner, -0.5), (0.94 + out, top + 0.45, -0.5), (*tip, -0.5)], 0.016, 0.05, 0.34),
        ([(*tip, -0.5), (1.13 + out, top + 0.56, -0.5), (*upper, -0.4)], 0.034, 0.06, 0.34),
        ([(*inner, -0.5), (1.15 + out, top + 0.06, -0.5), (1.34 + out, top - 0.02, -0.3)], 0.030, 0.05, 0.40),
        ([(1.40, top + 0.14, 0.0), (1.47, top + 0.34 - 0.4 * body.arms_up, 0.0), (*far, 0.0)], 0.082, 0.082, 0.30),
    ]  # fmt: skip
    steps = max(60, int(0.65 * n))
    lines, sizes = [], []
    for corners, high, deep, density in parts:
        bent = _bend(np.array(corners), steps)
        for side, wide in zip((-1.0, 1.0), body.wide, strict=True):
            lines.append(bent * np.array([[side * wide], [1], [1]]))
            sizes.append((high * (1 - 0.15 * young), deep, density))
    made = [_round_bones(np.stack(lines, axis=1).astype(np.float32), np.array(sizes, np.float32))]
    for side, wide in zip((-1.0, 1.0), body.wide, strict=True):
        made.append(_plate(np.array([upper, inner, tip]), side * wide, n))
        made.append(_ball(np.array([side * wide * 1.395, top + 0.12]), 0.125 * (1 - 0.2 * young), n))
    return made


def _round_bones(line: Array, sizes: Array) -> Cloud:
    """Bones (3, k, m) with half-height, half-depth and density (k, 3), thicker at both ends."""
    tangent = _along(line)
    ray = np.zeros_like(line)
    ray[2] = 1.0
    flare = 0.86 + 0.26 * np.linspace(-1, 1, line.shape[2], dtype=np.float32) ** 4
    tall = _unit(_cross(tangent, ray)) * (sizes[:, 0, None] * flare)
    density = np.repeat(sizes[:, 2, None], line.shape[2], axis=1)
    return _tube(line, tall, ray * sizes[:, 1, None], density)


def _bend(corners: Array, steps: int) -> Array:
    """A smooth line through corner points (k, 3), by Catmull-Rom: (3, steps)."""
    padded = np.concatenate([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    t = np.linspace(0, len(corners) - 1 - 1e-6, steps)
    k = t.astype(int)
    f = (t - k)[:, None]
    p0, p1, p2, p3 = (padded[k + i] for i in range(4))
    bent: Array = 0.5 * (
        2 * p1 + (p2 - p0) * f + (2 * p0 - 5 * p1 + 4 * p2 - p3) * f**2 + (3 * p1 - p0 - 3 * p2 + p3) * f**3
    )
    return bent.T


def _plate(corners: Array, side: float, n: int) -> Cloud:
    """The blade of the scapula: a thin triangle of bone."""
    u, v = _triangle(max(600, 5 * n))
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    flat = corners[0] + u[:, None] * a + v[:, None] * b
    volume = 0.020 * abs(a[0] * b[1] - a[1] * b[0]) / 2
    points = np.stack([side * flat[:, 0], flat[:, 1], np.full(len(u), -0.5)])
    return points.astype(np.float32), np.full(len(u), volume / len(u), np.float32)


@lru_cache(maxsize=8)
def _triangle(count: int) -> tuple[Array, Array]:
    """Points (u, v) with u + v <= 1, evenly spread without a visible lattice."""
    k = np.arange(count) + 0.5
    u, v = (k * 0.7548776662) % 1.0, (k * 0.5698402909) % 1.0
    fold = u + v > 1
    return np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)


def _ball(centre: Array, radius: float, n: int) -> Cloud:
    """The head of the upper arm: a ball of spongy bone with a harder shell."""
    unit = _unit_ball(max(1200, 5 * n))
    points = unit * np.float32(radius)
    points[:2] += centre.astype(np.float32)[:, None]
    volume = 0.26 * 4 / 3 * np.pi * radius**3
    return points, np.full(unit.shape[1], volume / unit.shape[1], np.float32)


@lru_cache(maxsize=8)
def _unit_ball(count: int) -> Array:
    """Points (3, count) of a ball, evenly spread; one in four on its surface."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * ((k * 0.6180339887) % 1.0)), 2 * np.pi * ((k * 0.7548776662) % 1.0)
    far = np.where(np.arange(count) % 4 == 0, 1.0, ((k * 0.5698402909) % 1.0) ** (1 / 3))
    ring = np.sin(polar) * far
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), np.cos(polar) * far]).astype(np.float32)


def vessel_cm(body: Body, n: int, rng: np.random.Generator) -> Array:
    """Path through the vessels of both lungs in cm: trees that branch outward from each hilum."""
    fan = np.radians(np.array([-84, -68, -50, -28, -6, 14, 32, 48, 62, 76, 90.0]))
    radius: Array = np.array([30, 36, 34, 28, 28, 33, 38, 45, 48, 45, 30]) * 1e-3
    side = np.repeat([-1.0, 1.0], len(fan))
    angle: Array = np.tile(fan, 2)
    radius = np.tile(radius, 2)
    count = len(angle)
    start = np.stack(
        [side * 0.17 + 0.25 * body.turn, -0.15 + 0.08 * (1 - body.growth) - 0.03 * (side > 0) + 0.05 * np.sin(angle)]
    )
    length: Array = 0.25 * np.where(angle > 0.3, 1.15, 0.85) * (0.8 + 0.2 * body.growth) * rng.uniform(0.55, 1.2, count)
    angle += rng.uniform(-0.14, 0.14, count)
    radius *= rng.uniform(0.8, 1.15, count)
    start += rng.uniform(-0.035, 0.035, (2, count))
    px = n / (2 * body.field)
    clouds = []
    for _ in range(VESSEL_LEVELS):
        bow = rng.uniform(-0.75, 0.75, len(angle))
        steps = max(4, int(px * length.mean()))
        way = (angle[:, None] + bow[:, None] * (np.arange(steps) / steps - 0.5)).astype(np.float32)
        step = (length / steps).astype(np.float32)[:, None]
        hop = np.stack([np.cos(way) * (side.astype(np.float32)[:, None] * step), np.sin(way) * step])
        line = start[:, :, None] + np.cumsum(hop, axis=2)  # (2, k, steps)
        clouds.append(_strands(line, hop, length / steps, radius, px))
        angle, radius, length = _fork(angle + bow / 2, radius, length, rng)
        side, start = np.tile(side, 2), np.tile(line[:, :, -1], 2)
    return splat(body, n, clouds) * np.float32(body.unit_cm)


def _fork(angle: Array, radius: Array, length: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Each vessel becomes a main and a side branch; areas add up to a little less than the parent's."""
    spread, turn = rng.uniform(0.25, 0.75, len(angle)), rng.choice([-1.0, 1.0], len(angle))
    angles = np.concatenate([angle - 0.3 * turn * spread, angle + turn * spread])
    radii = np.concatenate([0.82 * radius, 0.56 * radius])
    lengths = np.concatenate([0.9 * length, 0.72 * length]) * rng.uniform(0.7, 1.05, 2 * len(length))
    return angles, radii, lengths


def _strands(line: Array, hop: Array, step: Array, radius: Array, px: float) -> Cloud:
    """Solid vessels (2, k, steps) as parallel strands whose volumes follow the round section.

    ``hop`` are the steps along them, all ``step`` (k,) long; ``px`` is pixels in a unit.
    """
    count = int(np.clip(round(1.7 * float(radius.mean()) * px), 1, 9))
    across = (np.arange(count) + 0.5) * (2 / count) - 1
    share = np.sqrt(1 - across**2)
    normal = (hop[::-1] * (radius / step)[:, None]).astype(np.float32)
    normal[0] *= -1
    points = np.zeros((3, *line.shape[1:], count), np.float32)  # (3, k, steps, strands)
    points[:2] = normal[..., None] * across.astype(np.float32)
    points[:2] += line.astype(np.float32)[..., None]
    volume = np.empty(points.shape[1:], np.float32)
    volume[:] = (np.pi * radius**2 * step)[:, None, None] * (share / share.sum())
    return points.reshape(3, -1), volume.reshape(-1)
