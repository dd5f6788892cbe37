"""Decoding against pydicom's own, what blacking out changes and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import expand_ybr422
from pydicom.uid import RLELossless

from benchmarks.deid_files import KINDS, plant
from tests.deid.support import grey, header, written
from wetread.deid.pixels import Frames, black_out, decode, encode, needs_search
from wetread.deid.process import parse
from wetread.deid.text import TextBox
from wetread.errors import ImageRefused, OverBudget
from wetread.imaging.header import quiet

BUDGET = 64 << 20
OTHERWISE = ("jpeg", "jpeg comment", "hidden bits", "j2k rgb")
"""Kinds whose decoded samples are not those stored: tested one by one below."""
BOX = TextBox(4, 2, 20, 10, "x", 1.0)


def _decoded(data: bytes) -> tuple[Frames, Dataset]:
    dataset, syntax = parse(data, BUDGET)
    with quiet():
        return decode(dataset, syntax, BUDGET), dataset


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        (m, k)
        for m, kinds in KINDS.items()
        for k in kinds
        if k not in ("jpeg", "jpeg comment", "hidden bits", "j2k rgb")
    ],
)
def test_frames_are_those_of_pydicom(tmp_path: object, modality: str, kind: str) -> None:
    import io

    data = plant(modality, KINDS[modality].index(kind), size_px=64).data
    frames, _ = _decoded(data)
    with quiet():
        source = dcmread(io.BytesIO(data))
        from pydicom.pixels.utils import pixel_array

        theirs = pixel_array(source, raw=True)
    ours = frames.values if frames.values.shape[0] > 1 else frames.values[0]
    assert np.array_equal(ours, theirs)


def test_jpeg_becomes_rgb_like_that_of_an_independent_decoder() -> None:
    import io

    from PIL import Image
    from pydicom.encaps import generate_frames

    planted = plant("US", KINDS["US"].index("jpeg"), size_px=64)
    frames, dataset = _decoded(planted.data)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    theirs = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))
    assert frames.photometric == "RGB"
    assert np.abs(frames.values[0].astype(int) - theirs.astype(int)).max() <= 2  # rounding of two libjpegs


def test_jpeg_2000_colour_is_lossless_and_rgb() -> None:
    frames, _ = _decoded(plant("SC", KINDS["SC"].index("j2k rgb"), size_px=64).data)
    plain, _ = _decoded(plant("SC", KINDS["SC"].index("rgb"), size_px=64).data)
    assert (frames.photometric, frames.values.shape) == ("RGB", plain.values.shape)


def test_subsampled_colour_is_spread_over_both_pixels() -> None:
    raw = np.arange(4 * 6 * 2, dtype=np.uint8).tobytes()
    data = grey(header(), np.zeros((4, 6, 3), np.uint8))
    data.PhotometricInterpretation, data.PixelData = "YBR_FULL_422", raw
    frames, _ = _decoded(written(data))
    assert frames.photometric == "YBR_FULL"
    assert frames.values[0].tobytes() == expand_ybr422(raw, 8)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4"])
@pytest.mark.parametrize("shape", [(12, 30), (3, 12, 30)])
def test_black_changes_the_box_alone_in_all_frames(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    low = -500 if dtype == "i2" else 3
    pixels = rng.integers(low, 100 if dtype == "u1" else 1000, shape).astype(dtype)
    frames, dataset = _decoded(written(grey(header(), pixels)))
    black_out(frames, [BOX], dataset)
    encode(dataset, frames)
    back, _ = _decoded(written(dataset))
    stack = pixels.reshape(-1, 12, 30)
    assert (back.values[:, 2:10, 4:20] == stack.min()).all()
    outside = np.ones((12, 30), bool)
    outside[2:10, 4:20] = False
    assert np.array_equal(back.values[:, outside], stack[:, outside])
    assert back.values.dtype == np.dtype(dtype)
    assert dataset.ImageType[0] == "DERIVED"


def test_black_is_the_brightest_value_of_an_inverted_film_and_zero_of_a_colour_one() -> None:
    film, dataset = _decoded(written(grey(header(), np.arange(360, dtype=np.uint16).reshape(12, 30), "MONOCHROME1")))
    black_out(film, [BOX], dataset)
    assert film.values[0, 5, 5] == 359
    colour, dataset = _decoded(written(grey(header(), np.full((12, 30, 3), 9, np.uint8))))
    black_out(colour, [BOX], dataset)
    assert colour.values[0, 5, 5].tolist() == [0, 0, 0]


def test_black_of_a_palette_is_its_darkest_colour() -> None:
    planted = plant("US", KINDS["US"].index("palette"), size_px=64)
    frames, dataset = _decoded(planted.data)
    black_out(frames, [BOX], dataset)
    assert frames.values[0, 5, 5] == frames.values.max()  # the highest index is the darkest there


def test_bits_above_the_stored_ones_are_cleared() -> None:
    pixels = np.arange(360, dtype=np.uint16).reshape(12, 30)
    data = grey(header(), pixels | 0x5000)
    data.BitsStored, data.HighBit = 12, 11
    frames, _ = _decoded(written(data))
    assert frames.tidied
    assert np.array_equal(frames.values[0], pixels)


@pytest.mark.parametrize("extended", [True, False])
def test_a_sign_above_the_stored_bits_is_no_hidden_bit(extended: bool) -> None:
    pixels = np.arange(-180, 180, dtype=np.int16).reshape(12, 30)
    data = grey(header(), pixels if extended else pixels & 0x0FFF)
    data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 1
    assert not _decoded(written(data))[0].tidied


def test_bytes_behind_the_pixels_are_cut() -> None:
    data = grey(header(), np.zeros((12, 30), np.uint8))
    data.PixelData += b"Vexhollow "
    frames, dataset = _decoded(written(data))
    assert frames.changed
    encode(dataset, frames)
    assert len(dataset.PixelData) == 360


def test_a_compressed_stream_without_text_stays_as_it_is() -> None:
    data = grey(header(), np.arange(360, dtype=np.uint8).reshape(12, 30) // 2)
    raw = written(data)
    compressed = dcmread(__import__("io").BytesIO(raw))
    compressed.compress(RLELossless)
    frames, _ = _decoded(written(compressed, str(RLELossless)))
    assert not frames.changed


def test_too_large_is_refused_before_decoding() -> None:
    data = grey(header(), np.zeros((12, 30), np.uint8))
    data.Rows = data.Columns = 60000
    dataset, syntax = parse(written(data), BUDGET)
    with pytest.raises(OverBudget, match=r"expected an image of at most 64 MiB decoded, got 60000 x 60000 pixels"):
        decode(dataset, syntax, BUDGET)


def test_cut_short_is_refused() -> None:
    data = grey(header(), np.zeros((12, 30), np.uint8))
    data.PixelData = b"\0" * 100
    dataset, syntax = parse(written(data), BUDGET)
    with pytest.raises(ImageRefused, match="expected complete pixel data, got 100 of 360 bytes"):
        decode(dataset, syntax, BUDGET)


@pytest.mark.parametrize(
    ("modality", "says", "searched"),
    [
        ("CT", "NO", False),
        ("CT", "YES", True),
        ("CT", "", True),
        ("US", "NO", True),
        ("CR", "NO", True),
        ("OT", "NO", True),
    ],
)
def test_whose_no_is_believed(modality: str, says: str, searched: bool) -> None:
    assert needs_search(header(Modality=modality, BurnedInAnnotation=says)) == searched


def test_a_secondary_capture_is_searched_whatever_it_says() -> None:
    captured = header(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2", BurnedInAnnotation="NO")
    assert needs_search(captured)
