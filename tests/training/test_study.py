"""A reader of studies from a manifest: run folder, card, folds, and predictions that are those of the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.study_support import bones, quick
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, SplitRefused, UsageError
from wetread.models.bundle import load_study_reader
from wetread.models.networks import Network
from wetread.training.fit import TrainingResult
from wetread.training.study import train_study
from wetread.training.study_config import StudyConfig
from wetread.training.study_predictions import predict_studies


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def studies(work: Path) -> Manifest:
    return bones(work / "bones", parts=("HUMERUS",), patients=72)


@pytest.fixture(scope="module")
def trained(work: Path, studies: Manifest) -> TrainingResult:
    return train_study(studies, quick(epochs=15, view_encoder="shared"), work / "run", cache=work / "cache")


def test_the_run_leaves_a_card_of_studies(trained: TrainingResult, studies: Manifest) -> None:
    card = trained.card
    train = studies.table[studies.table["split"] == "train"]
    assert card.study is not None
    assert (card.study.pooling, card.study.one_encoder) == ("attention", True)
    assert card.training["studies"] == train["study"].nunique()
    assert (card.data.images, card.data.patients) == (len(train), train["patient"].nunique())
    assert card.gate is not None
    assert card.conformal is not None
    assert {point.name for point in card.operating_points} == {"youden", "sensitivity=0.95", "specificity=0.95"}
    assert {path.name for path in trained.run_folder.iterdir()} >= {
        "config.toml",
        "logs",
        "predictions.parquet",
        "reader",
    }


def test_predictions_are_those_that_the_run_recorded(trained: TrainingResult, studies: Manifest, work: Path) -> None:
    reader = load_study_reader(trained.reader_folder)
    found = predict_studies(reader, studies, "val", cache=work / "cache")
    recorded = trained.predictions.set_index("study")["probability_positive"]
    again = found.studies.set_index("study")["probability_positive"]
    assert again.loc[recorded.index].to_numpy() == pytest.approx(recorded.to_numpy(), abs=1e-6)
    sums = found.views.groupby("study")["weight_positive"].sum()
    assert sums.to_numpy() == pytest.approx(np.ones(len(sums)), abs=1e-5)
    assert found.studies["images"].sum() == len(found.views)
    single = found.studies[found.studies["images"] == 1]["study"]
    alone = found.views.set_index("study")["probability_positive"]
    assert alone.loc[single].to_numpy() == pytest.approx(again.loc[single].to_numpy(), abs=1e-6)


def test_nothing_is_computed_twice(
    trained: TrainingResult, studies: Manifest, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and predicting share the stored features: those of the encoder as the bundle holds it."""

    def never(*_: object) -> None:
        raise AssertionError("an image was embedded again")

    monkeypatch.setattr(Network, "features", never)
    predict_studies(load_study_reader(trained.reader_folder), studies, "val", cache=work / "cache")


def test_the_order_of_the_manifest_changes_nothing(trained: TrainingResult, studies: Manifest, work: Path) -> None:
    reader = load_study_reader(trained.reader_folder)
    turned = studies.with_table(studies.table.iloc[::-1].reset_index(drop=True))
    one, other = (predict_studies(reader, given, "val", cache=work / "cache").studies for given in (studies, turned))
    columns = ["study", "probability_positive"]
    pd.testing.assert_frame_equal(one[columns], other[columns], atol=1e-6)


def test_folds_are_shipped_as_one_reader_with_one_encoder(studies: Manifest, work: Path) -> None:
    result = train_study(studies, quick(folds=2, epochs=2), work / "folds", cache=work / "cache")
    assert result.card.networks == 2
    assert set(result.predictions["fold"]) == {0, 1}
    rest = studies.table[studies.table["split"] != "test"]
    assert len(result.predictions) == rest["study"].nunique()
    assert load_study_reader(result.reader_folder).spec.one_encoder


def test_end_to_end_keeps_what_it_learned(studies: Manifest, work: Path) -> None:
    config = quick(mode="finetune", model="cnn", image_size=32, epochs=2, gate=False, pooling="max")
    result = train_study(studies, config, work / "whole")
    reader = load_study_reader(result.reader_folder)
    again = predict_studies(reader, studies, "val").studies.set_index("study")["probability_positive"]
    recorded = result.predictions.set_index("study")["probability_positive"]
    assert again.loc[recorded.index].to_numpy() == pytest.approx(recorded.to_numpy(), abs=1e-5)


def test_the_usual_network_of_mura_is_one_line() -> None:
    """One sigmoid with binary cross-entropy on DenseNet201."""
    from wetread.models.backbones import embedding_width, make_encoder
    from wetread.models.card import InputSpec
    from wetread.models.mil import build_study_network

    config = StudyConfig(model="densenet201", mode="finetune", pooling="mean", hidden=0)
    encoder = make_encoder(config.model, InputSpec(height=64, width=64))
    assert embedding_width(encoder) == 1920
    network = build_study_network((config.model, config.specification(())), encoder, 1, config.dropout)
    assert network.head.classifier.weight.shape == (1, 1920)  # type: ignore[union-attr]


def test_a_class_that_no_study_has_is_refused(studies: Manifest, work: Path) -> None:
    table = studies.table
    only = table[(table["split"] != "val") | (table["label"] == "negative")].reset_index(drop=True)
    with pytest.raises(DatasetRefused, match="expected validation images of every class, got 0 with and"):
        train_study(studies.with_table(only, split=None), quick(), work / "one-class")
    assert not (work / "one-class").exists()


def test_a_manifest_without_a_split_is_refused(studies: Manifest, work: Path) -> None:
    with pytest.raises(SplitRefused, match="expected images in the split 'train', got none"):
        train_study(studies.with_table(studies.table.assign(split=None), split=None), quick(), work / "no-split")


def test_noisy_or_needs_labels_that_do_not_exclude_each_other(studies: Manifest, work: Path) -> None:
    table = studies.table.copy()
    numbers = table["study"].astype("category").cat.codes
    table["label"] = np.where(table["label"] == "negative", "negative", np.where(numbers % 2, "crack", "plate"))
    several = studies.with_table(table, task="multiclass", classes=("negative", "crack", "plate"), split=None)
    with pytest.raises(UsageError, match="expected labels that do not exclude each other, for noisy-or"):
        train_study(several, quick(pooling="noisy-or"), work / "noisy")
