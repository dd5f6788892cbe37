"""``wetread.load(...).read(...)``, and that ``import wetread`` stays empty-handed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wetread
from tests.reading.support import image_from, mixed_folder, phantom, shared_bundle, text_page, write_films
from wetread.errors import BundleRefused, ImageRefused, UsageError
from wetread.reading.read import ReadFailure, ReadResult


@pytest.fixture(scope="module")
def loaded() -> wetread.LoadedReader:
    return wetread.load(shared_bundle())


def test_importing_wetread_imports_nothing_heavy() -> None:
    code = "import sys, wetread; print([m for m in ('torch', 'numpy', 'pydantic', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert wetread.__all__ == sorted(wetread.__all__)
    assert all(getattr(wetread, name) is not None for name in wetread.__all__)
    assert set(wetread.__all__) <= set(dir(wetread))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'wetread' has no attribute 'diagnose'"):
        wetread.diagnose  # noqa: B018


def test_read_takes_a_path_a_string_and_an_image(loaded: wetread.LoadedReader, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    by_path, by_string = loaded.read(film), loaded.read(str(film))
    in_memory = loaded.read(wetread.load_image(film))
    assert by_path.labels == by_string.labels == in_memory.labels
    assert by_path.image.name == "film0.dcm"


def test_read_raises_for_a_bad_file_and_withholds_for_a_page(loaded: wetread.LoadedReader, tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(ImageRefused, match=r"an empty file: empty\.dcm"):
        loaded.read(tmp_path / "empty.dcm")
    read = loaded.read(image_from(text_page()))
    assert not read.gate.passed
    assert read.labels[0].probability is None


def test_read_many_goes_on_after_a_bad_file(loaded: wetread.LoadedReader, tmp_path: Path) -> None:
    results = list(loaded.read_many(mixed_folder(tmp_path)))
    assert sum(isinstance(result, ReadResult) for result in results) == 7
    assert sum(isinstance(result, ReadFailure) for result in results) == 3
    with pytest.raises(ImageRefused, match="no such path"):
        loaded.read_many([tmp_path / "nothing"])


def test_options_change_by_copy(loaded: wetread.LoadedReader, tmp_path: Path) -> None:
    sensitive = loaded.with_options(operating_point="sensitivity=0.95")
    film = write_films(tmp_path, 1)[0]
    assert sensitive.read(film).labels[0].decision == "positive"
    assert loaded.options.operating_point is None
    with pytest.raises(UsageError, match="an operating point of small, got 'x'"):
        loaded.with_options(operating_point="x")
    with pytest.raises(UsageError, match=r"options among operating_point, .*got operatingpoint"):
        wetread.load(shared_bundle(), operatingpoint="youden")


def test_explain_offers_every_method(loaded: wetread.LoadedReader) -> None:
    film = image_from(phantom(101).image)
    assert loaded.explain(film, method="occlusion").method == "occlusion"
    with pytest.raises(UsageError, match=r"one of .*lime.*, got 'lemon'"):
        loaded.explain(film, method="lemon")  # type: ignore[arg-type]


def test_explain_gives_a_map_of_the_film(loaded: wetread.LoadedReader) -> None:
    explanation = loaded.explain(image_from(phantom(101).image), method="hirescam")
    assert explanation.label == "pneumonia"
    assert explanation.method == "hirescam"
    assert explanation.heat.shape == (256, 256)
    assert float(np.max(explanation.heat)) <= 1.0


def test_repr_says_what_it_is(loaded: wetread.LoadedReader) -> None:
    text = repr(loaded)
    for word in ("small 1", "pneumonia (binary)", "cnn 64x64", "youden", "not audited", "research use only"):
        assert word in text


def test_a_read_prints_as_a_summary(loaded: wetread.LoadedReader, tmp_path: Path) -> None:
    film = write_films(tmp_path, 2)[1]
    lines = str(loaded.read(film)).splitlines()
    assert lines[0] == "film1.png: read by small 1 (not audited)"
    assert lines[1].startswith("  pneumonia: 0.")
    assert lines[1].endswith("(from 0.500, youden)")
    assert lines[-1] == "  Research use only. Not a diagnosis."
    gated = str(loaded.read(image_from(text_page())))
    assert "withheld: It looks like a page of text" in gated
    assert "pneumonia" not in gated


def test_an_unknown_reader_is_refused() -> None:
    with pytest.raises(BundleRefused, match="the name or folder of a reader, got 'no-such-reader'"):
        wetread.load("no-such-reader")


def test_readers_lists_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WETREAD_PATHS__READERS", str(shared_bundle().parent))
    assert "small" in [card.name for card in wetread.api.readers()]
    assert wetread.load("small").card.name == "small"
