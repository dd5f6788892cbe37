"""Explainers that hide parts of the image and watch the score: occlusion and RISE; they need no gradients.

Decided here: what takes the place of hidden pixels (the blurred image unless asked otherwise), and that the score of
the wholly filled image is looked at first: where filling does not lower the score, a fall cannot show evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.explain.base import Options, RawMap
from wetread.explain.score import Score

__all__ = ["FILLS", "Compared", "Fill", "compare", "filled", "occlusion", "rise"]

Fill = Literal["blur", "mean", "black"]

FILLS: Mapping[Fill, str] = {"blur": "the image blurred", "mean": "its mean grey", "black": "black"}
"""What hidden pixels become, in words."""

BLUR_SHARE = 1 / 16
"""Standard deviation of the blur as a share of the shorter side: 14 pixels at 224 leave the outlines of organs."""

_WINDOWS = 8
"""Occlusion windows along one side: small enough for one lung zone, large enough to hide a consolidation."""

_MASKS = 800
"""Random masks of RISE: a standard error of about a tenth of the maximum on the shipped reader."""

_GRID = 7
"""Cells along one side of a RISE mask before it is enlarged (Petsiuk et al. 2018)."""

_SHOWN = 0.5
"""Probability that a cell of a RISE mask is shown (Petsiuk et al. 2018)."""

_AT_ONCE = 32
"""Changed images held at once."""

_NOISY = 0.2
"""A standard error above this share of the map's maximum is said to be too large."""


def filled(image: Tensor, fill: Fill, blur_share: float = BLUR_SHARE) -> Tensor:
    """Return what takes the place of hidden pixels of (1, 1, h, w), float32 in [0, 1], same shape.

    ``blur_share``: standard deviation of the Gaussian as a share of the shorter side.

    Raises:
        UsageError: an unknown fill.
    """
    if fill == "black":
        return torch.zeros_like(image)
    if fill == "mean":
        return image.mean().expand_as(image).clone()
    if fill != "blur":
        raise UsageError(expected(f"one of {', '.join(FILLS)}", repr(fill), "set --fill to one of them"))
    from scipy.ndimage import gaussian_filter

    sigma = min(image.shape[2:]) * blur_share
    return torch.from_numpy(gaussian_filter(image[0, 0].numpy(), sigma, mode="nearest"))[None, None]


@dataclass(frozen=True)
class Compared:
    """An image (1, 1, h, w) beside its filled version, with the score (log-odds) of both and of every fill.

    ``limits`` says so where filling does not lower the score.
    """

    fill: Tensor
    name: Fill
    score: float
    scores: Mapping[Fill, float]

    passes = 1 + len(FILLS)
    """Forward passes that the comparison took."""

    @property
    def fill_score(self) -> float:
        """Score of the wholly filled image."""
        return self.scores[self.name]

    @property
    def baseline(self) -> str:
        """What the image is compared with, in words."""
        return FILLS[self.name]

    @property
    def details(self) -> dict[str, float]:
        """The two scores by name."""
        return {"score": self.score, "fill_score": self.fill_score}

    @property
    def limits(self) -> tuple[str, ...]:
        """A sentence where the filled image scores as high as the image, so that signs mean little."""
        if self.fill_score < self.score:
            return ()
        best = min(self.scores, key=lambda name: self.scores[name])
        other = f"--fill {best} gives {self.scores[best]:.1f}" if self.scores[best] < self.score else "no fill does"
        return (
            f"Replacing all of the image ({self.baseline}) does not lower the score ({self.score:.1f} to "
            f"{self.fill_score:.1f}; {other}): what the map shows need not be evidence.",
        )


def compare(score: Score, image: Tensor, options: Options) -> Compared:
    """Score (1, 1, h, w) and all its filled versions; the one asked for (default: blur) is the baseline."""
    name: Fill = options.fill or "blur"
    images = {fill: filled(image, fill) for fill in FILLS}
    own, *others = score(torch.cat([image, *images.values()])).tolist()
    return Compared(filled(image, name), name, own, dict(zip(images, others, strict=True)))


