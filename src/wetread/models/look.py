"""How bright which part of a film usually is: 16 x 16 greys that tell a negative, or a film on its side, from its own.

A reader's features hardly notice that a film is inverted, and a wrong photometric interpretation is a common mistake
of importers. The layout of a region of the body does notice. Where the films of a data set share no layout the limit
is so low that nothing is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.models.card import LookSpec

__all__ = ["fit_look", "layout", "likeness"]

_SIDE = 16
_MARGIN = 0.1
"""How much less like the others than any validation film a film may be."""


def layout(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Greys of 16 x 16 tiles less their mean, (256,) of length 1; zeros for a blank. Films float32 (H, W) in [0, 1]."""
    small = PilImage.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    tiles = np.asarray(small.resize((_SIDE, _SIDE), PilImage.Resampling.BOX), dtype=np.float64).ravel()
    return _unit(tiles - tiles.mean())


def likeness(look: LookSpec, pixels: NDArray[np.float32]) -> float:
    """Cosine of a film's layout and that of ``look``: -1 for its negative, 0 for a blank, 1 for the mean film."""
    greys = np.frombuffer(bytes.fromhex(look.layout), dtype=np.int8).astype(np.float64)
    return float(layout(pixels) @ _unit(greys))


def fit_look(learned: Sequence[NDArray[np.float64]], judged: Sequence[NDArray[np.float64]]) -> LookSpec:
    """Mean of the layouts of films learned from, and the least likeness, which all ``judged`` ones reach.

    It is never above 0: films of another hospital look less alike, and are still films.
    """
    mean = _unit(np.mean(np.stack(learned), axis=0))
    greys = np.rint(mean / max(float(np.abs(mean).max()), 1e-6) * 127).astype(np.int8)
    lowest = min((float(one @ _unit(greys.astype(np.float64))) for one in judged), default=-1.0)
    return LookSpec(layout=greys.tobytes().hex(), least=round(max(-1.0, min(0.0, lowest - _MARGIN)), 3))


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-6 else np.zeros_like(values)
