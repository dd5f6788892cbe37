"""``wetread evaluate``: how good a reader is on a split, with intervals, or beside another reader."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.result import (
        ComparisonResult,
        EvaluationResult,
        EvaluationSpec,
        HiddenResult,
        LabelResult,
    )
    from wetread.evaluation.study import StudyEvaluation
    from wetread.models.card import ReaderCard
    from wetread.models.guide import Guide
    from wetread.types import Task

__all__ = ["command"]

_SCORES = ("auroc", "auprc", "brier", "ece")
_RATES = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "f1", "kappa")
_RESAMPLES = 1000
_SEGMENTER = "lungs"
_AT_PREVALENCE = ("ppv_at_prevalence", "npv_at_prevalence")


@dataclass(frozen=True)
class _Target:
    """What is evaluated: the table, where it came from, the reader's card and manifest if known."""

    table: pd.DataFrame
    source: str
    card: ReaderCard | None
    manifest: Manifest | None = None


@dataclass(frozen=True)
class _Beside:
    """What stands beside the result: another reader, or the same one without an organ."""

    comparison: ComparisonResult | None = None
    hidden: HiddenResult | None = None
    study: StudyEvaluation | None = None

    @property
    def given(self) -> dict[str, ComparisonResult | HiddenResult | StudyEvaluation]:
        """Those that were asked for, by name."""
        all_ = {"comparison": self.comparison, "hidden": self.hidden, "study": self.study}
        return {name: one for name, one in all_.items() if one is not None}


