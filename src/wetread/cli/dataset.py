"""``wetread dataset import|check|split|show``: from files on disk to a table that can be trusted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.cli import dataset_pacs, dataset_plant
from wetread.cli.console import print_json, progress, spinner, stdout, warn
from wetread.cli.dataset_merge import command as merge_command
from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from wetread.datasets.check_result import CheckResult, CountTable
    from wetread.datasets.importers.registry import ImportResult
    from wetread.datasets.manifest import Manifest

__all__ = ["app"]

app = typer.Typer(
    name="dataset",
    help="Import images into a manifest, check it, divide it by patient, and show it.",
    no_args_is_help=True,
)

CHECK_JSON = "check.json"
CHECK_HTML = "check.html"

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]
Dataset = Annotated[Path, typer.Argument(help="Dataset folder, or a manifest (.parquet, .csv).")]


@app.command(
    "import",
    epilog="Example: wetread dataset import kermany-cxr --out datasets/kermany\n\n"
    "Masks: wetread dataset import films/ --coco annotations.json --out datasets/films",
)
def import_(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of images, a CSV, TSV or Parquet table, or a COCO file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Dataset folder to write; default datasets/NAME.")] = None,
    layout: Annotated[
        str, typer.Option(help="auto, mura, covid-cxr, kermany, coco, dicom, table, folder or files.")
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="OURS=THEIRS", help="Column of a table or key of a COCO image: patient=PatientID."
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="COCO file: masks from its outlines, and its boxes; found by itself in a folder."),
    ] = None,
    categories: Annotated[
        list[str] | None,
        typer.Option(
            "--category", metavar="[OURS=]THEIRS", help="COCO category to take; again for several; default all."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table of labels for a DICOM tree, keyed by path, SOP, study or patient.")
    ] = None,
    label_columns: Annotated[
        str | None,
        typer.Option(help="Columns of 1, 0 and empty, or COCO categories, one per class: A,B,C. Multi-label."),
    ] = None,
    label_separator: Annotated[
        str | None, typer.Option(help="What separates several classes in one cell, e.g. '|'.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="The class that means: nothing found.")] = None,
    patient_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its group in the path is the patient.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the paths of a table or a COCO file start from.")
    ] = None,
    tiles: Annotated[
        int | None, typer.Option(metavar="PX", help="Cut each image into tiles of this size; an image is then a study.")
    ] = None,
    tissue: Annotated[float, typer.Option(help="Share of a tile that must be tissue, 0 to 1.")] = 0.25,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default that of the source.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing dataset.")] = False,
    pacs: Annotated[
        str | None,
        typer.Option(metavar="REMOTE", help="Pull studies from an archive, de-identified: a name in [node.remotes]."),
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", help="With --pacs: Keyword=value, DICOM wildcards allowed; repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(help="With --pacs: studies at most.", min=1)] = 1000,
    per_minute: Annotated[float, typer.Option(help="With --pacs: studies asked for in a minute.", min=0.1)] = 30.0,
    key: Annotated[
        Path | None, typer.Option(help="With --pacs: key file of the pseudonyms, as of `wetread deid run`.")
    ] = None,
    characteristics: Annotated[
        bool, typer.Option("--retain-patient-characteristics", help="With --pacs: keep sex, age, size and weight.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a manifest of the images where they are; without --tiles nothing is copied or decoded.

    With --pacs the images are pulled into OUT/images and de-identified on the way; the same command goes on later.

    The layout is recognised by itself; what was guessed is shown. Masks of a COCO file are written below OUT/masks.
    """
    from wetread.datasets.importers.base import ImportOptions
    from wetread.datasets.importers.registry import import_dataset

    options = ImportOptions(
        columns=_pairs(columns or []),
        labels=labels,
        label_columns=tuple(c.strip() for c in (label_columns or "").split(",") if c.strip()),
        label_separator=label_separator,
        negative=negative,
        patient_pattern=patient_pattern,
        images=images,
        coco=coco,
        categories=_categories(categories or []),
    )
    report = None
    if pacs is not None:
        name = name or ("cohort" if out is None else out.name)
        out = out or Path("datasets") / name
        _refuse_existing(out, overwrite)
        asked = dataset_pacs.Cohort(pacs, query or [], limit, per_minute, key, characteristics)
        source, report = dataset_pacs.pull(asked, out, source)
        layout = "dicom"
    if source is None:
        raise UsageError(expected("a SOURCE or --pacs", "neither", "name a folder or table, or an archive"))
    with spinner(f"Importing {source}"):
        result = import_dataset(source, layout=layout, options=options, name=name)
    folder = out or Path("datasets") / result.manifest.meta.name
    _refuse_existing(folder, overwrite)
    manifest = _save(result, folder, overwrite) if tiles is None else _cut(result, folder, (tiles, tissue), overwrite)
    _tell_import(result, folder, manifest, as_json)
    if report is not None:
        dataset_pacs.finish(report)


