"""The table and the options of PS3.15, attribute by attribute."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tests.deid.support import KEY, cleaned, header, work_of
from wetread.deid.header import DUMMY, clean_header, patient_of, state_methods
from wetread.deid.profile import basic_profile
from wetread.deid.residual import left_in_header
from wetread.imaging.header import quiet

SHIFT = timedelta(days=KEY.shift_days("4711-0815"))


def test_what_the_basic_profile_says() -> None:
    data = cleaned(
        header(
            StudyDescription="chest",
            ReferringPhysicianName="Ng^A",
            InstitutionName="Hinterwald",
            PatientSex="F",
            PatientAge="063Y",
            DeviceSerialNumber="SN9",
            StudyID="77",
            ProtocolName="thorax",
            OperatorsName="Pumpernorth^Ada",
        )
    )
    assert data.PatientID == data.PatientName == KEY.patient("4711-0815")
    assert {"StudyDescription", "PatientAge"}.isdisjoint(data.dir())
    empty = ("PatientBirthDate", "ReferringPhysicianName", "PatientSex", "StudyID", "InstitutionName", "OperatorsName")
    assert [str(data[keyword].value) for keyword in empty] == [""] * len(empty)
    assert data.ProtocolName == DUMMY
    assert data.Modality == "CR"


def test_every_attribute_of_the_table_loses_its_text() -> None:
    """Each text attribute that the table names, with a canary in it, alone in a data set."""
    from pydicom.datadict import dictionary_VR

    left = []
    for tag in basic_profile():
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            continue
        if vr not in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR"):
            continue
        data = header()
        data.add_new(tag, vr, "canary")
        if "canary" in str(cleaned(data)).lower():
            left.append(f"{tag:08X}")
    assert left == []


def test_uids_change_everywhere_in_the_same_way_and_references_hold() -> None:
    data = header(FrameOfReferenceUID="1.2.826.0.1.99.5", IrradiationEventUID=["1.2.826.0.1.99.7", "1.2.826.0.1.99.8"])
    reference = Dataset()
    reference.ReferencedSOPClassUID = data.SOPClassUID
    reference.ReferencedSOPInstanceUID = data.SOPInstanceUID
    data.ReferencedImageSequence = [reference]
    before = str(data.SOPInstanceUID)
    cleaned(data)
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1"
    assert data.SOPInstanceUID == KEY.uid(before) == data.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert data.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.1"
    assert list(data.IrradiationEventUID) == [KEY.uid("1.2.826.0.1.99.7"), KEY.uid("1.2.826.0.1.99.8")]
    assert all(UID(str(element.value)).is_valid for element in data if element.VR == "UI" and element.VM == 1)


def test_dates_keep_their_distance() -> None:
    with quiet():  # pydicom warns of the month
        data = cleaned(
            header(
                SeriesDate="20240520",
                AcquisitionDateTime="20240506101500.5+0100",
                ContentDate="2024.05.06",
                AcquisitionDate="202405",
                PatientBirthTime="0815",
            )
        )
    day = date(2024, 5, 6) + SHIFT
    assert data.StudyDate == data.ContentDate == f"{day:%Y%m%d}"
    assert data.SeriesDate == f"{day + timedelta(days=14):%Y%m%d}"
    assert data.AcquisitionDateTime == f"{day:%Y%m%d}101500.5+0100"
    assert data.AcquisitionDate == ""  # a month alone cannot be moved by days
    assert data.StudyTime == "101500"
    assert data.get("PatientBirthTime", "") == ""


def test_without_the_option_dates_go() -> None:
    data = cleaned(header(SeriesDate="20240520", ContentDate="20240506"), retain_dates=False)
    assert str(data.StudyDate) == str(data.StudyTime) == ""
    assert data.ContentDate == "19000101"
    assert "2024" not in str(data)


def test_private_attributes_go_but_for_listed_numbers() -> None:
    data = header()
    block = data.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x55, "LO", "Vexhollow")
    data.private_block(0x0029, "ACME", create=True).add_new(0x01, "LO", "anything")
    data.private_block(0x0903, "GEIIS PACS", create=True).add_new(0x10, "CS", "VEXHOLLOW")
    work = work_of(data)
    clean_header(data, work)
    kept = [element for element in data if element.tag.is_private]
    assert [(f"{element.tag:08X}", element.value) for element in kept] == [
        ("00190010", "SIEMENS MR HEADER"),
        ("0019100C", "1000"),
    ]
    assert work.private == 1
    nothing = header()
    nothing.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    cleaned(nothing, retain_private=False)
    assert not [element for element in nothing if element.tag.is_private]


def test_nested_sequences_are_cleaned_to_the_ground() -> None:
    deepest = header()
    deepest.add_new(0x00290010, "LO", "ACME")
    deepest.add_new(0x00291001, "LO", "Vexhollow")
    middle, top = Dataset(), Dataset()
    middle.PurposeOfReferenceCodeSequence = [deepest]
    top.ReferencedImageSequence = [middle]
    data = header()
    data.SourceImageSequence = [top]
    before = work_of(data).identity
    cleaned(data)
    assert data.SourceImageSequence[0].ReferencedImageSequence[0].PurposeOfReferenceCodeSequence[0].Modality == "CR"
    assert left_in_header(data, before) == []


def test_overlays_curves_copies_and_unknown_attributes_go() -> None:
    data = header()
    data.add_new(0x60023000, "OW", b"Vexhollow ")
    data.add_new(0x50040022, "LO", "Vexhollow")
    data.add_new(0xFFFCFFFC, "OB", b"Vexhollow ")
    data.add_new(0x00081999, "LO", "not in the dictionary")
    data.OriginalAttributesSequence = [header()]
    data.IconImageSequence = [header()]
    data.PixelDataProviderURL = "http://vexhollow"
    kept = {element.tag.group for element in cleaned(data)}
    assert kept == {0x0008, 0x0010, 0x0020}
    assert "OriginalAttributesSequence" not in data
    assert 0x00081999 not in data


def test_a_name_in_a_text_that_stays_makes_it_a_dummy() -> None:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "X1", "asked by Tamsin"
    data = header(Manufacturer="ACME for Vexhollow", ManufacturerModelName="Scan 3", BodyPartExamined="CHEST")
    data.ProcedureCodeSequence = [code]
    work = work_of(data)
    clean_header(data, work)
    assert data.Manufacturer == data.ProcedureCodeSequence[0].CodeMeaning == DUMMY
    assert data.ManufacturerModelName == "Scan 3"
    assert work.scrubbed == 2


def test_somebody_named_like_a_body_part_loses_no_body_part() -> None:
    data = header(PatientName="Chest^Axial", BodyPartExamined="CHEST", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    identity = work_of(data).identity
    cleaned(data)
    assert data.BodyPartExamined == "CHEST"
    assert left_in_header(data, identity) == []


@pytest.mark.parametrize(
    ("age", "shown"), [("063Y", "063Y"), ("089Y", "089Y"), ("090Y", "090Y"), ("101Y", "090Y"), ("012M", "012M")]
)
def test_patient_characteristics_stay_if_asked_for_and_the_oldest_are_one_group(age: str, shown: str) -> None:
    given = {"PatientAge": age, "PatientSex": "F", "PatientWeight": "61", "PatientSize": "1.7"}
    data = cleaned(header(**given), retain_patient_characteristics=True)
    assert (data.PatientAge, data.PatientSex, data.PatientWeight) == (shown, "F", 61)


def test_devices_stay_if_asked_for() -> None:
    given = {"StationName": "ROOM3", "DeviceSerialNumber": "SN9912", "DateOfLastCalibration": "20240401"}
    data = cleaned(header(**given), retain_device=True)
    assert (data.StationName, data.DeviceSerialNumber) == ("ROOM3", "SN9912")
    assert data.DateOfLastCalibration == f"{date(2024, 4, 1) + SHIFT:%Y%m%d}"


def test_uids_stay_if_asked_for() -> None:
    assert cleaned(header(), retain_uids=True).SOPInstanceUID == "1.2.826.0.1.99.1.1.1"


@pytest.mark.parametrize(
    ("text", "kept"),
    [("Thorax pa", "Thorax pa"), ("Thorax Vexhollow", DUMMY), ("for Dr Who", DUMMY), ("control of 3.4.2021", DUMMY)],
)
def test_descriptions_stay_where_they_name_nobody(text: str, kept: str) -> None:
    data = cleaned(header(SeriesDescription=text, ImageComments=text), clean_descriptors=True)
    assert data.SeriesDescription == kept
    assert "ImageComments" not in data


def test_a_report_keeps_its_codes_and_numbers_and_loses_its_words() -> None:
    text, number, person = Dataset(), Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "Mrs V. coughs"
    number.ValueType, number.NumericValue = "NUM", "41"
    person.ValueType, person.PersonName = "PNAME", "Ng^Abe"
    data = header(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    text.ContentSequence = [number, person]
    data.ContentSequence = [text]
    work = work_of(data)
    clean_header(data, work)
    outer = data.ContentSequence[0]
    assert outer.TextValue == DUMMY
    assert [item.get("NumericValue") for item in outer.ContentSequence] == ["41", None]
    assert outer.ContentSequence[1].PersonName == DUMMY
    assert "113104" in state_methods(data, work, pixels=False)


def test_the_file_says_what_was_done() -> None:
    data = header()
    work = work_of(data, retain_device=True, clean_descriptors=True)
    clean_header(data, work)
    codes = state_methods(data, work, pixels=True)
    assert codes == ("113100", "113101", "113105", "113107", "113109")
    assert data.PatientIdentityRemoved == "YES"
    assert [(item.CodeValue, item.CodingSchemeDesignator) for item in data.DeidentificationMethodCodeSequence] == [
        (code, "DCM") for code in codes
    ]
    assert data.DeidentificationMethodCodeSequence[0].CodeMeaning == "Basic Application Confidentiality Profile"
    assert (data.LongitudinalTemporalInformationModified, data.BurnedInAnnotation) == ("MODIFIED", "NO")


def test_without_a_patient_id_name_and_birth_decide() -> None:
    one, other = header(PatientID=""), header(PatientID="", StudyInstanceUID="1.2.3")
    assert patient_of(one) == patient_of(other)
    assert patient_of(header(PatientID="", PatientName="")) == patient_of(header(PatientID="", PatientName="^"))
    assert patient_of(header(PatientID="", PatientName="")) != patient_of(other)
    assert patient_of(header(PatientID=" 7 ")) == "7"
