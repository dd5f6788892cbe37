"""Copies are found, different radiographs are not taken for copies."""

from __future__ import annotations

from io import BytesIO
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tests.datasets.pictures import picture, write
from wetread.datasets.duplicates import MAX_HAMMING, MIN_CORRELATION, find_copies
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.scan import scan

N_ORIGINALS = 40


def scanned(folder: Path) -> pd.DataFrame:
    paths = sorted(p.name for p in folder.iterdir())
    return scan(Manifest(pd.DataFrame({"path": paths}), DatasetMeta(name="t", root=str(folder)), folder))


def pairs(found: pd.DataFrame) -> dict[str, set[frozenset[str]]]:
    """Names of each pair, by kind."""
    name = found["path"].tolist()
    copies = find_copies(found)
    return {
        "exact": {frozenset((name[a], name[b])) for g in copies.exact for a, b in combinations(g, 2)},
        "near": {frozenset((name[p.first], name[p.second])) for p in copies.near},
        "mirrored": {frozenset((name[p.first], name[p.second])) for p in copies.mirrored},
    }


def test_exact_copies_in_another_format_resized_recompressed_and_mirrored(tmp_path: Path) -> None:
    expected: dict[str, set[frozenset[str]]] = {"exact": set(), "near": set(), "mirrored": set()}
    for i in range(N_ORIGINALS):
        original = Image.open(write(tmp_path / f"{i}.png", seed=i))
        kind, copy, name = [
            ("exact", original, f"{i}-copy.tif"),  # other bytes, same pixels
            ("near", original.resize((60, 70)), f"{i}-small.png"),
            ("near", original.resize((150, 150)), f"{i}-large.png"),
            ("near", original, f"{i}-q50.jpg"),
            ("mirrored", ImageOps.mirror(original), f"{i}-mirrored.png"),
        ][i % 5]
        copy.save(tmp_path / name, quality=50)  # only JPEG knows a quality
        expected[kind].add(frozenset((f"{i}.png", name)))
    assert pairs(scanned(tmp_path)) == expected  # recall 100 % of each kind, and nothing else


def test_pairs_within_reach_agree_with_an_independent_search(tmp_path: Path) -> None:
    """Every pair, one by one, with imagehash's own distance and numpy's own correlation."""
    rng = np.random.default_rng(0)
    for i in range(12):
        base = picture(i // 2).astype(float)
        noisy = base + rng.normal(scale=3.0 * (i % 2) * (i + 1), size=base.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    found = scanned(tmp_path)
    images = [Image.open(tmp_path / p) for p in found["path"]]
    hashes = [imagehash.phash(i) for i in images]
    thumbs = [np.asarray(i.resize((32, 32), Image.Resampling.LANCZOS), float).ravel() for i in images]
    by_hand = set()
    for a, b in combinations(range(12), 2):
        close = hashes[a] - hashes[b] <= MAX_HAMMING
        alike = np.corrcoef(thumbs[a], thumbs[b])[0, 1] >= MIN_CORRELATION
        if close and alike:
            by_hand.add((a, b))
    assert {(p.first, p.second) for p in find_copies(found).near} == by_hand
    assert 0 < len(by_hand) < 66


def test_blank_images_of_different_brightness_are_no_near_copies(tmp_path: Path) -> None:
    for level in (10, 90, 200):
        Image.fromarray(np.full((64, 64), level, np.uint8)).save(tmp_path / f"{level}.png")
    found = find_copies(scanned(tmp_path))
    assert found.near == ()
    assert found.mirrored == ()


def test_unreadable_images_take_no_part(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"not an image")
    (tmp_path / "c.png").write_bytes(b"not an image")
    found = scanned(tmp_path)
    assert found["error"].isna().tolist() == [True, False, False]
    copies = find_copies(found)
    assert (copies.exact, copies.near, copies.mirrored) == ((), (), ())


@pytest.mark.parametrize("kind", ["exact", "half", "q50"])
def test_copies_of_real_radiographs(kind: str, shared_data: Path, tmp_path: Path) -> None:
    """100 radiographs of different patients and a copy of each: recall as promised, no false pair."""
    files = sorted((shared_data / "kermany-cxr" / "train" / "NORMAL").glob("IM-*.jpeg"))
    if not files:
        pytest.skip("no Kermany radiographs in the shared data")
    by_patient = {f.name.split("-")[1]: f for f in files}
    chosen = list(by_patient.values())[:100]
    expected = set()
    for file in chosen:
        (tmp_path / file.name).symlink_to(file)
        original = Image.open(file).convert("L")
        if kind == "exact":
            name, copy = f"{file.stem}-copy.png", original
        elif kind == "half":
            name, copy = f"{file.stem}-half.png", original.resize((112, 112))
        else:
            buffer = BytesIO()
            original.save(buffer, "JPEG", quality=50)
            name, copy = f"{file.stem}-q50.png", Image.open(buffer)
        copy.save(tmp_path / name)
        expected.add(frozenset((file.name, name)))
    found = pairs(scanned(tmp_path))
    hits = found["exact"] | found["near"]
    least = {"exact": 100, "half": 100, "q50": 99}[kind]
    assert len(hits & expected) >= least
    assert hits - expected == set()
    assert found["mirrored"] == set()
