"""Images too large to decode at once, band by band: tiled TIFF and SVS by their own tiles, other files whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES, require_budget
from wetread.imaging.load import read_bytes
from wetread.imaging.raster import stored_raster
from wetread.imaging.sniff import kind_of

__all__ = ["Slide", "open_slide"]

_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Slide:
    """One large image: ``size`` is (rows, columns); it is decoded in bands."""

    path: Path
    size: tuple[int, int]
    _source: Any

    def band(self, top: int, rows: int) -> NDArray[np.uint8]:
        """Decode ``rows`` rows from ``top`` on, over the whole width: uint8 (rows, columns, 1 or 3).

        Raises:
            ImageRefused: a tile that cannot be decoded.
        """
        found: NDArray[np.uint8] = self._source.band(top, min(rows, self.size[0] - top))
        return found


@contextmanager
def open_slide(path: Path, *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> Iterator[Slide]:
    """Open a tiled TIFF or SVS at its full resolution, or any image that is read at all.

    Raises:
        ImageRefused: not an image, damaged, or of a kind that is not read.
        OverBudget: an image without tiles whose pixels exceed the budget.
    """
    with path.open("rb") as stream:
        kind = kind_of(stream.read(_HEAD_BYTES))
    if kind == "TIFF":
        file, page = _first_page(path)
        with file:
            if page.is_tiled:
                yield Slide(path, _size(page), _Tiles(path.name, page, budget_bytes))
                return
    whole = _Whole(path, kind, budget_bytes)
    yield Slide(path, whole.pixels.shape[:2], whole)


def _first_page(path: Path) -> tuple[Any, Any]:
    """The open file and its page of full resolution, which comes first in SVS and pyramids."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its complaints become our refusals
    try:
        file = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, ValueError, OSError) as error:
        raise _damaged(path.name, error) from error
    try:
        return file, file.pages[0]
    except (tifffile.TiffFileError, IndexError, ValueError, OSError) as error:
        file.close()
        raise _damaged(path.name, error) from error


def _size(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _damaged(name: str, error: Exception) -> ImageRefused:
    return ImageRefused(expected("a whole TIFF", f"{type(error).__name__} in {name}", "copy or export it again"))


class _Whole:
    """An image decoded at once."""

    def __init__(self, path: Path, kind: str, budget_bytes: int) -> None:
        data = read_bytes(path, budget_bytes)
        if kind not in ("TIFF", "PNG", "JPEG", "BMP"):
            raise UnsupportedImage(expected("a TIFF, PNG, JPEG or BMP to cut", f"{kind} in {path.name}", "convert it"))
        samples = np.asarray(stored_raster(data, kind, path.name, budget_bytes).samples)
        self.pixels = _eight_bits(samples.reshape(*samples.shape[:2], -1))

    def band(self, top: int, rows: int) -> NDArray[np.uint8]:
        return self.pixels[top : top + rows]


class _Tiles:
    """The tiles of one page, decoded as bands ask for them."""

    def __init__(self, name: str, page: Any, budget_bytes: int) -> None:
        self.name, self.page = name, page
        self.rows, self.columns = _size(page)
        self.tile = int(page.tilelength), int(page.tilewidth)
        self.across = -(-self.columns // self.tile[1])
        channels, bits = int(page.samplesperpixel), max(8, int(page.bitspersample))
        require_budget(name, self.tile, samples=channels, frames=1, bits=bits, budget_bytes=budget_bytes)
        if int(page.planarconfig) != 1 and channels > 1:
            raise UnsupportedImage(expected("interleaved colours", f"separate planes in {name}", "convert it"))
        self.channels = channels

    def band(self, top: int, rows: int) -> NDArray[np.uint8]:
        high, wide = self.tile
        first, last = top // high, (top + rows - 1) // high
        found = np.zeros(((last - first + 1) * high, self.across * wide, 3 if self.channels > 2 else 1), np.uint8)
        for down in range(first, last + 1):
            for right in range(self.across):
                pixels = self._decode(down * self.across + right)
                y, x = (down - first) * high, right * wide
                found[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        start = top - first * high
        return found[start : start + rows, : self.columns]

    def _decode(self, index: int) -> NDArray[np.uint8]:
        offset, count = int(self.page.dataoffsets[index]), int(self.page.databytecounts[index])
        handle = self.page.parent.filehandle
        decode, tables = self.page.decode, self.page.jpegtables  # first: both may read, and move, the file
        handle.seek(offset)
        try:
            pixels, _, _ = decode(handle.read(count) if count else None, index, jpegtables=tables)
        except (ValueError, RuntimeError, OSError) as error:
            raise _damaged(self.name, error) from error
        if pixels is None:  # a tile that a scanner left out
            return np.full((*self.tile, 1), 255, np.uint8)
        return _eight_bits(np.asarray(pixels).reshape(-1, *pixels.shape[-2:]))


def _eight_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Keep one or three channels, as uint8; 16 bits lose their lower half."""
    kept = samples[..., :3] if samples.shape[-1] >= 3 else samples[..., :1]
    if kept.dtype == np.uint8:
        return kept
    if kept.dtype == np.bool_:
        return kept.astype(np.uint8) * np.uint8(255)
    if kept.dtype == np.uint16:
        return (kept >> 8).astype(np.uint8)
    raise UnsupportedImage(expected("8 or 16 bits for tiles", str(kept.dtype), "convert the image"))
