"""Explainers that need the gradient of the score with respect to the pixels.

Decided here: what a sign means. ``gradient-x-input``, ``integrated-gradients`` and ``gradient-shap`` multiply by
(pixel - baseline): positive where the *difference* from the baseline raised the score, be the pixel brighter or darker
than it. ``smoothgrad`` is a gradient alone: positive where a *brighter* pixel would raise the score. Maps have the
resolution of the input and are never smoothed here. Random numbers come from a generator of their own: the global state
of torch and numpy is left alone, and an image has the same map alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.explain.base import Options, RawMap
from wetread.explain.perturbation import BLUR_SHARE, FILLS, Compared, Fill, compare, filled
from wetread.explain.score import Score

__all__ = ["gradient_shap", "gradient_x_input", "gradients_of", "integrated_gradients", "smoothgrad"]

_PIXELS_AT_ONCE = 16 * 224 * 224
"""Pixels of the images in one backward pass: about 1 GB of activations for EfficientNet-lite0."""

_BACKWARD = 3
"""Forward passes that one gradient counts for: its own, and two for the way back."""

_NOISE_SHARE = 0.15
"""Noise of SmoothGrad as a share of the image's range; the article finds 10 to 20 % best."""

_NOISY_IMAGES = 25
"""Noisy copies of SmoothGrad; the article sees little change beyond 50."""

_LADDER = (20, 60, 200)
"""Steps of integrated gradients that are tried one after the other, until the map adds up."""

_WANTED_SHARE = 0.01
"""The error at which integrated gradients stop, as a share of the change of score."""

_DRAWS = 100
"""Draws of expected gradients: 20 along the path from each of the five baselines."""

_SHAP_NOISE_SHARE = 0.02
"""Noise of expected gradients as a share of the image's range: 5 % already moves the shipped reader by 0.7 logits."""

_BLUR_SHARES = (BLUR_SHARE / 2, BLUR_SHARE, BLUR_SHARE * 2)

_PIXELS = "One value for each pixel of the input, not smoothed: single pixels mean nothing, only where many agree."
_FIRST_ORDER = "First order only: it does not add up to the score, and is 0 where the score is saturated."
_BRIGHTER = "Positive where a brighter pixel would raise the score; it says nothing about dark signs, such as air."
_ROUGH_LOGITS = 1.0
"""A change of score by noise alone that is worth a word: the odds change by a factor of e."""

_OfOne = Callable[[Score, Tensor, Options], RawMap]


