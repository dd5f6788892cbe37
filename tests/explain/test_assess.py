"""Quality of explanations through the public call: records for images, summaries of sets, status of methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.explain.toys import Formula, toy_reader
from tests.models.support import small_reader
from wetread.errors import UsageError
from wetread.evaluation.intervals import wilson
from wetread.explain.assess import AssessSettings, assess, method_status, summarise
from wetread.explain.base import Target
from wetread.explain.quality import CurveSettings
from wetread.explain.sanity import SanitySettings
from wetread.models.predict import Reader

SMALL = CurveSettings(side=4, steps=4, until=0.5, orders=2, fills=("black", "mean"))


def bright_quarter(n: int = 1) -> Tensor:
    """8 x 8 images whose upper right quarter is bright: all that a :class:`~tests.explain.toys.Pick` reader sees."""
    batch = torch.full((n, 1, 8, 8), 0.1)
    batch[:, :, :4, 4:] = 0.9
    return batch + 0.01 * torch.rand(batch.shape, generator=torch.Generator().manual_seed(0))


def mask(rows: slice, columns: slice, side: int = 40) -> NDArray[np.bool_]:
    found = np.zeros((side, side), dtype=np.bool_)
    found[rows, columns] = True
    return found


UPPER_RIGHT, LOWER_LEFT = mask(slice(0, 20), slice(20, 40)), mask(slice(20, 40), slice(0, 20))


def reader() -> Reader:
    """The score is the square of the mean grey, so that bright quarters have most of the evidence."""
    return toy_reader((1.0,), Formula(lambda x: 10 * x**2))


def test_a_map_on_the_finding_and_one_beside_it() -> None:
    settings = AssessSettings(SMALL, sensitivity_samples=3, tolerance_px=2)
    on, beside, unknown = assess(
        reader(), bright_quarter(3), Target("finding"), [UPPER_RIGHT, LOWER_LEFT, None], settings=settings
    )
    assert on.localisation is not None
    assert beside.localisation is not None
    assert (on.localisation.hit, beside.localisation.hit) == (1.0, 0.0)
    assert on.localisation.lift > 1.5 > 1 > beside.localisation.lift
    assert on.localisation.tolerance_px == 2
    assert (unknown.truth, unknown.localisation) == (False, None)
    assert on.sensitivity is not None
    assert 0 < on.sensitivity < 0.2
    black, mean = on.faithfulness
    assert (black.fill, mean.fill) == ("black", "mean")
    assert black.deletion > black.deletion_random > black.deletion_worst
    assert not black.fill_raises
    assert on.passes == 1


def test_parts_may_be_left_out() -> None:
    (found,) = assess(reader(), bright_quarter(), Target("finding"), settings=AssessSettings(None, 0))
    assert (found.faithfulness, found.sensitivity, found.localisation) == ((), None, None)
    assert found.reason == ""


def test_an_image_without_a_map_keeps_its_reason() -> None:
    against = toy_reader((1.0,), Formula(lambda x: -10 * x))
    (found,) = assess(against, bright_quarter(), Target("finding"), [UPPER_RIGHT])
    assert "no place that speaks for it" in found.reason
    assert found.truth
    assert (found.localisation, found.faithfulness) == (None, ())
    summary = summarise([found] * 12, [f"p{i}" for i in range(12)])
    assert summary.made == wilson(0, 12)
    assert summary.localisation is not None
    assert summary.localisation.hit == wilson(0, 12)
    assert summary.sensitivity is None


def test_a_set_has_its_n_and_intervals() -> None:
    batch = bright_quarter(12)
    found = assess(reader(), batch, Target("finding"), [UPPER_RIGHT] * 11 + [None], settings=AssessSettings(SMALL, 2))
    summary = summarise(found, [f"p{i}" for i in range(12)])
    assert (summary.label, summary.method, summary.n) == ("finding", "gradcam", 12)
    assert summary.made == wilson(12, 12)
    assert summary.localisation is not None
    assert summary.localisation.hit == wilson(11, 11)
    kinds = [(one.fill, one.direction) for one in summary.faithfulness]
    assert kinds == [("black", "deletion"), ("black", "insertion"), ("mean", "deletion"), ("mean", "insertion")]
    assert summary.faithfulness[0].above_random == wilson(12, 12)
    assert summary.faithfulness[0].p == pytest.approx(1 / 2**12)
    assert summary.sensitivity is not None
    assert summary.sensitivity.n == 12


def test_integrated_gradients_state_how_far_they_are_from_adding_up() -> None:
    linear = toy_reader((2.0,), Formula(lambda x: 3 * x))
    (found,) = assess(
        linear, bright_quarter(), Target("finding", "integrated-gradients"), settings=AssessSettings(None, 0)
    )
    assert found.error == pytest.approx(0, abs=1e-4)
    assert found.passes > 1


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 2 masks, one for each image, got 1"):
        assess(reader(), bright_quarter(2), Target("finding"), [None])
    with pytest.raises(UsageError, match="expected one of the labels finding, got 'nodule'"):
        assess(reader(), bright_quarter(), Target("nodule"))
    with pytest.raises(UsageError, match="expected images explained for one label by one method, got 0"):
        summarise([], [])
    (found,) = assess(reader(), bright_quarter(), Target("finding"), settings=AssessSettings(None, 0))
    with pytest.raises(UsageError, match="expected 1 patients"):
        summarise([found], ["a", "b"])
    with pytest.raises(UsageError, match="expected one of the labels"):
        method_status(reader(), bright_quarter(), ["gradcam"], "nodule")


def test_the_status_of_methods_says_why() -> None:
    coarse = torch.rand(22, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    batch = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").clamp(0, 1)
    status = method_status(
        small_reader("cnn", 32),
        batch,
        ["sobel", "gradient", "gradcam"],
        settings=SanitySettings(seeds=3, pairs=50),
        patients=[f"p{i}" for i in range(22)],
    )
    assert list(status) == ["sobel", "gradient", "gradcam"]
    assert status["sobel"].verdict == "fails"
    assert "100%" in status["sobel"].sentence
    assert status["sobel"].n == 22
    assert status["gradient"].verdict != "fails"
    flat = small_reader("pixels", 32)
    refused = method_status(flat, batch, ["gradcam"])["gradcam"]
    assert (refused.verdict, refused.n) == ("not assessable", 0)
    assert "expected a network with feature maps" in refused.sentence