def command(
    target: Annotated[str, typer.Argument(help="Predictions (.parquet, .csv), a run folder, or with --data a reader.")],
    data: Annotated[Path | None, typer.Option(help="Dataset to read with the reader TARGET.")] = None,
    task: Annotated[str | None, typer.Option(help="classify or segment [what TARGET is for].")] = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate (test, with --data).")] = None,
    reader: Annotated[str | None, typer.Option(help="Reader whose classes and operating points a table has.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Predictions of another reader on the same images.")] = None,
    by: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Subgroups by this column.")] = None,
    hide: Annotated[
        str | None, typer.Option(metavar="ORGAN", help="Read again with this organ painted over, e.g. lungs.")
    ] = None,
    segmenter: Annotated[str, typer.Option(help="Segmenter that finds the organ of --hide.")] = _SEGMENTER,
    level: Annotated[str, typer.Option(help="image, study or patient.")] = "image",
    aggregation: Annotated[str, typer.Option(help="mean or max of a study's probabilities.")] = "mean",
    baseline: Annotated[
        str | None, typer.Option(metavar="READER", help="Reader of images, aggregated beside a reader of studies.")
    ] = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(metavar="[LABEL=]SHARE", help="PPV and NPV at this prevalence, e.g. 0.1."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for report.html, results.json, predictions.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=200, max=100_000)] = _RESAMPLES,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Give every metric with its 95 % interval, per class and together, on one split.

    Thresholds are those that the reader's card chose on validation; nothing is tuned here.
    """
    from wetread.cli.console import stdout
    from wetread.cli.evaluate_hidden import hidden_table
    from wetread.cli.evaluate_segment import evaluate_segmenter
    from wetread.cli.evaluate_study import find_studies, print_studies
    from wetread.evaluation.protocol import evaluate

    _refuse_existing(out)
    if _is_segment(task, target, data):
        _refuse_foreign(
            {"reader": reader, "compare": compare, "by": by, "prevalence": prevalence, "level": level != "image"}
            | {"aggregation": aggregation != "mean", "resamples": resamples != _RESAMPLES, "hide": hide}
        )
        return evaluate_segmenter(target, data, split, out, seed, as_json=as_json)
    finder = _finder(hide, segmenter, data)
    studies = None if reader else find_studies(target, data, split, baseline, _shelves())
    if studies is None:
        found = _resolve(target, data, split, reader)
    else:
        _refuse_foreign({"hide": hide, "aggregation": aggregation != "mean"}, "a reader of studies")
        found, level = _Target(studies.table, studies.source, studies.card, studies.manifest), studies.level(level)
    spec = _spec(found, split, (level, aggregation), by or [], prevalence or [])
    spec = spec.model_copy(update={"resamples": resamples, "seed": seed})
    whole = None if studies is None else studies.evaluate(spec, _provenance(seed, found))
    if whole is None:
        result = evaluate(found.table, spec, manifest=found.manifest, provenance=_provenance(seed, found))
    else:
        result = whole.result
    beside = _Beside(
        None if compare is None else _compare(found, spec, compare),
        _without(target, found, spec, finder),
        whole,
    )
    if out is not None:
        _write(out, found, result, beside)
    if as_json:
        return _print_json(result, beside)
    _print_result(result)
    if whole is not None:
        print_studies(whole)
    if beside.hidden is not None:
        stdout().print(hidden_table(beside.hidden))
    if beside.comparison is not None:
        _print_comparison(beside.comparison)
    if out is not None:
        typer.echo(f"Report: {out / 'report.html'}")
    return None


def _is_segment(task: str | None, target: str, data: Path | None) -> bool:
    from wetread.cli.evaluate_segment import is_segmenter

    if task not in (None, "classify", "segment"):
        raise UsageError(expected("a task among classify, segment", repr(task), "set --task to one"))
    return task == "segment" or (task is None and data is not None and is_segmenter(target, _shelves()))


def _refuse_foreign(given: Mapping[str, object], what: str = "a segmenter") -> None:
    """What means nothing for masks or studies must not be dropped in silence."""
    for name, value in given.items():
        if value:
            raise UsageError(expected(f"flags that {what} has", f"--{name}", "leave it out"))


def _finder(hide: str | None, segmenter: str, data: Path | None) -> Guide | None:
    from wetread.models.bundle import load_finder

    if hide is None:
        if segmenter != _SEGMENTER:
            raise UsageError(expected("an organ for --segmenter to find", "none", "add --hide ORGAN"))
        return None
    if data is None:
        raise UsageError(expected("images to hide an organ in", "a table of predictions", "add --data DATASET"))
    return load_finder(hide, segmenter, _shelves())


def _without(target: str, found: _Target, spec: EvaluationSpec, finder: Guide | None) -> HiddenResult | None:
    from wetread.evaluation.hidden import compare_hidden

    if finder is None or found.manifest is None:
        return None
    hidden = predict(target, found.manifest, spec.split or "test", hide=finder)
    return compare_hidden(found.table, hidden, spec, finder.spec)


def predict(reader: str, manifest: Manifest, split: str, hide: Guide | None = None) -> pd.DataFrame:
    """Return the predictions of a reader on one split of a manifest; ``hide`` finds an organ to be painted over."""
    from wetread.cli.console import staged_progress
    from wetread.models.bundle import load_reader
    from wetread.training.predictions import predict_manifest

    with staged_progress() as advance:
        return predict_manifest(load_reader(reader, _shelves()), manifest, split=split, hide=hide, progress=advance)


def _shelves() -> list[Path]:
    from wetread.settings import load_settings

    return [load_settings().paths.readers]


def _resolve(target: str, data: Path | None, split: str | None, reader: str | None) -> _Target:
    from wetread.evaluation.table import read_predictions

    if data is not None:
        return _read_manifest(target, data, split or "test", reader)
    path = Path(target)
    file = path / "predictions.parquet" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise DatasetRefused(
            expected(
                "predictions.parquet in a run folder",
                f"none in {path}",
                "name a table of predictions, or give the dataset to read with --data",
            )
        )
    if not path.exists() and path.suffix.lower() not in (".parquet", ".csv"):
        raise UsageError(
            expected("a table of predictions or a run folder", repr(target), "to use a reader, add --data DATASET")
        )
    return _Target(read_predictions(str(file)), str(path), _card(reader, file.parent))


def _read_manifest(target: str, data: Path, split: str, reader: str | None) -> _Target:
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.splits import assert_no_leak
    from wetread.models.bundle import find_reader, load_card

    if reader is not None:
        raise UsageError(expected("one reader", f"{target} and --reader {reader}", "leave one out"))
    card = load_card(find_reader(target, _shelves()))
    manifest = load_manifest(data)
    assert_no_leak(manifest)  # before an hour of reading, not after it
    return _Target(predict(target, manifest, split), str(data), card, manifest)


def _card(reader: str | None, folder: Path) -> ReaderCard | None:
    """Return the card that is named, else the one in the run folder, else None."""
    from wetread.models.bundle import find_reader, load_card

    if reader is not None:
        return load_card(find_reader(reader, _shelves()))
    for place in (folder, folder / "reader"):
        if (place / "card.json").is_file():
            return load_card(place)
    return None


def _spec(
    found: _Target, split: str | None, level: tuple[str, str], by: list[str], prevalence: list[str]
) -> EvaluationSpec:
    from wetread.evaluation.result import EvaluationSpec
    from wetread.evaluation.table import infer_classes

    task: Task
    if found.card is None:
        task, classes = infer_classes(found.table)
        points, name = (), ""
    else:
        task, classes = found.card.task, found.card.classes
        points, name = _default_first(found.card), f"{found.card.name} {found.card.version}"
    labels = classes[1:] if task == "binary" else classes
    return EvaluationSpec(
        task=task,
        classes=classes,
        level=_one_of(level[0], ("image", "study", "patient"), "--level"),
        aggregation=_one_of(level[1], ("mean", "max"), "--aggregation"),
        operating_points=points,
        leak_checked=_training_data(found.card, found.manifest),
        prevalence=_prevalences(prevalence, labels),
        by=tuple(by),
        split=split or ("test" if found.manifest is not None else None),
        source=found.source,
        reader=name,
    )


def _training_data(card: ReaderCard | None, manifest: Manifest | None) -> str:
    """Return what is known about overlap between the training data and another manifest."""
    if card is None or manifest is None or card.data.name == manifest.meta.name:
        return ""
    return f"the reader was trained on {card.data.name}; whether it holds the same patients is not known here"


def _default_first(card: ReaderCard) -> tuple[Any, ...]:
    """Return the card's operating points, its default one first: confusion and subgroups use that."""
    return tuple(sorted(card.operating_points, key=lambda point: point.name != card.default_operating_point))


