"""T15: whether the reader survives what happens to films on their way: compression, exposure, tilt, noise, resizing.

Decided here: the conditions are mild, each of them occurs in practice, and none may cost much. The loss of AUROC is
paired: the same films before and after, with DeLong's covariance, so that a small loss can be told from none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import Film, OneLabel, Readings, Variant, worst
from wetread.datasets.plant_edits import jpeg, resolution
from wetread.errors import StatisticRefused
from wetread.evaluation.auroc import auroc, delong
from wetread.evaluation.intervals import Z95, unbounded
from wetread.types import Estimate

__all__ = ["CONDITIONS", "auroc_loss", "judge_robustness", "robustness_variants", "turned"]

Pixels = NDArray[np.float32]
Rng = np.random.Generator

CODE = "T15"
LIMIT = 300
"""Films of each condition."""
VIEWS = 1
"""Zooms averaged, for changed and untouched films alike."""
MINIMUM_PER_CLASS = 30
"""Patients of each class; see T4."""
DEGREES = 5.0
NOISE = 0.02
"""Standard deviation, share of the range from black to white."""


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Turn a film about its centre, anticlockwise, at the same size; what comes in at the corners repeats the edge.

    ``pixels``: float32 (rows, columns) in [0, 1]. Black corners would be a border, which is another question (T5).
    """
    from PIL import Image

    reach = int(np.ceil(np.sin(np.radians(abs(degrees))) * max(pixels.shape) / 2)) + 1
    wide = np.pad(pixels, reach, mode="edge")
    film = np.asarray(Image.fromarray(wide).rotate(degrees, Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray(np.clip(film[reach:-reach, reach:-reach], 0, 1))


def _gamma(power: float) -> Callable[[Film, Rng], Pixels]:
    return lambda film, _: np.power(film.pixels, np.float32(power))


def _noisy(film: Film, rng: Rng) -> Pixels:
    noise = rng.standard_normal(film.pixels.shape, dtype=np.float32)
    return np.clip(film.pixels + np.float32(NOISE) * noise, 0, 1)


def _scaled(strength: float) -> Callable[[Film, Rng], Pixels]:
    return lambda film, rng: resolution(film.pixels, strength, rng)


_CHANGES: dict[str, Callable[[Film, Rng], Pixels]] = {
    "JPEG quality 50": lambda film, rng: jpeg(film.pixels, 0.5, rng),
    "gamma 0.8": _gamma(0.8),
    "gamma 1.25": _gamma(1.25),
    "turned by +5 degrees": lambda film, _: turned(film.pixels, DEGREES),
    "turned by -5 degrees": lambda film, _: turned(film.pixels, -DEGREES),
    "2 % noise": _noisy,
    "scaled to 2/3 and back": _scaled(float(np.log(1.5) / np.log(4))),
    "scaled to 1/2 and back": _scaled(0.5),
}
CONDITIONS = tuple(_CHANGES)


def robustness_variants(limit: int | None = LIMIT) -> tuple[Variant, ...]:
    """The variants that :func:`judge_robustness` needs, of at most ``limit`` films each."""
    return tuple(Variant(name, change, views=VIEWS, limit=limit) for name, change in _CHANGES.items())


def auroc_loss(one: OneLabel) -> Estimate:
    """Return the AUROC before less the AUROC after, on the same films, with its 95 % interval.

    DeLong's paired covariance (1988, doi 10.2307/2531595), by patient where they have several films (Obuchowski
    1997, doi 10.2307/2533958). No interval where every pair is ranked alike, or a class is missing.
    """
    n, method = len(one.truth), "DeLong, paired"
    value = auroc(one.before, one.truth) - auroc(one.after, one.truth)
    if not np.isfinite(value):
        return unbounded(None, n, "only one class is present", method)
    clusters = one.patients if np.unique(one.patients).size < n else None
    try:
        covariance = delong(np.stack([one.before, one.after]), one.truth, clusters).covariance
    except StatisticRefused as refused:
        return unbounded(value, n, f"no interval: {refused}", method)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-18:
        return unbounded(value, n, "no interval: both rank every pair alike", method)
    half = Z95 * float(np.sqrt(variance))
    method += "" if clusters is None else ", clustered by patient"
    return Estimate(value=value, low=value - half, high=value + half, n=n, method=method)


@dataclass(frozen=True)
class _Lost:
    condition: str
    label: str
    loss: Estimate

    def answer(self, limits: Thresholds) -> Answered:
        loss = self.loss.value or 0.0
        if loss > limits.t15_drop_fail:
            return "FAIL"
        return "PASS" if loss <= limits.t15_drop_pass else "WARN"


def judge_robustness(readings: Readings, limits: Thresholds) -> tuple[AuditLine, dict[str, bytes]]:
    """Answer T15 from what the reader said of :func:`robustness_variants`: the worst condition decides.

    Labels with fewer than :data:`MINIMUM_PER_CLASS` patients in a class are left out, and named in the notes.
    """
    pairs = {name: readings.pair(name) for name in _CHANGES}
    few, lost = [], []
    for number, label in enumerate(readings.reader.labels):
        columns: Mapping[str, OneLabel] = {name: pair.of(number) for name, pair in pairs.items()}
        if columns[CONDITIONS[0]].patients_per_class < MINIMUM_PER_CLASS:
            few.append(label)
            continue
        lost += [_Lost(name, label, auroc_loss(one)) for name, one in columns.items()]
    line = AuditLine(
        code=CODE,
        question=QUESTIONS[CODE],
        answer=worst(one.answer(limits) for one in lost),
        sentence="Too few patients with or without each label to compare AUROCs.",
        n=len(pairs[CONDITIONS[0]].rows),
        thresholds=limits.of("t15_drop_pass", "t15_drop_fail"),
        cure=f"Assess films of at least {MINIMUM_PER_CLASS} patients with and {MINIMUM_PER_CLASS} without each label.",
        notes=_notes(readings, few),
    )
    if not lost:
        return line, {}
    most = max(lost, key=lambda one: one.loss.value or 0.0)
    value = most.loss.value or 0.0
    told = f"The worst of {len(_CHANGES)} conditions is {most.condition}: it costs {value:.3f} AUROC for {most.label}."
    if value <= 0:
        told = f"None of {len(_CHANGES)} conditions costs any AUROC."
    figures = tuple(AuditFigure(what=f"loss of AUROC {one.label}, {one.condition}", estimate=one.loss) for one in lost)
    cure = (
        ""
        if line.answer == "PASS"
        else "Train with films changed in this way, or read films as they come from the device."
    )
    return line.model_copy(update={"sentence": told, "figures": figures, "cure": cure}), {}


def _notes(readings: Readings, few: list[str]) -> tuple[str, ...]:
    views = min(VIEWS, readings.reader.card.views)
    notes = [
        f"Read with {views} of the card's {readings.reader.card.views} views, changed and untouched films alike.",
        "The verdict is on the losses themselves; their intervals say how far chance may have moved them.",
    ]
    if readings.reader.guide is not None:
        notes.append("The reader found its organ anew in each changed film, as it would in use.")
    if few:
        notes.append(f"Not compared, with fewer than {MINIMUM_PER_CLASS} patients in a class: {', '.join(few)}.")
    return tuple(notes)
