"""Table E.1-1 of PS3.15 as actions: what happens to each attribute.

Decided here: the table is that of dicom-anonymizer (edition 2026c), whose columns hold the Basic Profile alone, so the
tags of the options are listed here. Where the table leaves a choice (X/Z, X/D, Z/D), the one is taken that keeps an
object valid without knowing its module: empty where empty is allowed, else a dummy. What the table does not name is
decided by value representation in :mod:`wetread.deid.header`.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydicom.datadict import tag_for_keyword

from wetread.errors import UsageError, expected

__all__ = ["ALWAYS", "DESCRIPTORS", "DEVICE", "PATIENT", "SAFE_PRIVATE", "Action", "basic_profile"]

Action = Literal["remove", "empty", "dummy", "uid"]


def _tags(text: str) -> frozenset[int]:
    found = {tag_for_keyword(keyword) for keyword in text.split()}
    return frozenset(tag for tag in found if tag is not None)


DEVICE = _tags("""
    StationName DeviceSerialNumber DeviceUID PlateID GeneratorID CassetteID GantryID DetectorID
    DateOfLastCalibration TimeOfLastCalibration DateOfLastDetectorCalibration TimeOfLastDetectorCalibration
    SecondaryCaptureDeviceID HardcopyCreationDeviceID ScheduledStationName ScheduledStationAETitle
    PerformedStationName PerformedStationAETitle UniqueDeviceIdentifier UDISequence XRayDetectorID XRaySourceID
    XRayDetectorLabel SourceSerialNumber LensSerialNumber TreatmentMachineName
""")
"""Retain Device Identity Option, E.3.8: kept as they are."""

PATIENT = _tags("""
    PatientSex PatientAge PatientSize PatientWeight PatientSexNeutered EthnicGroup SmokingStatus PregnancyStatus
""")
"""Retain Patient Characteristics Option, E.3.7: kept; ages above 89 years become 090Y."""

DESCRIPTORS = _tags("""
    StudyDescription SeriesDescription ProtocolName RequestedProcedureDescription PerformedProcedureStepDescription
    ScheduledProcedureStepDescription AcquisitionProtocolDescription AcquisitionDeviceProcessingDescription
    ContrastBolusAgent
""")
"""Clean Descriptors Option, E.3.5: kept where nothing identifying is in them. Other free text goes all the same."""

_GO = _tags("""
    IconImageSequence DigitalSignaturesSequence OriginalAttributesSequence EncryptedAttributesSequence
    ReferencedPatientSequence SourceApplicationEntityTitle PixelDataProviderURL PersonIdentificationCodeSequence
    GraphicAnnotationSequence FlowIdentifierSequence ReferencedRawDataSequence
""")
_BLANK = _tags("PatientBirthDate PatientBirthTime StudyID ReferringPhysicianName")
ALWAYS: dict[int, Action] = {**dict.fromkeys(_GO, "remove"), **dict.fromkeys(_BLANK, "empty")}
"""What no option changes: copies of the original inside the file, names, the day of birth."""

# Table E.3.10-1, as far as the values are numbers or coded: (creator, group) -> elements without their block.
SAFE_PRIVATE: dict[tuple[str, int], frozenset[int]] = {
    ("Philips PET Private Group", 0x7053): frozenset({0x00, 0x09}),
    ("Philips Imaging DD 001", 0x2001): frozenset({0x03, 0x04}),
    ("Philips MR Imaging DD 001", 0x2005): frozenset({0x0D, 0x0E}),
    ("ELSCINT1", 0x00E1): frozenset({0x21}),
    ("ELSCINT1", 0x01E1): frozenset({0x26, 0x50}),
    ("ELSCINT1", 0x01F1): frozenset({0x01, 0x07, 0x26, 0x27}),
    ("GEMS_ACQU_01", 0x0019): frozenset({0x23, 0x24, 0x27}),
    ("GEMS_HELIOS_01", 0x0045): frozenset({0x01, 0x02}),
    ("GEMS_PARM_01", 0x0043): frozenset({0x27, 0x39, 0x6F}),
    ("GEMS_SERS_01", 0x0025): frozenset({0x07}),
    ("GEIIS PACS", 0x0903): frozenset({0x10, 0x11, 0x12}),
    ("SIEMENS MR HEADER", 0x0019): frozenset({0x0C, 0x0D, 0x0E, 0x27}),
}

_LISTS: tuple[tuple[str, Action], ...] = (
    ("D_TAGS", "dummy"),
    ("Z_TAGS", "empty"),
    ("X_TAGS", "remove"),
    ("U_TAGS", "uid"),
    ("Z_D_TAGS", "dummy"),
    ("X_Z_TAGS", "empty"),
    ("X_D_TAGS", "dummy"),
    ("X_Z_D_TAGS", "empty"),
)
# X/Z/U*: sequences of references to images. They stay, and the UIDs in them change like all others.


@cache
def basic_profile() -> dict[int, Action]:
    """Tag -> action of the Basic Profile; repeating groups (curves, overlays) are not in it.

    Raises:
        UsageError: dicom-anonymizer is not installed.
    """
    try:
        from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
    except ImportError:
        cure = "install it: pip install 'wetread[deid]'"
        raise UsageError(expected("the table of PS3.15 E.1-1", "no package dicom-anonymizer", cure)) from None
    actions: dict[int, Action] = {}
    for name, action in _LISTS:
        for entry in getattr(table, name):
            if len(entry) == 2:
                actions[entry[0] << 16 | entry[1]] = action
    return actions | ALWAYS
