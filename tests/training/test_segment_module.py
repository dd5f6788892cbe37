"""The Lightning module of a segmenter: Dice by hand, batches, masks that move with their image, losses, rates."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.training.support import tiny_organs
from wetread.models.card import InputSpec
from wetread.models.registry import EMBEDDED
from wetread.models.segmenters import build_segmenter, encoder_parameters
from wetread.training import segment_module
from wetread.training.augment import RECIPES, Recipe
from wetread.training.config import SegmentConfig
from wetread.training.segment_data import AnnotatedImages
from wetread.training.segment_losses import segment_loss
from wetread.training.segment_module import Batch, SegmentModule, batch_dice, segment_loader

PLAIN = InputSpec(height=64, width=64, channels=1, standardise="fixed", mean=0.0, std=1.0)
"""The network sees the pixels as they are."""


class Recorder(nn.Module):
    """A network that keeps what it was shown and answers with constants it can learn."""

    def __init__(self, organs: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, organs))
        self.seen = torch.empty(0)

    def forward(self, batch: Tensor) -> Tensor:
        self.seen = batch.detach()
        rows, columns = batch.shape[2:]
        return self.logits[None, :, None, None].expand(len(batch), -1, rows, columns)


def drawings(count: int, organs: int = 1) -> AnnotatedImages:
    """Images of random blocks; the mask of each organ is the image itself."""
    blocks = np.random.default_rng(0).random((count, 8, 8)) > 0.5
    image = np.kron(blocks, np.ones((8, 8), bool))
    table = pd.DataFrame({"path": [f"{number}.png" for number in range(count)]})
    masks = np.repeat(image[:, None], organs, axis=1)
    return AnnotatedImages(table, image * np.uint16(65535), masks, np.ones((count, organs), bool))


def module_of(recipe: Recipe, organs: int = 1, **changes: Any) -> tuple[SegmentModule, dict[str, list[float]]]:
    """A module on a :class:`Recorder`, and what it logs."""
    config: SegmentConfig = tiny_organs(organs=tuple(f"organ{k}" for k in range(organs)), **changes)
    module = SegmentModule(Recorder(organs), PLAIN, config, recipe)
    logged: dict[str, list[float]] = {}

    def log(name: str, value: Any, **_: Any) -> None:
        logged.setdefault(name, []).append(float(torch.as_tensor(value).detach()))

    module.log = log  # type: ignore[method-assign,assignment]
    return module, logged


def only_batch(images: AnnotatedImages) -> Batch:
    batches: list[Batch] = list(segment_loader(images, len(images)))
    assert len(batches) == 1
    return batches[0]


def test_dice_of_a_batch_by_hand() -> None:
    masks = torch.zeros(2, 2, 4, 4)
    masks[0, 0, :2] = 1  # 8 pixels
    masks[1, 1, 0, 0] = 1
    found = torch.zeros(2, 2, 4, 4)
    found[0, 0, 1:3] = 0.5  # 8 pixels, 4 of them right: one half counts
    found[0, 1] = 0.49  # empty, as is the mask: not counted
    found[1, 0] = 1.0  # 16 pixels where none is: 0
    known = torch.ones(2, 2, dtype=torch.bool)
    assert batch_dice(found, masks, known) == [2 * 4 / 16, 0.0, 0.0]
    known[1] = False
    assert batch_dice(found, masks, known) == [0.5]


def test_batches_are_shuffled_by_their_seed_alone() -> None:
    images = drawings(10)

    def order(seed: int | None) -> list[int]:
        marks = images.pixels.reshape(10, -1).astype(np.float64) @ np.arange(64 * 64)
        batches = [batch[0] for batch in segment_loader(images, 4, seed)]
        sums = [float(one.flatten().double() @ torch.arange(64 * 64).double()) * 65535 for b in batches for one in b]
        return [int(np.abs(marks - value).argmin()) for value in sums]

    assert order(None) == list(range(10))
    assert len(order(0)) == len(set(order(0))) == 8  # the last two make no whole batch
    assert order(0) == order(0)
    assert order(0) != order(1)


def test_few_images_make_one_batch() -> None:
    assert [len(batch[0]) for batch in segment_loader(drawings(3), 16, seed=0)] == [3]


def test_an_image_comes_with_its_masks_and_what_is_known() -> None:
    images = drawings(3, organs=2)
    images.known[1, 0] = False
    pixels, masks, known = only_batch(images)
    assert (pixels.shape, masks.shape) == ((3, 1, 64, 64), (3, 2, 64, 64))
    torch.testing.assert_close(masks[:, :1], pixels)
    assert known.tolist() == images.known.tolist()


MOVES = Recipe(rotation_degrees=15, zoom=(0.7, 1.3), log_aspect=0.4, shift=0.1, mirror=True)


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The masks that the loss is given."""
    given: list[Tensor] = []

    def loss(name: str, logits: Tensor, masks: Tensor, **_: Any) -> Tensor:
        given.append(masks)
        return logits.sum()

    monkeypatch.setattr(segment_module, "segment_loss", loss)
    return given


def test_a_mask_moves_with_its_image(targets: list[Tensor]) -> None:
    """The mask is drawn as the image itself, and is so still after both were moved."""
    module, _ = module_of(MOVES)
    batch = only_batch(drawings(6))
    module.training_step(batch, 0)
    shown = module.network.seen
    assert isinstance(shown, Tensor)
    torch.testing.assert_close(targets[0], shown, rtol=0, atol=0)
    assert float((targets[0] - batch[1]).abs().mean()) > 0.1


