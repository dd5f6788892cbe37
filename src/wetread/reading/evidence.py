"""Heat maps and boxes for the labels of a batch, from the forward pass that gave the probabilities.

Decided here: the labels explained are the positive ones, else the most probable one; a map that
cannot be made is recorded in the evidence with its reason, never left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wetread.errors import ExplanationFailed
from wetread.types import Evidence, LabelReading

if TYPE_CHECKING:
    from torch import Tensor

    from wetread.explain.base import Explanation, Target
    from wetread.models.guide import Window
    from wetread.models.predict import Forward, Reader

__all__ = ["Computed", "Found", "find_evidence", "labels_to_explain"]

HIDDEN = "hidden, because maps of this method do not depend on what this reader learned (audit, T7)"

HEAT_SIDE_PX = 512
"""Long side of a heat map picture: a map has 7 x 7 cells, and a page scales it to the film."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch (N, 1, H, W), its forward pass, the original (rows, columns) of each image and what was shown of it."""

    batch: Tensor
    forward: Forward
    sizes: Sequence[tuple[int, int]]
    windows: Sequence[Window | None]


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


def find_evidence(
    reader: Reader,
    computed: Computed,
    wanted: Mapping[str, Sequence[int]],
    target_of: Mapping[str, Target],
    pictures: bool,
) -> list[Found]:
    """Explain label by label; ``wanted``: label -> indices of the images to explain for it."""
    from wetread.explain.localise import boxes_of
    from wetread.explain.overlay import heat_png

    found = [Found() for _ in computed.sizes]
    for label, indices in wanted.items():
        if reader.card.heat_maps.get(target_of[label].method) == "fails":
            hidden = Evidence(method=target_of[label].method, target=label, layer="", status=HIDDEN)
            for i in indices:
                found[i].evidence[label] = hidden
            continue
        maps = _maps(reader, computed, target_of[label], indices)
        for i, result in zip(indices, maps, strict=True):
            if isinstance(result, ExplanationFailed):
                method = target_of[label].method
                found[i].evidence[label] = Evidence(method=method, target=label, layer="", status=str(result))
                continue
            found[i].evidence[label] = result.evidence(boxes=boxes_of(result))
            if pictures:
                found[i].pictures[label] = heat_png(result, HEAT_SIDE_PX)
    return found


def _maps(
    reader: Reader, computed: Computed, target: Target, indices: Sequence[int]
) -> Sequence[Explanation | ExplanationFailed]:
    from wetread.explain.dispatch import explain_images
    from wetread.models.predict import Forward

    chosen, forward = list(indices), computed.forward
    part = Forward(forward.logits[chosen], tuple(maps[chosen] for maps in forward.features), forward.embeddings[chosen])
    sizes, windows = [computed.sizes[i] for i in chosen], [computed.windows[i] for i in chosen]
    try:
        return explain_images(reader, part, target, sizes, computed.batch[chosen], windows)
    except ExplanationFailed as failure:
        return [failure] * len(chosen)
