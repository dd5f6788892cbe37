"""Whether a heat map says what the reader used: erase or show the image in its order, shake the image, add it up.

Decided here: curves are of log-odds, and every curve stands beside the same curve in random orders and in the worst
order, because a fall of the score alone may come from the damage. Every fill is tried: one may raise the score.
Cells of equal heat come in a random order, never in that of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.evaluation.intervals import Resampler, bootstrap, proportion
from wetread.explain.perturbation import FILLS, Fill, filled
from wetread.types import Estimate, Record

__all__ = [
    "Curve",
    "CurveSettings",
    "Faithfulness",
    "FaithfulnessSummary",
    "ScoreFunction",
    "aopc",
    "cells_of",
    "curves",
    "faithfulness_of",
    "incompleteness",
    "infidelity",
    "max_sensitivity",
    "order_of",
    "summarise_faithfulness",
]

ScoreFunction = Callable[[Tensor], Tensor]
"""Log-odds (N,) of images (N, 1, height, width) in [0, 1], such as :class:`~wetread.explain.score.Score`."""

Floats = NDArray[np.float64]
Cells = NDArray[np.intp]
Direction = Literal["deletion", "insertion"]

_BATCH = 32
"""Changed images held at once."""

_FEWEST_PATIENTS = 6
"""With 5 pairs the smallest p is 1/32: no result could reach one-sided 2.5 %."""


@dataclass(frozen=True)
class CurveSettings:
    """``side``: cells along the longer side of the image. ``until``: share (0-1) of the cells that is changed.

    ``steps``: in how many equal steps. ``orders``: how many random orders. Up to 30 % of a radiograph can be erased
    before what is left is none.
    """

    side: int = 14
    steps: int = 10
    until: float = 0.3
    orders: int = 3
    fills: tuple[Fill, ...] = tuple(FILLS)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side < 2 or self.steps < 1 or self.orders < 1 or not self.fills:
            raise UsageError(
                expected(
                    "2 cells, a step, a random order and a fill at least",
                    f"{self.side}, {self.steps}, {self.orders}, {len(self.fills)}",
                    "raise them",
                )
            )
        if not 0 < self.until <= 1:
            raise UsageError(expected("a share of the cells above 0, up to 1", self.until, "choose one in that range"))


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores along one order: ``changed`` (L+1,) number of cells, from 0; ``scores`` (L+1,) in log-odds."""

    changed: Cells
    scores: Floats


class Faithfulness(Record):
    """How the score of one image answers when cells are erased, or shown, in the order of its heat map.

    ``deletion``: AOPC, the mean fall of the log-odds while the hottest cells are replaced by ``fill``; ``insertion``:
    the mean rise while they are put onto the fill. Each beside the mean over random orders and the coldest first.
    ``score`` and ``fill_score``: log-odds of the image and of the fill alone; where ``fill_raises``, erasing adds
    evidence, and only the comparison of orders means something.
    """

    fill: Fill
    deletion: float
    deletion_random: float
    deletion_worst: float
    insertion: float
    insertion_random: float
    insertion_worst: float
    score: float
    fill_score: float
    fill_raises: bool


class FaithfulnessSummary(Record):
    """Over a set, for one fill and one direction: is the order of the map better than chance?

    ``above_random``: share of images whose AOPC is above the mean of random orders, Wilson interval. ``p``:
    one-sided Wilcoxon signed-rank test of the paired differences, of patients' means where patients repeat; None for
    fewer than 6 patients, where it cannot fall below 0.0156. ``aopc``, ``random`` and ``gain`` (their difference):
    means in log-odds with a bootstrap interval over patients. ``fill_raises``: images whose fill alone scores at
    least as high as the image.
    """

    fill: Fill
    direction: Direction
    above_random: Estimate
    p: float | None
    aopc: Estimate
    random: Estimate
    gain: Estimate
    fill_raises: int


def cells_of(height: int, width: int, side: int) -> Cells:
    """Return which cell each pixel belongs to: (height, width) from 0, about square, ``side`` along the longer side."""
    if side > max(height, width):
        raise UsageError(expected(f"at most {max(height, width)} cells a side", side, "ask for fewer"))
    longer = max(height, width)
    rows, columns = (max(1, round(side * length / longer)) for length in (height, width))
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    return (down[:, None] * columns + across).astype(np.intp)


def order_of(heat: NDArray[np.floating], cells: Cells, seed: int = 0) -> Cells:
    """Return the cells from the hottest to the coldest mean of ``heat`` (height, width), signed; ties at random.

    Raises:
        UsageError: heat of another shape than the cells.
    """
    if heat.shape != cells.shape:
        raise UsageError(expected(f"heat of {cells.shape}", heat.shape, "bring it to the size of the input"))
    count = int(cells.max()) + 1
    means = np.bincount(cells.ravel(), heat.ravel().astype(np.float64), count) / np.bincount(cells.ravel())
    return np.lexsort((np.random.default_rng(seed).permutation(count), -means))


