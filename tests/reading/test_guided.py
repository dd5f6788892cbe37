"""A guided reader: no organ, no answer; an odd mask, a warning."""

from __future__ import annotations

import numpy as np

from wetread.models.card import GuideSpec
from wetread.reading.guided import gate_with_organ, guide_steps, organ_warnings
from wetread.reading.mask_quality import oddities_of
from wetread.types import GateResult

GUIDE = GuideSpec(organ="lungs", segmenter="lungs", sha256="0" * 64)


def lungs(left: bool = True) -> np.ndarray:
    mask = np.zeros((200, 200), np.bool_)
    mask[30:170, 30:85] = True
    if left:
        mask[30:170, 115:170] = True
    return mask


def test_without_the_organ_the_answer_is_withheld() -> None:
    gate = gate_with_organ(GateResult(passed=True), GUIDE, np.zeros((200, 200), np.bool_))
    assert not gate.passed
    assert gate.reasons == ("No lungs were found in it, and the reader looks at nothing else.",)


def test_with_the_organ_the_gate_stays_as_it_was() -> None:
    before = GateResult(passed=False, reasons=("too small",))
    assert gate_with_organ(before, GUIDE, lungs()) == before


def test_two_lungs_give_no_warning_and_one_does() -> None:
    assert organ_warnings(GUIDE, oddities_of({"lungs": lungs()})) == ()
    (warning,) = organ_warnings(GUIDE, oddities_of({"lungs": lungs(left=False)}))
    assert (
        warning == "The mask of the lungs is odd (fewer than two lungs, implausible shape), and the answer leans on it."
    )


def test_other_organs_have_no_idea_of_odd() -> None:
    assert (
        organ_warnings(GUIDE.model_copy(update={"organ": "clavicle"}), oddities_of({"lungs": lungs(left=False)})) == ()
    )


def test_what_the_guide_did_to_the_pixels_is_a_step() -> None:
    (step,) = guide_steps(GUIDE, refused=False)
    assert step.name == "mask"
    assert step.detail == {"organ": "lungs", "margin": 0.03, "segmenter": "lungs", "outside": "mean"}
    (step,) = guide_steps(GUIDE.model_copy(update={"kind": "crop"}), refused=False)
    assert step.name == "crop"
    assert "outside" not in step.detail


def test_whole_images_and_refused_ones_have_no_such_step() -> None:
    assert guide_steps(None, refused=False) == ()
    assert guide_steps(GUIDE, refused=True) == ()
    for kind in ("attention", "background"):
        assert guide_steps(GUIDE.model_copy(update={"kind": kind}), refused=False) == ()
