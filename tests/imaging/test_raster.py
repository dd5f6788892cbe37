from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from tests.imaging.dicoms import gradient
from wetread.errors import ImageRefused, OverBudget, UnsupportedImage
from wetread.imaging.raster import load_raster
from wetread.types import Image

_BUDGET = 16 << 20
GRAY8 = gradient(peak=255).astype(np.uint8)
FULL16 = gradient(peak=65535)
COLOUR8 = np.stack([GRAY8, GRAY8[::-1], GRAY8[:, ::-1]], axis=-1)


def _saved(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def _load(data: bytes, kind: str) -> Image:
    return load_raster(data, kind, f"x.{kind.lower()}", _BUDGET)


def _detail(image: Image, name: str) -> dict[str, Any]:
    return next(step.detail for step in image.applied if step.name == name)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("PNG", _saved(Pillow.fromarray(GRAY8), "PNG")),
        ("BMP", _saved(Pillow.fromarray(GRAY8), "BMP")),
        ("GIF", _saved(Pillow.fromarray(GRAY8), "GIF")),
        ("TIFF", _tiff(GRAY8)),
        ("TIFF", _tiff(GRAY8, compression="zlib", predictor=True)),
        ("TIFF", _tiff(GRAY8, compression="lzw", tile=(16, 16))),
        ("TIFF", _tiff(GRAY8, bigtiff=True, byteorder=">")),
        ("PNG", _saved(Pillow.fromarray(GRAY8).convert("RGB"), "PNG")),
        ("PNG", _saved(Pillow.fromarray(GRAY8).convert("P"), "PNG")),
        ("PNG", _saved(Pillow.fromarray(GRAY8).convert("RGBA"), "PNG")),
        ("PNG", _saved(Pillow.fromarray(GRAY8).convert("LA"), "PNG")),
        ("TIFF", _tiff(np.repeat(GRAY8[..., None], 3, 2), photometric="rgb")),
        ("TIFF", _tiff(np.repeat(GRAY8[None], 3, 0), photometric="rgb", planarconfig="separate")),
    ],
)
def test_8_bit_pictures_are_scaled_by_255(kind: str, data: bytes) -> None:
    image = _load(data, kind)
    np.testing.assert_allclose(image.pixels, GRAY8 / 255, atol=1e-6)
    assert image.pixels.dtype == np.float32
    assert image.facts.colour == 0
    assert (image.facts.format, image.facts.rows, image.facts.columns) == (kind, 32, 48)
    assert _detail(image, "scale") == {"low": 0.0, "high": 255.0, "reason": "full range of the type"}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("PNG", bytes(imagecodecs.png_encode(FULL16))),
        ("PNG", bytes(imagecodecs.png_encode(np.repeat(FULL16[..., None], 3, 2)))),
        ("TIFF", _tiff(FULL16)),
        ("TIFF", _tiff(FULL16, compression="deflate")),
    ],
)
def test_16_bit_pictures_keep_their_depth(kind: str, data: bytes) -> None:
    image = _load(data, kind)
    np.testing.assert_allclose(image.pixels, FULL16 / 65535, atol=1e-6)
    assert len(np.unique(image.pixels)) > 1000
    assert image.facts.bits == 16
    assert _detail(image, "scale")["high"] == 65535


@pytest.mark.parametrize("peak", [1023, 4095, 16383])
def test_16_bit_file_with_fewer_bits_of_content_gets_a_percentile_window(peak: int) -> None:
    pixels = gradient(peak=peak)
    image = _load(bytes(imagecodecs.png_encode(pixels)), "PNG")
    low, high = np.percentile(pixels, [0.5, 99.5])
    np.testing.assert_allclose(image.pixels, np.clip((pixels - low) / (high - low), 0, 1), atol=1e-5)
    assert _detail(image, "percentile window")["reason"] == "content fills less than a quarter of 16 bits"


def test_lead_marker_at_full_white_does_not_hide_12_bit_content() -> None:
    pixels = gradient(100, 100)
    pixels[:6, :6] = 65535  # 0.36 % of the pixels
    image = _load(bytes(imagecodecs.png_encode(pixels)), "PNG")
    assert np.median(image.pixels) == pytest.approx(0.5, abs=0.01)


def test_jpeg_is_what_pillow_decodes() -> None:
    for picture in (Pillow.fromarray(GRAY8), Pillow.fromarray(COLOUR8)):
        data = _saved(picture, "JPEG", quality=90)
        theirs = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"), np.float64) / 255
        image = _load(data, "JPEG")
        np.testing.assert_allclose(image.pixels, theirs @ [0.299, 0.587, 0.114], atol=2 / 255)