def gradients_of(score: Score, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the score of each image, (N, 1, h, w), and the scores (N,), log-odds.

    Raises:
        ExplanationFailed: the reader gives no gradients.
    """
    gradients, scores = [], []
    for part in images.split(max(1, _PIXELS_AT_ONCE // images[0].numel())):
        pixels = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            values = score.differentiable(pixels)
            if not values.requires_grad:
                got = f"{score.reader.card.architecture}, whose score does not follow the pixels"
                raise ExplanationFailed(expected("a network with gradients", got, "use --method occlusion or rise"))
            (gradient,) = torch.autograd.grad(values.sum(), pixels)
        gradients.append(gradient)
        scores.append(values.detach())
    return torch.cat(gradients), torch.cat(scores)


def gradient_x_input(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Gradient times (pixel - baseline) for (N, 1, h, w), the baseline black unless ``options.fill`` says otherwise.

    Exact for a linear network, where the map adds up to f(x) - f(baseline).

    Source: Shrikumar et al., arXiv 1605.01713.

    Raises:
        ExplanationFailed: the reader gives no gradients.
    """
    return _each(_gradient_x_input, score, batch, options)


def _gradient_x_input(score: Score, image: Tensor, options: Options) -> RawMap:
    fill: Fill = options.fill or "black"
    gradient, _ = gradients_of(score, image)
    return RawMap(
        _as_map(gradient * (image - filled(image, fill))),
        baseline=FILLS[fill],
        passes=_BACKWARD,
        limits=(_PIXELS, _FIRST_ORDER),
    )


def smoothgrad(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Mean gradient over noisy copies of each image of (N, 1, h, w); noise of 15 % of the image's range.

    ``options.samples`` copies (default 25). Signed, as the gradient is: positive where a brighter pixel would raise
    the score. ``details["noisy_score"]`` is the mean score of the copies: far from the image's own, the map is about
    noise.

    Source: Smilkov et al., arXiv 1706.03825.

    Raises:
        ExplanationFailed: the reader gives no gradients.
    """
    return _each(_smoothgrad, score, batch, options)


def _smoothgrad(score: Score, image: Tensor, options: Options) -> RawMap:
    count = options.samples or _NOISY_IMAGES
    generator = torch.Generator().manual_seed(options.seed)
    noise = torch.randn(count, *image.shape[1:], generator=generator) * (_NOISE_SHARE * _range(image))
    gradients, scores = gradients_of(score, image + noise)
    own, noisy = float(score(image)), float(scores.mean())
    return RawMap(
        _as_map(gradients.mean(0, keepdim=True)),
        passes=_BACKWARD * count + 1,
        limits=(_PIXELS, _BRIGHTER, *_roughness(own, noisy)),
        details={"score": own, "noisy_score": noisy},
    )


def _roughness(own: float, noisy: float) -> tuple[str, ...]:
    if abs(own - noisy) < _ROUGH_LOGITS:
        return ()
    return (f"The noise alone moves the score from {own:.1f} to {noisy:.1f}: the map is partly about noise.",)


def integrated_gradients(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Gradients along the straight path from a baseline to each image of (N, 1, h, w), times their difference.

    ``error`` is the distance of the map's sum from f(x) - f(baseline), log-odds. 20, 60 and 200 steps are tried until
    it is at most 1 % of that change; ``options.samples`` is the largest number in place of 200. ``limits`` says so
    where it was not reached. The baseline is the image blurred unless ``options.fill`` says otherwise.

    Source: Sundararajan et al., ICML 2017; Gauss-Legendre quadrature by captum.

    Raises:
        ExplanationFailed: the reader gives no gradients.
    """
    return _each(_integrated_gradients, score, batch, options)


def _integrated_gradients(score: Score, image: Tensor, options: Options) -> RawMap:
    from captum.attr import IntegratedGradients

    gradients_of(score, image)  # refuses a reader without gradients in words
    most = options.samples or _LADDER[-1]
    compared = compare(score, image, options)
    change = compared.score - compared.fill_score
    method = IntegratedGradients(score.differentiable)
    at_once = max(1, _PIXELS_AT_ONCE // image.numel())
    taken = 0
    for steps in (*(step for step in _LADDER if step < most), most):
        found = method.attribute(image, compared.fill, n_steps=steps, internal_batch_size=at_once)
        taken += steps
        error = abs(float(found.sum(dtype=torch.float64)) - change)
        if error <= _WANTED_SHARE * abs(change):
            break
    return RawMap(
        _as_map(found),
        error=error,
        baseline=compared.baseline,
        passes=_BACKWARD * (taken + 1) + Compared.passes,
        limits=(_PIXELS, *_adding_up(error, change, f"{steps} steps"), *compared.limits),
        details={**compared.details, "steps": float(steps)},
    )


def _adding_up(error: float, change: float, work: str) -> tuple[str, ...]:
    if error <= _WANTED_SHARE * abs(change):
        return ()
    return (f"Adds up to the change of score, {change:.2f}, only within {error:.2f} after {work}.",)


def gradient_shap(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Expected gradients over several baselines, places on the path and a little noise, for (N, 1, h, w).

    Baselines: the image blurred to three degrees, its mean grey and black, or those of ``options.fill`` alone.
    ``options.samples`` draws (default 100) are shared evenly among them, one at random in each stretch of the path.
    ``error``: distance of the map's sum from f(x) - mean f(baseline), log-odds; it includes what the noise does.

    Source: Lundberg and Lee, NeurIPS 2017; Erion et al., Nature Machine Intelligence 2021, eq. 2. Images of other
    patients, which the articles take as baselines, are not at hand where a reader is used.

    Raises:
        UsageError: fewer samples than baselines.
        ExplanationFailed: the reader gives no gradients.
    """
    return _each(_gradient_shap, score, batch, options)


def _gradient_shap(score: Score, image: Tensor, options: Options) -> RawMap:
    baselines = _baselines(image, options.fill)
    count = options.samples or _DRAWS
    if count < len(baselines):
        raise UsageError(expected(f"at least {len(baselines)} samples", count, "raise --samples"))
    each = count // len(baselines)
    generator = torch.Generator().manual_seed(options.seed)
    places = (torch.arange(each) + torch.rand(len(baselines), each, generator=generator)) / each
    starts = baselines.repeat_interleave(each, 0)  # (draws, 1, h, w)
    noise = torch.randn(starts.shape, generator=generator) * (_SHAP_NOISE_SHARE * _range(image))
    ends = image + noise
    gradients, _ = gradients_of(score, starts + places.reshape(-1, 1, 1, 1) * (ends - starts))
    found = (gradients * (ends - starts)).mean(0)
    own, *others = score(torch.cat([image, baselines])).tolist()
    change = own - float(np.mean(others))
    error = abs(float(found.sum(dtype=torch.float64)) - change)
    rises = () if change > 0 else (f"The baselines score higher than the image by {-change:.1f} on average.",)
    return RawMap(
        _as_map(found[None]),
        error=error,
        baseline=FILLS[options.fill] if options.fill else ", ".join(FILLS.values()),
        passes=_BACKWARD * len(starts) + 1 + len(baselines),
        limits=(_PIXELS, *_adding_up(error, change, f"{len(starts)} draws"), *rises),
        details={"score": own, "fill_score": own - change, "baselines": float(len(baselines))},
    )


def _baselines(image: Tensor, fill: Fill | None) -> Tensor:
    """The baselines of (1, 1, h, w) as (B, 1, h, w): five, or those of one fill."""
    fills: tuple[Fill, ...] = (fill,) if fill else tuple(FILLS)
    found = []
    for name in fills:
        shares = _BLUR_SHARES if name == "blur" else (BLUR_SHARE,)
        found += [filled(image, name, share) for share in shares]
    return torch.cat(found)


def _each(work: _OfOne, score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    """Work on one image at a time, as normal tensors even where the batch comes from inference mode."""
    with torch.inference_mode(False):
        return [work(score, one.clone()[None], options) for one in batch]


def _range(image: Tensor) -> float:
    return float(image.max() - image.min())


def _as_map(found: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Turn (1, 1, h, w) into float32 (h, w)."""
    return found[0, 0].detach().float().numpy()
