from __future__ import annotations

import io
import os
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.data import get_testdata_file

from tests.imaging.dicoms import dicom_bytes, gradient, write_dicom
from wetread.errors import ImageRefused, OverBudget, UnsupportedImage, WetreadError
from wetread.imaging import DEFAULT_BUDGET_BYTES, find_images, load_image, preview8
from wetread.imaging.sniff import kind_of


def _png(size: tuple[int, int] = (20, 20)) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(gradient(*size, peak=255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# --- what a file is


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"II*\0" + b"\0" * 124 + b"DICM", "DICOM"),  # TIFF preamble, PS3.10 7.1
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "DICOM"),
        (_png(), "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"MM\0*", "TIFF"),
        (b"GIF89a", "GIF"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\n\n%PDF-1.7", "a PDF document"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"name,age\nx,3\n", "a text file"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"\1\2\3\4" * 9, "a file of unknown kind"),
        (b"\0" * 344 + b"n+1\0", "a NIfTI volume"),
    ],
)
def test_kind_is_told_from_content(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@given(st.binary(max_size=400))
def test_any_bytes_have_a_kind(data: bytes) -> None:
    assert kind_of(data)


def test_extension_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(_png())
    (tmp_path / "film.png").write_bytes(dicom_bytes(gradient(), BitsStored=12))
    assert load_image(tmp_path / "film.dcm").facts.format == "PNG"
    assert load_image(str(tmp_path / "film.png")).facts.format == "DICOM"


# --- refusals of files


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("x.dcm", b"", ImageRefused, "expected an image file, got an empty file: x.dcm; fetch it again"),
        (
            "x.dcm",
            b"no image at all\n",
            ImageRefused,
            "expected a DICOM, PNG, JPEG or TIFF image, got a text file: x.dcm",
        ),
        ("x.png", b"%PDF-1.4 ...", ImageRefused, "got a PDF document: x.png; hand in the image itself"),
        ("x", b"PK\3\4....", ImageRefused, "got a ZIP archive or office document: x"),
        ("x", b"RIFF\0\0\0\0WEBPVP8 ", UnsupportedImage, "got a WebP image: x; convert it first"),
        ("x.dcm", b"\0" * 128 + b"DICM", ImageRefused, "expected a DICOM image, got .* in x.dcm"),
        ("x.png", _png()[:60], ImageRefused, "expected a PNG image, got data that cannot be decoded in x.png"),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, name: str, data: bytes, error: type[Exception], message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        load_image(tmp_path / name)
    assert caught.type is error


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match=r"expected an image file, got no such file: gone.dcm; check the path"):
        load_image(tmp_path / "gone.dcm")
    with pytest.raises(ImageRefused, match=r"expected an image file, got a folder: .*; name a file, or search it"):
        load_image(tmp_path)
    with pytest.raises(ImageRefused, match="expected an image file"):
        load_image("nul\0byte")


def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageRefused, match="expected an image file, got a device or pipe: pipe"):
        load_image(tmp_path / "pipe")


def test_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    path = write_dicom(tmp_path, gradient())
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageRefused, match=r"expected a readable file, got image.dcm \(Permission denied\); check"):
        load_image(path)


