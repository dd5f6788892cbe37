"""One call for the worth of explanations: each image's figures, a set's summary, and which methods may be shown.

Decided here: figures of one image are facts about that image alone; whether a *method* deserves trust with a reader is
judged on a set, by the randomisation test, and stored in the reader's card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.errors import ExplanationFailed, UsageError, expected
from wetread.evaluation.intervals import proportion
from wetread.evaluation.overlap import summarise as summarise_means
from wetread.explain.base import Explanation, Method, Options, Target
from wetread.explain.cam import require_label
from wetread.explain.dispatch import explain_images
from wetread.explain.localisation import (
    Localisation,
    LocalisationSummary,
    localisation_of,
    summarise_localisation,
)
from wetread.explain.quality import (
    CurveSettings,
    Faithfulness,
    FaithfulnessSummary,
    faithfulness_of,
    max_sensitivity,
    summarise_faithfulness,
)
from wetread.explain.references import Reference
from wetread.explain.sanity import DestroyedCopies, SanitySettings, Verdict, map_maker
from wetread.explain.score import Score
from wetread.models.card import InputSpec
from wetread.models.guide import Window
from wetread.models.inputs import restore_map
from wetread.models.predict import Forward, Reader
from wetread.types import Estimate, Record

__all__ = [
    "AssessSettings",
    "ExplanationQuality",
    "MethodStatus",
    "QualitySummary",
    "assess",
    "method_status",
    "summarise",
]


@dataclass(frozen=True)
class AssessSettings:
    """What is measured. ``curves`` None and ``sensitivity_samples`` 0 leave those parts out.

    ``tolerance_px``: of the tolerant hit, in pixels of the mask. ``radius``: of the noise of the sensitivity, grey
    values in [0, 1].
    """

    curves: CurveSettings | None = field(default_factory=CurveSettings)
    sensitivity_samples: int = 5
    radius: float = 0.02
    tolerance_px: float = 0.0


class ExplanationQuality(Record):
    """The worth of one explanation of one image.

    ``reason``: why no map could be made, empty where one was; then all measurements are empty too. ``truth``: whether
    the place of the finding was known; ``localisation``: None without it. ``sensitivity``: as
    :func:`~wetread.explain.quality.max_sensitivity`. ``error``: how far the map is from adding up (log-odds), None for
    methods that make no such promise. ``passes``: forward passes that the map itself cost.
    """

    label: str
    method: str
    reason: str = ""
    truth: bool = False
    localisation: Localisation | None = None
    faithfulness: tuple[Faithfulness, ...] = ()
    sensitivity: float | None = None
    error: float | None = None
    passes: int = 0


class QualitySummary(Record):
    """The figures of a set, each with its n and interval; None or empty where nothing was measured."""

    label: str
    method: str
    n: int
    made: Estimate
    localisation: LocalisationSummary | None
    faithfulness: tuple[FaithfulnessSummary, ...]
    sensitivity: Estimate | None
    error: Estimate | None


class MethodStatus(Record):
    """Whether maps of a method may be shown for a reader: verdict, the sentence that says why, images behind it."""

    verdict: Verdict
    sentence: str
    n: int


def assess(
    reader: Reader,
    batch: Tensor,
    target: Target,
    masks: Sequence[NDArray[np.bool_] | None] | None = None,
    *,
    windows: Sequence[Window | None] | None = None,
    options: Options | None = None,
    settings: AssessSettings | None = None,
) -> list[ExplanationQuality]:
    """Explain ``target`` for each image of ``batch`` and measure what each map is worth.

    ``batch``: (N, 1, height, width) in [0, 1], as ``reader.prepare`` gives it. ``masks``: bool (rows, columns) of the
    finding in the original image, None where its place is unknown. ``windows``: as in ``explain_batch``.

    Raises:
        UsageError: unknown label or layer, or not one mask for each image.
        ExplanationFailed: this reader allows no such map for any image.
    """
    known = list(masks) if masks is not None else [None] * len(batch)
    if len(known) != len(batch):
        raise UsageError(expected(f"{len(batch)} masks, one for each image", len(known), "give None where unknown"))
    require_label(reader, target.label)
    asked = settings or AssessSettings()
    forward = reader.forward(batch)
    sizes = [(reader.input.height, reader.input.width) if one is None else one.shape for one in known]
    explained = explain_images(reader, forward, target, sizes, batch, windows, options)
    steady = _sensitivities(reader, batch, target, options, asked)
    called = _called(reader, forward, target.label)
    return [
        _one(reader, batch[i : i + 1], target, explained[i], (known[i], called[i], steady[i]), asked)
        for i in range(len(batch))
    ]


def _one(
    reader: Reader,
    image: Tensor,
    target: Target,
    made: Explanation | ExplanationFailed,
    facts: tuple[NDArray[np.bool_] | None, bool, float | None],
    settings: AssessSettings,
) -> ExplanationQuality:
    """Measure one explanation; ``facts``: mask, whether the reader calls the finding, sensitivity."""
    mask, called, steady = facts
    truth = mask is not None
    if isinstance(made, ExplanationFailed):
        return ExplanationQuality(label=target.label, method=target.method, reason=str(made), truth=truth)
    located = None
    if mask is not None:
        located = localisation_of(made.heat, mask, tolerance_px=settings.tolerance_px, called=called)
    curves: tuple[Faithfulness, ...] = ()
    if settings.curves is not None:
        height, width = reader.input.height, reader.input.width
        whole = restore_map(made.map, InputSpec(height=height, width=width, fit="stretch"), height, width)
        curves = faithfulness_of(Score(reader, target.label), image, whole, settings.curves)
    return ExplanationQuality(
        label=target.label,
        method=target.method,
        truth=truth,
        localisation=located,
        faithfulness=curves,
        sensitivity=steady,
        error=made.error,
        passes=made.passes,
    )


def _called(reader: Reader, forward: Forward, label: str) -> list[bool]:
    """Whether each image is positive at the reader's default operating point; always, where it has none."""
    point = reader.card.operating_point(label)
    if point is None:
        return [True] * len(forward.logits)
    return list(reader.probabilities(forward)[:, reader.labels.index(label)] >= point.threshold)


