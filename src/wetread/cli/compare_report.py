"""The files of ``wetread compare``: the table as CSV, one page, and one sheet of heat maps for each reader."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.result import ComparisonResult
    from wetread.explain.sheet import Tile
    from wetread.models.predict import Reader
    from wetread.training.grid import GridRow

__all__ = ["PAGE", "TABLE", "verdict_words", "write_compare"]

TABLE = "table.csv"
PAGE = "compare.html"


def verdict_words(found: ComparisonResult | None, first: str) -> str:
    """Say in what a reader is better or worse than the first, or that it cannot be said."""
    if found is None:
        return "the one compared with"
    better = [f"{row.metric} of {row.label}" for row in found.rows if row.verdict == "B better"]
    worse = [f"{row.metric} of {row.label}" for row in found.rows if row.verdict == "A better"]
    said = [f"better in {', '.join(better)}"] if better else []
    said += [f"worse in {', '.join(worse)}"] if worse else []
    return f"{'; '.join(said)} than {first}" if said else f"no difference to {first} shown"


def write_compare(
    out: Path, manifest: Manifest, rows: list[GridRow], against: dict[str, ComparisonResult], images: int
) -> None:
    """Write ``table.csv``, ``compare.html`` and the sheets into the folder of the runs, in place of older ones."""
    from wetread.provenance import atomic_file
    from wetread.reporting.html import render_compare

    words = {row.name: verdict_words(against.get(row.name), rows[0].name) for row in rows}
    sheets = {row.name: _sheet(out / row.folder, manifest, row, images) for row in rows} if images else {}
    for name, png in sheets.items():
        with atomic_file(out / f"{name}.sheet.png") as part:
            part.write_bytes(png)
    with atomic_file(out / TABLE) as part:
        _write_table(part, rows, words)
    with atomic_file(out / PAGE) as part:
        part.write_text(render_compare(manifest.meta.name, rows, words, _confusions(rows), sheets), encoding="utf-8")


def _write_table(file: Path, rows: list[GridRow], words: dict[str, str]) -> None:
    figures = ("accuracy", "balanced_accuracy", "auroc")
    columns = ["reader", "network", "guide", "seed"]
    columns += [name + end for name in figures for end in ("", "_low", "_high")]
    columns += ["n", "parameters", "training_s", "images_per_s", "audit_verdict", "against_first"]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            found: dict[str, object] = {
                "reader": row.name,
                "network": row.network,
                "guide": row.guide,
                "seed": row.seed,
            }
            for name in figures:
                estimate = getattr(row, name)
                found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            found |= {"n": row.result.facts.n, "parameters": row.parameters, "training_s": row.training_s}
            found |= {"images_per_s": row.images_per_s, "audit_verdict": row.audit_verdict}
            found["against_first"] = words[row.name]
            writer.writerow({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in found.items()})


def _confusions(rows: list[GridRow]) -> dict[str, str]:
    """A confusion matrix for each reader, as SVG text."""
    from wetread.evaluation.plots import confusion_plot

    return {
        row.name: confusion_plot(row.result.confusion, row.name) for row in rows if row.result.confusion is not None
    }


def _sheet(folder: Path, manifest: Manifest, row: GridRow, images: int) -> bytes:
    """The same test films for every reader, each class in turn, with the heat of its answer."""
    from wetread.evaluation.table import read_predictions
    from wetread.explain.sheet import notes_of, sheet_png
    from wetread.models.bundle import load_reader
    from wetread.settings import load_settings
    from wetread.training.grid import PREDICTIONS

    reader = load_reader(folder / "reader", [load_settings().paths.readers])
    table = read_predictions(str(folder / PREDICTIONS))
    chosen = _chosen(table, images)
    tiles = [_tile(reader, manifest, one) for _, one in chosen.iterrows()]
    return sheet_png(f"{row.name}: where the answer came from", notes_of(tiles), tiles)


def _chosen(table: pd.DataFrame, images: int) -> pd.DataFrame:
    """The first patients of each class in turn, the same ones whoever reads them."""
    if "target" not in table.columns:
        return table.drop_duplicates("patient").head(images)
    known = table[table["target"].notna()].drop_duplicates("patient")
    order = known.groupby("target").cumcount()
    return known.assign(order=order).sort_values(["order", "target"], kind="stable").head(images)


def _tile(reader: Reader, manifest: Manifest, row: pd.Series) -> Tile:
    """One film with the heat of the label that the reader finds most probable."""
    import time
    from dataclasses import replace

    from wetread.errors import ExplanationFailed
    from wetread.explain.base import Target
    from wetread.explain.cam import explain_batch
    from wetread.explain.sheet import map_tile, refused_tile
    from wetread.imaging import load_image

    image = load_image(manifest.path_of(str(row["image"])))
    label = max(reader.labels, key=lambda one: row[f"probability_{one}"])
    title = f"{row.get('target', '')}: {label} {row[f'probability_{label}']:.0%}"
    masks = reader.organ_masks([image])
    batch = reader.prepare([image], masks)
    begin = time.perf_counter()
    size = (image.pixels.shape[0], image.pixels.shape[1])
    try:
        (found,) = explain_batch(reader, reader.forward(batch), Target(label), [size], batch, reader.windows(masks))
    except ExplanationFailed as failure:
        return refused_tile(title, str(failure))
    if isinstance(found, ExplanationFailed):
        return refused_tile(title, str(found))
    return replace(map_tile(image.pixels, found, 1000 * (time.perf_counter() - begin)), title=title)
