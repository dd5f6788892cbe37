"""One call for every method: the class activation maps from the reader's own pass, all others from its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.explain import gradients, perturbation
from wetread.explain.base import CAM_METHODS, Explanation, Method, Options, RawMap, Target, made
from wetread.explain.cam import explain_batch, require_label
from wetread.explain.score import Score
from wetread.models.guide import Window
from wetread.models.predict import Forward, Reader

__all__ = ["GRADIENT_METHODS", "Maker", "check_target", "explain_images", "maker_of"]

Maker = Callable[[Score, Tensor, Options], list[RawMap | ExplanationFailed]]
"""Makes one raw map, or gives one reason, for each image of (N, 1, height, width) in [0, 1]."""

GRADIENT_METHODS: tuple[Method, ...] = ("gradient-x-input", "smoothgrad", "integrated-gradients", "gradient-shap")
"""Methods that need the gradient of the score with respect to the pixels."""

_RANDOM = "The audit found that maps of this method do not depend on what this reader learned (T7)."
_PLACE = "Shows where the score came from, not where disease is."


def _lime(score: Score, batch: Tensor, options: Options) -> list[RawMap | ExplanationFailed]:
    from wetread.explain.lime import lime  # scikit-image takes a second to import

    return lime(score, batch, options)


_MAKERS: dict[Method, Maker] = {
    "gradient-x-input": gradients.gradient_x_input,
    "smoothgrad": gradients.smoothgrad,
    "integrated-gradients": gradients.integrated_gradients,
    "gradient-shap": gradients.gradient_shap,
    "occlusion": perturbation.occlusion,
    "rise": perturbation.rise,
    "lime": _lime,
}


def maker_of(method: Method) -> Maker:
    """Return what makes the raw maps of a method that works on the score alone.

    Raises:
        UsageError: the method is a class activation map, which needs the reader's forward pass.
    """
    if method not in _MAKERS:
        raise UsageError(expected(f"one of {', '.join(_MAKERS)}", method, "call explain_images"))
    return _MAKERS[method]


def check_target(reader: Reader, target: Target, probe: Tensor) -> None:
    """Refuse a target that ``reader`` allows for no image, at the price of a pass of ``probe`` (1, 1, h, w) or less.

    A class activation map is made of the probe; of the others only what they need is looked at: gradients, or nothing.

    Raises:
        UsageError: unknown label or layer, or a layer for a method that has none.
        ExplanationFailed: the reader allows no such map.
    """
    size = (int(probe.shape[2]), int(probe.shape[3]))
    if target.method in CAM_METHODS:
        explain_batch(reader, reader.forward(probe), target, [size], probe)
        return
    _require_no_layer(reader, target)
    if target.method in GRADIENT_METHODS:
        gradients.gradients_of(Score(reader, target.label), probe)


def explain_images(
    reader: Reader,
    forward: Forward,
    target: Target,
    sizes: Sequence[tuple[int, int]],
    batch: Tensor,
    windows: Sequence[Window | None] | None = None,
    options: Options | None = None,
) -> list[Explanation | ExplanationFailed]:
    """Explain ``target`` by any method for all N images; one map or one reason for each.

    Arguments as those of :func:`~wetread.explain.cam.explain_batch`; ``options`` bound the work of the methods that
    run the network again.

    Raises:
        UsageError: unknown label or layer, or a layer for a method that has none.
        ExplanationFailed: this reader allows no such map for any image.
    """
    if target.method in CAM_METHODS:
        maps = explain_batch(reader, forward, target, sizes, batch, windows)
        return [_warned(one, reader) for one in maps]
    _require_no_layer(reader, target)
    raws = maker_of(target.method)(Score(reader, target.label), batch, options or Options())
    found: list[Explanation | ExplanationFailed] = []
    for raw, size, window in zip(raws, sizes, windows or [None] * len(sizes), strict=True):
        found.append(raw if isinstance(raw, ExplanationFailed) else _checked(raw, target, size, window, reader))
    return [_warned(one, reader) for one in found]


def _require_no_layer(reader: Reader, target: Target) -> None:
    require_label(reader, target.label)
    if target.layer is not None:
        raise UsageError(
            expected(f"no --layer for {target.method}", target.layer, "leave it out, or choose a class activation map")
        )


def _warned(found: Explanation | ExplanationFailed, reader: Reader) -> Explanation | ExplanationFailed:
    """Say of a map that the audit found its method not to depend on what this reader learned."""
    if isinstance(found, ExplanationFailed) or reader.card.heat_maps.get(found.method) != "fails":
        return found
    return replace(found, limits=(_RANDOM, *found.limits))


def _checked(
    raw: RawMap, target: Target, size: tuple[int, int], window: Window | None, reader: Reader
) -> Explanation | ExplanationFailed:
    told = RawMap(raw.map, raw.error, raw.baseline, raw.passes, (_PLACE, *raw.limits), raw.details, raw.layer)
    try:
        return made(told, target, window[2:] if window else size, reader.input).seen_through(window, size)
    except ExplanationFailed as failure:
        return failure