def occlusion(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Slide a window over each image and note how far the score falls when it is filled; (h, w) maps.

    A cell is the mean fall, f(x) - f(x without the window), over the windows that cover it: log-odds, positive where
    the window's content raised the score. The window is an eighth of each side, moved by half of itself;
    ``options.samples`` bounds the number of windows and so sets their size.

    Source: Zeiler and Fergus, ECCV 2014; the mean over windows is that of captum's ``Occlusion``.

    Raises:
        UsageError: fewer than 9 samples, which leave no window to move.
    """
    from captum.attr import Occlusion

    along = _windows_along(options.samples)
    found: list[RawMap | ExplanationFailed] = []
    with torch.inference_mode(False):
        for one in batch:
            image = one.clone()[None]
            window = (1, *(max(1, round(side / along)) for side in image.shape[2:]))
            stride = (1, *(max(1, side // 2) for side in window[1:]))
            compared = compare(score, image, options)
            counted = _Counted(score)
            drops = Occlusion(counted).attribute(
                image, window, stride, baselines=compared.fill, perturbations_per_eval=_AT_ONCE
            )
            found.append(
                RawMap(
                    drops[0, 0].float().numpy(),
                    baseline=compared.baseline,
                    passes=counted.passes + Compared.passes,
                    limits=(f"One window is {window[1]} x {window[2]} pixels: nothing finer.", *compared.limits),
                    details=compared.details,
                )
            )
    return found


def _windows_along(samples: int | None) -> int:
    """Windows that fit along one side without overlap, so that (2 k - 1)^2 overlapping ones are within ``samples``."""
    if samples is None:
        return _WINDOWS
    along = (int(samples**0.5) + 1) // 2
    if along < 2:
        raise UsageError(expected("at least 9 samples for occlusion", samples, "raise --samples"))
    return along


class _Counted:
    """A score that counts the images it was asked about."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.passes = 0

    def __call__(self, batch: Tensor) -> Tensor:
        self.passes += len(batch)
        return self.score(batch)


def rise(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Score each image under random masks: a cell is the mean score where it is shown, less the mean of all; (h, w).

    Log-odds, positive where showing the pixel raised the score. ``options.samples`` masks (default 800), the same for
    all images. ``details["monte_carlo_error"]`` is the standard error of a pixel (root mean square over the map), from
    the difference of the maps of two halves of the masks.

    Source: Petsiuk et al., BMVC 2018, eq. 6, with two changes: the sum of weights that a pixel really had takes the
    place of its expectation, and the mean score is taken off, because log-odds, unlike the article's probabilities,
    have a sign. Hidden pixels are filled (default: blur) where the article has black.

    Raises:
        UsageError: fewer than 2 samples.
    """
    count = options.samples or _MASKS
    if count < 2:
        raise UsageError(expected("at least 2 samples for rise", count, "raise --samples"))
    draws = _Draws.of(count, options.seed)
    with torch.inference_mode(False):
        return [_rise_of_one(score, one.clone()[None], draws, options) for one in batch]


def _rise_of_one(score: Score, image: Tensor, draws: _Draws, options: Options) -> RawMap | ExplanationFailed:
    compared = compare(score, image, options)
    size = (int(image.shape[2]), int(image.shape[3]))
    weighted, weights = torch.zeros(2, *size), torch.zeros(2, *size)  # one for each half of the masks
    total = torch.zeros(2)
    for start in range(0, draws.count, _AT_ONCE):
        masks = draws.masks(slice(start, start + _AT_ONCE), size)  # (n, h, w)
        shown = compared.fill + masks[:, None] * (image - compared.fill)
        scores = score(shown)
        for half in range(2):
            of_half = slice(half, None, 2)  # chunks begin at even numbers
            weighted[half] += torch.einsum("n,nhw->hw", scores[of_half], masks[of_half])
            weights[half] += masks[of_half].sum(0)
            total[half] += scores[of_half].sum()
    if bool((weights <= 0).any()):
        return ExplanationFailed(
            expected("masks that show every pixel", f"{draws.count} that do not", "raise --samples")
        )
    sizes = torch.tensor([(draws.count + 1) // 2, draws.count // 2])
    halves = weighted / weights - (total / sizes)[:, None, None]
    found = weighted.sum(0) / weights.sum(0) - total.sum() / draws.count
    error = float((halves[0] - halves[1]).square().mean().sqrt() / 2)
    return RawMap(
        found.numpy().astype(np.float32),
        baseline=compared.baseline,
        passes=draws.count + Compared.passes,
        limits=(_monte_carlo(draws.count, error, float(found.max())), *compared.limits),
        details={**compared.details, "monte_carlo_error": error},
    )


def _monte_carlo(count: int, error: float, highest: float) -> str:
    said = f"From {count} random masks: standard error {error:.2g}, maximum {highest:.2g}"
    return f"{said}; too noisy, raise --samples." if error > _NOISY * abs(highest) else f"{said}."


@dataclass(frozen=True)
class _Draws:
    """The random numbers of RISE masks, drawn once: ``grids`` (N, 1, 7, 7) of 0 and 1, ``shifts`` (N, 2) in [0, 1)."""

    grids: Tensor
    shifts: Tensor

    @classmethod
    def of(cls, count: int, seed: int) -> _Draws:
        generator = torch.Generator().manual_seed(seed)
        grids = (torch.rand(count, 1, _GRID, _GRID, generator=generator) < _SHOWN).float()
        return cls(grids, torch.rand(count, 2, generator=generator))

    @property
    def count(self) -> int:
        return len(self.grids)

    def masks(self, part: slice, size: tuple[int, int]) -> Tensor:
        """The masks of ``part`` at ``size`` (rows, columns): float32 (n, rows, columns) in [0, 1].

        A grid is enlarged bilinearly to one cell more than the image, and a window of the image's size is cut from it.
        """
        cells = [-(-side // _GRID) for side in size]
        large = F.interpolate(
            self.grids[part], [cell * (_GRID + 1) for cell in cells], mode="bilinear", align_corners=False
        )
        offsets = (self.shifts[part] * torch.tensor(cells)).long().tolist()
        cut = [one[0, y : y + size[0], x : x + size[1]] for one, (y, x) in zip(large, offsets, strict=True)]
        return torch.stack(cut)
