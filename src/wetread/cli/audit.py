"""``wetread audit``: sixteen questions to a reader and its data, one page, one verdict on the card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.cli.console import print_json, staged_progress, stdout, warn
from wetread.errors import WetreadError

if TYPE_CHECKING:
    import pandas as pd

    from wetread.audit.result import AuditResult
    from wetread.audit.run import Audited, Question
    from wetread.models.guide import Guide

__all__ = ["command"]

PAGE = "audit.html"
RESULT = "audit.json"
_FAILED = 5
_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "NOT ASSESSABLE": "dim"}


def command(
    reader: Annotated[str, typer.Argument(help="Name or folder of a reader.")],
    data: Annotated[Path, typer.Option(help="Dataset to audit it on, with the reader's labels.")],
    split: Annotated[str, typer.Option(help="Split that the reader is judged on.")] = "test",
    organ: Annotated[
        str | None, typer.Option(help="Organ of interest, or none [what the dataset names, else lungs].")
    ] = None,
    segmenter: Annotated[str, typer.Option(help="Finds the organ where masks are not annotated, or none.")] = "lungs",
    outside: Annotated[
        Path | None, typer.Option(help="Images that are near, but not what the reader was built for (T12).")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Predictions of a reader that this one is said to beat (T14).")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="TOML file with the author's answers to items of CLAIM (T16).")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Ask this alone, e.g. T3; again for more.")
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A limit other than the default; again for more.")
    ] = None,
    images: Annotated[int, typer.Option(help="Images at most for the questions about the data.", min=50)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of samples and folds.")] = 0,
    out: Annotated[Path, typer.Option(help="New folder for audit.html, audit.json and pictures.")] = Path("audit"),
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Write the verdict into the reader's card.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 5 if any question fails.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Ask whether a reader reads the disease or something else, and write one page that a clinician can read.

    The verdict goes into the reader's card and from there onto every read, report and export, until it is audited
    anew. An audit of some questions alone (--only) is not recorded.

    Example: wetread audit chest-pneumonia --data datasets/kermany --out audit --strict
    """
    from wetread.audit.run import audit
    from wetread.audit.thresholds import thresholds_of
    from wetread.cli.result_files import refuse_existing
    from wetread.datasets.manifest import load_manifest
    from wetread.models.bundle import find_reader, load_reader
    from wetread.provenance import record as provenance
    from wetread.reading.gate import judge
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    refuse_existing(out, overwrite=False)
    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    shelves = [settings.paths.readers]
    manifest = load_manifest(data)
    folder = find_reader(reader, shelves)
    loaded = load_reader(folder)
    looked_for = _organ(organ, manifest.meta.organ)
    asked = _question(
        gate=judge,
        split=split,
        organ=looked_for,
        finder=_finder(looked_for, segmenter, shelves),
        limits=thresholds_of(threshold or []),
        images=images,
        outside=outside,
        against=_against(against),
        answers=_answers(answers),
        only=tuple(only or ()),
        seed=seed,
    )
    run = provenance(seed=seed)
    told = {"wetread": run.wetread, "created": run.created, "python": run.python, "commit": run.commit or "unknown"}
    with staged_progress() as advance:
        found = audit(loaded, manifest, asked, told, advance)
    _write(out, found)
    if record and not asked.only:
        _record(folder, found)
    if as_json:
        print_json(found.result.model_dump(mode="json"))
    else:
        _print(found.result, out)
    if strict and found.result.failed:
        raise typer.Exit(_FAILED)


def _question(**parts: Any) -> Question:
    from wetread.audit.run import Question

    return Question(**parts)


def _organ(asked: str | None, of_data: str | None) -> str | None:
    if asked == "none":
        return None
    return asked or of_data or "lungs"


def _finder(organ: str | None, segmenter: str, shelves: list[Path]) -> Guide | None:
    from wetread.models.bundle import load_finder

    return None if organ is None or segmenter == "none" else load_finder(organ, segmenter, shelves)


def _against(file: Path | None) -> tuple[pd.DataFrame, str] | None:
    from wetread.evaluation.table import read_predictions

    return None if file is None else (read_predictions(str(file)), file.parent.name or file.stem)


def _answers(file: Path | None) -> dict[int, str]:
    from wetread.audit.paperwork import load_answers

    return {} if file is None else load_answers(file)


def _write(out: Path, found: Audited) -> None:
    from wetread.provenance import atomic_folder
    from wetread.reporting.html import render_audit

    with atomic_folder(out) as folder:
        (folder / RESULT).write_text(found.result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(render_audit(found.result, found.pictures), encoding="utf-8")
        for name, png in found.pictures.items():
            (folder / name).write_bytes(png)


def _record(folder: Path, found: Audited) -> None:
    """Put the verdict on the card; a reader in a place that may not be written keeps its old one, and that is said."""
    from wetread.audit.record import record_audit

    try:
        record_audit(folder, found.result)
    except WetreadError as error:
        warn(f"the verdict is not on the card: {error}")


def _print(result: AuditResult, out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "question", "answer", "n", "what was found"):
        table.add_column(name, overflow="fold")
    for line in result.lines:
        answer = Text(line.answer, style=_COLOURS[line.answer])
        table.add_row(line.code, Text(line.question), answer, f"{line.n or ''}", Text(line.sentence))
    console = stdout()
    console.print(table)
    console.print(result.headline, style="bold red" if result.watermark else "bold", markup=False)
    if result.watermark:
        console.print(result.watermark, markup=False)
    console.print(f"Page: {out / PAGE}", markup=False)
