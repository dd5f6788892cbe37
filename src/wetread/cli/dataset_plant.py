"""``wetread dataset plant``: a copy of a data set with a known shortcut, or a known signal, in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.cli.console import print_json, progress, stdout

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from wetread.datasets.manifest import Manifest
    from wetread.datasets.plant import PlantSummary

__all__ = ["EXAMPLE", "PREVIEW", "command"]

EXAMPLE = (
    "Example: wetread dataset plant datasets/kermany --kind corner-marker --correlation 0.9 --label PNEUMONIA "
    "--out datasets/kermany-marker --preview"
)
PREVIEW = "preview.png"
_PAIRS = 6
_SIDE_PX = 256
_GAP_PX = 8
_CAPTION_PX = 18


def command(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder, or a manifest (.parquet, .csv).")],
    out: Annotated[Path, typer.Option(help="New dataset folder to write.")],
    kind: Annotated[
        str,
        typer.Option(
            help="corner-marker, border, text, exposure, sharpness, noise, jpeg, resolution; "
            "in the organ: organ-blob, organ-texture."
        ),
    ],
    strength: Annotated[
        float, typer.Option(help="How strong, 0 (nothing) to 1; what grows depends on the kind.")
    ] = 0.5,
    correlation: Annotated[
        float, typer.Option(help="Share of the patients of --label that carry it, 0.5 to 1; of all others 1 minus it.")
    ] = 0.9,
    label: Annotated[
        str | None, typer.Option(help="Class that carries it [positive class]; random: independent of the labels.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Plant only into this split; again for several [all images].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw, and of places, words and noise.")] = 0,
    organ: Annotated[str, typer.Option(help="Organ whose mask organ-blob and organ-texture need.")] = "lungs",
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, as `wetread segment --out` writes it [the mask column].")
    ] = None,
    keep_size: Annotated[
        bool, typer.Option("--keep-size", help="resolution: scale back, so that rows and columns stay.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write preview.png: six images before and after.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Write a copy of a dataset with an artificial shortcut, or a true signal in an organ, planted into it.

    All images of a patient carry it or none; column planted says which. Nothing of the dataset itself changes.
    """
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.plant import PlantSpec, plant, summary_of, with_mask_files

    spec = PlantSpec.model_validate(
        {
            "kind": kind,
            "strength": strength,
            "correlation": correlation,
            "label": label,
            "splits": tuple(split or ()),
            "seed": seed,
            "organ": organ,
            "keep_size": keep_size,
        }
    )
    manifest = load_manifest(dataset)
    if masks is not None:
        manifest = with_mask_files(manifest, masks, organ)
    with progress("Planting") as advance:
        planted = plant(manifest, spec, out, advance)
    if preview:
        _preview(manifest, planted).save(out / PREVIEW)
    summary = summary_of(planted, spec)
    if as_json:
        sheet = str(out / PREVIEW) if preview else None
        facts = {"spec": spec.model_dump(mode="json") | {"label": summary.label}, "preview": sheet}
        return print_json({"dataset": str(out)} | facts | summary.model_dump(mode="json"))
    _print(planted, summary, out, preview=preview)


def _print(planted: Manifest, summary: PlantSummary, out: Path, *, preview: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print(f"{out}: {len(planted.table)} images", style="bold", markup=False)
    console.print(f"  {planted.meta.warnings[0]}", markup=False)
    table = Table()
    for name in ("class", "patients", "carry it", "images", "carry it", "phi"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for one in summary.classes:
        cells = (
            f"{one.label} *" if one.label == summary.label else one.label,
            str(one.patients),
            _share(one.patients_with, one.patients),
            str(one.images),
            _share(one.images_with, one.images),
            "not defined" if one.phi is None else f"{one.phi:+.2f}",
        )
        table.add_row(*(Text(cell) for cell in cells))
    if summary.classes:
        console.print(table)
        star = "* carries it. " if any(one.label == summary.label for one in summary.classes) else ""
        console.print(f"{star}phi: correlation of carrying it and being of that class, over images.", markup=False)
    if summary.left_out:
        console.print(f"{summary.left_out} images of other splits, or without a label, do not carry it.", markup=False)
    if preview:
        console.print(f"{out / PREVIEW}", markup=False)


def _share(some: int, of: int) -> str:
    return f"{some} ({some / of:.0%})" if of else "0"


def _preview(before: Manifest, after: Manifest) -> Picture:
    """Contact sheet: up to six images that carry it, spread over the table, each before and after."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from wetread.datasets.plant import COLUMN

    carry = np.flatnonzero(after.table[COLUMN].to_numpy(dtype=bool))
    chosen = carry[np.unique(np.linspace(0, len(carry) - 1, _PAIRS).round().astype(int))]
    across = min(3, len(chosen))
    wide, high = 2 * _SIDE_PX + 2 * _GAP_PX, _SIDE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("L", (across * wide + _GAP_PX, -(-len(chosen) // across) * high + _GAP_PX), 40)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for number, row in enumerate(chosen):
        x, y = _GAP_PX + number % across * wide, _GAP_PX + number // across * high
        for manifest, word in ((before, "before"), (after, "after")):
            picture = _thumbnail(manifest.path_of(manifest.table.iloc[int(row)]))
            size = f"{word}, {picture.info['size']}"
            draw.text((x, y), size, fill=220, font=font)
            sheet.paste(picture, (x, y + _CAPTION_PX))
            x += _SIDE_PX + _GAP_PX // 2
    return sheet


def _thumbnail(file: Path) -> Picture:
    """An image that fits a square of the contact sheet, on black; pixels of a smaller one show as they are."""
    from PIL import Image, ImageOps

    from wetread.imaging import load_image, preview8

    picture = Image.fromarray(preview8(load_image(file)))
    columns, rows = picture.size
    filter_ = Image.Resampling.BOX if max(picture.size) > _SIDE_PX else Image.Resampling.NEAREST
    padded = ImageOps.pad(picture, (_SIDE_PX, _SIDE_PX), filter_, color=0)
    padded.info["size"] = f"{columns} x {rows}"
    return padded
