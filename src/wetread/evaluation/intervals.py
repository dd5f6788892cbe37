"""Which 95 % interval a number gets: Wilson for proportions, a seeded bootstrap over patients else.

AUROC has its own module (``auroc.py``). An interval that would mislead is refused: the
estimate keeps its value, and its note says why the interval is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wetread.errors import StatisticRefused, expected
from wetread.types import Estimate

__all__ = ["Z95", "Resampler", "bootstrap", "proportion", "summarise", "unbounded", "wilson"]

Z95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

MINIMUM_PATIENTS = 10
"""Below this many patients a percentile bootstrap reuses the same few: the interval is refused."""

MINIMUM_DEFINED = 0.95
"""The statistic must exist in at least this share of the resamples, else the interval is refused."""

_BLOCK_CELLS = 2_000_000
"""Weights are made in blocks of about this many cells (16 MB), whatever the number of images."""


def unbounded(value: float | None, n: int, note: str, method: str = "") -> Estimate:
    """Return an estimate without an interval; ``note`` says why it has none."""
    return Estimate(value=value, n=n, method=method, note=note)


def wilson(successes: int, n: int) -> Estimate:
    """Return a proportion with Wilson's score interval (no continuity correction).

    Wilson 1927, doi 10.1080/01621459.1927.10502953. ``n`` = 0 gives value None and a note.
    """
    if not 0 <= successes <= n:
        raise StatisticRefused(
            expected(f"between 0 and {n} successes among {n}", successes, "count the successes again")
        )
    if n == 0:
        return unbounded(None, 0, "no cases", "Wilson")
    low, high = _wilson_bounds(successes / n, n)
    return Estimate(value=successes / n, low=low, high=high, n=n, method="Wilson")


def proportion(hits: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Return the share of True in ``hits`` (n,), with a Wilson interval that knows about patients.

    ``groups``: (n,) patient of each case. Where patients have several cases the interval uses the
    effective n = n / design effect (Rao & Scott 1992, doi 10.2307/2532311), never more than n,
    and as few as the patients when every case agrees.
    """
    hit = np.asarray(hits, dtype=np.float64)
    n = len(hit)
    codes = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    patients = n if codes is None or n == 0 else int(codes.max()) + 1
    if codes is None or patients == n:
        return wilson(int(hit.sum()), n)
    share = float(hit.mean())
    effect = _design_effect(hit, codes, patients)
    low, high = _wilson_bounds(share, n / effect)
    note = f"{n} cases of {patients} patients, design effect {effect:.2f}"
    return Estimate(value=share, low=low, high=high, n=n, method="Wilson, clustered by patient", note=note)


def _wilson_bounds(share: float, n: float) -> tuple[float, float]:
    z2 = Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 a bound equals the share exactly; rounding must not move it past.
    low = 0.0 if share == 0.0 else float(max(0.0, centre - half))
    high = 1.0 if share == 1.0 else float(min(1.0, centre + half))
    return low, high


def _design_effect(hit: NDArray[np.float64], codes: NDArray[np.intp], patients: int) -> float:
    """Variance of the share when patients are drawn, over that when cases are; at least 1."""
    n, share = len(hit), float(hit.mean())
    if share in (0.0, 1.0) or patients < 2:
        return n / patients
    residuals = np.bincount(codes, weights=hit - share, minlength=patients)
    clustered = patients / (patients - 1) * float(residuals @ residuals) / n**2
    return max(1.0, clustered / (share * (1 - share) / n))


