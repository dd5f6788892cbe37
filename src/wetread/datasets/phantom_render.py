"""From a specification to a film and its truth: anatomy, bones, vessels, findings, development."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.phantom_anatomy import Body, Fields, draw_body, make_grid, soft_fields
from wetread.datasets.phantom_findings import Planted, plant
from wetread.datasets.phantom_look import SOURCES, develop, expose, finish, source_of
from wetread.datasets.phantom_sampling import cloud, doubled, resize, smooth
from wetread.datasets.phantom_spec import Finding, PhantomSpec, Pose, generator
from wetread.datasets.phantom_tubes import bone_cm, vessel_cm
from wetread.types import Box

__all__ = ["FindingTruth", "Phantom", "render", "sample_pose", "sample_spec"]

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

COARSE_PX = 32
"""Side of the grid for scatter and background, which are wide blurs anyway."""
MU_SOFT_PER_CM = 0.19
"""Water at the effective energy of a 110 kVp beam, near 60 keV (NIST: 0.206 /cm), hardened a little."""
MU_BONE_PER_CM = 0.40
"""What compact bone adds to soft tissue there (NIST, 60 keV: 0.604 less 0.206 /cm)."""


@dataclass(frozen=True)
class FindingTruth:
    """One planted finding with its mask (H, W) and the smallest box around the mask."""

    finding: Finding
    mask: Mask
    box: Box


@dataclass(frozen=True)
class Phantom:
    """One synthetic film and its truth.

    ``image``: float32 (H, W) in [0, 1], bright is dense, as the source displays it. ``lung_left`` and
    ``lung_right`` are the patient's: air-filled fields beside heart and above diaphragm, as they are
    without findings. ``heart``: silhouette below the great vessels. ``pixel_mm``: at the detector.
    """

    spec: PhantomSpec
    image: NDArray[np.float32]
    lung_left: Mask
    lung_right: Mask
    heart: Mask
    findings: tuple[FindingTruth, ...]
    pixel_mm: float

    @property
    def cardiothoracic_ratio(self) -> float:
        """Largest width of the heart over largest inner width of the chest, both from the masks."""
        chest = np.flatnonzero((self.lung_left | self.lung_right).any(axis=0))
        heart = np.flatnonzero(self.heart.any(axis=0))
        return float(heart[-1] - heart[0] + 1) / float(chest[-1] - chest[0] + 1)


def sample_spec(
    rng: np.random.Generator,
    *,
    findings: tuple[Finding, ...] = (),
    source: str | None = None,
    size_px: int = 512,
) -> PhantomSpec:
    """Draw a patient of a source (any source if None) with age, sex, view, pose and exposure."""
    name = source or str(rng.choice(list(SOURCES)))
    look = source_of(name)
    supine = rng.random() < look.portable
    return PhantomSpec(
        seed=int(rng.integers(2**31)),
        age_years=round(float(rng.uniform(*look.ages)), 1),
        sex="F" if rng.random() < 0.5 else "M",
        view="AP" if supine else "PA",
        findings=findings,
        source=name,
        size_px=size_px,
        pose=sample_pose(rng, supine=supine),
        kvp=round(float(rng.uniform(60, 75) if look.ages[1] < 16 else rng.uniform(90, 125)), 0),
        exposure_factor=round(float(np.exp(rng.normal(0, 0.3))), 3),
    )


def sample_pose(rng: np.random.Generator, *, supine: bool = False) -> Pose:
    """Draw how the patient stands; lying patients are placed less well and breathe in less."""
    loose = 1.6 if supine else 1.0
    return Pose(
        rotation_deg=float(np.clip(rng.normal(0, 2.0 * loose), -8, 8)),
        tilt_deg=float(np.clip(rng.normal(0, 2.5 * loose), -9, 9)),
        roll_deg=float(np.clip(rng.normal(0, 1.2 * loose), -5, 5)),
        inspiration=float(np.clip(rng.normal(0.72 if supine else 0.82, 0.12), 0.3, 1.0)),
        shift=(float(np.clip(rng.normal(0, 0.012), -0.03, 0.03)), float(np.clip(rng.normal(0, 0.012), -0.03, 0.03))),
    )


def render(spec: PhantomSpec) -> Phantom:
    """Render a specification; the same one gives the same bits on one machine and numpy version."""
    n = spec.size_px
    half = n // 2
    source = source_of(spec.source)
    body = draw_body(spec)
    grid = make_grid(body, half)
    fields = soft_fields(body, grid)
    planted = [plant(f, body, grid, fields, generator(spec, f"finding {i}")) for i, f in enumerate(spec.findings)]
    log_primary = _attenuation(spec, body, fields, planted)
    fixed = expose(*_clean(spec, fields), source)
    dose = spec.exposure_factor * (spec.kvp / 110.0) ** 2
    noise = source.noise / np.sqrt(dose)
    film = develop(log_primary, fixed, source, float(noise), generator(spec, "noise", exposure=True))
    film = finish(film, source, spec.view, generator(spec, "marker", exposure=True))
    truths = tuple(_truth(f, p) for f, p in zip(spec.findings, planted, strict=True))
    left, right, heart = (doubled(mask) for mask in (fields.left, fields.right, fields.heart))
    pixel_mm = 10.0 * 2 * body.field * body.unit_cm / n
    return Phantom(spec, film.astype(np.float32, copy=False), left, right, heart, truths, round(pixel_mm, 4))


def _mu(spec: PhantomSpec) -> tuple[float, float]:
    """Attenuation per cm of soft tissue and (added) bone; bone gains more at low tube voltage."""
    return MU_SOFT_PER_CM * (110 / spec.kvp) ** 0.3, MU_BONE_PER_CM * (110 / spec.kvp) ** 0.9


def _attenuation(spec: PhantomSpec, body: Body, fields: Fields, planted: list[Planted]) -> Array:
    """The logarithm of the attenuation at full size, float32 (n, n)."""
    n, half = spec.size_px, len(fields.lung)
    mu_soft, mu_bone = _mu(spec)
    soft = fields.soft_cm.copy()
    shown = fields.lung
    for item in planted:
        soft += item.extra_cm
        shown = shown * (1 - item.hides)
    rng = generator(spec, "anatomy")
    bones = bone_cm(body, half, rng) + spine_cm(body, half)
    soft += tissue_cm(fields, half, rng)
    soft *= np.float32(mu_soft)
    soft += bones * np.float32(mu_bone)
    total = resize(smooth(soft, 0.42), n)
    vessels = smooth(vessel_cm(body, n, generator(spec, "vessels")), 0.5)
    vessels *= resize(shown * np.float32(mu_soft), n)
    total += vessels
    return total


def tissue_cm(fields: Fields, n: int, rng: np.random.Generator) -> Array:
    """Fine unevenness of lung (small vessels) and of muscle and fat, in cm, zero mean."""
    grain = cloud(n, rng, ((20, 0.45), (56, 0.36)))
    return grain * (fields.soft_cm > 0.5)


def _clean(spec: PhantomSpec, fields: Fields) -> tuple[Array, Mask]:
    """Attenuation by soft tissue and lung fields of the same patient without findings, on a coarse grid."""
    if spec.has("cardiomegaly"):
        body = draw_body(replace(spec, findings=()))
        fields = soft_fields(body, make_grid(body, len(fields.lung)))
    step = max(1, len(fields.lung) // COARSE_PX)
    coarse = (slice(step // 2, None, step), slice(step // 2, None, step))
    return fields.soft_cm[coarse] * np.float32(_mu(spec)[0]), (fields.left | fields.right)[coarse]


def spine_cm(body: Body, n: int) -> Array:
    """Path through the bone of the spine in cm: bodies, gaps of the discs, pedicles, spinous processes."""
    grid, columns = make_grid(body, n).band(-0.26 - abs(body.turn), 0.26 + abs(body.turn))
    x = grid.x + np.float32(0.4 * body.turn) - np.float32(body.sway[0]) * np.sin(2 * grid.y + np.float32(body.sway[1]))
    pitch = np.float32((1.02 * body.dome_right - body.apex) / 10.2)
    phase = np.mod((grid.y - np.float32(body.apex)) / pitch, 1.0) - np.float32(0.5)
    width = np.float32(0.115) * (1 + np.float32(0.10) * grid.y)
    across = np.clip(1.0 - (x / width) ** 2, 0.0, 1.0)
    block = np.clip((np.float32(0.44) - np.abs(phase)) * 14, 0.0, 1.0)
    rim = np.exp(-(((np.abs(phase) - np.float32(0.38)) / np.float32(0.05)) ** 2))
    bone = np.sqrt(across) * (np.float32(0.45) + block * np.float32(0.55) + np.float32(0.16) * rim)
    pedicle = ((np.abs(x) - np.float32(0.075)) / np.float32(0.024)) ** 2 + ((phase + 0.12) / 0.2) ** 2
    bone += np.float32(0.5) * np.exp(-(pedicle**2))
    process = (x / np.float32(0.02)) ** 2 + ((phase - 0.15) / 0.24) ** 2
    bone += np.float32(0.45) * np.exp(-(process**2))
    spine = np.zeros((n, n), np.float32)
    spine[:, columns] = bone * np.float32(0.05 * body.unit_cm)
    return spine


def _truth(finding: Finding, planted: Planted) -> FindingTruth:
    mask = doubled(planted.mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = Box(
        x=float(columns[0]),
        y=float(rows[0]),
        width=float(columns[-1] - columns[0] + 1),
        height=float(rows[-1] - rows[0] + 1),
    )
    return FindingTruth(finding, mask, box)