def _sensitivities(
    reader: Reader, batch: Tensor, target: Target, options: Options | None, settings: AssessSettings
) -> list[float | None]:
    """Sensitivity of each map; None where not asked for or without a map. A map that noise undoes counts as zero."""
    if not settings.sensitivity_samples:
        return [None] * len(batch)
    make = map_maker(target.method, target.label, options, target.layer)
    found = max_sensitivity(
        lambda images: torch.from_numpy(np.stack(make(reader, images))),
        batch,
        radius=settings.radius,
        samples=settings.sensitivity_samples,
    )
    return [float(one) if np.isfinite(one) else None for one in found]


def summarise(found: Sequence[ExplanationQuality], patients: Sequence[str], seed: int = 0) -> QualitySummary:
    """Return the figures of a set with 95 % intervals over ``patients`` (n,).

    Raises:
        UsageError: no images, several labels or methods, or not one patient for each image.
    """
    kinds = {(one.label, one.method) for one in found}
    if len(kinds) != 1:
        raise UsageError(expected("images explained for one label by one method", len(kinds), "summarise each apart"))
    if len(found) != len(patients):
        raise UsageError(expected(f"{len(found)} patients, one for each image", len(patients), "name all"))
    made = [not one.reason for one in found]
    return QualitySummary(
        label=found[0].label,
        method=found[0].method,
        n=len(found),
        made=proportion(made, np.asarray(patients, dtype=np.str_)),
        localisation=_localisation(found, patients, seed),
        faithfulness=_faithfulness(found, patients, seed),
        sensitivity=_mean([one.sensitivity for one in found], patients, seed),
        error=_mean([one.error for one in found], patients, seed),
    )


def _mean(values: Sequence[float | None], patients: Sequence[str], seed: int) -> Estimate | None:
    return None if all(one is None for one in values) else summarise_means(values, patients, seed)


def _localisation(
    found: Sequence[ExplanationQuality], patients: Sequence[str], seed: int
) -> LocalisationSummary | None:
    """Over all images where the place is known; without a map it was not found."""
    known = [(one.localisation, who) for one, who in zip(found, patients, strict=True) if one.truth]
    return summarise_localisation([one for one, _ in known], [who for _, who in known], seed) if known else None


def _faithfulness(
    found: Sequence[ExplanationQuality], patients: Sequence[str], seed: int
) -> tuple[FaithfulnessSummary, ...]:
    by_fill: dict[str, list[tuple[Faithfulness, str]]] = {}
    for one, who in zip(found, patients, strict=True):
        for curve in one.faithfulness:
            by_fill.setdefault(curve.fill, []).append((curve, who))
    return tuple(
        summarise_faithfulness([curve for curve, _ in pairs], [who for _, who in pairs], direction, seed)
        for pairs in by_fill.values()
        for direction in ("deletion", "insertion")
    )


def method_status(
    reader: Reader,
    batch: Tensor,
    methods: Sequence[Method | Reference],
    label: str | None = None,
    *,
    options: Options | None = None,
    settings: SanitySettings | None = None,
    patients: Sequence[str] | None = None,
) -> dict[str, MethodStatus]:
    """Judge each method with this reader by the randomisation test, for its card.

    ``batch``: (N, 1, height, width) in [0, 1], at least 20 images of which the reader says ``label`` (None: its
    first). A method that this reader does not allow is not assessable, with the reason.

    Raises:
        UsageError: unknown label or method.
    """
    name = label or reader.labels[0]
    require_label(reader, name)
    status: dict[str, MethodStatus] = {}
    copies = DestroyedCopies(reader, batch, settings)
    for method in methods:
        make = map_maker(method, name, options)
        try:
            result = copies.check(method, make, name, patients)
        except ExplanationFailed as failure:
            status[method] = MethodStatus(verdict="not assessable", sentence=str(failure), n=0)
        else:
            status[method] = MethodStatus(verdict=result.verdict, sentence=result.sentence, n=result.n)
    return status
