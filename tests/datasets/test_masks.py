"""Annotated masks: values as stored, sizes never changed, pictures and SEG, and a refusal for every doubt."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as PilImage

from tests.datasets.mask_support import COLUMNS, ROWS, corner
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.masks import (
    load_masks,
    mask_column,
    read_dicom_seg,
    read_index_mask,
    read_mask,
)
from wetread.datasets.phantoms import DatasetPlan, Phantom, PhantomSpec, make_dataset, render, write_dicom
from wetread.errors import DatasetRefused, ImageRefused, OverBudget, UnsupportedImage, UsageError
from wetread.imaging import load_image


def indices() -> NDArray[np.uint8]:
    """Background 0, value 1 in a corner, value 3 in another."""
    found = corner().astype(np.uint8)
    found[10:15, 1:4] = 3
    return found


def png(folder: Path, values: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    picture = PilImage.fromarray(values)
    path = folder / "mask.png"
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def palette(folder: Path, values: NDArray[np.uint8], **options: Any) -> Path:
    picture = PilImage.fromarray(values).convert("L")
    picture = PilImage.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([0, 0, 0, 200, 30, 30, 9, 9, 9, 30, 200, 30])
    picture.save(folder / "mask.png", **options)
    return folder / "mask.png"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(folder: Path, columns: int, rows: int, bits: int, packed: bytes, colour_type: int = 0) -> Path:
    header = struct.pack(">IIBBBBB", columns, rows, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    path = folder / "mask.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


class TestTwoValues:
    @pytest.mark.parametrize("kind", ["1 bit", "255", "1", "16 bits", "palette", "rgb", "rgba", "gray alpha", "tiff"])
    def test_comes_back_whatever_the_depth(self, kind: str, tmp_path: Path) -> None:
        grey = corner().astype(np.uint8) * 255
        if kind == "tiff":
            path = tmp_path / "mask.tif"
            tifffile.imwrite(path, grey)
        elif kind == "palette":
            path = palette(tmp_path, corner().astype(np.uint8))
        else:
            modes = {"rgb": "RGB", "rgba": "RGBA", "gray alpha": "LA"}
            values = {"1 bit": corner(), "1": grey // 255, "16 bits": grey.astype(np.uint16) * 257}
            path = png(tmp_path, values.get(kind, grey), modes.get(kind))
        found = read_mask(path, ROWS, COLUMNS)
        assert found.dtype == np.bool_
        assert np.array_equal(found, corner())

    def test_empty_and_full_are_facts(self, tmp_path: Path) -> None:
        for value in (0, 255):
            found = read_mask(png(tmp_path, np.full((ROWS, COLUMNS), value, np.uint8)), ROWS, COLUMNS)
            assert found.all() == found.any() == bool(value)

    def test_several_values_are_not_guessed(self, tmp_path: Path) -> None:
        match = r"0 and one other value, got the values 0, 1, 3 in mask\.png; declare the value of each organ"
        with pytest.raises(DatasetRefused, match=match):
            read_mask(png(tmp_path, indices()), ROWS, COLUMNS)
        with pytest.raises(DatasetRefused, match=r"got the values 7, 9 in mask"):
            read_mask(png(tmp_path, np.where(corner(), 7, 9).astype(np.uint8)), ROWS, COLUMNS)

    def test_mask_that_went_through_jpeg(self, tmp_path: Path) -> None:
        PilImage.fromarray(corner()).convert("L").save(tmp_path / "mask.jpg", quality=70)
        with pytest.raises(DatasetRefused, match=r"a mask as PNG or TIFF, got JPEG: mask\.jpg; save it as PNG"):
            read_mask(tmp_path / "mask.jpg", ROWS, COLUMNS)
        smeared = np.asarray(PilImage.open(tmp_path / "mask.jpg"))
        with pytest.raises(DatasetRefused, match=r"and \d+ more in mask\.png; JPEG or resampling smeared it"):
            read_mask(png(tmp_path, smeared), ROWS, COLUMNS)


class TestDeclaredValues:
    def test_any_of_the_values(self, tmp_path: Path) -> None:
        path = png(tmp_path, indices())
        assert np.array_equal(read_mask(path, ROWS, COLUMNS, values=(1,)), corner())
        assert np.array_equal(read_mask(path, ROWS, COLUMNS, values=(1, 3)), indices() > 0)
        assert not read_mask(path, ROWS, COLUMNS, values=(2, 300)).any()
        with pytest.raises(UsageError, match=r"at least one value of the organ, got none"):
            read_mask(path, ROWS, COLUMNS, values=())

    @pytest.mark.parametrize("how", ["grey", "16 bits", "palette", "palette of 2 bits", "tiff"])
    def test_index_mask(self, how: str, tmp_path: Path) -> None:
        if how == "tiff":
            path = tmp_path / "mask.tif"
            tifffile.imwrite(path, indices().astype(np.uint16))
        elif how.startswith("palette"):
            path = palette(tmp_path, indices(), **({"bits": 2} if "2" in how else {}))
        else:
            path = png(tmp_path, indices().astype(np.uint16 if "16" in how else np.uint8))
        found = read_index_mask(path, ROWS, COLUMNS, {1: "lungs", 3: "heart"})
        assert list(found) == ["lungs", "heart"]
        assert np.array_equal(found["lungs"], indices() == 1)
        assert np.array_equal(found["heart"], indices() == 3)

    @pytest.mark.parametrize("bits", [2, 4])
    def test_grey_of_few_bits_keeps_its_numbers(self, bits: int, tmp_path: Path) -> None:
        values = np.zeros((ROWS, 32), np.uint8)
        values[3:6, 8:16], values[9:12, 16:24] = 1, 3
        places = values.reshape(ROWS, -1, 8 // bits).astype(np.uint16)
        packed = (places << np.arange(8 - bits, -1, -bits, dtype=np.uint16)).sum(axis=2).astype(np.uint8)
        lines = b"".join(b"\0" + line.tobytes() for line in packed)
        found = read_index_mask(raw_png(tmp_path, 32, ROWS, bits, lines), ROWS, 32, {1: "lungs", 3: "heart"})
        assert np.array_equal(found["heart"], values == 3)

    def test_two_values_of_one_organ(self, tmp_path: Path) -> None:
        found = read_index_mask(png(tmp_path, indices()), ROWS, COLUMNS, {1: "lungs", 3: "lungs"})
        assert np.array_equal(found["lungs"], indices() > 0)

    def test_undeclared_value_is_refused(self, tmp_path: Path) -> None:
        match = r"the declared values 1, 2, got also the values 3 in mask\.png; declare them too"
        with pytest.raises(DatasetRefused, match=match):
            read_index_mask(png(tmp_path, indices()), ROWS, COLUMNS, {2: "heart", 1: "lungs"})


class TestFilesThatAreRefused:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetRefused, match=r"a mask file, got no such file: mask\.png; check the path"):
            read_mask(tmp_path / "mask.png", ROWS, COLUMNS)

    def test_folder_empty_and_text(self, tmp_path: Path) -> None:
        with pytest.raises(ImageRefused, match=r"got a folder"):
            read_mask(tmp_path, ROWS, COLUMNS)
        path = tmp_path / "mask.png"
        path.touch()
        with pytest.raises(ImageRefused, match=r"got an empty file: mask\.png"):
            read_mask(path, ROWS, COLUMNS)
        path.write_text("no image")
        with pytest.raises(DatasetRefused, match=r"a mask as PNG or TIFF, got .*mask\.png"):
            read_mask(path, ROWS, COLUMNS)

    @pytest.mark.parametrize("kept", [20, 50, 60, 75])
    def test_cut_short(self, kept: int, tmp_path: Path) -> None:
        path = png(tmp_path, corner())
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ImageRefused, match=r"a PNG mask, got data that cannot be decoded in mask\.png"):
            read_mask(path, ROWS, COLUMNS)

    @pytest.mark.parametrize("place", range(41, 64, 4))
    def test_flipped_byte_of_the_pixels(self, place: int, tmp_path: Path) -> None:
        path = png(tmp_path, corner())
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(ImageRefused, match=r"a PNG mask, got data that cannot be decoded in mask\.png"):
            read_mask(path, ROWS, COLUMNS)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_another_size(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"mask.{suffix}"
        PilImage.fromarray(corner()).convert("L").save(path)
        match = rf"size of its image, 20 x 30 pixels, got 30 x 20 pixels in mask\.{suffix}; .* nor turned"
        with pytest.raises(DatasetRefused, match=match):
            read_mask(path, COLUMNS, ROWS)

    def test_bomb_is_refused_from_its_header(self, tmp_path: Path) -> None:
        path = raw_png(tmp_path, 60_000, 60_000, 8, b"")
        with pytest.raises(OverBudget, match=r"at most 512 MiB decoded, got 60000 x 60000 pixels"):
            read_mask(path, 60_000, 60_000)
        path = raw_png(tmp_path, 9_000, 9_000, 8, b"")  # within the budget, and still never decoded
        with pytest.raises(DatasetRefused, match=r"30 x 20 pixels, got 9000 x 9000 pixels"):
            read_mask(path, ROWS, COLUMNS)

    def test_colours_and_transparency(self, tmp_path: Path) -> None:
        colours = np.zeros((ROWS, COLUMNS, 3), np.uint8)
        colours[corner(), 0] = 255
        with pytest.raises(DatasetRefused, match=r"one channel or equal ones, got colours in mask\.png; save it as"):
            read_mask(png(tmp_path, colours), ROWS, COLUMNS)
        alpha = np.dstack([np.full((ROWS, COLUMNS, 3), 255, np.uint8), corner().astype(np.uint8) * 255])
        with pytest.raises(DatasetRefused, match=r"without transparency, got a partly transparent one"):
            read_mask(png(tmp_path, alpha), ROWS, COLUMNS)

    def test_kinds_whose_values_are_in_doubt(self, tmp_path: Path) -> None:
        match = r"a plain mask: .*, got another kind in mask\.\w+; save it as 8-bit grey PNG"
        exif = PilImage.Exif()
        exif[0x0112] = 6
        with pytest.raises(UnsupportedImage, match=match):
            read_mask(png(tmp_path, corner().astype(np.uint8), exif=exif), ROWS, COLUMNS)
        more = [PilImage.fromarray(np.flipud(corner()).astype(np.uint8))]
        animation = png(tmp_path, corner().astype(np.uint8), save_all=True, append_images=more)
        with pytest.raises(UnsupportedImage, match=match):
            read_mask(animation, ROWS, COLUMNS)
        wide = b"".join(b"\0" + bytes(COLUMNS * 6) for _ in range(ROWS))
        with pytest.raises(UnsupportedImage, match=match):
            read_mask(raw_png(tmp_path, COLUMNS, ROWS, 16, wide, colour_type=2), ROWS, COLUMNS)
        tiff = tmp_path / "mask.tif"
        for values, photometric in ((corner().astype(np.float32), "minisblack"), (corner(), "miniswhite")):
            tifffile.imwrite(tiff, values, photometric=photometric)
            with pytest.raises(UnsupportedImage, match=match):
                read_mask(tiff, ROWS, COLUMNS)


SIDE = 64


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return render(PhantomSpec(seed=17, size_px=SIDE))


@pytest.fixture
def film(phantom: Phantom, tmp_path: Path) -> Path:
    return write_dicom(phantom, tmp_path / "film.dcm")


def write_seg(film: Path, pixels: NDArray[Any], labels: tuple[str, ...], kind: str = "BINARY", copies: int = 1) -> Path:
    """A SEG of ``film``, or of a volume of ``copies`` slices like it, by highdicom alone."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    sources = []
    for number in range(copies):
        source = pydicom.dcmread(film)
        if copies > 1:
            source.SOPInstanceUID, source.FrameOfReferenceUID = f"{source.SOPInstanceUID}{number}", "1.2.3"
            source.ImagePositionPatient, source.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
            source.PixelSpacing, source.SliceThickness = [1, 1], 1
        sources.append(source)
    algorithm = AlgorithmIdentificationSequence(name="x", version="1", family=codes.DCM.ArtificialIntelligence)
    category, lung = codes.SCT.AnatomicalStructure, codes.SCT.Lung
    described = [
        SegmentDescription(number, label, category, lung, "AUTOMATIC", algorithm)
        for number, label in enumerate(labels, 1)
    ]
    seg = Segmentation(
        sources, pixels, kind, described, generate_uid(), 2, generate_uid(), 1, "m", "n", "1", "s",
        max_fractional_value=200, omit_empty_frames=kind != "LABELMAP",
    )  # fmt: skip
    path = film.with_name("seg.dcm")
    seg.save_as(path)
    return path