@dataclass(frozen=True)
class Resampler:
    """How often each case occurs in each bootstrap resample; patients are drawn whole.

    ``groups``: (n,) patient of each case, or None when each case is its own patient. The same
    seed gives the same resamples, so that two readers on the same images are compared in pairs.
    """

    n: int
    groups: NDArray[np.generic] | None = None
    resamples: int = 1000
    seed: int = 0
    codes: NDArray[np.intp] = field(init=False, repr=False)
    patients: int = field(init=False)

    def __post_init__(self) -> None:
        """Number the patients once."""
        codes = np.arange(self.n, dtype=np.intp)
        if self.groups is not None:
            codes = np.unique(self.groups, return_inverse=True)[1].reshape(-1).astype(np.intp)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "patients", int(codes.max()) + 1 if self.n else 0)

    @property
    def method(self) -> str:
        """The words an estimate uses for this method."""
        unit = "cases" if self.groups is None else "patients"
        return f"bootstrap over {unit}, {self.resamples} resamples"

    def subset(self, keep: NDArray[np.bool_]) -> Resampler:
        """Return the resampler of the cases where ``keep`` (n,) is True."""
        groups = np.arange(self.n)[keep] if self.groups is None else self.groups[keep]
        size = int(keep.sum())
        return Resampler(size, None if self.groups is None else groups, self.resamples, self.seed)

    def blocks(self) -> Iterator[NDArray[np.float64]]:
        """Yield arrays (some, n) of counts, ``resamples`` rows in all, drawn from the seed."""
        generator = np.random.default_rng(self.seed)
        rows = max(1, _BLOCK_CELLS // max(1, self.n))
        sizes = [min(rows, self.resamples - start) for start in range(0, self.resamples, rows)]
        for size in sizes:
            yield self._counts(generator, size)[:, self.codes]

    def _counts(self, generator: np.random.Generator, size: int) -> NDArray[np.float64]:
        drawn = generator.integers(0, self.patients, (size, self.patients))
        flat = (drawn + self.patients * np.arange(size)[:, None]).reshape(-1)
        counts = np.bincount(flat, minlength=size * self.patients)
        return counts.reshape(size, self.patients).astype(np.float64)


Statistics = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
"""From case weights (B, n) to named statistics (B,) each; NaN where one does not exist."""


def bootstrap(
    statistics: Statistics, resampler: Resampler, biased: frozenset[str] = frozenset()
) -> dict[str, Estimate]:
    """Return each statistic of the data with its bootstrap interval over patients.

    Percentile intervals; for names in ``biased`` (statistics that noise pushes one way, such as
    ECE) the basic interval 2 * value - percentile, which takes that bias out.
    Efron & Tibshirani 1993, chapters 13 and 14.
    """
    values = statistics(np.ones((1, resampler.n)))
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in values}
    for weights in resampler.blocks():
        for name, samples in statistics(weights).items():
            drawn[name].append(samples)
    return {
        name: summarise(float(value[0]), np.concatenate(drawn[name]), resampler, biased=name in biased)
        for name, value in values.items()
    }


def summarise(value: float, samples: NDArray[np.float64], resampler: Resampler, *, biased: bool = False) -> Estimate:
    """Return the estimate of ``value`` with the interval that its bootstrap ``samples`` (B,) give.

    A ``biased`` statistic is one that noise pushes up from 0; its interval is not taken below 0.
    """
    n, method = resampler.n, resampler.method + (", basic" if biased else ", percentile")
    if not np.isfinite(value):
        return unbounded(None, n, "not defined on these cases", method)
    if resampler.patients < MINIMUM_PATIENTS:
        unit = "cases" if resampler.groups is None else "patients"
        note = f"no interval: {resampler.patients} {unit}, fewer than {MINIMUM_PATIENTS}"
        return unbounded(value, n, note, method)
    defined = np.isfinite(samples)
    if defined.mean() < MINIMUM_DEFINED:
        note = f"no interval: not defined in {1 - defined.mean():.0%} of the resamples"
        return unbounded(value, n, note, method)
    low, high = (float(bound) for bound in np.quantile(samples[defined], [0.025, 0.975]))
    if low == high:
        return unbounded(value, n, "no interval: the same value in (almost) every resample", method)
    if biased:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
        note = "chance adds to the value; the interval is for what remains without it"
        return Estimate(value=value, low=low, high=high, n=n, method=method, note=note)
    return Estimate(value=value, low=low, high=high, n=n, method=method)
