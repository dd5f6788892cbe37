"""End-to-end: the gradients of a study in pieces are those of the whole, and a run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.training.study_support import bones, network_of, quick
from wetread.datasets.manifest import Manifest
from wetread.errors import Interrupted, TrainingFailed
from wetread.models.card import InputSpec, StudySpec
from wetread.models.mil import StudyNetwork, ViewHead
from wetread.training.study_data import bags_of
from wetread.training.study_finetune import StudyTask, finetune_study, study_step

SPEC = StudySpec(hidden=16, attention=8, one_encoder=False)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return bones(tmp_path_factory.mktemp("bones") / "set", patients=28, size_px=32, parts=("HUMERUS", "FINGER"))


def task_of(manifest: Manifest, folder: Path, **changes: Any) -> StudyTask:
    table = manifest.table[manifest.table["split"].isin(["train", "val"])].reset_index(drop=True)
    bags = bags_of(table, manifest.meta)
    side = (bags.table["split"] == "train").to_numpy()
    config = quick(mode="finetune", model="cnn", image_size=32, hidden=16, epochs=2, drop_views=0.0, **changes)
    train, judged = bags.take(np.flatnonzero(side)), bags.take(np.flatnonzero(~side))
    spec = InputSpec(height=32, width=32)
    return StudyTask(manifest, table, train, judged, spec, config, False, folder)


def gradients(network: StudyNetwork, task: StudyTask, *, whole: bool = True) -> dict[str, torch.Tensor]:
    network.zero_grad()
    network.eval()  # the loss of a step is then the same function of the weights each time
    study_step(network, task, np.arange(5), np.random.default_rng(3), whole=whole)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_gradients_do_not_depend_on_how_many_images_are_held(studies: Manifest, tmp_path: Path) -> None:
    network = network_of(SPEC)
    at_once = gradients(network, task_of(studies, tmp_path, images_held=4096, augment="none"))
    for held in (1, 3):
        in_pieces = gradients(network, task_of(studies, tmp_path, images_held=held, augment="none"))
        assert in_pieces.keys() == at_once.keys()
        for name, gradient in at_once.items():
            assert torch.allclose(in_pieces[name], gradient, rtol=1e-3, atol=1e-6), name
    assert any(bool((gradient != 0).any()) for name, gradient in at_once.items() if name.startswith("encoder"))


def test_both_passes_see_the_same_varied_images(studies: Manifest, tmp_path: Path) -> None:
    """With augmentation the gradient of the pieces is that of finite differences of the loss."""
    network, task = network_of(SPEC), task_of(studies, tmp_path, images_held=2, augment="light")
    grads = gradients(network, task)
    weight = network.head.classifier.weight  # type: ignore[union-attr]
    step = 1e-2
    with torch.no_grad():
        losses = []
        for sign in (1, -1):
            weight += sign * step  # type: ignore[operator]
            losses.append(study_step_loss(network, task))
            weight -= sign * step
    slope = (losses[0] - losses[1]) / (2 * step)
    assert slope == pytest.approx(float(grads["head.classifier.weight"].sum()), rel=2e-2, abs=1e-4)


def study_step_loss(network: StudyNetwork, task: StudyTask) -> float:
    with torch.enable_grad():
        return study_step(network, task, np.arange(5), np.random.default_rng(3))


def test_the_first_epochs_leave_the_encoder_alone(studies: Manifest, tmp_path: Path) -> None:
    found = gradients(network_of(SPEC), task_of(studies, tmp_path), whole=False)
    assert found.keys() == {name for name in found if name.startswith(("head.", "pool."))}
    assert "head.classifier.weight" in found


def test_no_feature_is_enlarged_more_than_the_median_one(studies: Manifest, tmp_path: Path) -> None:
    network = network_of(SPEC)
    finetune_study(network, task_of(studies, tmp_path))
    spread = cast(ViewHead, network.head).std
    assert (spread == spread.min()).float().mean() >= 0.5  # half of them were below the median


def test_a_stopped_run_goes_on_to_the_same_weights(studies: Manifest, tmp_path: Path) -> None:
    through = finetune_study(network_of(SPEC), task_of(studies, tmp_path / "a"))
    stopped = task_of(studies, tmp_path / "b")
    steps = -(-len(stopped.train) // stopped.config.batch_size)

    def halt_in_second_epoch(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("training", 2 * steps)
        if done > steps:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"stopped; the last whole epoch is saved in .*go on with --resume"):
        finetune_study(network_of(SPEC), stopped, progress=halt_in_second_epoch)
    resumed = finetune_study(network_of(SPEC), stopped, resume=True)
    assert np.allclose(resumed.logits, through.logits, atol=1e-5)


def test_a_damaged_checkpoint_is_refused(studies: Manifest, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingFailed, match=r"expected a whole checkpoint in .*got a damaged one; remove it"):
        finetune_study(network_of(SPEC), task_of(studies, tmp_path), resume=True)
