"""``wetread models list|show|export|import``: the readers there are, and moving them safely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from wetread.models.card import Card, ForeignSpec, MetricRow, ReferenceCheck
    from wetread.models.foreign import ForeignSource
    from wetread.types import Estimate

__all__ = ["app"]

app = typer.Typer(name="models", help="List, show, export and import readers.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]
ReaderName = Annotated[str, typer.Argument(help="Name of a reader, its folder, or a run folder.")]
Shelf = Annotated[Path | None, typer.Option("--readers", help="Folder of readers; default paths.readers.")]


@app.command("list", epilog="Example: wetread models list --json")
def list_(readers: Shelf = None, as_json: AsJson = False) -> None:
    """List the shipped and the imported readers. No network is loaded."""
    from rich.table import Table
    from rich.text import Text

    from wetread.cli.console import print_json, stdout
    from wetread.models.bundle import list_bundles

    found = list_bundles([_shelf(readers)])
    if as_json:
        return print_json([_row(folder, card) for folder, card in found])
    if not found:
        stdout().print("no readers yet; train one (wetread train --help) or import one", markup=False)
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "version", "task", "finds", "trained on (images)", "audit"):
        # A name is what one types: it is never cut.
        table.add_column(column, no_wrap=column in ("name", "version", "task"), overflow="fold")
    for _, card in found:
        data = card.data.name if card.data.images == "unknown" else f"{card.data.name} ({card.data.images})"
        cells = (card.name, card.version, _task(card), ", ".join(_outputs(card)), data, card.audit_verdict)
        table.add_row(*(Text(cell) for cell in cells))
    stdout().print(table)
    return None


@app.command(epilog="Example: wetread models show chest-pneumonia")
def show(name: ReaderName, readers: Shelf = None, as_json: AsJson = False) -> None:
    """Show the card of one reader: what it is for, what it learned from, how good it was."""
    from wetread.cli.console import print_json, stdout
    from wetread.models.bundle import find_reader, load_any_card

    folder = find_reader(name, [_shelf(readers)])
    card = load_any_card(folder)
    if as_json:
        return print_json(_row(folder, card))
    console = stdout()
    for what, text in _facts(folder, card):
        console.print(f"{what:17} {text}", markup=False, soft_wrap=True)
    for limit in card.limits:
        console.print(f"{'limit':17} {limit}", markup=False, soft_wrap=True)
    for point in getattr(card, "operating_points", ()):
        found = f"sensitivity {_estimate(point.sensitivity)}, specificity {_estimate(point.specificity)}"
        line = f"{point.label} at {point.threshold:.3f} ({point.rule}; validation): {found}"
        console.print(f"{point.name:17} {line}", markup=False, soft_wrap=True)
    for row in card.metrics:
        console.print(_metric(row), markup=False, soft_wrap=True)
    return None


@app.command(epilog="Example: wetread models export chest-pneumonia --out chest-pneumonia.zip")
def export(
    name: ReaderName,
    out: Annotated[Path | None, typer.Option(help="A .zip file or a folder; default NAME.zip.")] = None,
    readers: Shelf = None,
) -> None:
    """Write a reader to one zip file or folder, after checking its hashes."""
    from wetread.models.bundle import export_reader, find_reader, load_any_card
    from wetread.provenance import disk_errors

    shelves = [_shelf(readers)]
    target = out or Path(f"{load_any_card(find_reader(name, shelves)).name}.zip")
    with disk_errors(target):
        typer.echo(str(export_reader(name, target, shelves)))


@app.command("import", epilog="Example: wetread models import network.onnx --card card.toml")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            help="A zip file or folder made by `wetread models export`; or an .onnx or .safetensors file or a folder "
            "from Hugging Face, with --card.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Another name for it.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="For a reader made elsewhere: its classes, input and output (.toml, .json).")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Images with what the original gives (.toml, .json, .npz, .safetensors) [those of the card]."
        ),
    ] = None,
    without_reference: Annotated[
        bool, typer.Option("--without-reference", help="Import it without a proof that it is fed as it was.")
    ] = False,
    readers: Shelf = None,
) -> None:
    """Check a reader and add it: card schema, hashes, architecture; a pickle is refused.

    One made elsewhere must reproduce a reference: an image and what the original gives for it.
    """
    from wetread.models.bundle import import_reader, load_any_card
    from wetread.models.card import SegmenterCard
    from wetread.models.foreign import ForeignSource, is_foreign
    from wetread.provenance import disk_errors

    shelf = _shelf(readers)
    with disk_errors(shelf):
        if is_foreign(path):
            return _import_foreign(ForeignSource(path, card, reference, without_reference), shelf, name)
        if card is not None or reference is not None or without_reference:
            raise UsageError(
                expected(
                    "--card and reference flags for a reader made elsewhere", f"a bundle, {path.name}", "drop them"
                )
            )
        folder = import_reader(path, shelf, name)
    segments = isinstance(load_any_card(folder), SegmenterCard)
    verb = f"segment FILE --segmenter {folder.name}" if segments else f"read FILE --reader {folder.name}"
    typer.echo(f"{folder}\nNext: wetread {verb}")
    return None


def _import_foreign(source: ForeignSource, shelf: Path, name: str | None) -> None:
    from wetread.cli.console import warn
    from wetread.models.foreign import WITHOUT_REFERENCE, import_foreign
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    prepare_torch(load_settings().runtime.threads)
    card = import_foreign(source, shelf, name)
    check = None if card.foreign is None else card.foreign.reference
    if check is None:
        warn(WITHOUT_REFERENCE)
    else:
        typer.echo(f"Reference: {_reproduced(check)}")
    typer.echo(f"{shelf / card.name}\nNext: wetread read FILE --reader {card.name}")


def _reproduced(check: ReferenceCheck) -> str:
    images = f"{check.images} image{'s' if check.images > 1 else ''}"
    return (
        f"{check.compared} of {images} reproduced, largest difference {check.largest_difference:.2g} "
        f"(tolerance {check.tolerance:g})"
    )


def _shelf(readers: Path | None) -> Path:
    from wetread.settings import load_settings

    return load_settings({"paths.readers": readers}).paths.readers


def _row(folder: Path, card: Card) -> dict[str, Any]:
    return {"folder": str(folder), **card.model_dump(mode="json")}


def _facts(folder: Path, card: Card) -> list[tuple[str, str]]:
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    data = f"{card.data.name}: {card.data.images} images of {card.data.patients} patients, {card.data.licence}"
    return [
        ("name", f"{card.name} {card.version}"),
        ("folder", f"{folder} ({size / 1e6:.1f} MB)"),
        ("task", f"{_task(card)}: {', '.join(getattr(card, 'classes', _outputs(card)))}"),
        ("network", f"{card.architecture}, {card.networks} of them"),
        ("input", f"{card.input.height} x {card.input.width} px, {card.input.fit}"),
        *_origin(card),
        ("trained on", data),
        ("population", card.data.population),
        ("licence", card.licence),
        ("audit", card.audit_verdict),
        ("sha256", card.sha256),
        ("intended use", card.intended_use),
    ]


def _origin(card: Card) -> list[tuple[str, str]]:
    """Where a reader made elsewhere came from, and whether it is fed here as it was there."""
    foreign: ForeignSpec | None = getattr(card, "foreign", None)
    if foreign is None:
        return []
    proof = "none was given" if foreign.reference is None else _reproduced(foreign.reference)
    return [("imported from", f"{foreign.file} ({foreign.kind}, sha256 {foreign.sha256})"), ("reference", proof)]


def _task(card: Card) -> str:
    return "segmentation" if card.kind == "segmenter" else card.task


def _outputs(card: Card) -> tuple[str, ...]:
    return card.organs if card.kind == "segmenter" else card.labels


def _metric(row: MetricRow) -> str:
    point = f" at {row.operating_point}" if row.operating_point else ""
    return f"{row.name:17} {_estimate(row.estimate)} on {row.split}{point}, n = {row.estimate.n}"


def _estimate(value: Estimate) -> str:
    if value.value is None:
        return f"not given ({value.note})"
    if value.low is None or value.high is None:
        return f"{value.value:.3f} ({value.note or 'no interval'})"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
