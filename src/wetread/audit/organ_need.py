"""T4: whether a reader needs the organ. The same film is read without it, and the organ without the rest.

Decided here: three fills, because any one of them may be a sign in itself: the mean grey of what is left, black, and
a smooth continuation of what is left with its own grain, which draws no edge. The hole keeps the shape of the organ,
and the shape may tell the label (a lung full of fluid is drawn small): two controls measure that, the reader shown
nothing but the outline, and the film with a box around the organ painted over. They explain and decide nothing.
Source of the test: Sourget et al. 2024 (Mask of Truth), after Maguolo & Nanni, Information Fusion 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.strips import Pictures, illustrated, strip_png
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import UNTOUCHED, Film, Pair, Readings, Variant, called, worst
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.hidden import share_left
from wetread.models.guide import box_around, organ_alone, organ_removed
from wetread.types import Estimate

__all__ = ["FILLS", "judge_organ_need", "organ_variants", "settled", "smooth_fill"]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Fill = Callable[[Pixels, Mask, np.random.Generator], Pixels]

CODE = "T4"
LIMIT = 400
"""Films that are shown at most: an AUROC of .5 among 200 and 200 is known to about .06 either way."""
MINIMUM_PER_CLASS = 30
"""Patients of each class: with fewer, an interval around .6 holds .5 too, and a pass would mean little."""
NEEDED_FILLS = 2
"""Fills of three that have to agree for a verdict."""

_GRID = 128
"""Long side on which a hole is filled smoothly: what is drawn there is coarser than anatomy."""
_BODY, _ORGAN = np.float32(0.5), np.float32(0.2)
"""Two greys of a film that is nothing but an outline."""


def smooth_fill(pixels: Pixels, kept: Mask, rng: np.random.Generator) -> Pixels:
    """Continue what is kept into the rest: no edge, no anatomy, and the grain of what is kept.

    ``pixels``: float32 (rows, columns) in [0, 1]; ``kept``: bool of that shape. What lies outside ``kept`` is not
    looked at. Pull and push over a pyramid (Gortler et al., The Lumigraph, SIGGRAPH 1996), on a grid of at most 128
    pixels, so that small and large films are filled alike.
    """
    if kept.all() or not kept.any():
        return pixels.copy()
    scale = min(1.0, _GRID / max(pixels.shape))
    size = (max(2, round(pixels.shape[0] * scale)), max(2, round(pixels.shape[1] * scale)))
    weight = _resized(kept.astype(np.float32), size)
    total = _resized(np.where(kept, pixels, np.float32(0)), size)
    smooth = _pulled(total, weight)
    inside = weight > 0.99
    spread = float((smooth - _resized(_halved(smooth), size))[inside].std()) if inside.any() else 0.0
    smooth += np.float32(spread) * rng.standard_normal(size, dtype=np.float32)
    return np.where(kept, pixels, np.clip(_resized(smooth, pixels.shape), 0, 1)).astype(np.float32)


def _pulled(total: Pixels, weight: Pixels) -> Pixels:
    """Weighted means of a grid, and where there is no weight what coarser grids say."""
    share = np.clip(weight, 0, 1)
    value = np.asarray(total / np.maximum(weight, np.float32(1e-6)), np.float32)
    if weight.min() > 0.99 or weight.size == 1:
        return value
    coarser = _resized(_pulled(_halved(total), _halved(weight)), (weight.shape[0], weight.shape[1]))
    return share * value + (1 - share) * coarser


def _halved(grid: Pixels) -> Pixels:
    return _resized(grid, (max(1, (grid.shape[0] + 1) // 2), max(1, (grid.shape[1] + 1) // 2)))


def _resized(grid: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Means where it gets smaller, straight lines between points where it gets larger."""
    from PIL import Image

    if grid.shape == shape:
        return grid.copy()
    way = Image.Resampling.BOX if shape[0] < grid.shape[0] or shape[1] < grid.shape[1] else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(grid).resize((shape[1], shape[0]), way), np.float32)


_FILLING: dict[str, Fill] = {
    "grey": lambda pixels, kept, _: organ_alone(pixels, kept, "mean"),
    "black": lambda pixels, kept, _: organ_alone(pixels, kept, "black"),
    "smooth": smooth_fill,
}
FILLS = tuple(_FILLING)
"""What takes the place of what is hidden: mean grey of the rest, black, the rest continued with its grain."""

