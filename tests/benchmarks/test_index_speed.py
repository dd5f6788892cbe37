"""The cloud of the speed benchmark has the shape it claims; its steps run at a small size."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import index_speed
from wetread.retrieval.records import unit


def test_points_lie_between_neighbours() -> None:
    base = unit(np.random.default_rng(0).standard_normal((200, 512), np.float32))
    near = index_speed.nearest_of(base)
    assert not any(i in near[i] for i in range(200))
    points = index_speed.between(base, near, 500)
    likeness = (points @ base.T).max(1)
    assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    assert (
        likeness.mean() > 3 * (index_speed.noise(500, seed=5) @ base.T).max(1).mean()
    )  # near a real vector, unlike noise
    assert likeness.min() < 0.999  # and not the vector itself
    assert not np.array_equal(points, index_speed.between(base, near, 500, seed=1))


def test_blocks_are_written_in_full_and_differ(tmp_path: Path, monkeypatch: object) -> None:
    index_speed.write_blocks(tmp_path / "v.npy", index_speed.BLOCK + 3, index_speed.noise)
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert vectors.shape == (index_speed.BLOCK + 3, 1, index_speed.WIDTH)
    assert not np.array_equal(vectors[0], vectors[index_speed.BLOCK])
    np.testing.assert_allclose(np.linalg.norm(vectors[-1]), 1, atol=1e-5)


def test_steps_at_a_small_size(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", index_speed.noise(1500)[:, None])
    np.save(tmp_path / "q.npy", index_speed.noise(30, seed=9))
    index = str(tmp_path / "index")
    assert index_speed.step_build(str(tmp_path / "v.npy"), index)["probes"] == 0  # so few are all compared
    found = index_speed.step_search(index, str(tmp_path / "q.npy"))
    assert (found["recall"], found["n"]) == (1.0, 30)
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    assert index_speed.step_add(index, str(tmp_path / "v.npy"))["added"] == 1000


def test_the_command_writes_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = {"train": index_speed.noise(300)[:, :], "test": index_speed.noise(20, seed=9)}
    np.savez(tmp_path / "real.npz", **vectors)  # type: ignore[arg-type]
    out = tmp_path / "index.csv"
    sizes = ["--size", "1200", "--noise", "0", "--images", "60"]
    flags = ["--real", str(tmp_path / "real.npz"), "--work", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["index_speed", *sizes, *flags])
    index_speed.main()
    with out.open(encoding="utf-8") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    bars = {name: row["bar"] for name, row in rows.items() if row["bar"]}
    assert bars == {
        "search p95, 1,200 x 512, real shape": "<= 10",
        "recall@10, 1,200 x 512, real shape": ">= 0.98",
        "add 1,000, 1,200 x 512, real shape": "<= 2",
        "index build, 60 images, cached features": "<= 60",
        "add 1,000 to 60 images": "<= 2",
    }
    assert {"build, 1,200 x 512, real shape", "build, peak memory, 1,200 x 512, real shape"} <= set(rows)
    assert float(rows["recall@10, 1,200 x 512, real shape"]["value"]) == 1
