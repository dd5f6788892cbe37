"""One file in, one Image out; a folder in, its candidate files out.

Decided here: what a file is follows from its bytes; which files of a folder are side files; that a
file named explicitly is always tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ImageRefused, OverBudget, UnsupportedImage, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES
from wetread.imaging.sniff import READABLE, kind_of
from wetread.types import Image

__all__ = ["SIDE_FILES", "SIDE_FILE_SUFFIXES", "find_images", "image_shape", "load_image", "preview8", "read_bytes"]

SIDE_FILE_SUFFIXES = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".html", ".xml", ".toml", ".yaml", ".yml"}
    | {".log", ".parquet", ".xlsx"}
)
"""Files that accompany images in a folder; skipped there, so that a README is no failed image."""

SIDE_FILES = frozenset({"DICOMDIR"})
"""The index of a DICOM medium (PS3.10 8.6): DICOM, but no image."""


def load_image(path: str | os.PathLike[str], *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> Image:
    """Read one image: DICOM, PNG, JPEG, TIFF, GIF or BMP, recognised by content.

    Args:
        path: A file.
        budget_bytes: Limit on the decoded pixels (and on the file), checked before decoding.

    Returns:
        Pixels float32 (rows, columns) in [0, 1], bright means dense, with facts and history.

    Raises:
        ImageRefused: Missing, unreadable, empty, damaged, not an image, or too small to read.
        UnsupportedImage: A valid file of a kind that is not read: several frames, unknown codec.
        OverBudget: It would need more than ``budget_bytes``.
    """
    file = Path(path)
    data = read_bytes(file, budget_bytes)
    kind = kind_of(data)
    try:
        return _load(data, kind, file.name, budget_bytes)
    except MemoryError:
        cure = "close other programs or lower the budget"
        raise OverBudget(expected("enough free memory", f"too little to decode {file.name}", cure)) from None


def _load(data: bytes, kind: str, name: str, budget_bytes: int) -> Image:
    if kind == "DICOM":
        from wetread.imaging.dicom import load_dicom  # pydicom costs 0.5 s that a PNG need not pay

        return load_dicom(data, name, budget_bytes)
    if kind in READABLE:
        from wetread.imaging.raster import load_raster

        return load_raster(data, kind, name, budget_bytes)
    raise _not_read(kind, name)


def _not_read(kind: str, name: str) -> ImageRefused:
    what = "a DICOM, PNG, JPEG or TIFF image"
    if "image" in kind or "volume" in kind or "JPEG 2000" in kind:
        return UnsupportedImage(expected(what, f"{kind}: {name}", "convert it first"))
    return ImageRefused(expected(what, f"{kind}: {name}", "hand in the image itself"))


def image_shape(path: str | os.PathLike[str], *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> tuple[int, int]:
    """Return (rows, columns) in pixels of the image that :func:`load_image` would give, from its header alone.

    Nothing is decoded, so that a damaged image may have a shape. Raises as :func:`load_image` for what a header
    can tell: no such file, no image, several frames, too small, over ``budget_bytes``.
    """
    file = Path(path)
    data = read_bytes(file, budget_bytes)
    kind = kind_of(data)
    if kind == "DICOM":
        from wetread.imaging.dicom import dicom_shape

        return dicom_shape(data, file.name, budget_bytes)
    if kind in READABLE:
        from wetread.imaging.raster import raster_shape

        return raster_shape(data, kind, file.name, budget_bytes)
    raise _not_read(kind, file.name)


def read_bytes(file: Path, budget_bytes: int) -> bytes:
    """Return the bytes of a regular file that is not empty and not over the budget.

    Raises:
        ImageRefused: Missing, a folder, not readable, or empty.
        OverBudget: Larger than ``budget_bytes``.
    """
    name = file.name
    try:
        if file.is_dir():
            raise ImageRefused(expected("an image file", f"a folder: {name}", "name a file, or search it first"))
        if not file.exists():
            raise ImageRefused(expected("an image file", f"no such file: {name}", "check the path"))
        if not file.is_file():
            raise ImageRefused(expected("an image file", f"a device or pipe: {name}", "name a regular file"))
        size = file.stat().st_size
        if size > budget_bytes:
            got = f"{size / 2**20:,.0f} MiB: {name}"
            cure = "hand in one image, or raise the budget"
            raise OverBudget(expected(f"a file of at most {budget_bytes / 2**20:,.0f} MiB", got, cure))
        data = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or "not a path"
        cure = "check the path and its permissions"
        raise ImageRefused(expected("a readable file", f"{name} ({reason})", cure)) from None
    if not data:
        raise ImageRefused(expected("an image file", f"an empty file: {name}", "fetch it again"))
    return data


def find_images(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """Return the files to read: folders searched to any depth and sorted, named files as they are.

    In folders, hidden files, :data:`SIDE_FILES` and :data:`SIDE_FILE_SUFFIXES` are skipped;
    everything else is a candidate, whatever its name, so that a damaged image shows up as a
    failure. A file named explicitly is always kept. Links to folders are not followed.

    Args:
        paths: Files and folders.

    Returns:
        Each file once, in the order of ``paths``.

    Raises:
        ImageRefused: If a path does not exist, or a folder holds no candidate.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: dict[Path, None] = {}
    for path in map(Path, given):
        found.update(dict.fromkeys(_under(path) if path.is_dir() else [_existing(path)]))
    return list(found)


def _existing(path: Path) -> Path:
    if not os.path.lexists(path):
        raise ImageRefused(expected("a file or folder", f"no such path: {path.name}", "check the spelling"))
    return path


def _under(folder: Path) -> list[Path]:
    found = sorted(_walk(folder))
    if not found:
        got = f"none in the folder {folder.name}"
        raise ImageRefused(expected("at least one image file", got, "check the path"))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        got = f"{Path(error.filename or folder).name} ({error.strerror})"
        raise ImageRefused(expected("a readable folder", got, "check its permissions")) from None

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not _is_side_file(name))


def _is_side_file(name: str) -> bool:
    return name.startswith(".") or name in SIDE_FILES or Path(name).suffix.lower() in SIDE_FILE_SUFFIXES


def preview8(image: Image) -> NDArray[np.uint8]:
    """Return the pixels for a screen or a PNG: uint8 (rows, columns), 255 x pixels, rounded."""
    return np.asarray(np.rint(image.pixels * np.float32(255)), np.uint8)
