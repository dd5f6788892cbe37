"""What every result object takes over from the image that it belongs to, and how its UIDs are made.

Decided here: a result lies in the study of its image, so the elements of patient and study are copied, made fit
where a device left out what the standard requires; and a UID follows from what the object is about, so that a second
run makes the same object and not another one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES
from wetread.imaging.header import quiet, read_header
from wetread.imaging.history import History
from wetread.imaging.load import read_bytes
from wetread.imaging.sniff import kind_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

__all__ = ["encode", "source_header", "stable_uid"]

_DATED = ("StudyDate", "PatientBirthDate")
_TYPE_2 = (
    "PatientName",
    "ReferringPhysicianName",
    "PatientID",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyTime",
    *_DATED,
)
"""Type 2 of Patient (C.7.1.1) and General Study (C.7.2.1): present, but maybe empty."""
_TYPE_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def encode(build: Callable[[], Dataset], name: str, what: str) -> tuple[Dataset, bytes]:
    """Build an object and its file, or raise one refusal: what highdicom raises may quote the header.

    Args:
        build: Makes the object.
        name: File name of the source, for the message.
        what: The object, for the message, such as ``a SEG``.

    Raises:
        ImageRefused: The header of the source breaks rules that the object cannot do without.
    """
    buffer = BytesIO()
    with quiet():
        try:
            made = build()
            made.save_as(buffer, enforce_file_format=True)
        except Exception:  # ValueError, TypeError, AttributeError, UnicodeEncodeError and more
            cure = "mend its patient and study elements: dciodvfy names them"
            got = f"one that breaks rules: {name}"
            raise ImageRefused(expected(f"a header to derive {what} from", got, cure)) from None
    return made, buffer.getvalue()


def source_header(path: Path) -> Dataset:
    """Read the header of a radiograph, made fit for highdicom, which takes type 2 elements for granted.

    Raises:
        ImageRefused: it is not DICOM, damaged, or lacks UIDs or size.
        UnsupportedImage: it has several frames.
    """
    from pydicom import dcmread

    data = read_bytes(path, DEFAULT_BUDGET_BYTES)
    kind = kind_of(data)
    if kind != "DICOM":
        cure = "a SEG belongs to a DICOM study: hand in the DICOM file"
        raise ImageRefused(expected("a DICOM image", f"{kind}: {path.name}", cure))
    read_header(data, path.name, History(), DEFAULT_BUDGET_BYTES)  # bounds what a deflated one inflates to
    with quiet():
        try:
            image = dcmread(BytesIO(data), stop_before_pixels=True, force=True)
            missing = [keyword for keyword in _TYPE_1 if not image.get(keyword)]
            frames = int(image.get("NumberOfFrames") or 1)
            if not missing:
                _make_fit(image)
        except Exception:  # pydicom lets struct, Unicode and more classes escape, which may quote values
            cure = "the file is damaged: fetch it again"
            raise ImageRefused(expected("a DICOM image", f"an unreadable header in {path.name}", cure)) from None
    if missing:
        got = f"none of {', '.join(missing)} in {path.name}"
        raise ImageRefused(expected(f"a DICOM image with {', '.join(_TYPE_1)}", got, "fetch the original"))
    if frames > 1:
        cure = "write the frame to be segmented as an image of its own"
        raise UnsupportedImage(expected("a radiograph of one frame", f"{frames} in {path.name}", cure))
    return image


def _make_fit(image: Dataset) -> None:
    from pydicom.valuerep import DA, TM

    for keyword in _TYPE_2:
        if keyword not in image:
            setattr(image, keyword, "")
    for keyword, kind in [*((k, DA) for k in _DATED), ("StudyTime", TM)]:
        try:
            kind(str(image[keyword].value or ""))
        except ValueError:  # not a date: the SEG says nothing rather than repeat it
            setattr(image, keyword, "")
    if image.PatientSex not in ("", "M", "F", "O"):
        image.PatientSex = ""
    if "FrameOfReferenceUID" in image and not all(image.get(keyword) for keyword in _PLANE):
        # named, but without a plane in it: A.51.5 then has nothing to place the mask by
        del image.FrameOfReferenceUID


def stable_uid(namespace: uuid.UUID, *words: object) -> UID:
    """A UID under 2.25 (PS3.5 B.2) that always is the same for the same words."""
    from pydicom.uid import UID

    return UID(f"2.25.{uuid.uuid5(namespace, '/'.join(map(str, words))).int}")
