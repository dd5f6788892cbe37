"""What a file declares about its pixels, what was done with them, and where it contradicts itself.

The check of a data set shows this beside two thumbnails, and stops on anything ambiguous.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from wetread.imaging.budget import DEFAULT_BUDGET_BYTES
from wetread.imaging.load import load_image, read_bytes
from wetread.imaging.sniff import kind_of
from wetread.types import Image, Step

__all__ = ["Conformance", "DeclaredLut", "DeclaredWindow", "Examination", "conformance", "examine"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeclaredWindow(_Record):
    """One window of the file: Window Center and Width (0028,1050/1051)."""

    centre: float
    width: float
    explanation: str = ""


class DeclaredLut(_Record):
    """One LUT of the file; ``kind`` is "modality" or "voi", the rest is its LUT Descriptor."""

    kind: str
    entries: int
    first: int
    bits: int


class Conformance(_Record):
    """What one file declares, what was applied, and its ambiguities; None where it is silent.

    ``ambiguities`` are contradictions that another viewer may settle otherwise; ``warnings``
    are notes, without the ambiguities.
    """

    name: str
    sha256: str
    format: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int | None = None
    bits_stored: int
    high_bit: int | None = None
    signed: bool | None = None
    photometric_interpretation: str | None = None
    presentation_lut_shape: str | None = None
    transfer_syntax_uid: str | None = None
    transfer_syntax: str | None = None
    rescale: tuple[float | None, float | None] | None = None
    luts: tuple[DeclaredLut, ...] = ()
    windows: tuple[DeclaredWindow, ...] = ()
    voi_lut_function: str | None = None
    overlays: int = 0
    padding: tuple[int, int] | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    stored_range: tuple[float, float]
    applied: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    ambiguities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """A conformance record with the pixels before and after.

    ``before``: uint8 (rows, columns), the stored values (colour: their mean) from smallest to largest,
    nothing else applied. ``image``: what :func:`wetread.imaging.load_image` returns.
    """

    record: Conformance
    before: NDArray[np.uint8]
    image: Image


def conformance(path: str | os.PathLike[str], *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> Conformance:
    """Return what a file declares and what was applied. Raises as ``load_image`` does."""
    return examine(path, budget_bytes=budget_bytes).record


def examine(path: str | os.PathLike[str], *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> Examination:
    """Return the conformance record of a file together with its pixels before and after.

    Raises:
        ImageRefused: As :func:`wetread.imaging.load_image`.
    """
    file = Path(path)
    data = read_bytes(file, budget_bytes)
    kind = kind_of(data)
    if kind == "DICOM":
        return _examine_dicom(data, file.name, budget_bytes)
    image = load_image(file, budget_bytes=budget_bytes)  # refuses what is no image
    from wetread.imaging.raster import stored_raster

    raster = stored_raster(data, kind, file.name, budget_bytes)
    record = Conformance(
        name=file.name,
        sha256=image.facts.sha256,
        format=kind,
        rows=raster.samples.shape[0],
        columns=raster.samples.shape[1],
        samples=raster.samples.shape[2],
        bits_stored=raster.bits,
        photometric_interpretation=raster.mode,
        stored_range=(float(raster.samples.min()), float(raster.samples.max())),
        applied=image.applied,
        warnings=image.facts.warnings,
    )
    return Examination(record, _stretched(raster.samples), image)


def _examine_dicom(data: bytes, name: str, budget_bytes: int) -> Examination:
    from pydicom.uid import UID

    from wetread.imaging.dicom import read_dicom
    from wetread.imaging.facts import spacing

    reading = read_dicom(data, name, budget_bytes)
    header, stored = reading.header, reading.stored
    syntax = header.transfer_syntax
    spacing_mm, source = spacing(header)
    record = Conformance(
        name=name,
        sha256=reading.image.facts.sha256,
        format="DICOM",
        rows=reading.layout.rows,
        columns=reading.layout.columns,
        samples=reading.layout.samples,
        bits_allocated=reading.layout.bits_allocated,
        bits_stored=stored.bits_stored,
        high_bit=header.integer("HighBit"),
        signed=_yes_no(header.integer("PixelRepresentation")),
        photometric_interpretation=header.text("PhotometricInterpretation"),
        presentation_lut_shape=header.text("PresentationLUTShape"),
        transfer_syntax_uid=syntax,
        transfer_syntax=UID(syntax).name if syntax else None,
        **_grayscale_fields(header),
        overlays=header.overlays[0],
        padding=_padding(header),
        spacing_mm=spacing_mm,
        spacing_source=source,
        stored_range=(float(stored.values.min()), float(stored.values.max())),
        applied=reading.image.applied,
        warnings=header.history.notes,
        ambiguities=header.history.ambiguities,
    )
    return Examination(record, _stretched(stored.values), reading.image)


def _grayscale_fields(header: Any) -> dict[str, Any]:
    from wetread.imaging.grayscale import read_lut, read_windows

    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    luts = []
    for kind, keyword in (("modality", "ModalityLUTSequence"), ("voi", "VOILUTSequence")):
        for lut in map(read_lut, header.items(keyword)):
            if lut is not None:
                declared = DeclaredLut(kind=kind, entries=len(lut.table), first=lut.first, bits=lut.bits)
                luts.append(declared)
    return {
        "rescale": None if slope is None and intercept is None else (slope, intercept),
        "luts": tuple(luts),
        "windows": tuple(
            DeclaredWindow(centre=window.centre, width=window.width, explanation=window.explanation)
            for window in read_windows(header)
        ),
        "voi_lut_function": header.text("VOILUTFunction"),
    }


def _padding(header: Any) -> tuple[int, int] | None:
    first, limit = header.integer("PixelPaddingValue"), header.integer("PixelPaddingRangeLimit")
    return None if first is None else (first, first if limit is None else limit)


def _yes_no(value: int | None) -> bool | None:
    return None if value is None else value == 1


def _stretched(samples: NDArray[Any]) -> NDArray[np.uint8]:
    gray = samples.mean(axis=2) if samples.ndim == 3 else samples
    values = gray.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return np.asarray(np.rint((values - low) * np.float32(255 / (high - low))), np.uint8)
