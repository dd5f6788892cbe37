"""The Lightning module's parts: AUROC, rates by depth, averaging, loaders, and a frozen encoder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from tests.training.support import blobs, tiny
from wetread.models.backbones import build_network
from wetread.models.card import HeadSpec, InputSpec
from wetread.models.inputs import normalise
from wetread.models.networks import Network
from wetread.training.finetune import FinetuneTask, finetune
from wetread.training.loop import Averaging
from wetread.training.module import parameter_groups, train_loader, validation_loader
from wetread.training.score import mean_auroc

SPEC = InputSpec(height=32, width=32)


def network_of(architecture: str = "cnn", outputs: int = 1, head: str = "linear") -> Network:
    torch.manual_seed(0)
    spec = HeadSpec(kind="mlp" if head == "mlp" else "linear")
    return build_network(architecture, spec, SPEC, outputs, softmax=False)


@pytest.mark.parametrize("architecture", ["cnn", "tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_every_parameter_is_in_one_group_and_the_head_is_fastest(architecture: str, head: str) -> None:
    network = network_of(architecture, head=head)
    config = tiny(learning_rate=1e-3, layer_decay=0.5, weight_decay=0.05)
    groups = parameter_groups(network, config)
    counts = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert set(counts) == {id(parameter) for parameter in network.parameters()}
    assert set(counts.values()) == {1}

    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    encoder = {rate[id(parameter)] for parameter in network.encoder.parameters()}
    assert {rate[id(parameter)] for parameter in network.head.parameters()} == {3e-3}
    assert max(encoder) == pytest.approx(1e-3)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    if architecture != "cnn":
        assert len(encoder) > 2
        assert all(decay[id(p)] == 0 for p in network.encoder.parameters() if p.ndim <= 1)


@pytest.mark.parametrize(
    ("architecture", "early", "late"),
    [
        ("tf_efficientnet_lite0", "conv_stem.weight", "blocks.6.0.conv_pwl.weight"),
        ("resnet18", "layer1.0.conv1.weight", "layer4.1.conv2.weight"),
        ("vit_tiny_patch16_224", "blocks.0.attn.qkv.weight", "blocks.11.attn.qkv.weight"),
    ],
)
def test_earlier_blocks_learn_more_slowly(architecture: str, early: str, late: str) -> None:
    network = network_of(architecture)
    groups = parameter_groups(network, tiny(learning_rate=1e-3, layer_decay=0.5))
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = dict(network.encoder.named_parameters())
    assert rate[id(named[early])] < rate[id(named[late])] <= 1e-3
    even = parameter_groups(network, tiny(learning_rate=1e-3, layer_decay=1.0))
    assert {group["lr"] for group in even} == {1e-3, 3e-3}


class _Holder(lightning.LightningModule):
    """One batch norm: a weight, a running mean and a whole number of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def put(self, value: float, batches: int) -> None:
        self.norm.load_state_dict(
            {
                "weight": torch.tensor([value]),
                "bias": torch.zeros(1),
                "running_mean": torch.tensor([2 * value]),
                "running_var": torch.ones(1),
                "num_batches_tracked": torch.tensor(batches),
            }
        )


def test_averaging_follows_its_warm_up() -> None:
    """Decay (1 + n) / (10 + n) after n updates, at most the asked one; the first update copies."""
    holder, averaging = _Holder(), Averaging(0.3)
    averaging.setup(lightning.Trainer(logger=False, enable_checkpointing=False), holder, stage="fit")
    average = averaging._average_model
    assert average is not None
    kept = 0.0
    for update, value in enumerate([4.0, 8.0, -2.0, 6.0, 1.0, 0.0, 3.0]):
        holder.put(value, update)
        average.update_parameters(holder)
        decay = min(0.3, (1 + update) / (10 + update)) if update else 0.0
        kept = decay * kept + (1 - decay) * value
        state = average.module.state_dict()
        assert float(state["norm.weight"]) == pytest.approx(kept, rel=1e-5)
        assert float(state["norm.running_mean"]) == pytest.approx(2 * kept, rel=1e-5)
        assert int(state["norm.num_batches_tracked"]) == update
    assert min(0.3, 7 / 16) == 0.3  # the run reached the asked decay


def task_of(folder: Path, **changes: Any) -> FinetuneTask:
    return FinetuneTask(blobs(48), blobs(24, seed=1), SPEC, tiny(**changes), softmax=False, folder=folder)


def test_head_epochs_leave_the_encoder_as_it_was(tmp_path: Path) -> None:
    network = network_of()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    finetune(network, task_of(tmp_path, epochs=2, head_epochs=2, averaging=0.0))
    after = network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"head.1.weight", "head.1.bias"}
    assert any("running_mean" in key for key in before)  # statistics were among what stayed


def test_after_the_head_epochs_everything_learns(tmp_path: Path) -> None:
    network = network_of()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    finetune(network, task_of(tmp_path, epochs=2, head_epochs=0, averaging=0.0, augment="none"))
    after = network.state_dict()
    assert {key for key in before if torch.equal(before[key], after[key])} == set()


def test_training_learns_what_is_plain_to_see(tmp_path: Path) -> None:
    network = network_of()
    task = task_of(tmp_path, epochs=4, augment="none", averaging=0.9, learning_rate=3e-3)
    finetune(network, task)
    pixels, targets, _ = next(iter(validation_loader(task.validation)))
    with torch.inference_mode():
        scores = network(normalise(pixels, SPEC))
    assert mean_auroc(scores.numpy(), targets.numpy()) > 0.9


def test_batches_are_shuffled_whole_and_the_same_for_a_seed() -> None:
    images = blobs(50)
    loader = train_loader(images, tiny(batch_size=16), 3)
    sizes = [len(batch.pixels) for batch in loader]
    assert sizes == [16, 16, 16]
    first, again, other = (
        torch.cat([batch.targets for batch in train_loader(images, tiny(batch_size=16), seed)]) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    ordered = torch.cat([batch.targets for batch in validation_loader(images)])
    assert torch.equal(ordered, torch.from_numpy(images.targets))


def test_fewer_images_than_a_batch_still_make_one() -> None:
    assert [len(batch.pixels) for batch in train_loader(blobs(10), tiny(batch_size=16), 0)] == [10]


def test_sampling_shows_rare_and_common_equally_often() -> None:
    images = blobs(200)
    rare = np.zeros((200, 1), np.float32)
    rare[:20] = 1
    images.targets[:] = rare
    loader = train_loader(images, tiny(batch_size=20, balance="sampling"), 0)
    drawn = torch.cat([batch.targets for _ in range(10) for batch in loader])
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.05)
    plain = torch.cat([batch.targets for batch in train_loader(images, tiny(batch_size=20), 0)])
    assert float(plain.mean()) == pytest.approx(0.1, abs=1e-6)
