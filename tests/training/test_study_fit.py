"""The head on vectors: it finds the one image that matters, and does so the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.study_support import key_vectors, network_of, quick
from wetread.errors import TrainingFailed
from wetread.models.card import StudySpec
from wetread.models.mil import StudyNetwork, ViewHead
from wetread.training.score import mean_auroc
from wetread.training.study_config import StudyConfig
from wetread.training.study_fit import BagFeatures, EpochLog, bag_logits, fit_head, left_in

KEEN = quick(epochs=25, patience=25, learning_rate=5e-3, drop_views=0.0)


def fitted(folder: Path, config: StudyConfig = KEEN, pooling: str = "attention") -> tuple[StudyNetwork, BagFeatures]:
    spec = StudySpec.model_validate({"pooling": pooling, "hidden": 32, "attention": 16})
    network = network_of(spec)
    train, judged = key_vectors(160, 1)[0], key_vectors(60, 2)[0]
    head = network.head
    assert isinstance(head, ViewHead)
    head.standardise(train.vectors.numpy())
    fit_head(network, train, judged, config, softmax=False, log=EpochLog(folder))
    return network, judged


def test_attention_learns_from_labels_of_studies_which_image_matters(tmp_path: Path) -> None:
    network, _ = fitted(tmp_path)
    test, keys = key_vectors(80, 3)
    assert mean_auroc(bag_logits(network, test), test.targets.numpy()) > 0.97
    right, asked = 0, 0
    for number, key in enumerate(keys):
        if key is None or test.lengths[number] == 1:
            continue
        (rows,) = test.rows_of(np.array([number]))
        with torch.no_grad():
            weights = network.study(test.vectors[torch.from_numpy(rows)], [len(rows)]).weights[0, :, 0]
        right, asked = right + int(int(weights.argmax()) == key), asked + 1
    assert right / asked >= 0.9


@pytest.mark.parametrize("pooling", ["max", "noisy-or", "log-sum-exp", "gated-attention"])
def test_other_poolings_learn_it_too(tmp_path: Path, pooling: str) -> None:
    network, judged = fitted(tmp_path, pooling=pooling)
    assert mean_auroc(bag_logits(network, judged), judged.targets.numpy()) > 0.9


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    short = KEEN.model_copy(update={"epochs": 3, "drop_views": 0.2})
    one, two = (fitted(tmp_path / name, short)[0] for name in ("a", "b"))
    for left, right in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    fitted(tmp_path, KEEN.model_copy(update={"epochs": 3}))
    lines = (tmp_path / "logs" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "epoch,step,train_loss,val_loss,val_auroc"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


def test_judging_in_pieces_is_judging_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, judged = fitted(tmp_path, KEEN.model_copy(update={"epochs": 1}))
    whole = bag_logits(network, judged)
    monkeypatch.setattr("wetread.training.study_fit._JUDGED_IMAGES", 5)
    assert np.allclose(bag_logits(network, judged), whole, atol=1e-5)


def test_some_images_are_left_out_but_never_all() -> None:
    rng = np.random.default_rng(0)
    sizes = [len(left_in(np.arange(4), 0.9, rng)) for _ in range(200)]
    assert min(sizes) == 1
    assert 1.0 < np.mean(sizes) < 2.0
    assert left_in(np.arange(5), 0.0, rng).tolist() == [0, 1, 2, 3, 4]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    network = network_of(StudySpec(hidden=8))
    data: dict[str, Any] = {"lengths": np.array([1, 1]), "targets": torch.tensor([[0.0], [1.0]])}
    bags = BagFeatures(torch.full((2, 256), torch.nan), **data)
    with pytest.raises(TrainingFailed, match="expected a finite loss, got nan; lower --learning-rate"):
        fit_head(network, bags, bags, KEEN, softmax=False, log=EpochLog(tmp_path))
