"""T6: whether a reader holds in a source (a hospital, a device) that it has not seen.

Decided here: which sources a reader has seen is known only where the data set is the one its card names by hash;
another data set is unseen as a whole. One source proves nothing, and is never a pass. The loss is against the
sources that were seen, on other patients, so the two AUROCs are independent and the interval is that of a difference.
That it holds in one more source is necessary and not sufficient (DeGrave et al., Nature Machine Intelligence 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import worst
from wetread.datasets.manifest import Manifest
from wetread.errors import WetreadError
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import unbounded
from wetread.models.card import ReaderCard
from wetread.provenance import rows_sha256
from wetread.training.parts import fold_pairs, used_rows
from wetread.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["difference", "judge_sources", "seen_sources"]

CODE = "T6"
_VALIDATION = "the reader's own validation"


def judge_sources(
    predictions: pd.DataFrame, card: ReaderCard, manifest: Manifest, limits: Thresholds
) -> tuple[AuditLine, dict[str, bytes]]:
    """Answer T6 from a table of predictions with a column ``source``, as ``predict_manifest`` makes it.

    FAIL: in some unseen source the AUROC of some label is lower by more than the limit. PASS: all losses are small
    and their intervals exclude the limit of failure. NOT ASSESSABLE with fewer than two sources, or none unseen.
    """
    line = AuditLine(
        code=CODE,
        question=QUESTIONS[CODE],
        answer="NOT ASSESSABLE",
        sentence="",
        n=len(predictions),
        thresholds=limits.of("t6_drop_pass", "t6_drop_fail"),
        cure="Assess it on a data set from elsewhere, with a column `source`.",
    )
    sources, seen, why = _told(predictions, card, manifest)
    if why:
        return line.model_copy(update={"sentence": why}), {}
    lost, few = _losses(predictions, card, sources, seen)
    notes = [
        "Compared with films of "
        + (f"sources that it was trained on: {', '.join(sorted(seen))}." if seen else f"{_VALIDATION}, from its card."),
        "Other patients, other diseases and another prevalence come with another source: a loss names no cause, and "
        "none is necessary, not sufficient.",
        *(f"Not compared: {one}." for one in few),
    ]
    if not lost:
        told = "In no unseen source can the AUROC of a label be compared."
        return line.model_copy(update={"sentence": told, "notes": tuple(notes)}), {}
    answer = worst(one.answer(limits) for one in lost)
    most = max(lost, key=lambda one: one.loss.value or 0.0)
    told = (
        f"In {most.source}, which it has not seen, its AUROC for {most.label} is {most.there.value or 0:.2f}, where it "
        f"has learned {most.seen.value or 0:.2f}."
    )
    update = {
        "answer": answer,
        "sentence": told,
        "figures": tuple(figure for one in lost for figure in one.figures()),
        "notes": tuple(notes),
        "cure": "" if answer == "PASS" else "Train on films of more sources, or say on the card where it holds.",
    }
    return line.model_copy(update=update), {}


def seen_sources(card: ReaderCard, manifest: Manifest) -> frozenset[str] | None:
    """The sources that the reader was trained on, or None where the data set is not the one that its card names."""
    rows = _training_rows(card, manifest)
    if rows is None or not len(rows):
        return None
    if rows_sha256(zip(rows["path"], rows["patient"], strict=True)) != card.data.sha256:
        return None
    return frozenset(rows["source"].dropna().astype(str)) if "source" in rows.columns else frozenset()


def _training_rows(card: ReaderCard, manifest: Manifest) -> pd.DataFrame | None:
    settings: Mapping[str, Any] = card.training.get("settings") or {}
    folds = int(settings.get("folds") or 0)
    if folds < 2:
        return manifest.table[manifest.table["split"] == "train"]
    try:
        return used_rows(fold_pairs(manifest, folds, int(settings.get("seed") or 0)))
    except WetreadError:
        return None  # a data set that cannot be divided so is not the one it was trained on


def _told(
    predictions: pd.DataFrame, card: ReaderCard, manifest: Manifest
) -> tuple[NDArray[np.str_], frozenset[str], str]:
    """Source of each row ("" unknown), the sources that the reader has seen, and why nothing can be said, or ""."""
    seen = seen_sources(card, manifest)
    unknown = "" if seen is not None else manifest.meta.name
    sources = np.full(len(predictions), unknown, dtype=object)
    if "source" in predictions.columns:
        sources = predictions["source"].astype(object).fillna(unknown).to_numpy()
    sources = sources.astype(np.str_)
    if seen is None:
        same = card.data.name == manifest.meta.name
        why = f"The reader learned from another version of {card.data.name}: its sources may be among these."
        return sources, frozenset(), why if same else ""
    here = seen | set(np.unique(sources[sources != ""]))
    if len(here) < 2:
        return sources, seen, f"All films are of {len(here)} source: nothing shows how it does in another."
    if not here - seen:
        return sources, seen, "It was trained on films of every source that is here: none is unseen."
    return sources, seen, ""


@dataclass(frozen=True)
class _Lost:
    """AUROC of one label in an unseen source, in what was seen, and the difference seen less unseen."""

    source: str
    label: str
    there: Estimate
    seen: Estimate
    loss: Estimate

    def answer(self, limits: Thresholds) -> Answered:
        loss, high = self.loss.value or 0.0, self.loss.high
        if loss > limits.t6_drop_fail:
            return "FAIL"
        return "PASS" if loss <= limits.t6_drop_pass and high is not None and high < limits.t6_drop_fail else "WARN"

    def figures(self) -> tuple[AuditFigure, ...]:
        return (
            AuditFigure(what=f"AUROC {self.label}, {self.source}", estimate=self.there),
            AuditFigure(what=f"AUROC {self.label}, seen sources", estimate=self.seen),
            AuditFigure(what=f"loss of AUROC {self.label}, {self.source}", estimate=self.loss),
        )


def _losses(
    predictions: pd.DataFrame, card: ReaderCard, sources: NDArray[np.str_], seen: frozenset[str]
) -> tuple[list[_Lost], list[str]]:
    lost, few = [], []
    trained = np.isin(sources, sorted(seen))
    for label in card.labels:
        reference = _auroc(predictions[trained], card, label) if trained.any() else _validated(card, label)
        for source in sorted(set(sources[~trained & (sources != "")])):
            there = _auroc(predictions[sources == source], card, label)
            loss = difference(reference, there)
            if loss.low is None:
                few.append(f"{label} in {source} ({loss.note})")
            else:
                lost.append(_Lost(source, label, there, reference, loss))
    return lost, few


def _auroc(rows: pd.DataFrame, card: ReaderCard, label: str) -> Estimate:
    truth = rows[f"target_{label}"] if card.task == "multilabel" else rows["target"]
    known = truth.notna().to_numpy()
    positive = truth[known].astype(float) > 0 if card.task == "multilabel" else truth[known].astype(str) == label
    patients = rows["patient"].fillna(rows["image"]).astype(str).to_numpy(dtype=np.str_)[known]
    return auroc_estimate(rows[f"probability_{label}"].to_numpy(float)[known], positive.to_numpy(), patients)


def _validated(card: ReaderCard, label: str) -> Estimate:
    for row in card.metrics:
        if row.name == f"AUROC {label}" and row.split == "validation":
            return row.estimate
    return unbounded(None, 0, f"the card has no AUROC of {label} on validation")


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Return ``first - second`` of two AUROCs on other patients, with its 95 % interval.

    Each side of the interval combines the distances of the two intervals on that side (Newcombe, Statistics in
    Medicine 1998, method 10, for any two independent estimates: Zou & Donner 2008, doi 10.1002/sim.3095).
    """
    n, method = first.n + second.n, "MOVER, independent"
    if first.value is None or second.value is None:
        return unbounded(None, n, first.note or second.note, method)
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return unbounded(value, n, first.note or second.note, method)
    low = value - float(np.hypot(first.value - first.low, second.high - second.value))
    high = value + float(np.hypot(first.high - first.value, second.value - second.low))
    return Estimate(value=value, low=low, high=high, n=n, method=method)
