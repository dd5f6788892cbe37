"""Small DICOM files with a made-up patient, and what the tests ask of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from wetread.deid.header import HeaderWork, clean_header, patient_of
from wetread.deid.identity import identity_of
from wetread.deid.key import Key
from wetread.deid.options import Options
from wetread.deid.process import Setup

EXPLICIT = "1.2.840.10008.1.2.1"
KEY = Key(bytes(range(32)))


def setup(**options: Any) -> Setup:
    return Setup(KEY, Options(**options))


def header(**values: Any) -> Dataset:
    """A CR header of somebody; ``values`` by keyword are added or replaced."""
    data = Dataset()
    given = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": "1.2.826.0.1.99.1.1.1",
        "StudyInstanceUID": "1.2.826.0.1.99.1",
        "SeriesInstanceUID": "1.2.826.0.1.99.1.1",
        "Modality": "CR",
        "PatientName": "Vexhollow^Tamsin",
        "PatientID": "4711-0815",
        "PatientBirthDate": "19610304",
        "StudyDate": "20240506",
        "StudyTime": "101500",
        **values,
    }
    for keyword, value in given.items():
        setattr(data, keyword, value)
    return data


def cleaned(data: Dataset, **options: Any) -> Dataset:
    """The header after it was de-identified in place."""
    work = work_of(data, **options)
    clean_header(data, work)
    return data


def work_of(data: Dataset, **options: Any) -> HeaderWork:
    chosen = Options(**options)
    identity = identity_of(data, keep_uids=chosen.retain_uids, keep_device=chosen.retain_device)
    return HeaderWork(KEY, chosen, identity, patient_of(data))


def grey(data: Dataset, pixels: NDArray[Any], photometric: str = "MONOCHROME2") -> Dataset:
    """Put one grey or RGB frame, or several, into a header."""
    bits = 8 * pixels.dtype.itemsize
    colour = pixels.shape[-1] == 3
    data.Rows, data.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, photometric)
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    if pixels.ndim - colour == 3:
        data.NumberOfFrames = len(pixels)
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return data


def written(data: Dataset, syntax: str = EXPLICIT) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def lettered(text: str, size: tuple[int, int] = (160, 320), at: tuple[int, int] = (8, 8)) -> NDArray[np.uint8]:
    """A dark frame with one bright line of text; (rows, columns)."""
    picture = Image.new("L", (size[1], size[0]), 40)
    ImageDraw.Draw(picture).text(at, text, fill=240, font=ImageFont.load_default(18))
    return np.asarray(picture).copy()
