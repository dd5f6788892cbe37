"""A guided reader measures what its segmenter finds: masks drawn by hand, so that the ratio is known on paper."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.models.support import segmenter_card, small_reader
from tests.reading.support import point
from wetread.datasets.phantoms import Phantom, PhantomSpec, render, write_dicom
from wetread.imaging import load_image
from wetread.models.card import GuideSpec, InputSpec
from wetread.models.guide import Guide
from wetread.models.organs import Segmenter
from wetread.models.predict import Reader
from wetread.reading.organs import segment_image
from wetread.reading.read import ReadOptions, ReadResult, read_images
from wetread.types import Read

SIDE = 256
SHA = "0" * 64
WEIGHTS = {"model.safetensors": SHA}


class Drawn(nn.Module):
    """Two lungs from column 30 to 230 and a heart of ``width`` columns between them, whatever the film."""

    def __init__(self, width: int) -> None:
        super().__init__()
        masks = torch.zeros(2, SIDE, SIDE)
        masks[0, 40:200, 30:110] = masks[0, 40:200, 150:230] = 1
        masks[1, 120:200, 130 - width // 2 : 130 + width // 2] = 1
        self.logits = 1000 * (masks - 0.5)

    def forward(self, batch: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same steep logits (N, 2, H, W)."""
        return self.logits.expand(len(batch), -1, -1, -1)


def segmenter(width: int) -> Segmenter:
    card = segmenter_card(("lungs", "heart"), input=InputSpec(height=SIDE, width=SIDE), weights=WEIGHTS)
    return Segmenter(card, [Drawn(width)])


def reader(width: int, threshold: float, label: str = "cardiomegaly") -> Reader:
    """A reader of the heart; every film is positive from threshold 0 on, and negative at 1."""
    spec = GuideSpec(organ="heart", segmenter="drawn", sha256=SHA)
    made = small_reader(
        labels=(label,), weights=WEIGHTS, guide=spec, operating_points=(point("youden", label, threshold),)
    )
    return Reader(made.card, made.networks, None, Guide(spec, segmenter(width)))


@functools.cache
def film(view: Literal["PA", "AP"] = "PA") -> Phantom:
    return render(PhantomSpec(seed=5, age_years=45, view=view, size_px=SIDE))


def read_of(tmp_path: Path, made: Reader, view: Literal["PA", "AP"] = "PA") -> Read:
    path = write_dicom(film(view), tmp_path / "film.dcm")
    result = next(read_images(made, [path], ReadOptions(heatmaps=False)))
    assert isinstance(result, ReadResult)
    assert (result.read.image.view, result.read.image.age_years) == (view, 45)
    return result.read


def test_ratio_and_spans_are_those_on_paper(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(120, 0.0))
    measures = {(one.organ, one.name): one for one in read.measures}
    ratio = measures["heart", "cardiothoracic ratio"]
    assert ratio.value == pytest.approx(120 / 200)
    heart, chest = ratio.spans
    assert (heart.of, heart.left, heart.right, heart.y) == ("heart", 70, 190, 160)  # rows 120 to 200
    assert (chest.of, chest.left, chest.right) == ("chest", 30, 230)
    spacing_cm = film().pixel_mm / 10
    assert measures["heart", "width"].value == pytest.approx(120 * spacing_cm, rel=1e-5)
    assert measures["heart", "area"].unit == "cm2"


def test_a_read_measures_as_segment_does(tmp_path: Path) -> None:
    made = reader(120, 0.0)
    read = read_of(tmp_path, made)
    reading, _ = segment_image(segmenter(120), load_image(tmp_path / "film.dcm"))
    assert read.measures == reading.measures
    assert read.timings_ms["measure"] > 0


def test_both_agree_and_nothing_is_warned_of(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(120, 0.0))
    assert read.agreement is not None
    assert (read.agreement.measure_says, read.agreement.classifier_says) == ("positive", "positive")
    assert read.agreement.agree is True
    assert not any("disagree" in warning for warning in read.warnings)
    assert f"  {read.agreement.sentence}" in str(read).splitlines()
    assert Read.model_validate_json(read.model_dump_json()) == read


def test_disagreement_is_warned_of(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(80, 0.0))
    assert read.agreement is not None
    assert read.agreement.value == pytest.approx(0.4)
    assert read.agreement.agree is False
    assert "The cardiothoracic ratio and the classifier disagree on cardiomegaly: look at the film." in read.warnings


def test_an_ap_film_gets_its_ratio_and_no_claim(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(80, 0.0), "AP")
    assert read.agreement is not None
    assert read.agreement.value == pytest.approx(0.4)
    assert read.agreement.agree is None
    assert not any("disagree" in warning for warning in read.warnings)


def test_other_labels_get_measures_and_no_agreement(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(80, 0.0, "pneumonia"))
    assert read.agreement is None
    assert any(one.name == "cardiothoracic ratio" and one.value for one in read.measures)


def test_without_a_heart_nothing_is_answered_or_measured(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(0, 0.0))
    assert not read.gate.passed
    assert (read.measures, read.agreement) == ((), None)


def test_a_reader_of_whole_films_measures_nothing(tmp_path: Path) -> None:
    plain = small_reader(labels=("cardiomegaly",), weights=WEIGHTS)
    read = read_of(tmp_path, plain)
    assert (read.measures, read.agreement) == ((), None)
    assert "measure" not in read.timings_ms
    assert json.loads(read.model_dump_json())["agreement"] is None


def test_odd_masks_become_cautions(tmp_path: Path) -> None:
    read = read_of(tmp_path, reader(8, 1.0))  # a sliver of a heart
    assert read.agreement is not None
    (caution,) = read.agreement.cautions
    assert caution.startswith("The mask of the heart is odd (")
    assert read.agreement.value == pytest.approx(8 / 200)
