"""The contract of all explainers: what is asked, what a method hands over, and what makes a map refusable.

A map that says nothing (not finite, constant, no evidence for the label, all of it in the
padding) raises :class:`~wetread.errors.ExplanationFailed` with the reason; it is never drawn blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.models.card import InputSpec
from wetread.models.guide import Window
from wetread.models.inputs import placement, restore_map
from wetread.types import Box, Evidence

__all__ = ["CAM_METHODS", "METHODS", "Explanation", "Method", "Options", "RawMap", "Target", "fitted_size", "made"]

CamMethod = Literal["cam", "gradcam", "gradcam++", "hirescam"]
Method = Literal[
    CamMethod,
    "gradient-x-input",
    "smoothgrad",
    "integrated-gradients",
    "gradient-shap",
    "occlusion",
    "rise",
    "lime",
]
CAM_METHODS: tuple[Method, ...] = get_args(CamMethod)
METHODS: tuple[Method, ...] = get_args(Method)

_FLAT = 1e-6
"""A map whose range is below this share of its largest magnitude shows rounding, not places."""

_VISIBLE = 0.02
"""Heat inside the image below this share of the map's maximum could not be seen in any overlay."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to explain: the logit of ``label``, by ``method``, at ``layer`` (None: the usual one)."""

    label: str
    method: Method = "gradcam"
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(expected(f"one of {', '.join(METHODS)}", repr(self.method), "set --method to one of them"))


@dataclass(frozen=True, slots=True)
class Options:
    """How much work a method may do, and from which seed.

    ``samples``: perturbed or noisy images for each map, None for what the method needs by default. ``fill``: what
    takes the place of hidden pixels: ``blur``, ``mean`` (grey of the image) or ``black``; None for the method's own.
    ``accept_weak``: hand over maps that a method would refuse because they describe the reader badly, with a warning.
    """

    seed: int = 0
    samples: int | None = None
    fill: Literal["blur", "mean", "black"] | None = None
    accept_weak: bool = False


