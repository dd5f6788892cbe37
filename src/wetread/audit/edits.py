"""T5: whether markers, text, borders and tubes move the answer, though they say nothing of the patient.

Decided here: what is laid into a film is what technicians and devices put there, at a size that occurs; a letter goes
into each corner in turn, and the marks that stand in the corners are taken out. Decisions are compared at the
reader's own operating point. Each edit is judged alone, by the share of changed decisions and the mean change of
probability, and the worst decides. A letter of no size is laid in too: it has to change nothing at all.
Sources: markers and drains as shortcuts, Jimenez-Sanchez et al. 2023 and Boland et al. 2024; artefacts, Bissoto 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wetread.audit.organ_need import smooth_fill
from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.strips import Pictures, illustrated, strip_png
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import Film, Pair, Readings, Variant, called, worst
from wetread.datasets.plant_edits import LEAD, border, corner_marker, text
from wetread.evaluation.intervals import Resampler, bootstrap, proportion
from wetread.models.guide import widened
from wetread.types import Estimate

__all__ = ["CONTROL", "CORNERS", "Corner", "edit_variants", "judge_edits", "marker_at", "tube", "without_marks"]

Pixels = NDArray[np.float32]
Rng = np.random.Generator
Corner = Literal["upper left", "upper right", "lower left", "lower right"]

CODE = "T5"
LIMIT = 300
"""Films of each edit."""
VIEWS = 1
"""Zooms averaged, for edited and untouched films alike: three times as many films in the same time."""
MINIMUM_FILMS = 50
"""With fewer, no changed decision at all is still compatible with one in fourteen."""
STRENGTH = 0.5
"""Of the edits that also plant shortcuts: a letter of 6 % of the shorter side, a border of 5 % of each."""

_CURE = "Train on films of both classes with and without such marks, or have films cut to the body before reading."

CONTROL = "a letter of no size"
CORNERS: tuple[Corner, ...] = ("upper left", "upper right", "lower left", "lower right")
_LABELS_SHOWN = 3
"""A reader of more labels gets the figures of the label that an edit moves most."""
_PICTURES = 4
_CORNER_SHARE, _MARK_SHARE, _MARK_CONTRAST = 0.2, 0.05, 0.25
"""Where marks are looked for, how thin they are (shares of the shorter side), and how light."""


def marker_at(pixels: Pixels, corner: Corner, rng: Rng, strength: float = STRENGTH) -> Pixels:
    """Lay a lead marker into a corner: L or R, plain or framed, or a disc; 2-8 % from the edges.

    ``pixels``: float32 (rows, columns) in [0, 1]; strength 0 changes nothing.
    """
    letter = corner_marker(np.zeros_like(pixels), strength, rng) / np.float32(LEAD)
    upper, left = corner.split()
    rows, columns = np.flatnonzero(letter.any(axis=1)), np.flatnonzero(letter.any(axis=0))
    if not rows.size:
        return pixels.copy()
    opacity = letter[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    off_row, off_column = int(rows[0]), int(min(columns[0], pixels.shape[1] - 1 - columns[-1]))
    top = off_row if upper == "upper" else pixels.shape[0] - off_row - opacity.shape[0]
    start = off_column if left == "left" else pixels.shape[1] - off_column - opacity.shape[1]
    film = pixels.copy()
    part = film[top : top + opacity.shape[0], start : start + opacity.shape[1]]
    part += opacity * np.clip(np.float32(LEAD) - part, 0, None)
    return film


def tube(pixels: Pixels, rng: Rng) -> Pixels:
    """Lay one bright line into the film: a catheter that enters at an edge and bends towards the middle.

    1 % of the shorter side wide, 45 % of the way to the grey of lead.
    """
    from PIL import Image, ImageDraw, ImageFilter

    rows, columns = pixels.shape
    side = float(rng.choice([-1.0, 1.0]))
    ends = np.array(
        [
            [0.5 + side * rng.uniform(0.1, 0.35), -0.05],
            [0.5 + side * rng.uniform(0.05, 0.3), rng.uniform(0.15, 0.35)],
            [0.5 - side * rng.uniform(-0.05, 0.15), rng.uniform(0.3, 0.5)],
            [0.5 + side * rng.uniform(-0.1, 0.1), rng.uniform(0.55, 0.8)],
        ]
    )
    t = np.linspace(0, 1, 60)[:, None]
    curve = (1 - t) ** 3 * ends[0] + 3 * (1 - t) ** 2 * t * ends[1] + 3 * (1 - t) * t**2 * ends[2] + t**3 * ends[3]
    width = max(1, round(0.01 * min(rows, columns)))
    picture = Image.new("L", (columns, rows), 0)
    points = [(float(x) * columns, float(y) * rows) for x, y in curve]
    ImageDraw.Draw(picture).line(points, fill=255, width=width, joint="curve")
    soft = picture.filter(ImageFilter.GaussianBlur(max(0.5, width / 4)))
    opacity = np.asarray(soft, np.float32) * np.float32(0.45 / 255)
    return np.asarray(pixels + opacity * np.clip(np.float32(LEAD) - pixels, 0, None), np.float32)


def without_marks(pixels: Pixels, rng: Rng) -> Pixels:
    """Take out of the four corners what looks like lead or letters, and fill it with what is around.

    Looked at are squares of 20 % of the shorter side. A mark is thinner than 5 % of it, lighter than what lies around
    by a quarter of the range or more, and lies in the square as a whole: bones run on. A film without marks stays as
    it is.
    """
    square = max(2, round(_CORNER_SHARE * min(pixels.shape)))
    thin = max(3, round(_MARK_SHARE * min(pixels.shape)))
    marks = np.zeros(pixels.shape, np.bool_)
    for turns in range(4):  # each corner becomes the upper left one
        marks_here, film = np.rot90(marks, turns), np.rot90(pixels, turns)
        marks_here[:square, :square] = _marks(film[:square, :square], thin)
    return smooth_fill(pixels, ~widened(marks, 0.01), rng) if marks.any() else pixels.copy()


def _marks(corner: Pixels, thin_px: int) -> NDArray[np.bool_]:
    """Marks in an upper left corner (square, square)."""
    from scipy import ndimage

    light = corner - ndimage.grey_opening(corner, (thin_px, thin_px), mode="nearest") > _MARK_CONTRAST
    parts, _ = ndimage.label(light, np.ones((3, 3)))
    running_on = np.union1d(parts[-1], parts[:, -1])
    return np.asarray(light & ~np.isin(parts, running_on))


def edit_variants(limit: int | None = LIMIT) -> tuple[Variant, ...]:
    """The variants that :func:`judge_edits` needs, of at most ``limit`` films each."""
    return tuple(Variant(name, change, views=VIEWS, limit=limit) for name, change in _EDITS.items())


def _marking(corner: Corner, strength: float = STRENGTH) -> Callable[[Film, Rng], Pixels]:
    return lambda film, rng: marker_at(film.pixels, corner, rng, strength)


_EDITS: dict[str, Callable[[Film, Rng], Pixels]] = {
    CONTROL: _marking("upper left", 0.0),
    **{f"a letter, {corner}": _marking(corner) for corner in CORNERS},
    "a line of text": lambda film, rng: text(film.pixels, STRENGTH, rng),
    "a dark border": lambda film, rng: border(film.pixels, STRENGTH, rng),
    "a tube": lambda film, rng: tube(film.pixels, rng),
    "marks taken out": lambda film, rng: without_marks(film.pixels, rng),
}


@dataclass(frozen=True)
class _Moved:
    """How one edit moves one label: share of changed decisions, mean size of the change of p, mean change."""

    edit: str
    label: str
    flips: Estimate
    change: Estimate
    shift: Estimate

    def answer(self, limits: Thresholds) -> Answered:
        """The verdict on this edit alone."""
        flips, change = self.flips.value or 0.0, self.change.value or 0.0
        if flips > limits.t5_flips_fail or change > limits.t5_change_fail:
            return "FAIL"
        return "PASS" if flips <= limits.t5_flips_pass and change <= limits.t5_change_pass else "WARN"

    def badness(self, limits: Thresholds) -> float:
        """How far it goes towards failing; the worst edit has the most."""
        return max(
            (self.flips.value or 0.0) / max(limits.t5_flips_fail, 1e-9),
            (self.change.value or 0.0) / max(limits.t5_change_fail, 1e-9),
        )


def judge_edits(readings: Readings, limits: Thresholds) -> tuple[AuditLine, dict[str, bytes]]:
    """Answer T5 from what the reader said of :func:`edit_variants`: the worst edit of the worst label decides.

    FAIL above the limit of changed decisions or of the mean change of probability, PASS up to both lower limits.
    Returns the line and its pictures, PNG bytes by name.
    """
    pairs = {name: readings.pair(name) for name in _EDITS}
    n = len(pairs[CONTROL].rows)
    moved = [_move(edit, pair, readings) for edit, pair in pairs.items() if edit != CONTROL]
    ranked = sorted((one for of_edit in moved for one in of_edit), key=lambda one: -one.badness(limits))
    error = float(np.abs(pairs[CONTROL].after - pairs[CONTROL].before).max(initial=0.0))
    line = AuditLine(
        code=CODE,
        question=QUESTIONS[CODE],
        answer="NOT ASSESSABLE",
        sentence=f"{n} films are too few to say whether decisions change.",
        n=n,
        thresholds=limits.of("t5_flips_pass", "t5_flips_fail", "t5_change_pass", "t5_change_fail"),
        cure=f"Assess at least {MINIMUM_FILMS} films.",
        notes=_notes(readings, error),
    )
    if error > 0:
        told = "The reader answers the same film differently when asked twice, so that no edit can be judged."
        return line.model_copy(update={"sentence": told, "cure": "Read on one thread, without randomness."}), {}
    if n < MINIMUM_FILMS:
        return line, {}
    answer = worst(one.answer(limits) for one in ranked)
    pictures = _pictures(readings, ranked, pairs)
    return illustrated(
        line,
        pictures,
        answer=answer,
        sentence=_sentence(ranked[0], len(moved), answer),
        figures=tuple(figure for of_edit in moved for one in _shown(of_edit, limits) for figure in _figures(one)),
        cure="" if answer == "PASS" else _CURE,
    )


def _move(edit: str, pair: Pair, readings: Readings) -> list[_Moved]:
    flipped = called(readings.reader, pair.before) != called(readings.reader, pair.after)
    change = pair.after - pair.before
    resampler = Resampler(len(pair.rows), pair.patients)
    moved = []
    for number, label in enumerate(readings.reader.labels):
        one = change[:, number]

        def means(weights: NDArray[np.float64], one: NDArray[np.float64] = one) -> dict[str, NDArray[np.float64]]:
            total = weights.sum(axis=1)
            return {"change": weights @ np.abs(one) / total, "shift": weights @ one / total}

        found = bootstrap(means, resampler)
        flips = proportion(flipped[:, number], pair.patients)
        moved.append(_Moved(edit, label, flips, found["change"], found["shift"]))
    return moved


def _sentence(worst_: _Moved, edits: int, answer: Answered) -> str:
    told = (
        f"{worst_.flips.value or 0:.1%} of the decisions on {worst_.label} change, and its probability by "
        f"{worst_.change.value or 0:.3f} on average"
    )
    if answer == "PASS":
        return f"None of {edits} edits moves the answer much; with the worst, {worst_.edit}, {told}."
    return f"With {worst_.edit}, which says nothing of the patient, {told}."


def _shown(of_edit: list[_Moved], limits: Thresholds) -> list[_Moved]:
    """All labels of an edit; of many, the one that it moves most."""
    few = len(of_edit) <= _LABELS_SHOWN
    return of_edit if few else [max(of_edit, key=lambda one: one.badness(limits))]


def _figures(one: _Moved) -> Iterator[AuditFigure]:
    yield AuditFigure(what=f"{one.edit}: decisions on {one.label} that change", estimate=one.flips)
    yield AuditFigure(what=f"{one.edit}: mean change of p({one.label}), either way", estimate=one.change)
    yield AuditFigure(what=f"{one.edit}: mean change of p({one.label}), towards it if above 0", estimate=one.shift)


def _notes(readings: Readings, error: float) -> tuple[str, ...]:
    views = min(VIEWS, readings.reader.card.views)
    notes = [
        f"Read with {views} of the card's {readings.reader.card.views} views, edited and untouched films alike.",
        f"Control: a letter of no size changes the probability by {error:g} at most.",
        "Letters stand 2-8 % from the edges and are 6 % of the shorter side high; the border takes 5 % of a side on "
        "average; the tube is a thin bright line from the upper edge inwards.",
    ]
    if readings.reader.guide is not None:
        notes.append("The reader found its organ anew in each edited film, as it would in use.")
    return tuple(notes)


def _pictures(readings: Readings, ranked: list[_Moved], pairs: Mapping[str, Pair]) -> Pictures:
    """Of the worst edits, the film that each moves most, before and after: (caption, PNG) by name.

    Films whose decision changes come first.
    """
    pictures: dict[str, tuple[str, bytes]] = {}
    edits: list[str] = []
    for one in ranked:
        if one.edit in edits or len(edits) == _PICTURES:
            continue
        edits.append(one.edit)
        pair, number = pairs[one.edit], readings.reader.labels.index(one.label)
        flipped = (called(readings.reader, pair.before) != called(readings.reader, pair.after))[:, number]
        before, after = pair.before[:, number], pair.after[:, number]
        at = int(np.argmax(np.abs(after - before) + flipped))
        films = readings.pixels(int(pair.rows[at]), [CONTROL, one.edit])
        words = (f"before: {before[at]:.3f}", f"after: {after[at]:.3f}")
        decided = "the decision changes" if flipped[at] else "the decision stays"
        name = f"t5-{len(edits)}.png"
        caption = f"{one.edit}: probability of {one.label} before and after; {decided}"
        pictures[name] = (caption, strip_png(list(zip(films, words, strict=True))))
    return pictures
