"""Film and heat maps as arrays again, from the pictures that a read comes with.

Decided here: results are made from the pictures that a person is shown, whoever keeps them, so that a report made by
the service and one made by the node alone are the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wetread.errors import WetreadError, expected
from wetread.pacs.facts import ResultFacts
from wetread.types import Measure, ModelIdentity, Read

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Organs", "heat_of", "result_facts"]


@dataclass(frozen=True)
class Organs:
    """What a segmenter found: organ -> bool (rows, columns) of the image, sizes, and who drew."""

    masks: Mapping[str, NDArray[np.bool_]]
    measures: tuple[Measure, ...]
    model: ModelIdentity


def result_facts(
    read: Read,
    film_png: bytes | None = None,
    heat_pngs: Mapping[str, bytes] | None = None,
    organs: Organs | None = None,
) -> ResultFacts:
    """What the result objects of one image are made from.

    Args:
        read: The record.
        film_png: The film; None where no picture is wanted.
        heat_pngs: Label -> RGBA picture of its heat map.
        organs: What a segmenter found, where one was asked.

    Raises:
        WetreadError: a heat map in other colours than those of the scale.
    """
    masks: Mapping[str, NDArray[np.bool_]] = {}
    segmenter = None
    if organs is not None:
        masks, segmenter = organs.masks, organs.model
        if not read.measures and read.gate.passed:
            read = read.model_copy(update={"measures": organs.measures})
    if film_png is None:
        return ResultFacts(read=read, masks=masks, segmenter=segmenter)
    film, heat, overlays = _drawn(film_png, heat_pngs or {})
    return ResultFacts(read=read, film=film, heat=heat, overlays=overlays, masks=masks, segmenter=segmenter)


def _drawn(
    film_png: bytes, heat_pngs: Mapping[str, bytes]
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]], dict[str, NDArray[np.uint8]]]:
    from PIL import Image

    from wetread.explain.overlay import overlay

    film = np.asarray(Image.open(io.BytesIO(film_png)).convert("L"))
    heat = {}
    for label, png in heat_pngs.items():
        small = Image.fromarray(heat_of(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))))
        heat[label] = np.asarray(small.resize((film.shape[1], film.shape[0]), Image.Resampling.BILINEAR))
    return film, heat, {label: overlay(film, one) for label, one in heat.items()}


def heat_of(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The heat, 0-1 in steps of 1/255, that a picture (h, w, 4) shows: the colours of the scale are all different.

    Raises:
        WetreadError: a colour that is not of the scale.
    """
    from wetread.explain.overlay import colour_scale

    scale = np.ascontiguousarray(colour_scale()).view(np.uint32)[:, 0]
    order = np.argsort(scale)
    words = np.ascontiguousarray(picture).view(np.uint32)[..., 0]
    level = order[np.searchsorted(scale[order], words).clip(0, len(scale) - 1)]
    if not np.array_equal(scale[level], words):
        raise WetreadError(expected("a heat map in the colours of the scale", "others", "read the film again"))
    found: NDArray[np.float32] = (level / 255).astype(np.float32)
    return found
