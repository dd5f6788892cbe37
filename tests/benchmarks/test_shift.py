"""The changes of the shift benchmark do what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.shift import CHANGES, changed, measure
from tests.models.support import small_reader
from wetread.datasets.phantom_dataset import DatasetPlan, make_dataset


def rows_of_stripe(image: torch.Tensor) -> tuple[float, float]:
    """Middle row and height of the bright part of (1, 1, H, W)."""
    rows = np.flatnonzero(image[0, 0].mean(1).numpy() > 0.5)
    return float(rows.mean()), len(rows)


def test_unchanged_is_unchanged() -> None:
    batch = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(changed(batch, CHANGES["as they are"]), batch)


def test_stretching_upwards_makes_things_taller_and_not_wider() -> None:
    batch = torch.zeros(1, 1, 100, 100)
    batch[:, :, 40:60] = 1
    taller = changed(batch, CHANGES["stretched upwards by 1.25"])
    middle, height = rows_of_stripe(taller)
    assert middle == pytest.approx(49.5)
    assert height == pytest.approx(25, abs=1)  # 20 rows x 1.25
    upright = changed(batch.transpose(2, 3), CHANGES["stretched upwards by 1.25"])
    assert rows_of_stripe(upright.transpose(2, 3)) == (49.5, 20)
    wider = changed(batch.transpose(2, 3), CHANGES["stretched sideways by 1.25"])
    assert rows_of_stripe(wider.transpose(2, 3))[1] == pytest.approx(25, abs=1)


def test_half_the_resolution_removes_the_finest_detail() -> None:
    checks = torch.from_numpy(np.indices((32, 32)).sum(0) % 2).float()[None, None]
    blurred = changed(checks, CHANGES["half the resolution"])
    assert blurred.shape == checks.shape
    assert float(blurred[..., 8:24, 8:24].std()) < 0.05


def test_gamma_brightens_and_darkens() -> None:
    grey = torch.full((1, 1, 8, 8), 0.5)
    assert float(changed(grey, CHANGES["brighter (gamma 0.7)"]).mean()) == pytest.approx(0.5**0.7)
    assert float(changed(grey, CHANGES["darker (gamma 1.4)"]).mean()) == pytest.approx(0.5**1.4)


def test_every_change_is_measured_on_validation_images(tmp_path: Path) -> None:
    plan = DatasetPlan(n=40, size_px=64, masks=False, format="png", fractions={"train": 0.5, "val": 0.5})
    manifest = make_dataset(tmp_path / "set", plan)
    reader = small_reader("cnn", 32, ("consolidation",), task="binary", classes=manifest.meta.classes)
    figures = measure(reader, tmp_path / "set")
    assert len(figures) == len(CHANGES)
    assert {figure.n for figure in figures} == {int((manifest.table["split"] == "val").sum())}
    assert all(0 <= figure.value <= 1 for figure in figures)
