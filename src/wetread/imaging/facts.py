"""What a DICOM header says about the image, in the standard's own terms."""

from __future__ import annotations

from wetread.imaging.codecs import Layout
from wetread.imaging.header import Header
from wetread.types import ImageFacts

__all__ = ["age_years", "dicom_facts", "spacing"]

_YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def dicom_facts(header: Header, layout: Layout, *, sha256: str, bits: int, colour: float) -> ImageFacts:
    """Collect the facts; what the header does not say stays None."""
    spacing_mm, source = spacing(header)
    if source == "Imager Pixel Spacing":
        header.history.warn("spacing is Imager Pixel Spacing: measured at the detector, without magnification")
    _note_overlays(header)
    return ImageFacts(
        name=header.name,
        format="DICOM",
        sha256=sha256,
        rows=layout.rows,
        columns=layout.columns,
        bits=bits,
        photometric_interpretation=layout.photometric,
        spacing_mm=spacing_mm,
        modality=header.text("Modality"),
        body_part=header.text("BodyPartExamined") or _meaning(header, "AnatomicRegionSequence"),
        view=header.text("ViewPosition") or _meaning(header, "ViewCodeSequence"),
        laterality=header.text("ImageLaterality") or header.text("Laterality"),
        patient=header.text("PatientID"),
        sex=header.text("PatientSex"),
        age_years=age_years(header.text("PatientAge")),
        study_uid=header.text("StudyInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        instance_uid=header.text("SOPInstanceUID"),
        transfer_syntax_uid=header.transfer_syntax,
        manufacturer=header.text("Manufacturer"),
        colour=colour,
        burned_in_annotation={"YES": True, "NO": False}.get((header.text("BurnedInAnnotation") or "").upper()),
        warnings=header.history.warnings,
    )


def age_years(text: str | None) -> float | None:
    """Convert an Age String (PS3.5 6.2: nnnD, nnnW, nnnM or nnnY) to years; None if it is none."""
    if not text or not text[:-1].isdigit() or text[-1].upper() not in _YEARS_PER_UNIT:
        return None
    return round(int(text[:-1]) * _YEARS_PER_UNIT[text[-1].upper()], 3)


def spacing(header: Header) -> tuple[tuple[float, float] | None, str | None]:
    """Return (row, column) spacing in mm and the name of the element it is from.

    Pixel Spacing (0028,0030), in the patient, goes before Imager Pixel Spacing (0018,1164), at the
    detector: PS3.3 10.7.1.3.
    """
    for keyword, source in (("PixelSpacing", "Pixel Spacing"), ("ImagerPixelSpacing", "Imager Pixel Spacing")):
        found = header.numbers(keyword)
        if len(found) == 2 and min(found) > 0:
            return (found[0], found[1]), source
        if found:
            header.history.ambiguous(f"{source} is not two numbers above 0: left out")
    return None, None


def _meaning(header: Header, keyword: str) -> str | None:
    items = header.items(keyword)
    text = items[0].text("CodeMeaning") if items else None
    return text.upper() if text else None


def _note_overlays(header: Header) -> None:
    planes, embedded = header.overlays
    if planes:
        where = f", {embedded} of them in unused pixel bits" if embedded else ""
        header.history.warn(f"overlay planes ignored: {planes}{where}")
