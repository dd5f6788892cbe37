"""``wetread similar``: past cases that look like a film to the reader, with pictures, labels and their vote."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.cli.case_pictures import case_picture, small_picture
from wetread.cli.console import print_json, progress, stdout, warn
from wetread.cli.result_files import FAILURES
from wetread.errors import ImageRefused, UsageError, expected

if TYPE_CHECKING:
    from rich.console import Console

    from wetread.models.predict import Reader
    from wetread.reporting.similar import SimilarItem
    from wetread.retrieval.index import CaseIndex
    from wetread.retrieval.records import Neighbours, Query
    from wetread.retrieval.where import Condition
    from wetread.types import Box, Image, SimilarCases

__all__ = [
    "INDEX_HELP",
    "WHERE_HELP",
    "Asked",
    "command",
    "condition_of",
    "load_for",
    "look",
    "print_neighbours",
    "print_similar",
]

PAGE, RECORDS = "similar.html", "neighbours.json"
FILM_PX = 640
"""Longest side of the film on the page."""
INDEX_HELP = "Folder of an index, or postgresql://USER@HOST/DATABASE#NAME."
WHERE_HELP = "Only cases that fit, e.g. 'body_part=ELBOW and label=positive'."


@dataclass(frozen=True, eq=False)
class Asked:
    """A film that was asked about: where it lies, its pixels, and the query made of it."""

    path: Path
    image: Image
    query: Query


def command(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    index: Annotated[str, typer.Option(help=INDEX_HELP, metavar="INDEX")],
    k: Annotated[int, typer.Option("-k", "--neighbours", help="How many cases.")] = 5,
    where: Annotated[str | None, typer.Option(help=WHERE_HELP, metavar="CONDITION")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Whose films PATH are; their other films are left out [from the file].")
    ] = None,
    same_patient: Annotated[bool, typer.Option("--same-patient", help="Also cases of the same patient.")] = False,
    all_images: Annotated[bool, typer.Option("--all-images", help="Not only the nearest of each patient.")] = False,
    region: Annotated[
        str | None, typer.Option(help="Part asked about, in pixels; needs an index of --local.", metavar="X,Y,W,H")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="The reader that made the index [as it says].")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for similar.html and neighbours.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Name the past cases most like each film, nearest first, with distance, labels and path.

    The patient of the film is left out, known by the file's header, its content or --patient. Exit code 1 if
    some films could not be read.

    Example: wetread similar film.dcm --index cases --out look
    """
    from wetread.imaging import find_images
    from wetread.provenance import atomic_folder
    from wetread.retrieval.neighbours import similar_to_all
    from wetread.retrieval.records import SearchOptions

    options = SearchOptions(condition_of(where), same_patient, not all_images)
    box = _box(region)
    files = find_images(paths)
    opened, loaded = load_for(index, reader)
    asked, failures = look(opened, loaded, files, patient, box)
    found = similar_to_all(opened, [one.query for one in asked], k, options)
    if out is not None:
        with atomic_folder(out) as folder:
            found = _write(folder, opened, asked, found, failures, (where or "", box, loaded.card.audit_verdict))
    if as_json:
        print_json(
            {
                "neighbours": [one.model_dump(mode="json") for one in found],
                "failures": [{"path": str(file), "reason": reason} for file, reason in failures],
            }
        )
    else:
        console = stdout()
        for one in found:
            print_neighbours(console, one)
        for file, reason in failures:
            console.print(f"{file.name}: {reason}", style="red", markup=False)
        if out is not None:
            console.print(f"{len(found)} films, {len(failures)} failures: {out / PAGE}", markup=False)
    if failures:
        raise typer.Exit(1)


def condition_of(where: str | None) -> Condition | None:
    """Read ``--where``."""
    from wetread.retrieval.where import parse_where

    return None if where is None else parse_where(where)


def load_for(index: str, reader: str | None) -> tuple[CaseIndex, Reader]:
    """Open an index and the reader that made it.

    Raises:
        DatasetRefused: no index, a damaged one, or the reader is another.
        BundleRefused: no such reader.
    """
    from wetread.retrieval.embed import load_embedder, mark_of
    from wetread.retrieval.locate import open_index
    from wetread.retrieval.write import refuse_other_embeddings
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    opened = open_index(index)
    loaded = load_embedder(reader or opened.card.reader.source, [settings.paths.readers])
    refuse_other_embeddings(opened.card, mark_of(loaded))
    return opened, loaded


