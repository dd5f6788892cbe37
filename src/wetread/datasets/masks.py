"""Annotated masks: the public face of the ``mask_*`` modules, and the masks of a row of a manifest.

Decided here: which column holds the mask of an organ; a row without a mask is unknown (None), a
mask without a pixel set is a fact (all False); one picture never serves as the mask of two organs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.mask_coco import CocoMasks, coco_masks, write_coco_masks
from wetread.datasets.mask_raster import Mask, read_index_mask, read_mask
from wetread.datasets.mask_seg import label_words, read_dicom_seg
from wetread.errors import DatasetRefused, ImageRefused, expected
from wetread.imaging.header import quiet
from wetread.imaging.sniff import kind_of

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest

__all__ = [
    "CocoMasks",
    "Mask",
    "coco_masks",
    "load_masks",
    "mask_column",
    "own_mask_column",
    "read_dicom_seg",
    "read_index_mask",
    "read_mask",
    "write_coco_masks",
]

_PLAIN = "mask"


def mask_column(organ: str, manifest: Manifest) -> str | None:
    """The column with the masks of an organ, or None.

    ``mask_<organ>`` comes first. Plain ``mask`` counts where the data set is of that organ, or where
    its ``dataset.toml`` does not say of which.
    """
    own = own_mask_column(organ)
    if own in manifest.table.columns:
        return own
    subject = manifest.meta.organ
    fits = subject is None or _slug(subject) == _slug(organ)
    return _PLAIN if fits and _PLAIN in manifest.table.columns else None


def own_mask_column(organ: str) -> str:
    """The name of the column that holds masks of this organ alone: that of ``Lung left`` is ``mask_lung_left``."""
    return f"{_PLAIN}_{_slug(organ)}"


def load_masks(
    manifest: Manifest,
    row: pd.Series,
    organs: Iterable[str],
    rows: int,
    columns: int,
    *,
    classes: Mapping[int, str] | None = None,
) -> dict[str, Mask | None]:
    """The masks of one row of a manifest.

    Args:
        manifest: The data set.
        row: One row of its table.
        organs: Names of organs, e.g. ``lungs`` and ``heart``.
        rows: Height of the image in pixels.
        columns: Width of the image in pixels.
        classes: Value to organ, where column ``mask`` holds index masks of several organs.

    Returns:
        For each organ bool (rows, columns), or None where the row has no mask of it: unknown, not
        empty. What a mask file is (PNG, TIFF, DICOM SEG) follows from its content. A DICOM SEG
        must have been made of the image of the row if that is a DICOM file.

    Raises:
        DatasetRefused: A mask that is missing, damaged, over the budget, of another size, of
            another image, or that would have to serve two organs.
    """
    files = {organ: _mask_file(manifest, row, organ, classes) for organ in organs}
    _require_own_file(files, classes)
    image = manifest.path_of(row)
    return {
        organ: None if file is None else _read_any(file, image, organ, (rows, columns), classes)
        for organ, file in files.items()
    }


def _mask_file(manifest: Manifest, row: pd.Series, organ: str, classes: Mapping[int, str] | None) -> Path | None:
    column = mask_column(organ, manifest)
    if column is None and organ in (classes or {}).values():
        column = _PLAIN
    value = row.get(column) if column is not None else None
    return manifest.mask_path_of(value) if isinstance(value, str) and value.strip() else None


def _require_own_file(files: Mapping[str, Path | None], classes: Mapping[int, str] | None) -> None:
    """Refuse one picture as the mask of two organs; a SEG names its segments, an index mask its values."""
    owners: dict[Path, str] = {}
    for organ, file in files.items():
        if file is None or organ in (classes or {}).values() or _is_dicom(file):
            continue
        other = owners.setdefault(file, organ)
        if other != organ:
            got = f"{file.name} for {other} and {organ}"
            cure = "set organ in dataset.toml and name the other column mask_<organ>, or declare its values"
            raise DatasetRefused(expected("a mask of its own for each organ", got, cure))


def _read_any(file: Path, image: Path, organ: str, shape: tuple[int, int], classes: Mapping[int, str] | None) -> Mask:
    try:
        if _is_dicom(file):
            series, instance = _uids_of(image)
            return read_dicom_seg(file, *shape, organ=organ, series_uid=series, instance_uid=instance)
        if classes and organ in classes.values():
            return read_index_mask(file, *shape, classes)[organ]
        return read_mask(file, *shape)
    except ImageRefused as error:
        cure = "mend that file, or leave its cell empty"
        raise DatasetRefused(expected("masks that can be read", f"{file.name} ({error})", cure)) from error


def _is_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return kind_of(stream.read(4096)) == "DICOM"
    except OSError:
        return False  # the reader that follows says what is wrong


def _uids_of(image: Path) -> tuple[str | None, str | None]:
    """Series and SOP Instance UID of the image; None for what is no DICOM file."""
    from pydicom import dcmread

    if not _is_dicom(image):
        return None, None
    with quiet():
        try:
            tags = ["SeriesInstanceUID", "SOPInstanceUID"]
            header = dcmread(image, stop_before_pixels=True, specific_tags=list(tags), force=True)
            series, instance = (str(header.get(tag) or "") or None for tag in tags)
        except Exception:  # a broken header: load_image is the one to say so
            return None, None
    return series, instance


def _slug(organ: str) -> str:
    return "_".join(label_words(organ))
