"""Tiles of large images: what is tissue, where each tile lies, and files that are read tile by tile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as PilImage

from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.tiles import PLACES, TilePlan, cut_tiles, read_places, tissue_share, weight_map
from wetread.errors import DatasetRefused, ImageRefused, OverBudget, UsageError
from wetread.imaging.slide import open_slide

PINK, GLASS = (200, 120, 170), (244, 243, 245)


def slide_pixels(rows: int = 300, columns: int = 420) -> np.ndarray:
    """Glass with a block of pink tissue from (100, 60) to (260, 240), and a black border below."""
    pixels = np.full((rows, columns, 3), GLASS, np.uint8)
    pixels[100:260, 60:240] = PINK
    pixels[280:] = 0
    return pixels


def manifest_of(folder: Path, *names: str) -> Manifest:
    rows = {
        "path": list(names),
        "patient": [f"p{k}" for k in range(len(names))],
        "label": ["ill", "normal"][: len(names)],
    }
    meta = DatasetMeta(name="slides", classes=("normal", "ill"), root=str(folder))
    return Manifest(pd.DataFrame(rows), meta, folder)


def test_tissue_is_coloured_or_dark_and_glass_and_borders_are_not() -> None:
    def flat(*values: int) -> np.ndarray:
        return np.full((8, 8, len(values)), values, np.uint8)

    assert tissue_share(flat(*PINK)) == 1
    assert tissue_share(flat(*GLASS)) == 0
    assert tissue_share(flat(0, 0, 0)) == 0
    assert tissue_share(flat(120)) == 1  # a radiograph has no colour
    assert tissue_share(flat(250)) == 0
    half = flat(*GLASS).copy()
    half[:4] = PINK
    assert tissue_share(half) == 0.5


@pytest.mark.parametrize("tile", [None, 64, 112])
def test_a_tiled_file_and_a_plain_one_give_the_same_tiles(tmp_path: Path, tile: int | None) -> None:
    pixels = slide_pixels()
    if tile is None:
        PilImage.fromarray(pixels).save(tmp_path / "a.png")
    else:
        tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(tile, tile), photometric="rgb", compression="zlib")
    name = "a.png" if tile is None else "a.tif"
    found = cut_tiles(manifest_of(tmp_path, name), tmp_path / "out", TilePlan(size_px=50, tissue=0.5))
    corners = set(zip(found.table["tile_x"], found.table["tile_y"], strict=True))
    expected = {(x, y) for y in (100, 150, 200) for x in (50, 100, 150, 200)}
    assert corners == expected
    for path, x, y in zip(found.table["path"], found.table["tile_x"], found.table["tile_y"], strict=True):
        with PilImage.open(found.path_of(path)) as picture:
            assert picture.mode == "L"
            weights = np.array([0.299, 0.587, 0.114])
            assert np.allclose(np.asarray(picture), pixels[y : y + 50, x : x + 50] @ weights, atol=0.6)


def test_a_study_is_one_image_and_its_tiles_keep_what_was_known(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        PilImage.fromarray(slide_pixels()).save(tmp_path / name)
    found = cut_tiles(manifest_of(tmp_path, "a.png", "b.png"), tmp_path / "out", TilePlan(size_px=50, tissue=0.5))
    table = found.table
    assert table["study"].nunique() == 2
    assert table.groupby("study")["label"].unique().map(list).tolist() == [["ill"], ["normal"]]
    assert table.groupby("study")["series"].first().tolist() == ["a.png", "b.png"]
    found.require_files()


def test_the_tiles_with_most_tissue_are_kept_where_there_is_a_limit(tmp_path: Path) -> None:
    PilImage.fromarray(slide_pixels()).save(tmp_path / "a.png")
    plan = TilePlan(size_px=50, tissue=0.1, most=4)
    shares = cut_tiles(manifest_of(tmp_path, "a.png"), tmp_path / "out", plan).table["tissue"]
    assert len(shares) == 4
    assert shares.min() == 1


def test_weights_lie_where_their_tiles_were_cut(tmp_path: Path) -> None:
    PilImage.fromarray(slide_pixels()).save(tmp_path / "a.png")
    found = cut_tiles(manifest_of(tmp_path, "a.png"), tmp_path / "out", TilePlan(size_px=50, tissue=0.5))
    places = read_places(found.path_of(str(found.table["path"].iloc[0])).parent)
    assert places is not None
    assert (places["rows"], places["columns"], places["tile_px"]) == (300, 420, 50)
    chosen = next(name for name, corner in places["tiles"].items() if corner == [150, 200])
    weights = {name: 0.9 if name == chosen else 0.05 for name in places["tiles"]}
    heat = weight_map(places, weights)
    assert heat.shape == (300, 420)
    assert (heat[200:250, 150:200] == 1).all()
    assert heat[110, 60] == pytest.approx(0.05 / 0.9)
    assert heat[:99].max() == heat[:, 260:].max() == 0
    small = weight_map(places, weights, longest_px=42)
    assert small.shape == (30, 42)
    assert small[22, 17] == 1


def test_overlapping_tiles_share_their_place() -> None:
    places = {"rows": 10, "columns": 20, "tile_px": 10, "tiles": {"a": [0, 0], "b": [5, 0]}}
    heat = weight_map(places, {"a": 1.0, "b": 0.0})
    assert heat[0].tolist() == [1.0] * 5 + [0.5] * 5 + [0.0] * 10


def test_bands_of_a_sixteen_bit_file_are_eight_bits(tmp_path: Path) -> None:
    values = np.arange(96 * 80, dtype=np.uint16).reshape(96, 80) * 8
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32))
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.size == (96, 80)
        assert np.array_equal(slide.band(40, 30)[..., 0], (values[40:70] >> 8).astype(np.uint8))
        assert slide.band(90, 30).shape == (6, 80, 1)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_an_svs_is_read_by_its_own_tiles_and_a_tile_left_out_by_the_scanner_is_white(
    tmp_path: Path, codec: str
) -> None:
    pixels = np.full((192, 256, 3), GLASS, np.uint8)
    pixels[64:128, 64:192] = PINK
    parts = [pixels[y : y + 64, x : x + 64] for y in (0, 64, 128) for x in (0, 64, 128, 192)]
    sparse = iter([*parts[:-1], None])
    words = "Aperio Image Library v12.0.15\n256x192 [0,0 256x192] (64x64) |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        form: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": codec, "description": words}
        file.write(sparse, shape=pixels.shape, dtype=np.uint8, **form)
        file.write(pixels[::4, ::4], photometric="rgb", subfiletype=1)  # the thumbnail
    with tifffile.TiffFile(tmp_path / "a.svs") as file:
        assert file.is_svs
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.size == (192, 256)
        band = slide.band(50, 100).astype(int)
    assert np.abs(band[:78] - pixels[50:128]).max() <= 3  # codecs round
    assert (band[78:, 192:] == 255).all()


def test_a_damaged_tile_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a.svs"
    tifffile.imwrite(file, slide_pixels(), tile=(64, 64), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(file) as opened:
        offset = opened.pages[0].dataoffsets[0]
    data = bytearray(file.read_bytes())
    data[offset : offset + 4] = b"\0\0\0\0"
    file.write_bytes(data)
    with pytest.raises(ImageRefused, match=r"expected a whole TIFF, got .* in a.svs"), open_slide(file) as slide:
        slide.band(0, 10)


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    PilImage.new("RGB", (200, 200), GLASS).save(tmp_path / "glass.png")
    with pytest.raises(DatasetRefused, match=r"expected a tile with 25% tissue, got none in glass.png of 200 x 200"):
        cut_tiles(manifest_of(tmp_path, "glass.png"), tmp_path / "out", TilePlan(size_px=50))
    assert not (tmp_path / "out" / "tiles").exists()
    (tmp_path / "text.tif").write_bytes(b"II*\x00 not a TIFF at all")
    with pytest.raises(ImageRefused), open_slide(tmp_path / "text.tif"):
        pass
    PilImage.fromarray(slide_pixels()).save(tmp_path / "big.png")
    with (
        pytest.raises(OverBudget, match="expected an image of at most 0 MiB decoded"),
        open_slide(tmp_path / "big.png", budget_bytes=40_000),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size_px": 8}, "expected tiles of 16 to 4096 pixels, got 8"), ({"tissue": 1.5}, "a tissue share from 0 to 1")],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TilePlan(**changes)  # type: ignore[arg-type]


def test_places_are_plain_json(tmp_path: Path) -> None:
    assert read_places(tmp_path) is None
    (tmp_path / PLACES).write_text(json.dumps({"tiles": {}}), encoding="utf-8")
    assert read_places(tmp_path) == {"tiles": {}}