def _one_of(value: str, known: tuple[str, ...], flag: str) -> Any:
    if value not in known:
        raise UsageError(expected(f"{flag} {' or '.join(known)}", repr(value), "choose one of these"))
    return value


def _prevalences(texts: list[str], labels: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        label, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            raise UsageError(
                expected("a prevalence such as 0.1 or LABEL=0.1", repr(text), "write a number between 0 and 1")
            ) from None
        found |= {label: value} if label else dict.fromkeys(labels, value)
    return found


def _provenance(seed: int, found: _Target) -> dict[str, str]:
    from wetread import provenance

    facts = provenance.record(seed=seed).model_dump(mode="json", exclude={"libraries", "hashes"})
    flat = {key: json.dumps(value) if isinstance(value, list) else str(value) for key, value in facts.items()}
    if found.card is not None:
        flat["reader_sha256"] = found.card.sha256
    return flat


def _compare(found: _Target, spec: EvaluationSpec, other: Path) -> ComparisonResult:
    from wetread.evaluation.compare import compare
    from wetread.evaluation.table import read_predictions

    file = other / "predictions.parquet" if other.is_dir() else other
    card = _card(None, file.parent)
    points = () if card is None else _default_first(card)
    specs = (spec, spec.model_copy(update={"operating_points": points, "by": ()}))
    names = (spec.reader or found.source, str(other) if card is None else f"{card.name} {card.version}")
    return compare(found.table, read_predictions(str(file)), specs, names)


def _refuse_existing(out: Path | None) -> None:
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(expected("a new folder", f"{out}, which exists", "name another with --out"))


def _write(out: Path, found: _Target, result: EvaluationResult, beside: _Beside) -> None:
    """Write report.html, results.json and predictions.parquet whole or not at all."""
    from wetread import provenance
    from wetread.evaluation.plots import result_plots
    from wetread.reporting.html import render_evaluation

    verdict = {} if found.card is None else {"audit_verdict": found.card.audit_verdict}
    page = render_evaluation(
        result,
        result_plots(result),
        comparison=beside.comparison,
        hidden=beside.hidden,
        study=beside.study,
        **verdict,
    )
    with provenance.atomic_folder(out) as part:
        (part / "results.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        found.table.to_parquet(part / "predictions.parquet", index=False)
        (part / "report.html").write_text(page, encoding="utf-8")
        for name, record in beside.given.items():
            (part / f"{name}.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _print_json(result: EvaluationResult, beside: _Beside) -> None:
    from wetread.cli.console import print_json

    others = {name: record.model_dump(mode="json") for name, record in beside.given.items()}
    print_json(result.model_dump(mode="json") | others)


def _print_result(result: EvaluationResult) -> None:
    from wetread.cli.console import stdout, warn

    console = stdout()
    facts = result.facts
    patients = "" if facts.patients is None else f" of {facts.patients} patients"
    units = "studies" if facts.level == "study" else f"{facts.level}s"
    where = f", split {facts.split}" if facts.split else ""
    unlabelled = f", {facts.unlabelled} without a label left out" if facts.unlabelled else ""
    console.print(f"{facts.source}{where}: {facts.n} {units}{patients}{unlabelled}", style="bold", markup=False)
    for table in _tables(result):
        console.print(table)
    for warning in result.warnings:
        warn(warning)


def _tables(result: EvaluationResult) -> list[Any]:
    from wetread.reporting.numbers import estimate

    tables = [table for label in result.labels for table in _label_tables(label)]
    if result.overall:
        together = _table("All labels", ["metric", "value (95 % interval)"])
        for name, value in result.overall.items():
            together.add_row(name, estimate(value))
        tables.append(together)
    if result.subgroups:
        tables.append(_subgroup_table(result))
    return tables


def _label_tables(label: LabelResult) -> list[Any]:
    """Return scores and decisions of one label, metrics as rows: three intervals fit 80 columns."""
    from wetread.reporting.numbers import estimate

    title = f"{label.label}: {label.positives} positive, {label.negatives} negative"
    scores = _table(title, ["without a threshold", "value (95 % interval)"])
    for name in _SCORES:
        scores.add_row(name, estimate(label.metrics.get(name)))
    points = label.operating_points
    names = [p.name if p.threshold is None else f"{p.name}, at {p.threshold:.3g}" for p in points]
    decisions = _table("", ["decisions", *names])
    stated = any(point.prevalence for point in points)
    for rate in (*_RATES, *_AT_PREVALENCE) if stated else _RATES:
        decisions.add_row(rate, *(estimate(point.metrics.get(rate)) for point in points))
    return [scores, decisions]


def _subgroup_table(result: EvaluationResult) -> Any:
    """Return AUROC and its gap for each group; the report has the other metrics."""
    from rich.text import Text

    from wetread.reporting.numbers import estimate

    table = _table("Subgroups", ["group", "n", "AUROC", "gap to the rest"])
    for group in result.subgroups:
        name = f"{group.column} {group.value}"
        if not group.assessable:
            table.add_row(Text(name), str(group.n), Text(f"not assessable: {group.reason}"), "")
        for label, metrics in group.metrics.items():
            shown = name if len(result.labels) == 1 else f"{name}, {label}"
            gap = group.gaps.get(label, {}).get("auroc")
            table.add_row(Text(shown), str(group.n), estimate(metrics.get("auroc")), estimate(gap))
    return table


def _print_comparison(comparison: ComparisonResult) -> None:
    from rich.text import Text

    from wetread.cli.console import stdout
    from wetread.reporting.numbers import estimate

    console = stdout()
    console.print(f"A: {comparison.name_a}   B: {comparison.name_b}", markup=False)
    table = _table("Comparison", ["metric", "A", "B", "B - A", "p (Holm)", "verdict"])
    several = len({row.label for row in comparison.rows}) > 1
    for row in comparison.rows:
        name = f"{row.label} {row.metric}" if several else row.metric
        p_value = "" if row.p_adjusted is None else f"{row.p_adjusted:.2g}"
        plain = [estimate(one.model_copy(update={"low": None, "high": None})) for one in (row.a, row.b)]
        table.add_row(Text(name), *plain, estimate(row.difference), p_value, row.verdict)
    console.print(table)


def _table(title: str, columns: list[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="bold") if title else None
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table
