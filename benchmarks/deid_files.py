"""Files that are full of a made-up patient: in every corner of the header, in private and hidden bytes, in the pixels.

Every string that is planted is listed with the file, so that what is left can be counted by a plain search that shares
no code with the de-identification. The pixels of each text are known too.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, RLELossless

__all__ = ["KINDS", "MODALITIES", "PEOPLE", "Planted", "draw", "plant"]

EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"),
)
JPEG, JPEG_LS, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
MODALITIES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
}


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist. ``given`` and ``family`` are what is looked for, beside the rest."""

    name: str
    family: str
    given: str
    number: str
    born: str
    street: str
    phone: str


PEOPLE = (
    Person(
        *("Quarkwhistle^Ottoline^Maud", "Quarkwhistle", "Ottoline", "8841-77203"),
        *("19340217", "Plumgrove 7", "555 0142 77"),
    ),
    Person(
        *("Zwetschgenmüller^Jörg", "Zwetschgenmüller", "Jörg", "BX7730912"),
        *("19611109", "Gänsemarkt 12", "040 7731 902"),
    ),
    Person(
        *("Vexhollow^Tamsin", "Vexhollow", "Tamsin", "00912377"),
        *("20190523", "Oakenbridge Lane", "07700 912 377"),
    ),
    Person(
        *("Okonjo-Fairbrass^Ikenna", "Fairbrass", "Ikenna", "MRN5550199"),
        *("19480330", "Harrowby Yard", "+1 212 555 0199"),
    ),
    Person(
        *("D'Alembrique^Solenne", "Alembrique", "Solenne", "771-20-9934"),
        *("19770808", "Rue Quincampoix", "01 44 77 20 99"),
    ),
    Person(
        *("Yamashirogawa^Tarou=山城川^太郎=やましろがわ^たろう", "山城川", "Yamashirogawa", "JP-662190"),
        *("19550701", "Nihonbashi 3", "03 6621 9055"),
    ),
    Person(
        *("Nguyen-Brackwater^Linh", "Brackwater", "Linh", "4410029"),
        *("19921214", "Kestrel Row", "0611 441 002"),
    ),
    Person(
        *("Szczepkowski^Bogumil", "Szczepkowski", "Bogumil", "PL9012355"),
        *("19390619", "Plac Wilsona", "22 901 23 55"),
    ),
)
_PHYSICIAN, _INSTITUTION, _OPERATOR = "Thistlewick^Barnabas", "Klinikum Hinterwaldsee", "Pumpernorth^Ada"
KINDS: dict[str, tuple[str, ...]] = {
    "CR": ("explicit", "monochrome1", "implicit", "jpeg-ls", "big endian", "rle", "deflated", "rotated"),
    "CT": ("explicit", "implicit", "rle", "jpeg-ls", "hidden bits", "says NO", "big endian", "j2k"),
    "MR": ("explicit", "implicit", "rle", "hidden bits", "j2k", "says NO", "behind the pixels", "deflated"),
    "US": ("rgb", "frames", "jpeg", "ybr", "rle rgb", "palette", "planar", "jpeg comment"),
    "SC": ("rgb", "explicit", "jpeg", "one bit", "palette", "frames", "j2k rgb", "implicit"),
}
"""What is odd about the files of each modality, in turn."""


@dataclass(frozen=True)
class Planted:
    """One file. ``strings``: every string that must be gone. ``ink``: (rows, columns), True where a letter is drawn."""

    data: bytes
    strings: tuple[str, ...]
    ink: NDArray[np.bool_] | None
    kind: str
    person: str


