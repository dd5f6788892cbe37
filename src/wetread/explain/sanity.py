"""Whether a heat map depends on what the reader has learnt: the model parameter randomisation test.

Maps of the reader are compared with maps of copies whose layers were destroyed from the head down (Adebayo et al.,
NeurIPS 2018). How alike two maps may be by chance is what maps of *different images* are (Arun et al., Radiology: AI
2021). Decided here: a map must be lost when the upper half of the layers is destroyed, and when all of them are.
The first is what guided backpropagation fails: it redraws the image from its lowest layers, and once these are
gone too it is as unlike as anything. Retention is chance-corrected: 0 as alike as maps of different images, 1 the
same map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.evaluation.intervals import MINIMUM_PATIENTS, Resampler, summarise
from wetread.explain.base import METHODS, Method, Options, Target
from wetread.explain.dispatch import explain_images
from wetread.explain.randomise import randomised
from wetread.explain.references import REFERENCES, Reference, reference_maps
from wetread.explain.score import Score
from wetread.explain.similarity import MEASURES, Measure, as_shown, similarity
from wetread.models.predict import Reader
from wetread.types import Estimate, Record

__all__ = [
    "DestroyedCopies",
    "MapMaker",
    "Retention",
    "SanityResult",
    "SanitySettings",
    "Verdict",
    "check_sanity",
    "map_maker",
]

Verdict = Literal["passes", "fails", "not assessable"]
Map = NDArray[np.float32]
Floats = NDArray[np.float64]
MapMaker = Callable[[Reader, Tensor], list[Map]]
"""Makes a raw map (h, w) for each image of (N, 1, height, width); all zeros where nothing speaks for the label."""

JUDGED = (0.5, 1.0)
"""Shares of the layers, from the head, after whose destruction nothing of the map may be left."""

TOLERANCE = 0.2
"""Retention that is still called none: layers that were left alone keep some of the noise of a gradient in place."""

MINIMUM_IMAGES = 20
"""Images with a map below which there is no verdict."""

_KEPT_PARAMETERS = 200_000_000
"""Numbers in all destroyed copies together up to which they are kept: 800 MB."""

_ALIKE = 0.9
"""Maps of different images more alike than this say nothing about chance (a linear model has one gradient)."""


@dataclass(frozen=True)
class SanitySettings:
    """``shares``: of the layers, from the head, that are destroyed (0: the last one); they hold :data:`JUDGED`.

    ``seeds``: how many different destructions of each. ``pairs``: of different images, for chance.
    """

    shares: tuple[float, ...] = JUDGED
    seeds: int = 5
    pairs: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not set(JUDGED) <= set(self.shares):
            raise UsageError(expected(f"shares with {JUDGED} among them", self.shares, "add them"))
        if self.seeds < 2 or self.pairs < 1:
            raise UsageError(expected("at least 2 seeds and 1 pair", f"{self.seeds} and {self.pairs}", "ask for more"))


class Retention(Record):
    """What is left of the maps after ``share`` (0-1) of the layers was destroyed, by one measure of similarity.

    ``similarity``: mean over images and destructions. ``chance``: mean over pairs of different images. ``retention``:
    (similarity - chance) / (1 - chance), chance counted as 0.9 at most; all with 95 % intervals.
    """

    measure: Measure
    share: float
    similarity: Estimate
    chance: Estimate
    retention: Estimate


class SanityResult(Record):
    """Verdict on one method with one reader and label; ``n`` images, of which ``unmade`` more had no map."""

    method: str
    label: str
    verdict: Verdict
    sentence: str
    n: int
    unmade: int
    retentions: tuple[Retention, ...] = ()


def map_maker(
    method: Method | Reference, label: str, options: Options | None = None, layer: str | None = None
) -> MapMaker:
    """Return what makes the maps of a method or of a reference.

    Raises:
        UsageError: neither a method nor a reference.
    """
    if method in REFERENCES:
        return lambda reader, batch: list(reference_maps(method, Score(reader, label), batch))
    if method not in METHODS:
        known = ", ".join((*METHODS, *REFERENCES))
        raise UsageError(expected(f"one of {known}", repr(method), "name one of them"))
    target = Target(label, method, layer)

    def make(reader: Reader, batch: Tensor) -> list[Map]:
        size = (reader.input.height, reader.input.width)
        found = explain_images(reader, reader.forward(batch, 1), target, [size] * len(batch), batch, None, options)
        return [np.zeros(size, np.float32) if isinstance(one, ExplanationFailed) else one.map for one in found]

    return make


class DestroyedCopies:
    """Copies of ``reader`` with destroyed layers, on which several methods are judged; kept where they are small.

    ``batch``: (N, 1, height, width) in [0, 1], images of which the reader says the label. The reader is not touched.
    """

    def __init__(self, reader: Reader, batch: Tensor, settings: SanitySettings | None = None) -> None:
        self.reader, self.batch = reader, batch
        self.settings = settings or SanitySettings()
        numbers = sum(one.numel() for network in reader.networks for one in network.parameters())
        self._keeps = numbers * len(self.settings.shares) * self.settings.seeds <= _KEPT_PARAMETERS
        self._made: dict[tuple[float, int], Reader] = {}

    def _of(self, share: float) -> Iterator[Reader]:
        """One copy for each seed, with ``share`` of the layers destroyed."""
        for seed in range(self.settings.seed, self.settings.seed + self.settings.seeds):
            copy = self._made.get((share, seed)) or randomised(self.reader, self.batch, seed, share)
            if self._keeps:
                self._made[share, seed] = copy
            yield copy

    def check(self, method: str, make: MapMaker, label: str, patients: Sequence[str] | None = None) -> SanityResult:
        """Judge one method; see :func:`check_sanity`."""
        if patients is not None and len(patients) != len(self.batch):
            raise UsageError(expected(f"{len(self.batch)} patients, one for each image", len(patients), "name all"))
        own = _shown(make(self.reader, self.batch), self.reader)
        kept = np.array([bool(one.any()) for one in own])
        n, unmade = int(kept.sum()), int((~kept).sum())
        groups = None if patients is None else np.asarray(patients, dtype=np.str_)[kept]
        few = _too_few(n, groups)
        if few:
            return SanityResult(method=method, label=label, verdict="not assessable", sentence=few, n=n, unmade=unmade)
        judge = _Judge([one for one, keep in zip(own, kept, strict=True) if keep], groups, self.settings)
        found: list[Retention] = []
        for share in self.settings.shares:
            made = (_shown(make(copy, self.batch), self.reader) for copy in self._of(share))
            others = [[one for one, keep in zip(maps, kept, strict=True) if keep] for maps in made]
            found += [judge.retention(others, share, measure) for measure in MEASURES]
        verdict = _verdict(found)
        sentence = _sentence(verdict, found, n)
        return SanityResult(
            method=method, label=label, verdict=verdict, sentence=sentence, n=n, unmade=unmade, retentions=tuple(found)
        )


def check_sanity(
    reader: Reader,
    batch: Tensor,
    method: str,
    make: MapMaker,
    label: str,
    settings: SanitySettings | None = None,
    patients: Sequence[str] | None = None,
) -> SanityResult:
    """Judge whether the maps that ``make`` makes for ``batch`` depend on the weights of ``reader``.

    ``batch``: (N, 1, height, width) in [0, 1], images of which the reader says ``label``; images without a map are
    left out. ``patients``: (N,), for intervals. The reader is not touched. A method passes where, by each measure and
    after each judged destruction, the interval of the retention lies below the tolerance; it fails where one lies
    above; else, or with fewer than 20 maps, there is no verdict.

    Raises:
        UsageError: not one patient for each image.
        ExplanationFailed: this reader allows no such map.
    """
    return DestroyedCopies(reader, batch, settings).check(method, make, label, patients)


def _too_few(n: int, groups: NDArray[np.str_] | None) -> str:
    """Why these images allow no verdict; empty where they do."""
    if n < MINIMUM_IMAGES:
        return f"Not tested for dependence on the weights: {n} maps, at least {MINIMUM_IMAGES} are needed."
    several = n if groups is None else len(np.unique(groups))
    if several < MINIMUM_PATIENTS:
        return f"Not tested for dependence on the weights: {several} patients, at least {MINIMUM_PATIENTS} are needed."
    return ""


def _shown(raw: Sequence[Map], reader: Reader) -> list[Map]:
    return [as_shown(one, reader.input.height, reader.input.width) for one in raw]


class _Judge:
    """The reader's own maps, how alike those of different images are, and what is left of them."""

    def __init__(self, own: Sequence[Map], groups: NDArray[np.str_] | None, settings: SanitySettings) -> None:
        self.own = own
        self.resampler = Resampler(len(own), groups, seed=settings.seed)
        self.seeds = settings.seeds
        first, second = _pairs(len(own), groups, settings)
        self.first, self.second = first, second
        self.alike: dict[Measure, Floats] = {
            measure: np.array([similarity(own[a], own[b], measure) for a, b in zip(first, second, strict=True)])
            for measure in MEASURES
        }

    def retention(self, others: Sequence[Sequence[Map]], share: float, measure: Measure) -> Retention:
        """Compare with the maps of the destroyed copies, ``others``: one list of maps for each copy."""
        alike = np.array(
            [[similarity(a, b, measure) for a, b in zip(self.own, made, strict=True)] for made in others]
        )  # (seeds, n)
        ones = np.ones((1, len(self.own)))
        values = self._figures(alike, measure, ones, np.ones((1, self.seeds)))
        rng = np.random.default_rng([self.resampler.seed, self.seeds])
        drawn: list[Floats] = []
        for weights in self.resampler.blocks():
            copies = rng.multinomial(self.seeds, np.full(self.seeds, 1 / self.seeds), len(weights)).astype(np.float64)
            drawn.append(self._figures(alike, measure, weights, copies))
        samples = np.concatenate(drawn, axis=1)
        estimates = [summarise(float(v[0]), s, self.resampler) for v, s in zip(values, samples, strict=True)]
        similar, chance, retained = estimates
        return Retention(measure=measure, share=share, similarity=similar, chance=chance, retention=retained)

    def _figures(self, alike: Floats, measure: Measure, weights: Floats, copies: Floats) -> Floats:
        """Similarity, chance and retention (3, B) for weights of images (B, n) and of copies (B, seeds)."""
        similar = np.einsum("bs,sn,bn->b", copies, alike, weights) / (copies.sum(1) * weights.sum(1))
        both = weights[:, self.first] * weights[:, self.second]  # (B, pairs)
        with np.errstate(invalid="ignore"):  # a resample without any of the pairs has no chance level
            chance = both @ self.alike[measure] / both.sum(1)
        capped = np.minimum(chance, _ALIKE)
        return np.stack([similar, chance, (similar - capped) / (1 - capped)])


