"""TIFF to samples: one page, any common depth, gray, palette or RGB, with or without alpha."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UnsupportedImage, expected
from wetread.imaging.budget import require_budget, require_readable_size
from wetread.imaging.samples import Raster

__all__ = ["decode_tiff", "tiff_header"]

_GRAY, _GRAY_INVERTED, _RGB, _PALETTE, _YCBCR = 1, 0, 2, 3, 6
_DTYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_UNASSOCIATED_ALPHA = 2
_MAX_PAGES = 64
"""Enough to tell one picture with thumbnails from a stack without walking a long chain."""


def decode_tiff(data: bytes, name: str, budget_bytes: int) -> Raster:
    """Decode the one full-resolution page of a TIFF.

    Raises:
        UnsupportedImage: Several pages, or a colour space or depth that is not read.
        OverBudget, ImageRefused: As :func:`wetread.imaging.raster.load_raster`; decoder errors
            of other classes are left to the caller.
    """
    with _checked_page(data, name, budget_bytes) as page:
        rows, columns, channels = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
        photometric = int(page.photometric)
        found = np.asarray(page.asarray())
    if found.ndim == 3 and found.shape[0] == channels and found.shape[1:] == (rows, columns):
        found = np.moveaxis(found, 0, -1)  # PlanarConfiguration 2: (channels, rows, columns)
    found = found.reshape(rows, columns, -1)
    found = _plain(found, photometric, page)
    bits = int(page.bitspersample)
    return Raster(found, bits, page.photometric.name, _orientation(page), photometric == _GRAY_INVERTED)


def tiff_header(data: bytes, name: str, budget_bytes: int) -> tuple[int, int, int]:
    """Return rows, columns (pixels, as stored) and orientation (tag 274, 1 to 8). Raises as :func:`decode_tiff`."""
    with _checked_page(data, name, budget_bytes) as page:
        return int(page.imagelength), int(page.imagewidth), _orientation(page)


@contextmanager
def _checked_page(data: bytes, name: str, budget_bytes: int) -> Iterator[Any]:
    """The one page, found to be one that is read; no pixel is decoded."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its complaints become our refusals
    with tifffile.TiffFile(BytesIO(data)) as file:
        page = _only_page(file, name)
        rows, columns, channels = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
        bits = max(8, int(page.bitspersample))
        require_budget(name, (rows, columns), samples=channels, frames=1, bits=bits, budget_bytes=budget_bytes)
        require_readable_size(name, (rows, columns))
        if page.is_tiled:  # a tile is decoded whole, however little of it lies inside the picture
            tile = (int(page.tilelength), int(page.tilewidth))
            require_budget(name, tile, samples=channels, frames=1, bits=bits, budget_bytes=budget_bytes)
        _require_known(int(page.photometric), page, name)
        yield page


def _orientation(page: Any) -> int:
    return int(page.tags[274].value) if 274 in page.tags else 1


def _only_page(file: Any, name: str) -> Any:
    pages = []
    for index, page in enumerate(file.pages):
        if not page.is_reduced:
            pages.append(page)
        if len(pages) > 1 or index >= _MAX_PAGES:
            got = f"several pages in {name}"
            raise UnsupportedImage(expected("a TIFF with a single page", got, "save the page to read on its own"))
    return pages[0]


def _require_known(photometric: int, page: Any, name: str) -> None:
    known = photometric in (_GRAY, _GRAY_INVERTED, _RGB, _PALETTE, _YCBCR)
    if not known or str(page.dtype) not in _DTYPES or page.samplesperpixel not in (1, 2, 3, 4):
        got = f"{page.photometric.name} with {page.samplesperpixel} samples of {page.dtype} in {name}"
        raise UnsupportedImage(expected("a gray, palette or RGB TIFF", got, "convert it to gray or RGB"))


def _plain(samples: NDArray[Any], photometric: int, page: Any) -> NDArray[Any]:
    """Resolve palettes, and stretch 1 to 7 bits to 8."""
    if photometric == _PALETTE:
        # Entries have 16 bits; writers fill the lower 8 with zeros or with a copy (TIFF 6.0, page 23).
        table = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(table[:, samples[..., 0]], 0, -1))
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    extras = [int(extra) for extra in page.extrasamples]
    if samples.shape[2] > colours and extras[:1] != [_UNASSOCIATED_ALPHA]:
        samples = samples[..., :colours]  # premultiplied alpha is over black already; others carry no colour
    bits = int(page.bitspersample)
    if samples.dtype == np.uint8 and bits < 8:
        return (samples.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    if samples.dtype == np.uint16 and bits < 16:
        return (samples.astype(np.uint32) * 65535 // ((1 << bits) - 1)).astype(np.uint16)
    return samples
