"""What counts as a string of the patient, on paper."""

from __future__ import annotations

import pytest

from tests.deid.support import header
from wetread.deid.identity import Identity, identity_of, looks_personal


@pytest.fixture(scope="module")
def identity() -> Identity:
    data = header(
        PatientName="Müller-Lüdenscheidt^Jörg^Otto=山城川^太郎",
        PatientAddress="Gänsemarkt 12, Umbermoor",
        PatientTelephoneNumbers="040 773 1902",
        AccessionNumber="ACC7000123",
        ReferringPhysicianName="Ng^Abe",
    )
    return identity_of(data)


@pytest.mark.parametrize(
    "text",
    [
        "seen by Mueller? no, by MÜLLER",
        "muller",
        "LuedenscheidtLüdenscheidt",
        "xxLUDENSCHEIDTxx",
        "jorg",
        "Otto.",
        "id 4711-0815",
        "47110815",
        "call 040/7731902",
        "(040) 773-1902",
        "acc7000123",
        "born 4.3.1961",
        "1961-03-04",
        "03/04/1961",
        "04 MAR 1961",
        "山城川",
        "1.2.826.0.1.99.1.1.1",
        "abe",
    ],
)
def test_found(identity: Identity, text: str) -> None:
    assert identity.found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "CHEST PA",
        "",
        "lottoschein",
        "47110",
        "1961",
        "1961-03-05",
        "babel",
        "12 mm",
        "2.25.12345",
        "X 19610304123",
    ],
)
def test_not_found(identity: Identity, text: str) -> None:
    assert not identity.found_in(text)


def test_short_numbers_and_particles_identify_nobody() -> None:
    found = identity_of(header(PatientID="12", PatientName="van der Berghain^Dr", StudyID="1"))
    assert found.words == {"berghain"}
    assert "12" not in found.numbers


def test_a_misread_letter_is_forgiven_in_pixels_alone(identity: Identity) -> None:
    assert not identity.found_in("LUDENSCHE1DT")
    assert identity.near("LUDENSCHE1DT")
    assert not identity.near("LUD3N5CHE1DT")


def test_bytes_in_three_encodings(identity: Identity) -> None:
    for encoding in ("utf-8", "utf-16-le"):
        assert identity.found_in_bytes(b"\1\2" + "GANSEMARKT".encode(encoding) + b"\0")
    assert not identity.found_in_bytes(b"\0\1\2\3" * 100)


def test_numbers_of_sequences_and_names_of_others_count() -> None:
    data = header()
    other = header(PatientID="99887766", PatientName="Quarkwhistle^Ada")
    data.ReferencedPatientSequence = [other]
    assert identity_of(data).found_in("99887766")
    assert identity_of(data).found_in("quarkwhistle")


def test_what_stays_by_option_is_not_looked_for() -> None:
    data = header(StationName="HINTERWALD3")
    assert identity_of(data).found_in("hinterwald3")
    assert not identity_of(data, keep_device=True).found_in("hinterwald3")
    assert identity_of(data).found_in("1.2.826.0.1.99.1")
    assert not identity_of(data, keep_uids=True).found_in("1.2.826.0.1.99.1")


def test_its_own_text_shows_no_name(identity: Identity) -> None:
    assert "ller" not in repr(identity)


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        ("Thorax pa", False),
        ("T1 post contrast 3 mm", False),
        ("Dr Who", True),
        ("seen 3.4.2021", True),
        ("call 040 773 19", True),
        ("a@b.org", True),
        ("Vexhollow^T", True),
    ],
)
def test_texts_that_look_personal(text: str, personal: bool) -> None:
    assert looks_personal(text) == personal
