from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from tests.imaging.dicoms import BIG_ENDIAN, DEFLATED, dicom_bytes, gradient, lut_item, write_dicom
from wetread.errors import ImageRefused, OverBudget, UnsupportedImage
from wetread.imaging import load_image
from wetread.imaging.dicom import load_dicom
from wetread.types import Image, Step

_BUDGET = 16 << 20


def _load(pixels: NDArray[Any] | None = None, **options: Any) -> Image:
    return load_dicom(dicom_bytes(gradient() if pixels is None else pixels, **options), "image.dcm", _BUDGET)


def _step(image: Image, name: str) -> Step:
    return next(step for step in image.applied if step.name == name)


def _names(image: Image) -> list[str]:
    return [step.name for step in image.applied]


def _ambiguities(image: Image) -> list[str]:
    return [text for text in image.facts.warnings if text.startswith("ambiguous:")]


# --- grayscale pipeline


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_rescale_and_window_agree_with_pydicom(function: str, photometric: str, signed: bool) -> None:
    pixels = gradient().astype(np.int16) - 2000 if signed else gradient()
    data = dicom_bytes(
        pixels, BitsStored=16 if signed else 12, PhotometricInterpretation=photometric, WindowCenter=900,
        WindowWidth=1500, VOILUTFunction=function, RescaleSlope=0.5, RescaleIntercept=-100,
    )  # fmt: skip
    dataset = pydicom.dcmread(io.BytesIO(data))
    theirs = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    bits, low = dataset.BitsStored, -(1 << 15) if signed else 0
    floor, span = low * 0.5 - 100, ((1 << bits) - 1) * 0.5
    expected = (theirs - floor) / span
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    image = load_dicom(data, "image.dcm", _BUDGET)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert _step(image, "voi window").detail == {"centre": 900.0, "width": 1500.0, "function": function}
    assert _names(image) == ["decode", "rescale", "voi window"] + ["inversion"] * (photometric == "MONOCHROME1")


@pytest.mark.parametrize("name", ["MR_small.dcm", "examples_overlay.dcm", "693_J2KI.dcm"])
def test_pydicoms_files_look_as_pydicom_shows_them(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    image, dataset = load_image(path), pydicom.dcmread(path)
    theirs = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    kept = image.pixels[(image.pixels > 0) & (image.pixels < 1)]
    wanted = theirs[(image.pixels > 0) & (image.pixels < 1)]
    assert kept.size > 100
    # pydicom maps to the range of the stored type, we to [0, 1]: the two differ by one straight line.
    slope, intercept = np.polyfit(kept.astype(np.float64), wanted, 1)
    np.testing.assert_allclose(kept * slope + intercept, wanted, atol=1e-6 * slope)


def test_monochrome1_shows_its_lowest_value_white() -> None:
    image = _load(BitsStored=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=4096)
    assert image.pixels[0, 0] == 1
    assert image.pixels[-1, -1] == 0


def test_pixels_are_float32_in_range_with_facts() -> None:
    image = _load(BitsStored=12)
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape == (32, 48) == (image.facts.rows, image.facts.columns)
    assert image.pixels.min() == 0
    assert image.pixels.max() == 1
    assert image.pixels.flags["C_CONTIGUOUS"]


def test_modality_lut_then_voi_lut() -> None:
    pixels = np.tile(np.arange(32, dtype=np.uint16), (32, 1))
    image = _load(
        pixels,
        ModalityLUTSequence=[lut_item([100 + 2 * v for v in range(32)], 0, 16)],
        VOILUTSequence=[lut_item([8 * v for v in range(128)], 100, 10)],
    )
    # value v -> 100 + 2 v -> entry 2 v of the VOI LUT = 16 v of 1023
    np.testing.assert_allclose(image.pixels[0], 16 * np.arange(32) / 1023, atol=1e-6)
    assert _names(image) == ["decode", "modality lut", "voi lut"]
    assert _step(image, "voi lut").detail == {"entries": 128, "first": 100, "bits": 10}


def test_voi_lut_goes_before_windows_and_names_them() -> None:
    item = lut_item(list(range(0, 65536, 16)), 0, 16)
    image = _load(BitsStored=12, VOILUTSequence=[item, item], WindowCenter=10, WindowWidth=20)
    np.testing.assert_allclose(image.pixels, gradient() * 16 / 65535, atol=1e-6)
    assert "not used, of what the file offers to be seen with: 10/20, VOI LUT" in image.facts.warnings


def test_8_bit_lut_packed_two_to_a_word() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = _load(pixels, VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels, (255 - pixels) / 255, atol=1e-6)


def test_voi_lut_with_65536_entries_declared_as_0() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", np.arange(65536, dtype="<u2").tobytes())
    image = _load(gradient(peak=65535), VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels, gradient(peak=65535) / 65535, atol=1e-6)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (lut_item([5000] * 10, 0, 12), "VOI LUT holds values beyond its 12 bits: 13 bits were used"),
        (lut_item(list(range(4096)), 0, 16), "VOI LUT uses 12 of its 16 bits: shown as declared"),
        (lut_item(list(range(4096)), 0, 40), "a LUT declares 40 bits: taken as 16"),
        (Dataset(), "a LUT without usable descriptor or data was left out"),
    ],
)
def test_contradictory_lut_is_ambiguous(item: Dataset, message: str) -> None:
    assert f"ambiguous: {message}" in _load(BitsStored=12, VOILUTSequence=[item]).facts.warnings


