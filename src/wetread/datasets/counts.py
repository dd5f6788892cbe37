"""Counts of images and patients by class, split, mask, source, view and sex: what a dataset consists of."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING

from wetread.datasets.check_result import CountTable
from wetread.datasets.columns import LABEL_PREFIX, SPLITS
from wetread.datasets.manifest import DatasetMeta, Manifest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNKNOWN", "count_tables", "main_tables"]

UNKNOWN = "unknown"
_MOST_VALUES = 8
"""Values of one column shown by name, the most frequent ones; the others are summed up."""


def count_tables(manifest: Manifest) -> tuple[CountTable, ...]:
    """The main tables, then images per source, view, sex and body part."""
    table, meta = manifest.table, manifest.meta
    known = [column for column in ("source", "view", "sex", "body_part") if table[column].notna().any()]
    return (*main_tables(manifest), *(_by_value(table, meta, column) for column in known))


def main_tables(manifest: Manifest) -> tuple[CountTable, ...]:
    """Images and patients per class and split, and images with a mask where there are mask columns."""
    table, meta = manifest.table, manifest.meta
    splits = table["split"].fillna("no split")
    order = [s for s in (*SPLITS, "no split") if (splits == s).any()]
    tables = [_images(table, meta, splits, order)]
    if table["patient"].notna().any():
        tables.append(_patients(table, meta, splits, order))
    masked = _masked(table, meta)
    if masked:
        tables.append(_masks(masked, splits, order))
    return tuple(tables)


def _masked(table: pd.DataFrame, meta: DatasetMeta) -> dict[str, pd.Series]:
    """Which images have a mask of each organ; an empty column ``mask`` is none, as every manifest has it."""
    plain = {meta.organ or "mask": table["mask"].notna()} if table["mask"].notna().any() else {}
    own = {str(c).removeprefix("mask_"): table[c].notna() for c in table.columns if str(c).startswith("mask_")}
    return plain | own


def _masks(masked: dict[str, pd.Series], splits: pd.Series, names: list[str]) -> CountTable:
    """An image without a mask of an organ is unknown: a segmenter of that organ learns nothing from it."""
    if len(masked) > 1:
        masked = masked | {"any of them": functools.reduce(operator.or_, masked.values())}
    rows = [
        (name, *(int((there & (splits == v)).sum()) for v in names), int(there.sum()), int((~there).sum()))
        for name, there in masked.items()
    ]
    columns = ("organ", *names, "all", "without a mask")
    return CountTable(title="images with a mask per organ and split", columns=columns, rows=tuple(rows))


def _members(table: pd.DataFrame, meta: DatasetMeta) -> dict[str, pd.Series]:
    """Which images belong to each class; an image of a multi-label set may belong to several."""
    if meta.task == "multilabel":
        labels = table[[LABEL_PREFIX + c for c in meta.classes]]
        members = {c: labels[LABEL_PREFIX + c] == 1 for c in meta.classes}
        members["none of them"] = (labels == 0).all(axis=1)
        members[UNKNOWN] = labels.isna().all(axis=1)
    else:
        members = {c: table["label"] == c for c in meta.classes}
        members[UNKNOWN] = table["label"].isna()
    return {name: rows for name, rows in members.items() if name in meta.classes or rows.any()}


def _images(table: pd.DataFrame, meta: DatasetMeta, splits: pd.Series, names: list[str]) -> CountTable:
    rows = [
        (name, *(int((member & (splits == v)).sum()) for v in names), int(member.sum()))
        for name, member in _members(table, meta).items()
    ]
    rows.append(("all images", *(int((splits == v).sum()) for v in names), len(table)))
    return CountTable(title="images per class and split", columns=("class", *names, "all"), rows=tuple(rows))


def _by_value(table: pd.DataFrame, meta: DatasetMeta, column: str) -> CountTable:
    """One row for each value, as values may be long and many; classes are few."""
    values, names = _frequent(table[column])
    members = _members(table, meta)
    rows = [
        (name, *(int((m & (values == name)).sum()) for m in members.values()), int((values == name).sum()))
        for name in names
    ]
    what = column.replace("_", " ")
    return CountTable(title=f"images per {what} and class", columns=(what, *members, "all"), rows=tuple(rows))


def _patients(table: pd.DataFrame, meta: DatasetMeta, splits: pd.Series, names: list[str]) -> CountTable:
    def number(rows: pd.Series) -> int:
        return int(table["patient"][rows].nunique())

    members = _members(table, meta)
    rows = [
        (name, *(number(member & (splits == v)) for v in names), number(member)) for name, member in members.items()
    ]
    everyone = splits.notna()
    rows.append(("all patients", *(number(splits == v) for v in names), number(everyone)))
    title = "patients per class and split (a patient may have images of several classes)"
    return CountTable(title=title, columns=("class", *names, "all"), rows=tuple(rows))


def _frequent(column: pd.Series) -> tuple[pd.Series, list[str]]:
    names = [str(v) for v in column.value_counts().index[:_MOST_VALUES]]
    values = column.where(column.isna() | column.isin(names), "others").fillna(UNKNOWN)
    return values, [n for n in (*names, "others", UNKNOWN) if (values == n).any()]
