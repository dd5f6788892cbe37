"""How often 95 % intervals of the AUROC hold the truth: the evidence behind logit-DeLong and its refusals.

Scores are normal in both classes with equal variance, so the true AUROC is Phi(d / sqrt 2). With
several images per patient a patient effect is shared by its images. Coverage is itself a
proportion and comes with its Wilson interval. The flaw: real scores are not normal.

    python -m benchmarks.interval_coverage --out results/interval_coverage.csv
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from wetread.evaluation.auroc import auroc_estimate, delong, logit_interval, wald_interval
from wetread.evaluation.intervals import Resampler, wilson
from wetread.evaluation.metrics import weighted_auroc

Floats = NDArray[np.float64]
Interval = tuple[float, float]

AREAS = (0.80, 0.90, 0.95, 0.98)
PER_CLASS = (15, 30, 100, 300, 500)
BOOTSTRAP_UP_TO = 100
"""Images per class above which the bootstrap is left out: it takes minutes and nobody doubts it."""
COLUMNS = (
    "true_auroc",
    "images_per_class",
    "images_per_patient",
    "method",
    "repetitions",
    "no_interval",
    "coverage",
    "coverage_low",
    "coverage_high",
    "median_width",
)


@dataclass(frozen=True)
class Setting:
    """One simulated study."""

    area: float
    per_class: int
    per_patient: int = 1

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """Return scores, truth and patients of one data set; half of the variance is the patient's."""
        n = 2 * self.per_class
        patients = np.arange(n) // self.per_patient
        truth = (np.arange(n) < self.per_class).astype(np.float64)
        share = 0.5 if self.per_patient > 1 else 0.0
        effect = generator.normal(size=patients[-1] + 1)[patients]
        noise = np.sqrt(share) * effect + np.sqrt(1 - share) * generator.normal(size=n)
        return noise + np.sqrt(2) * norm.ppf(self.area) * truth, truth, patients


@dataclass
class Tally:
    """What one method gave."""

    inside: int = 0
    refused: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, interval: Interval | None, truth: float) -> None:
        if interval is None:
            self.refused += 1
            return
        self.inside += interval[0] <= truth <= interval[1]
        self.widths.append(interval[1] - interval[0])


def intervals(setting: Setting, generator: np.random.Generator, resamples: int) -> dict[str, Interval | None]:
    """Return the interval of each method on one data set; None where it gives none."""
    scores, truth, patients = setting.draw(generator)
    found = delong(scores, truth)
    area, variance = float(found.areas[0]), float(found.covariance[0, 0])
    inner = 0 < area < 1
    result: dict[str, Interval | None] = {
        "DeLong": wald_interval(area, variance),
        "logit-DeLong": logit_interval(area, variance) if inner else None,
    }
    groups = None
    if setting.per_patient > 1:
        groups = patients
        clustered = float(delong(scores, truth, groups).covariance[0, 0])
        result["logit-DeLong by patient"] = logit_interval(area, clustered) if inner else None
    if setting.per_class <= BOOTSTRAP_UP_TO and resamples:
        result["bootstrap percentile"] = _bootstrap(scores, truth, groups, resamples, int(generator.integers(2**31)))
    policy = auroc_estimate(scores, truth, groups)
    given = policy.low is not None and policy.high is not None
    result["wetread"] = (policy.low or 0.0, policy.high or 0.0) if given else None
    return result


def _bootstrap(scores: Floats, truth: Floats, groups: NDArray[np.intp] | None, resamples: int, seed: int) -> Interval:
    blocks = Resampler(len(scores), groups, resamples, seed).blocks()
    areas = np.concatenate([weighted_auroc(scores, truth, weights) for weights in blocks])
    low, high = np.nanquantile(areas, [0.025, 0.975])
    return float(low), float(high)


def simulate(setting: Setting, repetitions: int, resamples: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """Yield one row for each method."""
    generator = np.random.default_rng([seed, round(1000 * setting.area), setting.per_class, setting.per_patient])
    tallies: dict[str, Tally] = {}
    for _ in range(repetitions):
        for method, interval in intervals(setting, generator, resamples).items():
            tallies.setdefault(method, Tally()).add(interval, setting.area)
    for method, tally in tallies.items():
        coverage = wilson(tally.inside, repetitions - tally.refused)
        yield {
            "true_auroc": setting.area,
            "images_per_class": setting.per_class,
            "images_per_patient": setting.per_patient,
            "method": method,
            "repetitions": repetitions,
            "no_interval": round(tally.refused / repetitions, 4),
            "coverage": _rounded(coverage.value),
            "coverage_low": _rounded(coverage.low),
            "coverage_high": _rounded(coverage.high),
            "median_width": _rounded(float(np.median(tally.widths)) if tally.widths else None),
        }


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)


def settings(quick: bool) -> list[Setting]:
    """Return what is simulated: single images, then five images per patient."""
    if quick:
        return [Setting(0.9, 30), Setting(0.9, 60, 5)]
    single = [Setting(area, n) for area in AREAS for n in PER_CLASS]
    return single + [Setting(area, n, 5) for area in (0.80, 0.95) for n in (100, 300)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="two settings, to see that it runs")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for setting in settings(options.quick):
            for row in simulate(setting, options.repetitions, options.resamples):
                writer.writerow(row)
                print(*row.values(), sep="\t", flush=True)


if __name__ == "__main__":
    main()
