"""Every transfer syntax against a known array: exact where the codec is lossless."""

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
from openjpeg.utils import encode_array as openjpeg_encode
from pydicom.data import get_testdata_file
from pydicom.pixels.encoders.base import RLELosslessEncoder

from tests.imaging.dicoms import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, dicom_bytes, gradient
from wetread.errors import ImageRefused, OverBudget, UnsupportedImage
from wetread.imaging import DEFAULT_BUDGET_BYTES
from wetread.imaging.codecs import compressed_syntaxes
from wetread.imaging.dicom import Reading, read_dicom

JPEG, JPEG_12 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG_2000, JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K, HTJ2K_RPCL, HTJ2K_LOSSY = (f"1.2.840.10008.1.2.4.{last}" for last in (201, 202, 203))
RLE, DEFLATED_FRAME = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"


def _read(data: bytes) -> Reading:
    return read_dicom(data, "image.dcm", DEFAULT_BUDGET_BYTES)


def _noisy(dtype: str, peak: int, *, low: int = 0) -> NDArray[Any]:
    generator = np.random.default_rng(7)
    return (gradient(40, 56, peak=peak - low) + generator.integers(0, 9, (40, 56)) + low).clip(low, peak).astype(dtype)


def _rle(pixels: NDArray[Any]) -> bytes:
    return RLELosslessEncoder.encode(
        pixels.tobytes(),
        encoding_plugin="pydicom",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8 * pixels.dtype.itemsize,
        bits_stored=8 * pixels.dtype.itemsize,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )


def _deflate(pixels: NDArray[Any]) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(pixels.tobytes()) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


LOSSLESS = {
    "lossless-p14-predictor-5": (JPEG_LOSSLESS, lambda p: imagecodecs.jpeg8_encode(p, lossless=True, predictor=5)),
    "lossless-sv1": (JPEG_LOSSLESS_SV1, lambda p: imagecodecs.jpeg8_encode(p, lossless=True, predictor=1)),
    "lossless-other-encoder": (JPEG_LOSSLESS, imagecodecs.ljpeg_encode),
    "jpeg-ls": (JPEG_LS, imagecodecs.jpegls_encode),
    "jpeg-2000": (JPEG_2000, lambda p: imagecodecs.jpeg2k_encode(p, reversible=True, level=0)),
    "jpeg-2000-in-jp2": (
        JPEG_2000,
        lambda p: imagecodecs.jpeg2k_encode(p, reversible=True, level=0, codecformat="jp2"),
    ),
    "jpeg-2000-other-encoder": (JPEG_2000, lambda p: openjpeg_encode(p, photometric_interpretation=2)),
    "htj2k": (HTJ2K, lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
    "htj2k-rpcl": (HTJ2K_RPCL, lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
    "rle": (RLE, _rle),
    "deflated-frame": (DEFLATED_FRAME, _deflate),
}


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize(("dtype", "peak"), [("uint8", 255), ("uint16", 4095), ("uint16", 65535)])
@pytest.mark.parametrize("case", LOSSLESS)
def test_lossless_syntaxes_give_back_every_value(case: str, dtype: str, peak: int, fragments: int) -> None:
    syntax, encode = LOSSLESS[case]
    pixels = _noisy(dtype, peak)
    frame = bytes(encode(pixels))
    bits = peak.bit_length()
    reading = _read(dicom_bytes(pixels, syntax=syntax, frame=frame, fragments=fragments, BitsStored=bits))
    np.testing.assert_array_equal(reading.stored.values, pixels)
    assert reading.stored.values.dtype == pixels.dtype
    assert reading.header.history.ambiguities == ()


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("case", ["lossless-sv1", "jpeg-ls", "htj2k", "rle", "deflated-frame"])
def test_signed_values_survive_compression(case: str, bits: int) -> None:
    # JPEG, JPEG-LS and RLE carry the two's complement of Bits Stored as unsigned words.
    syntax, encode = LOSSLESS[case]
    pixels = _noisy("int16", 2 ** (bits - 1) - 1, low=-(2 ** (bits - 1)))
    words = pixels.view(np.uint16) & np.uint16((1 << bits) - 1)
    reading = _read(dicom_bytes(pixels, syntax=syntax, frame=bytes(encode(words)), BitsStored=bits))
    np.testing.assert_array_equal(reading.stored.values, pixels)


def test_signed_jpeg_2000_codestream() -> None:
    pixels = _noisy("int16", 2047, low=-2048)
    frame = bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0))
    reading = _read(dicom_bytes(pixels, syntax=JPEG_2000, frame=frame, BitsStored=16))
    np.testing.assert_array_equal(reading.stored.values, pixels)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32"])