def curves(
    score: ScoreFunction, start: Tensor, end: Tensor, cells: Cells, orders: Sequence[Cells], changed: Cells
) -> list[Curve]:
    """Return one curve for each order, all in shared batches.

    ``start`` and ``end``: images (1, 1, height, width); at each step the first ``changed[k]`` cells of the order are
    those of ``end``. Deletion goes from the image to the fill, insertion from the fill to the image.
    """
    where = torch.from_numpy(cells)

    def images() -> Iterator[Tensor]:
        for order in orders:
            rank = torch.empty(len(order), dtype=torch.long)
            rank[torch.from_numpy(order)] = torch.arange(len(order))
            turn = rank[where]  # (height, width): when each pixel changes
            for count in changed:
                yield torch.where(turn < int(count), end[0], start[0])

    found = _scored(score, images()).reshape(len(orders), len(changed))
    return [Curve(changed, one) for one in found]


def _scored(score: ScoreFunction, images: Iterator[Tensor]) -> Floats:
    """Score images (1, height, width) as they come, a batch at a time."""
    values: list[Floats] = []
    part: list[Tensor] = []
    for image in images:
        part.append(image)
        if len(part) == _BATCH:
            values.append(score(torch.stack(part)).double().numpy())
            part = []
    if part:
        values.append(score(torch.stack(part)).double().numpy())
    return np.concatenate(values)


def aopc(curve: Curve) -> float:
    """Return the area over the perturbation curve, 1 / (L + 1) * sum over k = 0 to L of f(x) - f(x_k), in log-odds.

    Source: Samek et al., IEEE TNNLS 2017, eq. 12. Along an insertion it is the mean rise with its sign turned.
    """
    return float((curve.scores[0] - curve.scores).mean())


def faithfulness_of(
    score: ScoreFunction, image: Tensor, heat: NDArray[np.floating], settings: CurveSettings | None = None
) -> tuple[Faithfulness, ...]:
    """Erase and show one image in the order of ``heat``, in random orders and in the reverse, for each fill.

    ``image``: (1, 1, height, width) in [0, 1]; ``heat``: (height, width), signed, hottest first. Costs
    2 * fills * (2 + orders) * (steps + 1) forward passes. Sources: Samek et al., IEEE TNNLS 2017 (AOPC); Petsiuk et
    al., BMVC 2018 (insertion).

    Raises:
        UsageError: heat of another size than the image.
    """
    asked = settings or CurveSettings()
    cells = cells_of(image.shape[2], image.shape[3], asked.side)
    best = order_of(heat, cells, asked.seed)
    rng = np.random.default_rng(asked.seed)
    orders = [best, best[::-1].copy(), *(rng.permutation(len(best)) for _ in range(asked.orders))]
    changed = np.unique(np.linspace(0, asked.until * len(best), asked.steps + 1).round().astype(np.intp))
    return tuple(_with_fill(score, image, fill, (cells, orders, changed)) for fill in asked.fills)


def _with_fill(score: ScoreFunction, image: Tensor, fill: Fill, plan: tuple[Cells, list[Cells], Cells]) -> Faithfulness:
    cells, orders, changed = plan
    other = filled(image, fill)
    erased = curves(score, image, other, cells, orders, changed)
    shown = curves(score, other, image, cells, orders, changed)
    down, up = [aopc(one) for one in erased], [-aopc(one) for one in shown]
    own, alone = float(erased[0].scores[0]), float(shown[0].scores[0])
    return Faithfulness(
        fill=fill,
        deletion=down[0],
        deletion_worst=down[1],
        deletion_random=float(np.mean(down[2:])),
        insertion=up[0],
        insertion_worst=up[1],
        insertion_random=float(np.mean(up[2:])),
        score=own,
        fill_score=alone,
        fill_raises=alone >= own,
    )