@dataclass(frozen=True, eq=False)
class RawMap:
    """What a method made of one image, before it is checked.

    ``map``: float32 (h, w), signed, positive where the score was raised. ``error``: how far the map is from adding up
    to what it promises (logit units), None without a promise. ``baseline``: what the image was compared with, in
    words; empty where with nothing. ``passes``: forward passes that it cost, a backward pass counted as two.
    ``details``: figures of the method by name, such as the out-of-sample R2 of LIME. ``layer``: where it was made.
    """

    map: NDArray[np.float32]
    error: float | None = None
    baseline: str = ""
    passes: int = 1
    limits: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)
    layer: str = "input"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence for one label lay in one image.

    ``map``: float32 (h, w), the raw map at the resolution of ``layer``, signed: positive raised
    the logit. ``scale``: its maximum, > 0, so that magnitude is not lost when ``heat`` is
    normalised. ``size``: (rows, columns) of the original image. ``error``: how far the map is
    from adding up to the logit (logit units), None where the method makes no such promise.
    ``limits``: sentences to show wherever the map is shown. ``window``: the part of the image that the network saw;
    None for all of it. ``baseline``, ``passes`` and ``details`` as in :class:`RawMap`.
    """

    map: NDArray[np.float32]
    method: Method
    label: str
    layer: str
    size: tuple[int, int]
    input: InputSpec
    scale: float
    error: float | None = None
    limits: tuple[str, ...] = ()
    window: Window | None = None
    baseline: str = ""
    passes: int = 1
    details: Mapping[str, float] = field(default_factory=dict)

    def seen_through(self, window: Window | None, size: tuple[int, int]) -> Explanation:
        """The map of a part that was cut out of an image of ``size`` (rows, columns), put in its place; None: whole."""
        return self if window is None else replace(self, window=window, size=size)

    @cached_property
    def heat(self) -> NDArray[np.float32]:
        """Positive evidence over the original image: float32 (rows, columns) in [0, 1]."""
        return self.heat_at(max(self.size))

    def heat_at(self, longest: int) -> NDArray[np.float32]:
        """Return :attr:`heat` with the longer side at most ``longest`` pixels."""
        rows, columns = fitted_size(self.size, longest)
        positive = np.maximum(self.map / self.scale, 0).astype(np.float32)
        if self.window is None:
            return np.clip(restore_map(positive, self.input, rows, columns), 0, 1)
        (top, bottom), (left, right) = (
            _scaled(self.window[axis], self.window[axis + 2], whole / self.size[axis], whole)
            for axis, whole in enumerate((rows, columns))
        )
        heat = np.zeros((rows, columns), dtype=np.float32)
        heat[top:bottom, left:right] = restore_map(positive, self.input, bottom - top, right - left)
        return np.clip(heat, 0, 1)

    def evidence(self, heatmap: str | None = None, boxes: tuple[Box, ...] = ()) -> Evidence:
        """Return the record that a read carries; ``heatmap`` is the path of the PNG."""
        return Evidence(
            method=self.method, target=self.label, layer=self.layer, heatmap=heatmap, boxes=boxes, limits=self.limits
        )


def fitted_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return (rows, columns) scaled down so that the longer side is at most ``longest``."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _scaled(first: int, length: int, scale: float, most: int) -> tuple[int, int]:
    """Scale a range of pixels; at least one is left of it."""
    begin = min(round(first * scale), most - 1)
    return begin, max(begin + 1, min(round((first + length) * scale), most))


def _refuse(target: Target, got: str, cure: str) -> ExplanationFailed:
    return ExplanationFailed(expected(f"a {target.method} map for {target.label!r}", got, cure))


def _share_outside(raw: NDArray[np.float32], spec: InputSpec, size: tuple[int, int]) -> float:
    """Share (0-1) of the positive evidence that lies in the padding around the image."""
    if spec.fit != "pad":
        return 0.0
    top, left, height, width = placement(size[0], size[1], spec)
    whole = InputSpec(height=spec.height, width=spec.width, fit="stretch")
    full = restore_map(np.maximum(raw, 0), whole, spec.height, spec.width)
    inside = full[top : top + height, left : left + width].sum(dtype=np.float64)
    return float(1 - inside / full.sum(dtype=np.float64))


def made(raw: RawMap, target: Target, size: tuple[int, int], spec: InputSpec) -> Explanation:
    """Check a raw map of an image of ``size`` (rows, columns) and make it an :class:`Explanation`.

    Raises:
        ExplanationFailed: the map shows no place; the message says why.
    """
    values, layer = raw.map, raw.layer
    if not np.isfinite(values).all():
        raise _refuse(target, "values that are not finite", "check the weights of the reader")
    low, high = float(values.min()), float(values.max())
    magnitude = max(abs(low), abs(high))
    if magnitude == 0:
        raise _refuse(target, "zero everywhere", f"{layer} has no influence on this score; choose another --layer")
    if high - low <= _FLAT * magnitude:
        raise _refuse(target, f"the same value in all {values.size} cells", "use a larger input or an earlier --layer")
    if high <= 0:
        raise _refuse(target, "no place that speaks for it", "read the score as evidence against it")
    outside = _share_outside(values, spec, size)
    explanation = Explanation(
        values,
        target.method,
        target.label,
        layer,
        size,
        spec,
        high,
        raw.error,
        raw.limits,
        baseline=raw.baseline,
        passes=raw.passes,
        details=raw.details,
    )
    if explanation.heat_at(64).max() < _VISIBLE:
        raise _refuse(target, "evidence outside the part of the image that is shown", "train with --fit stretch")
    if outside >= 0.05:
        note = f"{outside:.0%} of the evidence lies in the padding, outside the image."
        explanation = replace(explanation, limits=(*raw.limits, note))
    return explanation
