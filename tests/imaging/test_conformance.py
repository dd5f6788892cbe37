from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.imaging.dicoms import gradient, lut_item, write_dicom
from wetread.errors import ImageRefused
from wetread.imaging import load_image
from wetread.imaging.conformance import Conformance, conformance, examine


def test_record_says_what_the_file_declares(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path, gradient(), BitsStored=12, WindowCenter=[2048, 9], WindowWidth=[4096, 90], RescaleSlope=2,
        RescaleIntercept=-5, VOILUTFunction="SIGMOID", PixelPaddingValue=4095, ImagerPixelSpacing=[0.1, 0.2],
        VOILUTSequence=[lut_item(list(range(0, 65536, 16)), 3, 16)], PresentationLUTShape="IDENTITY",
    )  # fmt: skip
    record = conformance(path)
    assert (record.bits_allocated, record.bits_stored, record.high_bit, record.signed) == (16, 12, 11, False)
    assert (record.photometric_interpretation, record.presentation_lut_shape) == ("MONOCHROME2", "IDENTITY")
    assert record.transfer_syntax == "Explicit VR Little Endian"
    assert record.rescale == (2.0, -5.0)
    assert [(window.centre, window.width) for window in record.windows] == [(2048, 4096), (9, 90)]
    assert [(lut.kind, lut.entries, lut.first, lut.bits) for lut in record.luts] == [("voi", 4096, 3, 16)]
    assert (record.voi_lut_function, record.padding, record.overlays) == ("SIGMOID", (4095, 4095), 0)
    assert (record.spacing_mm, record.spacing_source) == ((0.1, 0.2), "Imager Pixel Spacing")
    assert record.stored_range == (0.0, 4095.0)
    assert [step.name for step in record.applied] == ["decode", "pixel padding", "rescale", "voi lut"]
    assert record.ambiguities == ()
    assert Conformance.model_validate_json(record.model_dump_json()) == record


def test_ambiguities_stand_apart_from_warnings(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path, gradient(), BitsStored=10, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY",
        ImagerPixelSpacing=[1, 1],
    )  # fmt: skip
    record = conformance(path)
    assert len(record.ambiguities) == 2
    assert "bits set outside Bits Stored 10" in record.ambiguities[0]
    assert "IDENTITY contradicts MONOCHROME1" in record.ambiguities[1]
    assert len(record.warnings) == 1
    assert not [text for text in record.warnings if "ambiguous" in text]


def test_missing_photometric_interpretation_is_ambiguous(tmp_path: Path) -> None:
    record = conformance(write_dicom(tmp_path, gradient(), BitsStored=12, PhotometricInterpretation=None))
    assert record.photometric_interpretation is None
    assert record.ambiguities == ("no Photometric Interpretation: read as MONOCHROME2",)


def test_pictures_before_and_after(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path, gradient(), BitsStored=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=99
    )
    found = examine(path)
    np.testing.assert_array_equal(found.before, np.rint(gradient() / 4095 * 255))
    np.testing.assert_array_equal(found.image.pixels, load_image(path).pixels)


def test_constant_frame_has_a_black_picture(tmp_path: Path) -> None:
    assert not examine(write_dicom(tmp_path, np.full((20, 20), 9, np.uint16))).before.any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_raster_file(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.png"
    gray = gradient(peak=255).astype(np.uint8)
    Pillow.fromarray(gray).convert(mode).save(path)
    found = examine(path)
    assert (found.record.format, found.record.bits_stored, found.record.photometric_interpretation) == ("PNG", 8, mode)
    assert found.record.samples == len(mode)
    assert found.record.stored_range == (0.0, 255.0)
    np.testing.assert_array_equal(found.before, gray)


def test_refused_file_is_refused_here_too(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"text")
    with pytest.raises(ImageRefused, match=r"got a text file: x.dcm"):
        conformance(tmp_path / "x.dcm")
