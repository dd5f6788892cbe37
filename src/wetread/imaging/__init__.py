"""Files to images: DICOM, PNG, JPEG, TIFF -> float32 in [0, 1], with what was done to the pixels."""

from __future__ import annotations

from wetread.imaging.budget import DEFAULT_BUDGET_BYTES
from wetread.imaging.load import find_images, load_image, preview8

__all__ = ["DEFAULT_BUDGET_BYTES", "find_images", "load_image", "preview8"]