def test_uncompressed_syntaxes_give_back_every_value(syntax: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    pixels = np.linspace(info.min, info.max, 33 * 35).astype(dtype).reshape(33, 35)
    np.testing.assert_array_equal(_read(dicom_bytes(pixels, syntax=syntax)).stored.values, pixels)


@pytest.mark.parametrize(
    ("syntax", "encode", "peak", "tolerance"),
    [
        (JPEG, lambda p: imagecodecs.jpeg8_encode(p.astype(np.uint8), level=98), 255, 3),
        (JPEG_12, lambda p: imagecodecs.jpeg8_encode(p, level=98, bitspersample=12), 4095, 8),
        (JPEG_LS_NEAR, lambda p: imagecodecs.jpegls_encode(p, level=2), 4095, 2),
        (JPEG_2000_LOSSY, lambda p: imagecodecs.jpeg2k_encode(p, level=60, bitspersample=12), 4095, 32),
        (HTJ2K_LOSSY, lambda p: imagecodecs.htj2k_encode(p, level=0.001, reversible=False), 4095, 60),
    ],
)
def test_lossy_syntaxes_stay_close(syntax: str, encode: Any, peak: int, tolerance: int) -> None:
    pixels = _noisy("uint8" if peak == 255 else "uint16", peak)
    reading = _read(dicom_bytes(pixels, syntax=syntax, frame=bytes(encode(pixels)), BitsStored=peak.bit_length()))
    difference = np.abs(reading.stored.values.astype(int) - pixels)
    assert 0 < difference.max() <= tolerance


def test_every_compressed_syntax_is_tested() -> None:
    lossy = {JPEG, JPEG_12, JPEG_LS_NEAR, JPEG_2000_LOSSY, HTJ2K_LOSSY}
    assert set(compressed_syntaxes()) == lossy | {syntax for syntax, _ in LOSSLESS.values()}


PYDICOM_FILES = [
    "693_J2KI.dcm", "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    "SC_jpeg_no_color_transform.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_rle_16bit.dcm",
    "SC_rgb_rle_32bit.dcm", "examples_overlay.dcm", "examples_palette.dcm", "image_dfl.dcm",
    "liver_1frame.dcm", "liver_expb_1frame.dcm",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes long:UserWarning")  # pydicom on MR_small_padded
@pytest.mark.parametrize("name", PYDICOM_FILES)
def test_pydicoms_own_files_decode_as_pydicom_decodes_them(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    reading = _read(path.read_bytes())
    np.testing.assert_array_equal(reading.stored.values, pydicom.dcmread(path).pixel_array)


def test_lossless_colour_jpeg_that_pydicom_cannot_decode_equals_its_rle_twin() -> None:
    jpeg = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False)))
    twin = Path(str(get_testdata_file("SC_rgb_rle.dcm", download=False)))
    np.testing.assert_array_equal(_read(jpeg.read_bytes()).stored.values, pydicom.dcmread(twin).pixel_array)


