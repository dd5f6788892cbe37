"""LIME: which superpixels carry the log-odds, by a straight line fitted to the scores of partly hidden images.

Source: Ribeiro et al., KDD 2016. Decided here, because the usual settings fail on radiographs (see
``docs/explanation/lime.md``): log-odds and not probabilities; 60 to 150 superpixels inside the body; every mask hides
a fifth of them; a fill that does not lower the score is not used, and where none does there is no map; masks are added
until two halves with seeds of their own agree on the leading superpixels; where they do not, or the line does not
predict masks that it has not seen, there is no map either, unless a weak one is accepted.

LIME weighs samples by their distance from the image. Here all masks hide the same number of superpixels (or one
more), so all lie at the same distance and every kernel gives them the same weight: p_on alone decides what local means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, expected
from wetread.explain.base import Options, RawMap
from wetread.explain.score import Score
from wetread.explain.superpixels import Superpixels, divide

__all__ = [
    "GROUPS",
    "Chosen",
    "Fill",
    "Hider",
    "Sampling",
    "Surrogate",
    "choose_fill",
    "draw_masks",
    "explained",
    "fit_surrogate",
    "jaccard",
    "jaccard_by_chance",
    "leading",
    "lime",
    "sampled",
]

Fill = Literal["blur", "mean", "black"]

GROUPS = 5
"""A block of masks hides each superpixel once: five masks with a fifth each, so p_on is 0.8."""

_BLUR = 0.025
"""Standard deviation of the blur, share of the shorter side: what is finer than a superpixel goes, its grey stays."""

_LEAST_DROP = math.log(2)
"""Filling the whole body must at least halve the odds, else what is hidden cannot be called evidence."""

_LEADING_SHARE, _LEADING_LEAST = 0.05, 5
"""The leading superpixels: 5 % of them, and at least 5 ..."""

_FAINT = 0.1
"""... less those with under a tenth of the largest weight: behind a lone finding, noise decides who comes second."""

_STABLE = 0.85
"""Jaccard index of the leading superpixels of both halves, in two successive rounds, that ends the sampling."""

_ROUND, _CAP = 3, 30
"""Masks for each superpixel in a round, and in all."""

_FEWEST = 1.1
"""Fewer samples than superpixels, and a tenth more, fit any scores."""

_FOLDS = 5
"""Each fifth of the blocks of masks is predicted once by a line fitted to the others."""

_STRENGTHS = np.logspace(-8, 1, 19)
"""Strengths of the ridge penalty to choose from, for each sample."""

_LEAST_R2 = 0.85
"""Out-of-sample R2 of a line that may stand for the reader; below it there is no map, or one with a warning."""

_HOPELESS_R2 = 0.80
"""Out-of-sample R2 that more masks would lead to, below which no more are scored: well short of what is asked for."""

_SATURATED = math.log(99)
"""Log-odds beyond which the probability is above 0.99 or below 0.01."""

_WORDS: dict[Fill, str] = {
    "blur": "the body blurred",
    "mean": "the mean grey of the body",
    "black": "black",
}


@dataclass(frozen=True, eq=False)
class Hider:
    """One image (H, W) in [0, 1] with its superpixels, and what takes the place of those that are hidden."""

    image: NDArray[np.float32]
    pieces: Superpixels
    filled: NDArray[np.float32]

    def scores(self, score: Score, off: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the log-odds (N,) of the image with the superpixels of each mask (N, count) hidden."""
        shown = np.where(self.pieces.hidden(off), self.filled, self.image)
        return score(torch.from_numpy(shown)[:, None]).double().numpy()


