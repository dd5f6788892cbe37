"""Masks as PNG and TIFF, and what all kinds of mask files share.

Decided here: a mask has exactly the size of its image and is never resized; values are taken as
stored (palette index, not colour), and which value is the organ is never guessed among several.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from wetread.errors import DatasetRefused, ImageRefused, InputRefused, UnsupportedImage, UsageError, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES, require_budget
from wetread.imaging.load import read_bytes
from wetread.imaging.raster import stored_raster
from wetread.imaging.sniff import kind_of

__all__ = ["SHOWN", "Mask", "mask_bytes", "read_index_mask", "read_mask", "require_mask_size"]

Mask = NDArray[np.bool_]
"""bool (rows, columns), True inside the organ."""

SHOWN = 8
"""Values or names in a refusal: enough to find the cause, few enough to read."""
_EXIF_ORIENTATION = 0x0112


def read_mask(path: Path, rows: int, columns: int, *, values: tuple[int, ...] | None = None) -> Mask:
    """Read one mask from a PNG or TIFF: 1, 8 or 16 bits grey, palette index, or RGB of equal channels.

    Args:
        path: The file.
        rows: Height of the image in pixels.
        columns: Width of the image in pixels.
        values: Stored values (0-65535) that are the organ. None: the mask has at most two values,
            0 and one other, which is the organ. With ``values`` other values are taken as not the
            organ; :func:`read_index_mask` refuses values that nobody declared.

    Returns:
        bool (rows, columns); all False where no pixel is set.

    Raises:
        DatasetRefused: No such file, another size than the image, colours, or several values.
        ImageRefused: Unreadable or damaged (OverBudget: refused from the header).
    """
    if values is not None and not values:
        raise UsageError(expected("at least one value of the organ", "none", "name it, or leave values out"))
    stored = _stored_values(path, rows, columns)
    if values is not None:
        return np.isin(stored, values)
    if not ((stored == 0) | (stored == stored.max())).all():
        several = np.unique(stored)
        cure = "declare the value of each organ, or write one mask for each"
        if len(several) > SHOWN:
            cure = "JPEG or resampling smeared it: set a threshold and save it as PNG of two values"
        raise DatasetRefused(expected("a mask of 0 and one other value", f"{_shown(several)} in {path.name}", cure))
    return np.asarray(stored != 0)


def read_index_mask(path: Path, rows: int, columns: int, classes: Mapping[int, str]) -> dict[str, Mask]:
    """Read the masks of several organs from one file in which each pixel holds a class index.

    Args:
        path: The file, as for :func:`read_mask`.
        rows: Height of the image in pixels.
        columns: Width of the image in pixels.
        classes: Every value (0-65535) with its organ; 0 may be left out and is background then.
            Several values may name one organ, e.g. both lungs.

    Returns:
        bool (rows, columns) for each organ of ``classes``.

    Raises:
        DatasetRefused: As :func:`read_mask`, and a value that is not declared.
        ImageRefused: Unreadable or damaged.
    """
    stored = _stored_values(path, rows, columns)
    unknown = np.setdiff1d(np.unique(stored), [0, *classes])
    if len(unknown):
        what = f"a mask of the declared values {', '.join(map(str, sorted(classes)))}"
        cure = "declare them too, or mend the mask"
        raise DatasetRefused(expected(what, f"also {_shown(unknown)} in {path.name}", cure))
    masks: dict[str, Mask] = {}
    for organ in dict.fromkeys(classes.values()):
        masks[organ] = np.isin(stored, [value for value, name in classes.items() if name == organ])
    return masks


def mask_bytes(path: Path, what: str = "a mask file") -> bytes:
    """The bytes of a file. Raises DatasetRefused where there is none, ImageRefused as ``read_bytes``."""
    if not path.exists():
        raise DatasetRefused(expected(what, f"no such file: {path.name}", "check the path and the root folder"))
    return read_bytes(path, DEFAULT_BUDGET_BYTES)


def _stored_values(path: Path, rows: int, columns: int) -> NDArray[Any]:
    """The values of a raster mask as stored: bool or unsigned (rows, columns)."""
    data = mask_bytes(path)
    kind = kind_of(data)
    if kind == "PNG":
        values = _png_values(data, path.name, (rows, columns))
    elif kind == "TIFF":
        values = _tiff_values(data, path.name, (rows, columns))
    else:
        cure = "save it as PNG, which keeps every value"
        raise DatasetRefused(expected("a mask as PNG or TIFF", f"{kind}: {path.name}", cure))
    return _one_channel(values, path.name)


def _png_values(data: bytes, name: str, shape: tuple[int, int]) -> NDArray[Any]:
    try:
        picture = PngImagePlugin.PngImageFile(BytesIO(data))  # reads the header only, whatever the size
        bits, samples, size = data[24], len(picture.getbands()), picture.size[::-1]  # bit depth in IHDR
        require_budget(name, size, samples=samples, frames=1, bits=bits, budget_bytes=DEFAULT_BUDGET_BYTES)
        require_mask_size(name, size, shape)
        turned = "exif" in picture.info and picture.getexif().get(_EXIF_ORIENTATION, 1) != 1
        _require_plain(name, turned or picture.is_animated or (bits == 16 and samples > 1))
        PngImagePlugin.PngImageFile(BytesIO(data)).verify()  # decoding checks neither checksums nor the end
        values = np.asarray(picture)
    except (InputRefused, MemoryError):
        raise
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and its own
        cure = "the file is damaged or cut short: fetch it again"
        raise ImageRefused(expected("a PNG mask", f"data that cannot be decoded in {name}", cure)) from None
    if picture.mode == "L" and bits < 8:  # Pillow stretches 2 and 4 bits to 8: back to what is stored
        return np.asarray(values // (255 // ((1 << bits) - 1)))
    return values


def _tiff_values(data: bytes, name: str, shape: tuple[int, int]) -> NDArray[Any]:
    raster = stored_raster(data, "TIFF", name, DEFAULT_BUDGET_BYTES)
    values = raster.samples
    require_mask_size(name, (values.shape[0], values.shape[1]), shape)
    # 0 is white there, or the values were stretched or are no indices: which one is the organ is open
    odd = raster.white_is_zero or values.dtype.kind not in "bu" or raster.bits not in (1, 8, 16)
    _require_plain(name, odd or raster.orientation != 1)
    return np.squeeze(values, axis=2) if values.shape[2] == 1 else values


def _require_plain(name: str, odd: bool) -> None:
    if odd:
        what = "a plain mask: one picture, upright, 0 is black, 8 or 16 bits of grey"
        raise UnsupportedImage(expected(what, f"another kind in {name}", "save it as 8-bit grey PNG"))


def _one_channel(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim == 2:
        return values
    colours = values
    if values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1:]
        if (alpha != alpha.max()).any():
            cure = "flatten it onto black and save it as 8-bit grey PNG"
            raise DatasetRefused(expected("a mask without transparency", f"a partly transparent one: {name}", cure))
    if (colours != colours[..., :1]).any():
        cure = "save it as palette or grey PNG, one value for each organ"
        raise DatasetRefused(expected("a mask of one channel or equal ones", f"colours in {name}", cure))
    return np.ascontiguousarray(colours[..., 0])


def require_mask_size(name: str, got: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Raise DatasetRefused where (rows, columns) of a mask differ from those of its image."""
    if got != wanted:
        what = f"a mask of the size of its image, {wanted[1]} x {wanted[0]} pixels"
        cure = "make it from this image: masks are not resized, nor turned"
        raise DatasetRefused(expected(what, f"{got[1]} x {got[0]} pixels in {name}", cure))


def _shown(values: NDArray[Any]) -> str:
    texts = [str(int(value)) for value in values[:SHOWN]]
    return f"the values {', '.join(texts)}" + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
