"""Organ masks as a DICOM Segmentation (PS3.3 A.51) of one radiograph.

Decided here: BINARY, because label maps (Sup 243) are unknown to most viewers; the same masks of the
same image by the same algorithm are the same SOP instance, so a second run sends no second object;
an empty mask is left out and reported, because a segment without a frame is an error to many viewers.

A radiograph has no Frame of Reference. A.51.5 then asks for the size of the source and for the
Derivation Image macro, and highdicom writes neither plane position, orientation nor pixel measures:
the mask lies on the pixels of the referenced image, and claims no place in the patient.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import InputRefused, UsageError, expected
from wetread.pacs.derived import encode, source_header, stable_uid
from wetread.provenance import atomic_file

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset

__all__ = ["SEGMENT_NAMES", "SegmentationFile", "write_segmentation"]

_LUNG, _HEART = ("39607008", "Lung"), ("80891009", "Heart")
_SEGMENTS: dict[str, tuple[str, tuple[str, str], tuple[str, str] | None]] = {
    "lungs": ("Lungs", _LUNG, ("51440002", "Right and left")),
    "lung_left": ("Left lung", _LUNG, ("7771000", "Left")),
    "lung_right": ("Right lung", _LUNG, ("24028007", "Right")),
    "heart": ("Heart", _HEART, None),
}
"""Organ to Segment Label, Segmented Property Type (CID 7151) and its modifier (CID 244), in SNOMED CT.
One code with a modifier, as dcmqi and 3D Slicer write it, lets a viewer find any lung by one code."""

SEGMENT_NAMES = tuple(_SEGMENTS)
"""The organs that can be written."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "wetread segmentation")
_SERIES_NUMBER = 900
"""Past what a device numbers by itself, so that the masks sort after the images."""
_LONG_STRING = 64
"""Characters of a value of VR LO (PS3.5 6.2)."""
_COPIED = ("SpecificCharacterSet", "BodyPartExamined")
"""Of SOP Common (C.12.1) and General Series (C.7.3.1). Not Laterality: it may not be present for a chest,
dciodvfy refuses it in any SEG, and the modifier of each segment says the side."""


@dataclass(frozen=True)
class SegmentationFile:
    """What was written. ``segments`` are the organs in order of Segment Number (from 1).

    ``omitted`` are organs whose mask had no pixel.
    """

    path: Path
    sop_instance_uid: str
    series_instance_uid: str
    segments: tuple[str, ...]
    omitted: tuple[str, ...]


def write_segmentation(
    source: Path,
    masks: Mapping[str, NDArray[np.bool_]],
    out: Path,
    *,
    algorithm: str,
    version: str,
    confidence: Mapping[str, float] | None = None,
) -> SegmentationFile:
    """Write the masks of one radiograph as a DICOM SEG that belongs to its study.

    Args:
        source: The radiograph: DICOM with one frame (CR, DX or alike).
        masks: Organ of :data:`SEGMENT_NAMES` to bool (rows, columns), as the stored pixels lie.
        out: The file to write; replaced where it exists.
        algorithm: Name of the reader, 1-64 ASCII characters (Algorithm Name, 0066,0036).
        version: Its version, 1-64 ASCII characters (Algorithm Version, 0066,0031).
        confidence: Organ to a number 0-1, written as text to Segment Description (0062,0006):
            the standard has no place for it in numbers.

    Returns:
        What was written. The series UID follows from the series of the source, algorithm and
        version, the instance UID also from the image and the masks, so they are the same when run
        again; only the dates and times of making differ.

    Raises:
        ImageRefused: ``source`` is not DICOM, damaged, or lacks UIDs or size.
        UnsupportedImage: ``source`` has several frames.
        InputRefused: No mask, only empty ones, one of another size, or an unknown organ.
        UsageError: A name or a confidence that DICOM cannot hold.
        WetreadError: ``out`` cannot be written.
    """
    _require_names(algorithm, version)
    image = source_header(source)
    _require_masks(masks, (int(image.Rows), int(image.Columns)))
    _require_confidence(confidence or {}, masks)
    kept = {organ: mask for organ, mask in masks.items() if mask.any()}
    if not kept:
        cure = "there is nothing to write: look at the image"
        raise InputRefused(expected("a mask with pixels", f"only empty masks: {', '.join(masks)}", cure))
    made_by = (algorithm.strip(), version.strip())
    seg, data = encode(lambda: _segmentation(image, kept, made_by, confidence or {}), source.name, "a SEG")
    with atomic_file(out) as part:
        part.write_bytes(data)
    return SegmentationFile(
        path=out,
        sop_instance_uid=str(seg.SOPInstanceUID),
        series_instance_uid=str(seg.SeriesInstanceUID),
        segments=tuple(kept),
        omitted=tuple(organ for organ in masks if organ not in kept),
    )


