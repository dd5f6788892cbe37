"""Networks x guides x seeds: what is planned, trained once, tested once, and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wetread.datasets.manifest import Manifest
from wetread.errors import UsageError
from wetread.training.grid import GridConfig, grid_of, load_grid, run_one

SMALL = {"image_size": 32, "epochs": 1, "weights": "random", "tensorboard": False, "batch_size": 8, "head_epochs": 0}


def test_every_combination_is_planned_with_a_name_and_its_own_settings() -> None:
    config = GridConfig(
        networks=("cnn", "tf_efficientnet_lite0"), guides=("none", "mask"), seeds=(0, 1), settings=SMALL,
        of={"cnn": {"image_size": 64}},
    )  # fmt: skip
    planned = grid_of(config)
    assert [one.name for one in planned] == [
        "cnn-seed0", "cnn-seed1", "cnn-mask-seed0", "cnn-mask-seed1", "tf_efficientnet_lite0-seed0",
        "tf_efficientnet_lite0-seed1", "tf_efficientnet_lite0-mask-seed0", "tf_efficientnet_lite0-mask-seed1",
    ]  # fmt: skip
    assert {one.image_size for one in planned[:4]} == {64}
    assert {one.image_size for one in planned[4:]} == {32}
    assert planned[3].guide == "mask"
    assert planned[3].seed == 1
    assert planned[0].mode == "finetune"
    assert grid_of(GridConfig(networks=("knn",)))[0].mode == "features"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'networks = ["cnn"]\nseed = [1]',
            r"expected keys of a comparison in .*, got 'seed'; did you mean 'seeds'",
        ),
        ("networks = []", r"expected a valid networks in grid\.toml"),
        (
            'networks = ["cnn"]\n[of.vgg16]\nepochs = 1',
            r"expected settings of cnn, got \[of\.vgg16\]; name it",
        ),
        ("networks = ", r"expected a comparison in TOML at grid\.toml, got TOMLDecodeError"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_grid(file)


def test_settings_that_training_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match="expected settings of `wetread train`, got 'seed'"):
        grid_of(GridConfig(networks=("cnn",), settings={"seed": 3}))
    with pytest.raises(UsageError, match="expected a network for the guide mask, got the baseline knn"):
        grid_of(GridConfig(networks=("knn",), guides=("mask",)))


def test_a_finished_reader_is_neither_trained_nor_tested_again(binary: Manifest, tmp_path: Path) -> None:
    (config,) = grid_of(GridConfig(networks=("cnn",), settings=SMALL))
    folder = tmp_path / "cnn-seed0"
    row = run_one(binary, config, folder, None)
    assert row.name == "cnn-seed0"
    assert row.parameters > 100_000
    assert row.training_s > 0
    assert row.accuracy.n == row.result.facts.n == int((binary.table["split"] == "test").sum())
    assert row.auroc.value is not None
    assert row.balanced_accuracy.value is not None
    assert row.audit_verdict == "not audited"
    before = {file: os.stat(file).st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    assert run_one(binary, config, folder, None) == row
    assert {file: os.stat(file).st_mtime_ns for file in folder.rglob("*") if file.is_file()} == before
