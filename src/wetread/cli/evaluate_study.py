"""``wetread evaluate`` of a reader of studies: kappa, body parts, aggregated image scores and published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.errors import BundleRefused, UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.result import EvaluationSpec
    from wetread.evaluation.study import Aggregate, StudyEvaluation
    from wetread.models.card import ReaderCard
    from wetread.training.study_predictions import StudyPredictions

__all__ = ["Studies", "find_studies", "print_studies"]

_PART = "body_part"
"""Column whose values are evaluated one by one where a data set has several."""


@dataclass(frozen=True)
class Studies:
    """What is evaluated: a row for each study, a row for each image if read just now, and what stands beside it."""

    table: pd.DataFrame
    card: ReaderCard
    source: str
    manifest: Manifest | None = None
    views: pd.DataFrame | None = None
    validation: StudyPredictions | None = None
    others: tuple[tuple[str, pd.DataFrame, pd.DataFrame | None], ...] = ()

    def level(self, asked: str) -> str:
        """The level of the reader, which ``asked`` must not contradict."""
        own = self.card.study.level if self.card.study else "image"
        if asked not in ("image", own):
            raise UsageError(
                expected(f"--level {own}, as {self.card.name} was trained", f"--level {asked}", "leave it")
            )
        return own

    def evaluate(self, spec: EvaluationSpec, provenance: Mapping[str, str]) -> StudyEvaluation:
        """Evaluate with everything that stands beside it."""
        from wetread.evaluation.study import evaluate_studies, published_for

        parts = _PART if _PART in self.table and self.table[_PART].nunique() > 1 else None
        return evaluate_studies(
            self.table,
            spec,
            baselines=self._baselines(spec),
            parts=parts,
            provenance=provenance,
            published=published_for(self.manifest.meta.importer) if self.manifest else (),
            manifest=self.manifest,
        )

    def _baselines(self, spec: EvaluationSpec) -> list[Aggregate]:
        from wetread.evaluation.study import AGGREGATIONS, Aggregate, aggregated, points_for

        found = []
        for name, images, chosen_on in self.others:
            for how in AGGREGATIONS:
                table = aggregated(images, spec.labels, how, spec.task)
                points: tuple[Any, ...] = spec.operating_points[:1]
                if chosen_on is not None and self.validation is not None:
                    validation = aggregated(chosen_on, spec.labels, how, spec.task)
                    whole = spec.model_copy(update={"split": None})
                    rule = self.card.default_operating_point
                    points = points_for(validation, self.validation.studies, whole, rule)
                found.append(Aggregate(f"{how} of {name}", table, points))
        return found


def find_studies(
    target: str, data: Path | None, split: str | None, baseline: str | None, shelves: Sequence[Path]
) -> Studies | None:
    """Read the studies of ``data`` with the reader ``target``, or take its predictions; None for other readers.

    Raises:
        UsageError: ``baseline`` without a reader of studies and a data set.
    """
    card = _study_card(target, data, shelves)
    if card is None or data is None:
        if baseline is not None:
            got = "predictions alone" if card else "another kind of reader"
            raise UsageError(expected("a reader of studies and --data for --baseline", got, "leave it out"))
        return None if card is None else _stored(target, card)
    return _read(target, card, data, (split or "test", baseline), shelves)


def _study_card(target: str, data: Path | None, shelves: Sequence[Path]) -> ReaderCard | None:
    from wetread.models.bundle import find_reader, load_any_card
    from wetread.models.card import ReaderCard

    path = Path(target)
    try:
        folder = find_reader(target, shelves) if data is not None else path if path.is_dir() else path.parent
        place = folder if (folder / "card.json").is_file() else folder / "reader"
        card = load_any_card(place) if (place / "card.json").is_file() else None
    except BundleRefused:
        return None  # what reads the target next says what is wrong
    return card if isinstance(card, ReaderCard) and card.study is not None else None


def _stored(target: str, card: ReaderCard) -> Studies | None:
    from wetread.evaluation.table import read_predictions

    path = Path(target)
    file = path / "predictions.parquet" if path.is_dir() else path
    return Studies(read_predictions(str(file)), card, target) if file.is_file() else None


def _read(target: str, card: ReaderCard, data: Path, asked: tuple[str, str | None], shelves: Sequence[Path]) -> Studies:
    from wetread.cli.console import staged_progress
    from wetread.datasets.manifest import load_manifest
    from wetread.models.bundle import load_reader, load_study_reader
    from wetread.settings import load_settings
    from wetread.training.predictions import predict_manifest
    from wetread.training.study_predictions import predict_studies

    split, baseline = asked
    manifest, cache = load_manifest(data), load_settings().paths.cache
    reader = load_study_reader(target, shelves)
    with staged_progress() as advance:
        found = predict_studies(reader, manifest, split, cache=cache, progress=advance)
        validation = None
        if split != "val" and bool((manifest.table["split"] == "val").any()):
            validation = predict_studies(reader, manifest, "val", cache=cache, progress=advance)
        others = [("its own answers for single images", found.views, None if validation is None else validation.views)]
        if baseline is not None:
            one = load_reader(baseline, shelves)

            def images(name: str, views: pd.DataFrame) -> pd.DataFrame:
                scored = predict_manifest(one, manifest, name, progress=advance).drop(columns="study")
                return scored.merge(views[["image", "study"]], on="image")

            judged = None if validation is None else images("val", validation.views)
            others.append((f"image scores of {one.card.name}", images(split, found.views), judged))
    return Studies(found.studies, card, str(data), manifest, found.views, validation, tuple(others))


def print_studies(found: StudyEvaluation) -> None:
    """Print kappa, body parts, comparisons and published figures as tables."""
    from rich.table import Table
    from rich.text import Text

    from wetread.cli.console import stdout
    from wetread.reporting.numbers import estimate

    def table(title: str, *columns: str) -> Table:
        made = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
        for column in columns:
            made.add_column(Text(column), overflow="fold")
        return made

    console = stdout()
    kappas = table("Cohen's kappa of studies", "label", "kappa (95 % interval)")
    for label, value in found.kappa.items():
        kappas.add_row(Text(label), estimate(value))
    console.print(kappas)
    if found.parts:
        parts = table(
            f"By {found.parts[0].column}", "part", "label", "n", "kappa", "AUROC", "sensitivity", "specificity"
        )
        for row in found.parts:
            values = (row.kappa, row.auroc, row.sensitivity, row.specificity)
            parts.add_row(Text(row.value), Text(row.label), str(row.n), *(estimate(value) for value in values))
        console.print(parts)
    if found.baselines:
        beside = table("Beside aggregated images (kappa, same studies)", "baseline", "label", "kappa", "difference", "")
        for one in found.baselines:
            cells = estimate(one.baseline), estimate(one.difference), one.verdict
            beside.add_row(Text(one.other), Text(one.label), *cells)
        console.print(beside)
    if found.published:
        published = table("Published, other studies or protocols", "what", "kappa", "protocol", "source")
        for entry in found.published:
            published.add_row(*(Text(text) for text in (entry.name, entry.kappa, entry.protocol, entry.source)))
        console.print(published)
