"""``wetread read`` with a reader of studies: one answer for each study, and which view drove it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wetread.cli.result_files import FAILURES, Slugs, print_line, safe_name
from wetread.cli.similar import print_similar
from wetread.errors import ImageRefused, UsageError, expected

if TYPE_CHECKING:
    from rich.table import Table

    from wetread.models.card import ReaderCard
    from wetread.reading.read import ReadOptions
    from wetread.reading.study import StudyResult, StudySource
    from wetread.types import StudyRead

__all__ = ["STUDIES", "VIEWS", "read_studies"]

STUDIES, VIEWS, INDEX = "studies.jsonl", "views.csv", "index.html"
_SHOWN_VIEWS = 5
"""Images of a study that the terminal shows, those of highest weight first."""


def read_studies(
    bundle: Path, card: ReaderCard, paths: Sequence[Path], options: ReadOptions, out: Path | None, *, as_json: bool
) -> None:
    """Read every study below ``paths``; write ``out`` whole or not at all.

    Raises:
        ImageRefused: the only study has no readable image; nothing is written.
        UsageError: ``--views``, which a reader of studies has not.
        typer.Exit: 1 where one of several studies or an image failed, 3 where the gate refused the only study.
    """
    from wetread.models.bundle import load_study_reader
    from wetread.reading.study import StudyOptions, read_study, study_sources
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    if options.views not in (None, 1):
        raise UsageError(expected("no --views for a reader of studies", options.views, "leave it out"))
    studies = study_sources(paths)
    prepare_torch(load_settings().runtime.threads)
    reader = load_study_reader(bundle)
    chosen = StudyOptions(
        operating_point=options.operating_point,
        heatmaps=options.heatmaps,
        pictures=options.pictures,
        method=options.method,
        budget_bytes=options.budget_bytes,
        similar=options.similar,
    )
    results: list[StudyResult] = []
    refused: dict[str, str] = {}
    for study in studies:
        try:
            results.append(read_study(reader, study, chosen))
        except ImageRefused as error:
            if len(studies) == 1:
                raise
            refused[study.name] = str(error)
            continue
        if as_json:
            print_line(results[-1].read)
    if out is not None:
        _write(out, card, results, refused)
    if not as_json:
        _print([one.read for one in results], refused, card, out)
    _exit([one.read for one in results], refused, studies)


def _exit(reads: Sequence[StudyRead], refused: Mapping[str, str], studies: Sequence[StudySource]) -> None:
    withheld = sum(not read.answered for read in reads)
    if withheld and len(studies) == 1:
        raise typer.Exit(3)
    if withheld or refused or any(read.failures for read in reads):
        raise typer.Exit(1)


def _write(out: Path, card: ReaderCard, results: Sequence[StudyResult], refused: Mapping[str, str]) -> None:
    """Write studies.jsonl, views.csv, failures.csv, a page for each study, and every heat map on its film."""
    from wetread.provenance import atomic_folder

    slugs = Slugs()
    with atomic_folder(out, replace=True) as folder:
        (folder / "heatmaps").mkdir()
        pages: list[tuple[str, StudyRead]] = []
        for result in results:
            slug = slugs.take(result.read.study)
            read = _pictured(folder, slug, result, card)
            pages.append((f"{slug}.html", read))
        with (folder / STUDIES).open("w", encoding="utf-8") as file:
            file.writelines(read.model_dump_json() + "\n" for _, read in pages)
        _write_views(folder / VIEWS, [read for _, read in pages])
        _write_failures(folder / FAILURES, [read for _, read in pages], refused)


def _pictured(folder: Path, slug: str, result: StudyResult, card: ReaderCard) -> StudyRead:
    """Write pictures and page of one study; return its read with the paths of the heat maps."""
    from wetread.cli.case_pictures import STRIP_PX, case_picture
    from wetread.cli.read_folder import over
    from wetread.reporting.study_html import render_study

    shown: dict[str, bytes] = {}
    views = []
    names = Slugs()
    for view in result.read.views:
        name, evidence = names.take(view.image.name), dict(view.evidence)
        for label in view.evidence:
            heat = result.heatmaps.get((view.image.name, label))
            film = result.films.get(view.image.name)
            if heat is None or film is None:
                continue
            path = f"heatmaps/{slug}.{name}.{safe_name(label)}.png"
            picture = over(film, heat)
            (folder / path).write_bytes(picture)
            shown.setdefault(view.image.name, picture)
            evidence[label] = evidence[label].model_copy(update={"heatmap": path})
        views.append(view.model_copy(update={"evidence": evidence}))
    read = result.read.model_copy(update={"views": tuple(views)})
    whole = _slide_map(folder, slug, result)
    cases = [case_picture(Path(case.file), STRIP_PX) for case in read.similar.cases] if read.similar else []
    page = render_study(read, shown, population=card.data.population, limits=card.limits, cases=cases, whole=whole)
    (folder / f"{slug}.html").write_text(page, encoding="utf-8")
    return read


def _slide_map(folder: Path, slug: str, result: StudyResult) -> dict[str, bytes]:
    """Where the study is an image cut into tiles, write and return the weights over all of it, a PNG for each label."""
    from PIL import Image

    from wetread.datasets.tiles import read_places, weight_map
    from wetread.explain.overlay import heat_rgba

    source = result.source.sources[0].path.parent
    places = read_places(source)
    if places is None:
        return {}
    names = {one.name: one.path.name for one in result.source.sources}
    found = {}
    for label in [one.label for one in result.read.labels]:
        weights = {names[view.image.name]: view.weights[label] for view in result.read.views if view.weights}
        heat = heat_rgba(weight_map(places, weights))
        file = folder / "heatmaps" / f"{slug}.whole.{safe_name(label)}.png"
        Image.fromarray(heat).save(file)
        found[label] = file.read_bytes()
    return found


def _write_views(path: Path, reads: Sequence[StudyRead]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("study", "image", "label", "weight", "alone", "counted", "reason"))
        for read in reads:
            for view in read.views:
                for label in [one.label for one in read.labels]:
                    weight, alone = view.weights.get(label, ""), view.alone.get(label, "")
                    reason = " ".join(view.gate.reasons)
                    writer.writerow((read.study, view.image.name, label, weight, alone, view.gate.passed, reason))


def _write_failures(path: Path, reads: Sequence[StudyRead], refused: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("study", "file", "message"))
        writer.writerows((read.study, name, text) for read in reads for name, text in read.failures.items())
        writer.writerows((study, "", text) for study, text in refused.items())


def _print(reads: Sequence[StudyRead], refused: Mapping[str, str], card: ReaderCard, out: Path | None) -> None:
    from wetread.cli.console import stdout

    console = stdout()
    for read in reads:
        console.print(_answers(read))
        if read.answered:
            console.print(_views(read))
        if read.similar is not None:
            print_similar(console, read.study, read.similar)
        for warning in read.warnings:
            console.print(f"  ! {warning}", style="yellow", markup=False, soft_wrap=True)
    for study, message in refused.items():
        console.print(f"not read: {study}: {message}", style="red", markup=False)
    identity = card.identity
    about = f"{identity.name} {identity.version}, {identity.sha256[:12]}, {identity.audit_verdict}."
    console.print(f"Reader {about} Research use only. Not a diagnosis.", style="dim", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"Results: {out}", markup=False, soft_wrap=True)


def _answers(read: StudyRead) -> Table:
    from rich.table import Table
    from rich.text import Text

    counted = sum(view.gate.passed for view in read.views)
    title = Text(f"{read.study}: {counted} of {len(read.views) + len(read.failures)} images counted", "bold")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("label", "probability", "decision", "driven by"):
        table.add_column(name, overflow="fold")
    for label in read.labels:
        probability = "withheld" if label.probability is None else f"{label.probability:.3f}"
        style = "bold red" if label.decision == "positive" else ""
        driver = Text(read.drove.get(label.label, ""))
        table.add_row(Text(label.label), probability, Text(label.decision, style), driver)
    return table


def _views(read: StudyRead) -> Table:
    """The images of highest weight for the label that is most probable."""
    from rich.table import Table
    from rich.text import Text

    top = max(read.labels, key=lambda label: label.probability or 0.0).label
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("image", f"weight for {top}", "alone"):
        table.add_column(Text(name), overflow="fold")
    ranked = sorted((view for view in read.views if view.weights), key=lambda view: -view.weights[top])
    for view in ranked[:_SHOWN_VIEWS]:
        table.add_row(Text(view.image.name), f"{view.weights[top]:.3f}", f"{view.alone[top]:.3f}")
    return table