_BOX, _OUTLINE = "without the box around the organ", "outline alone"


def _without(fill: str) -> str:
    return f"without the organ, {fill}"


def _alone(fill: str) -> str:
    return f"organ alone, {fill}"


def organ_variants(limit: int | None = LIMIT) -> tuple[Variant, ...]:
    """The variants that :func:`judge_organ_need` needs, of at most ``limit`` films each."""
    changes = {
        **{_without(fill): _hiding(fill) for fill in FILLS},
        **{_alone(fill): _keeping(fill) for fill in FILLS},
        _BOX: _box,
        _OUTLINE: _outline,
    }
    return tuple(
        Variant(name, change, limit=limit, needs_organ=True, found_again=False) for name, change in changes.items()
    )


def _area(film: Film) -> Mask:
    assert film.area is not None, "a variant that needs the organ is only made of films that have it"  # noqa: S101
    return film.area


def _hiding(fill: str) -> Callable[[Film, np.random.Generator], Pixels]:
    return lambda film, rng: _FILLING[fill](film.pixels, ~_area(film), rng)


def _keeping(fill: str) -> Callable[[Film, np.random.Generator], Pixels]:
    return lambda film, rng: _FILLING[fill](film.pixels, _area(film), rng)


def _box(film: Film, rng: np.random.Generator) -> Pixels:
    top, left, height, width = box_around(_area(film))
    box = np.zeros(film.pixels.shape, np.bool_)
    box[top : top + height, left : left + width] = True
    return organ_removed(film.pixels, box)


def _outline(film: Film, rng: np.random.Generator) -> Pixels:
    return np.where(_area(film), _ORGAN, _BODY)


@dataclass(frozen=True)
class _Found:
    """AUROC of one label: whole films, without the organ and organ alone by fill, and the two controls."""

    number: int
    label: str
    patients_per_class: int
    whole: Estimate
    without: dict[str, Estimate]
    alone: dict[str, Estimate]
    box: Estimate
    outline: Estimate

    @property
    def kept(self) -> dict[str, float]:
        """Share of the AUROC above .5 that the organ alone keeps, by fill."""
        shares = {fill: share_left(self.whole.value, one.value) for fill, one in self.alone.items()}
        return {fill: share for fill, share in shares.items() if share is not None}

    @property
    def blind(self) -> bool:
        """Whether the label cannot be told without the organ, for enough fills."""
        return sum(_at_chance(one) for one in self.without.values()) >= NEEDED_FILLS

    def answer(self, keeps: float) -> Answered:
        """The verdict; NOT ASSESSABLE with few patients, or where whole films are not told above chance."""
        told = self.whole.value is not None and self.whole.value > 0.5 and not _at_chance(self.whole)
        if self.patients_per_class < MINIMUM_PER_CLASS or not told:
            return "NOT ASSESSABLE"
        pairs = [(self.without[fill].value or 0.0, self.alone[fill].value or 0.0) for fill in FILLS]
        if sum(without >= alone for without, alone in pairs) >= NEEDED_FILLS:
            return "FAIL"
        enough = sum(share >= keeps for share in self.kept.values()) >= NEEDED_FILLS
        return "PASS" if self.blind and enough else "WARN"


def _at_chance(estimate: Estimate) -> bool:
    """Whether the interval holds .5.

    Given enough patients an AUROC has none in two cases: it lies too near 0 or 1 to hold .5, or all answers are alike,
    and then it is .5 and nothing is told.
    """
    if estimate.low is None or estimate.high is None:
        return estimate.value == 0.5
    return estimate.low <= 0.5 <= estimate.high


