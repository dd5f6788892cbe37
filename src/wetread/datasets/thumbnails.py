"""Small pictures for a check: of the examples, and of each kind of file before and after reading."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.check_result import CheckResult, ConformanceRow, Example, Finding
from wetread.datasets.manifest import Manifest
from wetread.errors import ImageRefused

__all__ = ["THUMBNAIL", "thumbnail", "with_thumbnails"]

THUMBNAIL = 128
"""Longest side in pixels."""


def with_thumbnails(result: CheckResult, manifest: Manifest) -> CheckResult:
    """The result with pictures in its examples and conformance rows.

    A file that cannot be read has no picture; the finding that it belongs to says so already.
    """
    findings = tuple(_finding(f, manifest) for f in result.findings)
    rows = tuple(_row(r, manifest) for r in result.conformance)
    return result.model_copy(update={"findings": findings, "conformance": rows})


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """Base64 PNG of an image, uint8 (rows, columns), reduced to :data:`THUMBNAIL` pixels."""
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _finding(finding: Finding, manifest: Manifest) -> Finding:
    examples = tuple(_example(e, manifest) for e in finding.examples)
    return finding.model_copy(update={"examples": examples})


def _example(example: Example, manifest: Manifest) -> Example:
    made = [_after(manifest.path_of(p)) for p in example.paths]
    if any(picture is None for picture in made):
        return example
    return example.model_copy(update={"thumbnails": tuple(made)})


def _row(row: ConformanceRow, manifest: Manifest) -> ConformanceRow:
    from wetread.imaging import preview8
    from wetread.imaging.conformance import examine

    if row.status == "refused":
        return row
    seen = examine(manifest.path_of(row.example))
    pictures = {"before_png": thumbnail(seen.before), "after_png": thumbnail(preview8(seen.image))}
    return row.model_copy(update=pictures)


def _after(file: Path) -> str | None:
    from wetread.imaging import load_image, preview8

    try:
        return thumbnail(preview8(load_image(file)))
    except ImageRefused:
        return None