class TestDicomSeg:
    @pytest.mark.parametrize("organ", ["lungs", "LUNGS", "lung_left", "Left lung", "lung, left"])
    def test_segment_is_found_by_label(self, organ: str, phantom: Phantom, film: Path) -> None:
        both = phantom.lung_left | phantom.lung_right
        pixels = np.stack([both, phantom.lung_left], axis=-1)[None].astype(np.uint8)
        path = write_seg(film, pixels, ("Lungs", "Left lung"))
        wanted = phantom.lung_left if "left" in organ.lower() else both
        assert np.array_equal(read_dicom_seg(path, SIDE, SIDE, organ=organ), wanted)

    def test_label_map(self, phantom: Phantom, film: Path) -> None:
        labels = np.where(phantom.lung_left, 1, np.where(phantom.lung_right, 2, 0)).astype(np.uint8)
        path = write_seg(film, labels, ("left lung", "right lung"), "LABELMAP")
        assert np.array_equal(read_dicom_seg(path, SIDE, SIDE, organ="lung_right"), labels == 2)

    def test_fractions_count_from_one_half(self, phantom: Phantom, film: Path) -> None:
        share = np.where(phantom.lung_left, 0.5, np.where(phantom.lung_right, 0.49, 0.0)).astype(np.float32)
        path = write_seg(film, share, ("lungs",), "FRACTIONAL")
        assert np.array_equal(read_dicom_seg(path, SIDE, SIDE, organ="lungs"), phantom.lung_left)

    def test_segment_without_frame_is_empty(self, phantom: Phantom, film: Path) -> None:
        pixels = np.stack([phantom.heart, np.zeros_like(phantom.heart)], axis=-1)[None].astype(np.uint8)
        path = write_seg(film, pixels, ("heart", "lungs"))
        assert pydicom.dcmread(path).NumberOfFrames == 1
        assert not read_dicom_seg(path, SIDE, SIDE, organ="lungs").any()

    def test_no_such_segment_and_two_of_one_name(self, phantom: Phantom, film: Path) -> None:
        pixels = np.stack([phantom.heart, phantom.lung_left], axis=-1)[None].astype(np.uint8)
        path = write_seg(film, pixels, ("Heart", "Left lung"))
        with pytest.raises(DatasetRefused, match=r"one segment 'lungs', got the segments 'Heart', 'Left lung' in seg"):
            read_dicom_seg(path, SIDE, SIDE, organ="lungs")
        path = write_seg(film, pixels, ("Heart", "heart"))
        with pytest.raises(DatasetRefused, match=r"one segment 'heart', got the segments 'Heart', 'heart'"):
            read_dicom_seg(path, SIDE, SIDE, organ="heart")

    def test_another_series_or_image(self, phantom: Phantom, film: Path) -> None:
        path = write_seg(film, phantom.heart.astype(np.uint8), ("heart",))
        source = pydicom.dcmread(film)
        same = {"series_uid": source.SeriesInstanceUID, "instance_uid": source.SOPInstanceUID}
        assert read_dicom_seg(path, SIDE, SIDE, organ="heart", **same).any()
        for wrong in ("series_uid", "instance_uid"):
            with pytest.raises(DatasetRefused, match=r"made of this image, got one of another image or series: seg"):
                read_dicom_seg(path, SIDE, SIDE, organ="heart", **{wrong: "1.2.3"})

    def test_seg_that_names_no_image(self, phantom: Phantom, film: Path) -> None:
        path = write_seg(film, phantom.heart.astype(np.uint8), ("heart",))
        data = pydicom.dcmread(path)
        del data.ReferencedSeriesSequence
        del data.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
        data.save_as(path)
        assert read_dicom_seg(path, SIDE, SIDE, organ="heart").any()
        with pytest.raises(DatasetRefused, match=r"made of this image, got one that names no image: seg\.dcm; pair"):
            read_dicom_seg(path, SIDE, SIDE, organ="heart", series_uid="1.2.3")

    def test_several_frames_of_a_segment(self, phantom: Phantom, film: Path) -> None:
        pixels = np.stack([phantom.heart] * 2).astype(np.uint8)
        path = write_seg(film, pixels, ("heart",), copies=2)
        with pytest.raises(DatasetRefused, match=r"one frame for a segment, got 2 in seg\.dcm; .* not of a volume"):
            read_dicom_seg(path, SIDE, SIDE, organ="heart")

    def test_another_size_and_bomb(self, phantom: Phantom, film: Path) -> None:
        path = write_seg(film, phantom.heart.astype(np.uint8), ("heart",))
        with pytest.raises(DatasetRefused, match=r"size of its image, 64 x 65 pixels, got 64 x 64 pixels in seg"):
            read_dicom_seg(path, 65, SIDE, organ="heart")
        data = pydicom.dcmread(path)
        data.Rows = data.Columns = 60_000
        data.save_as(path)
        with pytest.raises(OverBudget, match=r"got 60000 x 60000 pixels"):
            read_dicom_seg(path, 60_000, 60_000, organ="heart")

    def test_no_seg_and_damaged_seg(self, phantom: Phantom, film: Path) -> None:
        with pytest.raises(ImageRefused, match=r"a DICOM SEG, got another DICOM object: film\.dcm"):
            read_dicom_seg(film, SIDE, SIDE, organ="heart")
        with pytest.raises(ImageRefused, match=r"a DICOM SEG, got PNG: mask\.png"):
            read_dicom_seg(png(film.parent, corner()), ROWS, COLUMNS, organ="heart")
        path = write_seg(film, phantom.heart.astype(np.uint8), ("heart",))
        data = pydicom.dcmread(path)
        del data.SegmentSequence
        data.save_as(path)
        with pytest.raises(ImageRefused, match=r"a readable DICOM SEG, got a broken one: seg\.dcm"):
            read_dicom_seg(path, SIDE, SIDE, organ="heart")


