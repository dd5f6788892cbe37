"""``wetread segment``: images in, organ masks and their measures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wetread.cli.result_files import print_line, refuse_existing
from wetread.errors import ImageRefused, UsageError, expected

if TYPE_CHECKING:
    from wetread.cli.segment_folder import SegmentFolder
    from wetread.models.card import SegmenterCard
    from wetread.reading.feed import ReadFailure, Source
    from wetread.reading.organs import OrganReading, Segmented

__all__ = ["command"]

DEFAULT_SEGMENTER = "lungs"
_WORTH_A_BAR = 5
MaskFormat = Literal["png", "dicom-seg", "nifti"]


def command(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    segmenter: Annotated[str, typer.Option(help="Name or folder of a segmenter, or a run folder.")] = DEFAULT_SEGMENTER,
    out: Annotated[Path | None, typer.Option(help="New folder: masks, overlays, page, organs.jsonl.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of --out.")] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="png, dicom-seg or nifti; repeat for several [png].")
    ] = None,
    clean: Annotated[bool, typer.Option("--clean/--raw", help="Remove strays and fill small holes.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines on stdout: one object for each image.")] = False,
) -> None:
    """Find organs: masks, how sure the network is, what is odd about each, and sizes in real units.

    Sizes have no value where the file states no pixel spacing. Exit code 1 if one of several files failed.

    Example: wetread segment films/ --out organs --format png --format dicom-seg
    """
    from wetread.models.bundle import find_reader, load_any_card
    from wetread.models.card import SegmenterCard
    from wetread.reading.feed import ReadFailure, find_sources
    from wetread.settings import load_settings

    wanted = _formats(formats)
    refuse_existing(out, overwrite)
    bundle = find_reader(segmenter, [load_settings().paths.readers])
    card = load_any_card(bundle)
    if not isinstance(card, SegmenterCard):
        raise UsageError(expected("a segmenter", f"the reader {card.name}", "use `wetread read`"))
    sources = find_sources(paths)
    readings: list[OrganReading] = []
    failures: list[ReadFailure] = []
    with _folder(out, card, wanted) as folder:
        for result in _results(bundle, sources, clean=clean):
            if isinstance(result, ReadFailure):
                if len(sources) == 1:
                    raise ImageRefused(result.message)
                failures.append(result)
            else:
                readings.append(result.reading if folder is None else folder.add(result))
            if as_json:
                print_line(result if isinstance(result, ReadFailure) else readings[-1])
        if folder is not None:
            folder.finish(failures)
    if not as_json:
        _print(readings, failures, card, out)
    if failures:
        raise typer.Exit(1)


def _formats(given: Sequence[str] | None) -> tuple[MaskFormat, ...]:
    known: tuple[MaskFormat, ...] = ("png", "dicom-seg", "nifti")
    for one in given or ():
        if one not in known:
            raise UsageError(
                expected(f"a mask format among {', '.join(known)}", repr(one), "repeat --format for several")
            )
    return tuple(one for one in known if one in (given or ("png",)))


def _results(bundle: Path, sources: Sequence[Source], *, clean: bool) -> Iterator[Segmented | ReadFailure]:
    """Yield :class:`Segmented` or :class:`ReadFailure` for each source, with a bar where it is worth one."""
    from wetread.cli.console import progress
    from wetread.models.bundle import load_segmenter
    from wetread.reading.organs import segment_images
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    prepare_torch(load_settings().runtime.threads)
    found = segment_images(load_segmenter(bundle), sources, clean=clean)
    if len(sources) < _WORTH_A_BAR:
        yield from found
        return
    with progress("Finding organs") as advance:
        for done, result in enumerate(found, start=1):
            advance(done, len(sources))
            yield result


@contextmanager
def _folder(out: Path | None, card: SegmenterCard, formats: tuple[MaskFormat, ...]) -> Iterator[SegmentFolder | None]:
    """Yield a folder that takes the place of ``out`` when all went well; None without ``out``."""
    from wetread.cli.segment_folder import SegmentFolder
    from wetread.provenance import atomic_folder

    if out is None:
        yield None
        return
    with atomic_folder(out, replace=True) as scratch:
        yield SegmentFolder(scratch, card, formats)


def _print(
    readings: Sequence[OrganReading], failures: Sequence[ReadFailure], card: SegmenterCard, out: Path | None
) -> None:
    from rich.table import Table
    from rich.text import Text

    from wetread.cli.console import stdout

    console = stdout()
    if readings:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("file", "organ", "confidence", "measures", "flags"):
            table.add_column(name, overflow="fold", justify="right" if name == "confidence" else "left")
        for reading in readings:
            for number, organ in enumerate(reading.organs):
                name = reading.image.name if number == 0 else ""
                flags = Text(", ".join(organ.flags), "yellow")
                sizes = Text(_sizes(reading, organ.organ))
                table.add_row(Text(name), Text(organ.organ), f"{organ.confidence:.2f}", sizes, flags)
        console.print(table)
    for failure in failures:
        console.print(f"not read: {failure.name}: {failure.message}", style="red", markup=False)
    flagged = sum(bool(reading.flags) for reading in readings)
    many = "image" if len(readings) == 1 else "images"
    console.print(f"{len(readings)} {many}, {flagged} with an odd mask", markup=False)
    about = f"{card.name} {card.version}, {card.sha256[:12]}, {card.audit_verdict}."
    console.print(f"Segmenter {about} Research use only. Not a diagnosis.", style="dim", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"Page: {out / 'index.html'}", markup=False, soft_wrap=True)


def _sizes(reading: OrganReading, organ: str) -> str:
    shown = [
        f"{one.name} {one.value:.2f}{'' if one.unit == '1' else ' ' + one.unit}"
        for one in reading.measures
        if one.organ == organ and one.value is not None
    ]
    return ", ".join(shown[:3])
