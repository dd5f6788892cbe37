"""Phantoms as files: CR DICOM, PNG, and their truth as PNG masks.

Written strictly: a file that pydicom or the standard would object to is not written. All names and
identifiers say PHANTOM; UIDs lie under 2.25 (PS3.5 B.2) and follow from the specification, so
the same phantom is the same SOP instance wherever it is made.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.phantom_look import source_of
from wetread.datasets.phantom_render import Phantom
from wetread.datasets.phantom_spec import PhantomSpec
from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.uid import UID

__all__ = [
    "Identity",
    "identity_of",
    "phantom_uid",
    "stored_pixels",
    "to_dicom",
    "write_dicom",
    "write_masks",
    "write_png",
]

UID_ROOT = "2.25"
"""UIDs derived from a UUID (PS3.5 B.2)."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "wetread phantom")
_YEAR = 2000
"""All studies are of this year: a phantom has no date, and a plain one is easily recognised."""


@dataclass(frozen=True)
class Identity:
    """Who a film belongs to: patient, study number and image number; all invented."""

    patient: str
    study: int = 1
    image: int = 1


def identity_of(spec: PhantomSpec) -> Identity:
    """The identity that a specification has by itself: one study for each exposure."""
    return Identity(f"{spec.seed:04d}", study=spec.exposure + 1)


def phantom_uid(*words: object) -> UID:
    """A UID (PS3.5 B.2) that always is the same for the same words."""
    from pydicom.uid import UID

    return UID(f"{UID_ROOT}.{uuid.uuid5(_NAMESPACE, '/'.join(str(w) for w in words)).int}")


def stored_pixels(phantom: Phantom) -> NDArray[np.uint16]:
    """The values a detector of that source would store: uint16 (H, W), inverted for MONOCHROME1."""
    source = source_of(phantom.spec.source)
    top = 2**source.bits - 1
    values: NDArray[np.uint16] = np.rint(phantom.image * np.float32(top)).astype(np.uint16)
    return values if source.photometric == "MONOCHROME2" else np.uint16(top) - values


def to_dicom(phantom: Phantom, identity: Identity | None = None) -> FileDataset:
    """A Computed Radiography Image (PS3.3 A.2) as a pydicom data set, explicit VR little endian."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    who = identity or identity_of(phantom.spec)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = phantom_uid("image", who, phantom.spec)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = phantom_uid("implementation")
    meta.ImplementationVersionName = "WETREAD_PHANTOM"
    data = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    _patient_and_study(data, phantom.spec, who)
    _series_and_equipment(data, phantom, who)
    _image(data, phantom, who)
    return data


def _patient_and_study(data: Dataset, spec: PhantomSpec, who: Identity) -> None:
    """Patient (PS3.3 C.7.1.1), General Study (C.7.2.1) and Patient Study (C.7.2.2) modules."""
    data.PatientName = f"PHANTOM^{who.patient}"
    data.PatientID = f"PHANTOM-{who.patient}"
    data.PatientBirthDate = ""
    data.PatientSex = spec.sex
    years = int(spec.age_years)
    data.PatientAge = f"{years:03d}Y" if years >= 2 else f"{max(1, round(12 * spec.age_years)):03d}M"
    data.PatientComments = "Synthetic projection phantom, no person"
    data.StudyInstanceUID = phantom_uid("study", spec.source, who.patient, who.study)
    month, day = divmod((who.study - 1) * 9 % 336, 28)
    data.StudyDate = f"{_YEAR}{month + 1:02d}{day + 1:02d}"
    data.StudyTime = "120000"
    data.ReferringPhysicianName = ""
    data.StudyID = str(who.study)
    data.AccessionNumber = ""
    data.StudyDescription = "Chest phantom"


def _series_and_equipment(data: Dataset, phantom: Phantom, who: Identity) -> None:
    """General Series (C.7.3.1), CR Series (C.8.1.1) and General Equipment (C.7.5.1) modules."""
    spec, source = phantom.spec, source_of(phantom.spec.source)
    data.Modality = "CR"
    data.SeriesInstanceUID = phantom_uid("series", spec.source, who.patient, who.study, spec.view)
    data.SeriesNumber = "1"
    data.SeriesDescription = f"Chest {spec.view}"
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = spec.view
    if spec.view == "AP":
        data.PatientPosition = "HFS"
    data.Manufacturer = source.manufacturer
    data.InstitutionName = source.institution
    data.ManufacturerModelName = source.model
    data.DeviceSerialNumber = f"{source.name}-1"
    data.SoftwareVersions = "wetread phantoms 1"
    data.KVP = f"{spec.kvp:g}"


def _image(data: Dataset, phantom: Phantom, who: Identity) -> None:
    """General Image (C.7.6.1), Image Pixel (C.7.6.3), CR Image (C.8.1.2), VOI LUT (C.11.2), SOP Common."""
    source = source_of(phantom.spec.source)
    pixels = stored_pixels(phantom)
    data.InstanceNumber = str(who.image)
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.PatientOrientation = ["L", "F"]  # rows run to the patient's left, columns to the feet
    data.ContentDate, data.ContentTime = data.StudyDate, data.StudyTime
    data.BurnedInAnnotation = "YES"  # the side marker
    data.LossyImageCompression = "00"
    data.ImageComments = "Synthetic projection phantom, no person"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = source.photometric
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = 16
    data.BitsStored, data.HighBit = source.bits, source.bits - 1
    data.PixelRepresentation = 0
    data.ImagerPixelSpacing = [f"{phantom.pixel_mm:g}"] * 2
    # the whole range: PS3.3 C.11.2.1.2.1 maps [c - 0.5 - (w - 1)/2, c - 0.5 + (w - 1)/2] onto it
    data.WindowCenter, data.WindowWidth = str(2 ** (source.bits - 1)), str(2**source.bits)
    data.PixelData = pixels.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"


def write_dicom(phantom: Phantom, path: Path, identity: Identity | None = None) -> Path:
    """Write :func:`to_dicom` as a file that keeps the file format of PS3.10; return ``path``."""
    to_dicom(phantom, identity).save_as(path, enforce_file_format=True, overwrite=True)
    return path


def write_png(phantom: Phantom, path: Path, *, bits: int = 8) -> Path:
    """Write the displayed image, bright is dense, as a grey PNG of 8 or 16 bits; return ``path``."""
    if bits not in (8, 16):
        raise UsageError(expected("8 or 16 bits for a PNG", bits, "choose one of them"))
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.rint(phantom.image * np.float32(2**bits - 1)).astype(kind)
    PilImage.fromarray(values).save(path, compress_level=3)
    return path


def write_masks(phantom: Phantom, stem: Path) -> dict[str, Path]:
    """Write the truth beside an image as 1-bit PNGs ``<stem>_<part>.png``.

    Parts: ``lungs`` (both), ``lung_left``, ``lung_right``, ``heart``, and ``findings`` (all together)
    where there are any. Returns the paths by part.
    """
    parts = {
        "lungs": phantom.lung_left | phantom.lung_right,
        "lung_left": phantom.lung_left,
        "lung_right": phantom.lung_right,
        "heart": phantom.heart,
    }
    if phantom.findings:
        parts["findings"] = np.logical_or.reduce([f.mask for f in phantom.findings])
    written = {}
    for part, mask in parts.items():
        written[part] = stem.with_name(f"{stem.name}_{part}.png")
        PilImage.fromarray(mask).save(written[part], compress_level=3)
    return written