def _tell_import(result: ImportResult, folder: Path, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        found = {
            "dataset": str(folder),
            "layout": result.layout,
            "reason": result.reason,
            "images": len(manifest.table),
            "notes": result.notes,
            "warnings": result.warnings,
            "masks": {column: len(masks) for column, masks in result.masks.items()},
        }
        return print_json(found | _description(manifest))
    console = stdout()
    what = f"{len(manifest.table)} images, layout {result.layout} ({result.reason})"
    console.print(f"{folder}: {what}", style="bold", markup=False)
    for note in result.notes:
        console.print(f"  {note}", markup=False)
    for warning in result.warnings:
        console.print(f"  ! {warning}", style="yellow", markup=False)
    _print_counts(console, manifest)
    console.print(f"Next: wetread dataset check {folder}", markup=False)


def _save(result: ImportResult, folder: Path, overwrite: bool) -> Manifest:
    if not result.masks:
        return result.save(folder)
    with progress("Writing masks", "masks") as advance:
        return result.save(folder, advance, replace=overwrite)


def _cut(result: ImportResult, folder: Path, asked: tuple[int, float], overwrite: bool) -> Manifest:
    from wetread.datasets.tiles import TilePlan, cut_tiles

    plan = TilePlan(size_px=asked[0], tissue=asked[1])
    with progress("Cutting tiles") as advance:
        manifest = cut_tiles(result.manifest, folder, plan, advance, replace=overwrite)
    manifest.save(folder)
    return manifest


app.command(
    "merge",
    epilog="Example: wetread dataset merge datasets/children datasets/adults --classes NORMAL,PNEUMONIA,COVID-19 "
    "--rename 'No Finding=NORMAL' --out datasets/three",
)(merge_command)


@app.command(epilog="Example: wetread dataset check datasets/kermany")
def check(
    dataset: Dataset,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and check.html; default the dataset's.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads; 0: one per core.", min=0)] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Decode all images again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decode every image once: conformance, copies, quality, labels. Exit code 3 if something blocks.

    Writes check.json and check.html, and fills width, height, bits, spacing and hashes into the manifest.
    """
    from wetread.datasets.check import check_scanned, require_clean
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.scan import load_scan, save_scan, scan, with_facts
    from wetread.datasets.thumbnails import with_thumbnails

    manifest = load_manifest(dataset)
    manifest.require_files()
    folder = out or (dataset if dataset.is_dir() else dataset.parent)
    folder.mkdir(parents=True, exist_ok=True)
    previous = None if fresh else load_scan(folder)
    start = time.perf_counter()
    with progress("Reading images") as advance:
        scanned = scan(manifest, advance, workers=workers, previous=previous)
    read_s = time.perf_counter() - start
    save_scan(scanned, folder)
    if dataset.is_dir():
        manifest = with_facts(manifest, scanned)
        manifest.save(dataset)
    with spinner("Looking for copies, outliers and conflicts"):
        result = with_thumbnails(check_scanned(manifest, scanned, read_s=read_s), manifest)
    _write_check(result, folder)
    if as_json:
        print_json(result)
    else:
        _print_counts(stdout(), manifest)
        _print_check(result, folder)
    require_clean(result)


@app.command(epilog="Example: wetread dataset split datasets/kermany --train 0.85 --val 0.15")
def split(
    dataset: Dataset,
    train: Annotated[float | None, typer.Option(help="Share of the images that are divided.")] = None,
    val: Annotated[float | None, typer.Option(help="Share for choosing thresholds and models.")] = None,
    test: Annotated[float | None, typer.Option(help="Share for the final figures; leave out if given.")] = None,
    folds: Annotated[int | None, typer.Option(help="Cross-validation folds instead of shares.", min=2)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the shuffling.")] = 0,
    reset: Annotated[bool, typer.Option("--reset", help="Divide given splits anew as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Divide the images by patient, balanced over classes; a given val or test split stays.

    Images of one patient or study, identical files and (after a check) near duplicates stay together.
    Default shares: 0.7, 0.15, 0.15; where test is given: 0.85, 0.15.
    """
    from wetread.datasets.check import linked_paths
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.scan import load_scan
    from wetread.datasets.splits import make_folds, make_split

    asked = {k: v for k, v in (("train", train), ("val", val), ("test", test)) if v is not None}
    if folds is not None and (asked or reset):
        raise UsageError(expected("--folds alone", "shares or --reset beside it", "leave one of them out"))
    folder = _writable(dataset)
    manifest = load_manifest(folder)
    scanned = load_scan(folder)
    if scanned is None:
        warn("near duplicates are not known yet: wetread dataset check finds them")
    linked = None if scanned is None else linked_paths(manifest, scanned)
    with spinner("Dividing by patient"):
        if folds is not None:
            done = make_folds(manifest, folds, seed=seed, linked=linked)
        else:
            done = make_split(manifest, asked or None, seed=seed, reset=reset, linked=linked)
    done.save(folder)
    if as_json:
        return print_json(_description(done))
    console = stdout()
    _print_counts(console, done)
    _print_split(console, done)


@app.command(epilog="Example: wetread dataset show datasets/kermany --json")
def show(dataset: Dataset, as_json: AsJson = False) -> None:
    """Print what a dataset consists of: task, classes, counts, split, last check."""
    from wetread.datasets.manifest import load_manifest

    manifest = load_manifest(dataset)
    last = _last_check(dataset if dataset.is_dir() else dataset.parent)
    if as_json:
        return print_json(_description(manifest) | {"check": last})
    console = stdout()
    meta = manifest.meta
    console.print(
        f"[bold]{meta.name}[/]: {len(manifest.table)} images, {meta.task}: {', '.join(meta.classes) or 'no labels'}"
    )
    for what, value in (
        ("images below", str(manifest.root)),
        ("licence", meta.licence),
        ("organ", meta.organ),
        ("labels", meta.label_policy),
        ("flips allowed", ", ".join(meta.allowed_flips) or "none"),
        ("last check", last["summary"] if last else "never; wetread dataset check"),
    ):
        if value:
            console.print(f"  {what}: {value}", markup=False)
    _print_counts(console, manifest, whole=True)
    _print_split(console, manifest)


app.command("plant", epilog=dataset_plant.EXAMPLE)(dataset_plant.command)


def _pairs(items: Sequence[str]) -> dict[str, str]:
    split = [item.partition("=") for item in items]
    for ours, equals, theirs in split:
        if not (ours and equals and theirs):
            raise UsageError(expected("--map OURS=THEIRS", f"'{ours}{equals}{theirs}'", "e.g. --map patient=PatientID"))
    return {ours.strip(): theirs.strip() for ours, _, theirs in split}


def _categories(items: Sequence[str]) -> dict[str, str]:
    """Ours -> their category; without ``=`` both are the same."""
    found: dict[str, str] = {}
    for item in items:
        ours, _, theirs = item.partition("=")
        if not ours.strip() or ours.strip() in found or ("=" in item and not theirs.strip()):
            cure = "e.g. --category heart, or --category 'heart=Cor'"
            raise UsageError(expected("--category THEIRS or OURS=THEIRS, each once", f"'{item}'", cure))
        found[ours.strip()] = theirs.strip() or ours.strip()
    return found


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if (folder / "manifest.parquet").exists() and not overwrite:
        raise DatasetRefused(
            expected(
                "a new dataset folder", f"{folder} with a manifest in it", "choose another --out or give --overwrite"
            )
        )


def _writable(dataset: Path) -> Path:
    if dataset.is_dir():
        return dataset
    raise DatasetRefused(
        expected(
            "a dataset folder, where the split is stored",
            f"the table {dataset.name}",
            f"import it first: wetread dataset import {dataset} --out FOLDER",
        )
    )


def _write_check(result: CheckResult, folder: Path) -> None:
    from wetread.provenance import atomic_file
    from wetread.reporting.html import render_check

    for name, text in ((CHECK_JSON, result.model_dump_json(indent=2)), (CHECK_HTML, render_check(result))):
        with atomic_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")


def _last_check(folder: Path) -> dict[str, Any] | None:
    from wetread.datasets.check_result import CheckResult

    file = folder / CHECK_JSON
    if not file.is_file():
        return None
    result = CheckResult.model_validate_json(file.read_text(encoding="utf-8"))
    counts = {s: sum(f.severity == s for f in result.findings) for s in ("block", "warn", "info")}
    summary = f"{counts['block']} blocking findings, {counts['warn']} warnings, {counts['info']} notes"
    return {"summary": summary, "findings": counts, "images": result.n_images}


def _description(manifest: Manifest) -> dict[str, Any]:
    from wetread.datasets.counts import count_tables

    meta = manifest.meta.model_dump(mode="json")
    tables = [t.model_dump(mode="json") for t in count_tables(manifest)]
    return {"images": len(manifest.table), **meta, "root": str(manifest.root), "counts": tables}


def _print_counts(console: Console, manifest: Manifest, *, whole: bool = False) -> None:
    from wetread.datasets.counts import count_tables, main_tables

    for table in count_tables(manifest) if whole else main_tables(manifest):
        _print_table(console, table)


def _print_table(console: Console, counts: CountTable) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(counts.title, style="bold", markup=False)
    table = Table()
    for i, column in enumerate(counts.columns):
        table.add_column(Text(column), justify="left" if i == 0 else "right")
    for row in counts.rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def _print_split(console: Console, manifest: Manifest) -> None:
    made = manifest.meta.split
    if made is None:
        console.print("split: none yet; wetread dataset split", markup=False)
        return
    seed = "" if made.seed is None else f", seed {made.seed}"
    console.print(f"split: {made.method}{seed}, sha256 {made.sha256[:12]}", markup=False)


_STYLES = {"block": "bold red", "warn": "yellow", "info": "dim"}


def _print_check(result: CheckResult, folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print("findings", style="bold")
    table = Table()
    for column in ("severity", "what", "count", "what to do"):
        table.add_column(column, overflow="fold", justify="right" if column == "count" else "left")
    for finding in result.findings:
        table.add_row(
            Text(finding.severity, style=_STYLES[finding.severity]),
            Text(finding.title),
            Text(f"{finding.count} {finding.unit}"),
            Text(finding.cure),
        )
    console.print(table if result.findings else "no findings")
    console.print(f"{folder / CHECK_HTML}\n{folder / CHECK_JSON}", markup=False)