def look(
    index: CaseIndex, reader: Reader, files: list[Path], patient: str | None = None, region: Box | None = None
) -> tuple[list[Asked], list[tuple[Path, str]]]:
    """Read and embed films; those that cannot be read are handed back with the reason.

    Raises:
        ImageRefused: none of them can be read.
    """
    from wetread.imaging import load_image
    from wetread.retrieval.embed import embed_image
    from wetread.retrieval.records import Query
    from wetread.settings import load_settings

    budget = load_settings().imaging.budget_bytes
    asked, failures = [], []
    with progress("Embedding films") as advance:
        for done, file in enumerate(files, 1):
            try:
                image = load_image(file, budget_bytes=budget)
                vectors = embed_image(reader, image, index.card.kind, region)
            except ImageRefused as error:
                failures.append((file, str(error)))
            else:
                facts = image.facts
                query = Query(vectors, patient or facts.patient, facts.sha256, facts.name)
                asked.append(Asked(file, image, query))
            advance(done, len(files))
    if not asked:
        raise ImageRefused(failures[0][1])
    return asked, failures


def _box(text: str | None) -> Box | None:
    from wetread.types import Box

    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(expected("--region X,Y,W,H", repr(text), "give four numbers of pixels")) from None
    if width <= 0 or height <= 0:
        raise UsageError(expected("a --region of some size", f"{width:g} x {height:g}", "give W and H above 0"))
    return Box(x=x, y=y, width=width, height=height)


def print_neighbours(console: Console, found: Neighbours) -> None:
    """One table for a film: rank, labels, distance, path; then the vote and the warnings."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title=None)
    for name in ("", "label", "distance", "split", "path"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("path", "label"))
    for one in found.neighbours:
        label = "unknown" if one.labels is None else " + ".join(one.labels) or "none"
        table.add_row(*map(Text, (str(one.rank), label, f"{one.distance:.3f}", one.split or "", one.path)))
    votes = "; ".join(
        f"{label} {vote.positive} of {vote.known} (weighed {vote.share:.0%})" for label, vote in found.vote.items()
    )
    console.print(f"{found.image}: {votes or 'cases without labels'}", style="bold", markup=False)
    console.print(table)
    for warning in found.warnings:
        warn(warning)


def print_similar(console: Console, name: str, similar: SimilarCases) -> None:
    """Print the vote and the nearest case in one line, and each contradiction in one."""
    nearest = similar.cases[0]
    votes = "; ".join(f"{label} {vote.positive} of {vote.known}" for label, vote in similar.vote.items() if vote.known)
    line = f"{name}: {len(similar.cases)} cases like it: {votes or 'labels unknown'}; nearest {nearest.path}"
    console.print(f"{line} ({nearest.distance:.3f})", style="dim", markup=False, soft_wrap=True)
    for sentence in similar.contradictions:
        console.print(f"{name}: {sentence}", style="yellow", markup=False, soft_wrap=True)


def _write(
    folder: Path,
    index: CaseIndex,
    asked: list[Asked],
    found: list[Neighbours],
    failures: list[tuple[Path, str]],
    context: tuple[str, Box | None, str],
) -> list[Neighbours]:
    """Write page, records and failures; return the neighbours with the parts most alike marked."""
    import wetread
    from wetread.provenance import write_json_atomically
    from wetread.reporting.facts import FailedFile
    from wetread.reporting.similar import SimilarReport, render_similar

    where, region, verdict = context
    items = [_item(index, one, near, region) for one, near in zip(asked, found, strict=True)]
    card = index.card
    report = SimilarReport(
        title="Similar cases" if len(items) > 1 else f"Cases like {asked[0].image.facts.name}",
        created=datetime.now(UTC),
        items=tuple(items),
        failures=tuple(FailedFile(path=file.name, reason=reason) for file, reason in failures),
        index=card.name,
        n_cases=card.count,
        n_patients=card.patients,
        classes=card.classes,
        task=card.task,
        where=where,
        audit_verdict=verdict,
        wetread_version=wetread.__version__,
    )
    (folder / PAGE).write_text(render_similar(report), encoding="utf-8")
    marked = [item.neighbours for item in items]
    write_json_atomically(folder / RECORDS, [one.model_dump(mode="json") for one in marked])
    if failures:
        with (folder / FAILURES).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image", "reason"))
            writer.writerows((path, reason) for path, reason in failures)
    return marked


def _item(index: CaseIndex, asked: Asked, found: Neighbours, region: Box | None) -> SimilarItem:
    from wetread.reporting.similar import SimilarItem
    from wetread.retrieval.embed import box_of_place

    pictures = [case_picture(Path(one.file)) for one in found.neighbours]
    marked = []
    for one, picture in zip(found.neighbours, pictures, strict=True):
        if one.place is not None and picture is not None:
            box = box_of_place(one.place, index.card, (picture.rows, picture.columns))
            marked.append(one.model_copy(update={"box": box}))
        else:
            marked.append(one)
    found = found.model_copy(update={"neighbours": tuple(marked)})
    return SimilarItem(
        film=small_picture(asked.image, FILM_PX), neighbours=found, pictures=tuple(pictures), region=region
    )
