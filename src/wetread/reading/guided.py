"""What a guided reader owes to the masks it leans on: no organ, no answer; an odd mask, a warning; and their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.models.card import GuideSpec
from wetread.reading.agreement import agreement_on, mask_cautions
from wetread.reading.organs import cleaned, sizes_of
from wetread.types import Agreement, GateResult, ImageFacts, LabelReading, Measure, Step

__all__ = ["Sizes", "gate_with_organ", "guide_steps", "organ_warnings", "sizes_beside"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the organs of one image measure, and what that says beside the classifier's answer."""

    measures: tuple[Measure, ...] = ()
    agreement: Agreement | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence where ruler and classifier disagree."""
        if self.agreement is None or self.agreement.agree is not False:
            return ()
        one = self.agreement
        return (f"The {one.measure} and the classifier disagree on {one.label}: look at the film.",)


def sizes_beside(
    labels: Sequence[LabelReading],
    masks: Mapping[str, NDArray[np.bool_]],
    odd: Mapping[str, Sequence[str]],
    facts: ImageFacts,
) -> Sizes:
    """Measure the organs, cleaned as ``wetread segment`` does, and compare the ratio with the answer.

    ``masks``: bool (rows, columns) by organ, as the segmenter drew them; what is ``odd`` about them becomes cautions.
    """
    measures = sizes_of({organ: cleaned(organ, mask) for organ, mask in masks.items()}, facts)
    return Sizes(measures, agreement_on(labels, measures, facts, mask_cautions(odd)))


def guide_steps(guide: GuideSpec | None, *, refused: bool) -> tuple[Step, ...]:
    """What a guide did to the pixels before the network saw them; nothing for one that only trained with the organ."""
    if guide is None or not guide.when_reading or refused:
        return ()
    detail = {"organ": guide.organ, "margin": guide.margin, "segmenter": guide.segmenter}
    if guide.kind == "mask":
        detail["outside"] = guide.fill
    return (Step(name=guide.kind, detail=detail),)


def gate_with_organ(gate: GateResult, guide: GuideSpec, mask: NDArray[np.bool_]) -> GateResult:
    """Withhold the answer where the organ was not found: there is nothing left to read."""
    if mask.any():
        return gate
    reason = f"No {guide.organ} were found in it, and the reader looks at nothing else."
    return gate.model_copy(update={"passed": False, "reasons": (*gate.reasons, reason)})


def organ_warnings(guide: GuideSpec, odd: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """One sentence where the mask of the guide's organ is odd; an empty one is the gate's matter."""
    flags = odd.get(guide.organ, ())
    if not flags or "empty" in flags:
        return ()
    return (f"The mask of the {guide.organ} is odd ({', '.join(flags)}), and the answer leans on it.",)