def test_colour_is_measured() -> None:
    picture = np.full((20, 40, 3), 90, np.uint8)
    picture[:, 10:] += np.array([15, 0, 0], np.uint8)  # below what counts as visible
    picture[:, 30:] = (200, 120, 60)
    image = _load(_saved(Pillow.fromarray(picture), "PNG"), "PNG")
    assert image.facts.colour == pytest.approx(0.25)
    assert image.pixels[0, 39] == pytest.approx((0.299 * 200 + 0.587 * 120 + 0.114 * 60) / 255, abs=1e-6)


def test_transparency_is_composited_over_black() -> None:
    rgba = np.full((20, 20, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[:10, :, 3] = 51
    image = _load(_saved(Pillow.fromarray(rgba), "PNG"), "PNG")
    np.testing.assert_allclose(image.pixels[[0, 19], 0], [200 / 255 * 0.2, 200 / 255], atol=1e-6)
    assert _detail(image, "alpha") == {"composited_over": "black", "transparent_share": 0.5}


def test_palette_and_1_bit() -> None:
    palette = Pillow.fromarray(COLOUR8).quantize(16)
    image = _load(_saved(palette, "PNG"), "PNG")
    theirs = np.asarray(palette.convert("RGB"), np.float64) / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image.pixels, theirs, atol=1e-6)
    for kind in ("PNG", "TIFF", "BMP"):
        bits = Pillow.fromarray((GRAY8 > 99).astype(np.uint8) * 255).convert("1")
        np.testing.assert_array_equal(_load(_saved(bits, kind), kind).pixels, GRAY8 > 99)


def test_tiff_palette() -> None:
    palette = Pillow.fromarray(COLOUR8).quantize(16)
    image = _load(_saved(palette, "TIFF"), "TIFF")
    theirs = np.asarray(palette.convert("RGB"), np.float64) / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image.pixels, theirs, atol=1e-5)


def test_cmyk_jpeg_is_read() -> None:
    picture = Pillow.fromarray(np.repeat(GRAY8[..., None], 3, 2)).convert("CMYK")
    image = _load(_saved(picture, "JPEG", quality=95), "JPEG")
    np.testing.assert_allclose(image.pixels, GRAY8 / 255, atol=0.05)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_applies_it(orientation: int) -> None:
    from PIL import ImageOps

    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = _saved(Pillow.fromarray(GRAY8), "JPEG", quality=95, exif=exif)
    theirs = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))), np.float64) / 255
    image = _load(data, "JPEG")
    np.testing.assert_allclose(image.pixels, theirs, atol=1e-6)
    assert (image.facts.rows, image.facts.columns) == theirs.shape
    assert ("orientation" in [step.name for step in image.applied]) == (orientation != 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_float_tiff_within_0_and_1_is_taken_as_it_is(dtype: str) -> None:
    pixels = (GRAY8 / 255).astype(dtype)
    image = _load(_tiff(pixels), "TIFF")
    np.testing.assert_allclose(image.pixels, pixels, atol=1e-6)
    assert _detail(image, "scale")["reason"] == "floating point within [0, 1]"


def test_float_tiff_of_any_range_gets_a_percentile_window() -> None:
    pixels = GRAY8.astype(np.float32) * 100 - 5000
    low, high = np.percentile(pixels, [0.5, 99.5])
    image = _load(_tiff(pixels), "TIFF")
    np.testing.assert_allclose(image.pixels, np.clip((pixels - low) / (high - low), 0, 1), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    pixels = GRAY8.astype(np.float32)
    pixels[3, 4] = pixels[5, 6] = bad
    with pytest.raises(
        ImageRefused, match=r"expected pixels that are numbers, got 2 that are NaN or infinite in x.tiff"
    ):
        _load(_tiff(pixels), "TIFF")


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32"])
def test_other_integers_get_a_percentile_window(dtype: str) -> None:
    image = _load(_tiff((GRAY8.astype(np.int64) * 7).astype(dtype)), "TIFF")
    assert _detail(image, "percentile window")["reason"] == f"{dtype} has no white"
    assert image.pixels.max() == 1


def test_tiff_with_white_as_zero_is_inverted() -> None:
    image = _load(_tiff(GRAY8, photometric="miniswhite"), "TIFF")
    np.testing.assert_allclose(image.pixels, 1 - GRAY8 / 255, atol=1e-6)
    assert _detail(image, "inversion") == {"reason": "TIFF photometric MINISWHITE"}


def test_tiff_alpha_is_used_only_if_not_premultiplied() -> None:
    rgba = np.full((20, 20, 4), 200, np.uint8)
    rgba[..., 3] = 51
    unassociated = _load(_tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]), "TIFF")
    associated = _load(_tiff(rgba, photometric="rgb", extrasamples=["assocalpha"]), "TIFF")
    assert unassociated.pixels[0, 0] == pytest.approx(200 / 255 * 0.2, abs=1e-6)
    assert associated.pixels[0, 0] == pytest.approx(200 / 255, abs=1e-6)


