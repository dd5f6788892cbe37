"""T7 to T9, may the heat maps be believed: about this reader, faithful and stable, and in the right place.

Judged on films of the assessed split that the reader calls positive, one of each patient, for the label with the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wetread.audit.result import QUESTIONS, Answered, AuditExample, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import OrganSource
from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import load_masks
from wetread.errors import ExplanationFailed
from wetread.explain.assess import AssessSettings, MethodStatus, QualitySummary, assess, method_status, summarise
from wetread.explain.base import Explanation, Method, Options, RawMap, Target
from wetread.explain.cam import explain_batch
from wetread.explain.dispatch import maker_of
from wetread.explain.overlay import overlay_png
from wetread.explain.score import Score
from wetread.imaging import load_image
from wetread.models.predict import Reader
from wetread.training.data import Progress
from wetread.types import Estimate, Image

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JUDGED", "Positives", "faithful_line", "place_line", "positives_of", "randomised_line"]

JUDGED: tuple[Method, ...] = ("gradcam", "gradcam++", "hirescam", "gradient-x-input")
"""Methods that the randomisation test is run on: those that cost little enough to be made for every read."""

DEFAULT: Method = "gradcam"
"""The method of reads."""

_FILMS = 40
_LIME_FILMS, _LIME_SAMPLES = 3, 1200
"""LIME is judged on few films: each costs as much as all other questions about heat maps."""
_SHOWN = 2
_MINIMUM = 20


@dataclass(frozen=True)
class Positives:
    """Films that the reader calls positive for ``label``: (N, 1, height, width), their images, organs and patients."""

    label: str
    batch: Tensor
    images: tuple[Image, ...]
    organs: tuple[NDArray[np.bool_] | None, ...]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def positives_of(
    reader: Reader,
    manifest: Manifest,
    predictions: pd.DataFrame,
    organ: OrganSource | None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Positives:
    """Decode up to 40 films with the most often called label, and find their organ.

    ``predictions``: of the assessed split, as ``predict_manifest`` gives them.
    """
    label, rows = _most_called(reader, predictions, seed)
    images: list[Image] = []
    organs: list[NDArray[np.bool_] | None] = []
    for done, name in enumerate(rows["image"], 1):
        image = load_image(manifest.path_of(str(name)))
        images.append(image)
        organs.append(_organ(manifest, str(name), image, organ))
        if progress is not None:
            progress("explaining films", done, len(rows))
    batch = reader.prepare(images) if images else torch.zeros(0, 1, reader.input.height, reader.input.width)
    return Positives(label, batch, tuple(images), tuple(organs), tuple(map(str, rows["patient"])))


def _most_called(reader: Reader, predictions: pd.DataFrame, seed: int) -> tuple[str, pd.DataFrame]:
    best: tuple[str, pd.DataFrame] | None = None
    for label in reader.labels:
        point = reader.card.operating_point(label)
        called = predictions[predictions[f"probability_{label}"] >= (0.5 if point is None else point.threshold)]
        called = called.assign(patient=called["patient"].fillna(called["image"]))
        called = called.sample(frac=1, random_state=seed).drop_duplicates("patient").head(_FILMS)
        if best is None or len(called) > len(best[1]):
            best = label, called
    assert best is not None  # noqa: S101  a reader has labels
    return best


def _organ(manifest: Manifest, name: str, image: Image, organ: OrganSource | None) -> NDArray[np.bool_] | None:
    """The organ as the segmenter draws it, else as it was annotated; None where neither knows it."""
    if organ is None:
        return None
    if organ.finder is not None:
        mask = organ.finder.unseen(image.facts.sha256).mask(image)
        return mask if mask.any() else None
    row = manifest.table[manifest.table["path"] == name].iloc[0]
    found = load_masks(manifest, row, [organ.organ], *image.pixels.shape).get(organ.organ)
    return found if found is not None and found.any() else None


def randomised_line(reader: Reader, films: Positives) -> tuple[AuditLine, dict[str, MethodStatus]]:
    """Return T7 and the status of each method: whether its maps change when the weights are randomised."""
    line = {"code": "T7", "question": QUESTIONS["T7"], "n": len(films)}
    if len(films) < _MINIMUM:
        return AuditLine(**line, **_too_few(films)), {}
    found = method_status(reader, films.batch, JUDGED, films.label, patients=films.patients)
    status = found[DEFAULT]
    answers: dict[str, Answered] = {"passes": "PASS", "fails": "FAIL", "not assessable": "NOT ASSESSABLE"}
    hidden = [method for method, one in found.items() if one.verdict == "fails"]
    notes = [f"{method}: {one.sentence}" for method, one in found.items()]
    if hidden:
        notes.append(f"Hidden in reads and reports of this reader: {', '.join(hidden)}.")
    return AuditLine(
        **line,
        answer=answers[status.verdict],
        sentence=f"{DEFAULT}, the method of reads: {status.sentence}",
        notes=tuple(notes),
    ), found


def _too_few(films: Positives) -> dict[str, str]:
    return {
        "answer": "NOT ASSESSABLE",
        "sentence": f"Only {len(films)} patients are called positive; {_MINIMUM} are needed.",
        "cure": "audit on more images",
    }


def faithful_line(reader: Reader, films: Positives, limits: Thresholds) -> AuditLine:
    """Return T8: whether erasing what is hot lowers the score more than erasing anything; and how stable LIME is."""
    names = ("t8_better_than_random", "t8_jaccard", "t8_r2")
    line = {"code": "T8", "question": QUESTIONS["T8"], "n": len(films), "thresholds": limits.of(*names)}
    if len(films) < _MINIMUM:
        return AuditLine(**line, **_too_few(films))
    settings = AssessSettings(sensitivity_samples=0)
    try:
        found = summarise(assess(reader, films.batch, Target(films.label, DEFAULT), settings=settings), films.patients)
    except ExplanationFailed as failure:
        return AuditLine(**line, answer="NOT ASSESSABLE", sentence=str(failure))
    answer, sentence = _faithful(found, limits)
    figures, stable, notes = _lime(reader, films, limits)
    if answer == "PASS" and stable is False:
        answer, sentence = "WARN", f"{sentence} LIME is not stable for this reader."
    return AuditLine(
        **line, answer=answer, sentence=sentence, figures=(*_deletions(found), *figures), notes=tuple(notes)
    )


def _faithful(found: QualitySummary, limits: Thresholds) -> tuple[Answered, str]:
    """What deletion says: it has to beat random order for most fills, because a fill can add evidence itself."""
    deletions = [one for one in found.faithfulness if one.direction == "deletion"]
    better = [
        one
        for one in deletions
        if (one.above_random.value or 0) >= limits.t8_better_than_random and one.p is not None and one.p < 0.01
    ]
    reversed_ = [one for one in deletions if one.above_random.high is not None and one.above_random.high < 0.5]
    shares = ", ".join(f"{one.above_random.value:.0%} ({one.fill})" for one in deletions)
    if 2 * len(reversed_) > len(deletions):
        return "FAIL", f"Erasing what the map calls hot matters less than erasing anything: better in {shares}."
    if 2 * len(better) > len(deletions):
        return "PASS", f"Erasing what is hot lowers the score more than random places in {shares} of the films."
    return "WARN", f"Erasing what is hot lowers the score more than random places in only {shares} of the films."


def _deletions(found: QualitySummary) -> list[AuditFigure]:
    return [
        AuditFigure(what=f"{one.direction}, {one.fill} fill: above random order", estimate=one.above_random)
        for one in found.faithfulness
    ]


def _lime(reader: Reader, films: Positives, limits: Thresholds) -> tuple[list[AuditFigure], bool | None, list[str]]:
    """Figures of LIME on a few films, whether it is stable there (None: not known), and what has to be said of it."""
    options = Options(samples=_LIME_SAMPLES, accept_weak=True)
    raws = maker_of("lime")(Score(reader, films.label), films.batch[:_LIME_FILMS], options)
    made = [raw for raw in raws if isinstance(raw, RawMap)]
    refused = [str(raw) for raw in raws if not isinstance(raw, RawMap)]
    notes = [f"LIME refused {len(refused)} of {len(raws)} films: {refused[0]}"] if refused else []
    if not made:
        return [], None, notes
    figures, stable = [], True
    for name, what, least in (("jaccard", "Jaccard of two seeds", limits.t8_jaccard), ("r2", "R2", limits.t8_r2)):
        values = [raw.details[name] for raw in made]
        mean = float(np.mean(values))
        spread = Estimate(
            value=mean, low=min(values), high=max(values), n=len(values), note="smallest and largest film"
        )
        figures.append(AuditFigure(what=f"LIME: {what}", estimate=spread))
        stable = stable and mean >= least
    return figures, stable, notes


def place_line(reader: Reader, films: Positives, limits: Thresholds) -> tuple[AuditLine, dict[str, bytes]]:
    """Return T9: how much of the heat lies in the organ, against what the organ's size alone would give."""
    names = ("t9_lift_pass", "t9_mass_pass", "t9_lift_fail")
    line = {"code": "T9", "question": QUESTIONS["T9"], "thresholds": limits.of(*names)}
    known = [i for i, organ in enumerate(films.organs) if organ is not None]
    if len(known) < _MINIMUM:
        sentence = f"The organ is known in {len(known)} positive films; {_MINIMUM} are needed."
        cure = "give masks, or name the segmenter that finds the organ with --segmenter"
        return AuditLine(**line, n=len(known), answer="NOT ASSESSABLE", sentence=sentence, cure=cure), {}
    masks = [films.organs[i] for i in known]
    patients = [films.patients[i] for i in known]
    settings = AssessSettings(curves=None, sensitivity_samples=0)
    windows = _windows(reader, films, known)
    try:
        each = assess(
            reader, films.batch[known], Target(films.label, DEFAULT), masks, windows=windows, settings=settings
        )
    except ExplanationFailed as failure:
        return AuditLine(**line, n=len(known), answer="NOT ASSESSABLE", sentence=str(failure)), {}
    found = summarise(each, patients).localisation
    assert found is not None  # noqa: S101  every film here has a mask
    lift, mass = found.lift.value or 0.0, found.mass.value or 0.0
    answer: Answered = "WARN"
    if lift >= limits.t9_lift_pass and mass >= limits.t9_mass_pass:
        answer = "PASS"
    elif lift <= limits.t9_lift_fail:
        answer = "FAIL"
    examples, pictures = _overlays(reader, films, known)
    return AuditLine(
        **line,
        n=len(known),
        answer=answer,
        sentence=f"{mass:.0%} of the heat lies in the organ, {lift:.1f} times what its size alone would give.",
        figures=tuple(
            AuditFigure(what=what, estimate=estimate)
            for what, estimate in (
                ("lift in the organ", found.lift),
                ("share of heat in the organ", found.mass),
                ("hottest place in the organ", found.hit),
            )
        ),
        examples=examples,
        notes=("Of the organ, not of the finding: where in the organ the finding lies is not asked.",),
    ), pictures


def _windows(reader: Reader, films: Positives, chosen: Sequence[int]) -> list[tuple[int, int, int, int] | None] | None:
    images = [films.images[i] for i in chosen]
    return reader.windows(reader.organ_masks(images))


def _overlays(
    reader: Reader, films: Positives, known: Sequence[int]
) -> tuple[tuple[AuditExample, ...], dict[str, bytes]]:
    """Two films with their heat, as reads show them."""
    chosen = list(known[:_SHOWN])
    batch = films.batch[chosen]
    sizes = [(films.images[i].pixels.shape[0], films.images[i].pixels.shape[1]) for i in chosen]
    found = explain_batch(
        reader, reader.forward(batch), Target(films.label, DEFAULT), sizes, batch, _windows(reader, films, chosen)
    )
    examples: list[AuditExample] = []
    pictures: dict[str, bytes] = {}
    for i, one in zip(chosen, found, strict=True):
        if isinstance(one, Explanation):
            name = f"t9-{len(examples) + 1}.png"
            pictures[name] = overlay_png(films.images[i].pixels, one, longest=320)
            examples.append(AuditExample(picture=name, caption=f"Heat for {films.label}, as a read shows it."))
    return tuple(examples), pictures
