"""Synthetic bone studies in the layout of MURA, so that its whole recipe runs without the set itself.

Tapered shafts with a cortex in soft tissue, projected; a finding is a displaced fracture or a plate with screws. As in
MURA only the study has a label. In a positive study the views that show the finding are known: ``truth.csv`` beside the
release says which, and nothing is trained on it. A drawing of bones, not of anybody's.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.provenance import atomic_folder
from wetread.runtime import in_order

__all__ = ["BONE_FINDINGS", "BONE_PARTS", "TRUTH", "BoneView", "MuraPlan", "bone_views", "draw_bone", "make_mura"]

BoneFinding = Literal["fracture", "hardware"]
BONE_FINDINGS: tuple[BoneFinding, ...] = ("fracture", "hardware")
BONE_PARTS = ("ELBOW", "FINGER", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
"""The seven studies of MURA."""
RELEASE = "MURA-v1.1"
TRUTH = "truth.csv"

Array = NDArray[np.float32]
Bone = tuple[float, float, float, float, float, float]
"""Ends (x, y) and (x, y) and the radius at each, in units of half the picture."""

_BONES: dict[str, tuple[Bone, ...]] = {
    "ELBOW": (
        (0.0, -1.1, 0.02, -0.08, 0.13, 0.17),
        (-0.12, 0.05, -0.14, 1.1, 0.13, 0.09),
        (0.14, 0.1, 0.16, 1.1, 0.1, 0.08),
    ),
    "FINGER": (
        (0.0, 1.1, 0.0, 0.42, 0.13, 0.11),
        (0.0, 0.3, 0.02, -0.2, 0.11, 0.09),
        (0.02, -0.3, 0.03, -0.72, 0.09, 0.06),
    ),
    "FOREARM": ((-0.15, -1.1, -0.2, 1.1, 0.1, 0.13), (0.15, -1.1, 0.2, 1.1, 0.13, 0.09)),
    "HAND": (
        *((0.22 * k, 0.75, 0.3 * k, -0.05, 0.08, 0.06) for k in (-2, -1, 0, 1, 2)),
        *((0.31 * k, -0.15, 0.38 * k, -0.8 + 0.08 * k * k, 0.06, 0.04) for k in (-2, -1, 0, 1, 2)),
    ),
    "HUMERUS": ((0.0, -1.1, 0.03, 1.1, 0.17, 0.14),),
    "SHOULDER": ((0.12, -0.28, 0.25, 1.1, 0.25, 0.14), (-1.1, -0.62, 0.1, -0.58, 0.07, 0.08)),
    "WRIST": (
        (-0.2, 1.1, -0.16, 0.18, 0.11, 0.17),
        (0.2, 1.1, 0.2, 0.22, 0.09, 0.11),
        *((0.16 * k, -0.02, 0.16 * k, -0.14, 0.08, 0.08) for k in (-1, 0, 1)),
        *((0.15 * k, -0.32, 0.24 * k, -1.1, 0.07, 0.06) for k in (-2, -1, 0, 1, 2)),
    ),
}


@dataclass(frozen=True)
class MuraPlan:
    """``patients`` with one study each, of ``fewest`` to ``most`` views.

    A share ``positive`` of the studies has a finding among ``findings``, of severity ``mildest`` to 1; it shows on
    exactly one view if ``key_views``, else on each view with chance 0.8 and on one at least. ``valid``: share of the
    patients in the released validation set.
    """

    patients: int = 140
    fewest: int = 1
    most: int = 4
    positive: float = 0.5
    findings: tuple[BoneFinding, ...] = BONE_FINDINGS
    mildest: float = 0.5
    key_views: bool = False
    parts: tuple[str, ...] = BONE_PARTS
    valid: float = 0.3
    size_px: int = 192
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patients < 2 or not 1 <= self.fewest <= self.most:
            raise UsageError(
                expected(
                    "2 patients with 1 view or more", f"{self.patients} of {self.fewest} to {self.most}", "raise it"
                )
            )
        if not self.parts or not set(self.parts) <= set(BONE_PARTS):
            raise UsageError(expected(f"parts among {', '.join(BONE_PARTS)}", self.parts, "name at least one"))
        if not self.findings or not set(self.findings) <= set(BONE_FINDINGS):
            raise UsageError(expected(f"findings among {', '.join(BONE_FINDINGS)}", self.findings, "name at least one"))


@dataclass(frozen=True)
class BoneView:
    """One view of one study: everything that decides its pixels.

    ``finding`` None: this view shows none. ``severity`` in [0, 1] moves the fragments apart or lengthens the plate.
    """

    part: str
    patient: int
    view: int
    positive: bool
    valid: bool
    finding: BoneFinding | None = None
    severity: float = 0.7
    size_px: int = 192
    seed: int = 0
    place: tuple[float, float] = field(default=(0.5, 0.5))

    @property
    def path(self) -> str:
        """Where MURA keeps it, below the release."""
        label = "positive" if self.positive else "negative"
        split = "valid" if self.valid else "train"
        return f"{split}/XR_{self.part}/patient{self.patient:05d}/study1_{label}/image{self.view}.png"


def bone_views(plan: MuraPlan) -> Iterator[BoneView]:
    """The views of all studies, without drawing any; parts, labels and splits are balanced."""
    rng = np.random.default_rng([plan.seed, 47])
    parts = np.array(plan.parts)[np.arange(plan.patients) % len(plan.parts)]
    turn = np.arange(plan.patients) // len(plan.parts)
    ill = (np.floor((turn + 1) * plan.positive) - np.floor(turn * plan.positive)) > 0
    valid = np.floor((turn + 1) * plan.valid) - np.floor(turn * plan.valid) > 0
    order = rng.permutation(plan.patients)
    ill = rng.permutation(ill)  # so that the label follows neither part nor split
    for number in order:
        count = int(rng.integers(plan.fewest, plan.most + 1))
        shows = _shown(plan, count, bool(ill[number]), rng)
        finding = plan.findings[int(rng.integers(len(plan.findings)))]
        severity = float(rng.uniform(plan.mildest, 1))
        place = (float(rng.random()), float(rng.uniform(0.35, 0.65)))
        for view in range(count):
            yield BoneView(
                part=str(parts[number]),
                patient=int(number) + 1,
                view=view + 1,
                positive=bool(ill[number]),
                valid=bool(valid[number]),
                finding=finding if shows[view] else None,
                severity=severity,
                size_px=plan.size_px,
                seed=plan.seed,
                place=place,
            )


def _shown(plan: MuraPlan, count: int, ill: bool, rng: np.random.Generator) -> NDArray[np.bool_]:
    key = int(rng.integers(count))
    shows = np.zeros(count, bool) if plan.key_views else rng.random(count) < 0.8
    shows[key] = True
    return shows & ill


def draw_bone(view: BoneView) -> Array:
    """Return the film, float32 (size, size) in [0, 1], bright is dense; the same view gives the same pixels."""
    patient = np.random.default_rng([view.seed, view.patient, 1])
    film = np.random.default_rng([view.seed, view.patient, 2, view.view])
    crack = np.random.default_rng([view.seed, view.patient, 3])  # of its own: a finding moves nothing else
    n = view.size_px
    scale, thick = patient.uniform(0.85, 1.1), patient.uniform(0.85, 1.2)
    turn = np.deg2rad(film.uniform(-25, 25)) + (np.pi if film.random() < 0.2 else 0.0)
    shift, squeeze = film.uniform(-0.12, 0.12, 2), film.uniform(0.8, 1.05)
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    x0, y0 = np.meshgrid(axis - np.float32(shift[0]), axis - np.float32(shift[1]))
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y = (cos * x0 + sin * y0) / np.float32(scale * squeeze), (cos * y0 - sin * x0) / np.float32(scale)
    bones = _BONES[view.part]
    main = min(int(view.place[0] * len(bones)), len(bones) - 1)
    bone, tissue = np.zeros((n, n), np.float32), np.full((n, n), np.inf, np.float32)
    for number, shape in enumerate(bones):
        broken = view.severity if number == main and view.finding == "fracture" else 0.0
        part, away = _projected((x, y), shape, thick, (broken, view.place[1]), crack)
        bone += part
        np.minimum(tissue, away, out=tissue)
    soft = np.sqrt(np.clip(0.32 - tissue, 0, None) / 0.32) * 0.9
    path = 0.55 * soft + 1.5 * bone
    if view.finding == "hardware":
        path += 4.0 * _plate((x, y), bones[main], view.severity, view.place[1])
    values = 1 - np.exp(-path * np.float32(film.uniform(0.75, 1.1)))
    values += film.normal(0, 0.015, (n, n)).astype(np.float32) + np.float32(film.uniform(0, 0.04))
    film_of: Array = np.clip(values, 0, 1).astype(np.float32)
    return film_of


def _along(grid: tuple[Array, Array], bone: Bone) -> tuple[Array, Array, float]:
    """Place along the axis of a bone (0 at its first end, 1 at the other), signed distance beside it, length."""
    x1, y1, x2, y2 = bone[:4]
    length = float(np.hypot(x2 - x1, y2 - y1))
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    dx, dy = grid[0] - np.float32(x1), grid[1] - np.float32(y1)
    along, across = (dx * ux + dy * uy) / length, dx * -uy + dy * ux
    return along.astype(np.float32), across.astype(np.float32), length


def _projected(
    grid: tuple[Array, Array], bone: Bone, thick: float, broken: tuple[float, float], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Path through cortex and marrow of one bone, and the distance from its surface outside."""
    t, across, length = _along(grid, bone)
    severity, place = broken
    whole, gap = across, None  # soft tissue bridges a fracture
    if severity:
        jagged = (
            place + 0.02 * np.sin(across * rng.uniform(25, 45) + rng.uniform(0, 6)) + across * rng.uniform(-0.5, 0.5)
        )
        beyond = t > jagged
        gap = np.abs(t - jagged) * length < 0.012 + 0.03 * severity
        bend = rng.choice((-1, 1)) * (0.25 + 0.45 * severity)
        across = across + np.where(beyond, bend * (0.25 * np.mean(bone[4:]) * 2 + (t - place) * length * 0.35), 0)
    inside = np.clip(t, 0, 1)
    radius = (bone[4] + (bone[5] - bone[4]) * inside) * np.float32(thick)
    radius = radius * (1 + 0.25 * (2 * np.abs(inside - 0.5)) ** 4)  # ends of bones are wider
    over = np.maximum(np.maximum(-t, t - 1), 0) * np.float32(length)
    distance, away = np.hypot(across, over), np.hypot(whole, over) - radius
    outer = np.sqrt(np.clip(radius**2 - distance**2, 0, None))
    inner = np.sqrt(np.clip((0.68 * radius) ** 2 - distance**2, 0, None))
    path = (outer - 0.72 * inner) * 4
    if gap is not None:
        path = np.where(gap, 0.25 * path, path)
    return path.astype(np.float32), np.clip(away, 0, None).astype(np.float32)


