"""Results for viewers that know nothing of SR and SEG: a Secondary Capture and an Encapsulated PDF.

Decided here: whatever picture leaves has the research-use banner burned into its pixels, with the reader, the
hash of its weights and, where the audit failed, the watermark; a picture that is cut out of its window keeps them.
No name of a patient is drawn: the header has it, and burned-in names outlive every de-identification.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wetread.errors import UsageError, expected
from wetread.pacs import facts as f
from wetread.pacs.facts import ResultFacts
from wetread.reporting.words import is_failed

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["encapsulated_pdf", "page_pdf", "picture", "secondary_capture"]

_SC = "1.2.840.10008.5.1.4.1.1.7"
_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_BAND, _FAILED_BAND = (24, 24, 24), (140, 16, 36)
_PAGE = (1240, 1754)
"""A4 at 150 dots per inch."""
_MARGIN = 80
_MIN_WIDTH = 512


def picture(facts: ResultFacts) -> NDArray[np.uint8]:
    """The film with its heat map and the banner above it: uint8 (height, width, 3)."""
    shown = _shown(facts)
    if shown.width < _MIN_WIDTH:
        height = round(shown.height * _MIN_WIDTH / shown.width)
        shown = shown.resize((_MIN_WIDTH, height), Image.Resampling.BILINEAR)
    lines = [*f.warning_lines(facts.read), *_said(facts), f.reader_line(facts.read)]
    size = max(12, shown.width // 48)
    font = ImageFont.load_default(size)
    wrapped = [part for line in lines for part in _wrap(line, font, shown.width - size)]
    failed = is_failed(facts.read.model.audit_verdict)
    whole = Image.new("RGB", (shown.width, shown.height + (len(wrapped) + 1) * size * 5 // 4))
    whole.paste(_FAILED_BAND if failed else _BAND, (0, 0, whole.width, whole.height - shown.height))
    whole.paste(shown, (0, whole.height - shown.height))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(wrapped):
        draw.text((size // 2, size // 2 + number * size * 5 // 4), line, "white", font)
    return np.asarray(whole)


def secondary_capture(facts: ResultFacts, image: Dataset) -> Dataset:
    """The picture as a Secondary Capture of the study."""
    pixels = picture(facts)
    data = f.shell(facts, image, "sc", sop_class=_SC, modality="OT")
    data.ConversionType = "WSD"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.PatientOrientation = image.get("PatientOrientation") or ""
    data.BurnedInAnnotation = "NO"  # of what identifies a patient (C.7.6.1.1.5); the banner does not
    data.RecognizableVisualFeatures = "NO"
    data.DerivationDescription = "; ".join([*f.warning_lines(facts.read), f.reader_line(facts.read)])[:1024]
    data.SourceImageSequence = [_reference(image)]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    raw = pixels.tobytes()
    data.PixelData = raw + bytes(len(raw) % 2)
    return data


def encapsulated_pdf(facts: ResultFacts, image: Dataset) -> Dataset:
    """A page with the answer as an Encapsulated PDF of the study (PS3.3 A.45.1)."""
    page = page_pdf(facts)
    data = f.shell(facts, image, "pdf", sop_class=_PDF, modality="DOC")
    data.ConversionType = "WSD"
    data.BurnedInAnnotation = "NO"
    data.AcquisitionDateTime = ""
    data.DocumentTitle = f.series_description(facts, "pdf")
    data.ConceptNameCodeSequence = [_concept("126000", "DCM", "Imaging Measurement Report")]
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data.SourceInstanceSequence = [_reference(image)]
    data.EncapsulatedDocumentLength = len(page)
    data.EncapsulatedDocument = page + bytes(len(page) % 2)
    return data


def page_pdf(facts: ResultFacts) -> bytes:
    """One A4 page: banner, answers, what the gate said, the film with its heat map. The bytes are reproducible."""
    page = Image.new("RGB", _PAGE, "white")
    draw = ImageDraw.Draw(page)
    failed = is_failed(facts.read.model.audit_verdict)
    top = _MARGIN
    for number, line in enumerate([*f.warning_lines(facts.read), "", *_said(facts), *_notes(facts)]):
        size = 34 if number < 1 + failed else 26
        font = ImageFont.load_default(size)
        for part in _wrap(line, font, _PAGE[0] - 2 * _MARGIN):
            draw.text((_MARGIN, top), part, _FAILED_BAND if number < 1 + failed else "black", font)
            top += size * 5 // 4
    shown = _shown(facts)
    room = (_PAGE[0] - 2 * _MARGIN, max(100, _PAGE[1] - top - 2 * _MARGIN))
    scale = min(room[0] / shown.width, room[1] / shown.height)
    shown = shown.resize((max(1, round(shown.width * scale)), max(1, round(shown.height * scale))))
    page.paste(shown, (_MARGIN, top + _MARGIN // 2))
    target = io.BytesIO()
    epoch = time.gmtime(0)
    page.save(target, "PDF", resolution=150, title="wetread", creationDate=epoch, modDate=epoch)
    return target.getvalue()


def _shown(facts: ResultFacts) -> Image.Image:
    """The first heat map on the film, or the film alone."""
    overlays = list(facts.overlays.values())
    if overlays:
        return Image.fromarray(overlays[0]).convert("RGB")
    if facts.film is None:
        raise UsageError(expected("a film to draw", "none", "read with pictures"))
    return Image.fromarray(facts.film).convert("RGB")


def _said(facts: ResultFacts) -> list[str]:
    refused = [f"Not applicable: {reason}" for reason in facts.read.gate.reasons]
    heat = [f"Heat map of {next(iter(facts.overlays))}: where the reader looked"] if facts.overlays else []
    return [*refused, *(f.answer_line(label) for label in facts.read.labels), *heat]


def _notes(facts: ResultFacts) -> list[str]:
    sizes = [
        f"{one.name} of {one.organ}: {one.value:.3g} {'' if one.unit == '1' else one.unit}".strip()
        for one in facts.read.measures
        if one.value is not None
    ]
    return [*sizes, *(f"Note: {warning}" for warning in facts.read.warnings), f.reader_line(facts.read)]


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def _reference(image: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _concept(code: str, scheme: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning
    return item