def test_of_several_windows_the_first_is_used_and_the_others_named() -> None:
    image = _load(
        BitsStored=12, WindowCenter=[2048, 100], WindowWidth=[4096, 50], WindowCenterWidthExplanation=["NORMAL", "HARD"]
    )
    assert _step(image, "voi window").detail["centre"] == 2048
    assert image.facts.warnings == ("not used, of what the file offers to be seen with: 100/50 HARD",)


def test_without_window_a_percentile_window_is_recorded() -> None:
    pixels = np.full((40, 50), 1000, np.uint16)
    pixels[:, 25:] = 2000
    pixels[0, :5] = 0  # 5 of 2000 pixels: 0.25 %
    pixels[0, -5:] = 4095
    image = _load(pixels, BitsStored=12)
    detail = _step(image, "percentile window").detail
    assert (detail["low"], detail["high"], detail["percentiles"]) == (1000, 2000, [0.5, 99.5])
    np.testing.assert_array_equal(image.pixels, np.clip((pixels.astype(float) - 1000) / 1000, 0, 1))


def test_impossible_window_falls_back_and_says_so() -> None:
    image = _load(BitsStored=12, WindowCenter=100, WindowWidth=0)
    assert "percentile window" in _names(image)
    assert _ambiguities(image) == ["ambiguous: 1 windows with an impossible width were left out"]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"WindowCenter": [1, 2], "WindowWidth": 3000}, "2 window centres with 1 widths: paired from the first on"),
        ({"WindowCenter": 9000, "WindowWidth": 10}, "the file's window or LUT shows every pixel alike"),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 9, "WindowWidth": 90}, "unknown VOI LUT Function: LINEAR"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "Rescale Slope 0.0 with Rescale Intercept 5.0: no rescale"),
        ({"RescaleSlope": 2}, "Rescale Slope 2.0 with Rescale Intercept None: no rescale was used"),
        ({"PresentationLUTShape": "INVERSE"}, "Presentation LUT Shape INVERSE contradicts MONOCHROME2"),
        ({"PhotometricInterpretation": None}, "no Photometric Interpretation: read as MONOCHROME2"),
        ({"BitsStored": 20}, "Bits Stored is 20 with Bits Allocated 16: all bits were used"),
        ({"BitsStored": 12, "HighBit": 7}, "High Bit is 7 with Bits Stored 12: the lowest bits were used"),
        ({"BitsStored": 10}, "pixels have bits set outside Bits Stored 10, High Bit 9: those bits were cut off"),
        ({"PixelSpacing": [0, 1]}, "Pixel Spacing is not two numbers above 0: left out"),
    ],
)  # fmt: skip
def test_contradictions_are_recorded_as_ambiguous(elements: dict[str, Any], message: str) -> None:
    image = _load(**({"BitsStored": 12} | elements))
    assert [text for text in _ambiguities(image) if text.startswith(f"ambiguous: {message}")]


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_matching_presentation_lut_shape_is_not_ambiguous(photometric: str, shape: str) -> None:
    image = _load(BitsStored=12, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert _ambiguities(image) == []


# --- bits, padding, overlays


def test_left_aligned_values_are_shifted_down() -> None:
    image = _load(gradient() << 4, BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(image.pixels, gradient() / 4095, atol=1e-6)
    assert _step(image, "bits").detail == {"allocated": 16, "stored": 12, "high": 15, "signed": False}
    assert _ambiguities(image) == ["ambiguous: High Bit is 15 with Bits Stored 12: taken at its word"]


def test_signed_12_bit_values_without_sign_extension() -> None:
    values = gradient().astype(np.int32) - 2048
    words = (values & 0xFFF).astype(np.uint16)
    image = _load(words, BitsStored=12, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_allclose(image.pixels, (values + 2048) / 4095, atol=1e-6)
    assert _ambiguities(image) == []


def test_overlay_in_unused_bits_is_removed_and_named() -> None:
    pixels = gradient()
    pixels[3:6] |= 1 << 15
    data = dicom_bytes(pixels, BitsStored=12, WindowCenter=2048, WindowWidth=4096, **_overlay(with_data=False))
    image = load_dicom(data, "image.dcm", _BUDGET)
    np.testing.assert_allclose(image.pixels, gradient() / 4095, atol=1e-6)
    assert "overlay planes ignored: 1, 1 of them in unused pixel bits" in image.facts.warnings
    assert _ambiguities(image) == []


def test_overlay_plane_is_ignored_and_named() -> None:
    image = _load(BitsStored=12, **_overlay(with_data=True))
    assert "overlay planes ignored: 1" in image.facts.warnings


def _overlay(*, with_data: bool) -> dict[str, Any]:
    dataset = Dataset()
    dataset.add_new(0x60000010, "US", 32)
    dataset.add_new(0x60000011, "US", 48)
    dataset.add_new(0x60000102, "US", 0 if with_data else 15)
    if with_data:
        dataset.add_new(0x60003000, "OW", bytes(32 * 48 // 8))
    return {"extra": dataset}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_left_out_of_the_percentiles(photometric: str) -> None:
    pixels = gradient(peak=1000) + 100
    pixels[:8] = 4000
    image = _load(pixels, BitsStored=12, PixelPaddingValue=4000, PhotometricInterpretation=photometric)
    assert not image.pixels[:8].any()
    assert _step(image, "percentile window").detail["high"] <= 1100
    assert _step(image, "pixel padding").detail == {"low": 4000, "high": 4000, "share": 0.25, "shown_as": 0.0}


def test_padding_range_and_padding_outside_bits_stored() -> None:
    pixels = gradient(peak=1000) + 100
    pixels[0], pixels[1] = 10, 30
    image = _load(pixels, BitsStored=12, PixelPaddingValue=10, PixelPaddingRangeLimit=30)
    assert not image.pixels[:2].any()
    pixels[:2] = 63536  # -2000 as an unsigned word, a common filler
    image = _load(pixels, BitsStored=12, PixelPaddingValue=63536)
    assert not image.pixels[:2].any()
    assert _ambiguities(image) == []


def test_a_frame_of_padding_only_is_black_and_says_so() -> None:
    image = _load(np.full((20, 20), 7, np.uint16), PixelPaddingValue=7)
    assert not image.pixels.any()
    assert "every pixel is padding" in image.facts.warnings


@pytest.mark.parametrize("value", [0, 1234])
def test_constant_frame_loads_with_a_warning(value: int) -> None:
    image = _load(np.full((20, 20), value, np.uint16), BitsStored=12)
    assert not image.pixels.any()
    assert "constant image: every pixel has the same value" in image.facts.warnings


# --- facts


def test_facts_come_from_the_header() -> None:
    image = _load(
        BitsStored=12, Modality="DX", BodyPartExamined="CHEST", ViewPosition="PA", ImageLaterality="U",
        PatientSex="F", PatientAge="006M", Manufacturer="Maker", BurnedInAnnotation="NO",
        PixelSpacing=[0.15, 0.2], ImagerPixelSpacing=[0.3, 0.3],
    )  # fmt: skip
    facts = image.facts
    assert (facts.format, facts.modality, facts.body_part, facts.view) == ("DICOM", "DX", "CHEST", "PA")
    assert (facts.laterality, facts.sex, facts.age_years) == ("U", "F", 0.5)
    assert (facts.spacing_mm, facts.patient) == ((0.15, 0.2), "secret-id")
    assert facts.burned_in_annotation is False
    assert (facts.bits, facts.photometric_interpretation, facts.manufacturer) == (12, "MONOCHROME2", "Maker")
    assert facts.study_uid != facts.series_uid != facts.instance_uid
    assert facts.warnings == ()


def test_imager_pixel_spacing_is_the_second_choice_and_named() -> None:
    image = _load(BitsStored=12, ImagerPixelSpacing=[0.1, 0.1])
    assert image.facts.spacing_mm == (0.1, 0.1)
    assert [text for text in image.facts.warnings if text.startswith("spacing is Imager Pixel Spacing")]


def test_absent_facts_are_none() -> None:
    facts = _load(BitsStored=12).facts
    assert (facts.spacing_mm, facts.body_part, facts.view, facts.sex, facts.age_years) == (None,) * 5
    assert facts.burned_in_annotation is None


@pytest.mark.parametrize(
    ("text", "years"), [("045Y", 45.0), ("018M", 1.5), ("010D", 0.027), ("026W", 0.498), ("45", None), ("Y", None)]
)
def test_age_string(text: str, years: float | None) -> None:
    from wetread.imaging.facts import age_years

    assert age_years(text) == years


def test_enhanced_single_frame_takes_window_and_spacing_from_functional_groups() -> None:
    window, measures, shared = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 2048, 4096
    measures.PixelSpacing = [0.1, 0.2]
    shared.FrameVOILUTSequence, shared.PixelMeasuresSequence = [window], [measures]
    image = _load(BitsStored=12, NumberOfFrames=1, SharedFunctionalGroupsSequence=[shared])
    np.testing.assert_allclose(image.pixels, gradient() / 4095, atol=1e-6)
    assert image.facts.spacing_mm == (0.1, 0.2)


def test_unreadable_element_counts_as_absent_and_its_value_stays_unsaid(caplog: pytest.LogCaptureFixture) -> None:
    data = dicom_bytes(gradient(), BitsStored=12, RescaleSlope="1", RescaleIntercept="0")
    broken = data.replace(b"DS\x02\x001 ", b"DS\x02\x00xy")
    assert broken != data
    image = load_dicom(broken, "image.dcm", _BUDGET)
    said = " ".join(image.facts.warnings) + caplog.text
    assert "header element RescaleSlope" in said
    assert "xy" not in said


# --- colour


def test_colour_dicom_is_luminance_with_its_share_of_colour() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    pixels[:, 10:] = 100
    image = _load(pixels)
    np.testing.assert_allclose(image.pixels[0, [0, 39]], [0.299, 100 / 255], atol=1e-6)
    assert image.facts.colour == pytest.approx(0.25)
    assert "colour image (RGB) shown as its luminance" in image.facts.warnings
    assert _step(image, "luminance").detail["coloured_share"] == 0.25


def test_gray_picture_in_rgb_has_no_colour() -> None:
    pixels = np.repeat(gradient(peak=255).astype(np.uint8)[..., None], 3, axis=2)
    image = _load(pixels)
    assert image.facts.colour == 0
    np.testing.assert_allclose(image.pixels, pixels[..., 0] / 255, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jls_lossy_line.dcm",
     "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_gdcm_KY.dcm"],
)  # fmt: skip
def test_the_same_colour_bars_give_the_same_luminance_in_every_encoding(name: str) -> None:
    image = load_image(Path(str(get_testdata_file(name, download=False))))
    bars = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255)]
    wanted = [(0.299 * r + 0.587 * g + 0.114 * b) / 255 for r, g, b in bars]
    np.testing.assert_allclose(image.pixels[[5, 15, 25, 35, 45, 55], 50], wanted, atol=0.02)
    assert image.facts.colour == pytest.approx(0.6, abs=0.02)


def test_palette_colour() -> None:
    image = load_image(Path(str(get_testdata_file("examples_palette.dcm", download=False))))
    assert 0.1 < image.facts.colour < 0.3


# --- refusals


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pixels": None}, ImageRefused, r"got a DICOM object of modality DX without Pixel Data"),
        ({"NumberOfFrames": 12}, UnsupportedImage, r"expected a single frame, got 12 frames in image.dcm"),
        ({"Rows": None}, ImageRefused, r"got no usable Rows, Columns or Bits Allocated in image.dcm"),
        ({"BitsAllocated": 64}, UnsupportedImage, r"expected 1 or 3 samples of .* bits, got 1 samples of 64"),
        ({"Rows": 33}, ImageRefused, r"expected complete pixel data, got 3,072 of 3,168 bytes in image.dcm"),
        ({"PhotometricInterpretation": "CMYK"}, UnsupportedImage, r"known photometric interpretation, got 'CMYK'"),
        ({"pixels": np.ones((1, 1), np.uint16)}, ImageRefused, r"at least 16 x 16 pixels, got 1 x 1 pixels"),
        ({"PixelData": b"", "BitsStored": 12}, ImageRefused, r"expected pixel data, got none in image.dcm"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_a_cure(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_dicom(dicom_bytes(**({"pixels": gradient()} | options)), "image.dcm", _BUDGET)
    assert caught.type is error
    assert "; " in str(caught.value)
    assert "secret" not in str(caught.value).lower()


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    data = dicom_bytes(gradient(), BitsStored=12)
    path = tmp_path / "cut.dcm"
    path.write_bytes(data[:-100])
    with pytest.raises(ImageRefused, match=r"cut.dcm; the file is (cut short|damaged or cut short)"):
        load_image(path)


def test_deflated_bomb_is_bounded() -> None:
    data = dicom_bytes(gradient(), syntax=DEFLATED)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    bomb = b"".join([packer.compress(zeros) for _ in range(90)] + [packer.flush()])
    # The meta information ends where the deflated stream starts: its group length stands at offset 140.
    start = 144 + int.from_bytes(data[140:144], "little")
    with pytest.raises(OverBudget, match=r"expected a deflated data set of at most 80 MiB, got more in image.dcm"):
        load_dicom(data[:start] + bomb, "image.dcm", _BUDGET)


def test_file_without_preamble_and_without_meta_information_is_read() -> None:
    data = dicom_bytes(gradient(), BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    start = 144 + int.from_bytes(data[140:144], "little")
    image = load_dicom(data[start:], "image.dcm", _BUDGET)
    np.testing.assert_allclose(image.pixels, gradient() / 4095, atol=1e-6)
    assert [text for text in _ambiguities(image) if "no Transfer Syntax UID" in text]


def test_bare_big_endian_file_is_read(tmp_path: Path) -> None:
    data = dicom_bytes(gradient(), syntax=BIG_ENDIAN, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    path = tmp_path / "bare"
    path.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    np.testing.assert_allclose(load_image(path).pixels, gradient() / 4095, atol=1e-6)


def test_more_pixel_data_than_one_frame_is_ambiguous() -> None:
    twice = np.concatenate([gradient(), gradient()])
    image = _load(twice, BitsStored=12, Rows=32)
    assert [text for text in _ambiguities(image) if "several frames" in text]


def test_lossless_value_beyond_bits_stored_is_kept_and_ambiguous() -> None:
    frame = bytes(imagecodecs.jpeg2k_encode(gradient(), reversible=True, level=0))
    image = _load(frame=frame, syntax="1.2.840.10008.1.2.4.90", BitsStored=10, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(image.pixels, gradient() / 4095, atol=1e-6)
    assert [text for text in _ambiguities(image) if "beyond the 10 bits" in text]


def test_the_callers_pixels_do_not_share_memory_with_anything(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, gradient(), BitsStored=12)
    first, second = load_image(path), load_image(path)
    first.pixels[:] = 0
    assert second.pixels.any()
