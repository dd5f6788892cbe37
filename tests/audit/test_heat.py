"""T7 to T9 on readers that look at one place: in the organ or beside it, and with too few films to say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.audit.looking import CORNER, ORGAN, SIDE_PX, SPEC, films
from tests.models.support import reader_of
from wetread.audit.heat import Positives, faithful_line, place_line, positives_of, randomised_line
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import OrganSource
from wetread.datasets.manifest import Manifest
from wetread.models.networks import Network
from wetread.models.predict import Reader
from wetread.training.predictions import predict_manifest

CELL_PX = 8


class Cells(nn.Module):
    """Feature maps of 8 x 8 cells, zero outside one window: mean grey above a level."""

    num_features = head_hidden_size = 1

    def __init__(self, window: tuple[slice, slice], level: float) -> None:
        super().__init__()
        seen = torch.zeros(1, 1, SIDE_PX, SIDE_PX)
        seen[:, :, window[0], window[1]] = 1
        self.register_buffer("seen", nn.functional.avg_pool2d(seen, CELL_PX))
        self.level = level

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, 1, 8, 8)."""
        grey = nn.functional.avg_pool2d(x, CELL_PX)
        return (grey - self.level).clamp(min=0) * self.seen  # type: ignore[operator]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))


def looking_at(window: tuple[slice, slice], level: float, weight: float = 400.0) -> Reader:
    """A reader of ``ill`` with heat maps: positive where the window is lighter than the level."""
    head = nn.Linear(1, 1)
    nn.init.constant_(head.weight, weight)
    nn.init.constant_(head.bias, -4.0)
    network = Network(Cells(window, level), head)
    return reader_of([network], ("ill",), classes=("normal", "ill"), input=SPEC)


def positives(reader: Reader, manifest: Manifest) -> Positives:
    return positives_of(reader, manifest, predict_manifest(reader, manifest), OrganSource("lungs"))


@pytest.fixture(scope="module")
def ill_inside(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return films(tmp_path_factory.mktemp("inside"), 80)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return films(tmp_path_factory.mktemp("marked"), 80, signal=None, marked=1.0)


def test_only_called_films_are_explained_one_of_each_patient(ill_inside: Manifest) -> None:
    found = positives(looking_at(ORGAN, 0.55), ill_inside)
    assert found.label == "ill"
    assert len(found) == 40
    assert len(set(found.patients)) == 40
    assert all(organ is not None and organ[ORGAN].all() for organ in found.organs)


def test_heat_in_the_organ_passes_and_heat_in_the_corner_fails(ill_inside: Manifest, marked: Manifest) -> None:
    reader = looking_at(ORGAN, 0.55)
    line, pictures = place_line(reader, positives(reader, ill_inside), Thresholds())
    assert line.answer == "PASS"
    assert {example.picture for example in line.examples} == set(pictures)
    lift = next(figure for figure in line.figures if figure.what == "lift in the organ").estimate
    assert lift.value is not None
    assert lift.value > 1.5
    elsewhere = looking_at(CORNER, 0.3, weight=2000.0)  # a smaller window
    line, _ = place_line(elsewhere, positives(elsewhere, marked), Thresholds())
    assert line.answer == "FAIL"
    assert line.sentence.startswith("0% of the heat lies in the organ")


def test_a_faithful_map_beats_random_order_for_most_fills(ill_inside: Manifest) -> None:
    reader = looking_at(ORGAN, 0.55)
    line = faithful_line(reader, positives(reader, ill_inside), Thresholds())
    assert line.answer in ("PASS", "WARN")  # LIME may be unstable on noise; deletion is what is judged here
    shares = [figure.estimate.value for figure in line.figures if figure.what.startswith("deletion")]
    assert len(shares) == 3
    assert sum((share or 0) >= 0.8 for share in shares) >= 2


def test_few_films_and_unknown_organs_are_not_assessable(tmp_path: Path) -> None:
    reader, limits = looking_at(ORGAN, 0.55), Thresholds()
    few = positives(reader, films(tmp_path / "few", 16))
    line, status = randomised_line(reader, few)
    assert line.answer == "NOT ASSESSABLE"
    assert status == {}
    assert faithful_line(reader, few, limits).sentence == "Only 8 patients are called positive; 20 are needed."
    bare = films(tmp_path / "bare", 60, masks=False)
    unknown = positives_of(reader, bare, predict_manifest(reader, bare), None)
    line, pictures = place_line(reader, unknown, limits)
    assert line.answer == "NOT ASSESSABLE"
    assert line.sentence == "The organ is known in 0 positive films; 20 are needed."
    assert pictures == {}