def _pairs(n: int, groups: NDArray[np.str_] | None, settings: SanitySettings) -> tuple[NDArray[np.intp], ...]:
    """Up to ``pairs`` pairs of images of different patients, drawn without replacement."""
    first, second = np.triu_indices(n, 1)
    if groups is not None:
        apart = groups[first] != groups[second]
        first, second = first[apart], second[apart]
    chosen = np.random.default_rng(settings.seed).permutation(len(first))[: settings.pairs]
    return first[chosen], second[chosen]


def _judged(found: Sequence[Retention]) -> list[Retention]:
    return [one for one in found if one.share in JUDGED]


def _bounds(estimate: Estimate) -> tuple[float, float]:
    """The interval; where the same value came in every resample, that value twice."""
    value = float("nan") if estimate.value is None else estimate.value
    low, high = estimate.low, estimate.high
    return (value, value) if low is None or high is None else (low, high)


def _verdict(found: Sequence[Retention]) -> Verdict:
    bounds = [_bounds(one.retention) for one in _judged(found)]
    if any(low > TOLERANCE for low, _ in bounds):
        return "fails"
    return "passes" if all(high <= TOLERANCE for _, high in bounds) else "not assessable"


def _sentence(verdict: Verdict, found: Sequence[Retention], n: int) -> str:
    """Say the verdict in plain words, with the figure that decides it; less than nothing left is nothing."""
    worst = max(_judged(found), key=lambda one: _bounds(one.retention)[0 if verdict == "fails" else 1])
    low, high = (max(0.0, bound) for bound in _bounds(worst.retention))
    depth = "all layers" if worst.share == 1 else f"the upper {worst.share:.0%} of the layers"
    left = f"with {depth} destroyed, {max(0.0, worst.retention.value or 0):.0%} ({low:.0%} to {high:.0%})"
    figures = f"{left} of the map was left, n={n}"
    if verdict == "passes":
        return f"Depends on what the reader has learnt: {figures}."
    if verdict == "fails":
        return f"Does not depend on what the reader has learnt, do not use it: {figures}."
    return f"Dependence on what the reader has learnt could not be decided: {figures}; test more images."
