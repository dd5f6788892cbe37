"""DICOM SEG of a radiograph: exact masks, the references, stable UIDs, validators, and refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from wetread.datasets.masks import read_dicom_seg
from wetread.datasets.phantoms import Phantom, PhantomSpec, render, write_dicom
from wetread.errors import ImageRefused, InputRefused, UnsupportedImage, UsageError
from wetread.pacs.segmentation import SEGMENT_NAMES, SegmentationFile, write_segmentation

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return render(PhantomSpec(seed=17, size_px=98))  # 98 x 98 bits are no whole number of bytes


@pytest.fixture
def film(phantom: Phantom, tmp_path: Path) -> Path:
    return write_dicom(phantom, tmp_path / "film.dcm")


@pytest.fixture
def masks(phantom: Phantom) -> dict[str, Mask]:
    return {
        "lungs": phantom.lung_left | phantom.lung_right,
        "lung_left": phantom.lung_left,
        "lung_right": phantom.lung_right,
        "heart": phantom.heart,
    }


def write(film: Path, masks: dict[str, Mask], **changes: Any) -> SegmentationFile:
    options: dict[str, Any] = {"algorithm": "unet-organs", "version": "1.0"} | changes
    return write_segmentation(film, masks, film.with_name("seg.dcm"), **options)


def change(film: Path, **elements: Any) -> None:
    """Set elements of a film by keyword; None removes one. Wrong values are written as they are."""
    data = pydicom.dcmread(film)
    with pydicom.config.disable_value_validation():
        for keyword, value in elements.items():
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)
        data.save_as(film)


class TestRoundTrip:
    def test_every_mask_comes_back_exactly(self, film: Path, masks: dict[str, Mask]) -> None:
        made = write(film, masks)
        assert made.segments == tuple(masks) == SEGMENT_NAMES
        assert made.omitted == ()
        source = pydicom.dcmread(film)
        for organ, mask in masks.items():
            uids = {"series_uid": source.SeriesInstanceUID, "instance_uid": source.SOPInstanceUID}
            assert np.array_equal(read_dicom_seg(made.path, 98, 98, organ=organ, **uids), mask)

    def test_other_readers_see_the_same(self, film: Path, masks: dict[str, Mask]) -> None:
        path = write(film, masks).path
        seg = segread(path)
        assert seg.segment_numbers == [1, 2, 3, 4]
        frames = pydicom.dcmread(path).pixel_array
        assert np.array_equal(frames.astype(bool), np.stack(list(masks.values())))

    def test_codes_label_and_algorithm(self, film: Path, masks: dict[str, Mask]) -> None:
        seg = segread(write(film, masks, confidence={"heart": 0.87654}).path)
        right, heart = seg.get_segment_description(3), seg.get_segment_description(4)
        assert right.segment_label == "Right lung"
        assert right.segmented_property_type.value == "39607008"
        kind = right.SegmentedPropertyTypeCodeSequence[0]
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
        assert heart.segmented_property_type.scheme_designator == "SCT"
        assert heart.segmented_property_type.value == "80891009"
        assert heart.algorithm_type.value == "AUTOMATIC"
        assert heart.algorithm_identification is not None
        assert (heart.algorithm_identification.name, heart.algorithm_identification.version) == ("unet-organs", "1.0")
        assert heart.SegmentDescription == "confidence 0.877 (0-1), research use only"
        assert "SegmentDescription" not in right

    def test_empty_mask_is_left_out_and_reported(self, film: Path, masks: dict[str, Mask]) -> None:
        made = write(film, {"heart": np.zeros((98, 98), np.bool_), "lungs": masks["lungs"]})
        assert (made.segments, made.omitted) == (("lungs",), ("heart",))
        assert [d.segment_label for d in segread(made.path).SegmentSequence] == ["Lungs"]


class TestHeader:
    def test_belongs_to_study_and_references_the_film(self, film: Path, masks: dict[str, Mask]) -> None:
        made = write(film, masks)
        source, seg = pydicom.dcmread(film), pydicom.dcmread(made.path)
        assert seg.StudyInstanceUID == source.StudyInstanceUID
        assert seg.SeriesInstanceUID == made.series_instance_uid != source.SeriesInstanceUID
        assert seg.SOPInstanceUID == seg.file_meta.MediaStorageSOPInstanceUID == made.sop_instance_uid
        assert (seg.PatientID, seg.PatientName, seg.Modality) == (source.PatientID, source.PatientName, "SEG")
        assert seg.BodyPartExamined == "CHEST"
        assert seg.SeriesDescription == "Organ masks unet-organs 1.0"
        (series,) = seg.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        assert [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence] == [source.SOPInstanceUID]
        for frame in seg.PerFrameFunctionalGroupsSequence:
            referenced = frame.DerivationImageSequence[0].SourceImageSequence[0]
            assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert referenced.ReferencedSOPClassUID == source.SOPClassUID

    @pytest.mark.parametrize("named", [False, True])
    def test_no_place_in_the_patient_is_claimed(self, named: bool, film: Path, masks: dict[str, Mask]) -> None:
        if named:
            change(film, FrameOfReferenceUID="1.2.3.4")
        seg = pydicom.dcmread(write(film, masks).path)
        assert "FrameOfReferenceUID" not in seg
        assert seg.PatientOrientation == ["L", "F"]
        for group in [*seg.PerFrameFunctionalGroupsSequence, *seg.SharedFunctionalGroupsSequence]:
            for macro in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
                assert macro not in group

    def test_again_the_same_but_for_the_time(self, film: Path, masks: dict[str, Mask]) -> None:
        first, second = (pydicom.dcmread(write(film, masks).path) for _ in range(2))
        for seg in (first, second):
            for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"):
                delattr(seg, keyword)
            del seg.ContributingEquipmentSequence[1].ContributionDateTime
        assert first == second

    def test_uids_follow_from_image_algorithm_and_masks(self, film: Path, masks: dict[str, Mask]) -> None:
        first = write(film, masks)
        other_mask, other_version = write(film, masks | {"heart": masks["lungs"]}), write(film, masks, version="1.1")
        assert other_mask.sop_instance_uid != first.sop_instance_uid
        assert other_mask.series_instance_uid == first.series_instance_uid
        assert other_version.sop_instance_uid != first.sop_instance_uid
        assert other_version.series_instance_uid != first.series_instance_uid
        change(film, SOPInstanceUID="1.2.3.4")
        assert write(film, masks).sop_instance_uid != first.sop_instance_uid

    def test_missing_and_wrong_elements_of_the_film_are_left_empty(self, film: Path, masks: dict[str, Mask]) -> None:
        missing = dict.fromkeys(("AccessionNumber", "StudyID", "PatientBirthDate", "PatientName", "PatientOrientation"))
        change(film, StudyDate="2020-13-99", StudyTime="99:99", PatientSex="X", **missing)
        seg = pydicom.dcmread(write(film, masks).path)
        assert not seg.StudyDate
        assert not seg.StudyTime
        assert not seg.PatientSex
        assert "PatientOrientation" in seg

    def test_character_set_with_code_extensions(self, film: Path, masks: dict[str, Mask]) -> None:
        change(film, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Phantom^A=山田^太郎")
        seg = pydicom.dcmread(write(film, masks).path)
        assert str(seg.PatientName) == "Phantom^A=山田^太郎"

    def test_compressed_film(self, film: Path, masks: dict[str, Mask]) -> None:
        data = pydicom.dcmread(film)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(film)
        assert write(film, masks).segments == SEGMENT_NAMES


class TestValidators:
    @pytest.mark.parametrize(
        "elements", [{}, {"Laterality": "L"}, {"BodyPartExamined": None, "PatientOrientation": None}]
    )
    def test_dciodvfy_finds_no_error(self, elements: dict[str, Any], film: Path, masks: dict[str, Mask]) -> None:
        if shutil.which("dciodvfy") is None:
            pytest.skip("no dciodvfy: apt-get install dicom3tools")
        change(film, **elements)
        path = write(film, masks, confidence={"lungs": 0.5}).path
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert "Error" not in said.stdout + said.stderr
        assert "Segmentation" in said.stdout + said.stderr

    def test_dcmdump_reads_it(self, film: Path, masks: dict[str, Mask]) -> None:
        if shutil.which("dcmdump") is None:
            pytest.skip("no dcmdump: apt-get install dcmtk")
        path = str(write(film, masks).path)
        said = subprocess.run(["dcmdump", path], capture_output=True, text=True, timeout=60, check=True)
        assert "=SegmentationStorage" in said.stdout
        assert said.stderr == ""


class TestRefusals:
    def test_no_mask(self, film: Path) -> None:
        with pytest.raises(InputRefused, match=r"at least one mask, got none; segment the image"):
            write(film, {})

    def test_only_empty_masks(self, film: Path) -> None:
        with pytest.raises(InputRefused, match=r"a mask with pixels, got only empty masks: heart, lungs"):
            write(film, {organ: np.zeros((98, 98), np.bool_) for organ in ("heart", "lungs")})
        assert not film.with_name("seg.dcm").exists()

    def test_another_size(self, film: Path, masks: dict[str, Mask]) -> None:
        with pytest.raises(InputRefused, match=r"98 x 98 \(rows x columns\), got 98 x 97 for heart; .* not resized"):
            write(film, masks | {"heart": masks["heart"][:, 1:]})

    def test_not_bool(self, film: Path, masks: dict[str, Mask]) -> None:
        grey: Any = masks["heart"].astype(np.float32)
        with pytest.raises(InputRefused, match=r"masks of bool, got float32 for heart"):
            write(film, {"heart": grey})

    def test_unknown_organ(self, film: Path, masks: dict[str, Mask]) -> None:
        with pytest.raises(InputRefused, match=r"among lungs, lung_left, lung_right, heart, got 'spleen'"):
            write(film, {"spleen": masks["heart"]})

    @pytest.mark.parametrize("name", ["", "  ", "a" * 65, "a\\b", "line\nbreak", "modèle"])
    def test_name_that_dicom_cannot_hold(self, name: str, film: Path, masks: dict[str, Mask]) -> None:
        with pytest.raises(UsageError, match=r"a plain algorithm of 1-64 ASCII characters"):
            write(film, masks, algorithm=name)
        with pytest.raises(UsageError, match=r"a plain version of 1-64 ASCII characters"):
            write(film, masks, version=name)

    @pytest.mark.parametrize("wrong", [{"heart": 1.01}, {"heart": float("nan")}, {"spleen": 0.5}])
    def test_confidence(self, wrong: dict[str, float], film: Path, masks: dict[str, Mask]) -> None:
        with pytest.raises(UsageError, match=r"a confidence of 0-1 for organs that have a mask"):
            write(film, masks, confidence=wrong)

    def test_source_that_is_no_dicom(self, tmp_path: Path, masks: dict[str, Mask]) -> None:
        other = tmp_path / "film.txt"
        other.write_text("not an image")
        with pytest.raises(ImageRefused, match=r"a DICOM image, got .*film\.txt; a SEG belongs to a DICOM study"):
            write(other, masks)
        with pytest.raises(ImageRefused, match=r"no such file: film\.dcm"):
            write(tmp_path / "film.dcm", masks)

    def test_source_without_uids(self, film: Path, masks: dict[str, Mask]) -> None:
        change(film, StudyInstanceUID=None)
        with pytest.raises(ImageRefused, match=r"got none of StudyInstanceUID in film\.dcm"):
            write(film, masks)

    def test_source_of_several_frames(self, film: Path, masks: dict[str, Mask]) -> None:
        change(film, NumberOfFrames=2)
        with pytest.raises(UnsupportedImage, match=r"a radiograph of one frame, got 2 in film\.dcm"):
            write(film, masks)

    def test_header_that_breaks_rules_is_not_quoted(self, film: Path, masks: dict[str, Mask]) -> None:
        change(film, SOPClassUID="1.2.3", SeriesDescription="Geheim")
        with pytest.raises(ImageRefused, match=r"to derive a SEG from, got one that breaks rules: film") as refused:
            write(film, masks)
        assert "Geheim" not in str(refused.value)
