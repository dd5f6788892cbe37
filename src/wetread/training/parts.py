"""Which images a network trains on and which judge it: the given split, or patient-grouped folds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import make_folds
from wetread.errors import SplitRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Parts", "fold_pairs", "split_pair", "used_rows"]

Parts = list[tuple["pd.DataFrame", "pd.DataFrame"]]
"""(train, validation) tables, one pair per network."""


def split_pair(table: pd.DataFrame, what: str = "images") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the splits train and val.

    Raises:
        SplitRefused: one of them is empty; ``what`` names the rows.
    """
    pair = (table[table["split"] == "train"], table[table["split"] == "val"])
    for part, name in zip(pair, ("train", "val"), strict=True):
        if not len(part):
            cure = "run `wetread dataset split` first, or use --folds"
            raise SplitRefused(expected(f"{what} in the split {name!r}", "none", cure))
    return pair


def fold_pairs(manifest: Manifest, folds: int, seed: int) -> Parts:
    """Patient-grouped folds of all rows outside the test split; tables have the column ``fold``."""
    table = manifest.table
    rest = table[table["split"].isin(["train", "val"]) | table["split"].isna()]
    folded = make_folds(replace(manifest, table=rest.assign(split=None)), folds, seed=seed).table
    return [(folded[folded["fold"] != k], folded[folded["fold"] == k]) for k in sorted(set(folded["fold"]))]


def used_rows(parts: Parts) -> pd.DataFrame:
    """Every image that is trained on or judged, once."""
    import pandas as pd

    return pd.concat([table for pair in parts for table in pair]).drop_duplicates("path").reset_index(drop=True)