def test_only_the_image_changes_its_greys(targets: list[Tensor]) -> None:
    still = {"rotation_degrees": 0.0, "zoom": (1.0, 1.0), "shift": 0.0, "log_aspect": 0.0}
    module, _ = module_of(RECIPES["organs"].model_copy(update=still))
    batch = only_batch(drawings(4))
    module.training_step(batch, 0)
    torch.testing.assert_close(targets[0], batch[1])
    assert float((module.network.seen - batch[0]).abs().mean()) > 0.05  # type: ignore[operator]


def test_the_same_step_draws_the_same_augmentation() -> None:
    seen = []
    for seed in (0, 0, 1):
        module, _ = module_of(RECIPES["organs"], seed=seed)
        module.training_step(only_batch(drawings(4)), 0)
        seen.append(module.network.seen)
    assert torch.equal(seen[0], seen[1])  # type: ignore[arg-type]
    assert not torch.equal(seen[0], seen[2])  # type: ignore[arg-type]


def test_an_unknown_mask_moves_nothing() -> None:
    module, logged = module_of(RECIPES["none"], organs=2)
    images = drawings(4, organs=2)
    images.known[:, 1] = False
    loss = module.training_step(only_batch(images), 0)
    loss.backward()
    gradient = module.network.logits.grad
    assert isinstance(gradient, Tensor)
    assert gradient[0] != 0
    assert gradient[1] == 0
    assert logged["train_loss"] == [float(loss.detach())]


def test_exclusive_organs_learn_with_a_background() -> None:
    images = drawings(3, organs=2)
    images.masks[:, 1] = False
    images.masks[:, 1, :8] = ~images.masks[:, 0, :8]
    module, _ = module_of(RECIPES["none"], organs=2, exclusive=True)
    batch = only_batch(images)
    found = module.training_step(batch, 0)
    masks = batch[1]
    logits = torch.tensor([0.0, -1.0, 1.0])[None, :, None, None].expand(3, 3, 64, 64)
    targets = torch.cat([1 - masks.sum(1, keepdim=True), masks], 1)
    torch.testing.assert_close(found, segment_loss("dice-ce", logits, targets, softmax=True))
    alone, _ = module_of(RECIPES["none"], organs=2)
    assert float((found - alone.training_step(batch, 0)).abs().detach()) > 0.01


def test_an_exclusive_image_that_is_known_in_part_counts_for_nothing() -> None:
    images = drawings(2, organs=2)
    images.masks[:, 1] = False
    images.known[0, 1] = False
    module, _ = module_of(RECIPES["none"], organs=2, exclusive=True)
    both = module.training_step(only_batch(images), 0)
    whole = module.training_step(only_batch(images.take(np.array([1]))), 0)
    torch.testing.assert_close(both, whole)


def test_the_score_of_an_epoch_is_the_mean_over_its_images() -> None:
    module, logged = module_of(RECIPES["none"], organs=2)  # logits -1 and 1: no pixel, and every pixel
    images = drawings(4, organs=2)
    for part in (np.array([0, 1, 2]), np.array([3])):
        module.validation_step(only_batch(images.take(part)), 0)
    module.on_validation_epoch_end()
    shares = images.masks[:, 1].mean((1, 2))
    assert logged["val_dice"] == [pytest.approx(np.mean([*np.zeros(4), *(2 * shares / (1 + shares))]))]
    module.on_validation_epoch_end()
    assert logged["val_dice"][1] == 0


def rates(network: nn.Module, steps: int, **changes: Any) -> tuple[Any, Any]:
    module = SegmentModule(network, PLAIN, tiny_organs(**changes), RECIPES["none"])
    trainer: Any = types.SimpleNamespace(estimated_stepping_batches=steps)
    module.trainer = trainer
    found = module.configure_optimizers()
    return found["optimizer"], found["lr_scheduler"]["scheduler"]


def test_the_learned_encoder_is_slower_than_the_decoder() -> None:
    network = build_segmenter("unet", 1, PLAIN, encoder=EMBEDDED, decoder=(8, 8, 8, 8, 8))
    optimiser, _ = rates(network, 8, learning_rate=1e-2, encoder_rate=0.25, schedule="cosine")
    slow, fast = optimiser.param_groups
    assert (slow["lr"], fast["lr"]) == (pytest.approx(2.5e-3), pytest.approx(1e-2))
    assert {id(p) for p in slow["params"]} == {id(p) for p in encoder_parameters(network)}
    assert len(slow["params"]) + len(fast["params"]) == len(list(network.parameters()))


def test_a_network_without_a_learned_encoder_has_one_rate() -> None:
    optimiser, _ = rates(Recorder(1), 8, learning_rate=1e-2, schedule="cosine")
    assert [group["lr"] for group in optimiser.param_groups] == [pytest.approx(1e-2)]


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 40])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_run_of_any_length_has_a_schedule(schedule: str, steps: int) -> None:
    optimiser, scheduler = rates(Recorder(1), steps, learning_rate=1e-2, schedule=schedule)
    seen = []
    for _ in range(steps - 1):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    seen.append(optimiser.param_groups[0]["lr"])
    assert max(seen) <= 1e-2 + 1e-9
    if steps > 8:
        assert seen[-1] < max(seen) / 10
        assert (seen[0] < max(seen) / 10) == (schedule == "onecycle")
