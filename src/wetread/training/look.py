"""The layout of the films that a reader learns from, for its gate: whole films, whatever a guide shows of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.imaging import load_image
from wetread.models.card import LookSpec
from wetread.models.look import fit_look, layout
from wetread.runtime import in_order, thread_count

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["learn_look"]

_FILMS = 400
"""Films of either part, drawn at random: a mean of 256 greys needs no more."""


def learn_look(manifest: Manifest, learned: pd.DataFrame, judged: pd.DataFrame, seed: int) -> LookSpec:
    """Decode some films of both tables, whose images were readable a moment ago, and fit their layout."""
    trained, validated = (
        list(in_order(partial(_layout, manifest), _drawn(table, seed), thread_count())) for table in (learned, judged)
    )
    return fit_look(trained, validated)


def _drawn(table: pd.DataFrame, seed: int) -> list[str]:
    drawn = table if len(table) <= _FILMS else table.sample(_FILMS, random_state=seed)
    return drawn["path"].astype(str).tolist()


def _layout(manifest: Manifest, path: str) -> NDArray[np.float64]:
    return layout(load_image(manifest.path_of(path)).pixels)
