"""Masks as DICOM SEG (PS3.3 A.51): one segment of one radiograph."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from wetread.datasets.mask_raster import Mask, mask_bytes, require_mask_size
from wetread.errors import DatasetRefused, ImageRefused, InputRefused, expected
from wetread.imaging.budget import DEFAULT_BUDGET_BYTES, require_budget
from wetread.imaging.header import quiet, read_header
from wetread.imaging.history import History
from wetread.imaging.sniff import kind_of

__all__ = ["label_words", "read_dicom_seg"]

_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage (PS3.4 B.5)."""


def read_dicom_seg(
    path: Path,
    rows: int,
    columns: int,
    *,
    organ: str,
    series_uid: str | None = None,
    instance_uid: str | None = None,
) -> Mask:
    """Read the mask of one organ from a DICOM SEG (PS3.3 A.51): BINARY, FRACTIONAL or LABELMAP.

    Args:
        path: The file.
        rows: Height of the image in pixels.
        columns: Width of the image in pixels.
        organ: Segment Label (0062,0005); case, order of words and punctuation do not matter, so
            ``lung_left`` finds ``Left lung``.
        series_uid: Series Instance UID that the SEG must reference.
        instance_uid: SOP Instance UID that the SEG must reference. A series of radiographs can
            hold several films of one size, so the series alone does not tell them apart.

    Returns:
        bool (rows, columns). Fractional values count from one half of Maximum Fractional Value
        (0062,000E) on. A segment without a frame is empty: writers leave empty frames out.

    Raises:
        DatasetRefused: No such file, another size, another image, no such segment, or a segment
            with several frames.
        ImageRefused: Not a DICOM SEG, or a damaged one.
    """
    data = mask_bytes(path)
    _require_seg(data, path.name, rows, columns)
    from highdicom.seg import segread

    try:
        with quiet():
            seg = segread(BytesIO(data))
            _require_reference(seg, path.name, series_uid, instance_uid)
            return _segment_mask(seg, _segment_number(seg, organ, path.name), (rows, columns), path.name)
    except InputRefused:
        raise
    except Exception:  # highdicom and pydicom let a dozen classes escape, some quote the header
        cure = "the file is damaged or breaks the standard: fetch it again"
        raise ImageRefused(expected("a readable DICOM SEG", f"a broken one: {path.name}", cure)) from None


def label_words(label: str) -> list[str]:
    """The words of a label in lower case, without punctuation: ``Lung, left`` gives lung and left."""
    return re.findall(r"[^\W_]+", label.casefold())


def _require_seg(data: bytes, name: str, rows: int, columns: int) -> None:
    """Refuse from the header alone what is no SEG, has another size, or is over the budget."""
    what, cure = "a DICOM SEG", "hand in a Segmentation object (PS3.3 A.51), or a mask as PNG"
    if kind_of(data) != "DICOM":
        raise ImageRefused(expected(what, f"{kind_of(data)}: {name}", cure))
    header = read_header(data, name, History(), DEFAULT_BUDGET_BYTES)
    if header.text("SOPClassUID") not in _SEG_CLASSES:
        raise ImageRefused(expected(what, f"another DICOM object: {name}", cure))
    size = (header.integer("Rows") or 0, header.integer("Columns") or 0)
    frames, bits = header.integer("NumberOfFrames") or 1, header.integer("BitsAllocated") or 8
    require_budget(name, size, samples=1, frames=frames, bits=bits, budget_bytes=DEFAULT_BUDGET_BYTES)
    require_mask_size(name, size, (rows, columns))


def _require_reference(seg: Any, name: str, series_uid: str | None, instance_uid: str | None) -> None:
    """Common Instance Reference (PS3.3 C.12.2) and Derivation Image (C.7.6.16.2.6) say what it was made of."""
    listed = list(seg.get("ReferencedSeriesSequence") or [])
    series = {str(item.SeriesInstanceUID) for item in listed}
    sources = [s for item in listed for s in item.get("ReferencedInstanceSequence") or []]
    for group in [*seg.PerFrameFunctionalGroupsSequence, *seg.SharedFunctionalGroupsSequence]:
        sources += [s for d in group.get("DerivationImageSequence") or [] for s in d.get("SourceImageSequence") or []]
    instances = {str(source.ReferencedSOPInstanceUID) for source in sources}
    asked = [(uid, there) for uid, there in ((series_uid, series), (instance_uid, instances)) if uid is not None]
    got = None
    if any(there and uid not in there for uid, there in asked):
        got = "one of another image or series"
    elif asked and not any(there for _, there in asked):
        got = "one that names no image"
    if got is not None:
        cure = "pair each SEG with the image that it references"
        raise DatasetRefused(expected("a SEG made of this image", f"{got}: {name}", cure))


def _segment_number(seg: Any, organ: str, name: str) -> int:
    labels = {int(number): str(seg.get_segment_description(number).SegmentLabel) for number in seg.segment_numbers}
    found = [number for number, label in labels.items() if sorted(label_words(label)) == sorted(label_words(organ))]
    if len(found) != 1:
        there = ", ".join(f"'{label}'" for label in labels.values()) or "none"
        cure = "name the organ as its segment, once for each"
        raise DatasetRefused(expected(f"one segment '{organ}'", f"the segments {there} in {name}", cure))
    return found[0]


def _segment_mask(seg: Any, number: int, shape: tuple[int, int], name: str) -> Mask:
    kind = str(seg.SegmentationType)
    frames = _frames_of(seg, number, kind)
    if not frames:
        return np.zeros(shape, np.bool_)
    if len(frames) > 1:
        cure = "hand in the SEG of one radiograph, not of a volume"
        raise DatasetRefused(expected("one frame for a segment", f"{len(frames)} in {name}", cure))
    stored = seg.get_stored_frame(frames[0])
    if kind == "LABELMAP":
        return np.asarray(stored == number)
    if kind == "FRACTIONAL":
        return np.asarray(stored >= 0.5 * int(seg.MaximumFractionalValue))
    return np.asarray(stored, np.bool_)


def _frames_of(seg: Any, number: int, kind: str) -> list[int]:
    """Frames (from 1) of a segment: Segment Identification macro, PS3.3 C.8.20.3.1."""
    groups = seg.PerFrameFunctionalGroupsSequence
    if kind == "LABELMAP":
        return list(range(1, len(groups) + 1))
    shared, keyword = seg.SharedFunctionalGroupsSequence[0], "SegmentIdentificationSequence"
    owners = [(group if keyword in group else shared)[keyword].value[0].ReferencedSegmentNumber for group in groups]
    return [frame for frame, owner in enumerate(owners, 1) if owner == number]
