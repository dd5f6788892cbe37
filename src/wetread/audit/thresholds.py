"""The limits of the audit: printed beside every answer and settable, because most of them are conventions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import Field, ValidationError

from wetread.errors import UsageError, expected
from wetread.types import Record

__all__ = ["Thresholds", "thresholds_of"]


class Thresholds(Record):
    """Every limit that an answer depends on; the description of each field says of which and how."""

    t2_source_auroc_pass: float = Field(0.6, description="T2 passes below: the source cannot be told")
    t2_source_auroc_fail: float = Field(0.7, description="T2 fails from: the source can be told")
    t2_association_pass: float = Field(0.1, description="T2 passes below: Cramer's V of source and label")
    t2_sorting_auroc_fail: float = Field(0.6, description="T2 fails from: AUROC of sorting by source alone")
    t3_share_pass: float = Field(0.2, description="T3 passes with the upper bound of rho below")
    t3_share_fail: float = Field(0.5, description="T3 fails with the lower bound of rho above")
    t4_organ_keeps: float = Field(0.9, description="T4 passes if the organ alone keeps this share of AUROC above .5")
    t5_flips_pass: float = Field(0.01, description="T5 passes up to this share of changed answers")
    t5_flips_fail: float = Field(0.05, description="T5 fails above this share of changed answers")
    t5_change_pass: float = Field(0.02, description="T5 passes up to this mean change of probability")
    t5_change_fail: float = Field(0.1, description="T5 fails above this mean change of probability")
    t6_drop_pass: float = Field(0.05, description="T6 passes up to this loss of AUROC in an unseen source")
    t6_drop_fail: float = Field(0.1, description="T6 fails above this loss of AUROC in an unseen source")
    t8_better_than_random: float = Field(0.8, description="T8 passes if deletion beats random order in this share")
    t8_jaccard: float = Field(0.8, description="T8 passes with LIME's seed-to-seed Jaccard from")
    t8_r2: float = Field(0.7, description="T8 passes with LIME's out-of-sample R2 from")
    t9_lift_pass: float = Field(1.5, description="T9 passes with lift from")
    t9_mass_pass: float = Field(0.7, description="T9 passes with the share of heat in the organ from")
    t9_lift_fail: float = Field(1.0, description="T9 fails with lift up to")
    t12_far_pass: float = Field(0.95, description="T12 passes with AUROC of far images from")
    t12_near_pass: float = Field(0.8, description="T12 passes with AUROC of near images from")
    t12_far_fail: float = Field(0.8, description="T12 fails with AUROC of far images below")
    t12_junk_pass: float = Field(0.99, description="T12 passes with this share of junk refused")
    t12_own_pass: float = Field(0.05, description="T12 passes with at most this share of its own test refused")
    t13_gap_pass: float = Field(0.05, description="T13 passes with every gap up to")
    t13_gap_fail: float = Field(0.1, description="T13 fails with a gap above, if its interval excludes 0")
    t15_drop_pass: float = Field(0.02, description="T15 passes up to this loss of AUROC in each condition")
    t15_drop_fail: float = Field(0.1, description="T15 fails above this loss of AUROC in any condition")
    t16_share_pass: float = Field(0.9, description="T16 passes with this share of items filled or not applicable")

    def of(self, *names: str) -> dict[str, float]:
        """Return these limits by name, as a line of the audit carries them."""
        return {name: getattr(self, name) for name in names}


def thresholds_of(given: Sequence[str]) -> Thresholds:
    """Return the default limits with those of ``given``, each as ``name=value``.

    Raises:
        UsageError: an unknown name (the nearest is suggested) or no number.
    """
    changed: dict[str, str] = {}
    for item in given:
        name, _, value = item.partition("=")
        if name not in Thresholds.model_fields:
            near = difflib.get_close_matches(name, Thresholds.model_fields, n=1, cutoff=0.3)
            cure = f"did you mean {near[0]}?" if near else "`wetread audit --help` names the page that lists them"
            raise UsageError(expected("the name of a threshold as NAME=VALUE", repr(item), cure))
        changed[name] = value
    try:
        return Thresholds.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            expected(f"a number for {first['loc'][0]}", repr(first["input"]), "write it as NAME=0.2")
        ) from error