def judge_organ_need(readings: Readings, limits: Thresholds) -> tuple[AuditLine, dict[str, bytes]]:
    """Answer T4 from what the reader said of :func:`organ_variants`.

    FAIL: for two of three fills the label is told at least as well without the organ as from the organ alone. PASS:
    for two fills the interval of the AUROC without the organ holds .5, and for two the organ alone keeps enough of
    the AUROC above .5. Of several labels the worst decides. Returns the line and its pictures, PNG bytes by name.
    """
    organ = readings.organ
    pairs = {one.name: readings.pair(one.name) for one in organ_variants()}
    line = AuditLine(
        code=CODE,
        question=QUESTIONS[CODE],
        answer="NOT ASSESSABLE",
        sentence="No organ is named." if organ is None else f"No film has a mask of the {organ.organ}.",
        n=len(pairs[_OUTLINE].rows),
        thresholds=limits.of("t4_organ_keeps"),
        cure="Name the organ, and a segmenter that finds it or a data set with its masks.",
    )
    if organ is None or not line.n:
        return line, {}
    found = [_find(number, label, pairs) for number, label in enumerate(readings.reader.labels)]
    answers = [one.answer(limits.t4_organ_keeps) for one in found]
    answer = worst(answers)
    decisive = found[answers.index(answer)]
    pictures = {} if answer == "NOT ASSESSABLE" else _pictures(readings, decisive, pairs, answer)
    return illustrated(
        line,
        pictures,
        answer=answer,
        sentence=_sentence(decisive, answer, organ.organ),
        figures=tuple(figure for one in found for figure in _figures(one, organ.organ)),
        notes=_notes(readings, decisive, organ.organ),
        cure=_CURES[answer].format(organ=organ.organ),
    )


