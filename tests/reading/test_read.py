"""The same film gives the same answer alone, in any batch and in memory; junk never gets one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.models.support import small_reader as unsaved_reader
from tests.reading.support import (
    SPEC,
    colour_photograph,
    grey_png,
    image_from,
    make_bundle,
    mixed_folder,
    phantom,
    point,
    text_page,
    write_films,
)
from wetread.errors import UsageError
from wetread.imaging import load_image
from wetread.models.inputs import fit_pixels, normalise
from wetread.reading.feed import ReadFailure, find_sources
from wetread.reading.read import ReadOptions, ReadResult, read_image, read_images
from wetread.types import Read

if TYPE_CHECKING:
    from wetread.models.predict import Reader


def small_reader(*arguments: Any, **changes: Any) -> Reader:
    return unsaved_reader(*arguments, weights={"model.safetensors": "0" * 64}, **changes)


def reads_of(reader: Reader, paths: list[Path], options: ReadOptions | None = None) -> list[ReadResult]:
    results = list(read_images(reader, paths, options))
    assert all(isinstance(result, ReadResult) for result in results)
    return [result for result in results if isinstance(result, ReadResult)]


def probability(read: Read) -> float:
    value = read.labels[0].probability
    assert value is not None
    return value


def test_probability_agrees_with_the_steps_done_by_hand(reader: Reader, tmp_path: Path) -> None:
    import torch

    path = write_films(tmp_path, 1)[0]
    batch = torch.from_numpy(fit_pixels(load_image(path).pixels, SPEC)[None, None])
    with torch.inference_mode():
        logit = float(reader.networks[0](normalise(batch, SPEC))[0, 0])
    assert probability(reads_of(reader, [path])[0].read) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_no_result_depends_on_the_batch(reader: Reader, tmp_path: Path, batch_size: int) -> None:
    films = write_films(tmp_path, 5)
    alone = [read_image(reader, load_image(film)) for film in films]
    batch = reads_of(reader, films, ReadOptions(batch_size=batch_size))
    for one, result in zip(alone, batch, strict=True):
        assert probability(one) == probability(result.read)  # to the last bit, which is far below 1e-6
        assert one.gate.distance == result.read.gate.distance
        assert one.labels == result.read.labels  # decisions, heat map boxes and all


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "resnet18"])
def test_no_result_of_a_deep_network_depends_on_the_batch(architecture: str, tmp_path: Path) -> None:
    reader = small_reader(architecture, 64)
    films = write_films(tmp_path, 4)
    alone = [read_image(reader, load_image(film)) for film in films]
    batch = [result.read for result in reads_of(reader, films)]
    assert [probability(read) for read in alone] == pytest.approx([probability(read) for read in batch], abs=1e-6)
    assert [read.labels for read in alone] == [read.labels for read in batch]


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "resnet18"])
def test_no_result_depends_on_the_number_of_cores(architecture: str, tmp_path: Path) -> None:
    import torch

    reader = small_reader(architecture, 64)
    films = write_films(tmp_path, 12)
    one = reads_of(reader, films, ReadOptions(pictures=True))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        several = reads_of(reader, films, ReadOptions(pictures=True))
    finally:
        torch.set_num_threads(before)
    for alone, beside in zip(one, several, strict=True):
        assert alone.read.labels == beside.read.labels  # to the last bit, heat maps' boxes and all
        assert alone.heatmaps == beside.heatmaps
    assert any(result.heatmaps for result in several)  # else nothing was compared


def test_reading_twice_gives_the_same(reader: Reader, tmp_path: Path) -> None:
    films = write_films(tmp_path, 3)
    without_time = [
        [result.read.model_copy(update={"timings_ms": {}}) for result in reads_of(reader, films)] for _ in range(2)
    ]
    assert without_time[0] == without_time[1]


def test_order_failures_and_gate_in_one_batch(reader: Reader, tmp_path: Path) -> None:
    mixed_folder(tmp_path)
    colour_photograph(tmp_path / "holiday.png")
    grey_png(tmp_path / "page.png", text_page())
    grey_png(tmp_path / "blank.png", np.zeros((256, 256), np.float32))
    sources = find_sources([tmp_path])
    results = list(read_images(reader, sources, ReadOptions(batch_size=4)))
    names = [r.name if isinstance(r, ReadFailure) else r.read.image.name for r in results]
    assert names == [source.name for source in sources]
    read = {r.read.image.name: r.read for r in results if isinstance(r, ReadResult)}
    assert sum(isinstance(r, ReadFailure) for r in results) == 3
    for name, word in (("holiday.png", "colour"), ("page.png", "page of text"), ("blank.png", "blank")):
        assert word in read[name].gate.reasons[0]
        assert [label.probability for label in read[name].labels] == [None]
        assert read[name].labels[0].decision == "withheld"
        assert read[name].labels[0].reason == read[name].gate.reasons[0]
        assert read[name].labels[0].evidence is None
    assert sum(one.gate.passed for one in read.values()) == 7


def test_far_features_are_gated_without_probability_or_picture(tmp_path: Path) -> None:
    from wetread.models.bundle import load_reader

    make_bundle(tmp_path / "strict", limit=0.0)
    film = write_films(tmp_path / "films", 1)[0]
    result = reads_of(load_reader(tmp_path / "strict"), [film], ReadOptions(pictures=True))[0]
    assert not result.read.gate.passed
    assert result.read.gate.distance is not None
    assert result.read.gate.distance > 0
    assert result.read.labels[0].probability is None
    assert result.heatmaps == {}
    assert result.film_png is not None


def test_the_named_operating_point_decides(reader: Reader, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    all_positive = reads_of(reader, [film], ReadOptions(operating_point="sensitivity=0.95"))[0].read.labels[0]
    assert all_positive.decision == "positive"  # its threshold is 0
    assert all_positive.operating_point is not None
    assert all_positive.operating_point.name == "sensitivity=0.95"


def test_options_are_refused_before_a_file_is_opened(reader: Reader, tmp_path: Path) -> None:
    missing = [tmp_path / "missing.png"]
    with pytest.raises(UsageError, match="an operating point of small, got 'best'"):
        read_images(reader, missing, ReadOptions(operating_point="best"))
    with pytest.raises(UsageError, match="one of cam, gradcam"):
        read_images(reader, missing, ReadOptions(method="lemon"))
    with pytest.raises(UsageError, match="a batch size of at least 1, got 0"):
        ReadOptions(batch_size=0)


def test_too_many_views_are_refused(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 to 5 views, got 9"):
        list(read_images(reader, write_films(tmp_path, 1), ReadOptions(views=9)))


def test_averaged_views_are_the_mean_logit_of_zooms(reader: Reader, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    batch = reader.prepare([load_image(film)])
    logit = float(reader.forward(batch, 3).logits[0, 0])
    averaged = reads_of(reader, [film], ReadOptions(views=3))[0].read
    assert probability(averaged) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-9)
    assert probability(averaged) != probability(reads_of(reader, [film])[0].read)


def test_evidence_has_a_picture_only_where_asked(reader: Reader, tmp_path: Path) -> None:
    options = ReadOptions(operating_point="sensitivity=0.95")  # positive: a map is due
    films = write_films(tmp_path, 4)
    plain = reads_of(reader, films, options)
    assert all(result.film_png is None and result.heatmaps == {} for result in plain)
    shown = reads_of(reader, films, ReadOptions(operating_point="sensitivity=0.95", pictures=True))
    made = [r for r in shown if r.read.labels[0].evidence and r.read.labels[0].evidence.status == "made"]
    assert made
    for result in made:
        assert set(result.heatmaps) == {"pneumonia"}
        assert result.heatmaps["pneumonia"].startswith(b"\x89PNG")
    without = reads_of(reader, films, ReadOptions(heatmaps=False))
    assert all(result.read.labels[0].evidence is None for result in without)


def test_a_map_that_cannot_be_made_is_recorded_with_its_reason(tmp_path: Path) -> None:
    reader = small_reader("pixels", 32, operating_points=(point("youden", "finding", 0.0),))
    read = reads_of(reader, write_films(tmp_path, 1))[0].read
    evidence = read.labels[0].evidence
    assert evidence is not None
    assert "has none" in evidence.status
    assert any(warning.startswith("No heat map for finding") for warning in read.warnings)


def test_only_positive_labels_are_explained_else_the_most_probable(tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    labels = ("a", "b", "c")
    for threshold, expected_labels in ((0.0, {"a", "b", "c"}), (1.0, None)):
        points = tuple(point("youden", label, threshold) for label in labels)
        reader = small_reader("cnn", 32, labels, task="multilabel", operating_points=points)
        read = reads_of(reader, [film])[0].read
        explained = {label.label for label in read.labels if label.evidence is not None}
        best = max(read.labels, key=lambda label: label.probability or 0.0).label
        assert explained == (expected_labels or {best})


def test_classes_sum_to_one_and_one_is_positive(tmp_path: Path) -> None:
    reader = small_reader("cnn", 32, ("a", "b", "c"))
    read = reads_of(reader, write_films(tmp_path, 1))[0].read
    assert sum(label.probability or 0.0 for label in read.labels) == pytest.approx(1.0)
    assert sum(label.decision == "positive" for label in read.labels) == 1


def test_what_was_done_and_what_is_odd_travels_with_the_read(reader: Reader, tmp_path: Path) -> None:
    film = write_films(tmp_path, 1)[0]
    image = load_image(film)
    read = reads_of(reader, [film])[0].read
    assert read.applied == image.applied
    assert read.image == image.facts
    assert read.image.warnings == image.facts.warnings != ()
    assert read.warnings == ()  # a page shows both: nothing twice
    assert read.model == reader.card.identity
    assert set(read.timings_ms) == {"load", "predict", "explain"}
    assert all(value >= 0 for value in read.timings_ms.values())


def test_an_enlarged_image_is_warned_about(tmp_path: Path) -> None:
    reader = small_reader("cnn", 224)
    read = read_image(reader, image_from(phantom(1).image[::3, ::3]))
    assert "The image was enlarged from 86 x 86 to the reader's input of 224 x 224." in read.warnings
    assert read_image(reader, image_from(phantom(1).image)).warnings == ()


def test_the_record_survives_json(reader: Reader, tmp_path: Path) -> None:
    read = reads_of(reader, write_films(tmp_path, 1))[0].read
    assert Read.model_validate_json(read.model_dump_json()) == read


def test_a_read_carries_its_prediction_set_and_a_refused_image_has_none(tmp_path: Path) -> None:
    from wetread.models.bundle import load_reader
    from wetread.models.card import ConformalSpec

    classes = ("normal", "pneumonia")
    both: dict[str, float | None] = dict.fromkeys(classes, 0.999)
    spec = ConformalSpec(
        alpha=0.1, rule="", cases="", n=dict.fromkeys(classes, 40), conditional=both, marginal=dict.fromkeys(classes)
    )
    make_bundle(tmp_path / "open", conformal=spec, classes=classes)
    film = write_films(tmp_path / "films", 1)[0]
    blank = grey_png(tmp_path / "blank.png", np.zeros((256, 256), np.float32))
    kept, refused = (result.read for result in reads_of(load_reader(tmp_path / "open"), [film, blank]))
    assert kept.prediction_set is not None
    assert kept.prediction_set.classes == classes
    assert kept.prediction_set.abstains
    assert "abstains: 2 classes remain possible at an error rate of 10 %: normal, pneumonia." in str(kept)
    assert refused.prediction_set is None
    assert Read.model_validate_json(kept.model_dump_json()) == kept
