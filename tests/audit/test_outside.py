"""T12: junk is refused, films from elsewhere are told apart, and what was not tried is never a pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.audit.looking import MIDDLE, SPEC, films, looking_at, write
from tests.models.support import card_for
from wetread.audit.junk import ALTERED, JUNK, altered, junk_image
from wetread.audit.outside import judge_outside, outside_files
from wetread.audit.thresholds import Thresholds, thresholds_of
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantoms import render, sample_spec
from wetread.errors import ImageRefused
from wetread.imaging import load_image
from wetread.models.card import GateSpec, ReaderCard
from wetread.models.inputs import normalise, to_batch
from wetread.models.networks import Network, PixelEncoder
from wetread.models.outlier import fit_statistics
from wetread.models.predict import Reader
from wetread.reading.gate import judge
from wetread.types import GateResult, Image


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return films(tmp_path_factory.mktemp("films"), 60)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Knows films by their pixels; its limit is what 99 % of films like them reach."""
    other = films(tmp_path_factory.mktemp("train"), 120)
    network = Network(PixelEncoder(), nn.Linear(1024, 1), spatial=False)
    pixels = [load_image(other.path_of(str(path))).pixels for path in other.table["path"]]
    embedded = network.embed(network.features(normalise(to_batch(pixels, SPEC), SPEC))).numpy()
    statistics = fit_statistics(embedded[:60], components=4)
    limit = 1.5 * float(statistics.distances(embedded[60:]).max())
    gate = GateSpec(limit=limit, quantile=0.99, n=60, components=4)
    return Reader(card_for(("ill",), classes=("normal", "ill"), input=SPEC, gate=gate), [network], statistics)


def by_distance(card: ReaderCard, image: Image, distance: float | None) -> GateResult:
    """The gate without its look at the image: these films are no anatomy."""
    assert card.gate is not None
    assert distance is not None
    return GateResult(passed=distance <= card.gate.limit, distance=distance, limit=card.gate.limit)


def shifted(folder: Path, count: int = 40) -> list[Path]:
    """Films from elsewhere: the organ lies higher."""
    source = films(folder / "source", count)
    for path in source.table["path"]:
        write(folder / "there" / path, np.roll(load_image(source.path_of(str(path))).pixels, -12, 0))
    return outside_files(folder / "there")


def test_a_gate_that_knows_its_films_passes(reader: Reader, manifest: Manifest, tmp_path: Path) -> None:
    line, pictures = judge_outside(reader, manifest, by_distance, Thresholds(), near=shifted(tmp_path))
    figures = {one.what: one.estimate.value for one in line.figures}
    assert (line.code, line.answer, line.cure, line.n) == ("T12", "PASS", "", 60)
    assert figures["AUROC of the distance, junk against own films"] == 1.0
    assert figures["AUROC of the distance, films from elsewhere against own ones"] == 1.0
    assert figures["refused: all junk"] == 1.0
    assert figures["refused: own films"] == 0.0
    assert pictures == {}


def test_without_films_from_elsewhere_it_is_no_pass(reader: Reader, manifest: Manifest) -> None:
    line, _ = judge_outside(reader, manifest, by_distance, Thresholds())
    assert line.answer == "WARN"
    assert "Films from elsewhere were not tried" in line.sentence
    assert "--outside" in line.cure
    assert any("not assessable" in note for note in line.notes)


def test_a_gate_that_lets_everything_through_is_told_with_pictures(reader: Reader, manifest: Manifest) -> None:
    def open_gate(card: ReaderCard, image: Image, distance: float | None) -> GateResult:
        return GateResult(passed=True, distance=distance)

    line, pictures = judge_outside(reader, manifest, open_gate, Thresholds())
    assert line.answer == "WARN"
    assert "refuses 0.0% of junk" in line.sentence
    assert "It answers 100% of" in line.sentence
    assert [one.picture for one in line.examples] == list(pictures) == ["t12-1.png"]


def test_distances_that_say_nothing_fail(reader: Reader, manifest: Manifest) -> None:
    line, _ = judge_outside(reader, manifest, by_distance, thresholds_of(["t12_far_fail=1.1"]))
    assert line.answer == "FAIL"


def test_own_films_that_are_refused_are_counted_and_shown(reader: Reader, manifest: Manifest) -> None:
    strict = Reader(
        reader.card.model_copy(update={"gate": reader.card.gate.model_copy(update={"limit": 0.0})}),  # type: ignore[union-attr]
        reader.networks,
        reader.statistics,
    )
    line, pictures = judge_outside(strict, manifest, by_distance, Thresholds())
    assert "100.0% of the films that it was built for" in line.sentence
    assert list(pictures) == ["t12-2.png"]


def test_no_gate_and_few_films_are_not_assessable(reader: Reader, manifest: Manifest, tmp_path: Path) -> None:
    line, _ = judge_outside(looking_at(MIDDLE, 0.5), manifest, by_distance, Thresholds())
    assert (line.answer, line.sentence) == (
        "NOT ASSESSABLE",
        "The reader has no gate: it answers whatever it is shown.",
    )
    line, _ = judge_outside(reader, films(tmp_path, 12), by_distance, Thresholds())
    assert (line.answer, line.sentence) == ("NOT ASSESSABLE", "12 films of its own are too few to compare with.")


def test_files_that_cannot_be_read_are_counted(reader: Reader, manifest: Manifest, tmp_path: Path) -> None:
    files = shifted(tmp_path, 6)
    files[0].write_bytes(b"no picture")
    line, _ = judge_outside(reader, manifest, by_distance, Thresholds(), near=files)
    assert "1 files from elsewhere could not be read." in line.notes


def test_where_films_from_elsewhere_come_from(manifest: Manifest, tmp_path: Path) -> None:
    assert outside_files(None) == []
    manifest.save(tmp_path)
    assert outside_files(tmp_path) == [manifest.path_of(str(path)) for path in manifest.table["path"]]
    with pytest.raises(ImageRefused, match="expected a file or folder"):
        outside_files(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", [*JUNK, *ALTERED])
def test_junk_is_drawn_alike_each_time_and_in_range(kind: str) -> None:
    film = render(sample_spec(np.random.default_rng(0), size_px=96)).image
    own = Image(film, junk_image("blank", np.random.default_rng(0)).facts)
    make = (lambda rng: altered(kind, own)) if kind in ALTERED else (lambda rng: junk_image(kind, rng))
    one, again = (make(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert one.pixels.dtype == np.float32
    assert 0 <= one.pixels.min() <= one.pixels.max() <= 1
    assert (one.facts.rows, one.facts.columns) == one.pixels.shape


@pytest.mark.parametrize("kind", ["white noise", "blank", "page"])
def test_the_reader_s_own_gate_refuses_the_plainest_junk_by_its_look(kind: str) -> None:
    card = card_for(gate=GateSpec(limit=1.0, quantile=0.99, n=60, components=4))
    refused = [not judge(card, junk_image(kind, np.random.default_rng(seed))).passed for seed in range(4)]
    assert sum(refused) >= 3
