"""``wetread read``: images in, calibrated probabilities and decisions out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.cli.result_files import print_line, refuse_existing
from wetread.cli.similar import INDEX_HELP, WHERE_HELP, print_similar
from wetread.defaults import DEFAULT_READER
from wetread.errors import ImageRefused, UsageError, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from wetread.cli.read_folder import ReadFolder
    from wetread.models.card import ReaderCard
    from wetread.reading.feed import ReadFailure, Source
    from wetread.reading.read import ReadOptions, ReadResult
    from wetread.reading.similar import CaseSearch
    from wetread.types import LabelReading, Read

__all__ = ["command", "print_reads", "read_into"]

_WORTH_A_BAR = 5
"""Fewer images are read before a bar could say anything."""


def command(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    reader: Annotated[str, typer.Option(help="Name or folder of a reader, or a run folder.")] = DEFAULT_READER,
    operating_point: Annotated[
        str | None, typer.Option(help="Operating point of the reader's card, e.g. sensitivity=0.95 [its default].")
    ] = None,
    views: Annotated[
        int | None, typer.Option(help="Zooms to average, 1 to 5; sides are never flipped [as the card says].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder: pages, reads.jsonl, heat maps, failures.csv.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of --out.")] = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps/--no-heatmaps", help="Make heat maps.")] = True,
    method: Annotated[str, typer.Option(help="Heat maps by gradcam, cam, gradcam++ or hirescam.")] = "gradcam",
    index: Annotated[
        str | None, typer.Option(help=f"Show past cases like each image. {INDEX_HELP}", metavar="INDEX")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--neighbours", help="How many past cases, with --index.", min=1)] = 5,
    where: Annotated[str | None, typer.Option(help=WHERE_HELP, metavar="CONDITION")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Whose images PATH are; their other films are no past cases [from the file].")
    ] = None,
    same_patient: Annotated[bool, typer.Option("--same-patient", help="Also past cases of the same patient.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images held at once; no result depends on it.", min=1)] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines on stdout: one object for each image.")] = False,
) -> None:
    """Read images: probability, decision at the operating point, heat map, and whether to trust it at all.

    Exit code 1 if one of several images failed or was refused by the gate, 3 if the only one was.

    A reader of studies gives one answer for each DICOM study or folder, and the weight of each view.

    --index shows the past cases most like each image, of other patients, and says where they contradict the reader.

    Example: wetread read films/ --out reads
    """
    from wetread.models.bundle import find_reader, load_card
    from wetread.reading.decide import Decider
    from wetread.reading.feed import find_sources
    from wetread.reading.read import ReadOptions
    from wetread.settings import load_settings

    settings = load_settings()
    options = ReadOptions(
        operating_point=operating_point,
        views=views,
        batch_size=batch_size,
        heatmaps=heatmaps,
        pictures=out is not None,
        method=method,
        budget_bytes=settings.imaging.budget_bytes,
        similar=_search(index, (k, where, patient, same_patient)),
    )
    refuse_existing(out, overwrite)
    bundle = find_reader(reader, [settings.paths.readers])
    card = load_card(bundle)
    Decider(card, operating_point)  # refuses a wrong name before torch is imported
    if card.study is not None:
        from wetread.cli.read_study import read_studies

        return read_studies(bundle, card, paths, options, out, as_json=as_json)
    sources = find_sources(paths)
    show = print_line if as_json else None
    reads, failures = read_into(bundle, card, sources, options, out, show)
    if not as_json:
        print_reads(reads, failures, card, out)
    return _exit(reads, failures)


def _search(index: str | None, how: tuple[int, str | None, str | None, bool]) -> CaseSearch | None:
    """Open the index of --index; flags that are of no use without one are refused."""
    k, where, patient, same_patient = how
    if index is None:
        used = {"--where": where, "--patient": patient, "--same-patient": same_patient}
        wrong = next((flag for flag, value in used.items() if value), None)
        if wrong is not None:
            raise UsageError(expected(f"--index with {wrong}", "none", f"name an index, or leave {wrong} out"))
        return None
    from wetread.reading.similar import cases_in

    return cases_in(index, k, where=where, same_patient=same_patient, patient=patient)


def read_into(
    bundle: Path,
    card: ReaderCard,
    sources: Sequence[Source],
    options: ReadOptions,
    out: Path | None = None,
    show: Callable[[Read | ReadFailure], None] | None = None,
) -> tuple[list[Read], list[ReadFailure]]:
    """Read ``sources`` and write ``out``, whole or not at all; ``show`` gets each result as it comes.

    Raises:
        ImageRefused: the only source cannot be read; nothing is written.
        WetreadError: the disk is full.
    """
    from wetread.reading.feed import ReadFailure

    reads: list[Read] = []
    failures: list[ReadFailure] = []
    with _results(bundle, sources, options) as results, _folder(out, card) as folder:
        for result in results:
            if isinstance(result, ReadFailure):
                if len(sources) == 1:
                    raise ImageRefused(result.message)
                failures.append(result)
                if folder is not None:
                    folder.fail(result)
            else:
                reads.append(result.read if folder is None else folder.add(result))
            if show is not None:
                show(result if isinstance(result, ReadFailure) else reads[-1])
    return reads, failures


@contextmanager
def _results(
    bundle: Path, sources: Sequence[Source], options: ReadOptions
) -> Iterator[Iterator[ReadResult | ReadFailure]]:
    """Start decoding, then import torch and load the reader, then read: the first two overlap."""
    from wetread.reading.feed import Feed

    feed = Feed(sources, ahead=2 * options.batch_size, film=options.pictures, budget_bytes=options.budget_bytes)
    try:
        from wetread.models.bundle import load_reader
        from wetread.reading.read import read_feed
        from wetread.runtime import prepare_torch
        from wetread.settings import load_settings

        prepare_torch(load_settings().runtime.threads)
        yield _following(read_feed(load_reader(bundle), feed, options), len(sources))
    finally:
        feed.close()


@contextmanager
def _folder(out: Path | None, card: ReaderCard) -> Iterator[ReadFolder | None]:
    """Yield a folder that takes the place of ``out`` when all went well; None without ``out``."""
    from wetread.cli.read_folder import ReadFolder
    from wetread.provenance import atomic_folder

    if out is None:
        yield None
        return
    with atomic_folder(out, replace=True) as scratch:
        folder = ReadFolder(scratch, card)
        yield folder
        folder.finish()


def _exit(reads: Sequence[Read], failures: Sequence[ReadFailure]) -> None:
    gated = sum(not read.gate.passed for read in reads)
    if gated and len(reads) == 1 and not failures:
        raise typer.Exit(3)
    if gated or failures:
        raise typer.Exit(1)


def print_reads(reads: Sequence[Read], failures: Sequence[ReadFailure], card: ReaderCard, out: Path | None) -> None:
    """Print the table of a batch, what the decisions mean, and where the pages are."""
    from wetread.cli.console import stdout

    console = stdout()
    if reads:
        console.print(_table(reads))
    for read in reads:
        if read.prediction_set is not None and read.prediction_set.abstains:
            line = f"{read.image.name}: abstains: {read.prediction_set.reason}"
            console.print(line, style="yellow", markup=False, soft_wrap=True)
        if read.agreement is not None:
            style = "yellow" if read.agreement.agree is False else "dim"
            line = f"{read.image.name}: {read.agreement.sentence}"
            console.print(line, style=style, markup=False, soft_wrap=True)
        if read.similar is not None:
            print_similar(console, read.image.name, read.similar)
    for failure in failures:
        console.print(f"not read: {failure.name}: {failure.message}", style="red", markup=False)
    _print_meaning(console, reads, card)
    if out is not None:
        console.print(f"Pages: {out / 'index.html'}", markup=False, soft_wrap=True)


def _table(reads: Sequence[Read]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("file", "label", "probability", "decision", "gate"):
        table.add_column(name, overflow="fold", justify="right" if name == "probability" else "left")
    for read in reads:
        if not read.gate.passed:
            table.add_row(Text(read.image.name), "", "", Text("withheld", "yellow"), Text(" ".join(read.gate.reasons)))
            continue
        for number, label in enumerate(_shown(read)):
            style = "bold red" if label.decision == "positive" else ""
            name = read.image.name if number == 0 else ""
            cells = (Text(name), Text(label.label), f"{label.probability:.3f}", Text(label.decision, style), "passed")
            table.add_row(*cells)
    return table


def _shown(read: Read) -> tuple[LabelReading, ...]:
    """The labels that a table shows: the positive ones, else the most probable one."""
    from wetread.reading.evidence import labels_to_explain

    names = labels_to_explain(read.labels)
    return tuple(label for label in read.labels if label.label in names)


def _print_meaning(console: Console, reads: Sequence[Read], card: ReaderCard) -> None:
    points = {
        label.operating_point.label: label.operating_point
        for read in reads
        for label in read.labels
        if label.operating_point is not None
    }
    for point in points.values():
        sensitivity, specificity = point.sensitivity.value, point.specificity.value
        got = (
            f"sensitivity {sensitivity:.2f}, specificity {specificity:.2f} on validation"
            if sensitivity is not None and specificity is not None
            else point.rule
        )
        line = f"{point.label}: positive from {point.threshold:.3f} ({point.name}: {got})"
        console.print(line, style="dim", markup=False, soft_wrap=True)
    identity = card.identity
    about = f"{identity.name} {identity.version}, {identity.sha256[:12]}, {identity.audit_verdict}."
    console.print(f"Reader {about} Research use only. Not a diagnosis.", style="dim", markup=False, soft_wrap=True)


def _following(results: Iterator[ReadResult | ReadFailure], total: int) -> Iterator[ReadResult | ReadFailure]:
    """Pass on ``results`` and show how far it is, where there is something to wait for."""
    from wetread.cli.console import progress

    if total < _WORTH_A_BAR:
        yield from results
        return
    with progress("Reading") as advance:
        for done, result in enumerate(results, start=1):
            advance(done, total)
            yield result