def test_extended_12_bit_jpeg_that_pydicom_cannot_decode_is_near_its_jpeg_2000_twin() -> None:
    jpeg = Path(str(get_testdata_file("JPGExtended.dcm", download=False)))
    twin = Path(str(get_testdata_file("JPEG2000.dcm", download=False)))
    found = _read(jpeg.read_bytes()).stored.values.astype(float).ravel()
    assert np.corrcoef(found, pydicom.dcmread(twin).pixel_array.astype(float).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-2000"])
def test_codestream_larger_than_the_header_says_is_refused_before_decoding(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = _noisy("uint16", 4095)
    if kind == "jpeg":
        frame = bytearray(imagecodecs.jpeg8_encode(pixels, lossless=True))
        at = frame.index(b"\xff\xc3") + 5
        frame[at : at + 4] = (60000).to_bytes(2, "big") * 2
        syntax = JPEG_LOSSLESS
    else:
        frame = bytearray(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0, codecformat="j2k"))
        frame[8:16] = (60000).to_bytes(4, "big") * 2
        syntax = JPEG_2000
    for decoder in ("jpeg8_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, decoder, lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageRefused, match="compressed data of 60000 x 60000 x 1 where the header says 56 x 40 x 1"):
        _read(dicom_bytes(pixels, syntax=syntax, frame=bytes(frame)))


def test_size_hidden_in_a_box_before_the_codestream_is_not_believed() -> None:
    pixels = _noisy("uint16", 4095)
    jp2 = bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0, codecformat="jp2"))
    start = jp2.index(b"\xff\x4f\xff\x51")
    decoy = jp2[start : start + 60]
    large = bytearray(jp2)
    large[start + 8 : start + 16] = (60000).to_bytes(4, "big") * 2
    at = jp2.index(b"ftyp") - 4
    box = (8 + len(decoy)).to_bytes(4, "big") + b"free" + decoy
    data = dicom_bytes(pixels, syntax=JPEG_2000, frame=bytes(large[:at]) + box + bytes(large[at:]))
    with pytest.raises(ImageRefused, match="compressed data of 60000 x 60000"):
        _read(data)


def test_unknown_transfer_syntax_is_named() -> None:
    data = dicom_bytes(gradient(), syntax="1.2.840.10008.1.2.4.100", frame=b"\0\0\1\xb3" * 8)  # MPEG-2
    with pytest.raises(
        UnsupportedImage, match=r"expected a transfer syntax .* got 1.2.840.10008.1.2.4.100 in image.dcm"
    ):
        _read(data)


@pytest.mark.parametrize("case", LOSSLESS)
def test_cut_frame_is_refused_or_contradicts(case: str) -> None:
    syntax, encode = LOSSLESS[case]
    pixels = _noisy("uint16", 4095)
    frame = bytes(encode(pixels))
    with pytest.raises(
        ImageRefused, match=r"expected a complete compressed frame, got .* in image.dcm; the file is damaged"
    ):
        _read(dicom_bytes(pixels, syntax=syntax, frame=frame[: len(frame) // 6 * 2]))


def test_deflated_frame_bomb_is_not_inflated() -> None:
    bomb = _deflate(np.zeros(1 << 22, np.uint8))
    with pytest.raises(OverBudget, match="expected 3072 bytes of deflated pixels, got more"):
        _read(dicom_bytes(gradient(), syntax=DEFLATED_FRAME, frame=bomb))


def test_encapsulated_data_without_fragments_is_refused() -> None:
    data = dicom_bytes(gradient(), syntax=JPEG_LOSSLESS, frame=b"\0\0")
    cut = data[: data.rindex(b"\xfe\xff\x00\xe0")] + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(ImageRefused, match="got no complete fragment in image"):
        _read(cut)


def test_test_files_are_valid(tmp_path: Path) -> None:
    """The helper that all tests lean on writes what pydicom reads back."""
    pixels = gradient()
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(pixels, BitsStored=12)))
    np.testing.assert_array_equal(dataset.pixel_array, pixels)
