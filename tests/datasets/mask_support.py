"""A small mask that the tests of mask files share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "ROWS", "Mask", "corner"]

ROWS, COLUMNS = 20, 30
Mask = NDArray[np.bool_]


def corner() -> Mask:
    mask = np.zeros((ROWS, COLUMNS), np.bool_)
    mask[2:5, 7:20] = True
    return mask
