"""One pass over the images of a manifest: each is decoded once, and only numbers are kept.

The scan lies beside the manifest (``scan.parquet``) and is used again for files whose size and
time of change are the same. Previews of at most 512 px carry the hashes and the quality scores.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.errors import ImageRefused
from wetread.provenance import atomic_file
from wetread.runtime import in_order

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image as Preview

    from wetread.types import Image

__all__ = ["SCAN_FILE", "THUMB", "Progress", "load_scan", "save_scan", "scan", "with_facts"]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (done, total) after each image."""
SCAN_FILE = "scan.parquet"
THUMB = 32
"""Side of the thumbnails that verify near duplicates, in pixels (8 bit each, 1 kB per image)."""
_PREVIEW = 512
_VERSION = 1
"""Raised when what a scan measures changes, so that old scans are made anew."""


def scan(
    manifest: Manifest,
    progress: Progress | None = None,
    *,
    workers: int = 0,
    previous: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Decode every image once and return one row for each, in the order of the manifest.

    ``workers``: threads, 0 for one per core. ``previous``: an older scan to take unchanged files
    from. An image that cannot be read has ``error`` set and everything else null.
    """
    import pandas as pd

    _import_measures()
    paths = list(manifest.table["path"])
    known = _still_true(manifest, previous)
    todo = [p for p in paths if p not in known]
    rows = dict(known)
    jobs = in_order(lambda p: _scan_one(p, manifest.path_of(p)), todo, workers)
    for done, row in enumerate(jobs, 1):
        rows[row["path"]] = row
        if progress is not None:
            progress(len(known) + done, len(paths))
    return pd.DataFrame([rows[p] for p in paths]).astype({"width": "Int64", "height": "Int64", "bits": "Int64"})


def with_facts(manifest: Manifest, scanned: pd.DataFrame) -> Manifest:
    """The manifest with sha256, phash, width, height, bits and spacing filled in from a scan."""
    table = manifest.table.copy()
    facts = scanned.set_index("path").loc[list(table["path"])].reset_index(drop=True)
    for column in ("sha256", "phash", "width", "height", "bits", "spacing_mm"):
        table[column] = facts[column].where(facts[column].notna(), table[column])
    return manifest.with_table(table)


def save_scan(scanned: pd.DataFrame, folder: Path) -> None:
    """Write the scan beside the manifest, whole or not at all."""
    with atomic_file(folder / SCAN_FILE) as part:
        scanned.to_parquet(part, index=False)


def load_scan(folder: Path) -> pd.DataFrame | None:
    """The scan beside a manifest, or None where there is none or it is of another version."""
    import pandas as pd

    file = folder / SCAN_FILE
    if not file.is_file():
        return None
    try:
        found = pd.read_parquet(file)
    except (OSError, ValueError):
        logger.warning("%s cannot be read and is made anew", file)
        return None
    current = "version" in found.columns and bool((found["version"] == _VERSION).all())
    return found if current else None


def _still_true(manifest: Manifest, previous: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    if previous is None:
        return {}
    wanted = set(manifest.table["path"])
    return {
        str(row["path"]): {str(k): v for k, v in row.items()}
        for row in previous.to_dict("records")
        if row["path"] in wanted and _stamp(manifest.path_of(row["path"])) == row["stamp"]
    }


def _stamp(file: Path) -> str:
    """The file's place, size and time of change."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{file}:{status.st_size}:{status.st_mtime_ns}"


def _import_measures() -> None:
    """Import slow libraries once, before threads would do it at the same time."""
    import cleanvision.issue_managers.image_property  # noqa: F401
    import imagehash  # noqa: F401


def _scan_one(path: str, file: Path) -> dict[str, Any]:
    from wetread.imaging import load_image

    row: dict[str, Any] = dict.fromkeys(_FIELDS)
    row |= {"path": path, "version": _VERSION, "stamp": _stamp(file)}
    try:
        image = load_image(file)
    except ImageRefused as error:
        return row | {"error": str(error)}
    return row | _facts(image) | _measures(image)


_FIELDS = (
    "path", "version", "stamp", "error", "sha256", "width", "height", "bits", "spacing_mm",
    "format", "photometric_interpretation", "transfer_syntax", "applied", "warnings", "colour",
    "modality", "pixels_sha256", "phash", "phash_mirrored", "thumb", "brightness_perc_99",
    "brightness_perc_5", "entropy", "blurriness", "blurriness_grayscale_std", "aspect_ratio", "size",
)  # fmt: skip


def _facts(image: Image) -> dict[str, Any]:
    facts = image.facts
    spacing = facts.spacing_mm
    return {
        "sha256": facts.sha256,
        "width": facts.columns,
        "height": facts.rows,
        "bits": facts.bits,
        "spacing_mm": f"{spacing[0]:g},{spacing[1]:g}" if spacing else None,
        "format": facts.format,
        "photometric_interpretation": facts.photometric_interpretation,
        "transfer_syntax": facts.transfer_syntax_uid,
        "applied": " > ".join(step.name for step in image.applied),
        "warnings": " | ".join(facts.warnings),
        "colour": facts.colour,
        "modality": facts.modality,
    }


def _measures(image: Image) -> dict[str, Any]:
    import imagehash
    from PIL import Image as Pillow
    from PIL import ImageOps

    from wetread.imaging import preview8

    pixels: NDArray[np.uint8] = np.ascontiguousarray(preview8(image))
    digest = hashlib.sha256(f"{pixels.shape}".encode())
    digest.update(pixels.data)
    preview = Pillow.fromarray(pixels)
    factor = max(preview.size) // _PREVIEW
    if factor > 1:
        preview = preview.reduce(factor)
    # the size and filter that imagehash's pHash starts with: it is resized once for all three
    thumb = preview.resize((THUMB, THUMB), Pillow.Resampling.LANCZOS)
    return {
        "pixels_sha256": digest.hexdigest(),
        "phash": str(imagehash.phash(thumb)),
        "phash_mirrored": str(imagehash.phash(ImageOps.mirror(thumb))),
        "thumb": thumb.tobytes(),
        **_quality(preview, pixels.shape[1], pixels.shape[0]),
    }


def _quality(preview: Preview, width: int, height: int) -> dict[str, float]:
    """Raw scores of cleanvision, from the preview that is at hand instead of from the file."""
    from cleanvision.issue_managers.image_property import (
        BlurrinessProperty,
        BrightnessProperty,
        EntropyProperty,
    )

    brightness = BrightnessProperty("dark").calculate(preview)
    return {
        "brightness_perc_99": float(brightness["brightness_perc_99"]),
        "brightness_perc_5": float(brightness["brightness_perc_5"]),
        **{k: float(v) for k, v in EntropyProperty().calculate(preview).items()},
        **{k: float(v) for k, v in BlurrinessProperty().calculate(preview).items()},
        "aspect_ratio": min(width / height, height / width),
        "size": float(np.sqrt(width) * np.sqrt(height)),
    }
