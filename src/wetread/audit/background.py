"""T3: can the label be told without the organ? And what of the image gives it away.

Decided here: rho = (AUROC outside the organ - 0.5) / (AUROC of the whole image - 0.5), both from the same probes and
the same resamples of patients. A failure needs a label that is told outside the organ *beyond* what the organ's
outline tells: a large heart is larger than a small one even when it is painted over. Where no organ is
known only the frame is judged, which can fail a data set but never pass it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.audit.material import Material
from wetread.audit.pictures import beside, difference_png, film_rgb, png
from wetread.audit.probes import CONTROLS, Told, Views, assessable, told_each
from wetread.audit.result import QUESTIONS, Answered, AuditExample, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.views import (
    Hidden,
    background_views,
    fact_views,
    frame_views,
    full_views,
    hidden_area,
    outline_views,
)
from wetread.evaluation.intervals import Resampler, summarise, unbounded
from wetread.evaluation.metrics import weighted_auroc
from wetread.types import Estimate

__all__ = ["BY_MUCH", "LabelAnswer", "Pictures", "background_line", "judged", "within_strata"]

Pictures = dict[str, bytes]
"""Name of a PNG to its bytes."""
Floats = NDArray[np.float64]

BY_MUCH = 0.6
"""Lower bound of the AUROC outside the organ that fails a label which the whole image does not tell."""
STRATA = 5
_CODE = "T3"
_WORST: tuple[Answered, ...] = ("FAIL", "WARN", "NOT ASSESSABLE", "PASS")
_CURE = (
    "collect both classes with the same devices, markers and protocol, or hide what is outside the organ from the "
    "reader (`wetread train --guide mask` or `crop`), and look at T4: whether the reader needs the organ"
)


@dataclass(frozen=True)
class LabelAnswer:
    """The answer for one label; ``why`` completes the sentence. ``bounds`` of rho are those that decided."""

    label: str
    answer: Answered
    why: str
    n: int
    outside: Told | None = None
    full: Told | None = None
    rho: Estimate | None = None
    bounds: tuple[float, float] | None = None
    figures: tuple[AuditFigure, ...] = ()
    notes: tuple[str, ...] = ()


def background_line(material: Material, thresholds: Thresholds, seed: int = 0) -> tuple[AuditLine, Pictures]:
    """Answer T3 for every label; the worst one decides.

    With L labels the bounds that decide are those of 1 - 0.05 / L (Bonferroni); the figures show 95 %.
    """
    hidden = hidden_area(material)
    answers = [judged(material, hidden, index, thresholds, seed) for index in range(len(material.labels))]
    limits = thresholds.of("t3_share_pass", "t3_share_fail")
    if not answers:
        why = "Not assessable: the data set has no labels."
        line = AuditLine(
            code=_CODE, question=QUESTIONS[_CODE], answer="NOT ASSESSABLE", sentence=why, thresholds=limits
        )
        return line, {}
    worst = min(answers, key=lambda a: (_WORST.index(a.answer), -(a.outside.auroc.value or 0) if a.outside else 0))
    examples, pictures = _evidence(material, hidden, worst)
    line = AuditLine(
        code=_CODE,
        question=QUESTIONS[_CODE],
        answer=worst.answer,
        sentence=worst.why,
        n=worst.n,
        figures=worst.figures,
        thresholds=limits,
        examples=examples,
        notes=(*worst.notes, *_common_notes(material, hidden, answers, worst)),
        cure="" if worst.answer == "PASS" else _CURE,
    )
    return line, pictures


def judged(material: Material, hidden: Hidden | None, index: int, thresholds: Thresholds, seed: int = 0) -> LabelAnswer:
    """Answer T3 for the label at ``index``."""
    known = np.isfinite(material.targets[:, index])
    label, part = material.labels[index], material.take(known)
    truth = part.targets[:, index] > 0
    reason = assessable(truth, part.patients)
    if reason:
        return LabelAnswer(label, "NOT ASSESSABLE", f"Not assessable for '{label}': {reason}.", len(part))
    seen = None if hidden is None else hidden.take(known)
    probes = _asked(part, seen, truth, seed)
    outside, full = probes["outside"], probes["full"]
    samples = _samples(outside, full, seed)
    rho = _rho(outside, full, samples)
    tail = 0.025 / len(material.labels)
    defined = samples[np.isfinite(samples)]
    low, high = (float(q) for q in np.quantile(defined, [tail, 1 - tail])) if len(defined) else (-np.inf, np.inf)
    answer, why = _answer(outside, full, (low, high), thresholds)
    notes: list[str] = []
    if answer == "FAIL" and seen is not None:
        explained, note = _explained(outside, probes.get("outline"), seed)
        answer = "WARN" if explained else "FAIL"
        notes += [note] if note else []
        why = "outline" if explained else why
    if hidden is None and answer == "PASS":
        answer, why = "NOT ASSESSABLE", "no organ"
    facts = probes["facts"]
    if answer == "PASS" and facts.above_chance:
        answer, why = "WARN", "facts"
    sentence = _sentence(label, why, material, hidden, outside, rho)
    return LabelAnswer(
        label,
        answer,
        sentence,
        len(part),
        outside,
        full,
        rho,
        (low, high),
        _figures(probes, rho, hidden),
        tuple(notes),
    )


def _asked(part: Material, hidden: Hidden | None, truth: NDArray[np.bool_], seed: int) -> dict[str, Told]:
    """All probes of one label; what hides behind ``outside`` is the frame where no organ is known."""
    frame, facts = frame_views(part), fact_views(part, content=False)
    around = frame if hidden is None else background_views(part, hidden, seed)
    views: dict[str, Views] = {"outside": around, "full": full_views(part, hidden, around), "facts": facts}
    if hidden is not None:
        views |= {"frame": frame, "outline": outline_views(part)}
    together = {name: features for group in views.values() for name, features in group.items()}
    groups = {name: tuple(group) for name, group in views.items()}
    return told_each(together, groups, truth, part.patients, seed, controls=CONTROLS)


def _samples(outside: Told, full: Told, seed: int) -> Floats:
    """Rho (B,) in resamples of patients; the same patients for both AUROC."""
    resampler = Resampler(len(outside.targets), outside.patients, seed=seed)
    truth = outside.targets.astype(np.float64)
    both = [
        (weighted_auroc(outside.scores, truth, weights), weighted_auroc(full.scores, truth, weights))
        for weights in resampler.blocks()
    ]
    near, whole = (np.concatenate(parts) - 0.5 for parts in zip(*both, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole > 0, near / whole, np.nan))


def _rho(outside: Told, full: Told, samples: Floats) -> Estimate:
    part, whole = outside.auroc.value, full.auroc.value
    n = len(outside.targets)
    if part is None or whole is None or not full.above_chance:
        return unbounded(None, n, "not defined: the whole image does not tell the label either")
    return summarise((part - 0.5) / (whole - 0.5), samples, Resampler(n, outside.patients))


def _answer(outside: Told, full: Told, bounds: tuple[float, float], thresholds: Thresholds) -> tuple[Answered, str]:
    """The answer before the outline is looked at, and the key of its sentence."""
    low, high = bounds
    if not full.above_chance:
        if not outside.above_chance:
            return "NOT ASSESSABLE", "nothing"
        much = outside.floor is not None and outside.floor >= BY_MUCH
        return ("FAIL", "fail") if much else ("WARN", "some")
    if outside.above_chance and low > thresholds.t3_share_fail:
        return "FAIL", "fail"
    if high < thresholds.t3_share_pass:
        return "PASS", "pass"
    return ("WARN", "some") if outside.above_chance else ("WARN", "unsure")


def _explained(outside: Told, outline: Told | None, seed: int) -> tuple[bool, str]:
    """Whether what is told outside the organ is no more than its outline tells."""
    if outline is None or not outline.above_chance:
        return False, ""
    inside = within_strata(outside, outline.scores, seed)
    said = (
        f"the organ's outline alone tells the label too; among images of like outline the rest still reaches AUROC "
        f"{inside.value:.3f} ({inside.low:.3f} to {inside.high:.3f})"
        if inside.value is not None and inside.low is not None and inside.high is not None
        else "the organ's outline alone tells the label too, and too few images have a like outline to compare"
    )
    floor = 1.0 if inside.value == 1.0 else inside.low  # a perfect order has no interval
    return floor is None or floor <= 0.5, said


def within_strata(outside: Told, by: Floats, seed: int = 0) -> Estimate:
    """AUROC of ``outside`` among images whose ``by`` (n,) lies in the same fifth.

    The share of pairs (positive, negative) of one stratum that are in order, over all strata: what the score knows
    beyond ``by`` (a stratified Mann-Whitney statistic, van Elteren 1960). Bootstrap over patients.
    """
    edges = np.quantile(by, np.arange(1, STRATA) / STRATA)
    stratum = np.searchsorted(edges, by, side="right")
    truth = outside.targets.astype(np.float64)

    def value(weights: Floats) -> Floats:
        right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for number in range(STRATA):
            here = stratum == number
            w, y = weights[:, here], truth[here]
            count = (w @ y) * (w @ (1 - y))
            area = weighted_auroc(outside.scores[here], y, w) if here.any() else np.zeros(len(weights))
            right += np.where(count > 0, np.nan_to_num(area) * count, 0)
            pairs += count
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(pairs > 0, right / pairs, np.nan))

    resampler = Resampler(len(truth), outside.patients, seed=seed)
    samples = np.concatenate([value(weights) for weights in resampler.blocks()])
    return summarise(float(value(np.ones((1, len(truth))))[0]), samples, resampler)


_NAMES = {
    "outside": "AUROC outside the {organ}",
    "full": "AUROC of the whole image, same probes",
    "frame": "AUROC of the frame alone (outer 5 %)",
    "outline": "AUROC of the organ's outline alone",
    "facts": "AUROC of rows, columns, bits and format of the file",
}


def _figures(probes: dict[str, Told], rho: Estimate, hidden: Hidden | None) -> tuple[AuditFigure, ...]:
    organ = "organ" if hidden is not None else "image's inner 95 %"
    named = [
        AuditFigure(what=_NAMES[key].format(organ=organ), estimate=probes[key].auroc) for key in _NAMES if key in probes
    ]
    control = AuditFigure(
        what=f"control: AUROC outside the {organ} for shuffled labels", estimate=probes["outside"].control
    )
    return (AuditFigure(what="rho: share of the whole image's AUROC above 0.5", estimate=rho), *named, control)


def _sentence(label: str, why: str, material: Material, hidden: Hidden | None, outside: Told, rho: Estimate) -> str:
    organ = material.organ or "organ"
    where = f"outside the {organ}" if hidden is not None else "in the frame of the image"
    area = _interval(outside.auroc)
    share = "" if rho.value is None else f", {100 * rho.value:.0f} % of what the whole image tells"
    texts = {
        "fail": f"'{label}' can be told {where}: a simple probe reaches AUROC {area}{share}.",
        "outline": f"'{label}' can be told {where} (AUROC {area}{share}), but not beyond what the shape of the "
        f"{organ} tells, which hiding it cannot take away.",
        "some": f"Something {where} tells '{label}': AUROC {area}{share}.",
        "unsure": f"Nothing {where} was found to tell '{label}' (AUROC {area}), but {len(outside.targets)} images are "
        "too few to rule it out.",
        "pass": f"Next to nothing {where} tells '{label}': AUROC {area}{share}.",
        "nothing": f"Not assessable: neither the whole image nor what is {where} told '{label}' to simple probes.",
        "no organ": f"Not assessable: the frame does not tell '{label}' (AUROC {area}), but nobody knows where the "
        "organ lies, so that the rest could not be looked at; give masks or a segmenter.",
        "facts": f"Next to nothing {where} tells '{label}' (AUROC {area}), but size, depth or format of the files do.",
    }
    return texts[why]


def _interval(estimate: Estimate) -> str:
    value = "-" if estimate.value is None else f"{estimate.value:.3f}"
    return value if estimate.low is None else f"{value} ({estimate.low:.3f} to {estimate.high:.3f})"


def _common_notes(
    material: Material, hidden: Hidden | None, answers: Sequence[LabelAnswer], worst: LabelAnswer
) -> list[str]:
    notes = [f"{len(material)} of {material.of} labelled images, patients first"]
    if hidden is not None:
        notes.append(
            f"hidden in every image: {100 * hidden.share:.0f} % of it, where the {material.organ} lies in at least one "
            f"image in ten ({material.organ_from}); where it reaches further, that too"
        )
    else:
        notes.append(f"where the organ lies is not known ({material.organ_from}): only the frame was judged")
    others = [f"{a.label}: {a.answer}" for a in answers if a is not worst]
    if others:
        notes.append(
            f"{len(answers)} labels were asked and the worst decides; the bounds that decide are at "
            f"{100 * (1 - 0.05 / len(answers)):.1f} %. The others: {'; '.join(others)}"
        )
    return notes


def _evidence(
    material: Material, hidden: Hidden | None, worst: LabelAnswer
) -> tuple[tuple[AuditExample, ...], Pictures]:
    """Where the classes differ outside the organ, and the films that were told best."""
    if worst.outside is None:
        return (), {}
    index = material.labels.index(worst.label)
    part = material.take(np.isfinite(material.targets[:, index]))
    truth = worst.outside.targets
    area = hidden.area if hidden is not None else _inside(part.grey.shape[1])
    films = part.grey.astype(np.float64)
    a, b = films[truth], films[~truth]
    spread = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2) + 1.0
    where = material.organ if hidden is not None and material.organ else "inner part of the image"
    pictures = {"T3-difference.png": difference_png((a.mean(axis=0) - b.mean(axis=0)) / spread, area)}
    captions = {
        "T3-difference.png": f"Mean of the films with '{worst.label}' less mean of those without, in standard "
        f"deviations: orange lighter, blue darker (full colour at 1); grey: the {where}, hidden"
    }
    for name, wanted, words in (("with", True, "with"), ("without", False, "without")):
        chosen = _clearest(worst.outside, wanted)
        shown = [film for i in chosen for film in (film_rgb(part.grey[i]), film_rgb(part.grey[i], area))]
        key = f"T3-films-{name}.png"
        pictures[key] = png(beside(shown))
        captions[key] = f"Two films {words} '{worst.label}' that were told best, each beside what the probe saw of it"
    return tuple(AuditExample(picture=name, caption=text) for name, text in captions.items()), pictures


def _clearest(outside: Told, wanted: bool) -> list[int]:
    """The two images of one class that were told best, of different patients."""
    order = np.argsort(-outside.scores if wanted else outside.scores, kind="stable")
    chosen: list[int] = []
    for i in order[outside.targets[order] == wanted]:
        if all(outside.patients[i] != outside.patients[j] for j in chosen):
            chosen.append(int(i))
        if len(chosen) == 2:
            break
    return chosen


def _inside(side: int) -> NDArray[np.bool_]:
    from wetread.audit.views import FRAME

    area = np.zeros((side, side), np.bool_)
    area[FRAME:-FRAME, FRAME:-FRAME] = True
    return area
