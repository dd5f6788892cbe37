"""A picture as a DICOM file, so that the viewer needs one loader only: Secondary Capture (PS3.3 A.8.1).

Decided here: 16 bit grey of what wetread itself sees, so that the viewer and the reader look at the same values;
no patient's name or number, and UIDs that follow from the identifiers of the service, so that the same image is the
same instance each time.
"""

from __future__ import annotations

import io

import numpy as np

from wetread.types import Image

__all__ = ["as_dicom"]

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def as_dicom(image: Image, study_id: str, image_id: str) -> bytes:
    """Return a picture as a DICOM file; ``study_id`` and ``image_id`` say what it is called."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SECONDARY_CAPTURE)
    meta.MediaStorageSOPInstanceUID = UID(_uid(image_id))
    meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE)
    made = FileDataset("", Dataset(), preamble=b"\0" * 128, file_meta=meta)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = _uid(study_id), _uid(f"{study_id} series")
    made.Modality, made.ConversionType = "OT", "WSD"
    made.PatientName = made.PatientID = made.PatientBirthDate = made.PatientSex = ""
    made.StudyDate = made.StudyTime = made.StudyID = made.AccessionNumber = made.ReferringPhysicianName = ""
    made.SeriesNumber, made.InstanceNumber, made.PatientOrientation = 1, 1, ""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = image.pixels.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.WindowCenter, made.WindowWidth = "32768", "65536"
    made.PixelData = np.rint(image.pixels * np.float32(65535)).astype("<u2").tobytes()
    target = io.BytesIO()
    made.save_as(target, enforce_file_format=True)
    return target.getvalue()


def _uid(text: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that follows from ``text``."""
    import hashlib

    return f"2.25.{int(hashlib.sha256(text.encode()).hexdigest()[:32], 16)}"