def settled(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make answers ties that differ by rounding alone: (N,) probabilities to log-odds in steps of .001.

    A reader that is shown one grey for every film answers all alike but for the last bits, and an AUROC would rank
    those: it came out as .57 in one run and as .45 in another.
    """
    tiny = np.finfo(np.float64).tiny
    return np.round(np.log(np.maximum(probabilities, tiny)) - np.log(np.maximum(1 - probabilities, tiny)), 3)


def _find(number: int, label: str, pairs: Mapping[str, Pair]) -> _Found:
    columns = {name: pair.of(number) for name, pair in pairs.items()}
    after = {name: auroc_estimate(settled(one.after), one.truth, one.patients) for name, one in columns.items()}
    whole = columns[_OUTLINE]
    return _Found(
        number=number,
        label=label,
        patients_per_class=whole.patients_per_class,
        whole=auroc_estimate(whole.before, whole.truth, whole.patients),
        without={fill: after[_without(fill)] for fill in FILLS},
        alone={fill: after[_alone(fill)] for fill in FILLS},
        box=after[_BOX],
        outline=after[_OUTLINE],
    )


_CURES: dict[Answered, str] = {
    "PASS": "",
    "WARN": "Train it with --guide on the {organ}, or on films whose background does not go with the label.",
    "FAIL": "Train it with --guide on the {organ}, or on films whose background does not go with the label.",
    "NOT ASSESSABLE": f"Assess films of at least {MINIMUM_PER_CLASS} patients with and {MINIMUM_PER_CLASS} without "
    "each label.",
}


def _sentence(found: _Found, answer: Answered, organ: str) -> str:
    whole = f"{found.whole.value or 0:.2f}"
    without, alone = _span(found.without), _span(found.alone)
    told = f"AUROC for {found.label}: {whole} on whole films, {without} without the {organ}, {alone} with nothing else."
    if answer == "NOT ASSESSABLE":
        few = found.patients_per_class < MINIMUM_PER_CLASS
        why = f"{found.patients_per_class} patients of one class" if few else "whole films are not told above chance"
        return f"Whether the reader needs the {organ} cannot be said: {why}."
    if answer == "PASS":
        some = sum(_at_chance(one) for one in found.without.values())
        fills = "" if some == len(FILLS) else f" by {some} of {len(FILLS)} fills"
        return f"Without the {organ} the reader is blind{fills}, and with nothing else it reads on. {told}"
    if answer == "FAIL":
        return f"The reader does as well without the {organ} as with nothing else. {told}"
    if not found.blind:
        return f"The reader still tells films apart in which the {organ} are painted over. {told}"
    return f"Without the {organ} the reader is blind, but with nothing else it loses too much. {told}"


def _span(by_fill: Mapping[str, Estimate]) -> str:
    values = [f"{one.value or 0:.2f}" for one in by_fill.values()]
    low, high = min(values), max(values)
    return low if low == high else f"{low} to {high}"


def _figures(found: _Found, organ: str) -> Iterator[AuditFigure]:
    label = f"AUROC {found.label}"
    yield AuditFigure(what=f"{label}, whole films", estimate=found.whole)
    for fill in FILLS:
        yield AuditFigure(what=f"{label}, {organ} painted over, {fill}", estimate=found.without[fill])
    for fill in FILLS:
        yield AuditFigure(what=f"{label}, {organ} alone, {fill} around", estimate=found.alone[fill])
    yield AuditFigure(what=f"{label}, a box around the {organ} painted over (control)", estimate=found.box)
    yield AuditFigure(what=f"{label}, nothing but the outline of the {organ} (control)", estimate=found.outline)


def _notes(readings: Readings, found: _Found, organ: str) -> tuple[str, ...]:
    masks, guide = readings.masks, readings.reader.card.guide
    highest = max(_most(one) for one in found.without.values())
    told = "cannot be told" if _at_chance(found.outline) else "can be told"
    notes = [
        f"Masks of the {organ}: {masks['annotated']} annotated, {masks['found']} found by a segmenter; {masks['none']} "
        "films without one are left out. A mask that misses part of the organ leaves that part to be read.",
        "Hidden is the mask and a margin around it. Fills: the mean grey of what is left, black, and what is left "
        "continued smoothly with its grain.",
        f"The hole has the shape of the {organ}, and the shape may tell the label. Control: from nothing but the "
        f"outline, in two greys, {found.label} {told} by this reader (AUROC {found.outline.value or 0:.2f}); with a "
        f"box instead of the outline it is {found.box.value or 0:.2f}. Controls explain and do not decide.",
        f"An AUROC of up to {highest:.2f} without the {organ} lies within the intervals.",
    ]
    alike = [fill for fill, one in found.without.items() if one.low is None and _at_chance(one)]
    if alike:
        notes.append(
            f"With the {organ} filled {' and '.join(alike)} all films get one answer: an AUROC of .5 with no interval. "
            "That counts as blind, and follows from how this reader is shown a film; weigh the other fills more."
        )
    if guide is not None and guide.kind == "mask" and guide.organ == organ:
        notes.append(
            f"This reader is always shown the {organ} alone. With nothing else it sees what it always sees, by "
            "construction; without them what is left is one grey, the outline and the shape of the film."
        )
    return tuple(notes)


def _most(estimate: Estimate) -> float:
    """The upper end of the interval; .5 where all answers are alike, 1 where nobody knows."""
    if estimate.high is not None:
        return estimate.high
    return 0.5 if _at_chance(estimate) else 1.0


def _pictures(readings: Readings, found: _Found, pairs: Mapping[str, Pair], answer: Answered) -> Pictures:
    """The two films of each class that show the answer best, as (caption, PNG) by name.

    Among films that the reader calls rightly: where it passes, those whose probability moves most without the organ;
    else those of which it is still surest.
    """
    columns = {name: pair.of(found.number) for name, pair in pairs.items()}
    whole = columns[_OUTLINE]
    calls = called(readings.reader, pairs[_OUTLINE].before)[np.isfinite(pairs[_OUTLINE].targets[:, found.number])]
    right = calls[:, found.number] == whole.truth
    without = np.mean([columns[_without(fill)].after for fill in FILLS], axis=0)
    sure = np.where(whole.truth, without, 1 - without)
    score = np.where(right, -sure if answer == "PASS" else sure, -np.inf)
    names = [UNTOUCHED, *map(_without, FILLS), _alone(FILLS[0])]
    values = np.stack([whole.before, *(columns[name].after for name in names[1:])], axis=1)
    chosen = [at for kind in (True, False) for at in _best(np.where(whole.truth == kind, score, -np.inf))]
    pictures = {}
    for number, at in enumerate(chosen, 1):
        words = ["whole", *(f"hidden, {fill}" for fill in FILLS), "alone"]
        panels = readings.pixels(int(whole.rows[at]), names)
        shown = [(one, f"{word}: {p:.2f}") for one, word, p in zip(panels, words, values[at], strict=True)]
        truth = found.label if whole.truth[at] else f"no {found.label}"
        organ = readings.organ.organ if readings.organ else "organ"
        caption = f"{truth}; probability of {found.label}: whole film, {organ} hidden in three fills, {organ} alone"
        pictures[f"t4-{number}.png"] = (caption, strip_png(shown))
    return pictures


def _best(score: NDArray[np.float64], count: int = 2) -> list[int]:
    order = np.argsort(-score, kind="stable")[:count]
    return [int(at) for at in order if np.isfinite(score[at])]