def _require_names(algorithm: str, version: str) -> None:
    for what, text in (("algorithm", algorithm), ("version", version)):
        if not 1 <= len(text.strip()) <= _LONG_STRING or "\\" in text or not (text.isascii() and text.isprintable()):
            cure = "shorten it or take special characters out"
            raise UsageError(expected(f"a plain {what} of 1-{_LONG_STRING} ASCII characters", repr(text[:80]), cure))


def _require_masks(masks: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> None:
    if not masks:
        raise InputRefused(expected("at least one mask", "none", "segment the image first"))
    for organ, mask in masks.items():
        if organ not in _SEGMENTS:
            cure = "leave it out: no code of SNOMED CT is set for it"
            raise InputRefused(expected(f"organs among {', '.join(SEGMENT_NAMES)}", f"'{organ}'", cure))
        if mask.dtype != np.bool_:
            raise InputRefused(expected("masks of bool", f"{mask.dtype} for {organ}", "compare with a threshold"))
        if mask.shape != shape:
            got = f"{' x '.join(map(str, mask.shape))} for {organ}"
            cure = "make it at the size of the image: masks are not resized"
            raise InputRefused(expected(f"masks of {shape[0]} x {shape[1]} (rows x columns)", got, cure))


def _require_confidence(confidence: Mapping[str, float], masks: Mapping[str, object]) -> None:
    for organ, value in confidence.items():
        if organ not in masks or not (math.isfinite(value) and 0 <= value <= 1):
            what = "a confidence of 0-1 for organs that have a mask"
            raise UsageError(expected(what, f"{value} for '{organ}'", "hand in calibrated numbers"))


def _segmentation(
    image: Dataset, masks: Mapping[str, NDArray[np.bool_]], made_by: tuple[str, str], confidence: Mapping[str, float]
) -> Dataset:
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.uid import ExplicitVRLittleEndian

    from wetread import __version__

    numbered = enumerate(masks, 1)
    seg = Segmentation(
        source_images=[image],
        # (frames, rows, columns, segments): organs may overlap, which a label map cannot say
        pixel_array=np.stack(list(masks.values()), axis=-1)[np.newaxis].astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, organ, made_by, confidence.get(organ)) for n, organ in numbered],
        series_instance_uid=stable_uid(_NAMESPACE, image.SeriesInstanceUID, *made_by),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=stable_uid(_NAMESPACE, image.SOPInstanceUID, *made_by, _digest(masks, confidence)),
        instance_number=max(1, int(image.get("InstanceNumber") or 1)),
        manufacturer="wetread",
        manufacturer_model_name="wetread",
        software_versions=__version__,
        device_serial_number=__version__,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="ORGANS",
        content_description="Organ masks by an algorithm, research use only",
        series_description=f"Organ masks {made_by[0]} {made_by[1]}"[:_LONG_STRING],
        specific_character_set=None,  # highdicom refuses the empty first value of C.12.1.1.2: copied below
    )
    _complete(seg, image)
    return seg


def _complete(seg: Dataset, image: Dataset) -> None:
    """Add what highdicom leaves out, and make its one random UID a stable one."""
    for keyword in _COPIED:
        if image.get(keyword):
            seg[keyword] = image[keyword]
    if "FrameOfReferenceUID" not in seg:
        # type 2C of General Image (C.7.6.1): required, maybe empty, where no plane gives the orientation
        seg.PatientOrientation = image.get("PatientOrientation") or ""
    dimensions = stable_uid(_NAMESPACE, seg.SOPInstanceUID, "dimensions")
    for item in [*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimensions


def _description(number: int, organ: str, made_by: tuple[str, str], confidence: float | None) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    label, (code, meaning), side = _SEGMENTS[organ]
    kind = CodedConcept(code, "SCT", meaning)
    if side is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(side[0], "SCT", side[1])]
    described = SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=made_by[0],
            version=made_by[1],
            family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        ),
    )
    if confidence is not None:
        described.SegmentDescription = f"confidence {confidence:.3f} (0-1), research use only"
    return described


def _digest(masks: Mapping[str, NDArray[np.bool_]], confidence: Mapping[str, float]) -> str:
    """Of what the object says: another mask must be another SOP instance (PS3.5 9)."""
    found = hashlib.sha256()
    for organ, mask in masks.items():
        found.update(f"{organ} {confidence.get(organ)} {mask.shape} ".encode())
        found.update(np.packbits(mask).tobytes())
    return found.hexdigest()