@dataclass(frozen=True, eq=False)
class Chosen:
    """The fill that is used, and the log-odds of the image, which fall by ``drop`` where the fill takes all the body.

    ``passed``: fills that were tried before and do not lower the score. ``passes``: forward passes that this took.
    """

    fill: Fill
    hider: Hider
    score: float
    drop: float
    passed: tuple[Fill, ...]
    passes: int


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A straight line through the drops of log-odds: drop = masks (N, count) times ``weights`` (count,).

    It has no intercept: with nothing hidden it says what the reader says. The sum of ``weights`` is the mean drop
    with a fifth hidden, extrapolated to everything.
    """

    weights: NDArray[np.float64]
    strength: float


@dataclass(eq=False)
class _Half:
    """Masks with a seed of their own, and the drops that they gave."""

    generator: np.random.Generator
    off: NDArray[np.bool_]
    drops: NDArray[np.float64]

    def add(self, off: NDArray[np.bool_], drops: NDArray[np.float64]) -> None:
        """Keep what was measured."""
        self.off, self.drops = np.concatenate([self.off, off]), np.concatenate([self.drops, drops])


@dataclass(frozen=True, eq=False)
class Sampling:
    """What all masks of one image gave: ``off`` bool (N, count) and ``drops`` (N,) in log-odds, of both halves.

    ``folds``: (N,) the part that each mask is in when parts are predicted from each other; blocks are kept whole.
    ``settled``: both halves agreed on the leading superpixels when the sampling ended.
    """

    halves: tuple[Surrogate, Surrogate]
    off: NDArray[np.bool_]
    drops: NDArray[np.float64]
    folds: NDArray[np.int64]
    settled: bool

    @cached_property
    def whole(self) -> Surrogate:
        """The line through all samples."""
        return fit_surrogate(self.off, self.drops)

    @property
    def jaccard(self) -> float:
        """Agreement of both halves on the leading superpixels."""
        first, second = (leading(half.weights) for half in self.halves)
        return jaccard(first, second)

    def r2(self) -> float:
        """Out-of-sample R2: each fifth of the masks predicted by a line through the others."""
        predicted = np.empty_like(self.drops)
        for number in range(_FOLDS):
            out = self.folds == number
            predicted[out] = self.off[out] @ fit_surrogate(self.off[~out], self.drops[~out]).weights
        return explained(self.drops, predicted)

    def r2_in_the_limit(self) -> float:
        """Out-of-sample R2 that ever more masks would lead to, roughly.

        The error of a line with p slopes fitted to n samples is 1 + p / n times that of the best line.
        """
        samples, slopes = self.off.shape
        return 1 - (1 - self.r2()) / (1 + float(slopes) / float(samples))


def draw_masks(neighbours: NDArray[np.bool_], wanted: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which superpixels are hidden by each of ``wanted`` masks, bool (wanted, count).

    Five masks in a row hide each superpixel once, about a fifth each. Neighbours are hidden by different masks, save
    one pair in a mask or so (ten without this rule): two of them hidden at once are one large hole, whose effect is
    no sum. ``neighbours``: bool (count, count).
    """
    blocks, count = math.ceil(wanted / GROUPS), len(neighbours)
    each = np.arange(blocks)
    order = generator.random((blocks, count)).argsort(1)
    near = np.zeros((blocks, count, GROUPS))  # neighbours of each superpixel that a group hides already
    taken = generator.random((blocks, GROUPS)) * 0.5  # size of each group; the fraction decides between equals
    off = np.zeros((blocks, GROUPS, count), dtype=np.bool_)
    for place in order.T:
        group = (near[each, place] * count + taken).argmin(1)
        off[each, group, place] = True
        near[each, :, group] += neighbours[place]
        taken[each, group] += 1
    return off.reshape(-1, count)[:wanted]


def fit_surrogate(off: NDArray[np.bool_], drops: NDArray[np.float64]) -> Surrogate:
    """Fit ``drops`` (N,) to what N masks (N, count) hide, by ridge regression in closed form.

    The penalty pulls the weights towards their common level and not towards 0, so that it cannot shrink their sum.
    Its strength has the least generalised cross-validation error (Golub, Heath and Wahba, Technometrics 1979).
    """
    x = off.astype(np.float64)
    hidden = x.sum(1)
    level = float(drops @ hidden / (hidden @ hidden))
    rest = drops - level * hidden
    values, vectors = np.linalg.eigh(x.T @ x)
    values = values.clip(min=0)
    along = vectors.T @ (x.T @ rest)
    strengths = _STRENGTHS * len(drops)
    damped = values + strengths[:, None]  # (strengths, count)
    residual = rest @ rest - (along**2 * (2 / damped - values / damped**2)).sum(1)
    free = len(drops) - (values / damped).sum(1)
    best = int(np.argmin(residual.clip(min=0) / free**2))
    return Surrogate(level + vectors @ (along / damped[best]), float(strengths[best]))


