"""The size of an image from its header: the same as that of the decoded image, without decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.imaging.dicoms import dicom_bytes, gradient
from wetread.errors import ImageRefused, OverBudget, UnsupportedImage
from wetread.imaging import codecs, load_image, raster
from wetread.imaging.load import image_shape

ROWS, COLUMNS = 20, 30
PICTURE = Pillow.fromarray(gradient(ROWS, COLUMNS, peak=255).astype(np.uint8))


def saved(folder: Path, kind: str, orientation: int = 1) -> Path:
    path = folder / f"film.{kind}"
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {} if kind in ("gif", "bmp") else {"exif": exif}
    PICTURE.save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_shape_is_that_of_the_decoded_picture(kind: str, orientation: int, tmp_path: Path) -> None:
    path = saved(tmp_path, kind, orientation)
    turned = orientation == 6 and kind not in ("gif", "bmp")
    assert image_shape(path) == load_image(path).pixels.shape == ((COLUMNS, ROWS) if turned else (ROWS, COLUMNS))


def test_shape_of_dicom(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(dicom_bytes(gradient(ROWS, COLUMNS), BitsStored=12))
    assert image_shape(path) == (ROWS, COLUMNS)


def test_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(raster, "_samples", refuse)
    monkeypatch.setattr(codecs, "decode_frame", refuse)
    assert image_shape(saved(tmp_path, "png")) == (ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", ImageRefused, r"an image file, got an empty file: x"),
        (b"hello there", ImageRefused, r"a DICOM, PNG, JPEG or TIFF image, got a text file: x; hand in the image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", UnsupportedImage, r"got a WebP image: x; convert it first"),
        (b"\x89PNG\r\n\x1a\n", ImageRefused, r"a PNG image, got data that cannot be decoded in x; the file is damaged"),
        (b"II*\0", ImageRefused, r"a TIFF image, got data that cannot be decoded in x"),
        (dicom_bytes(gradient(), Rows=None), ImageRefused, r"a DICOM image with its size, got no usable Rows"),
        (dicom_bytes(gradient(), NumberOfFrames=3), UnsupportedImage, r"a single frame, got 3 frames in x"),
    ],
)
def test_what_a_header_can_tell_is_refused(data: bytes, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(error, match=message):
        image_shape(tmp_path / "x")


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_claim_over_the_budget_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OverBudget, match=r"got 30 x 20 pixels"):
        image_shape(saved(tmp_path, kind), budget_bytes=2000)