def summarise_faithfulness(
    found: Sequence[Faithfulness], patients: Sequence[str], direction: Direction = "deletion", seed: int = 0
) -> FaithfulnessSummary:
    """Return what the curves of ``found`` (n,), all of one fill, say together; ``patients``: (n,).

    Raises:
        UsageError: no images, several fills, or not one patient for each image.
    """
    fills = {one.fill for one in found}
    if len(fills) != 1:
        raise UsageError(expected("curves of one fill", ", ".join(sorted(fills)) or "none", "summarise each fill"))
    if len(found) != len(patients):
        raise UsageError(expected(f"{len(found)} patients, one for each image", len(patients), "name all"))
    own = np.array([getattr(one, direction) for one in found], dtype=np.float64)
    chance = np.array([getattr(one, f"{direction}_random") for one in found], dtype=np.float64)
    groups = np.asarray(patients, dtype=np.str_)
    columns = {"aopc": own, "random": chance, "gain": own - chance}
    means = bootstrap(
        lambda weights: {name: weights @ values / weights.sum(axis=1) for name, values in columns.items()},
        Resampler(len(found), groups, seed=seed),
    )
    return FaithfulnessSummary(
        fill=found[0].fill,
        direction=direction,
        above_random=proportion(own > chance, groups),
        p=_p_of_patients(own - chance, groups),
        fill_raises=sum(one.fill_raises for one in found),
        **means,
    )


def _p_of_patients(differences: Floats, groups: NDArray[np.str_]) -> float | None:
    """One-sided Wilcoxon signed-rank test that the differences of patients are above 0; Wilcoxon 1945."""
    from scipy.stats import wilcoxon

    _, codes = np.unique(groups, return_inverse=True)
    means = np.bincount(codes, differences) / np.bincount(codes)
    if len(means) < _FEWEST_PATIENTS:
        return None
    if not means.any():
        return 1.0  # no difference at all, which the test does not define
    return float(wilcoxon(means, alternative="greater").pvalue)


def max_sensitivity(
    make: Callable[[Tensor], Tensor], batch: Tensor, *, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> Floats:
    """Return how far the map moves when the image hardly does, relative to the map: (N,), 0 is steady.

    The largest norm(make(x + d) - make(x)) / norm(make(x)) over ``samples`` draws of d, uniform in
    [-radius, radius] at each pixel (grey values in [0, 1]); what would leave [0, 1] is cut. ``make``: from images
    (N, 1, height, width) to maps (N, ...), best before any normalisation. NaN where the map is zero everywhere.
    Source: Yeh et al., NeurIPS 2019, definition 3.2.

    Raises:
        UsageError: a negative radius, or no samples.
    """
    if radius < 0 or samples < 1:
        raise UsageError(expected("a radius of 0 or more and a sample", f"{radius} and {samples}", "raise them"))
    generator = torch.Generator().manual_seed(seed)
    own = make(batch).flatten(1).double()
    worst = torch.zeros(len(batch), dtype=torch.float64)
    for _ in range(samples):
        moved = batch + radius * (2 * torch.rand(batch.shape, generator=generator) - 1)
        worst = torch.maximum(worst, (make(moved.clamp(0, 1)).flatten(1).double() - own).norm(dim=1))
    size = own.norm(dim=1)
    relative: Floats = torch.where(size > 0, worst / size, torch.nan).numpy()
    return relative


def infidelity(
    score: ScoreFunction, batch: Tensor, maps: Tensor, *, spread: float = 0.1, samples: int = 50, seed: int = 0
) -> Floats:
    """Return how badly each map predicts what noise does to the score: (N,), in squared log-odds, 0 is exact.

    The mean of (I . map - (f(x) - f(x - I)))^2 over ``samples`` draws of I, normal with standard deviation
    ``spread`` at each pixel. ``maps``: (N, height, width) at the input's resolution, in log-odds per grey value: a
    gradient; heat that was normalised, and class activation maps, promise no such thing.
    Source: Yeh et al., NeurIPS 2019, definition 2.1.

    Raises:
        UsageError: maps of another size than the images, or no samples.
    """
    if maps.shape != batch[:, 0].shape or samples < 1:
        raise UsageError(
            expected(f"maps of {tuple(batch[:, 0].shape)} and a sample", f"{tuple(maps.shape)}, {samples}", "mend it")
        )
    generator = torch.Generator().manual_seed(seed)
    own = score(batch).double()
    total = torch.zeros(len(batch), dtype=torch.float64)
    for _ in range(samples):
        noise = spread * torch.randn(batch.shape, generator=generator)
        promised = (noise[:, 0].double() * maps.double()).sum((1, 2))
        total += (promised - (own - score(batch - noise).double())) ** 2
    mean: Floats = (total / samples).numpy()
    return mean


def incompleteness(raw: NDArray[np.floating], score: float, baseline_score: float) -> float:
    """Return abs(sum of the map - (f(x) - f(x'))) in log-odds: how far a map is from adding up, 0 for exact ones.

    ``raw``: (h, w), signed, of a method that promises to add up. Source: Sundararajan et al., ICML 2017 (completeness).

    Raises:
        ExplanationFailed: a map that is not finite.
    """
    total = float(raw.sum(dtype=np.float64))
    if not np.isfinite(total):
        raise ExplanationFailed(expected("a finite map", "NaN or infinity", "check the weights of the reader"))
    return abs(total - (score - baseline_score))