def test_constant_picture_loads_with_a_warning() -> None:
    image = _load(_saved(Pillow.fromarray(np.zeros((30, 30), np.uint8)), "PNG"), "PNG")
    assert not image.pixels.any()
    assert image.facts.warnings == ("constant image: every pixel has the same value",)


def test_animated_gif_and_png_are_refused() -> None:
    frames = [Pillow.fromarray(GRAY8), Pillow.fromarray(GRAY8[::-1])]
    for kind in ("GIF", "PNG"):
        data = _saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(
            UnsupportedImage, match=f"expected a single picture, got an animated {kind}: x.{kind.lower()}"
        ):
            _load(data, kind)


def test_tiff_with_several_pages_is_refused_but_not_one_with_a_thumbnail() -> None:
    with pytest.raises(UnsupportedImage, match=r"expected a TIFF with a single page, got several pages in x.tiff"):
        _load(_tiff(np.stack([GRAY8, GRAY8]), photometric="minisblack"), "TIFF")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GRAY8)
        writer.write(GRAY8[::2, ::2], subfiletype=1)
    np.testing.assert_allclose(_load(buffer.getvalue(), "TIFF").pixels, GRAY8 / 255, atol=1e-6)


@pytest.mark.parametrize(("kind", "size"), [("PNG", (1, 1)), ("BMP", (15, 40)), ("TIFF", (40, 15)), ("JPEG", (3, 3))])
def test_too_small_to_read(kind: str, size: tuple[int, int]) -> None:
    data = _saved(Pillow.new("L", size), kind)
    with pytest.raises(ImageRefused, match=f"at least 16 x 16 pixels, got {size[0]} x {size[1]} pixels in x"):
        _load(data, kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_size_claim_over_the_budget_is_refused_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(_saved(Pillow.fromarray(GRAY8), kind))
    size = (60000).to_bytes(2, "big") * 2
    if kind == "PNG":
        data[16:24] = (60000).to_bytes(4, "big") * 2
        import zlib

        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = size
    elif kind == "GIF":
        data[6:10] = (60000).to_bytes(2, "little") * 2
    elif kind == "BMP":
        data[18:26] = (60000).to_bytes(4, "little") * 2
    else:
        data = bytearray(_huge_tiff())
    for name in ("jpeg8_decode", "png_decode"):
        monkeypatch.setattr(imagecodecs, name, lambda *_: pytest.fail("decoded"))
    with pytest.raises(OverBudget, match=r"expected an image of at most 16 MiB decoded, got 60000 x 60000 pixels"):
        _load(bytes(data), kind)


def _huge_tiff() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GRAY8)
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        for tag in ("ImageLength", "ImageWidth"):
            file.pages[0].tags[tag].overwrite(60000)  # type: ignore[union-attr]
    return buffer.getvalue()


def test_tile_larger_than_the_budget_is_refused() -> None:
    buffer = io.BytesIO(_tiff(GRAY8, tile=(16, 16)))
    with tifffile.TiffFile(buffer, mode="r+") as file:
        for tag in ("TileLength", "TileWidth"):
            file.pages[0].tags[tag].overwrite(60000)  # type: ignore[union-attr]
    with pytest.raises(OverBudget, match="got 60000 x 60000 pixels"):
        _load(buffer.getvalue(), "TIFF")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_cut_pictures_are_refused(kind: str) -> None:
    data = _saved(Pillow.fromarray(GRAY8), kind)
    with pytest.raises(ImageRefused, match=f"expected a {kind} image, got data that cannot be decoded in x"):
        _load(data[: len(data) * 2 // 3], kind)


def test_jpeg_without_its_last_rows_is_not_filled_up_with_gray() -> None:
    data = _saved(Pillow.fromarray(gradient(200, 200, peak=255).astype(np.uint8)), "JPEG", quality=95)
    for end in (len(data) - 2, len(data) - 100, len(data) // 2):
        with pytest.raises(ImageRefused, match="expected a JPEG image, got data that cannot be decoded in x"):
            _load(data[:end], "JPEG")


def test_pillows_own_limit_is_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    assert _load(_saved(Pillow.fromarray(GRAY8), "PNG"), "PNG").facts.rows == 32
    assert Pillow.MAX_IMAGE_PIXELS == 10


def test_hash_is_of_the_files_bytes(tmp_path: Path) -> None:
    import hashlib

    data = _saved(Pillow.fromarray(GRAY8), "PNG")
    assert _load(data, "PNG").facts.sha256 == hashlib.sha256(data).hexdigest()