def explained(values: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """R2: the share of the variance of ``values`` (N,) that is explained; below 0 where their mean does better."""
    whole = float(np.square(values - values.mean()).sum())
    return 1 - float(np.square(values - predicted).sum()) / whole if whole > 0 else 1.0


def leading(weights: NDArray[np.float64]) -> frozenset[int]:
    """Return the superpixels that speak most for the label: 5 % of them, at least 5, without faint ones."""
    first = np.argsort(-weights, kind="stable")[: _leading_count(len(weights))]
    kept = weights[first] >= _FAINT * max(0.0, float(weights[first[0]]))
    kept[0] = True
    return frozenset(first[kept].tolist())


def _leading_count(count: int) -> int:
    return min(count, max(_LEADING_LEAST, round(_LEADING_SHARE * count)))


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """Size of the intersection over that of the union, 0 to 1."""
    return len(first & second) / len(first | second)


def jaccard_by_chance(count: int, chosen: int) -> float:
    """Return the expected Jaccard index of two random sets of ``chosen`` out of ``count``.

    Their intersection follows the hypergeometric distribution.
    """
    ways = math.comb(count, chosen)
    shared = range(max(0, 2 * chosen - count), chosen + 1)
    return sum(
        math.comb(chosen, both) * math.comb(count - chosen, chosen - both) / ways * both / (2 * chosen - both)
        for both in shared
    )


def lime(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """LIME maps of (N, 1, height, width) in [0, 1]: the weight of each superpixel, shared evenly by its pixels.

    Signed, in log-odds: the sum over any part of the body is what hiding it would take from the score if superpixels
    added up. ``details``: ``r2`` (out of sample), ``jaccard`` and ``jaccard_corrected`` (for chance) of the leading
    superpixels of both halves, ``saturated`` (share of samples with a probability above .99 or below .01),
    ``segments``, ``samples``, ``drop`` (of the log-odds where all is filled). A refusal for what the samples show has
    the same ``details``.
    """
    found: list[RawMap | ExplanationFailed] = []
    for image in batch[:, 0].numpy():
        try:
            found.append(_explained(score, image, options))
        except ExplanationFailed as failure:
            found.append(failure)
    return found


def _explained(score: Score, image: NDArray[np.float32], options: Options) -> RawMap:
    pieces = divide(image)
    if options.samples is not None and options.samples < _FEWEST * pieces.count:
        raise ExplanationFailed(
            expected(
                f"at least {math.ceil(_FEWEST * pieces.count)} samples for {pieces.count} superpixels",
                options.samples,
                "ask for more, or leave the number out",
            )
        )
    chosen = choose_fill(score, image, pieces, options.fill)
    sampling = sampled(score, chosen.hider, chosen.score, options)
    r2, agreed = sampling.r2(), sampling.jaccard
    chance = jaccard_by_chance(pieces.count, _leading_count(pieces.count))
    details = {
        "r2": r2,
        "jaccard": agreed,
        "jaccard_corrected": (agreed - chance) / (1 - chance),
        "saturated": float(np.mean(np.abs(chosen.score - sampling.drops) > _SATURATED)),
        "segments": float(pieces.count),
        "samples": float(len(sampling.drops)),
        "drop": chosen.drop,
    }
    if not options.accept_weak:
        _refuse_weak(details, settled=sampling.settled)
    return RawMap(
        pieces.spread(sampling.whole.weights),
        baseline=f"{_WORDS[chosen.fill]}, one superpixel in {GROUPS} at a time",
        passes=len(sampling.drops) + chosen.passes,
        limits=_limits(details, chosen, settled=sampling.settled),
        details=details,
    )


def _refuse_weak(details: Mapping[str, float], *, settled: bool) -> None:
    """Refuse a map that does not describe the reader here, or would be another with another seed."""
    cure = "take a method that fits no line, e.g. gradcam or occlusion, or see the map with --accept-weak"
    if details["r2"] < _LEAST_R2:
        want = f"a line that explains at least {_LEAST_R2:.0%} of what hiding superpixels does"
        got = f"{details['r2']:.0%}: the score does not add up over superpixels"
        raise ExplanationFailed(expected(want, got, cure), details)
    if not settled:
        want = f"two halves of the samples that name the same leading superpixels (Jaccard {_STABLE:.2f})"
        raise ExplanationFailed(expected(want, f"{details['jaccard']:.2f}", cure), details)


def choose_fill(score: Score, image: NDArray[np.float32], pieces: Superpixels, only: Fill | None = None) -> Chosen:
    """Take the first fill that at least halves the odds when it takes the place of the whole body; ``only``: that one.

    Raises:
        ExplanationFailed: none does; the message holds the scores.
    """
    names: tuple[Fill, ...] = (only,) if only else get_args(Fill)
    hiders = [Hider(image, pieces, _filled(image, pieces.body, name)) for name in names]
    whole = np.ones((1, pieces.count), dtype=np.bool_)
    at_image = float(hiders[0].scores(score, ~whole)[0])
    left = [float(hider.scores(score, whole)[0]) for hider in hiders]
    for index, name in enumerate(names):
        if at_image - left[index] >= _LEAST_DROP:
            return Chosen(name, hiders[index], at_image, at_image - left[index], names[:index], len(names) + 1)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, left, strict=True))
    raise ExplanationFailed(
        expected(
            f"a fill that lowers the log-odds of {score.label!r}, {at_image:.2f}, by {_LEAST_DROP:.2f} or more",
            scores,
            "read the score as one that no part of the image carries, or use a method that hides nothing, e.g. gradcam",
        )
    )


