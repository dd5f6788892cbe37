"""``wetread explain``: where a reader looked, as overlays, raw maps and boxes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.cli.console import print_json, progress, stdout, warn
from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from wetread.explain.base import Target
    from wetread.explain.files import Explained
    from wetread.models.predict import Reader

__all__ = ["command"]

RECORDS = "explanations.json"
FAILURES = "failures.csv"


def command(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    reader: Annotated[str, typer.Option(help="Name or folder of a reader.")] = "chest-pneumonia",
    label: Annotated[list[str] | None, typer.Option(help="Label to explain; may be repeated [all labels].")] = None,
    method: Annotated[str, typer.Option(help="gradcam, cam, gradcam++, hirescam or all.")] = "gradcam",
    layer: Annotated[
        str | None, typer.Option(help="Layer of the encoder, e.g. layer3 [the last feature maps].")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Boxes around heat above this share of the maximum [Otsu's rule].")
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder to write.")] = Path("explanations"),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Show where the score of a label came from: overlay PNG, raw map (.npy) and boxes for each image.

    Exit code 1 if a map could not be made; failures.csv says which and why.

    Example: wetread explain films/ --reader chest-pneumonia --method gradcam++ --out maps
    """
    from wetread.explain.files import explain_files, usable_targets
    from wetread.imaging import find_images
    from wetread.models.bundle import load_reader
    from wetread.provenance import atomic_folder
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(expected("--threshold between 0 and 1", threshold, "give a share of the maximum"))
    files = find_images(paths)
    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    loaded = load_reader(reader, [settings.paths.readers])
    targets, notes = usable_targets(loaded, _targets(loaded, label or [], method, layer))
    for note in notes:
        warn(f"left out: {note}")
    with atomic_folder(out) as folder, progress("Explaining") as advance:
        budget = settings.imaging.budget_bytes
        explained = explain_files(
            loaded, files, targets, folder, threshold=threshold, budget_bytes=budget, advance=advance
        )
        _write(folder, loaded, explained)
    if as_json:
        print_json(_document(loaded, explained))
    else:
        _print(explained, out)
    if explained.failures:
        raise typer.Exit(1)


def _targets(reader: Reader, labels: list[str], method: str, layer: str | None) -> list[Target]:
    from wetread.explain.base import CAM_METHODS, Target
    from wetread.explain.cam import require_label

    for label in labels:
        require_label(reader, label)
    methods = CAM_METHODS if method == "all" else (method,)
    return [Target(label, name, layer) for label in labels or reader.labels for name in methods]  # type: ignore[arg-type]


def _document(reader: Reader, explained: Explained) -> dict[str, object]:
    return {
        "model": reader.card.identity.model_dump(mode="json"),
        "input": reader.input.model_dump(mode="json"),
        "maps": [record.model_dump(mode="json") for record in explained.maps],
        "failures": [failure.model_dump(mode="json") for failure in explained.failures],
        "disclaimer": reader.card.intended_use,
    }


def _write(folder: Path, reader: Reader, explained: Explained) -> None:
    from wetread.provenance import write_json_atomically

    write_json_atomically(folder / RECORDS, _document(reader, explained))
    if explained.failures:
        with (folder / FAILURES).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ("image", "label", "method", "reason"))
            writer.writeheader()
            writer.writerows(failure.model_dump() for failure in explained.failures)


def _print(explained: Explained, out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("image", "label", "probability", "method", "layer", "boxes (x, y, width, height)", "overlay"):
        table.add_column(name, overflow="fold")
    for record in explained.maps:
        boxes = "; ".join(f"{box.x:.0f}, {box.y:.0f}, {box.width:.0f}, {box.height:.0f}" for box in record.boxes)
        cells = (record.image, record.label, f"{record.probability:.3f}", record.method, record.layer, boxes)
        table.add_row(*(Text(cell) for cell in (*cells, record.overlay)))
    console = stdout()
    if explained.maps:
        console.print(table)
    for failure in explained.failures:
        console.print(f"{failure.image} {failure.label}: {failure.reason}", style="red", markup=False)
    console.print(f"{len(explained.maps)} maps, {len(explained.failures)} failures: {out}", markup=False)
