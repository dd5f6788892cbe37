"""Order, failures as records, and a queue that stays bounded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.reading.support import image_from, mixed_folder, phantom, write_films
from wetread.errors import ImageRefused, UsageError
from wetread.imaging import load_image
from wetread.reading.feed import Feed, Loaded, ReadFailure, Source, film_png, find_sources


def test_results_come_in_order_with_failures_in_their_place(tmp_path: Path) -> None:
    sources = find_sources([mixed_folder(tmp_path)])
    results = list(Feed(sources, ahead=3))
    names = [item.name if isinstance(item, ReadFailure) else item.source.name for item in results]
    assert names == sorted(path.name for path in tmp_path.iterdir())
    failed = {item.name: item for item in results if isinstance(item, ReadFailure)}
    assert sorted(failed) == ["empty.dcm", "half.dcm", "letter.dcm"]
    assert failed["empty.dcm"].error == "ImageRefused"
    assert "empty file" in failed["empty.dcm"].message


def test_names_are_paths_below_the_folder(tmp_path: Path) -> None:
    write_films(tmp_path / "ward" / "a", 1)
    write_films(tmp_path / "ward" / "b", 1)
    assert [s.name for s in find_sources([tmp_path / "ward"])] == ["a/film0.dcm", "b/film0.dcm"]
    both = find_sources([tmp_path / "ward" / "a", tmp_path / "ward" / "b"])
    assert [s.name for s in both] == ["a/film0.dcm", "b/film0.dcm"]
    assert find_sources([tmp_path / "ward" / "a" / "film0.dcm"])[0].name == "film0.dcm"
    loaded = next(iter(Feed(find_sources([tmp_path / "ward"]))))
    assert isinstance(loaded, Loaded)
    assert loaded.image.facts.name == "a/film0.dcm"


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    write_films(tmp_path, 2)
    assert len(find_sources([tmp_path, tmp_path / "film0.dcm"])) == 2


def test_missing_and_empty_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="no such path: nothing"):
        find_sources([tmp_path / "nothing"])
    with pytest.raises(ImageRefused, match="at least one image file"):
        find_sources([tmp_path])


def test_an_unexpected_error_costs_one_file_and_its_text_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_films(tmp_path, 2)

    def broken(path: Path, *, budget_bytes: int) -> object:
        if path == first:
            raise ZeroDivisionError("Doe^Jane 1970-01-01")
        return load_image(path, budget_bytes=budget_bytes)

    monkeypatch.setattr("wetread.reading.feed.load_image", broken)
    failure, loaded = Feed([Source(first, first.name), Source(second, second.name)])
    assert isinstance(failure, ReadFailure)
    assert failure.error == "ZeroDivisionError"
    assert "Doe" not in failure.message
    assert isinstance(loaded, Loaded)


def test_no_more_than_the_bound_is_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = write_films(tmp_path, 1)
    asked: list[int] = []

    def sources() -> object:
        for number in range(50):
            asked.append(number)
            yield Source(films[0], f"{number}")

    running = iter(Feed(sources(), ahead=4))  # type: ignore[arg-type]
    assert len(asked) == 4
    next(running)
    assert len(asked) == 5
    running.close()  # type: ignore[attr-defined]
    assert len(asked) == 5


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 image ahead, got 0"):
        Feed([], ahead=0)


def test_film_png_shows_the_whole_image_at_most_1024_wide() -> None:
    pixels = np.kron(phantom(2).image, np.ones((6, 8), np.float32))  # 1536 x 2048
    with PilImage.open(io.BytesIO(film_png(image_from(pixels)))) as picture:
        assert picture.size == (1024, 768)
        assert picture.mode == "L"
    with PilImage.open(io.BytesIO(film_png(image_from(phantom(2).image)))) as picture:
        assert np.array_equal(np.asarray(picture), np.rint(phantom(2).image * 255).astype(np.uint8))
