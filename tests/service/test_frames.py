"""Files of several frames: cut apart without being decoded, stored as a stack, read frame by frame."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from tests.imaging.dicoms import BIG_ENDIAN, EXPLICIT, IMPLICIT, dicom_bytes, gradient
from tests.service.test_api import as_role, do_jobs, error_of, upload
from wetread.errors import ImageRefused, UnsupportedImage
from wetread.imaging import load_image
from wetread.imaging.dicom import load_dicom
from wetread.imaging.raster import load_raster
from wetread.service.context import Service
from wetread.service.frames import READ_AT_MOST, dicom_frame, frames_to_read, tiff_page, tiff_pages

BUDGET = 1 << 28


@pytest.fixture
def client(service: Service) -> TestClient:
    return as_role(service, "admin")


def cine(count: int, *, syntax: str = EXPLICIT, **elements: Any) -> bytes:
    """Frames that are each a grey of their own: frame k holds 100 k everywhere but in one corner."""
    frames = np.stack([np.full((32, 48), 100 * number, np.uint16) for number in range(1, count + 1)])
    frames[:, 0, 0] = 4095
    made = dicom_bytes(gradient(32, 48), syntax=syntax, StudyInstanceUID="1.2.3", **elements)
    dataset = dcmread(io.BytesIO(made))
    order = ">" if syntax == BIG_ENDIAN else "<"
    dataset.PixelData = frames.astype(f"{order}u2").tobytes()
    dataset.NumberOfFrames = count
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def pages(*values: int, **options: Any) -> bytes:
    """A TIFF whose pages are each one grey."""
    target = io.BytesIO()
    with tifffile.TiffWriter(
        target, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("order", "<")
    ) as file:
        for value in values:
            page = np.full((24, 40), value, np.uint8)
            page[0, 0] = 255
            file.write(page, photometric="minisblack", metadata=None, **options)
    return target.getvalue()


@pytest.mark.parametrize(("count", "read"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (9, (2, 5, 8)), (30, (6, 16, 26))])
def test_all_of_few_frames_are_read_and_of_many_some_that_lie_evenly(count: int, read: tuple[int, ...]) -> None:
    assert frames_to_read(count) == read
    assert len(read) <= READ_AT_MOST


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_a_frame_is_cut_out_as_it_lies_in_the_file(syntax: str) -> None:
    data = cine(5, syntax=syntax, FrameIncrementPointer=0x00181063, FrameTime="33")
    for frame in (1, 4, 5):
        alone = dcmread(io.BytesIO(dicom_frame(data, frame)))
        assert alone.pixel_array[5, 5] == 100 * frame
        assert "NumberOfFrames" not in alone
        assert "FrameIncrementPointer" not in alone
        assert alone.SourceImageSequence[0].ReferencedFrameNumber == frame
        assert alone.SOPInstanceUID != dcmread(io.BytesIO(data)).SOPInstanceUID
        assert alone.file_meta.MediaStorageSOPInstanceUID == alone.SOPInstanceUID
    assert dicom_frame(data, 4) == dicom_frame(data, 4)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm", "examples_ybr_color.dcm", "rtdose.dcm", "rtdose_rle.dcm"],
)
def test_frames_of_files_of_others_are_what_pydicom_finds_in_them(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    data = Path(path).read_bytes()
    whole = dcmread(path)
    arrays = whole.pixel_array
    for frame in {1, int(whole.NumberOfFrames)}:
        np.testing.assert_array_equal(dcmread(io.BytesIO(dicom_frame(data, frame))).pixel_array, arrays[frame - 1])


def test_an_enhanced_frame_keeps_its_own_functional_groups() -> None:
    groups = []
    for number in (1, 2, 3):
        measures, window, group = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing = [number, number]
        window.WindowCenter, window.WindowWidth = 100 * number, 50
        group.PixelMeasuresSequence, group.FrameVOILUTSequence = [measures], [window]
        groups.append(group)
    data = cine(3, PerFrameFunctionalGroupsSequence=groups)
    image = load_dicom(dicom_frame(data, 2), "image.dcm", BUDGET)
    assert image.facts.spacing_mm == (2.0, 2.0)


def test_frames_that_are_not_there_or_share_bytes_are_refused() -> None:
    with pytest.raises(ImageRefused, match=r"expected a frame from 1 to 3, got 4"):
        dicom_frame(cine(3), 4)
    with pytest.raises(UnsupportedImage, match=r"expected at most 4096 frames, got 5000; divide the file"):
        dicom_frame(dicom_bytes(gradient(), NumberOfFrames=5000), 1)
    with pytest.raises(ImageRefused, match=r"expected complete pixel data, got .* of .* bytes"):
        dicom_frame(dicom_bytes(gradient(), NumberOfFrames=7), 1)
    with pytest.raises(UnsupportedImage, match="frames of 1 bit"):
        dicom_frame(dicom_bytes(gradient(), NumberOfFrames=2, BitsAllocated=1, BitsStored=1), 1)
    with pytest.raises(ImageRefused, match="none that can be cut out"):
        dicom_frame(b"nothing", 1)
    with pytest.raises(ImageRefused, match="expected a page from 1 to 2, got 3"):
        tiff_page(pages(10, 20), 3)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"order": ">"}, {"compression": "zlib"}])
def test_a_page_is_the_only_one_of_its_file(options: dict[str, Any]) -> None:
    data = pages(10, 90, 200, **options)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert tiff_pages(data) == tuple(page.offset for page in file.pages)
    for page, value in ((1, 10), (2, 90), (3, 200)):
        alone = tiff_page(data, page)
        with tifffile.TiffFile(io.BytesIO(alone)) as file:
            assert len(file.pages) == 1
        shown: NDArray[Any] = load_raster(alone, "TIFF", "page", BUDGET).pixels
        assert round(float(shown[5, 5]) * 255) == value


def test_thumbnails_are_no_pages_and_chains_end() -> None:
    target = io.BytesIO()
    with tifffile.TiffWriter(target) as file:
        for kind, side in ((0, 64), (1, 16), (0, 64)):
            file.write(np.full((side, side), 9, np.uint8), photometric="minisblack", metadata=None, subfiletype=kind)
    data = bytearray(target.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first, thumbnail, last = (page.offset for page in file.pages)
    assert tiff_pages(bytes(data)) == (first, last)
    at = thumbnail + 2 + 12 * int.from_bytes(data[thumbnail : thumbnail + 2], "little")
    data[at : at + 4] = first.to_bytes(4, "little")
    with pytest.raises(UnsupportedImage, match="a chain without an end"):
        tiff_pages(bytes(data))
    with pytest.raises(ImageRefused, match="one beyond its end"):
        tiff_pages(bytes(data[:thumbnail]))


def test_a_cine_is_one_image_of_which_some_frames_are_read(client: TestClient, service: Service) -> None:
    got = upload(client, cine(9)).json()
    (study,) = got["studies"]
    assert (study["added"], len(got["jobs"])) == (1, 3)
    do_jobs(service)
    shown = client.get(f"/api/v1/studies/{study['id']}").json()
    assert (shown["images"], shown["status"]) == (1, "read")
    stack, *frames = shown["image_list"]
    assert (stack["frames"], stack["frame_of"], stack["results"]) == (9, None, [])
    assert [(one["frame"], one["frame_of"], one["number"]) for one in frames] == [
        (frame, stack["id"], stack["number"]) for frame in (2, 5, 8)
    ]
    assert all(len(one["results"]) == 1 for one in frames)
    for frame in (1, 7):
        data = client.get(f"/api/v1/images/{stack['id']}/frames/{frame}/dicom").content
        assert dcmread(io.BytesIO(data)).pixel_array[5, 5] == 100 * frame
    assert error_of(client.get(f"/api/v1/images/{stack['id']}/frames/10/dicom")) == (404, "not_found")
    draft = client.get(f"/api/v1/studies/{study['id']}/draft").json()
    assert "Image 1, frame 5: pneumonia positive" in draft["text"]
    again = upload(client, cine(9, SOPInstanceUID=dcmread(io.BytesIO(cine(9))).SOPInstanceUID)).json()
    assert again["studies"][0]["id"] == study["id"]


def test_another_frame_is_read_when_somebody_asks(client: TestClient, service: Service) -> None:
    study = upload(client, cine(9)).json()["studies"][0]["id"]
    do_jobs(service)
    stack = client.get(f"/api/v1/studies/{study}").json()["image_list"][0]["id"]
    assert error_of(client.post(f"/api/v1/images/{stack}/reads", json={})) == (409, "conflict")
    asked = [client.post(f"/api/v1/images/{stack}/frames/7/reads", json={}) for _ in range(2)]
    assert [one.status_code for one in asked] == [202, 202]
    assert asked[0].json()["id"] == asked[1].json()["id"]
    do_jobs(service)
    listed = client.get(f"/api/v1/studies/{study}").json()["image_list"]
    assert sorted(one["frame"] for one in listed[1:] if one["results"]) == [2, 5, 7, 8]
    assert error_of(client.post(f"/api/v1/images/{stack}/frames/10/reads", json={})) == (404, "not_found")
    assert error_of(client.post(f"/api/v1/images/{stack}/frames/0/reads", json={})) == (422, "invalid")


def test_pages_of_a_tiff_are_frames_too_and_marks_say_on_which_they_lie(client: TestClient, service: Service) -> None:
    study = upload(client, pages(10, 200)).json()["studies"][0]["id"]
    do_jobs(service)
    stack, first, second = client.get(f"/api/v1/studies/{study}").json()["image_list"]
    assert (stack["frames"], first["frame"], second["frame"]) == (2, 1, 2)
    data = client.get(f"/api/v1/images/{stack['id']}/frames/2/dicom").content
    assert dcmread(io.BytesIO(data)).pixel_array[5, 5] == round(200 / 255 * 65535)
    mark = {"kind": "length", "frame": 2, "points": [[0, 0], [3, 4]]}
    made = client.post(f"/api/v1/images/{stack['id']}/annotations", json=mark).json()
    assert (made["frame"], made["value"], made["unit"]) == (2, 5.0, "px")
    beyond = client.post(f"/api/v1/images/{stack['id']}/annotations", json={**mark, "frame": 3})
    assert error_of(beyond) == (422, "invalid")
    assert load_image(service.blobs.path(_sha(service, second["id"]))).pixels.shape == (24, 40)


def test_a_stack_goes_with_its_frames(client: TestClient, service: Service) -> None:
    study = upload(client, cine(9)).json()["studies"][0]["id"]
    assert client.delete(f"/api/v1/studies/{study}").status_code == 204
    assert [path for path in (service.root / "blobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["rtdose.dcm", "no such frames"])
def test_what_cannot_be_cut_or_read_is_refused_with_its_reason(client: TestClient, name: str) -> None:
    if name == "rtdose.dcm":  # 15 frames of 10 x 10
        path = get_testdata_file(name, download=False)
        assert path is not None
        data, reason = Path(path).read_bytes(), "at least 16 x 16 pixels"
    else:
        data, reason = dicom_bytes(gradient(), NumberOfFrames=7), "expected complete pixel data"
    answer = upload(client, data)
    assert error_of(answer)[0] == 422
    assert reason in answer.json()["error"]["message"]


def _sha(service: Service, image: str) -> str:
    from wetread.service.tables import StudyImage

    with service.database.read() as session:
        return session.get_one(StudyImage, image).sha256