def plant(modality: str, number: int, size_px: int = 320) -> Planted:
    """Make the ``number``-th file of a modality; the same number gives the same bytes."""
    rng = np.random.default_rng([2026, list(MODALITIES).index(modality), number])
    kinds = KINDS[modality]
    kind, person = kinds[number % len(kinds)], PEOPLE[(number // 3) % len(PEOPLE)]
    dataset = _header(modality, number, person, rng)
    says_no = kind == "says NO"  # the one case in which there is no text and the pixels are not searched
    ink = _pixels(dataset, kind, person, modality, (size_px, rng), drawn=not says_no)
    dataset.BurnedInAnnotation = "NO" if says_no else "YES" if number % 2 else None
    if dataset.BurnedInAnnotation is None:
        del dataset.BurnedInAnnotation
    return Planted(_written(dataset, kind, person), _strings(person, dataset), ink, kind, person.number)


def draw(
    shape: tuple[int, int], lines: list[str], at: tuple[int, int], height_px: int, font: str = "DejaVuSans"
) -> NDArray[np.float32]:
    """Lines of text as coverage 0-1, letters about ``height_px`` pixels high, from the place ``at`` (x, y)."""
    picture = Image.new("L", (shape[1], shape[0]), 0)
    path = Path(get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    letters = ImageFont.truetype(str(path), round(height_px * 1.35))
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((at[0], at[1] + round(1.7 * height_px) * number), line, fill=255, font=letters)
    return np.asarray(picture, np.float32) / np.float32(255)


def _ascii(text: str) -> str:
    return text.translate(str.maketrans("äöüÄÖÜß", "aouAOUs"))


def _strings(person: Person, dataset: Dataset) -> tuple[str, ...]:
    fixed = (person.family, person.given, person.number, person.born, person.street, person.phone)
    others = ("Thistlewick", "Barnabas", "Hinterwaldsee", "Pumpernorth", dataset.AccessionNumber)
    uids = (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID)
    return (*fixed, *others, *map(str, uids))


def _header(modality: str, number: int, person: Person, rng: np.random.Generator) -> Dataset:
    """Every usual attribute that names somebody, and unusual places."""
    study = f"1.2.826.0.1.3680043.77.{int(person.number.encode().hex(), 16) % 10**9}.{number // 4}"
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = MODALITIES[modality], f"{study}.{number}.{sum(map(ord, modality))}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, f"{study}.1", f"{study}.9"
    data.Modality = modality if modality != "SC" else "OT"
    data.PatientName, data.PatientID, data.PatientBirthDate = person.name, person.number, person.born
    data.OtherPatientNames, data.PatientAddress = f"{person.family}^{person.given}^Dr", f"{person.street}, Umbermoor"
    data.PatientTelephoneNumbers, data.PatientMotherBirthName = person.phone, person.family
    data.PatientSex, data.PatientAge = "F", "091Y"
    data.PatientComments = f"daughter of {person.given}, call {person.phone}"
    data.AccessionNumber, data.StudyID = f"ACC{7_000_000 + number * 13 + sum(map(ord, modality))}", f"ST{person.number}"
    data.ReferringPhysicianName, data.OperatorsName = _PHYSICIAN, _OPERATOR
    data.InstitutionName, data.InstitutionAddress = _INSTITUTION, "Seeufer 3, Hinterwaldsee"
    data.StationName, data.DeviceSerialNumber = "HINTERWALDSEE3", "SN99120-77"
    data.StudyDescription = f"{modality} {person.family} control"
    data.SeriesDescription, data.ImageComments = f"for Dr Thistlewick, {person.given}", f"{person.name} {person.born}"
    data.Manufacturer, data.ManufacturerModelName = "ACME", f"Scanner of {_INSTITUTION}"
    day = f"{int(rng.integers(2008, 2024))}{int(rng.integers(1, 13)):02}{int(rng.integers(1, 29)):02}"
    data.StudyDate = data.SeriesDate = data.ContentDate = data.AcquisitionDate = day
    data.AcquisitionDateTime = f"{day}101500.000000"
    data.StudyTime = data.ContentTime = "101500"
    data.InstanceNumber = number
    data.BodyPartExamined = "CHEST"
    _sequences(data, person, study)
    _private(data, person)
    return data


def _sequences(data: Dataset, person: Person, study: str) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "X1", "99ACME", f"Request of {person.family}"
    data.ProcedureCodeSequence = Sequence([code])
    request = Dataset()
    request.RequestedProcedureDescription, request.RequestedProcedureID = f"chest of {person.name}", person.number
    data.RequestAttributesSequence = Sequence([request])
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = person.number, _INSTITUTION
    data.OtherPatientIDsSequence = Sequence([other])
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "X2", "99ACME", f"seen by {_PHYSICIAN}"
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = data.SOPClassUID, f"{study}.0.{len(study)}"
    image.PurposeOfReferenceCodeSequence = Sequence([purpose])
    deep = Dataset()
    deep.PatientName, deep.StudyInstanceUID = person.name, study
    image.add_new(0x00091001, "SQ", Sequence([deep]))
    image.add_new(0x00090010, "LO", "ACME DEEP")
    data.ReferencedImageSequence = Sequence([image])
    original = Dataset()
    original.PatientID, original.PatientName = person.number, person.name
    modified = Dataset()
    modified.ModifiedAttributesSequence = Sequence([original])
    data.OriginalAttributesSequence = Sequence([modified])


def _private(data: Dataset, person: Person) -> None:
    block = data.private_block(0x0029, "ACME HEADER", create=True)
    block.add_new(0x01, "LO", f"{person.family}, {person.given}")
    block.add_new(0x02, "OB", person.name.encode("utf-16-le"))
    block.add_new(0x03, "UN", f"<patient id='{person.number}' born='{person.born}'/> ".encode())
    kept = data.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    kept.add_new(0x0C, "IS", "1000")  # PS3.15 E.3.10 lists it
    named = data.private_block(0x0903, "GEIIS PACS", create=True)
    named.add_new(0x10, "CS", "THISTLEWICK")  # listed too, yet it holds a name here
    data.add_new(0x60000010, "US", 8)
    data.add_new(0x60000011, "US", 8)
    data.add_new(0x60000022, "LO", f"overlay of {person.family}")
    data.add_new(0x60003000, "OW", person.family.encode("utf-8").ljust(64, b"\0"))
    data.add_new(0x50000022, "LO", f"curve of {person.given}")
    data.add_new(0xFFFCFFFC, "OB", person.name.encode("utf-8").ljust(64, b"\0"))


def _pixels(
    data: Dataset, kind: str, person: Person, modality: str, made: tuple[int, np.random.Generator], *, drawn: bool
) -> NDArray[np.bool_] | None:
    """Anatomy-like noise with the text that a scanner would burn in; the letters that were drawn."""
    size, rng = made
    shape = (size, size + 64)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / size
    ground = 0.35 + 0.2 * np.sin(5 * columns + rng.uniform(0, 6)) * np.cos(4 * rows) + rng.normal(0, 0.02, shape)
    lines = [f"{_ascii(person.family if person.family.isascii() or 'ü' in person.family else person.given)}",
             f"{_ascii(person.number)} {person.born[6:]}.{person.born[4:6]}.{person.born[:4]}"]  # fmt: skip
    height = int(rng.integers(10, 17))
    at = (int(rng.integers(4, 40)), int(rng.choice([4, size - 4 * height])))
    font = str(rng.choice(["DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSans-Bold"]))
    cover = draw(shape, lines, at, height, font) if drawn else np.zeros(shape, np.float32)
    if kind == "rotated":
        cover = np.ascontiguousarray(np.rot90(draw((shape[1], shape[0]), lines, at, height, font)))
    ink = float(rng.choice([1.0, 0.9, 0.0])) if modality in ("CR", "SC") else 1.0
    values = np.clip(ground * (1 - cover) + ink * cover, 0, 1)
    _BUILDERS.get(kind, _grey)(data, values, kind, modality)
    data.Rows, data.Columns = shape
    return cover > 0.5 if drawn else None


def _describe(data: Dataset, photometric: str, samples: int, allocated: int, stored: int) -> None:
    data.PhotometricInterpretation, data.SamplesPerPixel = photometric, samples
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = allocated, stored, stored - 1, 0
    if samples == 3:
        data.PlanarConfiguration = 0


def _grey(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    wide = modality in ("CT", "MR", "CR")
    peak = 4095 if wide else 255
    inverted = kind == "monochrome1"
    stored: NDArray[Any] = np.round(peak * (1 - values if inverted else values)).astype("u2" if wide else "u1")
    _describe(data, "MONOCHROME1" if inverted else "MONOCHROME2", 1, 16 if wide else 8, 12 if wide else 8)
    if modality == "CT":
        data.RescaleIntercept, data.RescaleSlope = "-1024", "1"
    if kind == "hidden bits":  # an old overlay in the four bits above the pixels
        stored[: stored.shape[0] // 4] += 0x5000
    data.PixelData = stored.tobytes()


def _rgb_values(values: NDArray[Any]) -> NDArray[np.uint8]:
    tint = np.stack([values, values**1.1, values**1.2], axis=-1)
    return np.round(255 * tint).astype(np.uint8)


def _rgb(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "RGB", 3, 8, 8)
    rgb = _rgb_values(values)
    if kind == "planar":
        data.PlanarConfiguration = 1
        rgb = np.moveaxis(rgb, -1, 0)
    data.PixelData = np.ascontiguousarray(rgb).tobytes()


def _ybr(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "YBR_FULL", 3, 8, 8)
    data.PixelData = np.asarray(Image.fromarray(_rgb_values(values)).convert("YCbCr")).tobytes()


def _palette(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "PALETTE COLOR", 1, 8, 8)
    for colour in ("Red", "Green", "Blue"):
        setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.arange(256)[::-1] * 257).astype("<u2").tobytes()  # the lowest index is the brightest
        setattr(data, f"{colour}PaletteColorLookupTableData", table)
    data.PixelData = np.round(255 * (1 - values)).astype(np.uint8).tobytes()


def _several(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "MONOCHROME2", 1, 8, 8)
    plain = np.round(255 * np.roll(values, values.shape[0] // 3, axis=0)).astype(np.uint8)
    data.NumberOfFrames = 3
    blank = np.full_like(plain, 90)
    data.PixelData = np.stack([blank, np.round(255 * values).astype(np.uint8), plain]).tobytes()


def _one_bit(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "MONOCHROME2", 1, 1, 1)
    raw = np.packbits((values > 0.8).reshape(-1) | (values < 0.05).reshape(-1), bitorder="little").tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)


def _jpeg(data: Dataset, values: NDArray[Any], kind: str, modality: str) -> None:
    _describe(data, "YBR_FULL_422", 3, 8, 8)
    buffer = io.BytesIO()
    comment = b"Thistlewick saw Hinterwaldsee" if kind == "jpeg comment" else b""
    Image.fromarray(_rgb_values(values)).save(buffer, "JPEG", quality=92, subsampling=1, comment=comment)
    data.PixelData = encapsulate([buffer.getvalue()])
    data.LossyImageCompression, data.LossyImageCompressionMethod = "01", "ISO_10918_1"
    data.LossyImageCompressionRatio = "9"


_BUILDERS: dict[str, Callable[[Dataset, NDArray[Any], str, str], None]] = {
    **dict.fromkeys(("rgb", "planar", "rle rgb", "j2k rgb"), _rgb),
    **dict.fromkeys(("jpeg", "jpeg comment"), _jpeg),
    "ybr": _ybr,
    "palette": _palette,
    "frames": _several,
    "one bit": _one_bit,
}
_SYNTAX = {"implicit": IMPLICIT, "big endian": BIG, "deflated": DEFLATED, "jpeg": JPEG, "jpeg comment": JPEG}


def _written(data: Dataset, kind: str, person: Person) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(_SYNTAX.get(kind, EXPLICIT))
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.SourceApplicationEntityTitle = "HINTERWALDSEE"
    meta.PrivateInformationCreatorUID = UID("1.2.3.4")
    meta.PrivateInformation = person.name.encode("utf-8").ljust(64, b"\0")
    data.file_meta = meta
    _encode(data, kind)
    data.preamble = person.family.encode("utf-8").ljust(128, b"\0")
    if kind == "behind the pixels":
        data.PixelData += person.name.encode("utf-8").ljust(64, b"\0")
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _encode(data: Dataset, kind: str) -> None:
    """Compress, or swap bytes, where the kind asks for it."""
    import imagecodecs

    if kind == "big endian" and data.BitsAllocated == 16:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    if kind in ("rle", "rle rgb"):
        data.compress(RLELossless)
    shape = (data.Rows, data.Columns, 3) if data.SamplesPerPixel == 3 else (data.Rows, data.Columns)
    pixels = np.frombuffer(data.PixelData, np.uint16 if data.BitsAllocated == 16 else np.uint8)
    if kind == "jpeg-ls":
        data.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(pixels.reshape(shape)))])
        data.file_meta.TransferSyntaxUID = UID(JPEG_LS)
    if kind in ("j2k", "j2k rgb"):
        stream = imagecodecs.jpeg2k_encode(pixels.reshape(shape), level=0, reversible=True, codecformat="j2k")
        data.PixelData = encapsulate([bytes(stream)])
        data.file_meta.TransferSyntaxUID = UID(J2K)
    if kind == "j2k rgb":
        data.PhotometricInterpretation = "YBR_RCT"
