"""The sanity benchmark takes whole patients, trains small readers, and knows which verdicts are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sanity import SETTINGS, SHOULD, part_of, positives, rows
from tests.models.support import small_reader
from wetread.datasets.phantoms import DatasetPlan, make_dataset
from wetread.explain.sanity import JUDGED, Retention, SanityResult, Verdict, map_maker
from wetread.types import Estimate


def test_parts_hold_whole_patients(tmp_path: Path) -> None:
    plan = DatasetPlan(n=60, size_px=64, masks=False, format="png", fractions={"train": 0.5, "val": 0.5})
    manifest = make_dataset(tmp_path / "set", plan)
    part = part_of(manifest, {"train": 12, "val": 10})
    counts = part.table["split"].value_counts()
    assert 12 <= counts["train"] <= 14  # the last patient may have up to three films
    assert 10 <= counts["val"] <= 12
    for patient, own in part.table.groupby("patient"):
        assert len(own) == (manifest.table["patient"] == patient).sum()
    assert part_of(manifest, {"train": 12, "val": 10}).table.equals(part.table)
    reader = small_reader("cnn", 32, ("consolidation",), task="binary", classes=manifest.meta.classes)
    batch, patients = positives(manifest, reader, tmp_path / "cache", 5)
    assert batch.shape == (5, 1, 32, 32)
    assert len(set(patients)) == 5


def result(method: str, verdict: Verdict) -> SanityResult:
    estimate = Estimate(value=0.1, low=0.0, high=0.15, n=24)
    left = Retention(measure="rank", share=0.5, similarity=estimate, chance=estimate, retention=estimate)
    return SanityResult(
        method=method, label="finding", verdict=verdict, sentence="Why.", n=24, unmade=0, retentions=(left,)
    )


@pytest.mark.parametrize("method", SHOULD)
def test_only_the_right_verdict_meets_the_bar(method: str) -> None:
    reader = small_reader("cnn", 32)
    every: tuple[Verdict, ...] = ("passes", "fails", "not assessable")
    for verdict in every:
        first, left = rows(reader, method, result(method, verdict))  # type: ignore[arg-type]
        assert (first.met == "yes") == (SHOULD[method] == verdict)  # type: ignore[index]
        assert "Why." in first.protocol
        assert left.what.endswith(f"{method}, left by rank after 50% of the layers")
        assert (left.value, left.low, left.high) == (0.1, 0.0, 0.15)


def test_the_settings_judge_and_every_method_can_be_made() -> None:
    assert set(JUDGED) <= set(SETTINGS.shares)
    reader, batch = small_reader("cnn", 32), torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for method in SHOULD:
        maps = map_maker(method, "finding")(reader, batch)
        assert len(maps) == 2
        assert all(np.isfinite(one).all() for one in maps)
