"""What a phantom is asked to be: patient, pose, findings, source; and how one is drawn at random.

A specification is frozen and complete: the same one always gives the same pixels. ``seed`` is
the patient (anatomy), ``exposure`` counts the films of that patient (noise, placing of the marker).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from wetread.errors import UsageError, expected

__all__ = [
    "FINDING_KINDS",
    "MILDEST",
    "Finding",
    "FindingKind",
    "PhantomSpec",
    "Pose",
    "Side",
    "generator",
    "sample_finding",
]

FindingKind = Literal["consolidation", "nodule", "effusion", "cardiomegaly"]
Side = Literal["left", "right"]
FINDING_KINDS: tuple[FindingKind, ...] = ("consolidation", "nodule", "effusion", "cardiomegaly")

MIN_SIZE_PX, MAX_SIZE_PX = 64, 4096
"""Below 64 px the ribs are thinner than a pixel; 4096 px is the largest flat panel in use."""

MILDEST = 0.25
"""Severity below which a finding is drawn only when asked for: nobody would see it."""


@dataclass(frozen=True)
class Finding:
    """One planted finding.

    ``severity`` in [0, 1]: from just visible to gross. ``side`` is the patient's side; None for
    cardiomegaly. ``position`` is (u, v) in [0, 1] inside that lung: u from the mediastinum to the
    chest wall, v from the apex to the diaphragm; an effusion and a large heart have no choice of place.
    """

    kind: FindingKind
    severity: float = 0.6
    side: Side | None = None
    position: tuple[float, float] = (0.5, 0.6)

    def __post_init__(self) -> None:
        if self.kind not in FINDING_KINDS:
            raise UsageError(expected(f"a finding among {', '.join(FINDING_KINDS)}", f"'{self.kind}'", "use one"))
        _in_range("a severity", self.severity, 0.0, 1.0)
        if (self.side is None) != (self.kind == "cardiomegaly"):
            raise UsageError(
                expected(
                    "a side for a finding of the lung and none for cardiomegaly",
                    f"'{self.kind}' with side {self.side}",
                    "set side to 'left', 'right' or None",
                )
            )
        for value in self.position:
            _in_range("a position", value, 0.0, 1.0)


@dataclass(frozen=True)
class Pose:
    """How the patient stands. Degrees; ``rotation_deg`` > 0 turns the patient's right side to the detector.

    ``tilt_deg`` > 0 leans back (lordotic: the clavicles rise), ``roll_deg`` turns the picture,
    ``inspiration`` in [0, 1] lowers the diaphragm, ``shift`` moves the chest by shares of the film.
    """

    rotation_deg: float = 0.0
    tilt_deg: float = 0.0
    roll_deg: float = 0.0
    inspiration: float = 0.8
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _in_range("rotation_deg", self.rotation_deg, -20.0, 20.0)
        _in_range("tilt_deg", self.tilt_deg, -20.0, 20.0)
        _in_range("roll_deg", self.roll_deg, -15.0, 15.0)
        _in_range("inspiration", self.inspiration, 0.0, 1.0)
        for value in self.shift:
            _in_range("shift", value, -0.1, 0.1)


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides the pixels of one phantom.

    ``exposure_factor`` scales the number of photons (1: as the source usually has it) and
    ``kvp`` moves the contrast between bone and soft tissue; ``size_px`` (even) is the side of
    the square film.
    """

    seed: int
    age_years: float = 45.0
    sex: Literal["F", "M"] = "M"
    view: Literal["PA", "AP"] = "PA"
    findings: tuple[Finding, ...] = ()
    source: str = "northgate"
    size_px: int = 512
    pose: Pose = field(default_factory=Pose)
    kvp: float = 110.0
    exposure_factor: float = 1.0
    exposure: int = 0

    def __post_init__(self) -> None:
        from wetread.datasets.phantom_look import source_of

        source_of(self.source)
        if self.seed < 0 or self.exposure < 0:
            raise UsageError(
                expected("a seed and an exposure number of at least 0", f"{self.seed}, {self.exposure}", "raise it")
            )
        _in_range("age_years", self.age_years, 0.5, 100.0)
        _in_range("size_px", self.size_px, MIN_SIZE_PX, MAX_SIZE_PX)
        if self.size_px % 2:
            raise UsageError(expected("an even size_px", self.size_px, "add one pixel"))
        _in_range("kvp", self.kvp, 50.0, 150.0)
        _in_range("exposure_factor", self.exposure_factor, 0.05, 20.0)
        for name, got, allowed in (("sex", self.sex, ("F", "M")), ("view", self.view, ("PA", "AP"))):
            if got not in allowed:
                raise UsageError(expected(f"{name} among {', '.join(allowed)}", f"'{got}'", "use one of them"))

    def has(self, kind: FindingKind) -> Finding | None:
        """The first finding of a kind, or None."""
        return next((f for f in self.findings if f.kind == kind), None)


def generator(spec: PhantomSpec, stream: str, *, exposure: bool = False) -> np.random.Generator:
    """A random stream of its own for each purpose, so that adding a finding moves nothing else."""
    words = [spec.seed, *stream.encode()]
    return np.random.default_rng([*words, 1 + spec.exposure] if exposure else words)


def sample_finding(rng: np.random.Generator, kind: FindingKind, mildest: float = MILDEST) -> Finding:
    """A finding of one kind with random severity from ``mildest`` to 1, side and place."""
    severity = float(rng.uniform(mildest, 1.0))
    side: Side = "left" if rng.random() < 0.5 else "right"
    position = (float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.25, 0.85)))
    return Finding(kind, severity, None if kind == "cardiomegaly" else side, position)


def _in_range(what: str, got: float, low: float, high: float) -> None:
    if not low <= got <= high:  # also refuses NaN
        raise UsageError(expected(f"{what} from {low:g} to {high:g}", got, "choose a value in that range"))
