"""What a guided reader owes to the mask it leans on: no mask, no answer; an odd mask, a warning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wetread.models.card import GuideSpec
from wetread.reading.mask_quality import oddities, quality_flags
from wetread.reading.measures import ORGANS
from wetread.types import GateResult

__all__ = ["gate_with_organ", "organ_warnings"]


def gate_with_organ(gate: GateResult, guide: GuideSpec, mask: NDArray[np.bool_]) -> GateResult:
    """Withhold the answer where the organ was not found: there is nothing left to read."""
    if mask.any():
        return gate
    reason = f"No {guide.organ} were found in it, and the reader looks at nothing else."
    return gate.model_copy(update={"passed": False, "reasons": (*gate.reasons, reason)})


def organ_warnings(guide: GuideSpec, mask: NDArray[np.bool_]) -> tuple[str, ...]:
    """One sentence where the mask is odd; *touches border* is not, as true masks do that too."""
    if guide.organ not in ORGANS or not mask.any():
        return ()
    flags = oddities(quality_flags(guide.organ, mask))
    if not flags:
        return ()
    return (f"The mask of the {guide.organ} is odd ({', '.join(flags)}), and the answer leans on it.",)