def _plate(grid: tuple[Array, Array], bone: Bone, severity: float, place: float) -> Array:
    """A metal plate beside the shaft with four to seven screws through it."""
    t, across, length = _along(grid, bone)
    half = (0.12 + 0.16 * severity) / max(length, 0.3)
    width = 0.35 * float(np.mean(bone[4:]))
    side = 0.6 * float(np.mean(bone[4:]))
    metal = (np.abs(t - place) < half) & (np.abs(across - side) < width)
    for at in np.linspace(place - 0.85 * half, place + 0.85 * half, 4 + round(3 * severity)):
        metal |= (np.abs(t - at) * length < 0.018) & (np.abs(across) < 1.1 * float(np.mean(bone[4:])))
    plate: Array = metal.astype(np.float32)
    return plate


def make_mura(folder: Path, plan: MuraPlan, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the release of ``plan`` below a new ``folder``, with the csv files of MURA and ``truth.csv`` beside it.

    Returns ``folder``, which `wetread dataset import` takes. ``truth.csv``: path as in the manifest, and 1 where the
    view shows the finding.
    """
    from PIL import Image

    views = sorted(bone_views(plan), key=lambda view: view.path)
    with atomic_folder(folder) as part:

        def write(view: BoneView) -> str:
            path = part / RELEASE / view.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(draw_bone(view) * 255).astype(np.uint8)).save(path, compress_level=3)
            return f"{RELEASE}/{view.path}"

        paths = []
        for path in in_order(write, views):
            paths.append(path)
            if progress:
                progress(len(paths), len(views))
        for split in ("train", "valid"):
            chosen = [view for view in views if view.valid == (split == "valid")]
            listed = [[f"{RELEASE}/{view.path}"] for view in chosen]
            _csv(part / RELEASE / f"{split}_image_paths.csv", listed)
            studies = dict.fromkeys(
                (f"{RELEASE}/{view.path.rsplit('/', 1)[0]}/", int(view.positive)) for view in chosen
            )
            _csv(part / RELEASE / f"{split}_labeled_studies.csv", [list(study) for study in studies])
        rows = [[path, int(view.finding is not None)] for path, view in zip(paths, views, strict=True)]
        _csv(part / TRUTH, [["path", "shows"], *rows])
    return folder


def _csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
