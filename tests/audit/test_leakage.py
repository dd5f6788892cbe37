"""T1: patients and pixels in two splits fail, changed copies warn, nothing passes without patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.audit.test_copies import cut, film
from wetread.audit.leakage import found_leaks, leaks
from wetread.audit.result import AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.scan import scan
from wetread.errors import DatasetRefused


@dataclass
class Shelf:
    """Films on disk that a test adds rows to."""

    folder: Path
    rows: list[dict[str, str | None]]

    def put(self, picture: Image.Image, split: str | None, patient: str | None = "own") -> None:
        name = f"{len(self.rows)}.png"
        picture.save(self.folder / name)
        self.rows.append({"path": name, "split": split, "patient": name if patient == "own" else patient})

    @property
    def manifest(self) -> Manifest:
        return Manifest(pd.DataFrame(self.rows), DatasetMeta(name="t", root=str(self.folder)), self.folder)

    def line(self) -> tuple[AuditLine, dict[str, bytes]]:
        return leaks(self.manifest, scan(self.manifest, workers=1), Thresholds())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Four films of four patients in two splits."""
    made = Shelf(tmp_path, [])
    for number in range(4):
        made.put(film(number), "train" if number < 2 else "test")
    return made


def test_a_clean_split_passes(shelf: Shelf) -> None:
    line, pictures = shelf.line()
    assert (line.answer, line.n, pictures, line.cure) == ("PASS", 4, {}, "")
    assert "in two of test and train" in line.sentence


def test_a_patient_in_two_splits_fails(shelf: Shelf) -> None:
    shelf.put(film(10), "train", "Ann")
    shelf.put(film(11), "test", "Ann")
    line, _ = shelf.line()
    assert line.answer == "FAIL"
    assert "1 patient" in line.sentence
    assert "Ann" not in line.model_dump_json()  # files are named, patients are not
    assert "--reset" in line.cure


def test_the_same_pixels_in_two_splits_fail_and_are_shown(shelf: Shelf) -> None:
    shelf.put(film(0), "test")
    line, pictures = shelf.line()
    assert line.answer == "FAIL"
    assert "pixel for pixel" in line.sentence
    assert [example.picture for example in line.examples] == list(pictures)
    assert line.examples[0].caption == "0.png (train) and 4.png (test): the same pixels"


def test_a_cut_and_mirrored_copy_warns_and_says_what_was_done(shelf: Shelf) -> None:
    shelf.put(cut(film(1), 4, 4, 4, 4).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "test")
    line, _ = shelf.line()
    assert line.answer == "WARN"
    assert "a person should look" in line.sentence
    assert "mirrored and cut to 9" in line.examples[0].caption
    assert any("1 mirrored and 1 cut" in note for note in line.notes)


def test_copies_within_a_split_or_outside_all_splits_are_no_leak(shelf: Shelf) -> None:
    shelf.put(film(0), "train")
    shelf.put(film(0), None)
    assert shelf.line()[0].answer == "PASS"


def test_without_patients_nothing_passes(shelf: Shelf) -> None:
    shelf.put(film(20), "train", None)
    line, _ = shelf.line()
    assert line.answer == "WARN"
    assert "1 image has no patient" in line.sentence


def test_one_split_is_not_assessable(tmp_path: Path) -> None:
    made = Shelf(tmp_path, [])
    made.put(film(0), "train")
    line, _ = made.line()
    assert line.answer == "NOT ASSESSABLE"
    assert "not divided into splits" in line.sentence


def test_unreadable_images_are_counted_and_a_foreign_scan_refused(shelf: Shelf) -> None:
    shelf.put(film(30), "test")
    (shelf.folder / "4.png").write_bytes(b"no image")
    line, _ = shelf.line()
    assert line.answer == "PASS"
    assert "1 image could not be read and was not compared" in line.notes
    scanned = scan(shelf.manifest, workers=1)
    shelf.put(film(31), "test")
    with pytest.raises(DatasetRefused, match=r"expected a scan of this manifest, got other rows; scan it again"):
        leaks(shelf.manifest, scanned, Thresholds())


def test_warnings_of_the_importer_are_notes(shelf: Shelf) -> None:
    manifest = shelf.manifest.with_table(shelf.manifest.table, warnings=("170 numbers occur twice",))
    line, _ = leaks(manifest, scan(manifest, workers=1), Thresholds())
    assert "170 numbers occur twice" in line.notes


def test_what_is_found_is_what_was_planted(shelf: Shelf) -> None:
    shelf.put(film(0), "test", "0.png")
    shelf.put(film(2).resize((100, 100)), "train")
    found = found_leaks(shelf.manifest, scan(shelf.manifest, workers=1))
    assert found.patients == ("0.png",)
    assert found.exact == ((0, 4),)
    assert [(pair.first, pair.second) for pair in found.copies] == [(2, 5)]
    assert np.isclose(found.copies[0].shown, 1, atol=0.01)
