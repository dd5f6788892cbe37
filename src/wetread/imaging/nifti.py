"""Masks as NIfTI-1 label maps, for tools that read no DICOM SEG.

Decided here: the affine. NIfTI's world is RAS+ (x to the right, y to the front, z to the head), but a
radiograph is a shadow without a place in the patient. Its columns and rows are taken as the first
two axes of LPS, as ITK, 3D Slicer and nnU-Net take every picture without an orientation: the
affine is ``diag(-column spacing, -row spacing, 1)`` with the first pixel at the origin, so that the mask
falls on the radiograph when both are opened there. The transform code is "aligned" (2), never
"scanner" (1): it places the mask on its image and says nothing about left and right of a person.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import InputRefused, UsageError, expected
from wetread.provenance import atomic_file

__all__ = ["write_mask_nifti"]

_ALIGNED = 2
"""NIFTI_XFORM_ALIGNED_ANAT: coordinates aligned to another file."""
_MAX_LABEL = 65535
_MAX_SIDE = 32767
"""dim[] of NIfTI-1 is signed 16 bits."""


def write_mask_nifti(
    mask: NDArray[np.bool_] | NDArray[np.integer[Any]], spacing_mm: tuple[float, float] | None, path: Path
) -> Path:
    """Write a mask as a 2-D label map.

    Args:
        mask: bool or integers 0-65535 (rows, columns); 0 is background. Stored transposed, as
            the first axis of NIfTI runs along the columns: uint8 up to 255, else uint16.
        spacing_mm: (row, column) spacing in mm as in ``ImageFacts``: at the detector, not corrected for
            magnification. None: pixels of size 1 and the units "unknown", never mm.
        path: A name that ends with ``.nii`` or ``.nii.gz``; replaced where it exists.

    Returns:
        ``path``. The same mask gives the same bytes.

    Raises:
        InputRefused: Not two-dimensional, empty, too large for NIfTI-1, or values that are no labels.
        UsageError: Another file name, or a spacing that is no positive number.
        WetreadError: The file cannot be written.
    """
    from nibabel import Nifti1Image

    _require_target(spacing_mm, path)
    labels = _labels(mask)
    row, column = spacing_mm or (1.0, 1.0)
    make: Any = Nifti1Image  # half typed
    image = make(labels.T, np.diag([-column, -row, 1.0, 1.0]))
    image.set_sform(image.affine, code=_ALIGNED)
    image.set_qform(image.affine, code=_ALIGNED)
    image.header.set_xyzt_units("unknown" if spacing_mm is None else "mm")
    image.header.set_intent("label", name="organ mask")
    data = image.to_bytes()
    with atomic_file(path) as part:
        # no time in the gzip header: the same mask is the same file
        part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def _require_target(spacing_mm: tuple[float, float] | None, path: Path) -> None:
    if not path.name.endswith((".nii", ".nii.gz")):
        raise UsageError(expected("a file name with .nii or .nii.gz", path.name, "add it: readers go by it"))
    if spacing_mm is not None and not all(math.isfinite(side) and side > 0 for side in spacing_mm):
        cure = "pass None where the spacing is unknown"
        raise UsageError(expected("a positive (row, column) spacing in mm", spacing_mm, cure))


def _labels(mask: NDArray[Any]) -> NDArray[Any]:
    if mask.ndim != 2 or mask.size == 0 or max(mask.shape) > _MAX_SIDE:
        what = f"a mask (rows, columns) of 1-{_MAX_SIDE} pixels a side"
        raise InputRefused(expected(what, f"the shape {mask.shape}", "hand in one mask at a time"))
    if mask.dtype.kind not in "bui":
        raise InputRefused(expected("a mask of bool or integers", str(mask.dtype), "set a threshold first"))
    lowest, highest = int(mask.min()), int(mask.max())
    if lowest < 0 or highest > _MAX_LABEL:
        raise InputRefused(expected(f"labels of 0-{_MAX_LABEL}", f"{lowest} to {highest}", "number them anew"))
    return mask.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
