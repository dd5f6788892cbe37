"""``wetread explain``: where a reader looked, as overlays, raw maps, boxes, comparison sheets and similar cases."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from wetread.cli.console import print_json, progress, staged_progress, stdout, warn
from wetread.defaults import DEFAULT_READER
from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from wetread.explain.base import Options, Target
    from wetread.explain.examples import CaseSet
    from wetread.explain.files import Explained
    from wetread.models.predict import Reader

__all__ = ["command"]

RECORDS = "explanations.json"
FAILURES = "failures.csv"
METHOD_HELP = (
    "cam, gradcam, gradcam++, hirescam, gradient-x-input, smoothgrad, integrated-gradients, gradient-shap, "
    "occlusion, rise, lime; or all, which also writes a sheet that compares them."
)


def command(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    reader: Annotated[str, typer.Option(help="Name or folder of a reader.")] = DEFAULT_READER,
    label: Annotated[list[str] | None, typer.Option(help="Label to explain; may be repeated [all labels].")] = None,
    method: Annotated[str, typer.Option(help=METHOD_HELP)] = "gradcam",
    layer: Annotated[
        str | None,
        typer.Option(
            help="For CAM methods: fine, last, or one of the encoder, e.g. layer3 [gradcam: fine, others: last]."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Noisy or changed images for each map: more are slower and less noisy.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn at random.")] = 0,
    fill: Annotated[
        str | None, typer.Option(help="What hidden pixels become: blur, mean (grey) or black [blur].")
    ] = None,
    accept_weak: Annotated[
        bool, typer.Option("--accept-weak", help="Show LIME maps that describe the reader badly too, with a warning.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Boxes around heat above this share of the maximum [Otsu's rule].")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Data set to name similar cases of, beside the maps.", metavar="DATASET")
    ] = None,
    neighbours: Annotated[int, typer.Option(help="How many similar cases.")] = 5,
    out: Annotated[Path, typer.Option(help="New folder to write.")] = Path("explanations"),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Show where the score of a label came from: overlay PNG, raw map (.npy) and boxes for each image.

    Exit code 1 if a map could not be made; failures.csv says which and why.

    Example: wetread explain films/ --reader chest-pneumonia --method all --out maps
    """
    from wetread.explain.files import Plan, explain_files, usable_targets
    from wetread.imaging import find_images
    from wetread.models.bundle import load_reader
    from wetread.provenance import atomic_folder
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(expected("--threshold between 0 and 1", threshold, "give a share of the maximum"))
    if neighbours < 1:
        raise UsageError(expected("--neighbours of at least 1", neighbours, "leave --cases out to have none"))
    options = _options(samples, seed, fill, accept_weak=accept_weak)
    files = find_images(paths)
    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    loaded = load_reader(reader, [settings.paths.readers])
    targets, refused = usable_targets(loaded, _targets(loaded, label or [], method, layer))
    for reason in dict.fromkeys(one.reason for one in refused):
        warn(f"left out: {reason}")
    plan = Plan(
        targets, options, refused, threshold, method == "all", _cases(loaded, cases, settings.paths.cache), neighbours
    )
    with atomic_folder(out) as folder, progress(_work(targets), "maps") as advance:
        explained = explain_files(
            loaded, files, plan, folder, budget_bytes=settings.imaging.budget_bytes, advance=advance
        )
        _write(folder, loaded, explained)
    if as_json:
        print_json(_document(loaded, explained))
    else:
        _print(explained, out)
    if explained.failures:
        raise typer.Exit(1)


def _options(samples: int | None, seed: int, fill: str | None, *, accept_weak: bool) -> Options:
    from wetread.explain.base import Options
    from wetread.explain.perturbation import FILLS, Fill

    if samples is not None and samples < 1:
        raise UsageError(expected("--samples of at least 1", samples, "leave it out for what each method needs"))
    if not 0 <= seed < 2**63:
        raise UsageError(expected("--seed of 0 or more", seed, "give a whole number"))
    if fill is not None and fill not in get_args(Fill):
        raise UsageError(expected(f"--fill among {', '.join(FILLS)}", repr(fill), "name one of them"))
    return Options(seed, samples, fill, accept_weak)  # type: ignore[arg-type]


def _targets(reader: Reader, labels: list[str], method: str, layer: str | None) -> list[Target]:
    """One for each label and method; with ``all``, a layer is for the methods that have one."""
    from wetread.explain.base import CAM_METHODS, METHODS, Target
    from wetread.explain.cam import require_label

    for label in labels:
        require_label(reader, label)
    if method == "all":
        layers = [(name, layer if name in CAM_METHODS else None) for name in METHODS]
    else:
        layers = [(method, layer)]  # type: ignore[list-item]
    return [Target(label, name, of) for label in labels or reader.labels for name, of in layers]


def _cases(reader: Reader, dataset: Path | None, cache: Path) -> CaseSet | None:
    if dataset is None:
        return None
    from wetread.datasets.manifest import load_manifest
    from wetread.explain.examples import case_set

    with staged_progress() as advance:
        return case_set(reader, load_manifest(dataset), cache, advance)


def _work(targets: list[Target]) -> str:
    methods = list(dict.fromkeys(target.method for target in targets))
    return f"Explaining by {methods[0]}" if len(methods) == 1 else f"Explaining by {len(methods)} methods"


def _document(reader: Reader, explained: Explained) -> dict[str, object]:
    document: dict[str, object] = {
        "model": reader.card.identity.model_dump(mode="json"),
        "input": reader.input.model_dump(mode="json"),
        "maps": [record.model_dump(mode="json") for record in explained.maps],
        "failures": [failure.model_dump(mode="json") for failure in explained.failures],
        "sheets": list(explained.sheets),
        "disclaimer": reader.card.intended_use,
    }
    if explained.cases:
        document["cases"] = [similar.model_dump(mode="json") for similar in explained.cases]
    return document


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
    for name in ("image", "label", "probability", "method", "layer", "boxes (x, y, width, height)", "time", "overlay"):
        table.add_column(name, overflow="fold")
    for record in explained.maps:
        boxes = "; ".join(f"{box.x:.0f}, {box.y:.0f}, {box.width:.0f}, {box.height:.0f}" for box in record.boxes)
        cells = (record.image, record.label, f"{record.probability:.3f}", record.method, record.layer, boxes)
        table.add_row(*(Text(cell) for cell in (*cells, f"{record.milliseconds / 1000:.2f} s", record.overlay)))
    console = stdout()
    if explained.maps:
        console.print(table)
    _print_cases(explained)
    for failure in explained.failures:
        console.print(f"{failure.image} {failure.label}: {failure.reason}", style="red", markup=False)
    sheets = f", {len(explained.sheets)} sheets" if explained.sheets else ""
    counts = f"{len(explained.maps)} maps{sheets}, {len(explained.failures)} failures"
    console.print(f"{counts}: {out}", markup=False)


def _print_cases(explained: Explained) -> None:
    console = stdout()
    for similar in explained.cases:
        shares = ", ".join(f"{label} {share:.0%}" for label, share in similar.shares.items())
        console.print(f"{similar.image}: cases like this are {shares or 'without labels'}", markup=False)
        for example in similar.examples:
            label = "unknown" if example.labels is None else " + ".join(example.labels) or "none"
            where = f"split {example.split or 'unknown'}, distance {example.distance:.3f}"
            console.print(f"  {example.rank}. {label}, {where}: {example.path}", markup=False)