def manifest_of(folder: Path, organ: str | None = None, **columns: str | None) -> Manifest:
    table = pd.DataFrame([{"path": "film.png"} | columns])
    return Manifest(table, DatasetMeta(name="masks", organ=organ), folder)


class TestManifest:
    @pytest.mark.parametrize(
        ("organ", "subject", "columns", "wanted"),
        [
            ("lungs", "lungs", ("mask_heart",), "mask"),
            ("lungs", None, (), "mask"),
            ("lungs", "Lungs", ("mask_lungs",), "mask_lungs"),
            ("heart", "lungs", ("mask_heart",), "mask_heart"),
            ("heart", "lungs", (), None),
            ("left lung", "lungs", ("mask_left_lung",), "mask_left_lung"),
            ("lung_left", "lungs", ("mask_lung_left",), "mask_lung_left"),
        ],
    )
    def test_column(
        self, organ: str, subject: str | None, columns: tuple[str, ...], wanted: str | None, tmp_path: Path
    ) -> None:
        # every manifest has a column mask, empty where nobody gave one
        assert mask_column(organ, manifest_of(tmp_path, subject, **dict.fromkeys(columns))) == wanted

    def test_masks_of_phantoms_come_back(self, tmp_path: Path) -> None:
        manifest = make_dataset(tmp_path / "set", DatasetPlan(n=3, size_px=SIDE, seed=3, fractions={}))
        for _, row in manifest.table.iterrows():
            shape = load_image(manifest.path_of(row)).pixels.shape
            found = load_masks(manifest, row, ("lungs", "lung_left", "lung_right", "heart", "spleen"), *shape)
            assert found["spleen"] is None
            masks = {organ: mask for organ, mask in found.items() if mask is not None}
            assert len(masks) == 4
            assert all(mask.shape == shape and mask.any() for mask in masks.values())
            assert np.array_equal(masks["lungs"], masks["lung_left"] | masks["lung_right"])

    def test_row_without_a_mask_is_unknown(self, tmp_path: Path) -> None:
        manifest = manifest_of(tmp_path, mask=None, mask_heart=" ")
        assert load_masks(manifest, manifest.table.iloc[0], ("lungs", "heart"), ROWS, COLUMNS) == {
            "lungs": None,
            "heart": None,
        }

    def test_one_picture_is_not_two_organs(self, tmp_path: Path) -> None:
        png(tmp_path, corner())
        manifest = manifest_of(tmp_path, mask="mask.png")
        row = manifest.table.iloc[0]
        assert load_masks(manifest, row, ["lungs"], ROWS, COLUMNS)["lungs"] is not None
        with pytest.raises(DatasetRefused, match=r"of its own for each organ, got mask\.png for lungs and heart; set"):
            load_masks(manifest, row, ("lungs", "heart"), ROWS, COLUMNS)

    def test_index_mask_with_declared_values(self, tmp_path: Path) -> None:
        png(tmp_path, indices())
        manifest = manifest_of(tmp_path, "lungs", mask="mask.png")
        row = manifest.table.iloc[0]
        found = load_masks(manifest, row, ("lungs", "heart"), ROWS, COLUMNS, classes={1: "lungs", 3: "heart"})
        assert found["heart"] is not None
        assert np.array_equal(found["heart"], indices() == 3)
        with pytest.raises(DatasetRefused, match=r"got the values 0, 1, 3 in mask\.png; declare the value"):
            load_masks(manifest, row, ["lungs"], ROWS, COLUMNS)

    def test_seg_must_be_of_the_image_of_the_row(self, phantom: Phantom, film: Path) -> None:
        pixels = np.stack([phantom.lung_left | phantom.lung_right, phantom.heart], axis=-1)[None].astype(np.uint8)
        write_seg(film, pixels, ("Lungs", "Heart")).rename(film.with_name("seg"))  # content says what it is
        manifest = manifest_of(film.parent, path="film.dcm", mask="seg", mask_heart="seg")
        row = manifest.table.iloc[0]
        found = load_masks(manifest, row, ("lungs", "heart"), SIDE, SIDE)
        assert found["heart"] is not None
        assert np.array_equal(found["heart"], phantom.heart)
        other = pydicom.dcmread(film)
        other.SOPInstanceUID = f"{other.SOPInstanceUID}1"  # another film of the same series
        other.save_as(film)
        with pytest.raises(DatasetRefused, match=r"made of this image, got one of another image or series: seg"):
            load_masks(manifest, row, ["lungs"], SIDE, SIDE)

    def test_damaged_and_missing_are_refusals_of_the_data_set(self, tmp_path: Path) -> None:
        path = png(tmp_path, corner())
        path.write_bytes(path.read_bytes()[:60])
        manifest = manifest_of(tmp_path, mask="mask.png")
        with pytest.raises(DatasetRefused, match=r"masks that can be read, got mask\.png \(expected a PNG mask"):
            load_masks(manifest, manifest.table.iloc[0], ["lungs"], ROWS, COLUMNS)
        path.unlink()
        with pytest.raises(DatasetRefused, match=r"a mask file, got no such file: mask\.png"):
            load_masks(manifest, manifest.table.iloc[0], ["lungs"], ROWS, COLUMNS)


def test_every_lung_mask_of_covid_cxr(shared_data: Path) -> None:
    """322 masks by hand: each has the size of its film, two values, and lungs in it."""
    source = shared_data / "covid-cxr"
    if not source.is_dir():
        pytest.skip("no covid-cxr in the shared data")
    manifest = import_dataset(source).manifest
    rows = manifest.table[manifest.table["mask"].notna()]
    shares = []
    for _, row in rows.iterrows():
        with PilImage.open(manifest.path_of(row)) as film:
            columns, height = film.size
        found = load_masks(manifest, row, ("lungs", "heart"), height, columns)
        assert found["heart"] is None
        assert found["lungs"] is not None
        shares.append(float(found["lungs"].mean()))
    assert len(shares) == len(list((source / "lung_masks").iterdir()))
    assert 0.05 < min(shares) <= max(shares) < 0.75
