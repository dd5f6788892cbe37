"""Small DICOM files with any Image Pixel Module, built in memory for the tests of imaging."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, generate_uid

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
_PLACEHOLDER = "1.2.3." + "9" * 58


def gradient(rows: int = 32, columns: int = 48, *, peak: int = 4095) -> NDArray[np.uint16]:
    """Values from 0 to ``peak``, every one of them different from its neighbours."""
    return np.linspace(0, peak, rows * columns).round().astype(np.uint16).reshape(rows, columns)


def dicom_bytes(
    pixels: NDArray[Any] | None = None,
    *,
    syntax: str = EXPLICIT,
    frame: bytes | None = None,
    fragments: int = 1,
    extra: Dataset | None = None,
    **elements: Any,
) -> bytes:
    """Return a DX image.

    Args:
        pixels: Stored values (rows, columns[, 3]); their dtype gives the bits and the sign.
        syntax: Transfer Syntax UID.
        frame: The compressed frame, if the syntax is a compressed one.
        fragments: Number of fragments that the frame is cut into.
        extra: Elements that have no keyword.
        elements: Further elements by keyword; None removes one.
    """
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "secret-id", "Secret^Name", "DX"
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.update(extra or {})
    dataset.update(_dataset({key: value for key, value in elements.items() if value is not None}))
    for keyword in [key for key, value in elements.items() if value is None]:
        delattr(dataset, keyword)
    if pixels is not None and "HighBit" not in dataset and "BitsStored" in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    if pixels is not None and "PixelData" not in elements:
        _set_pixel_data(dataset, pixels, syntax, frame, fragments)
    return _written(dataset, syntax)


def write_dicom(folder: Path, pixels: NDArray[Any] | None = None, **options: Any) -> Path:
    """Write :func:`dicom_bytes` to ``folder/image.dcm`` and return the path."""
    path = folder / "image.dcm"
    path.write_bytes(dicom_bytes(pixels, **options))
    return path


def lut_item(table: list[int], first: int, bits: int) -> Dataset:
    """Return an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table), first, bits])
    item.add_new("LUTData", "US", table)
    return item


def _dataset(elements: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _set_pixel_data(dataset: Dataset, pixels: NDArray[Any], syntax: str, frame: bytes | None, fragments: int) -> None:
    if frame is not None:
        dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        return
    raw = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG_ENDIAN else "<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"


def _written(dataset: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    # pydicom writes no syntax that it does not know, so a private one takes the place.
    known = UID(syntax).is_transfer_syntax
    meta.TransferSyntaxUID = UID(syntax if known else _PLACEHOLDER[: len(syntax)])
    dataset.file_meta = meta
    buffer = io.BytesIO()
    if known:
        dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()
    dcmwrite(buffer, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue().replace(_PLACEHOLDER[: len(syntax)].encode(), syntax.encode())