def _filled(image: NDArray[np.float32], body: NDArray[np.bool_], fill: Fill) -> NDArray[np.float32]:
    """What hidden pixels of (H, W) become; nothing from outside the body bleeds into a blur."""
    if fill == "black":
        return np.zeros_like(image)
    if fill == "mean":
        return np.full_like(image, image[body].mean())
    from scipy.ndimage import gaussian_filter

    width = _BLUR * min(image.shape)
    inside = gaussian_filter(body.astype(np.float32), width)
    blurred = gaussian_filter(np.where(body, image, 0).astype(np.float32), width)
    return np.asarray(blurred / np.maximum(inside, 1e-3), dtype=np.float32)


def _limits(details: Mapping[str, float], chosen: Chosen, *, settled: bool) -> tuple[str, ...]:
    """What holds for this map alone, in sentences."""
    limits = [
        f"A straight line over {details['segments']:.0f} superpixels of the body; it explains {details['r2']:.0%} "
        "of what hiding others does. What lies outside the body was never hidden."
    ]
    if details["r2"] < _LEAST_R2:
        limits.append("The score does not add up over superpixels: this map may mislead.")
    if not settled:
        limits.append(
            f"Two halves of {details['samples']:.0f} samples name other leading superpixels "
            f"(Jaccard {details['jaccard']:.2f}): do not rely on their order."
        )
    if chosen.passed:
        limits.append(f"Not filled with {' or '.join(chosen.passed)}, which does not lower the score.")
    return tuple(limits)


def sampled(score: Score, hider: Hider, at_image: float, options: Options) -> Sampling:
    """Score masks in rounds until both halves agree twice, or ``options.samples`` of them.

    It ends early where no number of masks would make the line good enough, unless a weak one is accepted. ``at_image``:
    the log-odds of the image itself.
    """
    count = hider.pieces.count
    halves = tuple(
        _Half(np.random.default_rng([options.seed, half]), np.zeros((0, count), dtype=np.bool_), np.zeros(0))
        for half in range(2)
    )
    agreed = 0
    for wanted in _rounds(count, options.samples):
        for half, number in zip(halves, (wanted - wanted // 2, wanted // 2), strict=True):
            off = draw_masks(hider.pieces.neighbours, number, half.generator)
            half.add(off, at_image - hider.scores(score, off))
        first, second = (fit_surrogate(half.off, half.drops) for half in halves)
        close = jaccard(leading(first.weights), leading(second.weights)) >= _STABLE
        agreed = agreed + 1 if close else 0
        found = _joined(halves, (first, second), settled=close)
        if agreed == 2 or (not options.accept_weak and found.r2_in_the_limit() < _HOPELESS_R2):
            break
    return found


def _joined(halves: Sequence[_Half], lines: tuple[Surrogate, Surrogate], *, settled: bool) -> Sampling:
    off, drops = (np.concatenate([getattr(half, name) for half in halves]) for name in ("off", "drops"))
    folds = np.concatenate([np.arange(len(half.drops)) // GROUPS % _FOLDS for half in halves])
    return Sampling(lines, off, drops, folds, settled)


def _rounds(count: int, samples: int | None) -> Iterator[int]:
    """Masks in each round, whole blocks for both halves: the number asked for at once, else until the cap."""
    if samples is not None:
        yield samples
        return
    block = 2 * GROUPS
    for _ in range(_CAP // _ROUND):
        yield math.ceil(_ROUND * count / block) * block
