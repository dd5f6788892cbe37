"""What every raster decoder hands back: the samples as stored, before any grey scale is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Raster"]


@dataclass(frozen=True, slots=True)
class Raster:
    """A decoded picture.

    ``samples``: uint8, uint16, uint32, int or float, shape (rows, columns, channels); channels are
    gray (1), gray and alpha (2), RGB (3) or RGBA (4). ``orientation``: EXIF 1-8, not yet applied.
    """

    samples: NDArray[Any]
    bits: int
    mode: str
    orientation: int = 1
    white_is_zero: bool = False
