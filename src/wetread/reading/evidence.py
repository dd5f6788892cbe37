"""Heat maps and boxes for the labels of an image, from the forward pass that gave the probabilities.

Decided here: the labels explained are the positive ones, else the most probable one; a map that
cannot be made is recorded in the evidence with its reason, never left out silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wetread.errors import ExplanationFailed
from wetread.types import Evidence, LabelReading

if TYPE_CHECKING:
    from torch import Tensor

    from wetread.explain.base import Explanation, Method, Target
    from wetread.models.guide import Window
    from wetread.models.predict import Forward, Reader

__all__ = ["Computed", "Found", "find_evidence", "labels_to_explain"]

HIDDEN = "hidden, because maps of this method do not depend on what this reader learned (audit, T7)"

HEAT_SIDE_PX = 512
"""Long side of a heat map picture: a map has 7 x 7 cells, and a page scales it to the film."""


@dataclass(frozen=True, slots=True)
class Computed:
    """An image as its network saw it (1, 1, H, W), that forward pass, its (rows, columns) and what was shown of it."""

    batch: Tensor
    forward: Forward
    size: tuple[int, int]
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Evidence of one image by label, and its pictures (RGBA PNG) where asked for."""

    evidence: dict[str, Evidence] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def missing(self, readings: Sequence[LabelReading]) -> tuple[str, ...]:
        """One sentence for each positive label without a map; for a negative one the status is enough."""
        positive = {reading.label for reading in readings if reading.decision == "positive"}
        return tuple(
            f"No heat map for {label}: {one.status}"
            for label, one in self.evidence.items()
            if one.status != "made" and label in positive
        )


def labels_to_explain(readings: Sequence[LabelReading]) -> tuple[str, ...]:
    """Return the positive labels, else the most probable one; nothing for a gated image."""
    answered = [reading for reading in readings if reading.probability is not None]
    positive = tuple(reading.label for reading in answered if reading.decision == "positive")
    if positive or not answered:
        return positive
    return (max(answered, key=lambda reading: reading.probability or 0.0).label,)


def find_evidence(reader: Reader, computed: Computed, labels: Sequence[str], method: Method, pictures: bool) -> Found:
    """Explain an image for each of ``labels``; with ``pictures`` heat maps come as PNG too."""
    from wetread.explain.base import Target
    from wetread.explain.localise import boxes_of
    from wetread.explain.overlay import heat_png

    found = Found()
    for label in labels:
        if reader.card.heat_maps.get(method) == "fails":
            found.evidence[label] = Evidence(method=method, target=label, layer="", status=HIDDEN)
            continue
        result = _map(reader, computed, Target(label, method))
        if isinstance(result, ExplanationFailed):
            found.evidence[label] = Evidence(method=method, target=label, layer="", status=str(result))
            continue
        found.evidence[label] = result.evidence(boxes=boxes_of(result))
        if pictures:
            found.pictures[label] = heat_png(result, HEAT_SIDE_PX)
    return found


def _map(reader: Reader, computed: Computed, target: Target) -> Explanation | ExplanationFailed:
    from wetread.explain.dispatch import explain_images

    try:
        (made,) = explain_images(reader, computed.forward, target, [computed.size], computed.batch, [computed.window])
    except ExplanationFailed as failure:
        return failure
    return made