def test_file_over_the_budget_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.dcm"
    with path.open("wb") as file:
        file.truncate(1 << 33)  # sparse
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(OverBudget, match=r"expected a file of at most 512 MiB, got 8,192 MiB: huge.dcm"):
        load_image(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"])
def test_60000_x_60000_claim_in_1_kilobyte_costs_nothing(tmp_path: Path, syntax: str) -> None:
    frame = b"\xff\xd8" + bytes(60) if syntax.endswith("70") else None
    path = write_dicom(tmp_path, gradient(16, 16), syntax=syntax, frame=frame, Rows=60000, Columns=60000)
    assert path.stat().st_size < 2000
    load_image(write_dicom(tmp_path / ".", gradient()))  # imports are not what is measured
    path = write_dicom(tmp_path, gradient(16, 16), syntax=syntax, frame=frame, Rows=60000, Columns=60000)
    tracemalloc.start()
    try:
        with pytest.raises(OverBudget, match=r"expected an image of at most 512 MiB decoded, got 60000 x 60000 pixels"):
            load_image(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_budget_counts_frames_and_samples(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, gradient(), NumberOfFrames=100_000)
    with pytest.raises(OverBudget, match=r"1 samples, 100000 frames, 16 bits = 293 MiB"):
        load_image(path, budget_bytes=200 << 20)


def test_budget_can_be_set(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, gradient(200, 200))
    assert load_image(path, budget_bytes=200 * 200 * 4).facts.rows == 200
    with pytest.raises(OverBudget, match="raise the budget"):
        load_image(path, budget_bytes=200 * 200 * 4 - 1)


def test_running_out_of_memory_is_over_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    path = write_dicom(tmp_path, gradient())
    monkeypatch.setattr("wetread.imaging.dicom.stored_values", exhausted)
    with pytest.raises(OverBudget, match=r"expected enough free memory, got too little to decode image.dcm"):
        load_image(path)


# --- folders


def test_folders_are_searched_sorted_and_side_files_skipped(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/10.dcm", "a.png", "broken.dcm", "b/.hidden", ".git/x.png", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("labels.csv", "notes.TXT", "meta.json", "DICOMDIR"):
        (tmp_path / name).write_bytes(b"x")
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a.png", "b/10.dcm", "b/2.dcm", "broken.dcm"]


def test_named_files_are_always_kept_once_and_in_order(tmp_path: Path) -> None:
    for name in ("z.txt", "a.dcm"):
        (tmp_path / name).write_bytes(b"x")
    found = find_images([tmp_path / "z.txt", tmp_path, tmp_path / "a.dcm"])
    assert [path.name for path in found] == ["z.txt", "a.dcm"]
    assert find_images(str(tmp_path / "z.txt")) == [tmp_path / "z.txt"]


def test_folder_without_images_and_missing_path(tmp_path: Path) -> None:
    (tmp_path / "only.csv").write_bytes(b"x")
    with pytest.raises(ImageRefused, match="expected at least one image file, got none in the folder"):
        find_images([tmp_path])
    with pytest.raises(ImageRefused, match="expected a file or folder, got no such path: gone"):
        find_images([tmp_path / "gone"])


def test_linked_folders_do_not_loop(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in find_images([tmp_path])] == ["a.png"]


def test_preview_is_8_bit(tmp_path: Path) -> None:
    image = load_image(write_dicom(tmp_path, gradient(), BitsStored=12, WindowCenter=2048, WindowWidth=4096))
    preview = preview8(image)
    assert preview.dtype == np.uint8
    assert (preview[0, 0], preview[-1, -1]) == (0, 255)
    np.testing.assert_array_equal(preview, np.rint(gradient() / 4095 * 255))


# --- damaged files

_SEEDS = {
    "plain": dicom_bytes(
        gradient(), BitsStored=12, WindowCenter=[1, 2], WindowWidth=[9, 9], RescaleSlope=2, RescaleIntercept=1,
        PixelPaddingValue=3, PixelSpacing=[0.1, 0.1], PatientAge="045Y",
    ),
    **{
        name: Path(str(get_testdata_file(name, download=False))).read_bytes()
        for name in (
            "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "JPGExtended.dcm",
            "SC_rgb_jpeg_gdcm.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "UN_sequence.dcm", "badVR.dcm",
        )
    },
    "png": _png(),
}  # fmt: skip


@pytest.mark.parametrize("seed", _SEEDS)
@given(data=st.data())
def test_only_our_errors_escape_from_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, seed: str, data: st.DataObject
) -> None:
    damaged = bytearray(_SEEDS[seed])
    head = min(len(damaged), 2500) - 1  # most of what is parsed stands at the start
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, head) | st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(damaged)) | st.integers(1, len(damaged)))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(damaged[:keep]))
    try:
        image = load_image(path, budget_bytes=64 << 20)
    except WetreadError:
        return
    assert image.pixels.dtype == np.float32
    assert np.isfinite(image.pixels).all()
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1


def test_no_patient_data_in_errors_or_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dicom_bytes(gradient(), BitsStored=12)
    for end in range(200, len(data), 97):
        (tmp_path / "x").write_bytes(data[:end])
        with pytest.raises(ImageRefused, match="expected") as caught:
            load_image(tmp_path / "x")
        assert "secret" not in str(caught.value).lower()
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "secret" not in caplog.text.lower()


def test_threads_do_not_leave_warning_filters_behind(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, gradient(), BitsStored=12)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [load_image(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_default_budget_is_512_mebibytes() -> None:
    assert DEFAULT_BUDGET_BYTES == 536_870_912


# --- real files


@pytest.mark.parametrize(
    ("folder", "kind"), [("mr-dicom", "DICOM"), ("covid-cxr/images", "JPEG"), ("kermany-cxr/train", "JPEG")]
)
def test_real_files_load(shared_data: Path, folder: str, kind: str) -> None:
    found = find_images([shared_data / folder])
    for path in found[:: max(1, len(found) // 54)]:
        image = load_image(path)
        assert image.facts.format == kind
        assert image.facts.colour < 0.01
        assert image.pixels.max() > image.pixels.min()
        assert not [text for text in image.facts.warnings if text.startswith("ambiguous")]
