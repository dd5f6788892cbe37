"""T2, whether an image shows where it comes from and what that has to do with the label; and the data's part of T6.

T6 asks whether what is learned from some sources holds in one that was left out.

Decided here: a source is a shortcut only if it can be told *and* goes with the label (Zech et al. 2018, doi
10.1371/journal.pmed.1002683). Told means outside the organ, or from size, depth and format of the file. Sources of
fewer than :data:`~wetread.audit.probes.MINIMUM_PATIENTS` patients are judged together as *other sources*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wetread.audit.background import Pictures
from wetread.audit.features import GRID
from wetread.audit.material import Material
from wetread.audit.pictures import beside, film_rgb, png
from wetread.audit.probes import (
    CONTROLS,
    MINIMUM_PATIENTS,
    Views,
    assessable,
    learned,
    out_of_fold,
    patient_folds,
    told_each,
)
from wetread.audit.result import QUESTIONS, Answered, AuditExample, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.views import Hidden, background_views, fact_views, frame_views, full_views, hidden_area
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import Resampler, bootstrap, unbounded
from wetread.evaluation.metrics import weighted_auroc
from wetread.types import Estimate

__all__ = ["OTHERS", "SourceDrop", "cramers_v", "grouped_sources", "outside_sources", "sources_line"]

Floats = NDArray[np.float64]
OTHERS = "other sources"
_CODE = "T2"
_MOST = 8
"""Sources that are asked for one by one; the rest count as *other sources*."""
_ORDER: tuple[Answered, ...] = ("FAIL", "WARN", "NOT ASSESSABLE", "PASS")
_SHOWN = 3
_BATCH = 32
_CURE = (
    "collect both classes from every source, weigh or sample so that source and label are independent, or hide what is "
    "outside the organ; then look at T6: whether the reader holds in a source that it has not seen"
)


@dataclass(frozen=True)
class SourceDrop:
    """AUROC of cheap probes in one source: learned from all sources (other patients), and from the others alone.

    ``drop``: the first less the second on the same n images, bootstrap over patients. ``reason``: why there are none.
    """

    source: str
    label: str
    n: int
    within: Estimate
    outside: Estimate
    drop: Estimate
    reason: str = ""


def grouped_sources(material: Material) -> tuple[tuple[str, ...], NDArray[np.intp]] | None:
    """Names of the sources and the source of each image (N,), -1 where unknown; None for fewer than two.

    The largest come first; those with too few patients, and all after the eighth, are one.
    """
    if material.sources is None:
        return None
    names = [str(name) for name in np.unique(material.sources) if name]
    patients = {name: np.unique(material.patients[material.sources == name]).size for name in names}
    large = sorted((n for n in names if patients[n] >= MINIMUM_PATIENTS), key=lambda n: (-patients[n], n))[:_MOST]
    codes = np.full(len(material), -1, np.intp)
    for number, name in enumerate(large):
        codes[material.sources == name] = number
    rest = (material.sources != "") & (codes < 0)
    kept = list(large)
    if np.unique(material.patients[rest]).size >= MINIMUM_PATIENTS:
        codes[rest] = len(large)
        kept.append(OTHERS)
    return (tuple(kept), codes) if len(kept) >= 2 else None


def sources_line(material: Material, thresholds: Thresholds, seed: int = 0) -> tuple[AuditLine, Pictures]:
    """Answer T2: told and tied fails, not told or not tied passes."""
    limits = thresholds.of(
        "t2_source_auroc_pass", "t2_source_auroc_fail", "t2_association_pass", "t2_sorting_auroc_fail"
    )
    grouped = grouped_sources(material)
    if grouped is None or not material.labels:
        reason = "fewer than two sources with enough patients" if grouped is None else "the data set has no labels"
        line = AuditLine(
            code=_CODE,
            question=QUESTIONS[_CODE],
            answer="NOT ASSESSABLE",
            sentence=f"Not assessable: {reason}.",
            n=len(material),
            thresholds=limits,
            cure="name the source of each image in column source",
        )
        return line, {}
    names, codes = grouped
    known = codes >= 0
    part, codes = material.take(known), codes[known]
    hidden = hidden_area(part)
    probes = _told_apart(part, codes, len(names), hidden, seed)
    ties = [_tie(part, codes, names, index, seed) for index in range(len(part.labels))]
    answers = [_answer(probes["all"].value, tie, thresholds) for tie in ties]
    worst = min(range(len(ties)), key=lambda i: (_ORDER.index(answers[i]), -(ties[i].sorting.value or 0)))
    examples, pictures = _evidence(part, codes, names, hidden)
    line = AuditLine(
        code=_CODE,
        question=QUESTIONS[_CODE],
        answer=answers[worst],
        sentence=_sentence(answers[worst], probes["all"], ties[worst]),
        n=len(part),
        figures=_figures(probes, ties[worst]),
        thresholds=limits,
        examples=examples,
        notes=_notes(part, names, codes, ties[worst], hidden, answers),
        cure="" if answers[worst] == "PASS" else _CURE,
    )
    return line, pictures


@dataclass(frozen=True)
class _Tie:
    """What the source has to do with one label."""

    label: str
    association: Estimate
    sorting: Estimate
    table: NDArray[np.intp]


def _told_apart(
    part: Material, codes: NDArray[np.intp], count: int, hidden: Hidden | None, seed: int
) -> dict[str, Estimate]:
    """AUROC of telling the sources apart, one against the rest, their mean; by what was seen.

    ``all`` is the one that decides: everything outside the organ and the facts of the file, as one score.
    """
    frame, facts = frame_views(part), fact_views(part, content=False)
    bytes_too = {f"{name} with bytes": view for name, view in fact_views(part, content=True).items()}
    around = {} if hidden is None else background_views(part, hidden, seed)
    groups: dict[str, Views] = {
        "all": {**frame, **around, **facts},
        "outside": {**frame, **around},
        "frame": frame,
        "facts": bytes_too,
        "full": full_views(part, hidden, around),
    }
    return _one_against_rest(groups, codes, count, part.patients, seed)


def _one_against_rest(
    groups: dict[str, Views], codes: NDArray[np.intp], count: int, patients: NDArray[np.str_], seed: int
) -> dict[str, Estimate]:
    """Mean over sources of the AUROC against all others; two sources need it once."""
    views = {name: features for group in groups.values() for name, features in group.items()}
    names = {name: tuple(group) for name, group in groups.items()}
    truths = [codes == number for number in range(1 if count == 2 else count)]
    asked = [told_each(views, names, truth, patients, seed, controls=CONTROLS) for truth in truths]
    if count == 2:
        return {name: found.auroc for name, found in asked[0].items()} | {"control": asked[0]["all"].control}

    def mean(weights: Floats) -> Mapping[str, Floats]:
        return {
            name: np.mean(
                [weighted_auroc(one[name].scores, one[name].targets.astype(np.float64), weights) for one in asked], 0
            )
            for name in groups
        }

    controls = replace(asked[0]["all"], chance=np.mean([one["all"].chance for one in asked], axis=0)).control
    return bootstrap(mean, Resampler(len(codes), patients, seed=seed)) | {"control": controls}


def _tie(part: Material, codes: NDArray[np.intp], names: tuple[str, ...], index: int, seed: int) -> _Tie:
    known = np.isfinite(part.targets[:, index])
    truth, where, patients = part.targets[known, index] > 0, codes[known], part.patients[known]
    table = np.stack([np.bincount(where[truth == value], minlength=len(names)) for value in (True, False)], axis=1)
    reason = assessable(truth, patients)
    if reason:
        none = unbounded(None, int(known.sum()), reason)
        return _Tie(part.labels[index], none, none, table)
    cells = np.eye(len(names))[where][:, :, None] * np.stack([truth, ~truth], axis=1)[:, None]

    def association(weights: Floats) -> Mapping[str, Floats]:
        tables = np.tensordot(weights, cells, axes=1)
        return {"v": np.array([cramers_v(one) for one in tables])}

    resampler = Resampler(len(truth), patients, resamples=400, seed=seed)
    v = bootstrap(association, resampler)["v"]
    order = _places(truth, where, patient_folds(truth, patients, seed))
    return _Tie(part.labels[index], v, auroc_estimate(order, truth, groups=patients), table)


def _places(truth: NDArray[np.bool_], codes: NDArray[np.intp], fold: NDArray[np.int64]) -> Floats:
    """Place of each image's source by its share of positives in the other folds: what sorting by source alone knows.

    The place and not the share, which is a little lower in a fold with more positives and would sort against itself.
    """
    scores = np.zeros(len(truth))
    for number in np.unique(fold):
        rest = fold != number
        known = np.bincount(codes[rest], minlength=codes.max() + 1)
        positive = np.bincount(codes[rest], weights=truth[rest], minlength=codes.max() + 1)
        share = np.where(known > 0, positive / np.maximum(known, 1), truth[rest].mean())
        place = np.unique(share, return_inverse=True)[1]
        scores[~rest] = place[codes[~rest]]
    return scores


def cramers_v(table: NDArray[np.generic]) -> float:
    """Association of the rows and columns of a table of counts, 0 to 1, corrected for chance.

    Cramer 1946; the correction of Bergsma 2013, doi 10.1016/j.jkss.2012.10.002, without which small samples of many
    sources always seem tied. 0 where only one row or column is filled.
    """
    counts = np.asarray(table, np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    n, (rows, columns) = counts.sum(), counts.shape
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    phi = float(((counts - by_chance) ** 2 / by_chance).sum() / n) - (rows - 1) * (columns - 1) / (n - 1)
    width = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(max(0.0, phi) / width)) if width > 0 else 0.0


def _answer(area: float | None, tie: _Tie, thresholds: Thresholds) -> Answered:
    if area is None or tie.sorting.value is None or tie.association.value is None:
        return "NOT ASSESSABLE"
    chance = tie.sorting.low is not None and tie.sorting.low <= 0.5
    tied = tie.sorting.value >= thresholds.t2_sorting_auroc_fail and not chance
    if area >= thresholds.t2_source_auroc_fail and tied:
        return "FAIL"
    free = area < thresholds.t2_source_auroc_pass or tie.association.value < thresholds.t2_association_pass
    return "PASS" if free else "WARN"


def _sentence(answer: Answered, source: Estimate, tie: _Tie) -> str:
    if answer == "NOT ASSESSABLE":
        return f"Not assessable for '{tie.label}': {tie.sorting.note or 'no figures'}."
    can = f"The source of an image can be told without the organ (AUROC {_shown(source)})"
    bound = f"and goes with '{tie.label}': sorting by source alone gives AUROC {_shown(tie.sorting)}"
    texts = {
        "FAIL": f"{can} {bound}.",
        "WARN": f"{can}; Cramer's V with '{tie.label}' is {_shown(tie.association)}, and sorting by source alone gives "
        f"AUROC {_shown(tie.sorting)}.",
        "PASS": f"The source is told with AUROC {_shown(source)} without the organ, and its tie to '{tie.label}' "
        f"(Cramer's V) is {_shown(tie.association)}: no shortcut by source.",
    }
    return texts[answer]


def _shown(estimate: Estimate) -> str:
    value = "-" if estimate.value is None else f"{estimate.value:.3f}"
    return value if estimate.low is None else f"{value} ({estimate.low:.3f} to {estimate.high:.3f})"


_NAMES = {
    "all": "AUROC of the source from what lies outside the organ and the facts of the file",
    "outside": "AUROC of the source from what lies outside the organ",
    "frame": "AUROC of the source from the frame alone (outer 5 %)",
    "facts": "AUROC of the source from the facts of the file alone, bytes included",
    "full": "AUROC of the source from the whole image",
    "control": "control: AUROC of shuffled sources",
}


def _figures(probes: dict[str, Estimate], tie: _Tie) -> tuple[AuditFigure, ...]:
    return (
        *(AuditFigure(what=what, estimate=probes[key]) for key, what in _NAMES.items()),
        AuditFigure(what=f"Cramer's V of source and '{tie.label}', corrected for chance", estimate=tie.association),
        AuditFigure(what=f"AUROC of '{tie.label}' by sorting by source alone", estimate=tie.sorting),
    )


def _notes(
    part: Material,
    names: tuple[str, ...],
    codes: NDArray[np.intp],
    tie: _Tie,
    hidden: Hidden | None,
    answers: list[Answered],
) -> tuple[str, ...]:
    rows = "; ".join(f"{name}: {yes} of {yes + no}" for name, (yes, no) in zip(names, tie.table, strict=True))
    notes = [f"images with '{tie.label}' by source: {rows}"]
    if len(names) > 2:
        notes.append("AUROC of a source is the mean over sources of one against the rest")
    if hidden is None:
        notes.append(f"where the organ lies is not known ({part.organ_from}): only frame and file were looked at")
    if len(answers) > 1:
        others = "; ".join(f"{label}: {answer}" for label, answer in zip(part.labels, answers, strict=True))
        notes.append(f"{len(answers)} labels were asked and the worst decides: {others}")
    return tuple(notes)


def _evidence(
    part: Material, codes: NDArray[np.intp], names: tuple[str, ...], hidden: Hidden | None
) -> tuple[tuple[AuditExample, ...], Pictures]:
    """The mean film and two films of each of the first sources, with the organ hidden."""
    area = None if hidden is None else hidden.area
    examples, pictures = [], {}
    for number, name in enumerate(names[:_SHOWN]):
        rows = np.flatnonzero(codes == number)
        mean = np.rint(part.grey[rows].mean(axis=0)).astype(np.uint8)
        films = [film_rgb(mean, area), *(film_rgb(part.grey[i], area) for i in rows[[0, len(rows) // 2]])]
        key = f"T2-source-{number + 1}.png"
        pictures[key] = png(beside(films))
        examples.append(AuditExample(picture=key, caption=f"{name}: mean of {len(rows)} films, and two of them"))
    return tuple(examples), pictures


def outside_sources(material: Material, seed: int = 0) -> tuple[SourceDrop, ...]:
    """Leave each source out: AUROC of cheap probes inside it, learned with and without other patients of it.

    The probes see embeddings of the frozen encoder that the package carries, at :data:`~wetread.audit.features.GRID`
    pixels. Empty for fewer than two sources; a source without both classes has a ``reason`` and no figures.
    """
    grouped = grouped_sources(material)
    if grouped is None:
        return ()
    names, codes = grouped
    embedding, group = _embedded(material), {"all": ("embedding",)}
    found = []
    for index, label in enumerate(material.labels):
        known = (codes >= 0) & np.isfinite(material.targets[:, index])
        views, truth, patients = (
            {"embedding": embedding[known]},
            material.targets[known, index] > 0,
            material.patients[known],
        )
        mixed = truth.any() and not truth.all()
        fold = patient_folds(truth, patients, seed) if mixed else None
        within = None if fold is None else out_of_fold(views, group, truth[:, None], fold)["all"][:, 0]
        for number, name in enumerate(names):
            here = codes[known] == number
            inside, away, drop, reason = _drop(views, truth, patients, here, within, seed)
            found.append(SourceDrop(name, label, int(here.sum()), inside, away, drop, reason))
    return tuple(found)


def _drop(
    views: Views,
    truth: NDArray[np.bool_],
    patients: NDArray[np.str_],
    here: NDArray[np.bool_],
    within: Floats | None,
    seed: int,
) -> tuple[Estimate, Estimate, Estimate, str]:
    """Inside a source, from the others alone, and the difference; and why there is none."""
    n = int(here.sum())
    reason = assessable(truth[here], patients[here]) or assessable(truth[~here], patients[~here])
    if reason or within is None:
        none = unbounded(None, n, reason or "one class only")
        return none, none, none, reason or "one class only"
    group = {"all": tuple(views)}
    away = learned(views, group, truth[:, None], np.flatnonzero(~here), np.flatnonzero(here))["all"][:, 0]
    known, wanted, whose = within[here], truth[here], patients[here]
    resampler = Resampler(n, whose, seed=seed)

    def drop(weights: Floats) -> Mapping[str, Floats]:
        y = wanted.astype(np.float64)
        return {"drop": weighted_auroc(known, y, weights) - weighted_auroc(away, y, weights)}

    inside, alone = (auroc_estimate(scores, wanted, groups=whose) for scores in (known, away))
    return inside, alone, bootstrap(drop, resampler)["drop"], ""


def _embedded(material: Material) -> NDArray[np.float32]:
    """Embeddings float32 (N, D) of the whole images, stretched to the grid."""
    import torch

    from wetread.models.backbones import load_encoder_weights, make_encoder
    from wetread.models.card import InputSpec
    from wetread.models.inputs import normalise
    from wetread.models.registry import EMBEDDED

    spec = InputSpec(height=GRID, width=GRID, fit="stretch")
    encoder = make_encoder(EMBEDDED, spec, lean=True).eval()
    load_encoder_weights(encoder, EMBEDDED, None)
    found = []
    with torch.inference_mode():
        for start in range(0, len(material), _BATCH):
            batch = torch.from_numpy(material.grey[start : start + _BATCH].astype(np.float32) / 255)[:, None]
            found.append(encoder(normalise(batch, spec)).numpy())
    return np.concatenate(found)
